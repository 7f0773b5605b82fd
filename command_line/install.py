"""`topics`, `stores`, `create-admin`: what is to be there before the bank opens."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from agents.ask import Question, ask
from agents.errors import CannotStart
from command_line.broker import codec_of, reach_broker
from domain.user import RegisterUser, Role, UserCommandRefused, UserRegistered
from stores.configured import configured
from topics import apply as topics_apply
from topics.catalog import Installation

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from command_line.main import Add
    from settings import Settings
    from stores.configured import Whole

ADMIN_WAIT_S = 30.0


def declare(add: Add) -> None:
    command = add("topics", topics, "create the topics, or say why they can't be as they should")
    command.add_argument("action", choices=["apply"], help="bring the broker up to the catalog")

    command = add("stores", stores, "bring the schema of each store up to this program")
    command.add_argument("action", choices=["migrate"], help="take the steps that are missing")

    command = add("create-admin", create_admin, "register an administrator")
    command.add_argument("--email", required=True)
    command.add_argument(
        "--password-file", type=Path, help="else STREAMBANK_ADMIN_PASSWORD is read"
    )


def topics(settings: Settings, _options: argparse.Namespace) -> int:
    reach_broker(settings)
    done = topics_apply.apply(settings.kafka, Installation.of(settings))
    print("\n".join(done) if done else "all topics are as they should be")
    return 0


def stores(settings: Settings, _options: argparse.Namespace) -> int:
    return asyncio.run(_migrate(configured(settings)))


async def _migrate(stores: Mapping[str, Whole]) -> int:
    for name, store in stores.items():
        try:
            print(f"{name} is at {await store.migrate()}")
        finally:
            await store.close()
    if not stores:
        print("no store is configured")
    return 0


def create_admin(settings: Settings, options: argparse.Namespace) -> int:
    """Register a user with all roles of an administrator; wait until the user service has done so."""
    password = _password(settings, options.password_file)
    reach_broker(settings)
    command = _registration(options.email, password, settings.password_rounds)
    question = Question(
        service="user",
        key=command.address,
        command=command,
        actor_id=command.user_id,
        ends=(UserRegistered, UserCommandRefused),
    )
    outcome = ask(settings.kafka, settings.prefix, codec_of(settings), question, ADMIN_WAIT_S)
    if outcome is None:
        raise CannotStart(
            f"the command was sent, but no worker answered within {ADMIN_WAIT_S:.0f} s: "
            "start `pipeline.py worker user`, then try again"
        )
    if isinstance(outcome, UserCommandRefused):
        raise CannotStart(f"{options.email} was refused: {outcome.reason}")
    print(f"{options.email} is an administrator, user_id {outcome.user_id}")
    return 0


def _password(settings: Settings, file: Path | None) -> str:
    if file is not None and not file.is_file():
        raise CannotStart(f"there is no file {file} to read the password from")
    password = file.read_text().strip() if file is not None else settings.admin_password
    if not password:
        raise CannotStart("no password: set STREAMBANK_ADMIN_PASSWORD or give --password-file")
    return password


def _registration(email: str, password: str, rounds: int) -> RegisterUser:
    from gateway.passwords import hashed

    user_id = str(uuid.uuid4())
    return RegisterUser(
        user_id=user_id,
        address=email.strip().lower(),
        email=email.strip(),
        name="administrator",
        password_hash=hashed(password, rounds),
        roles=(Role.ADMIN,),
        actor_id=user_id,
        request_hash=hashlib.sha256(user_id.encode()).hexdigest(),
    )

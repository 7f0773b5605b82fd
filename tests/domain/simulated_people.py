"""What people of the simulator do about themselves, and what holds of them whatever they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.credentials import (
    ChangePassword,
    ConfirmEmail,
    Credentials,
    RequestEmailConfirmation,
    RequestPasswordReset,
    ResetPassword,
)
from domain.kyc import DecideKyc, KycDecision, KycDetails, KycFile, KycOpen, SubmitKyc
from domain.person import KycStatus, User, normalised
from domain.session import (
    Cause,
    EndSession,
    EndSessions,
    OpenSession,
    RefreshSession,
    RefreshToken,
    Session,
    SessionList,
    is_live,
)
from domain.user import Address, ChangeProfile, ClaimAddress, ProfileChange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.domain.simulator import Bank

DETAILS = KycDetails(full_name="A Person", date_of_birth="1990-01-01", country="FR")


def live(bank: Bank, people: Sequence[str]) -> None:
    """One thing that somebody does about themselves."""
    person, n = bank.chance.choice(people), bank.chance.randrange(10**9)
    match bank.chance.randrange(9):
        case 0 | 1:
            log_in(bank, person, n)
        case 2 | 3:
            refresh(bank, person, n)
        case 4:
            log_out(bank, person, n)
        case 5:
            change_password(bank, person, n)
        case 6:
            move(bank, person, n)
        case 7:
            confirm(bank, person, n)
        case _:
            be_known(bank, person, n)


def log_in(bank: Bank, person: str, n: int) -> None:
    session_id = f"s{n}"
    bank.logins.setdefault(person, {})[session_id] = [f"{session_id}.0"]
    command = OpenSession(
        user_id=person,
        session_id=session_id,
        refresh_hash=f"{session_id}.0",
        client="",
        address="",
        actor_id=person,
    )
    bank.send("user", person, command)


def refresh(bank: Bank, person: str, n: int) -> None:
    """Mostly with the newest token, sometimes with one that was used."""
    sessions = bank.logins.get(person)
    if not sessions:
        return
    session_id = bank.chance.choice([*sessions])
    tokens = sessions[session_id]
    presented = tokens[-1] if bank.chance.random() < 0.7 else bank.chance.choice(tokens)
    tokens.append(f"{session_id}.{n}")
    command = RefreshSession(
        user_id=person,
        session_id=session_id,
        presented_hash=presented,
        next_hash=tokens[-1],
        actor_id=person,
    )
    bank.send("user", person, command)


def log_out(bank: Bank, person: str, n: int) -> None:
    session_id = bank.chance.choice([*bank.logins.get(person, {}), "none"])
    if bank.chance.random() < 0.5:
        end = EndSession(
            user_id=person, session_id=session_id, cause=Cause.LOGGED_OUT, actor_id=person
        )
        bank.send("user", person, end)
    else:
        all_ = EndSessions(
            user_id=person, kept_session_id=session_id, end_id=f"e{n}", actor_id=person
        )
        bank.send("user", person, all_)


def change_password(bank: Bank, person: str, n: int) -> None:
    kept = [row for _, row in bank.all_rows("user") if isinstance(row, Credentials)]
    change = ChangePassword(
        user_id=person,
        verified_hash=bank.chance.choice(kept).password_hash,
        password_hash=f"$2b${n}",
        change_id=f"c{n}",
        kept_session_id=None,
        actor_id=person,
    )
    forgot = RequestPasswordReset(
        user_id=person, mail_id=f"m{n}", token_hash=f"r-{person}", actor_id=person
    )
    reset = ResetPassword(
        user_id=person, token_hash=f"r-{person}", password_hash=f"$2b${n}", actor_id=person
    )
    bank.send("user", person, bank.chance.choice((change, forgot, reset)))


def move(bank: Bank, person: str, n: int) -> None:
    """Another e-mail, of few that all would like; or another name."""
    if bank.chance.random() < 0.3:
        rename = ChangeProfile(user_id=person, change=ProfileChange(name=f"P{n}"), actor_id=person)
        bank.send("user", person, rename)
        return
    email = f"{bank.chance.choice(('One', 'Two', person))}@new.example"
    claim = ClaimAddress(
        user_id=person,
        address=normalised(email),
        email=email,
        claim_id=f"claim{n}",
        token_hash=f"t-{person}",
        change=ProfileChange(),
        actor_id=person,
    )
    bank.send("user", claim.address, claim)


def confirm(bank: Bank, person: str, n: int) -> None:
    mail = RequestEmailConfirmation(
        user_id=person, mail_id=f"m{n}", token_hash=f"t-{person}", actor_id=person
    )
    bank.send("user", person, mail)
    confirmed = ConfirmEmail(user_id=person, token_hash=f"t-{person}", actor_id=person)
    bank.send("user", person, confirmed)


def be_known(bank: Bank, person: str, n: int) -> None:
    file = dict(bank.all_rows("user")).get(f"kyc/{person}")
    if isinstance(file, KycFile) and file.status is KycStatus.PENDING:
        decide = DecideKyc(
            user_id=person,
            submission_id=file.submission_id,
            decision=bank.chance.choice([*KycDecision]),
            level=file.level,
            note="",
            actor_id="officer",
        )
        bank.send("user", person, decide)
        return
    submit = SubmitKyc(
        user_id=person,
        level=bank.chance.choice((1, 2)),
        details=DETAILS,
        submission_id=f"k{n}",
        actor_id=person,
    )
    bank.send("user", person, submit)


def check(bank: Bank, expect: Callable[[bool, str], None]) -> None:
    """Of a quiet bank: addresses, sessions and what is known of people fit each other."""
    rows = dict(bank.all_rows("user"))
    users = {row.user_id: row for row in rows.values() if isinstance(row, User)}
    for user in users.values():
        address = rows.get(f"address/{normalised(user.email)}")
        expect(isinstance(address, Address), f"{user.email} is nobody's")
        assert isinstance(address, Address)
        expect(address.user_id == user.user_id, f"{user.email} is of {address.user_id}")
        expect(address.claim_id == user.claim_id, f"{user}: its address is {address}")
    addresses = sum(isinstance(row, Address) for row in rows.values())
    expect(addresses == len(users), f"{addresses} addresses of {len(users)} users")
    for user in users.values():
        waits = isinstance(rows.get(f"kyc-open/{user.user_id}"), KycOpen)
        expect(waits == (user.kyc_status is KycStatus.PENDING), f"who waits for KYC: {user}")
    for key, row in rows.items():
        if isinstance(row, Session):
            check_session(bank, key, row, rows, expect)


def check_session(
    bank: Bank,
    key: str,
    row: Session,
    rows: dict[str, Any],
    expect: Callable[[bool, str], None],
) -> None:
    """A session that lives can be refreshed by a token that was given, one that ended by none."""
    sessions, token = (
        rows[f"sessions-of/{row.user_id}"],
        rows.get(key.replace("session/", "refresh/")),
    )
    assert isinstance(sessions, SessionList)
    expect(row.ended_ms is None or token is None, f"{key} has ended, and its token is kept")
    if is_live(row, sessions, bank.now_ms):
        assert isinstance(token, RefreshToken)
        given = bank.logins[row.user_id][row.session_id]
        expect(token.refresh_hash in given, f"nobody was given the token of {key}")

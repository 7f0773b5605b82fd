"""A broker that lets in who knows a password, over TLS: all of the bank on it by settings alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from deploy.local.kafka import HOST, Kafka
from deploy.local.processes import free_port
from tests import forked
from tests.gateway.stand import Stand, stand, town
from tests.system.test_command_line import refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER, PASSWORD = "streambank", "the broker's password, said nowhere"
MECHANISMS = {
    "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512,
}
# RSA takes the broker 1.7 x the CPU
A_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
COMMANDS = (
    ["topics", "apply"],
    ["worker", "all"],
    ["gateway"],
    ["verify"],
    ["redrive", "account.dead"],
    ["create-admin", "--email", "a@b.example"],
)


def openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def authority(directory: Path, name: str) -> None:
    """A certificate authority: `<name>.key`, `<name>.pem`."""
    openssl(
        directory,
        *("req", "-x509", *A_KEY, "-nodes", "-days", "2"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"),
    )


def signed(directory: Path, name: str, by: str) -> None:
    """`<name>.pem` for this machine, with its key in it as Kafka wants them: PKCS #8, then the chain."""
    openssl(
        directory,
        *("req", *A_KEY, "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    (directory / "names").write_text(f"subjectAltName=DNS:localhost,IP:{HOST}\n")
    openssl(
        directory,
        *("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-out", f"{name}.crt"),
        *("-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial", "-extfile", "names"),
    )
    openssl(directory, "pkcs8", "-topk8", "-nocrypt", "-in", f"{name}.key", "-out", f"{name}.p8")
    parts = (f"{name}.p8", f"{name}.crt", f"{by}.pem")
    (directory / f"{name}.pem").write_text("".join((directory / p).read_text() for p in parts))


@dataclass
class Secured:
    """Where the broker asks for TLS and a password; `directory` has the authorities' certificates."""

    kafka: Kafka
    port: int
    directory: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "STREAMBANK_KAFKA_BOOTSTRAP": f"{HOST}:{self.port}",
            "STREAMBANK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "STREAMBANK_KAFKA_SASL_USERNAME": USER,
            "STREAMBANK_KAFKA_SASL_PASSWORD": PASSWORD,
            "STREAMBANK_KAFKA_SSL_CA": str(self.directory / "ours.pem"),
        }

    def pipeline(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as one who was given these settings."""
        bare = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBANK_")}
        given = {"STREAMBANK_ADMIN_PASSWORD": "correct horse battery", **self.settings, **settings}
        there = {**bare, "STREAMBANK_LOCAL": str(self.directory), **given}
        return forked.command(*arguments, environment=there)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """SASL (SCRAM or PLAIN) over TLS for clients; a plain listener for the brokers' own alone."""
    directory = tmp_path_factory.mktemp("secured")
    authority(directory, "ours")
    authority(directory, "theirs")
    signed(directory, "broker", by="ours")
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
    listener = "listener.name.clients"
    options = {
        "listener.security.protocol.map": (
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENTS:SASL_SSL"
        ),
        f"{listener}.sasl.enabled.mechanisms": ",".join((*MECHANISMS, "PLAIN")),
        f"{listener}.plain.sasl.jaas.config": f'{plain} required user_{USER}="{PASSWORD}";',
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": str(directory / "broker.pem"),
    }
    options |= {
        f"{listener}.{name.lower()}.sasl.jaas.config": f"{scram} required;" for name in MECHANISMS
    }
    port = free_port()
    kafka = Kafka(
        directory / "kafka", options=options, listeners={"CLIENTS": port}, orphaned=signal.SIGKILL
    )
    with kafka:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        for kind in MECHANISMS.values():
            info = ScramCredentialInfo(kind, 4096)
            known = UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
            for told in admin.alter_user_scram_credentials([known]).values():
                told.result(30)
        yield Secured(kafka, port, directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def bank(secured: Secured) -> Iterator[Stand]:
    """`topics apply`, `worker all`, `gateway`, `create-admin`, at the level that says most."""
    directory = secured.directory / "bank"
    directory.mkdir()
    more = {**secured.settings, "STREAMBANK_LOG_LEVEL": "DEBUG"}
    with stand(secured.kafka, directory, f"x{uuid.uuid4().hex[:8]}-", **more) as started:
        yield started


async def test_a_transfer_on_a_secured_broker(bank: Stand) -> None:
    async with town(bank.url) as people:
        alice, bob, admin = (
            await people.customer("alice"),
            await people.customer("bob"),
            await people.admin(),
        )
        source, destination = await alice.open("USD"), await bob.open("USD")
        funded = await admin.pay(type="deposit", amount=500, destination_account_id=source)
        assert funded.status == 201, funded.text
        paid = await alice.pay(
            amount=120, source_account_id=source, destination_account_id=destination
        )
        assert (paid.status, paid.json["status"]) == (201, "completed"), paid.text
        gone = await alice.pay(type="withdrawal", amount=80, source_account_id=source)
        assert gone.status == 201, gone.text
        assert (await alice.balance(source), await bob.balance(destination)) == (300, 120)


def test_the_proof_and_dead_letters_on_a_secured_broker(bank: Stand, secured: Secured) -> None:
    prefix = {"STREAMBANK_PREFIX": bank.prefix}
    proven = secured.pipeline("verify", "--decide", **prefix)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert "all as it should be" in proven.stdout
    back = secured.pipeline("redrive", "account.dead", **prefix)
    assert (back.returncode, back.stdout) == (0, "account.dead: 0 put back\n"), back.stderr


def test_nobody_says_the_password(bank: Stand, secured: Secured) -> None:
    logs = {name: child.log.read_text() for name, child in bank.children.items()}
    assert "running" in logs["worker"]
    for name, text in logs.items():
        assert PASSWORD not in text, name
    for command, *_ in COMMANDS:
        shown = secured.pipeline(command, "--help")
        assert shown.returncode == 0
        assert PASSWORD not in shown.stdout + shown.stderr


@pytest.mark.parametrize("mechanism", [*MECHANISMS, "PLAIN"])
def test_each_mechanism(secured: Secured, mechanism: str) -> None:
    done = secured.pipeline(
        *("topics", "apply"),
        STREAMBANK_KAFKA_SASL_MECHANISM=mechanism,
        STREAMBANK_PREFIX=f"{mechanism.lower()}-",
    )
    assert done.returncode == 0, done.stderr


WRONG: Mapping[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "a password": (
        {"STREAMBANK_KAFKA_SASL_PASSWORD": "not the broker's"},
        ("does not let", USER, "STREAMBANK_KAFKA_SASL_PASSWORD"),
    ),
    "a user": (
        {"STREAMBANK_KAFKA_SASL_USERNAME": "nobody"},
        ("does not let", "nobody", "STREAMBANK_KAFKA_SASL_USERNAME"),
    ),
    "an authority": (
        {"STREAMBANK_KAFKA_SSL_CA": "{directory}/theirs.pem"},
        ("certificate verify failed", "STREAMBANK_KAFKA_SSL_CA"),
    ),
    "a file that is no certificate": (
        {"STREAMBANK_KAFKA_SSL_CA": "{directory}/names"},
        ("ssl.ca.location", "STREAMBANK_KAFKA_SSL_CA"),
    ),
    "no security": (
        {"STREAMBANK_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
        ("over PLAINTEXT", "STREAMBANK_KAFKA_SECURITY_PROTOCOL"),
    ),
    "no TLS": (
        {"STREAMBANK_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
        ("over SASL_PLAINTEXT", "STREAMBANK_KAFKA_SECURITY_PROTOCOL"),
    ),
    "no SASL": (
        {"STREAMBANK_KAFKA_SECURITY_PROTOCOL": "SSL"},
        ("over SSL", "STREAMBANK_KAFKA_SECURITY_PROTOCOL"),
    ),
}


CASES = [(name, COMMANDS[0]) for name in WRONG] + [("a password", one) for one in COMMANDS[1:]]


@pytest.fixture(scope="module")
def answers(secured: Secured) -> list[subprocess.CompletedProcess[str]]:
    """Of all cases, asked side by side: most wait for a broker that does not let them in."""
    with ThreadPoolExecutor() as pool:
        return [
            *pool.map(lambda case: secured.pipeline(*case[1], **given(secured, case[0])), CASES)
        ]


def given(secured: Secured, name: str) -> dict[str, str]:
    return {k: v.format(directory=secured.directory) for k, v in WRONG[name][0].items()}


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{n}-{c[0]}" for n, c in CASES])
def test_what_is_wrong_is_one_sentence(
    secured: Secured, answers: list[subprocess.CompletedProcess[str]], case: int
) -> None:
    name, done = CASES[case][0], answers[case]
    refused(done, *WRONG[name][1])
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (1, 1, ""), done.stderr
    for secret in (
        PASSWORD,
        given(secured, name).get("STREAMBANK_KAFKA_SASL_PASSWORD", PASSWORD),
    ):
        assert secret not in done.stderr

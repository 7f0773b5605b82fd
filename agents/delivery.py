"""Deliveries: what leaves the bank for its users, each channel an effect of its own.

    email.inbox --> an SMTP server        sms.inbox, push.inbox --> a provider's HTTP interface
    webhook.inbox --> each endpoint, a downstream of its own

Texts are filled in here, from the sources that the request carries. What is said of a failure goes
into public events: it never quotes what a stranger answered, nor an address.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import aiohttp
import aiosmtplib
import orjson

from agents.effect import Effect
from agents.envelope import rfc3339
from domain.mailed import Purpose, mailed_token
from domain.notification_delivery import DeliveryAnswered, DeliveryRequested, Outcome
from domain.notification_rows import Kind
from outbound import signature
from outbound.address import public_socket, refusal
from outbound.template import BadTemplate, one_line, render
from resilience.bulkhead import Full
from resilience.downstream import Away
from topics.subscriptions import EMAIL, PUSH, SMS, WEBHOOK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from agents.effect import Caller

ENDPOINT_LINE = 100  # requests for one endpoint, under way and in line
SMS_CHARACTERS, PUSH_CHARACTERS = 1_000, 2_000
AGAIN = frozenset({408, 425, 429})  # HTTP: worth another try


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mail goes out. `security`: none, starttls or tls; no username: no login."""

    host: str
    port: int
    security: str
    username: str
    password: str
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An HTTP interface that takes messages; an empty URL: there is none."""

    url: str
    token: str


def answered(request: DeliveryRequested, outcome: Outcome, detail: str = "") -> DeliveryAnswered:
    return DeliveryAnswered(
        notification_id=request.notification_id,
        user_id=request.user_id,
        attempt=request.attempt,
        outcome=outcome,
        detail=detail[:200],
    )


class Delivery:
    """What all channels have alike."""

    name: str

    def downstream(self, _request: DeliveryRequested) -> str:
        return self.name

    def unanswered(self, request: DeliveryRequested, why: Exception) -> DeliveryAnswered:
        """A full line says nothing about the receiver; an open breaker does: it counts as a try."""
        outcome = Outcome.BUSY if isinstance(why, Full) else Outcome.FAILED
        return answered(request, outcome, str(why))


def _effect(
    name: str,
    topic: str,
    way: Callable[[], AbstractAsyncContextManager[Caller]],
    line: int | None = None,
) -> Effect:
    return Effect(
        name=name,
        owner="notification",
        requests=topic,
        types=(DeliveryRequested,),
        key=lambda result: result.user_id,
        open=way,
        line=line,
    )


# -- e-mail -------------------------------------------------------------------------------------


def email(server: MailServer, mail_secret: str) -> Effect:
    """`mail_secret`: what tokens in mails are made from."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Mail]:
        yield Mail(server, mail_secret)

    return _effect("email", EMAIL, connected)


class Mail(Delivery):
    """Mail by SMTP, one connection a message."""

    name = "email"

    def __init__(self, server: MailServer, mail_secret: str) -> None:
        self.server, self.mail_secret = server, mail_secret

    async def call(
        self, request: DeliveryRequested, _headers: Mapping[str, str]
    ) -> DeliveryAnswered:
        try:
            message = mail(self._with_token(request), self.server.sender)
        except (BadTemplate, ValueError) as exc:
            return answered(request, Outcome.REFUSED, f"the mail can't be written: {exc}")
        server = self.server
        try:
            await aiosmtplib.send(
                message,
                hostname=server.host,
                port=server.port,
                use_tls=server.security == "tls",
                start_tls=server.security == "starttls",
                username=server.username or None,
                password=server.password or None,
            )
        except aiosmtplib.SMTPRecipientsRefused as exc:
            return _refused_mail(request, exc.recipients[0].code)
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as exc:
            return _refused_mail(request, exc.code)
        except (aiosmtplib.SMTPException, OSError, ValueError) as exc:
            raise Away(f"the mail server: {type(exc).__name__}") from exc
        return answered(request, Outcome.DELIVERED)

    def _with_token(self, request: DeliveryRequested) -> DeliveryRequested:
        """A token that this mail alone carries: no topic has it."""
        if request.kind != Kind.SECURITY or "mail_id" not in request.data:
            return request
        purpose, mail_id = Purpose(request.data["purpose"]), request.data["mail_id"]
        token = mailed_token(self.mail_secret, purpose, request.user_id, mail_id)
        return replace(request, data={**request.data, "token": token})


def _refused_mail(request: DeliveryRequested, code: int) -> DeliveryAnswered:
    """5yz is said for good (RFC 5321); 4yz, and what is no code of SMTP, may go better later."""
    outcome = Outcome.REFUSED if 500 <= code < 600 else Outcome.FAILED
    return answered(request, outcome, f"the mail server answered {code}")


def mail(request: DeliveryRequested, sender: str) -> EmailMessage:
    """The message. Its id is the same on every try, so that a mailbox may drop a second one."""
    message = EmailMessage()
    message["From"] = Address("Streambank", addr_spec=sender)
    message["To"] = Address(addr_spec=request.target)
    message["Subject"] = one_line(render(request.subject, request.data))[:200]
    message["Date"] = formatdate(request.requested_ms / 1000)
    message["Message-ID"] = f"<{request.notification_id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(render(request.text, request.data))
    if request.html:
        message.add_alternative(render(request.html, request.data, html=True), subtype="html")
    return message


# -- SMS and push -------------------------------------------------------------------------------


def sms(provider: Provider) -> Effect:
    return _effect("sms", SMS, lambda: _asking(Texts(provider)))


def push(provider: Provider) -> Effect:
    return _effect("push", PUSH, lambda: _asking(Pushes(provider)))


@asynccontextmanager
async def _asking(messages: Texts | Pushes) -> AsyncIterator[Texts | Pushes]:
    async with aiohttp.ClientSession() as session:
        messages.session = session
        yield messages


class Messages(Delivery):
    """Messages POSTed to a provider as JSON, under the notification's id as Idempotency-Key."""

    session: aiohttp.ClientSession

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    async def call(
        self, request: DeliveryRequested, headers: Mapping[str, str]
    ) -> DeliveryAnswered:
        if not self.provider.url:
            return answered(request, Outcome.REFUSED, f"no {self.name} provider is configured")
        try:
            body = self.body(request)
        except BadTemplate as exc:
            return answered(request, Outcome.REFUSED, f"the text can't be written: {exc}")
        given = {**headers, "Idempotency-Key": request.notification_id}
        if self.provider.token:
            given["Authorization"] = f"Bearer {self.provider.token}"
        status = await posted(
            self.session, self.provider.url, orjson.dumps(body), {**given, **JSON}
        )
        if status < 300:
            return answered(request, Outcome.DELIVERED)
        return answered(request, Outcome.REFUSED, f"the provider answered {status}")

    def body(self, request: DeliveryRequested) -> dict[str, Any]:
        raise NotImplementedError


class Texts(Messages):
    name = "sms"

    def body(self, request: DeliveryRequested) -> dict[str, Any]:
        text = render(request.text, request.data).strip()[:SMS_CHARACTERS]
        return {"id": request.notification_id, "to": request.target, "text": text}


class Pushes(Messages):
    name = "push"

    def body(self, request: DeliveryRequested) -> dict[str, Any]:
        return {
            "id": request.notification_id,
            "to": request.target,
            "title": one_line(render(request.subject, request.data))[:200],
            "text": render(request.text, request.data).strip()[:PUSH_CHARACTERS],
        }


JSON = {"Content-Type": "application/json"}


async def posted(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> int:
    """The status of the answer, whose body nobody reads. Raises Away for what may go better."""
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
            response.close()
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise Away(f"could not be asked: {type(exc).__name__}") from exc
    if status >= 500 or status in AGAIN:
        raise Away(f"answered {status}")
    return status


# -- webhooks -----------------------------------------------------------------------------------


def webhook(keys: tuple[str, ...], *, private_allowed: bool) -> Effect:
    """`keys`: those that secrets are made from."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Webhooks]:
        connector = aiohttp.TCPConnector(
            limit=0, socket_factory=None if private_allowed else public_socket
        )
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Webhooks(session, keys, private_allowed=private_allowed)

    return _effect("webhook", WEBHOOK, connected, ENDPOINT_LINE)


class Webhooks(Delivery):
    """Signed messages to endpoints of users: docs/notifications.md."""

    name = "webhook"

    def __init__(
        self, session: aiohttp.ClientSession, keys: tuple[str, ...], *, private_allowed: bool
    ) -> None:
        self.session, self.keys = session, keys
        self.private_allowed = private_allowed

    def downstream(self, request: DeliveryRequested) -> str:
        return f"webhook {request.endpoint_id}"

    async def call(
        self, request: DeliveryRequested, headers: Mapping[str, str]
    ) -> DeliveryAnswered:
        why = refusal(request.target, private_allowed=self.private_allowed)
        if why is not None:
            return answered(request, Outcome.REFUSED, f"the URL {why}")
        body = payload(request)
        secrets = [
            signature.secret(key, request.endpoint_id, request.secret_version) for key in self.keys
        ]
        signed = signature.headers(secrets, request.notification_id, int(time.time()), body)
        status = await posted(self.session, request.target, body, {**headers, **JSON, **signed})
        if status < 300:
            return answered(request, Outcome.DELIVERED)
        outcome = Outcome.GONE if status == 410 else Outcome.FAILED
        return answered(request, outcome, f"answered {status}")


def payload(request: DeliveryRequested) -> bytes:
    """What is told: type, time and data of the fact; the same bytes on every try."""
    said = {
        "type": request.kind,
        "timestamp": rfc3339(request.requested_ms).decode(),
        "data": {"user_id": request.user_id, **request.data},
    }
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)

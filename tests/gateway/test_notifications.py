"""Notifications over HTTP, as they leave the bank: mail, SMS, push, webhooks, and their bad days."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web

from deploy.local.processes import free_ports
from tests.gateway.stand import PASSWORD, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateway.stand import Got, Person, Stand, Town

ALL = ["in_app", "email", "sms", "push"]


class Receiver:
    """A webhook receiver of the test: `/ok`, `/gone`, `/dead`, … each behave as they are called."""

    def __init__(self) -> None:
        self.got: dict[str, list[tuple[dict[str, str], bytes]]] = defaultdict(list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        self.got[kind].append((dict(request.headers), await request.read()))
        times = len(self.got[kind])
        match kind.partition("-")[0]:
            case "gone":
                return web.Response(status=410)
            case "dead":
                await asyncio.sleep(60)
            case "later" if times <= 4:  # longer than short retries last
                return web.Response(status=500)
            case "blink" if times <= 2:
                return web.Response(status=503)
            case "moved" if times <= 1:
                raise web.HTTPFound("http://127.0.0.1:1/elsewhere")
            case "garbage" if times <= 2:
                assert request.transport is not None
                request.transport.write(b"\x00\xff nothing of the kind\r\n\r\n")
                request.transport.close()
            case "endless" if times <= 1:
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"x" * 65_536)
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/{kind}", receiver.take)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield receiver, f"http://127.0.0.1:{port}"
    await runner.cleanup()


async def who(people: Town, email: str) -> Person:
    """A customer with this address."""
    body = {"email": email, "password": PASSWORD, "name": "Ada"}
    assert (await people.stranger.post("/api/users", body)).status == 201
    person = await people.login(email)

    async def known() -> bool:
        got = await person.get("/api/notification-preferences")
        return got.status == 200 and got.json["email"] == email

    await until(known, f"{email} can be told things")
    return person


async def ada(people: Town, beginning: str = "ada") -> Person:
    return await who(people, f"{beginning}-{uuid.uuid4().hex[:8]}@people.example")


async def hear_all(person: Person, **contacts: str) -> None:
    body = {"preferences": {"message": ALL}, **contacts}
    got = await person.put("/api/notification-preferences", body)
    assert got.status == 200, got.text


async def told(people: Town, to: Person, channel: str = "in_app", text: str = "Hi") -> Got:
    admin = await people.admin()
    body = {
        "user_id": to.user_id, "template": "message", "channel": channel,
        "data": {"subject": "News", "text": text},
    }  # fmt: skip
    return await admin.post("/api/notifications", body)


def asked_for(items: list[Any]) -> list[Any]:
    """All but the mail that each new user is sent, which confirms the address."""
    return [one for one in items if ".mail-" not in one["notification_id"]]


async def becomes(person: Person, path: str, status: str, timeout_s: float = 20.0) -> Any:
    async def there() -> Any:
        got = await person.get(path)
        return got.json if got.status == 200 and got.json["status"] == status else None

    return await until(there, f"{path} is {status}", timeout_s)


async def endpoint(person: Person, url: str, **members: Any) -> Any:
    got = await person.put("/api/webhook-endpoints", {"url": url, **members})
    assert got.status == 200, got.text
    return got.json


async def spend(people: Town, person: Person) -> str:
    """A deposit that completes; what its notifications' ids begin with."""
    admin, account_id = await people.admin(), await person.open("USD")
    got = await admin.pay(type="deposit", amount=1_050, destination_account_id=account_id)
    assert got.status == 201, got.text
    return f"{person.user_id}.{got.json['transaction_id']}"


async def test_a_completed_transaction_is_told_in_the_app(people: Town) -> None:
    person = await ada(people)
    name = await spend(people, person)
    got = await becomes(person, f"/api/notifications/{name}", "delivered")
    assert (got["channel"], got["kind"]) == ("in_app", "transaction_completed")
    assert (got["data"]["amount_minor"], got["attempts"]) == ("1050", 0)


@pytest.mark.parametrize("channel", ["email", "sms", "push"])
async def test_a_message_arrives(people: Town, bank: Stand, channel: str) -> None:
    person = await ada(people)
    await hear_all(person, phone="+41790000001", device="device-1")
    text = f"Look <here> {uuid.uuid4().hex}"
    got = await told(people, person, channel, text)
    assert got.status == 201, got.text
    path = got.headers["Location"]
    shown = await becomes(person, path, "delivered")
    assert (shown["attempts"], shown["channel"]) == (1, channel)
    post = await bank.post(people.session)
    (message,) = (one for one in post if text in one["text"])
    assert message["channel"] == channel
    assert message["to"].startswith(("ada-", "+4179", "device-1"))
    if channel == "email":
        assert (message["subject"], message["from"]) == ("News", "no-reply@streambank.example")
        assert "Look &lt;here&gt;" in message["html"]
    listed = await person.get(f"/api/notifications?channel={channel}&status=delivered")
    assert [one["notification_id"] for one in asked_for(listed.json["items"])] == [
        shown["notification_id"]
    ]


@pytest.mark.parametrize("trouble", ["garbage", "drop", "greylist"])
@pytest.mark.parametrize("channel", ["email", "sms"])
async def test_a_receiver_with_a_bad_moment_gets_it_all_the_same(
    people: Town, bank: Stand, trouble: str, channel: str
) -> None:
    person = await ada(people, trouble)
    await hear_all(person, phone="+41790000002")
    if channel == "sms":
        await hear_all(person, phone="+41790000003", device="d")
    text = uuid.uuid4().hex
    got = await told(people, person, channel, text)
    if trouble == "greylist" and channel == "email":  # 451 is not retried at once
        waits = await becomes(person, got.headers["Location"], "waiting")
        assert waits["detail"] == "the mail server answered 451"
        assert waits["next_attempt_at"]
        return
    await becomes(person, got.headers["Location"], "delivered")
    post = await bank.post(people.session)
    assert len([one for one in post if text in one["text"]]) == 1


async def test_mail_that_bounces_is_a_dead_letter_and_is_put_back_by_hand(people: Town) -> None:
    person, admin = await ada(people, "bounce"), await people.admin()
    got = await told(people, person, "email")
    path = got.headers["Location"]
    dead = await becomes(person, path, "dead")
    assert dead["detail"] == "the mail server answered 550"
    again = await admin.post(f"{path}/redrive", {})
    assert again.status == 200, again.text
    assert again.json["attempts"] == 2
    await becomes(person, path, "dead")
    nobody = await people.customer("eve")
    assert (await nobody.post(f"{path}/redrive", {})).code == "NOT_FOUND"
    delivered = (await told(people, person)).headers["Location"]
    refused = await person.post(f"{delivered}/redrive", {})
    assert (refused.status, refused.code) == (422, "NOTIFICATION_NOT_DEAD")


def checked(secret: str, headers: dict[str, str], body: bytes) -> str:
    """The webhook's id, as a receiver that reads the specification checks it."""
    found = {name.lower(): value for name, value in headers.items()}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    said = f"{found['webhook-id']}.{found['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    assert f"v1,{expected}" in found["webhook-signature"].split(" ")
    assert found["content-type"] == "application/json"
    return found["webhook-id"]


async def test_a_webhook_is_signed_and_the_same_on_every_try(
    people: Town, receiver: tuple[Receiver, str]
) -> None:
    seen, url = receiver
    person = await ada(people)
    made = await endpoint(person, f"{url}/blink", kinds=["transaction_completed"])
    assert made["secret"].startswith("whsec_")
    name = f"{await spend(people, person)}.webhook-0"
    done = await becomes(person, f"/api/notifications/{name}", "delivered")
    assert done["attempts"] == 1  # short retries are one attempt
    assert len(seen.got["blink"]) == 3
    ids = {checked(made["secret"], *one) for one in seen.got["blink"]}
    assert ids == {name}
    (body,) = {body for _, body in seen.got["blink"]}
    said = orjson.loads(body)
    assert said["type"] == "transaction_completed"
    assert (said["data"]["amount_minor"], said["data"]["currency"]) == ("1050", "USD")
    assert said["timestamp"].endswith("Z")
    (shown,) = (await person.get("/api/webhook-endpoints")).json["items"]
    assert shown["delivered_at"] is not None

    new = await person.post(f"/api/webhook-endpoints/{made['endpoint_id']}/secret", {})
    assert new.status == 200, new.text
    assert new.json["secret"] != made["secret"]
    name = f"{await spend(people, person)}.webhook-0"
    await becomes(person, f"/api/notifications/{name}", "delivered")
    assert checked(new.json["secret"], *seen.got["blink"][-1]) == name


async def test_bad_receivers_get_it_in_the_end_and_delay_no_other(
    people: Town, receiver: tuple[Receiver, str]
) -> None:
    seen, url = receiver
    person = await ada(people)
    kinds = ["dead", "gone", "later", "moved", "garbage", "endless", "ok"]
    made = [await endpoint(person, f"{url}/{kind}") for kind in kinds]
    name = await spend(people, person)
    paths = {kind: f"/api/notifications/{name}.webhook-{n}" for n, kind in enumerate(kinds)}
    # the dead one takes 20 s to be given up for now
    await becomes(person, paths["ok"], "delivered", 10.0)
    await becomes(person, paths["garbage"], "delivered", 10.0)
    await becomes(person, paths["endless"], "delivered", 10.0)
    gone = await becomes(person, paths["gone"], "dead", 10.0)
    assert gone["detail"] == "answered 410"
    later = await becomes(person, paths["later"], "delivered", 20.0)
    assert later["attempts"] == 2
    await becomes(person, paths["moved"], "delivered", 20.0)
    waits = await becomes(person, paths["dead"], "waiting", 40.0)
    assert waits["detail"] == "no answer within 5 s"
    shown = {
        one["endpoint_id"]: one
        for one in (await person.get("/api/webhook-endpoints")).json["items"]
    }
    disabled = shown[made[1]["endpoint_id"]]
    assert (disabled["enabled"], disabled["detail"]) == (False, "the endpoint answered 410")
    assert all(one["enabled"] for one in shown.values() if one is not disabled)
    refused = await person.post(f"{paths['gone']}/redrive", {})
    assert (refused.status, refused.code) == (422, "NO_ADDRESS")
    removed = await person.ask(
        "DELETE", f"/api/webhook-endpoints/{made[0]['endpoint_id']}", {}, Prefer="wait=20"
    )
    assert (removed.status, removed.json["removed"]) == (200, True)
    assert len(seen.got["ok"]) == 1


async def test_preferences_have_defaults_and_are_replaced(people: Town) -> None:
    person = await ada(people)
    first = (await person.get("/api/notification-preferences")).json
    assert first["preferences"] == {
        "transaction_completed": ["in_app"],
        "transaction_failed": ["in_app"],
        "security": ["in_app", "email"],
        "message": ["in_app", "email"],
    }
    body = {"preferences": {"message": ["sms"]}, "phone": "+41790000009"}
    got = await person.put("/api/notification-preferences", body)
    assert (got.status, got.json["preferences"]["message"]) == (200, ["sms"])
    again = await person.put("/api/notification-preferences", body)
    assert (again.status, again.json["version"]) == (200, got.json["version"])
    refused = await told(people, person, "in_app")
    assert (refused.status, refused.code) == (422, "CHANNEL_OFF")
    support = await people.staff("support")
    seen = await support.get(f"/api/notification-preferences?user_id={person.user_id}")
    assert (seen.status, seen.json["phone"]) == (200, None)
    eve = await people.customer("eve")
    other = await eve.get(f"/api/notification-preferences?user_id={person.user_id}")
    assert other.status == 403


async def test_templates_have_versions_and_a_preview(people: Town) -> None:
    operator, support = await people.staff("operator"), await people.staff("support")
    name = f"greeting-{uuid.uuid4().hex[:6]}"
    path = f"/api/notification-templates/{name}"
    source = {"kind": "message", "subject": "Hi {{ name }}", "text": "Dear {{ name | upper }}"}
    assert (await support.put(path, source)).status == 403
    first = await operator.put(path, source)
    assert (first.status, first.json["version"], first.json["variables"]) == (200, 1, ["name"])
    second = await operator.put(path, {**source, "html": "<b>{{ name }}</b>"})
    assert second.json["version"] == 2
    old = await support.get(f"{path}?version=1")
    assert (old.json["version"], old.json["html"]) == (1, None)
    assert (await support.get(f"{path}?version=9")).status == 404
    shown = await support.post(f"{path}/preview", {"data": {"name": "<Ada>"}}, wait=None)
    assert shown.json == {
        "name": name, "subject": "Hi <Ada>", "text": "Dear <ADA>", "html": "<b>&lt;Ada&gt;</b>",
    }  # fmt: skip
    missing = await support.post(f"{path}/preview", {"data": {}}, wait=None)
    assert (missing.status, missing.code) == (422, "INVALID_BODY")
    listed = (await support.get("/api/notification-templates")).json["items"]
    assert {one["name"]: one["version"] for one in listed}.items() >= {
        name: 2,
        "message": 0,
    }.items()
    person = await ada(people)
    admin = await people.admin()
    body = {"user_id": person.user_id, "template": name, "channel": "email", "data": {}}
    refused = await admin.post("/api/notifications", body)
    assert (refused.status, refused.code) == (422, "TEMPLATE_DATA_MISSING")
    foreign = await operator.put("/api/notification-templates/roles_changed", source)
    assert (foreign.status, foreign.code) == (422, "INVALID_COMMAND")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for i in range(9) %}{% endfor %}", "for has no place"),
        ("{{ ''.__class__ }}", "getattr has no place"),
        ("{{ x['y'] }}", "getitem has no place"),
        ("{{ 'a' * 1000000000 }}", "mul has no place"),
        ("{{ lipsum() }}", "call has no place"),
        ("{{ x | safe }}", "safe"),
        ("{% include 'x' %}", "include has no place"),
        ("{{ x", "line 1"),
        ("{{" + "(" * 5_000 + "x" + ")" * 5_000 + "}}", "nested too deep"),
    ],
)
async def test_hostile_templates_are_refused(people: Town, text: str, why: str) -> None:
    admin = await people.admin()
    body = {"kind": "message", "subject": "", "text": text}
    got = await admin.put("/api/notification-templates/hostile", body)
    assert got.status == 422, got.text
    (error,) = got.json["errors"]
    assert (error["pointer"], error["code"]) == ("/text", "BAD_TEMPLATE")
    assert why in error["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "/api/notifications", {"user_id": "u"}, "/template"),
        ("POST", "/api/notifications", {"user_id": "u", "template": "X Y"}, "/template"),
        ("POST", "/api/notifications", {"user_id": "u", "template": "message", "channel": "webhook"}, "/channel"),
        ("POST", "/api/notifications", {"user_id": "u", "template": "message", "data": {"a": 1}}, "/data/a"),
        ("PUT", "/api/notification-preferences", {"preferences": {"weather": []}}, "/preferences/weather"),
        ("PUT", "/api/notification-preferences", {"preferences": {"message": ["sms", "sms"]}}, "/preferences/message"),
        ("PUT", "/api/notification-preferences", {"preferences": {"message": ["webhook"]}}, "/preferences/message/0"),
        ("PUT", "/api/notification-preferences", {"preferences": {}, "phone": "079 000"}, "/phone"),
        ("PUT", "/api/notification-preferences", {"preferences": {}, "more": 1}, "/more"),
        ("PUT", "/api/webhook-endpoints", {"url": "ftp://x.example"}, "/url"),
        ("PUT", "/api/webhook-endpoints", {"url": "https://"}, "/url"),
        ("PUT", "/api/webhook-endpoints", {"url": "https://u:p@x.example/"}, "/url"),
        ("PUT", "/api/webhook-endpoints", {"url": "https://no-such-host.invalid/"}, "/url"),
        ("PUT", "/api/webhook-endpoints", {"url": "https://x.example", "kinds": ["x"]}, "/kinds/0"),
        ("PUT", "/api/notification-templates/UPPER", {"kind": "message", "subject": "", "text": "x"}, "/name"),
        ("PUT", "/api/notification-templates/x", {"kind": "message", "subject": "", "text": ""}, "/text"),
    ],
)  # fmt: skip
async def test_malformed_bodies(
    people: Town, method: str, path: str, body: Any, pointer: str
) -> None:
    admin = await people.admin()
    got = await admin.ask(method, path, body)
    assert got.status == 422, got.text
    assert pointer in [error["pointer"] for error in got.json["errors"]]


async def test_what_is_not_yours_is_not_there(people: Town, receiver: tuple[Receiver, str]) -> None:
    person, eve = await ada(people), await people.customer("eve")
    path = (await told(people, person)).headers["Location"]
    assert (await eve.get(path)).status == 404
    assert (await eve.get(f"/api/notifications?user_id={person.user_id}")).status == 403
    assert asked_for([one async for one in _items(eve)]) == []
    support = await people.staff("support")
    assert (await support.get(path)).status == 200
    made = await endpoint(person, f"{receiver[1]}/ok?token=secret")
    seen = await support.get(f"/api/webhook-endpoints?user_id={person.user_id}")
    (one,) = seen.json["items"]
    assert one["secret"] is None
    assert "secret" not in one["url"]
    for method, tail in (("POST", "/secret"), ("DELETE", "")):
        got = await eve.ask(method, f"/api/webhook-endpoints/{made['endpoint_id']}{tail}", {})
        assert got.status == 404


async def _items(person: Person) -> AsyncIterator[Any]:
    for one in (await person.get("/api/notifications")).json["items"]:
        yield one


async def test_the_list_goes_on_by_its_cursor(people: Town) -> None:
    person = await ada(people)
    names = [(await told(people, person)).json["notification_id"] for _ in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        got = await person.get(f"/api/notifications?limit=2{cursor}")
        found += [one["notification_id"] for one in asked_for(got.json["items"])]
        cursor = f"&cursor={got.json['next_cursor']}" if got.json["next_cursor"] else None
    assert found == names[::-1]


async def test_sent_once_for_a_key(people: Town) -> None:
    person, admin = await ada(people), await people.admin()
    body = {
        "user_id": person.user_id, "template": "message",
        "data": {"subject": "once", "text": "once"},
    }  # fmt: skip
    key = uuid.uuid4().hex
    first = await admin.post("/api/notifications", body, Idempotency_Key=key)
    again = await admin.post("/api/notifications", body, Idempotency_Key=key)
    assert (first.status, again.status) == (201, 201)
    assert first.json["notification_id"] == again.json["notification_id"]
    assert len(asked_for([one async for one in _items(person)])) == 1


async def test_a_change_of_permissions_is_told_by_mail(people: Town, bank: Stand) -> None:
    person, admin = await ada(people), await people.admin()
    got = await admin.post(f"/api/users/{person.user_id}/roles", {"roles": ["customer", "analyst"]})
    assert got.status == 200, got.text
    path = f"/api/notifications/{person.user_id}.roles-2.email"
    await becomes(person, path, "delivered")
    post = await bank.post(people.session)
    email = (await person.get("/api/notification-preferences")).json["email"]
    mails = [one for one in post if one["to"] == email and "onfirm" not in one["subject"]]
    assert ["customer, analyst" in mail["text"] for mail in mails] == [True]

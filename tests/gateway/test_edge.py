"""The edge: malformed requests, headers, documents, the schema registry."""

from __future__ import annotations

import asyncio
import gzip
import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import orjson
import pytest

from tests.gateway.stand import ADMIN, PASSWORD, SECRET

if TYPE_CHECKING:
    from tests.gateway.stand import Stand, Town

ORDER = {
    "type": "transfer",
    "amount": 1,
    "currency": "USD",
    "source_account_id": "a",
    "destination_account_id": "b",
}
TEXT = b'{"type":"transfer","amount":%s,"currency":"USD","source_account_id":"a","destination_account_id":"b"}'

# raw body -> status, code, pointer of the first error
MALFORMED: dict[str, tuple[bytes, int, str, str | None]] = {
    "nothing": (b"", 400, "MALFORMED_JSON", None),
    "no JSON": (b"amount=5", 400, "MALFORMED_JSON", None),
    "cut off": (TEXT[:40], 400, "MALFORMED_JSON", None),
    "two documents": (b"{} {}", 400, "MALFORMED_JSON", None),
    "no UTF-8": (b'{"type":"\xff"}', 400, "MALFORMED_JSON", None),
    "UTF-16": ('{"a":1}'.encode("utf-16"), 400, "MALFORMED_JSON", None),
    "a thousand brackets": (b"[" * 100_000, 400, "MALFORMED_JSON", None),
    "a member twice": (b'{"amount":1,"amount":2}', 400, "DUPLICATE_MEMBER", None),
    "twice, deeper": (b'{"metadata":{"a":"1","a":"2"}}', 400, "DUPLICATE_MEMBER", None),
    "a list": (b"[]", 422, "INVALID_BODY", ""),
    "null": (b"null", 422, "INVALID_BODY", ""),
    "a float": (TEXT % b"10.5", 422, "INVALID_BODY", "/amount"),
    "a whole float": (TEXT % b"10.0", 422, "INVALID_BODY", "/amount"),
    "an exponent": (TEXT % b"1e3", 422, "INVALID_BODY", "/amount"),
    "a text": (TEXT % b'"10"', 422, "INVALID_BODY", "/amount"),
    "a boolean": (TEXT % b"true", 422, "INVALID_BODY", "/amount"),
    "NaN": (TEXT % b"NaN", 422, "INVALID_BODY", "/amount"),
    "Infinity": (TEXT % b"Infinity", 422, "INVALID_BODY", "/amount"),
    "zero": (TEXT % b"0", 422, "INVALID_BODY", "/amount"),
    "negative": (TEXT % b"-5", 422, "INVALID_BODY", "/amount"),
    "above the limit": (TEXT % b"1000000000000001", 422, "INVALID_BODY", "/amount"),
    "above 64 bits": (TEXT % b"99999999999999999999", 422, "INVALID_BODY", "/amount"),
    "missing": (TEXT % b"null", 422, "INVALID_BODY", "/amount"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_bodies(people: Town, name: str) -> None:
    data, status, code, pointer = MALFORMED[name]
    admin = await people.admin()
    got = await admin.ask("POST", "/api/transactions", data=data, Idempotency_Key="k")
    assert (got.status, got.code) == (status, code), got.text
    assert got.json["trace_id"] == got.headers["traceparent"].split("-")[1]
    if pointer is not None:
        assert got.json["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("currency", "usd", "CURRENCY_UNKNOWN"),
        ("currency", "XYZ", "CURRENCY_UNKNOWN"),
        ("currency", 840, "NOT_A_STRING"),
        ("type", "payment!", "UNKNOWN_VALUE"),
        ("description", "x" * 501, "TOO_LONG"),
        ("description", "a\u0000b", "CONTROL_CHARACTER"),
        ("description", "a\u0085b", "CONTROL_CHARACTER"),
        ("reference", "x" * 141, "TOO_LONG"),
        ("reference", "line\nbreak", "CONTROL_CHARACTER"),
        ("metadata", [], "NOT_AN_OBJECT"),
        ("metadata", {"a": 1}, "NOT_A_STRING"),
        ("destination_account_id", "a", "SAME_ACCOUNT"),
        ("destination_account_id", None, "REQUIRED"),
        ("note", "x", "UNKNOWN_FIELD"),
        ("Amount", 1, "UNKNOWN_FIELD"),
        # of other types: refused, never taken and not done
        ("destination_currency", "EUR", "NOT_ALLOWED"),
        ("quote_id", "q", "NOT_ALLOWED"),
        ("payment_method_id", "p", "NOT_ALLOWED"),
    ],
)
async def test_wrong_members(people: Town, member: str, value: Any, code: str) -> None:
    admin = await people.admin()
    got = await admin.pay(**{**ORDER, member: value})
    assert (got.status, got.code) == (422, "INVALID_BODY"), got.text
    error = got.json["errors"][0]
    assert error["code"] == code
    assert error["pointer"].startswith(f"/{member}")


@pytest.mark.parametrize(
    "body",
    [
        {"email": "no-at", "password": "long enough", "name": "x"},
        {"email": "a@b", "password": "long enough", "name": "x"},
        {"email": "a b@c.example", "password": "long enough", "name": "x"},
        {"email": "a@c.example", "password": "short", "name": "x"},
        {"email": "a@c.example", "password": "long enough", "name": ""},
        {"email": "a@c.example", "password": "long enough", "name": "x\u0007"},
        {"email": "a@c.example", "password": "long enough", "name": "x", "roles": ["admin"]},
    ],
)
async def test_bad_registrations(people: Town, body: dict[str, Any]) -> None:
    got = await people.stranger.post("/api/users", body)
    assert (got.status, got.code) == (422, "INVALID_BODY")
    assert body["password"] not in got.text


async def test_a_body_over_a_mebibyte_is_413(people: Town) -> None:
    admin = await people.admin()
    big = b'{"description":"' + b"x" * (1 << 20) + b'"}'
    got = await admin.ask("POST", "/api/transactions", data=big, Idempotency_Key="k")
    assert (got.status, got.code) == (413, "BODY_TOO_LARGE")


async def test_unknown_path_and_wrong_method(people: Town) -> None:
    nowhere = await people.stranger.get("/api/nowhere")
    assert (nowhere.status, nowhere.code) == (404, "NOT_FOUND")
    wrong = await people.stranger.ask("PUT", "/api/transactions", {})
    assert (wrong.status, wrong.code) == (405, "METHOD_NOT_ALLOWED")
    assert {"GET", "POST"} <= set(wrong.headers["Allow"].split(", "))
    form = await (await people.admin()).ask(
        "POST", "/api/accounts", data=b"a=1", Content_Type="application/x-www-form-urlencoded"
    )
    assert (form.status, form.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("path", "status", "allow"),
    [
        ("/api/accounts", 204, "GET, HEAD, OPTIONS, POST"),
        ("/health", 204, "GET, HEAD, OPTIONS"),
        ("/api/nowhere", 404, None),
    ],
)
async def test_options_tells_the_methods(
    people: Town, path: str, status: int, allow: str | None
) -> None:
    got = await people.stranger.ask("OPTIONS", path)
    assert (got.status, got.headers.get("Allow")) == (status, allow)


@pytest.mark.parametrize("path", ["/health", "/docs", "/api/accounts", "/api/nowhere"])
async def test_head_is_get_without_a_body(people: Town, path: str) -> None:
    admin = await people.admin()
    head, get = await admin.ask("HEAD", path), await admin.get(path)
    assert (head.status, head.text) == (get.status, "")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/accounts?at=2026-01-01T00:00:00Z",  # a list has no past: not the present
        "/api/accounts/x?at=yesterday",
        "/api/accounts?status=gone",
        "/api/transactions?acount_id=x",
        "/api/transactions?status=done",
        "/api/transactions?type=loan",
        "/api/transactions?currency=usd",
        "/api/transactions?from=2026-01-01T00:00:00Z",
        "/api/risk/reviews?status=x",
        "/api/risk/blacklist?kind=x",
    ],
)
async def test_a_query_that_cannot_be_honoured_is_400(people: Town, path: str) -> None:
    got = await (await people.admin()).get(path)
    assert (got.status, got.code) == (400, "BAD_QUERY")


async def test_a_dry_run_in_the_query_moves_nothing(people: Town) -> None:
    admin = await people.admin()
    path = "/api/transactions?dry_run=true"
    got = await admin.ask("POST", path, ORDER, Idempotency_Key="dry")
    assert (got.status, got.code) == (400, "BAD_QUERY")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_what_its_headers_say(people: Town, encoding: str) -> None:
    admin = await people.admin()
    got = await admin.ask("POST", "/api/accounts", data=b"plain", Content_Encoding=encoding)
    assert (got.status, got.code) == (400, "BAD_REQUEST")
    assert (await admin.get("/api/accounts")).status == 200


async def test_json_that_curl_calls_a_form_is_json(people: Town) -> None:
    got = await (await people.admin()).ask(
        "POST",
        "/api/auth/refresh",
        data=b'{"refresh_token":"x"}',
        Content_Type="application/x-www-form-urlencoded",
    )
    assert (got.status, got.code) == (401, "UNAUTHENTICATED")


async def test_a_problem_names_its_instance_as_a_uri(people: Town) -> None:
    got = await (await people.admin()).get("/api/accounts/%00%2F")
    assert got.json["instance"] == "/api/accounts/%00%2F"


def forged(**claims: Any) -> str:
    now = int(time.time())
    given = {
        "iss": "streambank",
        "sub": "someone",
        "typ": "access",
        "roles": ["admin"],
        "jti": uuid.uuid4().hex,
        "iat": now,
        "exp": now + 60,
    }
    return jwt.encode({**given, **claims}, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x.y.z",
        f"Basic {forged()}",
        f"Bearer {forged(exp=1)}",
        f"Bearer {forged(iss='else')}",
        f"Bearer {forged(typ='refresh')}",
        f"Bearer {forged(roles=['king'])}",
        "Bearer " + jwt.encode({"sub": "x", "roles": ["admin"]}, "", algorithm="none"),
        "Bearer " + jwt.encode({"sub": "x"}, SECRET + "!", algorithm="HS256"),
    ],
)
async def test_tokens_that_are_no_good(people: Town, header: str) -> None:
    got = await people.stranger.get("/api/accounts", Authorization=header)
    assert (got.status, got.code) == (401, "UNAUTHENTICATED")
    assert got.headers["WWW-Authenticate"] == "Bearer"
    good = await people.stranger.get("/api/accounts", Authorization=f"Bearer {forged()}")
    assert good.status == 200


async def test_trace_and_request_id_come_back(people: Town) -> None:
    trace_id = uuid.uuid4().hex
    given = f"00-{trace_id}-00f067aa0ba902b7-01"
    got = await people.stranger.get("/health", traceparent=given, X_Request_Id="my-id")
    assert got.headers["traceparent"].split("-")[1] == trace_id
    assert got.headers["traceparent"] != given
    assert got.headers["X-Request-Id"] == "my-id"
    for bad in ("00-zz-1-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", "x" * 500):
        fresh = await people.stranger.get("/api/nowhere", traceparent=bad)
        assert len(fresh.json["trace_id"]) == 32
        assert trace_id not in fresh.headers["traceparent"]


async def test_every_answer_is_guarded(people: Town) -> None:
    for path in ("/health", "/api/nowhere", "/docs"):
        headers = (await people.stranger.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert "X-Request-Id" in headers


async def test_what_is_large_is_compressed(bank: Stand) -> None:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(
            f"{bank.url}/api/openapi.json", headers={"Accept-Encoding": "gzip"}
        ) as response,
    ):
        assert response.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await response.read()).startswith(b"{")


@pytest.mark.parametrize(
    ("accepted", "encoded"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("*", True), ("gzip;q=0, *", False), ("gzip; q=0.0", False),
     ("identity", False)],
)  # fmt: skip
async def test_compression_is_as_the_client_wants_it(
    bank: Stand, accepted: str, encoded: bool
) -> None:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(
            f"{bank.url}/api/openapi.json", headers={"Accept-Encoding": accepted}
        ) as response,
    ):
        assert ("Content-Encoding" in response.headers) is encoded


async def test_any_version_is_a_match_of_a_star(people: Town) -> None:
    alice = await people.customer("alice")
    path = f"/api/accounts/{await alice.open('USD')}"
    tag = (await alice.get(path)).headers["ETag"]
    for given, status in (("*", 304), (f'"none", W/{tag}', 304), ('"none"', 200), (tag[:-1], 200)):
        assert (await alice.get(path, If_None_Match=given)).status == status, given


async def test_a_client_whose_name_is_no_text_can_log_in(bank: Stand) -> None:
    body = orjson.dumps({"email": ADMIN, "password": PASSWORD})
    host, _, port = bank.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/auth/login HTTP/1.1\r\nHost: bank\r\nUser-Agent: \xff\xfe\r\n"
        b"Connection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()


async def test_documents_and_their_assets_come_from_here(people: Town) -> None:
    page = (await people.stranger.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("/docs/docs.js", "/docs/docs.css"):
        assert asset in page
        assert (await people.stranger.get(asset)).status == 200
    assert (await people.stranger.get("/docs/..%2Fdocs.html")).status == 404
    document = (await people.stranger.get("/api/openapi.json")).json
    assert document["openapi"] == "3.1.0"


async def test_the_schema_registry(people: Town) -> None:
    ask = people.stranger.get
    subject = "transaction.events-streambank.transaction.TransactionCompleted"
    assert subject in (await ask("/subjects")).json
    version = (await ask(f"/subjects/{subject}/versions/latest")).json
    by_id = await ask(f"/schemas/ids/{version['id']}?fetchMaxId=false&subject=x")
    assert by_id.json == {"schema": version["schema"]}
    assert by_id.headers["Content-Type"] == "application/vnd.schemaregistry.v1+json"
    missing = await ask("/schemas/ids/1")
    assert (missing.status, missing.json["error_code"]) == (404, 40403)
    assert (await ask("/schemas/types")).json == ["AVRO"]


async def test_health_readiness_metrics(people: Town) -> None:
    assert (await people.stranger.get("/health")).json == {"status": "ok"}
    ready = await people.stranger.get("/readiness")
    assert (ready.status, set(ready.json["checks"].values())) == (200, {"ok"})
    text = (await people.stranger.get("/metrics")).text
    assert 'streambank_http_requests_total{method="GET",route="/health",status="200"}' in text
    assert "streambank_http_request_seconds_bucket" in text


async def test_a_slow_body_holds_nobody_up(bank: Stand, people: Town) -> None:
    host, port = bank.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    assert (await people.stranger.get("/health")).status == 200
    writer.close()

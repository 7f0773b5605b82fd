"""Sessions, passwords, mailed tokens, addresses: what a person proves themselves with."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from domain.credentials import (
    LIFE_MS,
    PAUSE_MS,
    ChangePassword,
    ConfirmEmail,
    CredentialsSet,
    EmailConfirmationRequested,
    EmailConfirmed,
    MailTokenKept,
    PasswordChanged,
    PasswordResetRequested,
    RequestEmailConfirmation,
    RequestPasswordReset,
    ResetPassword,
)
from domain.decider import Tick, due_key
from domain.mailed import Purpose, mailed_token, token_hash
from domain.person import UserCommandRefused
from domain.saga import Reason
from domain.session import (
    EXPIRED,
    SESSION_MS,
    SESSIONS,
    Cause,
    EndSession,
    EndSessions,
    OpenSession,
    RefreshSession,
    SessionEnded,
    SessionKept,
    SessionOpened,
    SessionRefreshed,
    SessionsEnded,
    SessionsForgotten,
    is_live,
    list_of,
)
from domain.user import (
    USER,
    AddressClaimed,
    AddressReleased,
    ChangeProfile,
    ClaimAddress,
    EmailChanged,
    ProfileChange,
    ProfileChanged,
)
from tests.domain.stories import NOON_MS, rows_of, then
from tests.domain.test_user import ADA, RESERVED

LATER_MS = NOON_MS + PAUSE_MS
REGISTERED = [*RESERVED, *then(USER, [], RESERVED[0])]
OPEN = OpenSession(
    user_id="u-ada",
    session_id="s1",
    refresh_hash="r1",
    client="curl",
    address="10.0.0.1",
    actor_id="u-ada",
)
REFRESH = RefreshSession(
    user_id="u-ada", session_id="s1", presented_hash="r1", next_hash="r2", actor_id="u-ada"
)
END = EndSession(user_id="u-ada", session_id="s1", cause=Cause.LOGGED_OUT, actor_id="u-ada")
END_ALL = EndSessions(user_id="u-ada", kept_session_id=None, end_id="e1", actor_id="u-ada")
CHANGE = ChangePassword(
    user_id="u-ada",
    verified_hash="$2b$12$ada",
    password_hash="$2b$12$new",
    change_id="c1",
    kept_session_id="s1",
    actor_id="u-ada",
)
FORGOT = RequestPasswordReset(user_id="u-ada", mail_id="m1", token_hash="t1", actor_id="")
RESET = ResetPassword(
    user_id="u-ada", token_hash="t1", password_hash="$2b$12$new", actor_id="u-ada"
)
MAIL = RequestEmailConfirmation(user_id="u-ada", mail_id="m2", token_hash="t2", actor_id="u-ada")
CONFIRM = ConfirmEmail(user_id="u-ada", token_hash="t2", actor_id="u-ada")
RENAME = ChangeProfile(user_id="u-ada", change=ProfileChange(name="Ada L."), actor_id="u-ada")
CLAIM = ClaimAddress(
    user_id="u-ada",
    address="ada@new.example",
    email="Ada@new.example",
    claim_id="c2",
    token_hash="t3",
    change=ProfileChange(),
    actor_id="u-ada",
)


def after(given: list[Any], *commands: Any, at_ms: int = NOON_MS) -> list[Any]:
    """The events so far, with what follows from some more commands."""
    for command in commands:
        given = [*given, *then(USER, given, command, at_ms)]
    return given


def live(given: list[Any], session_id: str, at_ms: int = NOON_MS) -> bool:
    rows = rows_of(USER, given)
    return is_live(rows.get(f"session/u-ada/{session_id}"), list_of(rows, "u-ada"), at_ms)


OPENED = after(REGISTERED, OPEN)
TWO = after(OPENED, replace(OPEN, session_id="s2", refresh_hash="q1"))
REFRESHED = after(OPENED, REFRESH)
ENDED = after(OPENED, END)
FORGOTTEN = after(OPENED, FORGOT)
MAILED = after(REGISTERED, MAIL)


# sessions


def test_a_login_opens_a_session_and_a_refresh_carries_it_on() -> None:
    assert OPENED[-2:] == [
        SessionKept(
            user_id="u-ada",
            session_id="s1",
            refresh_hash="r1",
            client="curl",
            address="10.0.0.1",
            at_ms=NOON_MS,
        ),
        SessionOpened(
            user_id="u-ada",
            session_id="s1",
            number=0,
            generation=0,
            evicted_session_id=None,
            expires_ms=NOON_MS + SESSION_MS,
            at_ms=NOON_MS,
        ),
    ]
    said = then(USER, OPENED, REFRESH, NOON_MS + 5)
    assert [type(event) for event in said] == [SessionKept, SessionRefreshed]
    assert live([*OPENED, *said], "s1", NOON_MS + SESSION_MS + 4)
    assert not live([*OPENED, *said], "s1", NOON_MS + SESSION_MS + 5)


def test_a_refresh_token_that_comes_again_ends_its_session() -> None:
    reused = replace(REFRESH, next_hash="r3")
    assert then(USER, REFRESHED, reused) == [
        SessionEnded(user_id="u-ada", session_id="s1", cause=Cause.REUSED, at_ms=NOON_MS),
        UserCommandRefused(
            user_id="u-ada", command="RefreshSession", reason=Reason.TOKEN_REUSED, at_ms=NOON_MS
        ),
    ]
    stolen = after(REFRESHED, reused)
    assert not live(stolen, "s1")
    newest = replace(REFRESH, presented_hash="r2", next_hash="r4")
    assert then(USER, stolen, newest)[0].reason is Reason.SESSION_ENDED
    older = after(REFRESHED, newest, replace(REFRESH, next_hash="r5"))
    assert not live(older, "s1"), "the one before the last too"


def test_the_same_refresh_twice_is_one() -> None:
    assert then(USER, REFRESHED, REFRESH) == []


def test_all_sessions_end_but_the_one_that_is_kept() -> None:
    kept = after(TWO, replace(END_ALL, kept_session_id="s2"))
    assert (live(kept, "s1"), live(kept, "s2")) == (False, True)
    later = after(kept, replace(OPEN, session_id="s3"))
    assert (live(later, "s2"), live(later, "s3")) == (True, True)
    again = after(later, replace(END_ALL, end_id="e2", kept_session_id="s1"))
    assert [live(again, name) for name in ("s1", "s2", "s3")] == [False] * 3
    assert again[-1].kept_session_id is None, "an ended session can't be kept"


def test_a_new_session_takes_the_place_of_the_oldest() -> None:
    given = REGISTERED
    for n in range(SESSIONS + 1):
        given = after(given, replace(OPEN, session_id=f"s{n}", refresh_hash=f"r{n}"))
    assert given[-1].evicted_session_id == "s0"
    rows = rows_of(USER, given)
    assert "session/u-ada/s0" not in rows
    assert "refresh/u-ada/s0" not in rows
    assert sum(key.startswith("session/") for key in rows) == SESSIONS


def test_sessions_leave_when_their_time_is_over() -> None:
    key = due_key(NOON_MS + SESSION_MS, EXPIRED, "session/u-ada/s1")
    tick = Tick(due=(key,))
    assert then(USER, OPENED, tick, NOON_MS) == [], "not yet"
    over = after(OPENED, tick, at_ms=NOON_MS + SESSION_MS)
    assert over[-1] == SessionsForgotten(due=(key,), at_ms=NOON_MS + SESSION_MS)
    assert not [key for key in rows_of(USER, over) if "s1" in key and "slot" not in key]
    refreshed = [*OPENED, *then(USER, OPENED, REFRESH, NOON_MS + 9)]
    assert then(USER, refreshed, tick, NOON_MS + SESSION_MS) == [], "it was refreshed"


# passwords


def test_another_password_ends_all_other_sessions() -> None:
    said = then(USER, TWO, CHANGE)
    assert said == [
        CredentialsSet(user_id="u-ada", password_hash="$2b$12$new", at_ms=NOON_MS, change_id="c1"),
        PasswordChanged(user_id="u-ada", cause=Cause.PASSWORD_CHANGED, at_ms=NOON_MS),
        SessionsEnded(
            user_id="u-ada",
            kept_session_id="s1",
            generation=1,
            cause=Cause.PASSWORD_CHANGED,
            end_id="c1",
            at_ms=NOON_MS,
        ),
    ]
    changed = [*TWO, *said]
    assert (live(changed, "s1"), live(changed, "s2")) == (True, False)
    assert rows_of(USER, changed)["credentials/u-ada"].password_hash == "$2b$12$new"


def test_a_mailed_token_sets_a_password_once_and_ends_all_sessions() -> None:
    kept, asked = FORGOTTEN[-2:]
    assert isinstance(kept, MailTokenKept)
    assert (kept.purpose, kept.token_hash) == (Purpose.RESET, "t1")
    assert isinstance(asked, PasswordResetRequested)
    assert (asked.mail_id, asked.email) == ("m1", "Ada@example.org")
    assert asked.expires_ms == NOON_MS + LIFE_MS[Purpose.RESET]
    done = after(FORGOTTEN, RESET)
    assert [type(event) for event in done[-3:]] == [CredentialsSet, PasswordChanged, SessionsEnded]
    assert not live(done, "s1")
    assert then(USER, done, RESET) == []
    another = replace(RESET, token_hash="t1", password_hash="$2b$12$other")
    changed = after(done, replace(CHANGE, verified_hash="$2b$12$new"))
    assert then(USER, changed, another)[0].reason is Reason.TOKEN_INVALID


def test_a_mail_a_minute_and_the_last_one_counts() -> None:
    again = replace(FORGOT, mail_id="m9", token_hash="t9")
    assert then(USER, FORGOTTEN, again, LATER_MS - 1) == []
    renewed = after(FORGOTTEN, again, at_ms=LATER_MS)
    assert then(USER, renewed, RESET)[0].reason is Reason.TOKEN_INVALID
    assert len(then(USER, renewed, replace(RESET, token_hash="t9"))) == 3


# addresses


def test_a_registration_asks_to_confirm_the_address() -> None:
    mailed = then(USER, [], replace(ADA, mail_id="m2", token_hash="t2"))
    *_, kept, asked = then(USER, [], mailed[0])
    assert isinstance(kept, MailTokenKept)
    assert isinstance(asked, EmailConfirmationRequested)
    assert (kept.token_hash, asked.mail_id) == ("t2", "m2")


def test_a_confirmed_address() -> None:
    confirmed = after(MAILED, CONFIRM)
    assert confirmed[-1] == EmailConfirmed(
        user_id="u-ada", email="Ada@example.org", version=2, at_ms=NOON_MS
    )
    assert rows_of(USER, confirmed)["user/u-ada"].email_confirmed
    assert then(USER, confirmed, CONFIRM) == []
    assert then(USER, confirmed, MAIL) == []


def test_a_changed_address_is_reserved_first_and_the_former_one_is_free() -> None:
    given = after(after(MAILED, CONFIRM), CLAIM)
    claimed = given[-1]
    assert isinstance(claimed, AddressClaimed)
    given = after(given, claimed)
    moved = next(event for event in given if isinstance(event, EmailChanged))
    assert (moved.email, moved.former_address) == ("Ada@new.example", "ada@example.org")
    assert isinstance(given[-1], EmailConfirmationRequested)
    assert given[-1].email == "Ada@new.example"
    assert not rows_of(USER, given)["user/u-ada"].email_confirmed
    assert then(USER, given, claimed) == []
    given = after(given, moved)
    assert given[-1] == AddressReleased(address="ada@example.org", user_id="u-ada", at_ms=NOON_MS)
    eve = replace(ADA, user_id="u-eve", request_hash="e")
    assert isinstance(then(USER, given, eve)[0], type(RESERVED[0]))
    assert then(USER, given, replace(eve, address="ada@new.example"))[0].reason is (
        Reason.EMAIL_TAKEN
    )


def test_an_address_that_was_claimed_back_is_not_released() -> None:
    given = after(REGISTERED, CLAIM)
    given = after(given, given[-1])
    moved = next(event for event in given if isinstance(event, EmailChanged))
    back = replace(CLAIM, address="ada@example.org", email="ada@example.org", claim_id="c3")
    given = after(given, back)
    given = after(given, given[-1])
    assert then(USER, given, moved) == [], "the word of the first change comes late"
    assert rows_of(USER, given)["user/u-ada"].email == "ada@example.org"


def test_a_profile() -> None:
    assert then(USER, REGISTERED, RENAME) == [
        ProfileChanged(
            user_id="u-ada", name="Ada L.", phone="", language="", version=2, at_ms=NOON_MS
        )
    ]
    assert then(USER, after(REGISTERED, RENAME), RENAME) == []
    reached = replace(RENAME, change=ProfileChange(phone="+44201234567", language="en"))
    row = rows_of(USER, after(REGISTERED, RENAME, reached))["user/u-ada"]
    assert (row.name, row.phone, row.language, row.version) == ("Ada L.", "+44201234567", "en", 3)
    both = after(REGISTERED, replace(CLAIM, change=ProfileChange(name="Countess")))
    row = rows_of(USER, after(both, both[-1]))["user/u-ada"]
    assert (row.name, row.email, row.version) == ("Countess", "Ada@new.example", 3)


# refusals


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (OPENED, OPEN),
        (ENDED, END),
        (after(TWO, END_ALL), END_ALL),
        (after(OPENED, CHANGE), CHANGE),
        (after(REGISTERED, CLAIM), CLAIM),
    ],
)
def test_asked_twice_is_asked_once(given: list[Any], command: Any) -> None:
    assert then(USER, given, command) == []


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        *(
            ([], command, Reason.USER_NOT_FOUND)
            for command in (
                *(OPEN, REFRESH, END, END_ALL, CHANGE, FORGOT, RESET, MAIL, CONFIRM, RENAME),
                then(USER, [], CLAIM)[0],
            )
        ),
        (REGISTERED, replace(OPEN, refresh_hash=""), Reason.INVALID_COMMAND),
        (REGISTERED, REFRESH, Reason.SESSION_ENDED),
        (ENDED, REFRESH, Reason.SESSION_ENDED),
        (after(OPENED, END_ALL), REFRESH, Reason.SESSION_ENDED),
        (REGISTERED, END, Reason.SESSION_ENDED),
        (OPENED, replace(CHANGE, verified_hash="$2b$12$old"), Reason.PASSWORD_CHANGED),
        (OPENED, replace(CHANGE, password_hash=""), Reason.INVALID_COMMAND),
        (OPENED, RESET, Reason.TOKEN_INVALID),
        (FORGOTTEN, replace(RESET, token_hash="t0"), Reason.TOKEN_INVALID),
        (FORGOTTEN, replace(RESET, password_hash=""), Reason.INVALID_COMMAND),
        (REGISTERED, CONFIRM, Reason.TOKEN_INVALID),
        (FORGOTTEN, replace(CONFIRM, token_hash="t1"), Reason.TOKEN_INVALID),
        (REGISTERED, replace(CLAIM, claim_id=""), Reason.INVALID_COMMAND),
        (
            REGISTERED,
            replace(CLAIM, user_id="u-eve", address="ada@example.org"),
            Reason.EMAIL_TAKEN,
        ),
        (REGISTERED, replace(RENAME, change=ProfileChange(name="")), Reason.INVALID_COMMAND),
    ],
)
def test_a_refused_command(given: list[Any], command: Any, reason: Reason) -> None:
    assert then(USER, given, command) == [
        UserCommandRefused(
            user_id=command.user_id,
            command=type(command).__name__,
            reason=reason,
            at_ms=NOON_MS,
        )
    ]


@pytest.mark.parametrize(
    ("given", "command", "purpose"),
    [(FORGOTTEN, RESET, Purpose.RESET), (MAILED, CONFIRM, Purpose.CONFIRM)],
)
def test_a_mailed_token_has_its_time(given: list[Any], command: Any, purpose: Purpose) -> None:
    over_ms = NOON_MS + LIFE_MS[purpose]
    assert not isinstance(then(USER, given, command, over_ms - 1)[0], UserCommandRefused)
    assert then(USER, given, command, over_ms)[0].reason is Reason.TOKEN_INVALID


def test_a_session_that_is_over_is_not_refreshed() -> None:
    assert then(USER, OPENED, REFRESH, NOON_MS + SESSION_MS)[0].reason is Reason.SESSION_ENDED


# what a decision reads


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TWO, REFRESH),
        (TWO, END),
        (TWO, replace(END_ALL, kept_session_id="s1")),
        (TWO, CHANGE),
        (TWO, replace(OPEN, session_id="s3")),
        (FORGOTTEN, RESET),
        (MAILED, CONFIRM),
        (REGISTERED, CLAIM),
        (REGISTERED, then(USER, REGISTERED, CLAIM)[0]),
        (OPENED, Tick(due=(due_key(NOON_MS, EXPIRED, "session/u-ada/s1"),))),
    ],
)
def test_keys_name_all_rows_that_are_read(given: list[Any], message: Any) -> None:
    rows = rows_of(USER, given)
    named = {key: rows[key] for key in USER.keys(message) if key in rows}
    said = USER.decide(named, message, NOON_MS)
    assert said == USER.decide(rows, message, NOON_MS)
    for event in said:
        named = {key: rows[key] for key in USER.keys(event) if key in rows}
        assert USER.evolve(named, event) == USER.evolve(rows, event)
        rows |= {key: row for key, row in USER.evolve(rows, event).items() if row is not None}


# secrets


def test_tokens_follow_from_the_secret_and_from_what_they_are_for() -> None:
    one = mailed_token("secret", Purpose.RESET, "u-ada", "m1")
    assert one == mailed_token("secret", Purpose.RESET, "u-ada", "m1")
    others = {
        mailed_token("other", Purpose.RESET, "u-ada", "m1"),
        mailed_token("secret", Purpose.CONFIRM, "u-ada", "m1"),
        mailed_token("secret", Purpose.RESET, "u-eve", "m1"),
        mailed_token("secret", Purpose.RESET, "u-ada", "m2"),
    }
    assert len(others | {one}) == 5
    assert len(token_hash(one)) == 64


def test_no_public_fact_has_a_hash_a_token_or_an_address_of_a_client() -> None:
    said = {field.name for event in USER.events for field in fields(event)}
    assert not said & {"password_hash", "token_hash", "refresh_hash", "client", "address"}

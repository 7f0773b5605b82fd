"""What tells an answer of before from one of now, and a store that is behind from one that is not."""

from __future__ import annotations

import time

from domain.account import AccountCommandRefused, AccountFrozen
from domain.saga import Reason
from gateway.known import Known
from gateway.lag import behind_s
from schemas.codec import Codec

CODEC = Codec()
NOW_MS = int(time.time() * 1000)


def frozen(at_ms: int) -> bytes:
    return CODEC.encode(AccountFrozen(account_id="a", user_id="u", version=2, at_ms=at_ms))


def test_a_row_is_as_new_as_its_last_event() -> None:
    known = Known(CODEC)
    assert known.is_fresh("account", "a", {"updated_ms": 1})
    known.heard("account", b"a", frozen(NOW_MS), NOW_MS)
    fresh = [known.is_fresh("account", "a", {"updated_ms": NOW_MS + n}) for n in (-1, 0, 1)]
    assert fresh == [False, True, True]
    assert known.is_fresh("account", "b", {"updated_ms": 1})


def test_of_two_changes_in_a_millisecond_a_row_may_have_one() -> None:
    known, soon_ms = Known(CODEC), int(time.time() * 1000) + 60_000
    for _ in range(2):
        known.heard("account", b"a", frozen(soon_ms), soon_ms)
        known.heard("account", b"old", frozen(soon_ms - 90_000), soon_ms - 90_000)
    assert not known.is_fresh("account", "a", {"updated_ms": soon_ms})
    assert known.is_fresh("account", "old", {"updated_ms": soon_ms - 90_000})


def test_what_changes_nothing_makes_no_row_old_and_the_longest_unheard_goes() -> None:
    known = Known(CODEC, entries=2)
    refused = AccountCommandRefused(
        account_id="a", command="FreezeAccount", reason=Reason.ACCOUNT_CLOSED, at_ms=NOW_MS
    )
    known.heard("account", b"a", CODEC.encode(refused), NOW_MS)
    assert known.is_fresh("account", "a", {"updated_ms": 1})
    for key in (b"a", b"b", b"a", b"c"):
        known.heard("account", key, frozen(NOW_MS), NOW_MS)
    fresh = {key: known.is_fresh("account", key, {"updated_ms": 1}) for key in "abc"}
    assert fresh == {"a": False, "b": True, "c": False}


def test_a_store_is_as_far_behind_as_the_newest_ends_that_it_has_reached() -> None:
    one, other = ("user.events", 0), ("user.events", 1)
    ends = [(10.0, {one: 5, other: 0}), (11.0, {one: 9, other: 0}), (12.0, {one: 9, other: 3})]
    assert behind_s(ends, {one: 4}, 12.0) == 2.0, "a mark lies between it and the end"
    assert behind_s(ends, {one: 9}, 12.0) == 1.0
    assert behind_s(ends, {one: 9, other: 3}, 12.0) == 0.0
    assert behind_s(ends, {one: 1}, 12.0) == float("inf")

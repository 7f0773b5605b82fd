"""Knowing the customer: asked, decided by somebody else, never told to the world."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from domain.kyc import (
    DecideKyc,
    KycDecision,
    KycDecisionKept,
    KycDetails,
    KycDetailsKept,
    KycFile,
    KycLevelSet,
    KycOpen,
    KycRejected,
    KycSubmitted,
    SubmitKyc,
)
from domain.person import KycStatus, User, UserCommandRefused
from domain.saga import Reason
from domain.user import USER
from tests.domain.stories import NOON_MS, rows_of, then
from tests.domain.test_user import REGISTERED

DETAILS = KycDetails(
    full_name="Ada Lovelace",
    date_of_birth="1990-12-10",
    country="GB",
    document_kind="passport",
    document_number="X0815",
)
ASK = SubmitKyc(user_id="u-ada", level=2, details=DETAILS, submission_id="s1", actor_id="u-ada")
APPROVE = DecideKyc(
    user_id="u-ada",
    submission_id="s1",
    decision=KycDecision.APPROVE,
    level=2,
    note="passport seen",
    actor_id="officer",
)
REJECT = replace(APPROVE, decision=KycDecision.REJECT, level=0, note="blurred")
ASKED = [*REGISTERED, *then(USER, REGISTERED, ASK)]
BASIC = [*ASKED, *then(USER, ASKED, replace(APPROVE, level=1))]
APPROVED = [*ASKED, *then(USER, ASKED, APPROVE)]
REJECTED = [*ASKED, *then(USER, ASKED, REJECT)]


def test_a_submission_waits_for_an_officer() -> None:
    kept, said = ASKED[len(REGISTERED) :]
    assert kept == KycDetailsKept(
        user_id="u-ada", level=2, details=DETAILS, submission_id="s1", at_ms=NOON_MS
    )
    assert said == KycSubmitted(user_id="u-ada", level=2, version=2, at_ms=NOON_MS)
    rows = rows_of(USER, ASKED)
    assert rows["kyc-open/u-ada"] == KycOpen(user_id="u-ada", level=2, submitted_ms=NOON_MS)
    assert rows["user/u-ada"].kyc_status is KycStatus.PENDING
    assert rows["user/u-ada"].kyc_level == 0


def test_approval_gives_the_level_that_the_officer_says() -> None:
    assert APPROVED[-2:] == [
        KycDecisionKept(
            user_id="u-ada",
            decision=KycDecision.APPROVE,
            note="passport seen",
            actor_id="officer",
            at_ms=NOON_MS,
        ),
        KycLevelSet(user_id="u-ada", level=2, version=3, at_ms=NOON_MS),
    ]
    assert BASIC[-1] == KycLevelSet(user_id="u-ada", level=1, version=3, at_ms=NOON_MS)
    rows = rows_of(USER, BASIC)
    user, file = rows["user/u-ada"], rows["kyc/u-ada"]
    assert isinstance(user, User)
    assert isinstance(file, KycFile)
    assert (user.kyc_level, user.kyc_status, user.version) == (1, KycStatus.VERIFIED, 3)
    assert (file.status, file.decided_by) == (KycStatus.VERIFIED, "officer")
    assert "kyc-open/u-ada" not in rows


def test_what_was_rejected_may_be_asked_again_and_the_level_stays() -> None:
    assert REJECTED[-1] == KycRejected(user_id="u-ada", version=3, at_ms=NOON_MS)
    assert rows_of(USER, REJECTED)["user/u-ada"].kyc_level == 0
    upgrade = replace(ASK, submission_id="s2")
    for given in (REJECTED, BASIC):
        assert [type(said) for said in then(USER, given, upgrade)] == [KycDetailsKept, KycSubmitted]
    lost = [*BASIC, *then(USER, BASIC, upgrade)]
    lost += then(USER, lost, replace(REJECT, submission_id="s2"))
    row = rows_of(USER, lost)["user/u-ada"]
    assert (row.kyc_level, row.kyc_status) == (1, KycStatus.REJECTED)


@pytest.mark.parametrize(
    ("given", "asked"),
    [(ASKED, ASK), (APPROVED, ASK), (APPROVED, APPROVE), (REJECTED, REJECT)],
)
def test_asked_twice_is_asked_once(given: list[Any], asked: Any) -> None:
    assert then(USER, given, asked) == []


@pytest.mark.parametrize(
    ("given", "command", "reason"),
    [
        ([], ASK, Reason.USER_NOT_FOUND),
        (REGISTERED, replace(ASK, level=3), Reason.INVALID_COMMAND),
        (REGISTERED, replace(ASK, level=0), Reason.INVALID_COMMAND),
        (REGISTERED, replace(ASK, submission_id=""), Reason.INVALID_COMMAND),
        (ASKED, replace(ASK, submission_id="s2"), Reason.KYC_PENDING),
        (APPROVED, replace(ASK, submission_id="s2"), Reason.KYC_LEVEL_HELD),
        (BASIC, replace(ASK, submission_id="s2", level=1), Reason.KYC_LEVEL_HELD),
        ([], APPROVE, Reason.USER_NOT_FOUND),
        (REGISTERED, APPROVE, Reason.KYC_NOT_PENDING),
        (ASKED, replace(APPROVE, actor_id="u-ada"), Reason.OWN_CASE),
        (ASKED, replace(APPROVE, submission_id="s0"), Reason.KYC_NOT_PENDING),
        (ASKED, replace(APPROVE, level=0), Reason.INVALID_COMMAND),
        (ASKED, replace(APPROVE, level=3), Reason.INVALID_COMMAND),
        (APPROVED, REJECT, Reason.KYC_NOT_PENDING),
        (APPROVED, replace(APPROVE, actor_id="another"), Reason.KYC_NOT_PENDING),
        (REJECTED, APPROVE, Reason.KYC_NOT_PENDING),
    ],
)
def test_a_refused_command(given: list[Any], command: Any, reason: Reason) -> None:
    assert then(USER, given, command) == [
        UserCommandRefused(
            user_id="u-ada", command=type(command).__name__, reason=reason, at_ms=NOON_MS
        )
    ]


def test_what_someone_says_of_themselves_is_in_no_public_fact() -> None:
    secret = {field.name for field in fields(KycDetails)} | {"details", "note", "decision"}
    said = {field.name for event in USER.events for field in fields(event)}
    assert not secret & said

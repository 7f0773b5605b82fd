"""Notifications: who is told over which channel, again until it arrives, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.credentials import (
    EmailConfirmationRequested,
    PasswordChanged,
    PasswordResetRequested,
)
from domain.decider import KEEP_FINAL_MS, Overlay, Tick, apply, due_key
from domain.notification import NOTIFICATION, NotificationRequested, SendNotification
from domain.notification_delivery import (
    ANSWER_MS,
    BUSY_MS,
    DELIVER,
    JITTER_PERCENT,
    KEEP,
    PAUSES_MS,
    WEBHOOK_PAUSES_MS,
    DeadNotificationForgotten,
    DeliveryAnswered,
    DeliveryFailed,
    DeliveryRequested,
    NotificationDelivered,
    NotificationDied,
    NotificationRedriven,
    Outcome,
    RedriveNotification,
    jittered,
)
from domain.notification_recipients import (
    ENDPOINTS,
    ContactsSet,
    EndpointDisabled,
    EndpointRemoved,
    EndpointSet,
    EndpointUrlSet,
    PreferencesSet,
    RecipientKnown,
    RemoveEndpoint,
    RotateSecret,
    SecretRotated,
    SetEndpoint,
    SetPreferences,
)
from domain.notification_rows import (
    Channel,
    Choice,
    Kind,
    NotificationCommandRefused,
    Status,
    notification_key,
)
from domain.notification_templates import SaveTemplate, TemplateApplied, TemplateSaved
from domain.saga import Reason, TransactionCompleted, TransactionFailed
from domain.session import Cause
from domain.user import EmailChanged, Role, RolesSet, UserRegistered
from tests.domain.stories import NOON_MS, order, then
from topics.subscriptions import route

REGISTERED = UserRegistered(
    user_id="u-ada", email="ada@example.org", name="Ada", roles=(Role.CUSTOMER,), version=1,
    at_ms=NOON_MS,
)  # fmt: skip
ADA = then(NOTIFICATION, [], REGISTERED)
DONE = TransactionCompleted(order=order(), request_hash="", balances=(), at_ms=NOON_MS, steps=())
FAILED = TransactionFailed(
    order=order(), request_hash="", reason=Reason.ACCOUNT_FROZEN, balances=(), at_ms=NOON_MS,
    steps=(),
)  # fmt: skip
ROLES = RolesSet(user_id="u-ada", roles=(Role.OPERATOR,), version=2, actor_id="root", at_ms=NOON_MS)
PREFERENCES = SetPreferences(
    user_id="u-ada",
    choices=(
        Choice(kind=Kind.TRANSACTION_COMPLETED, channels=(Channel.EMAIL, Channel.SMS)),
        Choice(kind=Kind.MESSAGE, channels=(Channel.IN_APP, Channel.PUSH)),
    ),
    phone="+41790000000",
    device=None,
    actor_id="u-ada",
)
HOOK = SetEndpoint(
    user_id="u-ada", endpoint_id="u-ada.h1", url="https://ada.example/in?token=t", kinds=(),
    enabled=True, actor_id="u-ada",
)  # fmt: skip
MESSAGE = SendNotification(
    notification_id="u-ada.m1", user_id="u-ada", channel=Channel.IN_APP, template="message",
    data={"subject": "Hello", "text": "Ada"}, actor_id="sue",
)  # fmt: skip
TEMPLATE = SaveTemplate(
    name="greeting", kind=Kind.MESSAGE, subject="Hi", text="Dear {{ name }}", html="",
    variables=("name",), actor_id="ops",
)  # fmt: skip


def given(*messages: Any, at_ms: int = NOON_MS) -> list[Any]:
    """Ada is known, then this was said to the service."""
    said = [*ADA]
    for message in messages:
        said += then(NOTIFICATION, said, message, at_ms)
    return said


def rows(said: list[Any]) -> dict[str, Any]:
    overlay = Overlay({})
    apply(NOTIFICATION, overlay, said)
    return {key: row for key, row in overlay.changes.items() if row is not None}


def kinds(said: list[Any]) -> list[type]:
    return [type(event) for event in said]


def answered(request: DeliveryRequested, outcome: Outcome, detail: str = "") -> DeliveryAnswered:
    return DeliveryAnswered(
        notification_id=request.notification_id,
        user_id=request.user_id,
        attempt=request.attempt,
        outcome=outcome,
        detail=detail,
    )


def test_the_end_of_a_transaction_is_told_in_the_app_alone_by_default() -> None:
    (said,) = then(NOTIFICATION, ADA, DONE)
    assert isinstance(said, NotificationRequested)
    assert (said.notification_id, said.channel, said.number) == ("u-ada.t1", "in_app", None)
    assert then(NOTIFICATION, [*ADA, said], DONE) == []
    assert kinds(then(NOTIFICATION, [], DONE)) == [NotificationRequested]  # not known yet


def test_what_a_transfer_causes_by_default_is_one_event_and_one_row() -> None:
    said = then(NOTIFICATION, ADA, DONE)
    before, after = rows(ADA), rows([*ADA, *said])
    assert len(after.keys() - before.keys()) == 2  # the notification, and when it is forgotten
    assert [route(event) for event in said] == [()]


def test_what_was_only_logged_before_there_were_channels_is_shown_in_the_app() -> None:
    first = NotificationRequested(
        notification_id="t1", user_id="u-ada", channel="log", template="transaction_completed",
        data={}, at_ms=NOON_MS,
    )  # fmt: skip
    row = rows([first])["notification/t1"]
    assert (row.channel, row.status) == (Channel.IN_APP, Status.DELIVERED)


def test_who_chose_channels_is_told_over_those_that_reach_them() -> None:
    known = given(PREFERENCES)
    said = then(NOTIFICATION, known, DONE)
    assert kinds(said) == [NotificationRequested, DeliveryRequested] * 2
    mail, text = said[1], said[3]
    assert (mail.notification_id, mail.target) == ("u-ada.t1.email", "ada@example.org")
    assert (text.notification_id, text.target) == ("u-ada.t1.sms", "+41790000000")
    assert [event.number for event in said[::2]] == [0, 1]
    assert route(mail) == (("email.inbox", "u-ada"),)
    assert then(NOTIFICATION, [*known, *said], DONE) == []
    assert kinds(then(NOTIFICATION, known, FAILED)) == [NotificationRequested]  # by default


def test_who_turned_everything_off_is_told_nothing_but_security() -> None:
    off = tuple(Choice(kind=kind, channels=()) for kind in Kind)
    known = given(replace(PREFERENCES, choices=off))
    assert then(NOTIFICATION, known, DONE) == []
    said = then(NOTIFICATION, known, ROLES)
    assert [event.channel for event in said] == [Channel.EMAIL, Channel.EMAIL]
    assert said[0].data == {"roles": "operator"}


def test_an_endpoint_hears_what_it_asked_for() -> None:
    known = given(HOOK)
    _, requested, sent = then(NOTIFICATION, known, DONE)
    assert requested.notification_id == "u-ada.t1.webhook-0"
    assert (sent.target, sent.endpoint_id, sent.secret_version) == (HOOK.url, "u-ada.h1", 1)
    assert (sent.subject, sent.text, sent.html) == ("", "", "")
    assert route(sent) == (("webhook.inbox", "u-ada"),)
    failures = replace(HOOK, kinds=(Kind.TRANSACTION_FAILED,))
    assert kinds(then(NOTIFICATION, given(failures), DONE)) == [NotificationRequested]
    assert len(then(NOTIFICATION, given(failures), FAILED)) == 3
    disabled = replace(HOOK, enabled=False)
    assert kinds(then(NOTIFICATION, given(HOOK, disabled), DONE)) == [NotificationRequested]


def test_the_url_of_an_endpoint_is_private() -> None:
    said = then(NOTIFICATION, ADA, HOOK)
    assert kinds(said) == [EndpointSet, EndpointUrlSet]
    assert (said[0].host, said[0].slot) == ("ada.example", 0)
    private = NOTIFICATION.private_events
    assert set(private) == {DeliveryRequested, ContactsSet, EndpointUrlSet}
    public = [name for t in NOTIFICATION.events for name in t.__dataclass_fields__]
    assert not {"url", "target", "phone", "device", "secret"} & set(public)


def test_preferences_are_replaced_and_said_again_say_nothing() -> None:
    said = then(NOTIFICATION, ADA, PREFERENCES)
    assert kinds(said) == [ContactsSet, PreferencesSet]
    assert then(NOTIFICATION, [*ADA, *said], PREFERENCES) == []
    fewer = replace(PREFERENCES, choices=())
    assert kinds(then(NOTIFICATION, [*ADA, *said], fewer)) == [PreferencesSet]
    row = rows([*ADA, *said])["recipient/u-ada"]
    assert (row.email, row.phone, row.version) == ("ada@example.org", "+41790000000", 2)


def test_a_recipient_is_added_once_even_when_preferences_came_first() -> None:
    assert kinds(ADA) == [RecipientKnown]
    assert then(NOTIFICATION, ADA, REGISTERED) == []
    first = then(NOTIFICATION, [], PREFERENCES)
    said = then(NOTIFICATION, first, REGISTERED)
    assert (said[0].version, rows([*first, *said])["recipient/u-ada"].phone) == (2, "+41790000000")


MOVED = EmailChanged(
    user_id="u-ada", email="new@example.org", claim_id="c", former_email="ada@example.org",
    former_address="ada@example.org", former_claim_id="", version=2, at_ms=NOON_MS,
)  # fmt: skip
RESET = PasswordResetRequested(
    user_id="u-ada", email="ada@example.org", name="Ada", mail_id="m7",
    expires_ms=NOON_MS + 3_600_000, at_ms=NOON_MS,
)  # fmt: skip


def test_a_new_address_is_told_to_the_former_one_also_when_it_is_tried_again() -> None:
    known, requested, sent = then(NOTIFICATION, ADA, MOVED)
    assert (known.email, requested.channel) == ("new@example.org", "email")
    assert (sent.target, sent.data) == ("ada@example.org", {"email": "new@example.org"})
    said, _ = fail([*ADA, known, requested, sent], NOON_MS)
    assert (said[-1].attempt, said[-1].target) == (2, "ada@example.org")
    assert then(NOTIFICATION, said, MOVED) == []
    assert then(NOTIFICATION, said, ROLES)[-1].target == "new@example.org"


@pytest.mark.parametrize(
    ("fact", "purpose"),
    [
        (RESET, "reset"),
        (
            EmailConfirmationRequested(
                user_id="u-ada", email="ada@example.org", name="Ada", mail_id="m7",
                expires_ms=NOON_MS + 3_600_000, at_ms=NOON_MS,
            ),
            "confirm",
        ),
    ],
)  # fmt: skip
def test_a_mail_with_a_token_goes_by_mail_alone_and_no_event_has_the_token(
    fact: Any, purpose: str
) -> None:
    known = given(PREFERENCES, HOOK)
    requested, sent = then(NOTIFICATION, known, fact)
    assert (sent.target, sent.channel) == ("ada@example.org", Channel.EMAIL)
    assert "token" not in sent.data
    assert sent.data.items() >= {"mail_id": "m7", "purpose": purpose, "minutes": "60"}.items()
    assert then(NOTIFICATION, [*known, requested, sent], fact) == []
    assert len(then(NOTIFICATION, [], fact)) == 2  # whether the user is known yet or not


def test_a_changed_password_is_told() -> None:
    fact = PasswordChanged(user_id="u-ada", cause=Cause.PASSWORD_CHANGED, at_ms=NOON_MS)
    said = then(NOTIFICATION, ADA, fact)
    assert [event.channel for event in said] == ["in_app", "email", "email"]


WEBHOOK = given(HOOK, DONE)
SENT = WEBHOOK[-1]
assert isinstance(SENT, DeliveryRequested)


def fail(said: list[Any], at_ms: int, outcome: Outcome = Outcome.FAILED) -> tuple[list[Any], int]:
    """Answer the last attempt and let the next pause pass; answers the next time."""
    request = next(e for e in reversed(said) if isinstance(e, DeliveryRequested))
    said += then(NOTIFICATION, said, answered(request, outcome, "answered 500"), at_ms)
    if not isinstance(said[-1], DeliveryFailed):
        return said, at_ms
    at_ms = said[-1].next_ms
    due = due_key(at_ms, DELIVER, request.notification_id)
    assert due in rows(said)
    assert then(NOTIFICATION, said, Tick(due=(due,)), at_ms - 1) == []
    said += then(NOTIFICATION, said, Tick(due=(due,)), at_ms)
    return said, at_ms


@pytest.mark.parametrize(
    ("messages", "pauses_ms"), [((HOOK, DONE), WEBHOOK_PAUSES_MS), ((ROLES,), PAUSES_MS)]
)
def test_what_fails_is_tried_again_on_its_schedule_and_then_given_up(
    messages: tuple[Any, ...], pauses_ms: tuple[int, ...]
) -> None:
    said, at_ms = given(*messages), NOON_MS
    for n, pause_ms in enumerate(pauses_ms, 1):
        before_ms = at_ms
        said, at_ms = fail(said, at_ms)
        assert (said[-1].attempt, said[-1].data) == (n + 1, said[-1].data)
        waited = at_ms - before_ms
        assert abs(waited - pause_ms) * 100 <= pause_ms * JITTER_PERCENT
    said, at_ms = fail(said, at_ms)
    assert isinstance(said[-1], NotificationDied)
    assert said[-1].detail == "answered 500"
    row = rows(said)[notification_key(said[-1].notification_id)]
    assert (row.status, row.attempt, row.detail) == (
        Status.DEAD,
        len(pauses_ms) + 1,
        "answered 500",
    )


def test_the_jitter_of_a_try_is_always_the_same_and_differs_between_tries() -> None:
    pauses = {jittered(1_000_000, f"n{n}", tries) for n in range(20) for tries in (1, 2)}
    assert len(pauses) > 10
    assert jittered(1_000_000, "n1", 1) == jittered(1_000_000, "n1", 1)
    assert all(900_000 <= pause_ms <= 1_100_000 for pause_ms in pauses)


def test_what_has_arrived_is_final_and_its_content_goes_at_once() -> None:
    (said,) = then(NOTIFICATION, WEBHOOK, answered(SENT, Outcome.DELIVERED))
    assert isinstance(said, NotificationDelivered)
    after = rows([*WEBHOOK, said])
    assert after[notification_key(SENT.notification_id)].status == Status.DELIVERED
    assert after["recipient/u-ada"].endpoints[0].delivered_ms == NOON_MS
    assert not [key for key in after if key.startswith(("delivery/", f"due/{NOON_MS}"))]
    for outcome in Outcome:  # late, or twice
        assert then(NOTIFICATION, [*WEBHOOK, said], answered(SENT, outcome)) == []


def test_an_answer_of_an_earlier_attempt_says_nothing() -> None:
    said, at_ms = fail([*WEBHOOK], NOON_MS)
    assert said[-1].attempt == 2
    assert then(NOTIFICATION, said, answered(SENT, Outcome.DELIVERED), at_ms) == []
    nobody = replace(answered(SENT, Outcome.DELIVERED), notification_id="u-ada.x")
    assert then(NOTIFICATION, said, nobody, at_ms) == []


def test_a_full_line_costs_no_try() -> None:
    said, at_ms = fail([*WEBHOOK], NOON_MS, Outcome.BUSY)
    assert at_ms == NOON_MS + BUSY_MS
    said, after_ms = fail(said, at_ms)
    assert after_ms - at_ms < 2 * WEBHOOK_PAUSES_MS[0]  # the first pause, not the second


def test_an_attempt_without_a_word_counts_as_failed() -> None:
    due = due_key(NOON_MS + ANSWER_MS, DELIVER, SENT.notification_id)
    (said,) = then(NOTIFICATION, WEBHOOK, Tick(due=(due,)), NOON_MS + ANSWER_MS)
    assert isinstance(said, DeliveryFailed)


def test_what_is_refused_for_good_is_given_up_at_once() -> None:
    (said,) = then(NOTIFICATION, WEBHOOK, answered(SENT, Outcome.REFUSED, "no"))
    assert isinstance(said, NotificationDied)


def test_410_disables_the_endpoint_and_gives_up_what_waits_for_it() -> None:
    other = replace(DONE, order=order(transaction_id="t2"))
    known = given(HOOK, DONE, other)
    first, second = (e for e in known if isinstance(e, DeliveryRequested))
    known += then(NOTIFICATION, known, answered(second, Outcome.FAILED))
    waiting = known[-1]
    said = then(NOTIFICATION, known, answered(first, Outcome.GONE))
    assert kinds(said) == [EndpointDisabled, NotificationDied]
    known += said
    assert not rows(known)["recipient/u-ada"].endpoints[0].enabled
    due = due_key(waiting.next_ms, DELIVER, second.notification_id)
    (died,) = then(NOTIFICATION, known, Tick(due=(due,)), waiting.next_ms)
    assert died.detail == "the endpoint is disabled"
    redrive = RedriveNotification(
        notification_id=first.notification_id, user_id="u-ada", actor_id="u-ada"
    )
    assert refused(known, redrive) is Reason.NO_ADDRESS
    known += then(NOTIFICATION, known, HOOK)  # enabled again
    assert kinds(then(NOTIFICATION, known, redrive)) == [NotificationRedriven, DeliveryRequested]


@pytest.mark.parametrize("arrived", [False, True])
def test_an_endpoint_that_takes_nothing_for_a_whole_schedule_is_disabled(arrived: bool) -> None:
    said, at_ms = [*WEBHOOK], NOON_MS
    for _ in WEBHOOK_PAUSES_MS:
        said, at_ms = fail(said, at_ms)
    if arrived:
        other = then(NOTIFICATION, said, replace(DONE, order=order(transaction_id="t2")), at_ms)
        said += other
        said += then(NOTIFICATION, said, answered(other[-1], Outcome.DELIVERED), at_ms)
    request = [e for e in said if isinstance(e, DeliveryRequested) and e.attempt > 1][-1]
    final = then(NOTIFICATION, said, answered(request, Outcome.FAILED), at_ms)
    assert kinds(final) == ([] if arrived else [EndpointDisabled]) + [NotificationDied]


DEAD = [*WEBHOOK, *then(NOTIFICATION, WEBHOOK, answered(SENT, Outcome.REFUSED))]
REDRIVE = RedriveNotification(
    notification_id=SENT.notification_id, user_id="u-ada", actor_id="u-ada"
)


def test_what_was_given_up_is_put_back_at_the_start_of_its_schedule() -> None:
    redriven, again = then(NOTIFICATION, DEAD, REDRIVE)
    assert isinstance(redriven, NotificationRedriven)
    assert (again.attempt, again.data, again.target) == (2, SENT.data, SENT.target)
    said, at_ms = fail([*DEAD, redriven, again], NOON_MS)
    assert at_ms - NOON_MS < 2 * WEBHOOK_PAUSES_MS[0]
    assert kinds(then(NOTIFICATION, said, answered(said[-1], Outcome.DELIVERED), at_ms)) == [
        NotificationDelivered
    ]


def test_it_goes_to_where_the_user_is_reached_by_then() -> None:
    known = given(PREFERENCES, DONE)
    text = known[-1]
    known += then(NOTIFICATION, known, answered(text, Outcome.FAILED))
    known += then(NOTIFICATION, known, replace(PREFERENCES, phone="+41791111111"))
    at_ms = NOON_MS + 2 * PAUSES_MS[0]
    due = [key for key in rows(known) if key.endswith(f"/{DELIVER}/{text.notification_id}")]
    (again,) = then(NOTIFICATION, known, Tick(due=tuple(due)), at_ms)
    assert again.target == "+41791111111"
    known += then(NOTIFICATION, known, replace(PREFERENCES, phone=None))
    (died,) = then(NOTIFICATION, known, Tick(due=tuple(due)), at_ms)
    assert died.detail == "there is no address any more"


def test_what_was_given_up_is_forgotten_in_the_end_with_all_of_it() -> None:
    at_ms = NOON_MS + KEEP_FINAL_MS
    tick = Tick(due=(due_key(at_ms, KEEP, SENT.notification_id),))
    assert then(NOTIFICATION, DEAD, tick, at_ms - 1) == []
    (said,) = then(NOTIFICATION, DEAD, tick, at_ms)
    assert isinstance(said, DeadNotificationForgotten)
    left = rows([*DEAD, said])
    assert not [key for key in left if SENT.notification_id in key or key.startswith("listed/")]


def test_a_message_of_the_staff() -> None:
    (said,) = then(NOTIFICATION, ADA, MESSAGE)
    assert (said.kind, said.number, said.data) == ("message", 0, MESSAGE.data)
    assert then(NOTIFICATION, [*ADA, said], MESSAGE) == []
    mail = replace(MESSAGE, notification_id="u-ada.m1.email", channel=Channel.EMAIL)
    _, sent = then(NOTIFICATION, [*ADA, said], mail)
    assert (sent.subject, sent.template_version) == ("{{ subject }}", 0)


def test_templates_are_saved_in_one_partition_and_applied_in_each() -> None:
    (saved,) = then(NOTIFICATION, [], TEMPLATE)
    assert isinstance(saved, TemplateSaved)
    assert saved.version == 1
    assert [topic for topic, _ in route(saved)] == ["notification.inbox"]
    (again,) = then(NOTIFICATION, [saved], TEMPLATE)
    assert again.version == 2
    (applied,) = then(NOTIFICATION, ADA, saved)
    assert isinstance(applied, TemplateApplied)
    assert then(NOTIFICATION, [*ADA, applied], saved) == []
    known = [*ADA, applied, *then(NOTIFICATION, [*ADA, applied], again)]
    assert then(NOTIFICATION, known, saved) == []  # an older one does not come back
    mail = replace(
        MESSAGE, template="greeting", channel=Channel.EMAIL, data={"name": "Ada"},
        notification_id="u-ada.m1.email",
    )  # fmt: skip
    _, sent = then(NOTIFICATION, known, mail)
    assert (sent.text, sent.template_version) == ("Dear {{ name }}", 2)


def test_a_template_under_a_name_of_the_banks_takes_its_place() -> None:
    own = replace(
        TEMPLATE, name="roles_changed", kind=Kind.SECURITY, text="{{ roles }}!",
        variables=("roles",),
    )  # fmt: skip
    (saved,) = then(NOTIFICATION, [], own)
    said = then(NOTIFICATION, [*ADA, *then(NOTIFICATION, ADA, saved)], ROLES)
    assert said[-1].text == "{{ roles }}!"


def test_a_secret_is_exchanged_and_an_endpoint_removed() -> None:
    rotate = RotateSecret(user_id="u-ada", endpoint_id="u-ada.h1", actor_id="u-ada")
    known = given(HOOK)
    known += then(NOTIFICATION, known, rotate)
    assert isinstance(known[-1], SecretRotated)
    assert then(NOTIFICATION, known, DONE)[-1].secret_version == 2
    remove = RemoveEndpoint(user_id="u-ada", endpoint_id="u-ada.h1", actor_id="u-ada")
    known += then(NOTIFICATION, known, remove)
    assert isinstance(known[-1], EndpointRemoved)
    assert rows(known)["recipient/u-ada"].endpoints == ()
    assert then(NOTIFICATION, known, HOOK)[0].slot == 0


def hooks(count: int) -> list[Any]:
    return given(
        *(replace(HOOK, endpoint_id=f"u-ada.{n}", url=f"https://{n}.example") for n in range(count))
    )


def refused(known: list[Any], command: Any) -> Reason:
    (said,) = then(NOTIFICATION, known, command)
    assert isinstance(said, NotificationCommandRefused)
    assert said.command == type(command).__name__
    return said.reason


ROTATE = RotateSecret(user_id="u-ada", endpoint_id="u-ada.none", actor_id="u-ada")
REMOVE = RemoveEndpoint(user_id="u-ada", endpoint_id="u-ada.none", actor_id="u-ada")
EMAIL = replace(MESSAGE, channel=Channel.EMAIL)


@pytest.mark.parametrize(
    ("known", "command", "reason"),
    [
        (given(MESSAGE), EMAIL, Reason.IDEMPOTENCY_MISMATCH),
        (given(MESSAGE), replace(MESSAGE, data={"subject": "", "text": ""}), Reason.IDEMPOTENCY_MISMATCH),
        ([], MESSAGE, Reason.USER_NOT_FOUND),
        (ADA, replace(MESSAGE, template="nothing"), Reason.TEMPLATE_NOT_FOUND),
        (ADA, replace(MESSAGE, data={"subject": ""}), Reason.TEMPLATE_DATA_MISSING),
        (ADA, replace(MESSAGE, template="password_reset"), Reason.INVALID_COMMAND),
        (given(PREFERENCES), EMAIL, Reason.CHANNEL_OFF),
        (ADA, replace(MESSAGE, channel=Channel.SMS), Reason.CHANNEL_OFF),
        (given(PREFERENCES), replace(MESSAGE, channel=Channel.PUSH), Reason.NO_ADDRESS),
        (ADA, REDRIVE, Reason.NOTIFICATION_NOT_FOUND),
        (DEAD, replace(REDRIVE, user_id="u-eve"), Reason.NOTIFICATION_NOT_FOUND),
        (WEBHOOK, REDRIVE, Reason.NOTIFICATION_NOT_DEAD),
        (given(MESSAGE), replace(REDRIVE, notification_id="u-ada.m1"), Reason.NOTIFICATION_NOT_DEAD),
        (ADA, replace(PREFERENCES, choices=PREFERENCES.choices[:1] * 2), Reason.INVALID_COMMAND),
        (
            ADA,
            replace(PREFERENCES, choices=(Choice(kind=Kind.MESSAGE, channels=(Channel.WEBHOOK,)),)),
            Reason.INVALID_COMMAND,
        ),
        (given(HOOK), replace(HOOK, url="https://other.example"), Reason.INVALID_COMMAND),
        (hooks(ENDPOINTS), HOOK, Reason.TOO_MANY_ENDPOINTS),
        (ADA, ROTATE, Reason.ENDPOINT_NOT_FOUND),
        (ADA, REMOVE, Reason.ENDPOINT_NOT_FOUND),
        ([], replace(TEMPLATE, text=""), Reason.INVALID_COMMAND),
        ([], replace(TEMPLATE, name="message", kind=Kind.SECURITY), Reason.INVALID_COMMAND),
        ([], replace(TEMPLATE, name="message"), Reason.TEMPLATE_DATA_MISSING),
    ],
)  # fmt: skip
def test_a_refused_command(known: list[Any], command: Any, reason: Reason) -> None:
    assert refused(known, command) is reason

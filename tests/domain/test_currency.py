"""Currency: each refusal once, rates as they are set and crossed, quotes, and a whole exchange."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.currency import (
    CURRENCY,
    CurrencyCommandRefused,
    FeedAnswered,
    FetchOutcome,
    QuoteIssued,
    RateFixed,
    RateRefused,
    RatesApplied,
    RatesFetched,
    RatesForgotten,
    RateSource,
    RatesRequested,
    RatesSet,
    RequestQuote,
    ScheduleFeed,
    SetRates,
    before_history,
    history_key,
    market,
    rate_key,
)
from domain.decider import KEEP_FINAL_MS, Overlay, Tick, apply, due_key, expiry_key
from domain.ledger import trial_balance
from domain.risk import RISK
from domain.saga import (
    Posting,
    Reason,
    RiskApproved,
    RiskDeclined,
    Terms,
    TransactionCancelled,
    TransactionCompleted,
    TransactionCreated,
    TransactionFailed,
    TransactionType,
)
from domain.transaction import TRANSACTION, CreateTransaction
from tests.domain.scenario import Scenario, deposit, opening, transfer
from tests.domain.stories import NOON_MS, order, then

DAY_S = 24 * 3600
SET = SetRates(
    base="EUR",
    rates={"USD": "1.25", "JPY": "160"},
    source=RateSource.OPERATOR,
    as_of_ms=None,
    max_age_s=DAY_S,
    spread_ppm=10_000,
    actor_id="ops",
    request_id="r1",
)
ASK = RequestQuote(
    quote_id="q1",
    user_id="u-ada",
    currency="USD",
    destination_currency="JPY",
    amount_minor=None,
    hold_s=60,
    request_hash="h1",
)


def rates(*commands: SetRates, given: tuple[Any, ...] = ()) -> list[Any]:
    """Set and heard of."""
    said = list(given)
    for command in commands:
        (fact,) = then(CURRENCY, said, command)
        said.append(fact)
        said += then(CURRENCY, said, fact)
    return said


def exchange(**changes: Any) -> TransactionCreated:
    terms = Terms(destination_currency="JPY", **changes.pop("terms", {}))
    it = order(type=TransactionType.EXCHANGE, destination_account_id="ada", terms=terms, **changes)
    return TransactionCreated(
        order=it,
        description="",
        reference="",
        metadata={},
        request_hash="",
        at_ms=NOON_MS,
        steps=(),
    )


def test_rates_are_set_once_and_apply_everywhere_once() -> None:
    (said,) = then(CURRENCY, [], SET)
    assert said == RatesSet(
        version=1,
        base="EUR",
        rates={"USD": "1.25", "JPY": "160"},
        source=RateSource.OPERATOR,
        as_of_ms=NOON_MS,
        expires_ms=NOON_MS + DAY_S * 1000,
        spread_ppm=10_000,
        actor_id="ops",
        request_id="r1",
        at_ms=NOON_MS,
    )
    assert then(CURRENCY, [said], SET) == []
    (applied,) = then(CURRENCY, [said], said)
    assert isinstance(applied, RatesApplied)
    assert then(CURRENCY, [said, applied], said) == []
    (again,) = then(CURRENCY, [said, applied], replace(SET, request_id="r2"))
    assert again.version == 2


def test_rates_overtaken_by_newer_ones_do_not_apply() -> None:
    old, new = rates(SET)[0], rates(SET, replace(SET, request_id="r2"))[2]
    later = then(CURRENCY, [], new)
    assert then(CURRENCY, later, old) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": "EURO"}, Reason.CURRENCY_UNKNOWN),
        ({"rates": {"XAU": "1"}}, Reason.CURRENCY_UNKNOWN),
        ({"rates": {}}, Reason.INVALID_COMMAND),
        ({"rates": {"EUR": "1"}}, Reason.INVALID_COMMAND),
        ({"rates": {"USD": "0"}}, Reason.INVALID_COMMAND),
        ({"rates": {"USD": "1e3"}}, Reason.INVALID_COMMAND),
        ({"max_age_s": 0}, Reason.INVALID_COMMAND),
        ({"max_age_s": 31 * DAY_S}, Reason.INVALID_COMMAND),
        ({"spread_ppm": -1}, Reason.INVALID_COMMAND),
        ({"spread_ppm": 1_000_000}, Reason.INVALID_COMMAND),
        ({"as_of_ms": NOON_MS + 2 * DAY_S * 1000}, Reason.INVALID_COMMAND),
        ({"request_id": ""}, Reason.INVALID_COMMAND),
        ({"as_of_ms": NOON_MS - 1, "request_id": "r2"}, Reason.RATES_OUTDATED),
    ],
)
def test_rates_refused(changes: dict[str, Any], reason: Reason) -> None:
    given = rates(SET) if reason is Reason.RATES_OUTDATED else []
    assert then(CURRENCY, given, replace(SET, **changes)) == [
        CurrencyCommandRefused(subject_id="rates", command="SetRates", reason=reason, at_ms=NOON_MS)
    ]


def test_what_another_source_said_later_outdates_nothing() -> None:
    feed = replace(SET, source=RateSource.FEED, as_of_ms=NOON_MS - 1, request_id="f1")
    assert isinstance(then(CURRENCY, rates(SET), feed)[0], RatesSet)


@pytest.mark.parametrize(
    ("source", "destination", "rate"),
    [
        ("EUR", "USD", "1.25"),
        ("USD", "EUR", "0.8"),
        ("USD", "JPY", "128"),
        ("JPY", "USD", "0.0078125"),
    ],
)
def test_a_rate_is_found_forward_backward_and_across(
    source: str, destination: str, rate: str
) -> None:
    rows = Overlay({})
    apply(CURRENCY, rows, rates(SET))
    found = market(rows, source, destination, NOON_MS)
    assert not isinstance(found, Reason)
    assert (found.rate, found.spread_ppm) == (rate, 10_000)


def test_a_rate_of_its_own_goes_before_a_cross_while_it_is_good() -> None:
    own = replace(SET, base="JPY", rates={"USD": "0.01"}, max_age_s=60, request_id="r2")
    rows = Overlay({})
    apply(CURRENCY, rows, rates(SET, own))
    found = [market(rows, "USD", "JPY", at) for at in (NOON_MS, NOON_MS + 60_001)]
    assert [mid.rate for mid in found if not isinstance(mid, Reason)] == ["100", "128"]


def test_a_quote_holds_the_rate_of_now() -> None:
    (said,) = then(CURRENCY, rates(SET), replace(ASK, amount_minor=10_000))
    assert said == QuoteIssued(
        quote_id="q1",
        user_id="u-ada",
        currency="USD",
        destination_currency="JPY",
        amount_minor=10_000,
        destination_amount_minor=12_672,
        rate="126.72",
        mid_rate="128",
        spread_ppm=10_000,
        expires_ms=NOON_MS + 60_000,
        request_hash="h1",
        at_ms=NOON_MS,
    )
    given = [*rates(SET), said]
    assert then(CURRENCY, given, replace(ASK, amount_minor=10_000)) == []
    other = replace(SET, rates={"USD": "1.25", "JPY": "170"}, request_id="r2")
    given = rates(other, given=tuple(given))
    fact = exchange(amount_minor=10_000, terms={"quote_id": "q1"})
    (fixed,) = then(CURRENCY, given, fact)
    assert fixed.order.terms.destination_amount_minor == 12_672


@pytest.mark.parametrize(
    ("given", "changes", "at_ms", "reason"),
    [
        ([], {}, NOON_MS, Reason.RATE_NOT_FOUND),
        (rates(SET), {"destination_currency": "CHF"}, NOON_MS, Reason.RATE_NOT_FOUND),
        (rates(SET), {}, NOON_MS + DAY_S * 1000 + 1, Reason.RATE_STALE),
        (rates(SET), {"currency": "XXX"}, NOON_MS, Reason.CURRENCY_UNKNOWN),
        (rates(SET), {"currency": "JPY"}, NOON_MS, Reason.INVALID_COMMAND),
        (rates(SET), {"hold_s": 0}, NOON_MS, Reason.INVALID_COMMAND),
        (rates(SET), {"hold_s": 10**6}, NOON_MS, Reason.INVALID_COMMAND),
        (rates(SET), {"amount_minor": -1}, NOON_MS, Reason.INVALID_COMMAND),
        (rates(SET), {"user_id": ""}, NOON_MS, Reason.INVALID_COMMAND),
        (
            rates(SET),
            {"currency": "JPY", "destination_currency": "KWD"},
            NOON_MS,
            Reason.RATE_NOT_FOUND,
        ),
        (rates(replace(SET, rates={"USD": "0.001"})), {"amount_minor": 1, "currency": "EUR",
         "destination_currency": "USD"}, NOON_MS, Reason.AMOUNT_TOO_SMALL),
        (rates(SET), {"amount_minor": 10**15, "currency": "EUR"}, NOON_MS, Reason.AMOUNT_TOO_LARGE),
    ],
)  # fmt: skip
def test_a_quote_refused(
    given: list[Any], changes: dict[str, Any], at_ms: int, reason: Reason
) -> None:
    assert then(CURRENCY, given, replace(ASK, **changes), at_ms) == [
        CurrencyCommandRefused(subject_id="q1", command="RequestQuote", reason=reason, at_ms=at_ms)
    ]


def test_another_body_under_a_quote_s_id_is_refused() -> None:
    given = [*rates(SET), *then(CURRENCY, rates(SET), ASK)]
    (said,) = then(CURRENCY, given, replace(ASK, request_hash="h2"))
    assert said.reason is Reason.IDEMPOTENCY_MISMATCH


def test_an_exchange_at_the_market_s_rate_is_fixed_once() -> None:
    (said,) = then(CURRENCY, rates(SET), exchange())
    assert isinstance(said, RateFixed)
    assert said.order.terms == Terms(
        destination_currency="JPY",
        destination_amount_minor=2_534,  # 20.00 USD at 126.72
        rate="126.72",
        spread_minor=26,
        rounding_minor=0,
    )
    assert (said.mid_rate, said.spread_ppm) == ("128", 10_000)
    assert [(step.step, step.outcome) for step in said.steps] == [("rate", "fixed")]
    assert then(CURRENCY, [*rates(SET), said], exchange()) == []


def quoted(**changes: Any) -> list[Any]:
    return [*rates(SET), *then(CURRENCY, rates(SET), replace(ASK, **changes))]


def used() -> list[Any]:
    fact = exchange(transaction_id="t0", terms={"quote_id": "q1"})
    return [*quoted(), *then(CURRENCY, quoted(), fact)]


LATER_MS = NOON_MS + 60_001
BY_QUOTE = {"terms": {"quote_id": "q1"}, "deadline_ms": LATER_MS}


@pytest.mark.parametrize(
    ("given", "changes", "at_ms", "reason"),
    [
        ([], {}, NOON_MS, Reason.RATE_NOT_FOUND),
        (rates(replace(SET, max_age_s=1)), {}, NOON_MS + 1_001, Reason.RATE_STALE),
        (rates(SET), {}, NOON_MS + 30_001, Reason.DEADLINE_PASSED),
        (rates(replace(SET, rates={"USD": "100000", "JPY": "1"})), {"amount_minor": 1}, NOON_MS,
         Reason.AMOUNT_TOO_SMALL),
        (rates(SET), {"amount_minor": 10**15}, NOON_MS, Reason.AMOUNT_TOO_LARGE),
        (rates(SET), BY_QUOTE, NOON_MS, Reason.QUOTE_NOT_FOUND),
        (quoted(user_id="u-bob"), BY_QUOTE, NOON_MS, Reason.QUOTE_NOT_FOUND),
        (quoted(), BY_QUOTE, LATER_MS, Reason.QUOTE_EXPIRED),
        (used(), BY_QUOTE, NOON_MS, Reason.QUOTE_USED),
        (quoted(amount_minor=1_999), BY_QUOTE, NOON_MS, Reason.QUOTE_MISMATCH),
        (quoted(), {**BY_QUOTE, "currency": "EUR"}, NOON_MS, Reason.QUOTE_MISMATCH),
    ],
)  # fmt: skip
def test_a_rate_refused(
    given: list[Any], changes: dict[str, Any], at_ms: int, reason: Reason
) -> None:
    fact = exchange(**changes)
    (said,) = then(CURRENCY, given, fact, at_ms)
    assert isinstance(said, RateRefused)
    assert said.reason is reason
    assert then(CURRENCY, [*given, said], fact, at_ms) == []


def test_a_quote_serves_who_orders_for_its_owner() -> None:
    given = quoted()
    fact = exchange(actor_id="ops", privileged=True, terms={"quote_id": "q1"})
    assert isinstance(then(CURRENCY, given, fact)[0], RateFixed)


def test_what_is_old_leaves_and_the_rates_of_now_stay() -> None:
    given = [*used()]
    tick = Tick(due=(expiry_key(NOON_MS),))
    (said,) = then(CURRENCY, given, tick, NOON_MS + KEEP_FINAL_MS + 1_000)
    assert isinstance(said, RatesForgotten)
    rows = Overlay({})
    apply(CURRENCY, rows, [*given, said])
    assert sorted(rows) == sorted(
        ["rate-board/rates", "rate-applied/rates", rate_key("USD", "EUR"), rate_key("JPY", "EUR")]
    )


def test_a_pair_s_history_has_the_newest_first() -> None:
    keys = [history_key("EUR-USD", NOON_MS + later, n) for later, n in ((0, 1), (0, 2), (1, 3))]
    assert sorted(keys) == [*reversed(keys)]
    assert keys[2] < before_history("EUR-USD", NOON_MS) < keys[1]
    assert before_history("EUR-USD", NOON_MS + 1) < keys[2]


# the feed


HOUR_S = 3600
EVERY = ScheduleFeed(every_s=HOUR_S, actor_id="ops")
FEED = "rate-feed/rates"


def due(at_ms: int = NOON_MS) -> Tick:
    return Tick(due=(due_key(at_ms, "fetch", FEED),))


def requested() -> list[Any]:
    given = then(CURRENCY, [], EVERY)
    return given + then(CURRENCY, given, due())


def fetched(**changes: Any) -> RatesFetched:
    fields: dict[str, Any] = {
        "fetch_id": str(NOON_MS),
        "outcome": FetchOutcome.FETCHED,
        "base": "EUR",
        "rates": {"USD": "1.08"},
        "as_of_ms": NOON_MS - HOUR_S * 1000,
        "max_age_s": DAY_S,
        "spread_ppm": 0,
        "request_id": "2026-11-25-abc",
        "detail": "",
        **changes,
    }
    return RatesFetched(**fields)


def test_the_feed_is_asked_at_once_and_then_each_hour() -> None:
    assert requested()[1:] == [RatesRequested(fetch_id=str(NOON_MS), at_ms=NOON_MS)]
    later_ms = NOON_MS + HOUR_S * 1000
    assert then(CURRENCY, requested(), due(later_ms), later_ms - 1) == []
    (again,) = then(CURRENCY, requested(), due(later_ms), later_ms + 5)
    assert again.fetch_id == str(later_ms + 5)
    assert then(CURRENCY, [*requested(), again], due(later_ms), later_ms + 6) == []


def test_the_feed_can_be_scheduled_anew_and_left_alone() -> None:
    given = requested()
    assert then(CURRENCY, given, EVERY) == []
    (stopped,) = then(CURRENCY, given, replace(EVERY, every_s=0))
    later_ms = NOON_MS + HOUR_S * 1000
    assert then(CURRENCY, [*given, stopped], due(later_ms), later_ms) == []
    assert then(CURRENCY, [], replace(EVERY, every_s=0)) == []
    for every_s in (59, -1, 604_801):
        (said,) = then(CURRENCY, [], replace(EVERY, every_s=every_s))
        assert (said.reason, said.subject_id) == (Reason.INVALID_COMMAND, "rates")


def test_what_the_feed_said_is_set_once() -> None:
    given = requested()
    said = then(CURRENCY, given, fetched())
    assert [type(event) for event in said] == [RatesSet, FeedAnswered]
    assert (said[0].source, said[0].rates) == (RateSource.FEED, {"USD": "1.08"})
    assert then(CURRENCY, [*given, *said], fetched()) == []
    later_ms = NOON_MS + HOUR_S * 1000
    (again,) = then(CURRENCY, [*given, *said], due(later_ms), later_ms)
    same = fetched(fetch_id=again.fetch_id)
    (known,) = then(CURRENCY, [*given, *said, again], same)
    assert (known.outcome, known.detail) == (FetchOutcome.FETCHED, "known")


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"outcome": FetchOutcome.FAILED, "rates": {}, "detail": "away"}, "away"),
        ({"rates": {"USD": "x"}}, "INVALID_COMMAND"),
        ({"as_of_ms": 1}, "RATES_OUTDATED"),
    ],
)
def test_a_feed_that_can_t_be_used_changes_nothing(changes: dict[str, Any], detail: str) -> None:
    earlier = replace(SET, source=RateSource.FEED, request_id="f0", as_of_ms=NOON_MS - 10**8)
    given = rates(earlier, given=tuple(requested()))
    (said,) = then(CURRENCY, given, fetched(**changes))
    assert said == FeedAnswered(
        fetch_id=str(NOON_MS), outcome=FetchOutcome.FAILED, detail=detail, at_ms=NOON_MS
    )


def test_an_answer_that_nobody_asked_for_says_nothing() -> None:
    assert then(CURRENCY, [], fetched()) == []
    assert then(CURRENCY, requested(), fetched(fetch_id="other")) == []


# what an exchange order must say


TERMS = Terms(destination_currency="JPY")


def ordered(**changes: Any) -> CreateTransaction:
    fields = {"type": TransactionType.EXCHANGE, "destination_account_id": "ada", "terms": TERMS}
    return replace(transfer(10_000), **{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"terms": None}, Reason.INVALID_COMMAND),
        ({"terms": Terms()}, Reason.INVALID_COMMAND),
        ({"terms": Terms(destination_currency="USD")}, Reason.INVALID_COMMAND),
        ({"terms": Terms(destination_currency="XXX")}, Reason.INVALID_COMMAND),
        ({"terms": replace(TERMS, destination_amount_minor=10**9)}, Reason.INVALID_COMMAND),
        ({"terms": replace(TERMS, rate="9")}, Reason.INVALID_COMMAND),
        ({"terms": replace(TERMS, quote_id="")}, Reason.INVALID_COMMAND),
        ({"destination_account_id": None}, Reason.INVALID_COMMAND),
    ],
)
def test_an_exchange_that_makes_no_sense(changes: dict[str, Any], reason: Reason) -> None:
    (said,) = then(TRANSACTION, [], ordered(**changes))
    assert isinstance(said, TransactionFailed)
    assert said.reason is reason


# the whole of it


@pytest.fixture(params=[1, 2], ids=["once", "twice"])
def town(request: pytest.FixtureRequest) -> Scenario:
    """Ada has 500.00 USD and no yen, Bob dollars alone; each message is heard once, or twice."""
    town = Scenario(request.param)
    town.send(opening("ada", "u-ada", currencies=("USD", "JPY")), "account")
    town.send(opening("bob", "u-bob"), "account").run()
    town.send(deposit("ada", 50_000)).run()
    return town.send(SET, "currency").run()


def balances(town: Scenario) -> dict[str, int]:
    return town.account("ada").balances


def bank_s_own(town: Scenario) -> dict[tuple[str, str], int]:
    trial = trial_balance(town.rows["account"].values())
    return {(name, code): n for (name, code), n in trial.items() if name != "customers" and n}


def test_an_exchange_on_one_account(town: Scenario) -> None:
    town.send(ordered()).run().check()
    final = town.final()
    assert isinstance(final, TransactionCompleted)
    assert balances(town) == {"USD": 40_000, "JPY": 12_672}
    assert bank_s_own(town) == {
        ("world", "USD"): -50_000,
        ("position", "USD"): 10_000,
        ("position", "JPY"): -12_800,
        ("fees", "JPY"): 128,
    }
    names = [step.step for step in final.steps]
    assert names == ["validate", "rate", "risk", "debit", "payment", "credit", "complete"]
    assert [(one.currency, one.after_minor) for one in final.balances] == [
        ("USD", 40_000),
        ("JPY", 12_672),
    ]
    assert town.account("ada").open_legs == 0
    (owner,) = (row for key, row in town.rows["risk"].items() if key == "owner/u-ada")
    assert [key.split("/")[1] for key in owner.reserved] == ["USD"]
    assert [*owner.reserved.values()] == [10_000]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"terms": Terms(destination_currency="CHF")}, Reason.RATE_NOT_FOUND),
        ({"terms": replace(TERMS, quote_id="q9")}, Reason.QUOTE_NOT_FOUND),
        ({"amount_minor": 50_001}, Reason.INSUFFICIENT_FUNDS),
        ({"amount_minor": 100_001}, Reason.DAILY_LIMIT),
        ({"destination_account_id": "bob"}, Reason.CURRENCY_NOT_HELD),  # after the debit
        ({"destination_account_id": "nobody"}, Reason.ACCOUNT_NOT_FOUND),
        ({"owner_id": "u-bob"}, Reason.NOT_OWNER),
    ],
)
def test_of_a_refused_exchange_nothing_stays(
    town: Scenario, changes: dict[str, Any], reason: Reason
) -> None:
    town.send(ordered(**changes)).run().check()
    final = town.final()
    assert isinstance(final, TransactionFailed)
    assert final.reason is reason
    assert balances(town) == {"USD": 50_000, "JPY": 0}
    assert bank_s_own(town) == {("world", "USD"): -50_000}
    assert town.account("ada").open_legs == 0
    reserved = [
        row.reserved for key, row in town.rows["risk"].items() if key.startswith("owner/u-")
    ]
    assert not any(minor for days in reserved for minor in days.values())


def test_one_quote_serves_one_exchange(town: Scenario) -> None:
    town.send(ASK, "currency").run()
    by_quote = replace(TERMS, quote_id="q1")
    town.send(ordered(terms=by_quote)).run()
    town.send(ordered(terms=by_quote, transaction_id="t2", request_hash="h2")).run().check()
    assert isinstance(town.final(), TransactionCompleted)
    assert town.final("t2").reason is Reason.QUOTE_USED
    assert balances(town) == {"USD": 40_000, "JPY": 12_672}
    quote = town.rows["currency"]["quote/q1"]
    assert (quote.status, quote.transaction_id) == ("used", "t1")


def test_an_exchange_cancelled_on_its_way_reserves_nothing() -> None:
    """The cancel goes from transaction to account and risk, the rate from currency: it may be last."""
    it = exchange().order
    ended = TransactionCancelled(order=it, request_hash="", balances=(), at_ms=NOON_MS, steps=())
    (declined,) = then(RISK, [], ended)
    assert isinstance(declined, RiskDeclined)
    assert declined.reason is Reason.CANCELLED
    (fixed,) = then(CURRENCY, rates(SET), exchange())
    assert then(RISK, [declined], fixed) == []
    assert then(RISK, [declined], ended) == []
    assert isinstance(then(RISK, [], fixed)[0], RiskApproved)
    plain = replace(ended, order=order())
    assert then(RISK, [], plain) == []


def test_the_postings_of_the_credit_are_one_fact(town: Scenario) -> None:
    town.send(ordered()).run()
    (credited,) = (fact for fact in town.said if type(fact).__name__ == "AccountCredited"
                   and fact.order.transaction_id == "t1")  # fmt: skip
    assert credited.postings[0] == Posting(account="clearing", currency="USD", amount_minor=-10_000)
    assert {posting.currency for posting in credited.postings} == {"USD", "JPY"}

"""Currency: rates, quotes, the rate of an exchange. All rates arrive under one key, a quote under its id."""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.currency import CURRENCY, RATES, RatesFetched, RequestQuote, ScheduleFeed, SetRates

SERVICE = Service(
    decider=CURRENCY,
    command_keys={
        SetRates: lambda _: RATES,
        ScheduleFeed: lambda _: RATES,
        RequestQuote: attrgetter("quote_id"),
    },
    results=(RatesFetched,),
)

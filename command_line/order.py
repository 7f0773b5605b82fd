"""`rates` and `redrive`: what an operator sends into the bank."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.ask import Question, ask
from agents.errors import CannotStart
from agents.redrive import redrive
from command_line.broker import codec_of, reach_broker
from command_line.names import opened, seconds
from command_line.shown import show
from domain.currency import (
    BASE,
    RATES,
    CurrencyCommandRefused,
    FeedScheduled,
    RateSource,
    RatesSet,
    ScheduleFeed,
    SetRates,
)
from topics.catalog import TOPICS, Kind

if TYPE_CHECKING:
    import argparse

    from command_line.main import Add
    from settings import Settings

COMMAND_LINE = "command line"  # who orders what is ordered here
RATES_WAIT_S = 10.0


def declare(add: Add) -> None:
    command = add("rates", rates, "set rates from a document of the feed, now or on a schedule")
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    about = "set the rates of a document (the ECB's XML) now; a broken one changes nothing"
    action = actions.add_parser("import", help=about, description=about)
    action.add_argument("source", metavar="FILE|URL")
    about = "ask STREAMBANK_RATES_URL now and each SECONDS (60 to 604800); 0: no more"
    action = actions.add_parser("every", help=about, description=about)
    action.add_argument("seconds", type=seconds, metavar="SECONDS")

    command = add("redrive", put_back, "put dead letters back where they came from")
    command.add_argument("topics", nargs="+", metavar="TOPIC", help="such as account.dead")
    about = "a letter that stays where it is, by its place: account.dead-0-17; may be given again"
    command.add_argument("--skip", action="append", default=[], metavar="PLACE", help=about)


def rates(settings: Settings, options: argparse.Namespace) -> int:
    """Import a document of rates once, or have the feed asked on a schedule."""
    from agents import rates_feed
    from resilience.downstream import Away

    if options.action == "every":
        command: Any = ScheduleFeed(every_s=options.seconds, actor_id=COMMAND_LINE)
    else:
        try:
            fixing = rates_feed.parsed(_document(options.source))
        except (rates_feed.BadRates, Away) as exc:
            raise CannotStart(f"nothing was changed: {exc}") from exc
        command = SetRates(
            base=BASE,
            rates=fixing.rates,
            source=RateSource.FEED,
            as_of_ms=fixing.as_of_ms,
            max_age_s=settings.rate_max_age_s,
            spread_ppm=settings.exchange_spread_ppm,
            actor_id=COMMAND_LINE,
            request_id=fixing.request_id,
        )
    reach_broker(settings)
    question = Question(
        service="currency",
        key=RATES,
        command=command,
        actor_id=COMMAND_LINE,
        ends=(RatesSet, FeedScheduled, CurrencyCommandRefused),
    )
    said = ask(settings.kafka, settings.prefix, codec_of(settings), question, RATES_WAIT_S)
    match said:
        case RatesSet():
            show(f"{len(said.rates)} rates of {said.base} are set, version {said.version}")
        case FeedScheduled():
            show(f"the feed is asked each {said.every_s} s" if said.every_s else "no more")
        case CurrencyCommandRefused():
            raise CannotStart(f"refused, nothing was changed: {said.reason}")
        case _:
            show("nothing was said: it is so already, or no worker runs `currency`")
    return 0


def _document(source: str) -> bytes:
    """What is in a file or at a URL, bounded."""
    from agents import rates_feed

    if source.startswith(("http://", "https://")):
        return asyncio.run(rates_feed.once(source))
    with opened(Path(source)) as file:
        return file.read(rates_feed.DOCUMENT_BYTES + 1)


def put_back(settings: Settings, options: argparse.Namespace) -> int:
    known = [topic.name for topic in TOPICS if topic.kind is Kind.DEAD]
    if unknown := [name for name in options.topics if name not in known]:
        raise CannotStart(f"{unknown[0]} is no dead-letter topic; there are {', '.join(known)}")
    reach_broker(settings)
    for name in options.topics:
        count = redrive(settings.kafka, settings.prefix, name, {*options.skip})
        print(f"{name}: {count} put back")
    return 0

"""What clients see of a row: names of the interface, times as RFC 3339, nothing internal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.queries import Row


def plain(row: Any) -> Row:
    """A row of the domain as the workers' tables serve it."""
    shown: Row = orjson.loads(orjson.dumps(row))
    return shown


def time_of(at_ms: int | None) -> str | None:
    """Unix milliseconds as RFC 3339 with milliseconds and Z."""
    if at_ms is None:
        return None
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def user(row: Row) -> dict[str, Any]:
    """What a copy of before lacks is as it was when nobody had it."""
    return {
        "user_id": row["user_id"],
        "email": row["email"],
        "name": row["name"],
        "roles": row["roles"],
        "email_confirmed": row.get("email_confirmed", False),
        "phone": row.get("phone") or None,
        "language": row.get("language") or None,
        "kyc": {
            "level": row.get("kyc_level", 0),
            "status": row.get("kyc_status", "unverified"),
        },
        "version": row["version"],
        "created_at": time_of(row["created_ms"]),
        "updated_at": time_of(row["updated_ms"]),
    }


def account(row: Row) -> dict[str, Any]:
    """`available` is what can be spent: the balance without what is held, and the overdraft."""
    limits, held = row["overdraft_limits"], row.get("held") or {}  # one of before has none
    return {
        "account_id": row["account_id"],
        "user_id": row["user_id"],
        "name": row["name"],
        "status": row["status"],
        "balances": [
            {
                "currency": currency,
                "amount": minor,
                "available": minor - held.get(currency, 0) + limits.get(currency, 0),
                "held": held.get(currency, 0),
                "overdraft_limit": limits.get(currency, 0),
            }
            for currency, minor in sorted(row["balances"].items())
        ],
        "version": row["version"],
        "created_at": time_of(row["created_ms"]),
        "updated_at": time_of(row["updated_ms"]),
    }


def transaction(row: Row, may_see: Callable[[str], bool]) -> dict[str, Any]:
    """`may_see` tells of an account id whether the caller may see its balance."""
    order = row["order"]
    terms = order.get("terms") or {}  # a store may hold what was written before there were any
    return {
        "transaction_id": order["transaction_id"],
        "type": order["type"],
        "status": row["status"],
        "reason": row["reason"],
        "amount": order["amount_minor"],
        "currency": order["currency"],
        "source_account_id": order["source_account_id"],
        "destination_account_id": order["destination_account_id"],
        "destination_currency": terms.get("destination_currency"),
        "destination_amount": terms.get("destination_amount_minor"),
        "rate": terms.get("rate"),
        "quote_id": terms.get("quote_id"),
        "description": row["description"] or None,
        "reference": row["reference"] or None,
        "metadata": row["metadata"],
        "fee": terms.get("fee_minor", 0),
        "original_transaction_id": terms.get("original_transaction_id"),
        "review_id": row["review_id"],
        "balances": [
            {
                "account_id": balance["account_id"],
                "currency": balance["currency"],
                "before": balance["before_minor"],
                "after": balance["after_minor"],
            }
            for balance in row["balances"]
            if may_see(balance["account_id"])
        ],
        "version": row["version"],
        "created_at": time_of(row["created_ms"]),
        "completed_at": time_of(row["completed_ms"]),
    }


def trace(row: Row) -> dict[str, Any]:
    return {
        "transaction_id": row["order"]["transaction_id"],
        "steps": [
            {
                "step": step["step"],
                "service": step["service"],
                "outcome": step["outcome"],
                "at": time_of(step["at_ms"]),
            }
            for step in row["steps"]
        ],
    }


def review(row: Row) -> dict[str, Any]:
    order = row["order"]
    return {
        "review_id": row["review_id"],
        "transaction_id": order["transaction_id"],
        "user_id": order["owner_id"],
        "status": row["status"],
        "score": row["score"],
        "rules": row["rules"],
        "type": order["type"],
        "amount": order["amount_minor"],
        "currency": order["currency"],
        "source_account_id": order["source_account_id"],
        "destination_account_id": order["destination_account_id"],
        "note": row["note"] or None,
        "decided_by": row["actor_id"],
        "version": row["version"],
        "created_at": time_of(row["created_ms"]),
        "decided_at": time_of(row["decided_ms"]),
    }


def entry(row: Row) -> dict[str, Any]:
    """`balance` is that of the account in this currency after the entry."""
    return {
        "entry_id": f"{row['event_id']}/{row['number']}",
        "transaction_id": row["transaction_id"],
        "account_id": row["account"],
        "amount": row["amount_minor"],
        "currency": row["currency"],
        "balance": row["balance_minor"],
        "at": time_of(row["at_ms"]),
    }


def blacklisted(row: Row) -> dict[str, Any]:
    return {
        "kind": row["kind"],
        "value": row["value"],
        "note": row["note"] or None,
        "listed": row.get("listed", True),
        "owner_id": row.get("owner_id"),
        "added_at": time_of(row["at_ms"]),
    }


def picked(value: Mapping[str, Any], names: str | None) -> Mapping[str, Any]:
    """The members that `?fields=a,b` picks; all without it. Names that are not there pick nothing."""
    if not names:
        return value
    wanted = {name.strip() for name in names.split(",")}
    return {name: member for name, member in value.items() if name in wanted}

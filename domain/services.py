"""The services, in the order of their ports and pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.account import ACCOUNT
from domain.analytics import ANALYTICS
from domain.audit import AUDIT
from domain.currency import CURRENCY
from domain.notification import NOTIFICATION
from domain.payment import PAYMENT
from domain.reporting import REPORTING
from domain.risk import RISK
from domain.settlement import SETTLEMENT
from domain.transaction import TRANSACTION
from domain.user import USER

if TYPE_CHECKING:
    from domain.decider import Decider

DECIDERS: dict[str, Decider] = {
    decider.service: decider
    for decider in (
        USER,
        ACCOUNT,
        TRANSACTION,
        PAYMENT,
        NOTIFICATION,
        AUDIT,
        ANALYTICS,
        RISK,
        CURRENCY,
        SETTLEMENT,
        REPORTING,
    )
}

"""Payment: money that a provider moves. `perform` asks the rail for it.

Commands arrive under the payment they are about, the user whose method it is, or the booking key.
"""

from __future__ import annotations

from operator import attrgetter

from agents.transact import Service
from domain.payment import PAYMENT
from domain.payment_methods import AddPaymentMethod, RemovePaymentMethod
from domain.payment_rail import NotifyPayment, RailAnswered
from domain.reconciliation import ReconcileStatement, home_of

SERVICE = Service(
    decider=PAYMENT,
    command_keys={
        AddPaymentMethod: attrgetter("user_id"),
        RemovePaymentMethod: attrgetter("user_id"),
        NotifyPayment: attrgetter("payment_id"),
        ReconcileStatement: lambda command: home_of(command.statement_id),
    },
    results=(RailAnswered,),
)

"""Every route on one page. Who may call it, what it takes and answers: the router, the check of
roles and the OpenAPI document are all made from this table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import BaseModel

from domain.account import Status as AccountStatus
from domain.analytics import Interval
from domain.blacklist import BlacklistKind
from domain.notification_rows import Channel
from domain.notification_rows import Status as NotificationStatus
from domain.reporting import Status as ReportStatus
from domain.risk import ReviewStatus
from domain.saga import TransactionType
from domain.settlement import Status as SettlementStatus
from domain.suspense import SuspenseKind, SuspenseStatus
from domain.transaction import Status as TransactionStatus
from domain.user import Role
from gateway import (
    accounts,
    analysts,
    analytics,
    answers,
    audit,
    auth,
    bulk,
    currency,
    currency_models,
    documents,
    holds,
    holds_models,
    kyc,
    logins,
    models,
    notification_models,
    notifications,
    operations,
    overview,
    payment_methods,
    payment_models,
    payments,
    prices,
    provider,
    provider_statements,
    reports,
    reports_models,
    reversals,
    risk,
    risk_models,
    scoring,
    settlement_models,
    settlements,
    statements,
    suspense,
    suspense_models,
    transactions,
    user_models,
    users,
    watch,
)
from rendering import MEDIA_TYPES

Handler: TypeAlias = Callable[..., Awaitable[Any]]
BODY_BYTES = 1 << 20
BULK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route. `roles` None: no token is needed. `answers`: what a success looks like by status."""

    method: str
    path: str
    handler: Handler
    about: str
    roles: frozenset[Role] | None = auth.ALL
    body: type[BaseModel] | None = None
    body_bytes: int = BODY_BYTES  # beyond it 413
    answers: Mapping[int, type[Any] | None] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a query parameter
    command: bool = False  # sends a command: takes Prefer and Idempotency-Key, may answer 202
    money: bool = False  # the Idempotency-Key is required
    rehearsed: bool = False  # 200 is the answer to a dry run: nothing has a Location
    streams: bool = False  # the handler writes the response itself
    files: tuple[str, ...] = ()  # media types beside JSON that a success may have
    reads: bool = False  # says where the answer was read
    body_in_query: bool = False  # without a body the query is read as one
    file: tuple[
        str, ...
    ] = ()  # the body is a file of one of these media types, read by the handler

    refusals: tuple[int, ...] = ()  # statuses of problems beyond those that routes like it have

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def tag(self) -> str:
        """The section of the documents that it stands in."""
        first, *rest = self.path.strip("/").split("/")
        if first in ("subjects", "schemas"):
            return "schemas"
        return rest[0] if first == "api" and "." not in rest[0] else "operations"


PAGE = {"limit": "items of one page, 1 to 200", "cursor": "where to go on: `next_cursor`"}
FIELDS = {"fields": "members to answer, separated by commas"}
AT = {"at": "as of this time (RFC 3339), which is over"}
OF_AUDIT = {
    "entity": "id of an aggregate: its history",
    "actor": "user_id of who caused it",
    "from": "RFC 3339",
    "to": "RFC 3339, excluded",
}
OF_USER = {"user_id": "for staff: whose"}


def _get(path: str, handler: Handler, about: str, model: type[Any] | None, **more: Any) -> Route:
    return Route(
        method="GET", path=path, handler=handler, about=about, answers={200: model}, **more
    )


def _command(
    path: str,
    handler: Handler,
    about: str,
    body: type[BaseModel],
    answer: Mapping[int, type[Any]],
    **more: Any,
) -> Route:
    given: dict[int, type[Any] | None] = {**answer, 202: answers.Accepted}
    more = {"method": "POST", "command": True, **more}
    return Route(path=path, handler=handler, about=about, body=body, answers=given, **more)


def _login(path: str, handler: Handler, about: str, body: type[models.Body], **more: Any) -> Route:
    more = {"answers": {200: answers.Tokens}, **more}
    return Route(
        method="POST", path=path, handler=handler, about=about, body=body, roles=None, **more
    )


def _public(path: str, handler: Handler, about: str) -> Route:
    return _get(path, handler, about, None, roles=None)


USER = "/api/users/{user_id}"
ACCOUNT = "/api/accounts/{account_id}"
HOLD = "/api/holds/{hold_id}"
TRANSACTION = "/api/transactions/{transaction_id}"
METHOD = "/api/payment-methods/{payment_method_id}"
PAYMENT = "/api/payments/{payment_id}"
SETTLEMENT = "/api/settlements/{settlement_id}"
SUSPENSE = "/api/suspense/{suspense_id}"
REPORT = "/api/reports/{report_id}"
SCHEDULE = "/api/report-schedules/{schedule_id}"
REVIEW = "/api/risk/reviews/{review_id}"
BLACKLIST = "/api/risk/blacklist"
NOTIFICATION = "/api/notifications/{notification_id}"
TEMPLATE = "/api/notification-templates/{name}"
ENDPOINT = "/api/webhook-endpoints/{endpoint_id}"
CREATED_USER = {201: answers.User}
CREATED_ACCOUNT = {201: answers.Account}
CHANGED_ACCOUNT = {200: answers.Account}

ROUTES: tuple[Route, ...] = (
    _command(
        "/api/users",
        users.register,
        "Register",
        models.Registration,
        CREATED_USER,
        roles=None,
    ),
    _login("/api/auth/login", logins.login, "Log in", models.Login),
    _login("/api/auth/refresh", logins.refresh, "New tokens", models.RefreshToken),
    _login("/api/auth/logout", logins.logout, "Log out", models.Logout, answers={204: None}),
    _login(
        "/api/auth/password-reset",
        logins.password_reset,
        "Have a token mailed, or set a new password with it",
        user_models.PasswordReset,
        answers={202: answers.Accepted, 204: None},
    ),
    _get("/api/sessions", logins.sessions, "One's own sessions", user_models.SessionItems),
    _command(
        "/api/sessions",
        logins.end_session,
        "End all of one's own sessions, or one",
        user_models.EndedSession,
        {200: user_models.Ended},
        method="DELETE",
        query={"session_id": "which one; else all", "others": "true: save the one that asks"},
        body_in_query=True,
    ),
    _command(
        "/api/sessions/{session_id}",
        logins.end_session,
        "End one of one's own sessions",
        models.Empty,
        {200: user_models.Ended},
        method="DELETE",
    ),
    _get(
        "/api/users",
        users.search,
        "Users by words of their name or e-mail",
        answers.Users,
        roles=auth.STAFF_READS,
        query={"limit": PAGE["limit"], **FIELDS, "q": "what to look for"},
        reads=True,
    ),
    _get(USER, users.get, "One user", answers.User, query=FIELDS, reads=True),
    _command(
        USER,
        users.change,
        "Change one's name, e-mail, phone or language",
        user_models.Profile,
        {200: answers.User},
        method="PATCH",
    ),
    _command(
        f"{USER}/password",
        logins.change_password,
        "Change one's password; all other sessions end",
        user_models.NewPassword,
        {200: answers.User},
    ),
    _command(
        f"{USER}/email/confirm",
        logins.confirm_email,
        "Confirm one's e-mail by the mailed token, or have it mailed again",
        user_models.EmailToken,
        {200: answers.User},
    ),
    _get(f"{USER}/overview", overview.get, "All of one user on a page", user_models.Overview),
    _command(
        f"{USER}/kyc",
        kyc.submit,
        "Say who one is",
        user_models.KycSubmission,
        {200: user_models.Kyc},
    ),
    _get(f"{USER}/kyc", kyc.get, "What was said, and what became of it", user_models.Kyc),
    _command(
        f"{USER}/kyc/decision",
        kyc.decide,
        "Approve or reject what a user said",
        user_models.KycDecided,
        {200: user_models.Kyc},
        roles=auth.KYC_WORD,
    ),
    _get(
        "/api/kyc",
        kyc.listing,
        "Who waits for an officer",
        user_models.KycItems,
        roles=auth.KYC_READS,
        query=PAGE,
    ),
    _command(
        f"{USER}/roles",
        users.set_roles,
        "Set a user's roles",
        models.Roles,
        {200: answers.User},
        roles=auth.ADMINS,
    ),
    _command(
        "/api/accounts", accounts.create, "Open an account", models.NewAccount, CREATED_ACCOUNT
    ),
    _get(
        "/api/accounts",
        accounts.listing,
        "Accounts, in the order of their opening",
        answers.Accounts,
        query={
            **PAGE,
            **FIELDS,
            **OF_USER,
            "status": "open, frozen, closed or archived; archived ones are in no other list",
        },
        choices={"status": tuple(AccountStatus)},
        reads=True,
    ),
    _get(
        ACCOUNT,
        accounts.get,
        "One account, now or then",
        answers.Account,
        query={**FIELDS, **AT},
        reads=True,
    ),
    _get(
        f"{ACCOUNT}/entries",
        accounts.entries,
        "Its ledger entries, the oldest first",
        answers.Entries,
        query={**PAGE, **FIELDS, "currency": "ISO 4217 code"},
        reads=True,
    ),
    _get(
        f"{ACCOUNT}/statements",
        statements.get,
        "Its entries in a period, between the balances before and behind; to read, or as a file",
        statements.Statement,
        query={
            "from": "a day (2026-03-01) or a time (RFC 3339); without it the opening of the account",
            "to": "likewise: a day counts whole, a time is the first moment behind; without it now",
            "format": "json, csv, pdf or xlsx",
        },
        choices={"format": statements.FORMATS},
        streams=True,
        files=tuple(MEDIA_TYPES.values()),
        refusals=(422,),
    ),
    _command(
        f"{ACCOUNT}/freeze",
        accounts.freeze,
        "Let nothing move",
        models.Empty,
        CHANGED_ACCOUNT,
        roles=auth.FREEZERS,
    ),
    _command(
        f"{ACCOUNT}/unfreeze",
        accounts.unfreeze,
        "Let money move again",
        models.Empty,
        CHANGED_ACCOUNT,
        roles=auth.FREEZERS,
    ),
    _command(f"{ACCOUNT}/close", accounts.close, "Close for good", models.Empty, CHANGED_ACCOUNT),
    _command(
        f"{ACCOUNT}/archive",
        accounts.archive,
        "Take a closed one out of the lists",
        models.Empty,
        CHANGED_ACCOUNT,
    ),
    _command(
        "/api/holds",
        holds.create,
        "Reserve money",
        holds_models.NewHold,
        {201: holds_models.Hold},
        money=True,
    ),
    _get(HOLD, holds.get, "One hold", holds_models.Hold, query=FIELDS, reads=True),
    _command(
        f"{HOLD}/capture",
        holds.capture,
        "Take what is held, or a part",
        holds_models.Capture,
        {200: holds_models.Hold},
        money=True,
    ),
    _command(
        f"{HOLD}/void",
        holds.void,
        "Let go of what is held",
        models.Empty,
        {200: holds_models.Hold},
    ),
    _command(
        "/api/transactions",
        transactions.create,
        "Order a movement of money",
        models.NewTransaction,
        {201: answers.Transaction, 200: answers.Rehearsed},
        money=True,
        rehearsed=True,
    ),
    Route(
        method="POST",
        path="/api/transactions/bulk",
        handler=bulk.create,
        about="Order up to 1,000 movements of money, each by itself",
        body=models.Bulk,
        body_bytes=BULK_BYTES,
        answers={200: answers.BulkResults, 202: answers.BulkResults},
        command=True,
    ),
    _get(
        "/api/transactions",
        transactions.listing,
        "Transactions of the owner of the money, the newest first",
        answers.Transactions,
        query={
            **PAGE,
            **FIELDS,
            **OF_USER,
            "status": "pending, completed, failed or cancelled",
            "type": ", ".join(TransactionType),
            "currency": "ISO 4217 code",
            "account_id": "source or destination",
            "q": "words of the description or the reference; all that have them in one page",
        },
        choices={"status": tuple(TransactionStatus), "type": tuple(TransactionType)},
        reads=True,
    ),
    _get(
        TRANSACTION,
        transactions.get,
        "One transaction",
        answers.Transaction,
        query=FIELDS,
        reads=True,
    ),
    _get(f"{TRANSACTION}/trace", transactions.trace, "Its steps", answers.Trace, reads=True),
    _get(
        f"{TRANSACTION}/events",
        transactions.events,
        "Server-sent events until it is final",
        None,
        streams=True,
    ),
    _command(
        f"{TRANSACTION}/cancel",
        transactions.cancel,
        "Cancel before money moves",
        models.Empty,
        {200: answers.Transaction},
    ),
    _command(
        f"{TRANSACTION}/reverse",
        reversals.reverse,
        "Undo it by a new, opposite transaction, once",
        models.Undoing,
        {201: answers.Transaction, 200: answers.Rehearsed},
        money=True,
        rehearsed=True,
    ),
    _get(
        "/api/price-list",
        prices.get,
        "What orders cost",
        answers.PriceList,
        roles=auth.STAFF_READS,
        query=FIELDS,
    ),
    _command(
        "/api/price-list",
        prices.put,
        "Set what orders cost, the whole list",
        models.NewPriceList,
        {200: answers.PriceList},
        method="PUT",
        roles=auth.MONEY,
    ),
    _command(
        "/api/payment-methods",
        payment_methods.create,
        "Keep a card or an IBAN, as the provider's token",
        payment_models.NewPaymentMethod,
        {201: payment_models.PaymentMethod},
    ),
    _get(
        "/api/payment-methods",
        payment_methods.listing,
        "Payment methods, in the order of their adding",
        payment_models.PaymentMethods,
        query={**PAGE, **FIELDS, **OF_USER},
        reads=True,
    ),
    _get(
        METHOD,
        payment_methods.get,
        "One payment method",
        payment_models.PaymentMethod,
        query=FIELDS,
        reads=True,
    ),
    _command(
        METHOD,
        payment_methods.remove,
        "Use it no more",
        models.Empty,
        {200: payment_models.RemovedMethod},
        method="DELETE",
    ),
    _command(
        "/api/payments",
        payments.create,
        "Charge a payment method",
        payment_models.NewPayment,
        {201: payment_models.Payment},
        money=True,
    ),
    Route(
        method="POST",
        path="/api/payments/statements",
        handler=provider_statements.upload,
        about="Hold a provider's statement of a day (camt.053 or CSV) against our books",
        roles=auth.MONEY,
        file=("application/xml", "text/csv"),
        query={"provider": "whose it is"},
        answers={201: payment_models.Statement, 202: answers.Accepted},
        command=True,
    ),
    _get(
        "/api/payments/statements/{statement_id}",
        provider_statements.get,
        "How a statement agrees, and what does not",
        payment_models.Statement,
        roles=auth.MONEY,
        query={**PAGE, **FIELDS},
        reads=True,
    ),
    Route(
        method="POST",
        path="/api/payments/webhooks/{provider}",
        handler=provider.notice,
        about="A signed notice of the payment provider",
        roles=None,
        file=("application/json",),
        answers={200: payment_models.Taken},
    ),
    _get(
        PAYMENT,
        payments.get,
        "One payment",
        payment_models.Payment,
        query=FIELDS,
        reads=True,
    ),
    _command(
        f"{PAYMENT}/refunds",
        payments.refund,
        "Give it back, or a part",
        payment_models.NewRefund,
        {201: payment_models.Refund},
        money=True,
    ),
    _get(
        f"{PAYMENT}/refunds/{{refund_id}}",
        payments.get_refund,
        "One refund",
        payment_models.Refund,
        query=FIELDS,
        reads=True,
    ),
    Route(
        method="POST",
        path="/api/risk/score",
        handler=scoring.score,
        about="What the rules would say of an order; nothing is written",
        roles=auth.RISK_ASKS,
        body=risk_models.OrderToScore,
        answers={200: risk_models.Scored},
    ),
    _get(
        "/api/risk/config",
        scoring.config,
        "Limits, thresholds and weights of the rules",
        risk_models.RiskConfigShown,
        roles=auth.RISK_READS,
        query=FIELDS,
    ),
    _command(
        "/api/risk/config",
        scoring.configure,
        "Set them, all of them",
        risk_models.NewRiskConfig,
        {200: risk_models.RiskConfigShown},
        method="PUT",
        roles=auth.RISK_WORD,
    ),
    _command(
        "/api/notifications",
        notifications.send,
        "Tell a user something by a template",
        notification_models.NewNotification,
        {201: notification_models.Notification},
        roles=auth.TELLERS,
    ),
    _get(
        "/api/notifications",
        notifications.listing,
        "What a user was told, the newest first",
        notification_models.Notifications,
        query={
            **PAGE,
            **FIELDS,
            **OF_USER,
            "status": "requested, waiting, delivered or dead",
            "channel": "in_app, email, sms, push or webhook",
        },
        choices={"status": tuple(NotificationStatus), "channel": tuple(Channel)},
        reads=True,
    ),
    _get(
        NOTIFICATION,
        notifications.get,
        "One notification, and what became of it",
        notification_models.Notification,
        query=FIELDS,
        reads=True,
    ),
    _command(
        f"{NOTIFICATION}/redrive",
        notifications.redrive,
        "Try once more what was given up",
        models.Empty,
        {200: notification_models.Notification},
    ),
    _get(
        "/api/notification-preferences",
        notifications.preferences,
        "Over which channels a user is told what",
        notification_models.ShownPreferences,
        query=OF_USER,
    ),
    _command(
        "/api/notification-preferences",
        notifications.set_preferences,
        "Choose them",
        notification_models.Preferences,
        {200: notification_models.ShownPreferences},
        method="PUT",
    ),
    _get(
        "/api/webhook-endpoints",
        notifications.endpoints,
        "A user's webhook endpoints",
        notification_models.ShownEndpoints,
        query=OF_USER,
    ),
    _command(
        "/api/webhook-endpoints",
        notifications.set_endpoint,
        "Define an endpoint, or change the one of this URL",
        notification_models.WebhookEndpoint,
        {200: notification_models.ShownEndpoint},
        method="PUT",
    ),
    _command(
        f"{ENDPOINT}/secret",
        notifications.rotate_secret,
        "Sign with another secret",
        models.Empty,
        {200: notification_models.ShownEndpoint},
    ),
    _command(
        ENDPOINT,
        notifications.remove_endpoint,
        "Send nothing more there",
        models.Empty,
        {200: notification_models.RemovedEndpoint},
        method="DELETE",
    ),
    _get(
        "/api/notification-templates",
        notifications.templates,
        "The texts in use",
        notification_models.ShownTemplates,
        roles=auth.STAFF_READS,
    ),
    _get(
        TEMPLATE,
        notifications.template,
        "One text, now or in an older version",
        notification_models.ShownTemplate,
        roles=auth.STAFF_READS,
        query={"version": "which; 0 is the bank's own"},
    ),
    _command(
        TEMPLATE,
        notifications.save_template,
        "Save a new version",
        notification_models.NotificationTemplate,
        {200: notification_models.ShownTemplate},
        method="PUT",
        roles=auth.EDITORS,
    ),
    Route(
        method="POST",
        path=f"{TEMPLATE}/preview",
        handler=notifications.preview,
        about="What a text makes of data",
        roles=auth.STAFF_READS,
        body=notification_models.TemplatePreview,
        answers={200: notification_models.Rendered},
    ),
    _get(
        "/api/risk/reviews",
        risk.reviews,
        "Reviews",
        answers.Reviews,
        roles=auth.RISK_READS,
        query={**PAGE, **FIELDS, "status": "open, approved, declined or withdrawn"},
        choices={"status": tuple(ReviewStatus)},
        reads=True,
    ),
    _get(
        REVIEW,
        risk.review,
        "One review",
        answers.Review,
        roles=auth.RISK_READS,
        query=FIELDS,
        reads=True,
    ),
    _command(
        f"{REVIEW}/decision",
        risk.decide,
        "Approve or decline",
        models.ReviewDecision,
        {200: answers.Review},
        roles=auth.RISK_WORD,
    ),
    _get(
        BLACKLIST,
        risk.blacklist,
        "The blacklist",
        answers.Blacklist,
        roles=auth.RISK_READS,
        query={**PAGE, **FIELDS, "kind": "user, account, iban, address or country"},
        choices={"kind": tuple(BlacklistKind)},
        reads=True,
    ),
    _command(
        BLACKLIST,
        risk.add,
        "Add to the blacklist",
        risk_models.BlacklistEntry,
        {201: answers.Blacklisted},
        roles=auth.RISK_WORD,
    ),
    _command(
        BLACKLIST,
        risk.remove,
        "Take off the blacklist",
        risk_models.BlacklistRemoval,
        {200: answers.Removed},
        method="DELETE",
        roles=auth.RISK_WORD,
        query={"kind": "user, account, iban, address or country", "value": "as it is listed"},
        body_in_query=True,
    ),
    _get(
        "/api/rates",
        currency.rates,
        "Rates of a base currency, now or then",
        currency_models.Rates,
        query={
            "base": "ISO 4217 code of the currency of which one unit is worth them; EUR",
            "quote": "ISO 4217 code: only this one",
            **AT,
        },
        reads=True,
    ),
    _command(
        "/api/rates",
        currency.put,
        "Set rates",
        currency_models.NewRates,
        {200: currency_models.Rates},
        method="PUT",
        roles=auth.MONEY,
    ),
    _command(
        "/api/quotes",
        currency.quote,
        "Hold a rate for an exchange",
        currency_models.NewQuote,
        {201: currency_models.Quote},
    ),
    _get(
        "/api/quotes/{quote_id}",
        currency.get,
        "One quote",
        currency_models.Quote,
        query=FIELDS,
        reads=True,
    ),
    _get(
        "/api/settlements",
        settlements.listing,
        "Settlements",
        settlement_models.Settlements,
        roles=auth.MONEY,
        query={
            **PAGE,
            **FIELDS,
            "status": "open, closed, reconciled or broken",
            "provider": "whose",
            "currency": "ISO 4217 code",
            "day": "YYYY-MM-DD, a business day",
        },
        choices={"status": tuple(SettlementStatus)},
    ),
    _command(
        "/api/settlements/run",
        settlements.run,
        "End of day: close the settlements of a business day and of those before it",
        settlement_models.NewRun,
        {200: settlement_models.Run},
        roles=auth.MONEY,
    ),
    _get(
        "/api/settlements/runs/{run_id}",
        settlements.get_run,
        "One run, and what it closed",
        settlement_models.Run,
        roles=auth.MONEY,
        query=FIELDS,
    ),
    _get(
        SETTLEMENT,
        settlements.get,
        "One settlement, and what the last statement says differently",
        settlement_models.Settlement,
        roles=auth.MONEY,
        query={**PAGE, **FIELDS},
        reads=True,
    ),
    _get(
        f"{SETTLEMENT}/items",
        settlements.items,
        "What is in it",
        settlement_models.Items,
        roles=auth.MONEY,
        query={**PAGE, **FIELDS},
        reads=True,
    ),
    Route(
        method="GET",
        path=f"{SETTLEMENT}/instruction",
        handler=settlements.instruction,
        about="Its transfer, for the bank of who owes (pain.001.001.09)",
        roles=auth.MONEY,
        answers={200: None},
        files=(settlements.XML,),
        refusals=(422,),
    ),
    Route(
        method="POST",
        path=f"{SETTLEMENT}/statement",
        handler=settlements.upload,
        about="Hold a statement of the bank's own account (camt.053 or CSV) against it",
        roles=auth.MONEY,
        file=("application/xml", "text/csv"),
        answers={200: settlement_models.Settlement, 202: answers.Accepted},
        command=True,
    ),
    _get(
        "/api/suspense",
        suspense.listing,
        "Money that waits for a person",
        suspense_models.SuspendedItems,
        roles=auth.STAFF_READS,
        query={
            **PAGE,
            **FIELDS,
            "status": "open, paying, paid, returned, recovered or written_off; without it what stands",
            "kind": "credit, debit or loss",
            "currency": "ISO 4217 code",
        },
        choices={"status": tuple(SuspenseStatus), "kind": tuple(SuspenseKind)},
    ),
    _get(
        SUSPENSE,
        suspense.get,
        "One amount in suspense, and what became of it",
        suspense_models.Suspended,
        roles=auth.STAFF_READS,
        query=FIELDS,
    ),
    _command(
        f"{SUSPENSE}/resolve",
        suspense.resolve,
        "Pay it, give it back, note that it was recovered, or write it off",
        suspense_models.Resolution,
        {200: suspense_models.Suspended},
        roles=auth.SUSPENSE_WORD,
        money=True,
    ),
    _get(
        "/api/reports",
        reports.listing,
        "Reports",
        reports_models.Reports,
        roles=auth.REPORTERS,
        query={**PAGE, **FIELDS, "status": "pending, completed or failed"},
        choices={"status": tuple(ReportStatus)},
    ),
    _command(
        "/api/reports",
        reports.create,
        "Make a report of a period",
        reports_models.NewReport,
        {201: reports_models.Report},
        roles=auth.REPORTERS,
    ),
    _get(
        REPORT,
        reports.get,
        "One report",
        reports_models.Report,
        roles=auth.REPORTERS,
        query=FIELDS,
        reads=True,
    ),
    Route(
        method="GET",
        path=f"{REPORT}/download",
        handler=reports.download,
        about="Its rows as a file",
        roles=auth.REPORTERS,
        query={"format": "pdf (the default), xlsx or csv"},
        choices={"format": reports.FORMATS},
        refusals=(409, 422),
        answers={200: None},
        files=tuple(MEDIA_TYPES.values()),
        streams=True,
        reads=True,
    ),
    _get(
        "/api/report-schedules",
        reports.schedules,
        "Reports that are made again and again",
        reports_models.Schedules,
        roles=auth.REPORTERS,
        query={**PAGE, **FIELDS},
    ),
    _command(
        "/api/report-schedules",
        reports.schedule,
        "Make a report at each time of a cron expression",
        reports_models.NewSchedule,
        {201: reports_models.Schedule},
        roles=auth.REPORTERS,
    ),
    _get(
        SCHEDULE,
        reports.get_schedule,
        "One schedule",
        reports_models.Schedule,
        roles=auth.REPORTERS,
        query=FIELDS,
        reads=True,
    ),
    _command(
        SCHEDULE,
        reports.unschedule,
        "Run it no more; what it made stays",
        models.Empty,
        {200: reports_models.Schedule},
        method="DELETE",
        roles=auth.REPORTERS,
    ),
    _get(
        "/api/tables/{table}/{key}",
        analysts.row,
        "One row of a service's table, now or then",
        answers.TableRow,
        roles=auth.ANALYSTS,
        query=AT,
        reads=True,
    ),
    Route(
        method="POST",
        path="/api/query",
        handler=analysts.query,
        about="One SELECT over tables and events, now or then",
        roles=auth.ANALYSTS,
        body=models.SqlQuery,
        answers={200: answers.QueryResult},
    ),
    _get(
        "/api/audit",
        audit.trail,
        "Who did what: facts of an entity or an actor, the oldest first",
        audit.Facts,
        roles=auth.AUDITORS,
        query={**PAGE, **OF_AUDIT},
        reads=True,
        refusals=(422,),
    ),
    _get(
        "/api/audit/verify",
        audit.verify,
        "Compute the chains of hashes again, and name what does not fit",
        audit.Verified,
        roles=auth.AUDITORS,
        query={"from": "trust what was before the last checkpoint before this time (RFC 3339)"},
        reads=True,
        refusals=(422,),
    ),
    _get(
        "/api/audit/export",
        audit.export,
        "Entries with their proof, NDJSON",
        None,
        roles=auth.AUDITORS,
        query=OF_AUDIT,
        streams=True,
        files=("application/x-ndjson",),
        refusals=(422,),
    ),
    _get(
        "/api/analytics/reports",
        analytics.report,
        "A metric over windows of time, grouped and filtered",
        analytics.Report,
        roles=auth.ANALYSTS,
        query={
            "metric": ", ".join(analytics.Metric),
            "interval": "minute, hour (default) or day, UTC",
            "from": "RFC 3339; 24 windows before `to` without it",
            "to": "RFC 3339; now without it",
            "group_by": "one or more of currency, type and user, separated by commas",
            "currency": "ISO 4217 code",
            "type": "of the transactions",
            "user_id": "whose; by day alone",
        },
        choices={
            "metric": tuple(analytics.Metric),
            "interval": tuple(Interval),
            "type": tuple(TransactionType),
        },
        reads=True,
        refusals=(422,),
    ),
    _get(
        "/api/analytics/users/{user_id}",
        analytics.behaviour,
        "All that a user ever ordered, and when",
        analytics.UserBehaviour,
        roles=auth.ANALYSTS,
    ),
    _get(
        "/api/analytics/stream",
        analytics.stream,
        "Server-sent events: the last minutes, as they change",
        None,
        roles=auth.ANALYSTS,
        streams=True,
    ),
    _get(
        "/api/status",
        watch.get,
        "What runs, how far it is behind, and what is open",
        watch.Status,
        roles=auth.WATCHERS,
    ),
    _public("/subjects", documents.registry, "Subjects of the schema registry"),
    _public("/subjects/{subject}/versions", documents.registry, "Versions of a subject"),
    _public("/subjects/{subject}/versions/{version}", documents.registry, "One version"),
    _public(
        "/subjects/{subject}/versions/{version}/schema", documents.registry, "Its schema alone"
    ),
    _public("/schemas/types", documents.registry, "Kinds of schemas: AVRO"),
    _public("/schemas/ids/{schema_id}", documents.registry, "The schema of an id"),
    _public("/schemas/ids/{schema_id}/schema", documents.registry, "Its text alone"),
    _public("/schemas/ids/{schema_id}/subjects", documents.registry, "Its subjects"),
    _public("/schemas/ids/{schema_id}/versions", documents.registry, "Its versions"),
    _public("/health", operations.health, "The process lives"),
    _public("/readiness", operations.readiness, "It can serve"),
    _public("/metrics", operations.metrics, "Prometheus metrics"),
    _public("/api/openapi.json", documents.openapi, "This document"),
    _public("/api/asyncapi.json", documents.asyncapi, "The events, for who subscribes"),
    _public("/docs", documents.page, "The document to read"),
    _public("/docs/{asset}", documents.asset, "What that page needs"),
    _public("/dashboard", documents.dashboard, "What happens in the bank just now, to look at"),
    _public("/dashboard/{asset}", documents.dashboard_asset, "What that page needs"),
)

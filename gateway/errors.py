"""Problems: every error that a client sees, as `application/problem+json` (RFC 9457).

A code is stable: clients branch on it, and `CODES` is the list that the documents show. `detail`
is for people and may change. Nothing else of what went wrong leaves the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.saga import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEDIA_TYPE = "application/problem+json"

# code -> (status, title)
CODES: dict[str, tuple[int, str]] = {
    "MALFORMED_JSON": (400, "The body is not JSON"),
    "DUPLICATE_MEMBER": (400, "A member's name appears twice in one object"),
    "IDEMPOTENCY_KEY_MISSING": (400, "This route needs an Idempotency-Key header"),
    "IDEMPOTENCY_KEY_INVALID": (400, "The Idempotency-Key can't be used"),
    "BAD_QUERY": (400, "A query parameter can't be used"),
    "BAD_REQUEST": (400, "The request can't be read"),
    "UNAUTHENTICATED": (401, "A valid access token is needed"),
    "SESSION_ENDED": (401, "The session has ended: log in"),
    "TOKEN_REUSED": (401, "The refresh token was used before: its session has ended"),
    "BAD_SIGNATURE": (401, "The notice is not signed by the provider, or not now"),
    "INVALID_CREDENTIALS": (401, "E-mail or password is wrong"),
    "FORBIDDEN": (403, "Your role does not allow this"),
    "NOT_FOUND": (404, "There is no such thing here"),
    "METHOD_NOT_ALLOWED": (405, "This path has no such method"),
    "BODY_TOO_SLOW": (408, "The body did not arrive in time"),
    "IDEMPOTENCY_IN_PROGRESS": (409, "The first request with this key is still being answered"),
    "EMAIL_TAKEN": (409, "This e-mail address has a user already"),
    "REPORT_NOT_READY": (409, "The report is not made yet, or can't be"),
    "BODY_TOO_LARGE": (413, "The body is too large"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "The body must be application/json"),
    "INVALID_BODY": (422, "Something in the body is not valid"),
    "IDEMPOTENCY_MISMATCH": (422, "This key was used with another body"),
    "PROVIDER_REFUSED": (422, "The payment provider does not take this"),
    "STATEMENT_UNREADABLE": (422, "The statement can't be used; nothing changed"),
    "AUDIT_BROKEN": (422, "The chains do not fit the log: verify says where"),
    "AUDIT_TOO_LARGE": (422, "This is too much of the log for one answer"),
    "REPORT_TOO_LARGE": (422, "The report has too many rows"),
    "SQL_REFUSED": (422, "This is not one SELECT that can be asked"),
    "SQL_TOO_LARGE": (422, "The query needs more time or memory than there is for it"),
    "SETTLEMENT_EMPTY": (422, "There is nothing to transfer"),
    "REPORT_FAILED": (422, "The report could not be made"),
    "FILE_TOO_LARGE": (422, "This would be too large a file: ask for less, or as json or csv"),
    "RATE_LIMITED": (429, "Too many requests"),
    "INTERNAL": (500, "Something went wrong here"),
    "BROKER_UNAVAILABLE": (503, "Not known to be accepted: repeat with the same key"),
    "PROVIDER_UNAVAILABLE": (503, "The payment provider does not answer: repeat with the same key"),
    "OVERLOADED": (503, "Too much is waiting here: repeat with the same key"),
    "STATE_UNAVAILABLE": (503, "The data asked for is moving between workers: ask again"),
}
# what a service refused or how a transaction failed: 422, save where the table above says otherwise
TITLES: dict[Reason, str] = {
    Reason.ACCOUNT_CLOSED: "The account is closed",
    Reason.ACCOUNT_FROZEN: "The account is frozen",
    Reason.ACCOUNT_NOT_CLOSED: "The account is not closed",
    Reason.ACCOUNT_NOT_FOUND: "There is no such account",
    Reason.ALREADY_REVERSED: "Another order undoes this transaction, or did",
    Reason.AMOUNT_TOO_LARGE: "The amount comes to too much in the other currency",
    Reason.AMOUNT_TOO_SMALL: "The amount comes to less than one minor unit",
    Reason.BALANCE_LIMIT: "The balance would pass its limit",
    Reason.BALANCE_NOT_ZERO: "The account still holds or owes money",
    Reason.BLACKLISTED: "Someone who takes part is on the blacklist",
    Reason.CANCELLED: "The transaction was cancelled before money moved",
    Reason.CHANNEL_OFF: "The user does not want this over that channel",
    Reason.CURRENCY_NOT_HELD: "The account does not hold this currency",
    Reason.CURRENCY_UNKNOWN: "This is no ISO 4217 currency",
    Reason.DAILY_LIMIT: "The daily limit would be passed",
    Reason.DEADLINE_PASSED: "The transaction could not be carried out in time",
    Reason.ENDPOINT_NOT_FOUND: "There is no such webhook endpoint",
    Reason.HOLD_EXCEEDED: "This is more than is held",
    Reason.HOLD_NOT_FOUND: "There is no such hold",
    Reason.HOLD_NOT_OPEN: "The hold has ended",
    Reason.INSUFFICIENT_FUNDS: "There is not enough money on the account",
    Reason.INVALID_COMMAND: "The service could not accept this",
    Reason.IN_FLIGHT: "Money is still under way",
    Reason.KYC_LEVEL_HELD: "The user has this level, or a higher one, already",
    Reason.KYC_NOT_PENDING: "Nothing is waiting to be decided here",
    Reason.KYC_PENDING: "What was submitted before is not decided yet",
    Reason.NOTIFICATION_NOT_DEAD: "The notification was not given up",
    Reason.NOTIFICATION_NOT_FOUND: "There is no such notification",
    Reason.NOT_COMPLETED: "The transaction is not completed",
    Reason.NOT_OWNER: "The account belongs to someone else",
    Reason.NOT_REVERSIBLE: "A transaction of this kind is not undone this way",
    Reason.NOT_SUSPENDED: "Nothing is suspended here",
    Reason.NO_ADDRESS: "There is nowhere to send it",
    Reason.OWN_CASE: "Nobody decides their own case",
    Reason.PASSWORD_CHANGED: "The password was changed in the meantime",
    Reason.PAYMENT_DECLINED: "The payment rail declined",
    Reason.QUOTE_EXPIRED: "The quote's time is over",
    Reason.QUOTE_MISMATCH: "The quote is of other currencies or another amount",
    Reason.QUOTE_NOT_FOUND: "There is no such quote",
    Reason.QUOTE_USED: "The quote was used already",
    Reason.RATES_OUTDATED: "Newer rates of this source are set",
    Reason.RATE_NOT_FOUND: "There is no rate between these currencies",
    Reason.RATE_STALE: "The rate is older than it may be",
    Reason.PAYMENT_METHOD_EXPIRED: "The card has expired",
    Reason.PAYMENT_METHOD_LIMIT: "There are as many payment methods as a user may have",
    Reason.PAYMENT_METHOD_NOT_FOUND: "There is no such payment method",
    Reason.PAYMENT_METHOD_UNSUITABLE: "This payment method is not for that: cards are charged, IBANs are paid out to",
    Reason.PAYMENT_NOT_CREDITED: "The payment's money is not on an account: there is nothing to refund",
    Reason.PAYMENT_NOT_FOUND: "There is no such payment",
    Reason.REFUND_DECLINED: "The provider does not refund",
    Reason.REFUND_EXCEEDS_PAYMENT: "More would be refunded than was captured",
    Reason.REFUND_ORDERED: "A refund was ordered",
    Reason.REVIEW_DECIDED: "The review is decided already",
    Reason.REVIEW_DECLINED: "The review was declined",
    Reason.REVIEW_EXPIRED: "Nobody decided the review in time",
    Reason.REVIEW_NOT_FOUND: "There is no such review",
    Reason.RISK_DECLINED: "Declined by the risk rules",
    Reason.SCHEDULE_NOT_FOUND: "There is no such schedule",
    Reason.SETTLEMENT_NOT_FOUND: "There is no such settlement",
    Reason.SETTLEMENT_OPEN: "The settlement is not closed yet",
    Reason.SETTLEMENT_RECONCILED: "A statement agrees with the settlement already",
    Reason.SUSPENSE_MISMATCH: "What is suspended has another amount or currency, or can't be settled so",
    Reason.SUSPENSE_RESOLVED: "This is in suspense no more: someone settled it",
    Reason.TEMPLATE_DATA_MISSING: "The template needs data that was not given",
    Reason.TEMPLATE_NOT_FOUND: "There is no such template",
    Reason.TOKEN_INVALID: "The mailed token is wrong, was used, or its time is over",
    Reason.TOO_LATE: "Money has moved: it is too late to cancel",
    Reason.TOO_MANY_ENDPOINTS: "The user has as many webhook endpoints as can be",
    Reason.TRANSACTION_LIMIT: "This is more than may be ordered at once",
    Reason.TRANSACTION_NOT_FOUND: "There is no such transaction",
    Reason.USER_NOT_FOUND: "There is no such user",
    Reason.VERSION_PASSED: "This replaces a version that was replaced already",
}
CODES.update({reason.value: (422, title) for reason, title in TITLES.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One thing wrong with a body: `pointer` is a JSON pointer (RFC 6901) to it."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """An answer that is an error. `members` are extra members, such as the id of what failed."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.status, self.title = CODES[code]
        self.detail = detail or self.title
        if self.status == 422 and not errors:
            errors = (FieldError(pointer="", code=code, detail=self.detail),)
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def body(self, instance: str, trace_id: str) -> dict[str, Any]:
        """The members of the problem document."""
        document: dict[str, Any] = {
            "type": f"/docs#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "trace_id": trace_id,
            **self.members,
        }
        if self.status == 422:
            document["errors"] = [
                {"pointer": error.pointer, "code": error.code, "detail": error.detail}
                for error in self.errors
            ]
        return document


def not_found(detail: str = "") -> Problem:
    """404, for what does not exist, what is not yours, and what no service has read yet."""
    return Problem("NOT_FOUND", detail, headers={"Retry-After": "1"})


def invalid(pointer: str, code: str, detail: str) -> Problem:
    """422 for one member of the body; a code that stands in `CODES` is the problem's own too."""
    error = FieldError(pointer=pointer, code=code, detail=detail)
    return Problem(code if code in CODES else "INVALID_BODY", detail, errors=(error,))


def state_unavailable(detail: str) -> Problem:
    return Problem("STATE_UNAVAILABLE", detail, headers={"Retry-After": "1"})

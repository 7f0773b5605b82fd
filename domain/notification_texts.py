"""The texts that the bank brings along: templates until an operator saves others under their names.

Jinja2 of what `outbound/template.py` lets through. They are data here; who sends a message fills
them in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One template: what kind of notification it is for, and the names that it fills in."""

    kind: str
    subject: str
    text: str
    variables: tuple[str, ...]
    html: str = ""  # empty: mail goes out as text alone


_MONEY = "{{ amount_minor | money(currency) }}"
_TRANSACTION = ("amount_minor", "currency", "transaction_id", "type")

BUILT_IN: Mapping[str, Text] = {
    "transaction_completed": Text(
        kind="transaction_completed",
        subject=f"Your {{{{ type }}}} of {_MONEY} is done",
        text=f"Your {{{{ type }}}} of {_MONEY} is done.\n\nTransaction {{{{ transaction_id }}}}\n",
        variables=_TRANSACTION,
    ),
    "transaction_failed": Text(
        kind="transaction_failed",
        subject=f"Your {{{{ type }}}} of {_MONEY} failed",
        text=(
            f"Your {{{{ type }}}} of {_MONEY} could not be carried out: {{{{ reason }}}}.\n"
            "What had moved was put back.\n\nTransaction {{ transaction_id }}\n"
        ),
        variables=(*_TRANSACTION, "reason"),
    ),
    "roles_changed": Text(
        kind="security",
        subject="Your permissions have changed",
        text="Your roles are now: {{ roles }}.\n\nIf this surprises you, tell us at once.\n",
        variables=("roles",),
    ),
    "password_changed": Text(
        kind="security",
        subject="Your password has changed",
        text="Your password was changed and all other sessions ended.\n\nIf this surprises you, tell us at once.\n",
        variables=(),
    ),
    "email_changed": Text(
        kind="security",
        subject="Your e-mail address has changed",
        text="From now on we write to {{ email }}.\n\nIf this surprises you, tell us at once.\n",
        variables=("email",),
    ),
    "email_confirmation": Text(
        kind="security",
        subject="Confirm your e-mail address",
        text="Dear {{ name }},\n\nthis confirms that mail reaches you, for {{ minutes }} minutes:\n\n{{ token }}\n",
        variables=("name", "minutes", "token"),
    ),
    "password_reset": Text(
        kind="security",
        subject="Set a new password",
        text="Dear {{ name }},\n\nthis lets you set a new password, for {{ minutes }} minutes:\n\n{{ token }}\n\n"
        "If you did not ask for it, leave it be.\n",
        variables=("name", "minutes", "token"),
    ),
    "message": Text(
        kind="message",
        subject="{{ subject }}",
        text="{{ text }}\n",
        html="<p>{{ text }}</p>\n",
        variables=("subject", "text"),
    ),
}

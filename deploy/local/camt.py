"""The provider's statement of a day as camt.053 (ISO 20022, BankToCustomerStatement)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from iso4217 import Currency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.local.provider import Decision

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"


def statement(day: str, currency: str, booked: Sequence[Decision]) -> bytes:
    """One statement of one account; each decision is an entry, in or out."""
    document = ET.Element("Document", xmlns=NAMESPACE)
    message = ET.SubElement(document, "BkToCstmrStmt")
    head = ET.SubElement(message, "GrpHdr")
    _text(head, "MsgId", f"sandbox-{day}-{currency}")
    _text(head, "CreDtTm", f"{day}T23:59:59Z")
    told = ET.SubElement(message, "Stmt")
    _text(told, "Id", f"{day}-{currency}")
    _text(told, "CreDtTm", f"{day}T23:59:59Z")
    account = ET.SubElement(told, "Acct")
    _text(account, "Id/Othr/Id", "streambank")
    _text(account, "Ccy", currency)
    total_minor = sum(_signed_minor(decision) for decision in booked)
    _balance(told, "OPBD", 0, currency, day)
    _balance(told, "CLBD", total_minor, currency, day)
    for decision in booked:
        _entry(told, decision, currency)
    told_as: bytes = ET.tostring(document, encoding="utf-8", xml_declaration=True)
    return told_as


def _entry(told: ET.Element, decision: Decision, currency: str) -> None:
    minor = _signed_minor(decision)
    entry = ET.SubElement(told, "Ntry")
    _amount(entry, minor, currency)
    _text(entry, "Sts/Cd", "BOOK")
    _text(entry, "BookgDt/Dt", decision.booked_on)
    _text(entry, "ValDt/Dt", decision.booked_on)
    _text(entry, "AcctSvcrRef", decision.reference)
    _text(entry, "BkTxCd/Prtry/Cd", decision.kind)
    key = str(decision.asked.get("end_to_end_id") or decision.key)
    _text(entry, "NtryDtls/TxDtls/Refs/EndToEndId", key[:35])


def _signed_minor(decision: Decision) -> int:
    """Charged is in, paid out is out; what is given back goes the other way."""
    asked = decision.asked
    charged = asked.get("type") in ("payment", "refund") and not asked.get("source_account_id")
    ordered = asked.get("type") == "refund"
    comes_in = not ordered and (charged is (decision.kind == "payments"))
    return int(asked["amount"]) if comes_in else -int(asked["amount"])


def _balance(told: ET.Element, code: str, minor: int, currency: str, day: str) -> None:
    balance = ET.SubElement(told, "Bal")
    _text(balance, "Tp/CdOrPrtry/Cd", code)
    _amount(balance, minor, currency)
    _text(balance, "Dt/Dt", day)


def _amount(parent: ET.Element, minor: int, currency: str) -> None:
    exponent = Currency(currency).exponent or 0
    whole, rest = divmod(abs(minor), 10**exponent)
    amount = ET.SubElement(parent, "Amt", Ccy=currency)
    amount.text = f"{whole}.{rest:0{exponent}d}" if exponent else str(whole)
    _text(parent, "CdtDbtInd", "CRDT" if minor >= 0 else "DBIT")


def _text(parent: ET.Element, path: str, text: str) -> None:
    """An element at the end of a path, whose other elements are made where they are not there."""
    *outer, last = path.split("/")
    for name in outer:
        found = parent.find(name)
        parent = ET.SubElement(parent, name) if found is None else found
    ET.SubElement(parent, last).text = text

"""pain.001.001.09, CustomerCreditTransferInitiation: one transfer that a bank is told to make.

The elements and their order are those of ISO 20022's schema of that name. The same transfer gives
the same bytes: the times are those of what is instructed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from xml.etree import ElementTree as ET

from banking.amounts import decimal_of

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
ID_LIMIT = 35  # Max35Text
NAME_LIMIT = 140  # Max140Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who pays or is paid: name, IBAN and BIC of the account."""

    name: str
    iban: str
    bic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One credit transfer; `amount_minor` above zero. `transfer_id` at most ID_LIMIT characters."""

    transfer_id: str
    initiator: str  # name of who sends the message
    debtor: Party
    creditor: Party
    amount_minor: int
    currency: str
    on: date  # requested execution date
    created_ms: int
    remittance: str


def document(transfer: Transfer) -> bytes:
    """The message in UTF-8. Raises ValueError for what the schema has no room for."""
    if not 0 < len(transfer.transfer_id) <= ID_LIMIT:
        raise ValueError(f"{transfer.transfer_id!r} is no id of 1 to {ID_LIMIT} characters")
    if transfer.amount_minor <= 0:
        raise ValueError(f"{transfer.amount_minor} is nothing to transfer")
    ET.register_namespace("", NAMESPACE)
    root = ET.Element(f"{{{NAMESPACE}}}Document")
    message = _in(root, "CstmrCdtTrfInitn")
    amount = decimal_of(transfer.amount_minor, transfer.currency)
    header = _in(message, "GrpHdr")
    _in(header, "MsgId", transfer.transfer_id)
    _in(header, "CreDtTm", _utc(transfer.created_ms))
    _in(header, "NbOfTxs", "1")
    _in(header, "CtrlSum", amount)
    _in(_in(header, "InitgPty"), "Nm", transfer.initiator[:NAME_LIMIT])
    payment = _in(message, "PmtInf")
    _in(payment, "PmtInfId", transfer.transfer_id)
    _in(payment, "PmtMtd", "TRF")
    _in(payment, "NbOfTxs", "1")
    _in(payment, "CtrlSum", amount)
    _in(_in(payment, "ReqdExctnDt"), "Dt", transfer.on.isoformat())
    _in(_in(payment, "Dbtr"), "Nm", transfer.debtor.name[:NAME_LIMIT])
    _account(payment, "DbtrAcct", transfer.debtor)
    _agent(payment, "DbtrAgt", transfer.debtor)
    order = _in(payment, "CdtTrfTxInf")
    _in(_in(order, "PmtId"), "EndToEndId", transfer.transfer_id)
    _in(_in(order, "Amt"), "InstdAmt", amount).set("Ccy", transfer.currency)
    _agent(order, "CdtrAgt", transfer.creditor)
    _in(_in(order, "Cdtr"), "Nm", transfer.creditor.name[:NAME_LIMIT])
    _account(order, "CdtrAcct", transfer.creditor)
    _in(_in(order, "RmtInf"), "Ustrd", transfer.remittance[:NAME_LIMIT])
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _in(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    element.text = text
    return element


def _account(parent: ET.Element, name: str, party: Party) -> None:
    _in(_in(_in(parent, name), "Id"), "IBAN", party.iban)


def _agent(parent: ET.Element, name: str, party: Party) -> None:
    _in(_in(_in(parent, name), "FinInstnId"), "BICFI", party.bic)


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

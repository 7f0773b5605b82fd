"""Payment orders hold to ISO 20022's own schema, which sepaxml carries."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from importlib.resources import files
from xml.etree import ElementTree as ET

import pytest
import xmlschema

from banking.pain001 import NAMESPACE, Party, Transfer, document

SCHEMA = xmlschema.XMLSchema(str(files("sepaxml") / "schemas" / "pain.001.001.09.xsd"))
TRANSFER = Transfer(
    transfer_id="sandbox.EUR.2026-11-26",
    initiator="Streambank",
    debtor=Party(name="Sandbox", iban="DE89370400440532013000", bic="COBADEFFXXX"),
    creditor=Party(name="Streambank & Töchter <AG>", iban="FR1420041010050500013M02606", bic="PSSTFRPPLIL"),
    amount_minor=2_500,
    currency="EUR",
    on=date(2026, 11, 27),
    created_ms=1_795_690_800_123,
    remittance="settlement of 2026-11-26",
)  # fmt: skip


def text(document_: bytes, path: str) -> str | None:
    return ET.fromstring(document_).findtext(path, namespaces={"p": NAMESPACE})


@pytest.mark.parametrize(
    ("changes", "amount"),
    [
        ({}, "25.00"),
        ({"currency": "JPY"}, "2500"),
        ({"currency": "BHD"}, "2.500"),
        ({"amount_minor": 1}, "0.01"),
        ({"remittance": "x" * 500}, "25.00"),
    ],
)
def test_it_is_valid(changes: dict[str, object], amount: str) -> None:
    written = document(replace(TRANSFER, **changes))  # type: ignore[arg-type]
    SCHEMA.validate(written.decode())
    assert text(written, ".//p:InstdAmt") == amount
    assert text(written, ".//p:GrpHdr/p:CtrlSum") == amount


def test_the_same_transfer_gives_the_same_bytes() -> None:
    assert document(TRANSFER) == document(replace(TRANSFER))


def test_names_are_told_as_they_are() -> None:
    written = document(TRANSFER)
    assert text(written, ".//p:Cdtr/p:Nm") == "Streambank & Töchter <AG>"
    assert text(written, ".//p:CdtrAcct/p:Id/p:IBAN") == "FR1420041010050500013M02606"
    assert text(written, ".//p:EndToEndId") == "sandbox.EUR.2026-11-26"


@pytest.mark.parametrize("changes", [{"transfer_id": "x" * 36}, {"transfer_id": ""}, {"amount_minor": 0}])  # fmt: skip
def test_what_has_no_room_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is no"):
        document(replace(TRANSFER, **changes))  # type: ignore[arg-type]

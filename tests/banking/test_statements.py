"""Statements of a provider, read: what is in them, and what is wrong with those that can't be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banking import camt053, csv_statement
from banking.amounts import minor_of
from banking.statement import StatementEntry, Unreadable

HEAD = (
    '<?xml version="1.0"?>\n'
    '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>'
    "<GrpHdr><MsgId>m</MsgId></GrpHdr>\n<Stmt><Id>1</Id><Acct><Ccy>EUR</Ccy></Acct>\n"
)
TAIL = "</Stmt></BkToCstmrStmt></Document>"


def entry(
    amount: str = "10.50", direction: str = "CRDT", currency: str = "EUR", more: str = ""
) -> str:
    return (
        f'<Ntry><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>{direction}</CdtDbtInd>'
        "<Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2026-09-21</Dt></BookgDt>"
        "<AcctSvcrRef>ref-1</AcctSvcrRef><NtryDtls><TxDtls><Refs><EndToEndId>e1</EndToEndId></Refs>"
        f"</TxDtls></NtryDtls>{more}</Ntry>\n"
    )


def camt(*entries: str) -> bytes:
    return (HEAD + "".join(entries) + TAIL).encode()


def test_a_camt_statement() -> None:
    told = camt053.read(camt(entry(), entry("7", "DBIT")))
    assert (told.day, told.currency) == ("2026-09-21", "EUR")
    first, second = told.entries
    assert first == StatementEntry(end_to_end_id="e1", reference="ref-1", amount_minor=1050, line=4)
    assert (second.amount_minor, second.line) == (-700, 5)


@pytest.mark.parametrize("more", ["", "<RvslInd>true</RvslInd>", "<RvslInd>1</RvslInd>"])
def test_a_reversal_went_where_its_direction_says(more: str) -> None:
    """ISO 20022, ReversalIndicator: with DBIT and true the original operation was a credit entry."""
    told = camt053.read(camt(entry(direction="DBIT", more=more), entry(more=more)))
    assert [one.amount_minor for one in told.entries] == [-1050, 1050]


STATUS = "<Sts><Cd>BOOK</Cd></Sts>"


@pytest.mark.parametrize("status", ["<Sts>BOOK</Sts>", "<Sts>\n<Cd> BOOK </Cd>\n</Sts>"])
def test_what_is_booked_is_taken_however_that_is_said(status: str) -> None:
    assert len(camt053.read(camt(entry().replace(STATUS, status))).entries) == 1


@pytest.mark.parametrize("code", ["PDNG", "INFO", "FUTR", "else"])
@pytest.mark.parametrize("form", ["<Sts>{}</Sts>", "<Sts><Cd>{}</Cd></Sts>"])
def test_what_is_not_booked_is_left_out(form: str, code: str) -> None:
    """Whatever it lacks, and of whatever day and currency it is."""
    other = entry(currency="USD").replace("09-21", "09-30").replace("<Amt", "<Instd")
    left_out = other.replace("</Amt>", "</Instd>").replace(STATUS, form.format(code))
    told = camt053.read(camt(entry(), left_out, entry()))
    assert (told.day, [one.amount_minor for one in told.entries]) == ("2026-09-21", [1050, 1050])


def test_a_status_of_the_bank_s_own_is_not_booked() -> None:
    own = entry().replace(STATUS, "<Sts><Prtry>BOOK-ISH</Prtry></Sts>")
    assert len(camt053.read(camt(entry(), own)).entries) == 1


def balance(code: str = "CLBD", day: str = "<Dt>2026-09-21</Dt>") -> str:
    return (
        f'<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy="EUR">1</Amt>'
        f"<CdtDbtInd>CRDT</CdtDbtInd><Dt>{day}</Dt></Bal>\n"
    )


BEFORE = balance("PRCD", "<Dt>2026-09-18</Dt>")
AHEAD = balance("FWAV", "<Dt>2026-09-22</Dt>")


@pytest.mark.parametrize(
    "day",
    [
        "<Dt>2026-09-21</Dt>",
        "<Dt>2026-09-21Z</Dt>",
        "<Dt>2026-09-21+02:00</Dt>",
        "<DtTm>2026-09-21T23:59:59</DtTm>",
        "<DtTm>2026-09-21T23:59:59.000+02:00</DtTm>",
        "<DtTm>2026-09-21T23:59:59Z</DtTm>",
    ],
)
def test_a_day_without_entries_is_told_by_its_closing_balance(day: str) -> None:
    pending = entry().replace("BOOK", "PDNG").replace("09-21", "09-22")
    told = camt053.read(camt(BEFORE, balance(day=day), AHEAD, pending))
    assert (told.day, told.currency, told.entries) == ("2026-09-21", "EUR", ())
    booked = entry().replace("<Dt>2026-09-21</Dt>", day)
    assert camt053.read(camt(booked)).day == "2026-09-21"


def test_balances_of_other_days_do_not_say_of_which_day_the_entries_are() -> None:
    told = camt053.read(camt(BEFORE, balance(day="<Dt>2026-09-20</Dt>"), AHEAD, entry()))
    assert (told.day, len(told.entries)) == ("2026-09-21", 1)


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"", 1, "not well-formed"),
        (b"<Document>", 1, "no camt.053"),
        (camt(entry())[:-20], 5, "not well-formed"),
        (b'<!DOCTYPE d [<!ENTITY a "b">]><d>&a;</d>', 1, "document type"),
        (b'<?xml-stylesheet href="x"?><d/>', 1, "processing instruction"),
        (HEAD.replace("camt.053", "camt.054").encode(), 2, "no camt.053"),
        (camt(entry("1,50")), 4, "no decimal amount"),
        (camt(entry("1.505")), 4, "more decimals"),
        (camt(entry("-1.50")), 4, "below zero"),
        (camt(entry(currency="EURO")), 4, "no ISO 4217"),
        (camt(entry(), entry(direction="XXXX")), 5, "neither CRDT nor DBIT"),
        (camt(entry().replace("<CdtDbtInd>CRDT</CdtDbtInd>", "")), 4, "no direction"),
        (camt(entry().replace(STATUS, "")), 4, "no status"),
        (camt(entry(more="<AcctSvcrRef>x</AcctSvcrRef>")), 4, "stands twice"),
        (camt(entry(more="<NtryDtls><TxDtls/></NtryDtls>")), 4, "several transactions"),
        (camt(entry(), entry(currency="USD")), 0, "2 currencies"),
        (camt(entry(), entry().replace("09-21", "09-22")), 0, "2 days"),
        (camt(entry().replace("2026-09-21", "yesterday")), 4, "no day"),
        (camt(entry().replace("2026-09-21", "2026-13-45")), 4, "'2026-13-45' is no day"),
        (camt(entry().replace("2026-09-21", "2026-02-30")), 4, "'2026-02-30' is no day"),
        (camt(entry().replace("2026-09-21", "2026-09-211")), 4, "'2026-09-211' is no day"),
        (camt(entry().replace("2026-09-21", "2026-09-21T")), 4, "'2026-09-21T' is no day"),
        (camt(entry().replace("2026-09-21", "٢٠٢٦-٠٩-٢١")), 4, "no day"),
        (camt(entry("١٠.٥٠")), 4, "no decimal amount"),
        (camt(BEFORE, AHEAD), 0, "neither an entry nor a closing balance"),
        (camt(balance(day="<Dt>2026-09-31</Dt>")), 4, "'2026-09-31' is no day"),
        (camt(balance(), balance(day="<Dt>2026-09-22</Dt>")), 0, "2 days"),
        (camt("</Stmt><Stmt>"), 4, "more than one statement"),
        (camt("<a>" * 40 + "</a>" * 40), 4, "deep"),
        (camt(f"<a>{'x' * 1001}</a>"), 4, "characters"),
        (camt(*[entry()] * 2001), 2004, "more than 2000 entries"),
        (b'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"/>', 0, "no statement"),
    ],
)
def test_a_broken_camt_statement(data: bytes, line: int, what: str) -> None:
    with pytest.raises(Unreadable, match=what) as caught:
        camt053.read(data)
    assert caught.value.line == line


CSV = "booked_on,end_to_end_id,reference,amount,currency\n"


def test_a_csv_statement() -> None:
    told = csv_statement.read(
        (CSV + "2026-09-21,e1,ref-1,-10.50,EUR\n2026-09-21,e2,ref-2,3,EUR\n").encode()
    )
    assert [(one.end_to_end_id, one.amount_minor, one.line) for one in told.entries] == [
        ("e1", -1050, 2),
        ("e2", 300, 3),
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "columns"),
        ("a,b\n", 1, "columns"),
        (CSV, 0, "one day"),
        (CSV + f"2026-09-21,e1,ref-1,{10**15 - 1},CLF\n", 2, "more than can be booked"),
        (CSV + "2026-09-21,e1,ref-1,ten,EUR\n", 2, "no decimal amount"),
        (CSV + "\n2026-09-21,e1,ref-1,1,EUR,x\n", 3, "6 columns"),
        (CSV + "21.9.,e1,ref-1,1,EUR\n", 2, "no day"),
        (CSV + "2026-13-45,e1,ref-1,1,EUR\n", 2, "'2026-13-45' is no day"),
        (CSV + "2026-02-30,e1,ref-1,1,EUR\n", 2, "'2026-02-30' is no day"),
        (CSV + "2026-09-211,e1,ref-1,1,EUR\n", 2, "'2026-09-211' is no day"),
        (CSV + "٢٠٢٦-٠٩-٢١,e1,ref-1,1,EUR\n", 2, "no day"),
        (CSV + "2026-09-21,e1,ref-1,١٠.٥٠,EUR\n", 2, "no decimal amount"),
        (CSV + f"2026-09-21,{'e' * 201},ref-1,1,EUR\n", 2, "characters"),
        (CSV + "2026-09-21,e1,ref-1,1,EUR\n2026-09-21,e1,ref-1,1,USD\n", 0, "one currency"),
        (CSV + '2026-09-21,"e1\n', 2, "no CSV"),
        (CSV + "2026-09-21,e1,ref-1,1,EUR\n" * 2001, 2002, "more than 2000"),
    ],
)
def test_a_broken_csv_statement(text: str, line: int, what: str) -> None:
    with pytest.raises(Unreadable, match=what) as caught:
        csv_statement.read(text.encode())
    assert caught.value.line == line


def test_csv_that_is_no_text() -> None:
    with pytest.raises(Unreadable, match="UTF-8") as caught:
        csv_statement.read(CSV.encode() + b"\xff")
    assert caught.value.line == 2


@given(st.binary(max_size=400))
def test_garbage_is_one_sentence(data: bytes) -> None:
    for read in (camt053.read, csv_statement.read):
        with pytest.raises(Unreadable):
            read(data)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["EUR", "JPY", "BHD"]))
def test_an_amount_is_read_as_it_was_written(minor: int, currency: str) -> None:
    exponent = {"EUR": 2, "JPY": 0, "BHD": 3}[currency]
    digits = str(abs(minor)).rjust(exponent + 1, "0")
    text = f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits
    assert minor_of(f"{'-' if minor < 0 else ''}{text}", currency) == minor

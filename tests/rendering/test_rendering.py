"""Files for people: exact amounts, nothing that a spreadsheet runs, memory that does not grow."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import unicodedata
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rendering import WRITERS, Bars, Column, Document, Format, Kind, Money, Table
from rendering.delimited import FORMULA, neutral
from rendering.pdf import MARGIN, WIDTH
from rendering.sheet import EXACT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rendering import Value

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
COLUMNS = (
    Column(title="Line", width=8),
    Column(title="Time", kind=Kind.TIME, width=14),
    Column(title="Note", width=30, on_paper=True),
    Column(title="Secret", kind=Kind.CODE, on_paper=False),
    Column(title="Count", kind=Kind.NUMBER),
    Column(title="Amount", kind=Kind.MONEY, width=16),
)


def document(*rows: Sequence[Value], **more: object) -> Document:
    table = Table(title="Rows", columns=COLUMNS, rows=rows, strong=frozenset({"total"}))
    fields = {"title": "A report", "issuer": "Streambank", "tables": (table,), **more}
    return Document(**fields)  # type: ignore[arg-type]


def row(note: str, money: Money, line: str = "entry") -> Sequence[Value]:
    return (line, NOON, note, "not-on-paper", 1_234, money)


def written(kind: Format, it: Document) -> bytes:
    file = io.BytesIO()
    WRITERS[kind](it, file)
    return file.getvalue()


def cells(it: Document) -> list[list[str]]:
    text = written(Format.CSV, it).decode()
    assert "\r\n" in text
    return [*csv.reader(io.StringIO(text, newline=""))][1:]


def paper(it: Document) -> list[str]:
    pages = pypdfium2.PdfDocument(written(Format.PDF, it))
    return [pages[n].get_textpage().get_text_range() for n in range(len(pages))]


def sheet(it: Document) -> ElementTree.Element:
    book = zipfile.ZipFile(io.BytesIO(written(Format.XLSX, it)))
    assert book.testzip() is None
    return ElementTree.fromstring(book.read("xl/worksheets/sheet2.xml"))


NS = {"x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}


@pytest.mark.parametrize(
    ("money", "plain", "grouped"),
    [
        (Money(0, "USD", 2), "0.00", "0.00"),
        (Money(-5, "USD", 2), "-0.05", "-0.05"),
        (Money(123_456_789, "USD", 2), "1234567.89", "1,234,567.89"),
        (Money(-1_050, "JPY", 0), "-1050", "-1,050"),
        (Money(1_050, "BHD", 3), "1.050", "1.050"),
        (Money(10**18, "USD", 2), "10000000000000000.00", "10,000,000,000,000,000.00"),
    ],
)
def test_an_amount_is_written_with_its_currency_s_decimals(
    money: Money, plain: str, grouped: str
) -> None:
    it = document(row("", money))
    assert cells(it)[0][-1] == plain
    assert grouped in paper(it)[0]
    value = sheet(it).findall(".//x:c", NS)[-1]
    if abs(money.minor) < EXACT:  # a number, of which a double says each digit
        assert value.get("t") is None
        assert float(value.findtext("x:v", namespaces=NS) or "") == float(plain)
    else:
        assert value.get("t") == "inlineStr"


def names(*titles: str) -> list[str]:
    """Of the sheets of tables with these titles."""
    tables = [Table(title=title, columns=COLUMNS, rows=()) for title in titles]
    book = zipfile.ZipFile(io.BytesIO(written(Format.XLSX, document(tables=tables))))
    found = ElementTree.fromstring(book.read("xl/workbook.xml")).findall(".//x:sheet", NS)
    return [sheet.attrib["name"] for sheet in found[1:]]  # the first: About


@pytest.mark.parametrize(
    ("titles", "shown"),
    [
        (("x" * 40, "X" * 40), ["x" * 31, f"{'X' * 29} 2"]),
        (("a" + "😀" * 40,) * 2, ["a" + "😀" * 15, "a" + "😀" * 14 + " 2"]),
        (("😀" * 40,) * 2, ["😀" * 15, "😀" * 14 + " 2"]),
        (("History", "HISTORY", " history:"), ["History 2", "HISTORY 3", "history 4"]),
        (("Historyx",), ["Historyx"]),
        (("x" * 30 + " yz", "About", "[:]"), ["x" * 30, "About 2", "Sheet"]),
        (
            ("x" * 40,) * 10,
            ["x" * 31, *(f"{'x' * 29} {n}" for n in range(2, 10)), f"{'x' * 28} 10"],
        ),
    ],
)
def test_a_sheet_has_a_name_that_excel_takes(titles: Sequence[str], shown: Sequence[str]) -> None:
    assert names(*titles) == shown


@given(st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn"))), max_size=4))
def test_any_title_is_the_name_of_a_sheet(titles: list[str]) -> None:
    found = names(*titles)
    assert len({name.lower() for name in found}) == len(titles)
    assert all(0 < len(name.encode("utf-16-le")) <= 62 for name in found)


@given(st.text())
def test_no_text_begins_a_formula(text: str) -> None:
    shown = neutral(text)
    assert not shown.startswith(FORMULA)
    assert shown in (text, f"'{text}")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", " =1", "＝1"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    it = document(row(text, Money(1, "USD", 2)))
    assert cells(it)[0][2] == f"'{text}"
    found = sheet(it)
    assert not found.findall(".//x:f", NS)


def test_times_and_numbers_are_what_they_are() -> None:
    it = document(row("x", Money(-1, "USD", 2)))
    assert cells(it)[0] == [
        *("entry", "2026-03-01T12:00:00.250Z", "x", "not-on-paper", "1234", "-0.01")
    ]
    values = [c.findtext("x:v", namespaces=NS) for c in sheet(it).findall(".//x:c", NS)[-6:]]
    assert values[4] == "1234"
    assert float(values[1] or "") == pytest.approx(46_082.5, abs=1e-4)


@pytest.mark.parametrize(
    ("count", "lines"), [(0, [1]), (3, [4]), (4, [4, 2]), (6, [4, 4]), (7, [4, 4, 2])]
)
def test_rows_go_on_on_another_sheet_where_one_is_full(
    monkeypatch: pytest.MonkeyPatch, count: int, lines: list[int]
) -> None:
    monkeypatch.setattr("rendering.sheet.SHEET", 4)
    it = document(*[row(f"row {n}", Money(n, "USD", 2)) for n in range(count)])
    book = zipfile.ZipFile(io.BytesIO(written(Format.XLSX, it)))
    sheets = sorted(name for name in book.namelist() if "/sheet" in name)[1:]  # the first: About
    trees = [ElementTree.fromstring(book.read(name)) for name in sheets]
    assert [len(tree.findall(".//{*}sheetData/{*}row")) for tree in trees] == lines
    texts = [found.text for tree in trees for found in tree.findall(".//{*}is/{*}t")]
    assert [text for text in texts if text and text.startswith("row")] == [
        f"row {n}" for n in range(count)
    ]


def test_a_page_has_its_heads_and_leaves_out_what_has_no_room() -> None:
    pages = paper(document(*(row(f"row {n}", Money(n, "USD", 2)) for n in range(120))))
    assert len(pages) > 2
    for number, text in enumerate(pages, 1):
        assert "Amount" in text
        assert f"Page {number}" in text
        assert "not-on-paper" not in text
    assert all(f"row {n}" in "\n".join(pages) for n in range(120))


def right_edge(page: pypdfium2.PdfPage) -> float:
    """Where the text ends that goes farthest to the right, points from the left."""
    text = page.get_textpage()
    return max(text.get_charbox(n)[2] for n in range(text.count_chars()))


@pytest.mark.parametrize(
    "title",
    ["W" * 140, "M" * 60, ("Deposits of the region north " * 9)[:140], ("Łódź nad " * 20)[:140]],
)
def test_a_long_title_stays_on_the_page(title: str) -> None:
    rows = [row(f"row {n}", Money(n, "USD", 2)) for n in range(120)]
    table = Table(title=title, columns=COLUMNS, rows=rows)
    chart = Bars(title=title, labels=("W1",), values=(5,), shown=("5.00",))
    it = document(title=title, issuer=title, chart=chart, tables=(table,))
    pdf = pypdfium2.PdfDocument(written(Format.PDF, it))
    edges = [right_edge(pdf[n]) for n in range(len(pdf))]
    assert len(edges) > 1
    assert max(edges) <= WIDTH - MARGIN + 0.5


@pytest.mark.parametrize(
    ("title", "lines"),
    [
        ("Deposits", ["Deposits"]),
        ("Deposits of the region north " * 3, None),
        ("W" * 140, ["W" * 37, "W" * 37, "W" * 37, "W" * 29]),
    ],
)
def test_a_long_title_is_whole_in_the_head(title: str, lines: list[str] | None) -> None:
    (page,) = paper(document(title=title, tables=()))
    found = page.split("Page 1")[0].replace("Streambank", "").split("\r\n")
    shown = [line.strip() for line in found if line.strip()]
    assert " ".join(shown) == title.strip() if lines is None else shown == lines


def test_other_letters_are_shown_as_well_as_can_be() -> None:
    (page,) = paper(document(row("Zoë €5 – Łódź 日", Money(1, "USD", 2))))
    assert "Zoë €5 – Łódz ?" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë Müller – Łódź", "Zoë Müller – Łódz"),
        ("Ćwiąkała, Đorđe", "Ćwiakała, Đorđe"),
        ("x\u0302 q\u0301\u0323 Ж", "x q ?"),  # no letter has these accents
    ],
)
def test_an_accent_is_shown_however_it_is_written(text: str, shown: str) -> None:
    """Macs write names of files so, and what is pasted from there: the accent after its letter."""
    for form in ("NFC", "NFD"):
        written_so = unicodedata.normalize(form, text)  # type: ignore[arg-type]
        (page,) = paper(document(row(written_so, Money(1, "USD", 2))))
        assert f"{shown} 1,234" in page, form


def test_a_chart_and_facts_stand_before_the_tables() -> None:
    chart = Bars(title="By week", labels=("W1", "W2"), values=(5, -3), shown=("5.00", "-3.00"))
    (page,) = paper(document(row("x", Money(1, "USD", 2)), facts=(("Of", "All"),), chart=chart))
    assert all(words in page for words in ("By week", "W1", "5.00", "-3.00", "Of", "All"))
    assert paper(document(chart=Bars(title="None", labels=(), values=(), shown=())))


def test_the_same_document_is_the_same_pdf() -> None:
    it = document(row("x", Money(1, "USD", 2)))
    assert written(Format.PDF, it) == written(Format.PDF, it)


LONG = """
import resource, sys, tempfile
from rendering import WRITERS, Column, Document, Format, Kind, Money, Table
columns = (Column(title="Note"), Column(title="Amount", kind=Kind.MONEY))
def rows(count):
    for n in range(count):
        yield (f"row {n}", Money(n, "USD", 2))
def write(count):
    table = Table(title="Rows", columns=columns, rows=rows(count))
    with tempfile.TemporaryFile() as file:
        WRITERS[Format(sys.argv[1])](Document(title="t", issuer="i", tables=(table,)), file)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
first = write(2_000)
print(write(40_000) - first)
"""


@pytest.mark.parametrize("kind", Format)
def test_memory_does_not_grow_with_the_rows(kind: Format) -> None:
    """MiB more for twenty times the rows."""
    done = subprocess.run(
        [sys.executable, "-c", LONG, kind], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 25

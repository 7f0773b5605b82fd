"""Files for people: one document, written as PDF, XLSX or CSV. Knows nothing of services.

    Document (title, facts, chart, tables of rows that are read once) --write--> file

Rows are taken one by one and never kept: what a file needs of memory does not grow with its rows,
save the few bytes that a PDF keeps of each page. Amounts are exact at each step: an integer of
minor units and the exponent of its currency.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import BinaryIO

from rendering.delimited import write_csv
from rendering.document import Bars, Column, Document, Kind, Money, Table, Value
from rendering.pdf import write_pdf
from rendering.sheet import write_xlsx

__all__ = [
    "MEDIA_TYPES",
    "WRITERS",
    "Bars",
    "Column",
    "Document",
    "Format",
    "Kind",
    "Money",
    "Table",
    "Value",
]


class Format(StrEnum):
    CSV = "csv"
    PDF = "pdf"
    XLSX = "xlsx"


MEDIA_TYPES: dict[Format, str] = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.PDF: "application/pdf",
    Format.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
WRITERS: dict[Format, Callable[[Document, BinaryIO], None]] = {
    Format.CSV: write_csv,
    Format.PDF: write_pdf,
    Format.XLSX: write_xlsx,
}

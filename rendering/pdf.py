"""PDF: A4, set line by line, so that a row is on its page before the next one is taken.

    head (first page) -- facts -- summary -- chart -- tables, their heads again on each page

Helvetica, which each reader has, for what it can write; the embedded Vera for other Latin text. Of a
letter that neither has the one without accent is shown, else a question mark.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from rendering.document import Kind, Money

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from rendering.document import Bars, Column, Document, Table, Value

WIDTH, HEIGHT = A4
MARGIN, TOP, BOTTOM = 18 * mm, 18 * mm, 20 * mm
ACROSS = WIDTH - 2 * MARGIN
ROW, GAP = 5.4 * mm, 3 * mm  # of a table: a line, and between columns
PLAIN, BOLD = "Helvetica", "Helvetica-Bold"
OTHER, OTHER_BOLD = "Vera", "VeraBd"
NARROW = 0.92  # of Vera, whose letters are larger at the same size
INK, PALE, SOFT = HexColor("#1F2A37"), HexColor("#667085"), HexColor("#EEF2F6")
RULE, ACCENT = HexColor("#D0D7DE"), HexColor("#0B6E99")
CHART = 48 * mm
TITLE_LINES = 4  # of a title that is too long for one
RIGHT = (Kind.MONEY, Kind.NUMBER)


def write_pdf(document: Document, file: BinaryIO) -> None:
    canvas = Canvas(file, pagesize=A4, pageCompression=1, invariant=1)
    canvas.setTitle(document.title)
    canvas.setAuthor(document.issuer)
    sheet = _Sheet(canvas, document)
    sheet.head()
    for table in document.summary:
        sheet.table(table)
    if document.chart is not None:
        sheet.bars(document.chart)
    for table in document.tables:
        sheet.table(table)
    sheet.end()
    canvas.save()


class _Sheet:
    """The page that is being set: `y` is where the next thing goes, from above."""

    def __init__(self, canvas: Canvas, document: Document) -> None:
        self.canvas, self.document = canvas, document
        self.page, self.y = 1, HEIGHT - TOP

    def head(self) -> None:
        document = self.document
        issuer = _cut(document.issuer, BOLD, 11, ACROSS)
        self._text(MARGIN, self.y - 4 * mm, issuer, BOLD, 11, ACCENT)
        self.y -= 15 * mm
        size = 20 if _width(document.title, BOLD, 20) <= ACROSS else 14
        first, *more = _wrapped(document.title, BOLD, size, ACROSS, TITLE_LINES)
        self._text(MARGIN, self.y, first, BOLD, size, INK)
        for line in more:
            self.y -= 6 * mm
            self._text(MARGIN, self.y, line, BOLD, size, INK)
        self.y -= 9 * mm
        for label, text in document.facts:
            self._room(ROW)
            self._text(MARGIN, self.y, label, PLAIN, 8.5, PALE)
            shown = _cut(text, PLAIN, 8.5, ACROSS - 34 * mm)
            self._text(MARGIN + 34 * mm, self.y, shown, PLAIN, 8.5, INK)
            self.y -= 4.8 * mm
        self.y -= 3 * mm

    def table(self, table: Table) -> None:
        """A table that keeps its title with its first rows."""
        columns = [column for column in table.columns if column.on_paper]
        places = _places(columns)
        self._room(4 * ROW)
        self.y -= 3 * mm
        if table.title:
            self._text(MARGIN, self.y, _cut(table.title, BOLD, 11, ACROSS), BOLD, 11, INK)
            self.y -= 7 * mm
        self._heads(columns, places)
        shown = [number for number, column in enumerate(table.columns) if column.on_paper]
        for row in table.rows:
            if self._room(ROW):
                self._heads(columns, places)
            strong = bool(row) and isinstance(row[0], str) and row[0] in table.strong
            self._row(columns, places, [row[number] for number in shown], strong)
        self.y -= 4 * mm

    def _heads(self, columns: Sequence[Column], places: Sequence[tuple[float, float]]) -> None:
        for column, (left, width) in zip(columns, places, strict=True):
            text = _cut(column.title, BOLD, 7.5, width)
            self._cell(left, width, text, column.kind in RIGHT, BOLD, 7.5, PALE)
        self._line(self.y - 1.9 * mm, 0.8, INK)
        self.y -= ROW + 0.6 * mm

    def _row(
        self,
        columns: Sequence[Column],
        places: Sequence[tuple[float, float]],
        row: Sequence[Value],
        strong: bool,
    ) -> None:
        font = BOLD if strong else PLAIN
        if strong:
            self.canvas.setFillColor(SOFT)
            bottom = self.y - 1.9 * mm
            self.canvas.rect(MARGIN, bottom, ACROSS, ROW, stroke=0, fill=1)
        for column, (left, width), value in zip(columns, places, row, strict=True):
            text, right = _shown(value), column.kind in RIGHT
            if right:  # half a number says something else: rather smaller than cut
                size = min(8.5, 8.5 * width / max(width, _width(text, font, 8.5)))
            else:
                text, size = _cut(text, font, 8.5, width), 8.5
            self._cell(left, width, text, right, font, size, INK)
        self._line(self.y - 1.9 * mm, 0.3, RULE)
        self.y -= ROW

    def bars(self, chart: Bars) -> None:
        """Bars from zero, up or down; each with its value, as far as there is room."""
        self._room(CHART + 3 * ROW)
        self.y -= 3 * mm
        self._text(MARGIN, self.y, _cut(chart.title, BOLD, 11, ACROSS), BOLD, 11, INK)
        self.y -= 8 * mm
        top, low = max(0, *chart.values, 0), min(0, *chart.values, 0)
        span, step = (top - low) or 1, ACROSS / max(1, len(chart.values))
        zero = self.y - CHART * top / span
        wide = min(step * 0.62, 18 * mm)
        for number, value in enumerate(chart.values):
            left = MARGIN + step * number + (step - wide) / 2
            height = CHART * value / span
            self.canvas.setFillColor(ACCENT)
            self.canvas.rect(left, min(zero, zero + height), wide, abs(height), stroke=0, fill=1)
            over = zero + height + (1.2 * mm if value >= 0 else -3.4 * mm)
            self._centred(left + wide / 2, over, chart.shown[number], step, INK)
            below = self.y - CHART - 8 * mm
            self._centred(left + wide / 2, below, chart.labels[number], step, PALE)
        self._line(zero, 0.6, INK)
        self.y -= CHART + 14 * mm

    def _centred(self, middle: float, y: float, text: str, room: float, colour: HexColor) -> None:
        short = _cut(text, PLAIN, 7, room)
        if short != text and room < 8 * mm:
            return  # half a number says something else
        self._text(middle - _width(short, PLAIN, 7) / 2, y, short, PLAIN, 7, colour)

    def end(self) -> None:
        """The foot of the last page."""
        self._foot()
        self.canvas.showPage()

    def _room(self, height: float) -> bool:
        """Begins a new page where there is no room for so much; True if so."""
        if self.y - height >= BOTTOM:
            return False
        self.end()
        self.page += 1
        self.y = HEIGHT - TOP
        title = _cut(self.document.title, BOLD, 8.5, ACROSS)
        self._text(MARGIN, self.y, title, BOLD, 8.5, PALE)
        self.y -= 10 * mm
        return True

    def _foot(self) -> None:
        self._line(BOTTOM - 5 * mm, 0.3, RULE)
        number = f"Page {self.page}"
        text = _cut(self.document.footer, PLAIN, 7, ACROSS - 25 * mm)
        self._text(MARGIN, BOTTOM - 9 * mm, text, PLAIN, 7, PALE)
        self._cell(WIDTH - MARGIN - 25 * mm, 25 * mm, number, True, PLAIN, 7, PALE, BOTTOM - 9 * mm)

    def _line(self, y: float, width: float, colour: HexColor) -> None:
        self.canvas.setStrokeColor(colour)
        self.canvas.setLineWidth(width)
        self.canvas.line(MARGIN, y, WIDTH - MARGIN, y)

    def _cell(
        self,
        left: float,
        width: float,
        text: str,
        right: bool,
        font: str,
        size: float,
        colour: HexColor,
        y: float | None = None,
    ) -> None:
        x = left + width - _width(text, font, size) if right else left
        self._text(x, self.y if y is None else y, text, font, size, colour)

    def _text(
        self, x: float, y: float, text: str, font: str, size: float, colour: HexColor
    ) -> None:
        face, written = _set(text, font)
        line = self.canvas.beginText(round(x, 2), round(y, 2))
        line.setFont(face, size if face == font else size * NARROW)
        line.setFillColor(colour)
        line.textOut(written)
        self.canvas.drawText(line)


def _places(columns: Sequence[Column]) -> list[tuple[float, float]]:
    """Left edge and width of each column."""
    share = (ACROSS - GAP * (len(columns) - 1)) / sum(one.width for one in columns)
    places, left = [], MARGIN
    for column in columns:
        places.append((left, column.width * share))
        left += column.width * share + GAP
    return places


def _shown(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, Money):
        return value.text(grouped=True)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:,}" if isinstance(value, int) else value


def _wrapped(text: str, font: str, size: float, room: float, most: int) -> list[str]:
    """The text in at most so many lines, parted between words where there are any."""
    lines: list[str] = []
    while len(lines) < most - 1 and _width(text, font, size) > room:
        fits = max(1, _fitting(text, "", font, size, room))
        end = text.rfind(" ", 1, fits + 1)
        end = fits if end < 0 else end
        lines.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*lines, _cut(text, font, size, room)]


def _cut(text: str, font: str, size: float, room: float) -> str:
    """As much of the text as there is room for; what is missing is three points."""
    if _width(text, font, size) <= room:
        return text
    return f"{text[: _fitting(text, '…', font, size, room)].rstrip()}…"


def _fitting(text: str, behind: str, font: str, size: float, room: float) -> int:
    """How many characters of a text that is too long have room, with `behind` behind them."""
    fits, misses = 0, len(text)
    while misses - fits > 1:
        middle = (fits + misses) // 2
        if _width(f"{text[:middle]}{behind}", font, size) <= room:
            fits = middle
        else:
            misses = middle
    return fits


@lru_cache(maxsize=4096)  # a column says the same again and again
def _width(text: str, font: str, size: float) -> float:
    face, written = _set(text, font)
    return float(pdfmetrics.stringWidth(written, face, size if face == font else size * NARROW))


@lru_cache(maxsize=4096)
def _set(text: str, font: str) -> tuple[str, str]:
    """The font that can write the text, and the text as that can."""
    text = unicodedata.normalize("NFC", text)  # fonts have é, not e and an accent to go over it
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        face = _other(font)
        glyphs = pdfmetrics.getFont(face).face.charToGlyph
        return face, "".join(sign if ord(sign) in glyphs else _like(sign, glyphs) for sign in text)
    return font, text


def _like(sign: str, glyphs: Container[int]) -> str:
    """The letter without its accent, where the font has that; an accent alone is nothing."""
    if unicodedata.combining(sign):
        return ""
    plain = unicodedata.normalize("NFKD", sign)[:1]
    return plain if plain != sign and plain and ord(plain) in glyphs else "?"


@lru_cache
def _other(font: str) -> str:
    face = OTHER_BOLD if font == BOLD else OTHER
    pdfmetrics.registerFont(TTFont(face, f"{face}.ttf"))
    return face

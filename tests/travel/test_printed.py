"""An answer as CSV: no text is run as a formula, numbers stay what they are."""

from __future__ import annotations

import csv
import io

import pytest

from rendering.delimited import FORMULA
from travel.printed import csv_text
from travel.sql import Limits, Result, run


def printed(result: Result) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_text(result), newline="")))


def test_numbers_are_numbers_and_texts_are_no_formulas() -> None:
    sql = """SELECT '=HYPERLINK("http://evil.example","pay")' AS s, -5 AS i, -1.10::DECIMAL(9, 2) AS d,
        -9223372036854775809::HUGEINT AS h, -0.5::DOUBLE AS f, '-5' AS t, [1] AS l, true AS b, NULL AS n"""
    head, row = printed(run(sql, None, Limits()))
    assert head == list("sidhftlbn")
    assert row == [
        '\'=HYPERLINK("http://evil.example","pay")', "-5", "-1.10", "-9223372036854775809",
        "-0.5", "'-5", "[1]", "true", "",
    ]  # fmt: skip


@pytest.mark.parametrize("sign", FORMULA)
def test_names_of_columns_are_texts_too(sign: str) -> None:
    result = Result(columns=[f"{sign}1"], types=["ENUM('HUGEINT')"], rows=[[sign]], truncated=False)
    for (cell,) in printed(result):
        assert cell.startswith("'")

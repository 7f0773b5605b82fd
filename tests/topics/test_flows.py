"""The page of flows says what the table and the deciders say."""

from __future__ import annotations

from pathlib import Path

from topics.flows import STORIES, document, told
from topics.subscriptions import SUBSCRIPTIONS

PAGE = Path(__file__).parents[2] / "docs" / "flows.md"


def test_the_page_is_true() -> None:
    assert PAGE.read_text() == document(), "run: python -m topics.flows > docs/flows.md"


def test_every_row_of_the_table_is_on_it() -> None:
    page = document()
    for row in SUBSCRIPTIONS:
        _, _, section = page.partition(f"### {row.topic}\n")
        assert f"| {row.event.__name__} |" in section.partition("### ")[0], row


def test_each_story_tells_its_client_one_end() -> None:
    for story in STORIES:
        ends = [one.message for one in told(story) if one.hearer == "client"]
        assert len(ends) == (0 if "up to the rail" in story.title else 1), story.title

"""The Chinese pages have the commands and the figures of the English ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in (DOCS / "tutorials").glob("from-*.md"))
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """The fenced blocks, with their languages."""
    return re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """What is between backticks and names a command or an option."""
    return sorted(re.findall(r"`((?:delineate |pip |--)[^`]*)`", text))


def tables(text: str) -> list[list[list[str]]]:
    """The rows of each table, as cells, without its head."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [[row.split(" | ") for row in table.splitlines()[2:]] for table in found]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_same_commands_and_figures_in_both_languages(name):
    english, chinese = read(DOCS / "tutorials" / name), read(DOCS / "zh" / name)
    assert blocks(english) == blocks(chinese)
    assert commands(english) == commands(chinese)
    ours, theirs = tables(english), tables(chinese)
    assert [len(table) for table in ours] == [len(table) for table in theirs]
    # The second column of the table of faults, the last one, has the figures.
    for (heading, effect, _), (_, translated, _) in zip(ours[-1], theirs[-1], strict=True):
        figures = sorted(NUMBER.findall(effect))
        assert figures == sorted(NUMBER.findall(translated)), heading


def test_the_quick_start_has_the_same_commands_in_both_languages():
    readme, chinese = read(DOCS.parent / "README.md"), read(DOCS / "zh" / "index.md")
    assert blocks(readme) == blocks(chinese)


def test_every_page_is_listed_and_in_chinese():
    index = read(DOCS / "zh" / "index.md")
    assert sorted(path.name for path in (DOCS / "zh").glob("from-*.md")) == PAGES
    for name in PAGES:
        assert f"]({name})" in index
        assert len(re.findall(r"[\u4e00-\u9fff]", read(DOCS / "zh" / name))) > 500

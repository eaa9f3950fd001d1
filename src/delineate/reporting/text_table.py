"""Tables for a terminal that fit a width: columns that do not fit continue in a further block, and
headings are broken at spaces. Nothing is cut. They are plain text: importing a library for tables
would take longer than segmenting a small scan.
"""

from __future__ import annotations

import itertools
import re
import textwrap
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

WIDTH = 100  # columns of text, if no other width is given
NAME_WIDTH = 30  # a longer name continues on the next line
_GAP = 2  # spaces before a column


@dataclass(frozen=True)
class Column:
    """A column of text: its heading, and one cell per row. A name is left-justified, and continues
    on the next line if it is longer than ``NAME_WIDTH``.
    """

    heading: str
    cells: tuple[str, ...]
    is_name: bool = False

    @property
    def lines(self) -> list[str]:
        """The heading, broken at spaces to the width of the cells if its words allow it."""
        longest = max(map(_width, (*self.cells, *self.heading.split())))
        return textwrap.wrap(self.heading, longest, break_long_words=False, break_on_hyphens=False)

    @property
    def width(self) -> int:
        widest = max(map(_width, (*self.lines, *self.cells)))
        return min(widest, NAME_WIDTH) if self.is_name else widest


def blocks(
    names: Sequence[Column],
    columns: Sequence[Column],
    width: int = WIDTH,
    sections: Collection[int] = (),
) -> list[str]:
    """The table as one or several blocks, each at most ``width`` columns of text.

    Args:
        names: the first columns, which every block repeats.
        columns: the others; one that is wider than a block has a block of its own.
        sections: the rows before which a line is left empty.
    """
    room = width - sum(one.width for one in names) - _GAP * (len(names) - 1)
    return [_block([*names, *some], sections) for some in _divided(columns, room)]


def wrapped(text: str, width: int = WIDTH) -> str:
    """Lines of words, each broken at spaces to at most ``width`` columns of text."""
    lines = (
        textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.splitlines()
    )
    return "\n".join(itertools.chain.from_iterable(lines))


def _divided(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """The columns in groups that fit."""
    group: list[Column] = []
    for column in columns:
        if group and sum(one.width + _GAP for one in (*group, column)) > room:
            yield group
            group = []
        group.append(column)
    yield group


def _block(columns: Sequence[Column], sections: Collection[int]) -> str:
    """The headings, a line, and the rows."""
    widths = [column.width for column in columns]
    highest = max(len(column.lines) for column in columns)
    headings = [[""] * (highest - len(column.lines)) + column.lines for column in columns]
    lines = [*_row(columns, headings)]
    lines.append("─" * (sum(widths) + _GAP * (len(widths) - 1)))
    for row in range(len(columns[0].cells)):
        if row in sections:
            lines.append("")
        lines += _row(columns, [_folded(one.cells[row], one.width) for one in columns])
    return "\n".join(line.rstrip() for line in lines)


def _row(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of one row, of which each cell has one or several."""
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        padded = []
        for column, part in zip(columns, parts, strict=True):
            space = " " * (column.width - _width(part))
            padded.append(part + space if column.is_name else space + part)
        yield (" " * _GAP).join(padded)


def _folded(text: str, width: int) -> list[str]:
    """A cell in lines of at most ``width``, broken at spaces, or elsewhere in a longer word."""
    lines, line = [], ""
    for word in re.findall(r"\S+\s*|\s+", text):
        if line and _width(line + word.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        for letter in word:
            if line and not letter.isspace() and _width(line + letter) > width:
                lines.append(line)
                line = ""
            line += letter
    return [*lines, line.rstrip()]


def _width(text: str) -> int:
    """Columns that a terminal shows: two of a wide East Asian letter, none of a combining one."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))

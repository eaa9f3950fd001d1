"""Tables for a terminal that fit a width: columns that do not fit continue in a further block, and
headings are broken at spaces. Nothing is cut.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

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
        longest = max(map(len, (*self.cells, *self.heading.split())))
        return textwrap.wrap(self.heading, longest, break_long_words=False, break_on_hyphens=False)

    @property
    def width(self) -> int:
        widest = max(map(len, (*self.lines, *self.cells)))
        return min(widest, NAME_WIDTH) if self.is_name else widest


def blocks(
    names: Sequence[Column],
    columns: Sequence[Column],
    width: int = WIDTH,
    sections: Collection[int] = (),
) -> list[Table]:
    """The table as one or several blocks, each at most ``width`` columns of text.

    Args:
        names: the first columns, which every block repeats.
        columns: the others; one that is wider than a block has a block of its own.
        sections: the rows before which a line is left empty.
    """
    room = width - sum(one.width for one in names) - _GAP * (len(names) - 1)
    return [_block([*names, *some], sections) for some in _divided(columns, room)]


def _divided(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """The columns in groups that fit."""
    group: list[Column] = []
    for column in columns:
        if group and sum(one.width + _GAP for one in (*group, column)) > room:
            yield group
            group = []
        group.append(column)
    yield group


def _block(columns: Sequence[Column], sections: Collection[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        shown.add_column(
            "\n".join(escape(line) for line in column.lines),
            width=column.width,
            justify="left" if column.is_name else "right",
            no_wrap=not column.is_name,
            overflow="fold",
        )
    for row in range(len(columns[0].cells)):
        if row in sections:
            shown.add_section()
        shown.add_row(*(escape(column.cells[row]) for column in columns))
    return shown

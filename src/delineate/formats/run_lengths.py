"""Read tables of run lengths, as competitions publish masks: a row for each structure, instance or
picture, with the picture's name and its runs ("start length start length ...").

Pixels are numbered from 1 down the columns ("columns"), or along the rows ("rows"); no table states
which. ``contiguity`` shows it where a picture is not square. Starts that fall somewhere are
distances from the end of the run before, counted from 0, in the whole table. An empty cell or -1
is an empty mask. The columns are found by their content and their headings.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..core.inputs import read_text

Numbering = Literal["columns", "rows"]
EXAMINED_BYTES = 1 << 16
LONGEST_CELL = 1 << 27  # letters of one cell; the csv module allows 131072
_RUNS = re.compile(r"\s*\d+\s+\d+(\s+\d+\s+\d+)*\s*")
_EMPTY = re.compile(r"(?i)\s*(-1|nan)?\s*")
_OF_RUNS = re.compile(r"rle|run|pixel|encod|segment|annotation|mask")
_OF_IMAGE = re.compile(r"(image|img|picture|slice|file)?[ _]?(id|name)?$|filename$")
_OF_CLASS = re.compile(r"(class|label|categor(y|ies)|structure|organ_?label)([ _]?(id|name))?$")
_OF_CLASS_TYPE = re.compile(r"(cell|lesion|tissue|defect)[ _]?type$")
_WIDTH, _HEIGHT = re.compile(r"(im(a)?ge?_)?width$"), re.compile(r"(im(a)?ge?_)?height$")
# Examples of the answers that a competition expects; their masks mean nothing.
_EXAMPLE = re.compile(r"(?i)submission")


@dataclass(frozen=True)
class Run:
    """A mask as its table has it.

    Args:
        picture: name of the picture.
        structure: what is marked, or "" if the table states none.
        text: the runs; "" for an empty mask.
        size: columns and rows of the picture, if the table states them.
    """

    picture: str
    structure: str
    text: str
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Columns:
    """The places of the columns; -1 for one that the table does not have."""

    picture: int
    runs: int
    structure: int = -1
    width: int = -1
    height: int = -1
    is_joined: bool = False  # the picture's column holds PICTURE_STRUCTURE


def may_hold(path: Path) -> bool:
    """Whether a file is a table of run lengths, from its heading and its first lines."""
    if path.suffix.lower() != ".csv" or _EXAMPLE.search(path.stem):
        return False
    try:
        with path.open("rb") as file:
            text = file.read(EXAMINED_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return False
    return _columns(_cells(text)) is not None


def load(path: str | Path) -> tuple[list[Run], bool]:
    """The rows of a table, and whether starts are distances from the end of the run before.

    Raises:
        ValueError: it is no table of run lengths, or the runs in a row are none.
        InputError: it cannot be read.
    """
    rows = _cells(read_text(path).removeprefix("\ufeff"))
    columns = _columns(rows)
    if columns is None:
        raise ValueError("no column has run lengths")
    found = []
    for row in rows[1:]:
        if len(row) <= max(columns.picture, columns.runs):
            raise ValueError(f"a row has {len(row)} columns, the heading {len(rows[0])}")
        found.append(_run(row, columns))
    return found, any(_falls(one.text) for one in found)


def mask_of(
    runs: str, size: tuple[int, int], numbering: Numbering, relative: bool
) -> NDArray[np.bool_]:
    """The mask (rows, columns) of a text of runs.

    >>> mask_of("1 2 5 1", (3, 2), "columns", False)
    array([[ True, False,  True],
           [ True, False, False]])

    Raises:
        ValueError: a run is outside the picture.
    """
    columns, rows = size
    out = np.zeros(columns * rows, bool)
    for start, stop in _bounds(runs, relative):
        if start < 0 or stop > len(out):
            raise ValueError(f"run {start}..{stop} in a picture of {len(out)} pixels")
        out[start:stop] = True
    if numbering == "rows":
        return out.reshape(rows, columns)
    return out.reshape(columns, rows).T


def contiguity(runs: str, length: int, relative: bool) -> float:
    """Share of the pixels whose neighbour in the next line is marked too, for lines of ``length``
    pixels. It is highest for the right length, because structures are compact; NaN without runs.
    """
    bounds = _bounds(runs, relative)
    total = int((bounds[:, 1] - bounds[:, 0]).sum())
    if not total:
        return float("nan")
    # Marked pixels below each place, and so the marked pixels in each moved run.
    edges = bounds.ravel()
    below = np.concatenate([[0], np.cumsum(np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0))])
    moved = np.interp(bounds + length, edges, below)
    return float((moved[:, 1] - moved[:, 0]).sum() / total)


def _cells(text: str) -> list[list[str]]:
    lines = text.splitlines()
    delimiter = next((d for d in "\t;" if lines and d in lines[0]), ",")
    before = csv.field_size_limit(LONGEST_CELL)  # of the whole process
    try:
        return [row for row in csv.reader(lines, delimiter=delimiter) if row]
    finally:
        csv.field_size_limit(before)


def _columns(rows: Sequence[Sequence[str]]) -> _Columns | None:
    """The columns of a table of run lengths; None for any other table."""
    if len(rows) < 2:
        return None
    heads = [re.sub(r"\s+", " ", cell.strip().lower()) for cell in rows[0]]
    full = [row for row in rows[1:] if len(row) == len(heads)]
    of_runs = [
        n
        for n, head in enumerate(heads)
        if _OF_RUNS.search(head) and any(_RUNS.fullmatch(row[n]) for row in full)
    ]
    joined = _place(heads, lambda head: _is_class(re.split(r"[_ ](?=[a-z]+$)", head)[-1]))
    picture = _place(heads, lambda head: bool(head and _OF_IMAGE.match(head)))
    if len(of_runs) != 1 or max(joined, picture) < 0:
        return None
    if picture < 0:
        return _Columns(joined, of_runs[0], is_joined=True)
    return _Columns(
        picture,
        of_runs[0],
        _place(heads, _is_class),
        _place(heads, lambda head: bool(_WIDTH.match(head))),
        _place(heads, lambda head: bool(_HEIGHT.match(head))),
    )


def _is_class(head: str) -> bool:
    return bool(_OF_CLASS.match(head) or _OF_CLASS_TYPE.match(head))


def _place(heads: Sequence[str], fits: Callable[[str], bool]) -> int:
    """The first column whose heading fits; -1 if none does."""
    return next((n for n, head in enumerate(heads) if fits(head)), -1)


def _run(row: Sequence[str], columns: _Columns) -> Run:
    picture, text = row[columns.picture].strip(), row[columns.runs].strip()
    if _EMPTY.fullmatch(text):
        text = ""
    elif not _RUNS.fullmatch(text):
        raise ValueError(f"the runs of {picture} are {text[:40]!r}, not pairs of numbers")
    structure = row[columns.structure].strip() if columns.structure >= 0 else ""
    if columns.is_joined:
        picture, _, structure = picture.rpartition("_")
    size = None
    if columns.width >= 0 and columns.height >= 0:
        size = int(row[columns.width]), int(row[columns.height])
    structure = f"class {structure}" if structure.isdigit() else structure.replace("_", " ")
    return Run(picture, structure, text, size)


def _numbers(runs: str) -> NDArray[np.int64]:
    """(runs, 2): start and length."""
    return np.array(runs.split(), np.int64).reshape(-1, 2)


def _falls(runs: str) -> bool:
    """Whether a run starts before the end of the one before it."""
    numbers = _numbers(runs)
    return bool((numbers[1:, 0] < numbers[:-1].sum(axis=1)).any())


def _bounds(runs: str, relative: bool) -> NDArray[np.int64]:
    """(runs, 2): the first pixel of each run and the one behind its last, from 0."""
    numbers = _numbers(runs)
    if relative:
        return np.cumsum(numbers.ravel()).reshape(-1, 2)
    return np.stack([numbers[:, 0] - 1, numbers.sum(axis=1) - 1], axis=1)


__all__ = ["Numbering", "Run", "contiguity", "load", "mask_of", "may_hold"]

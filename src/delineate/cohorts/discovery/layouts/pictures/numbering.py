"""Whether the pixels of a table of run lengths are numbered down the columns or along the rows.

No table states it. In the right numbering structures are compact, which shows in pictures that are
not square; in square ones both are compact, but only the right masks end at edges of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .....core.errors import DelineateError
from .....extend.findings import Draft
from .....formats import files
from .....formats.outlines import Picture
from .....formats.run_lengths import Numbering, contiguity, mask_of

EXAMINED = 40  # pictures with a mask
LARGEST = 1 << 24  # pixels of a picture whose edges are looked at
SURE = 3.0  # mean of the differences, in standard errors
FEWEST = 5  # pictures whose edges are compared
COMPACT = 0.1  # by how much more of a mask must continue in the next line


def numbering_in(
    table: Path, entries: Sequence[tuple[Path, Picture]], found: Mapping[int, Path], draft: Draft
) -> Numbering:
    """How the pixels of one table are numbered; down the columns, with a warning, if its masks and
    pictures do not show it.

    Args:
        table: the file.
        entries: all pictures of all files.
        found: number of an entry -> its picture on disk.
        draft: gets a note, or the warning.
    """
    marked = [
        (path, entries[number][1])
        for number, path in found.items()
        if entries[number][0] == table and entries[number][1].shapes
    ]
    sample = marked[:: max(1, len(marked) // EXAMINED)][:EXAMINED]
    sizes = {path: size for path, _ in sample if (size := _size(path))}
    known = [(path, one) for path, one in sample if path in sizes]
    # Lines of pixels have the length of a column, or of a row.
    shapes = [(one, sizes[path]) for path, one in known if sizes[path][0] != sizes[path][1]]
    leaning = float(np.nanmean([_compactness(*one) for one in shapes])) if shapes else 0.0
    if abs(leaning) < COMPACT:
        small = [(path, one) for path, one in known if np.prod(sizes[path]) <= LARGEST]
        leaning = _sure_mean([_edges(path, one, sizes[path]) for path, one in small])
    if not leaning:
        draft.problem(
            "",
            "numbering",
            f"{table.name}: the masks do not show whether pixels are numbered down the columns or "
            "along the rows; columns are assumed, so compare some masks with their pictures",
            "warning",
        )
        return "columns"
    numbering: Numbering = "columns" if leaning > 0 else "rows"
    draft.note(
        "numbering",
        f"{table.name}: pixels are numbered along the {numbering}, as the masks and pictures show",
    )
    return numbering


def _size(path: Path) -> tuple[int, int] | None:
    """Columns and rows; None if the picture cannot be read, which is reported with its case."""
    try:
        shape = files.read_grid(str(path)).shape
    except DelineateError:
        return None
    return shape[0], shape[1]


def _compactness(picture: Picture, size: tuple[int, int]) -> float:
    """By how much more compact the masks are if numbered down the columns."""
    columns, rows = size
    differences = [
        contiguity(one.runs, rows, one.relative) - contiguity(one.runs, columns, one.relative)
        for one in picture.shapes
    ]
    return float(np.mean(differences))


def _edges(path: Path, picture: Picture, size: tuple[int, int]) -> float:
    """By how much stronger the edges of the picture are at the borders of the masks if numbered
    down the columns, in shares of both.
    """
    try:
        array = files.read(str(path)).array
    except DelineateError:
        return 0.0
    # (rows, columns), the mean of all colours.
    plane = (array if array.ndim == 3 else array.mean(axis=0))[..., 0].T.astype(np.float64)
    strengths = []
    numberings: Iterable[Numbering] = ("columns", "rows")
    for numbering in numberings:
        mask = np.zeros(plane.shape, bool)
        try:
            for one in picture.shapes:
                mask |= mask_of(one.runs, size, numbering, one.relative)
        except ValueError:
            return 0.0
        strengths.append(_edge_at_border(plane, mask))
    total = sum(strengths)
    return (strengths[0] - strengths[1]) / total if total else 0.0


def _edge_at_border(plane: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Mean difference of neighbours of which one is in the mask."""
    differences = [np.abs(np.diff(plane, axis=axis))[np.diff(mask, axis=axis)] for axis in (0, 1)]
    every = np.concatenate(differences)
    return float(every.mean()) if every.size else 0.0


def _sure_mean(values: Sequence[float]) -> float:
    """The mean; 0 if it is not clearly different from 0."""
    if len(values) < FEWEST:
        return 0.0
    mean, error = float(np.mean(values)), float(np.std(values)) / np.sqrt(len(values))
    return mean if abs(mean) > SURE * error else 0.0

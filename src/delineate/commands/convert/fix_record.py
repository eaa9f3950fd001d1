"""The record of a series with uneven gaps that was made even: a JSON file next to the image, or to
the labels, that were made of it. ``formats.dicom.fix`` makes series even; nothing is decided here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import OutputError
from ...core.grid import Grid
from ...core.inputs import read_json
from ...core.volume import Volume
from ...formats.files import stem
from ..options import ConvertOptions


def record_path(target: Path) -> Path:
    """The record of a file or folder: ``NAME.json`` next to it."""
    return target.with_name(f"{stem(target)}.json")


def fix_record(
    volume: Volume, target: Path, grid: Grid, options: ConvertOptions
) -> dict[Path, dict[str, Any]]:
    """The record of one file that is made of a volume: {path: content}; {} if its series was even.

    Args:
        volume: as read, with ``meta["fixed"]`` if its series was made even.
        target: the file, or a folder of slices.
        grid: of what is written.
        options: of the conversion.

    Returns:
        The content has the keys file, source, series, part, fix_series, notes, interpolated_slices
        (counted from 0) and axis (of the file, along which these are counted).

    Raises:
        OutputError: another record exists.
    """
    if not (fixed := volume.meta.get("fixed")):
        return {}
    axis, slices = _slices(volume, grid)
    facts: dict[str, Any] = {
        "file": target.name,
        "source": volume.source,
        "series": volume.meta.get("series", ""),
        "part": volume.meta.get("part", ""),
        "fix_series": options.fix_series,
        "notes": [fixed],
        "interpolated_slices": slices,
        "axis": axis,
    }
    path = record_path(target)
    if path.exists() and not options.overwrite and read_json(path) != facts:
        raise OutputError("exists already; --overwrite replaces it", path=path)
    return {path: facts}


def _slices(volume: Volume, grid: Grid) -> tuple[int, list[int]]:
    """The axis of a grid along which the slices of a volume follow each other, and the interpolated
    ones that it has.
    """
    missing = volume.meta.get("interpolated_slices", [])
    places = np.array([(0, 0, k) for k in (0, 1, *missing)], float)
    index = grid.to_index(volume.grid.to_mm(places))
    axis = int(np.argmax(np.abs(index[1] - index[0])))
    inside = [round(float(k)) for k in index[2:, axis]]
    return axis, sorted(k for k in inside if 0 <= k < grid.shape[axis])

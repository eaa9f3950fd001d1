"""convert and info: one image or DICOM folder from one format to another, and what stands at a path.

Conversion keeps every voxel where it is and every value as it is: nothing is resampled. ``orientation`` only transposes and flips the axes.
It knows no labels and no models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DelineateError, FormatError, OutputError
from ..core.manifest import Source
from ..formats import dicom, files

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Converted:
    """What was written, and what was refused: (title of the series, reason)."""

    written: tuple[Path, ...]
    refused: tuple[tuple[str, str], ...] = ()


def convert(
    input: str | Path,
    output: str | Path,
    *,
    spacing_mm: Sequence[float] | None = None,
    orientation: str | None = None,
    series: str | None = None,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> Converted:
    """Write ``input`` (a file, a DICOM folder, a folder of slices) as ``output``, whose ending names the format.

    An ``output`` without an ending is a folder: a DICOM folder of several series gives one ``.nii.gz`` a series there,
    and series that cannot be read are refused with their reason while the others are written; any other input gives PNG slices.

    Args:
        spacing_mm: stated (column, row, slice) spacing of pictures that carry none.
        orientation: three letters such as "RAS"; the axes are permuted and flipped, voxels stay where they are.
        series: the one series of a DICOM folder to convert.
        overwrite: False refuses to replace what exists.

    Raises:
        InputError: the input cannot be read; with several series only where none can.
        OutputError: the output exists and ``overwrite`` is False, or it cannot be written.
    """
    many = _many(input, output, series)
    if many:
        return _convert_series(many, Path(output), orientation, overwrite, progress, str(input))
    _refuse_existing(Path(output), overwrite)
    source = Source(str(input), series=series or "", spacing_mm=tuple(spacing_mm or ()))
    volume = files.read(source)
    files.write(volume.reorient(orientation) if orientation else volume, output)
    written = sorted(Path(output).glob("slice_*.png")) if Path(output).is_dir() else [Path(output)]
    return Converted(tuple(written))


def info(path: str | Path) -> dict[str, Any]:
    """What is at ``path``: format, shape, spacing, orientation, dtype, unit; for a DICOM folder its series and other objects.

    Raises:
        InputError: nothing here that can be read.
    """
    return files.describe(path)


def _many(source: str | Path, output: str | Path, series: str | None) -> list[dicom.Series]:
    """The series of a DICOM folder that go to a folder of files each; empty where one volume goes to one place."""
    if series or "." in Path(output).name or not Path(source).is_dir():
        return []
    found, others = dicom.find(source)
    damaged = [path for path, what in others if what == dicom.DAMAGED]
    if damaged:
        raise FormatError("a damaged or truncated DICOM file, which may be a slice of any series here", path=damaged[0])
    return found


def _convert_series(
    many: Sequence[dicom.Series], folder: Path, orientation: str | None, overwrite: bool, progress: Progress | None, source: str
) -> Converted:
    written: list[Path] = []
    refused: list[tuple[str, str]] = []
    for one in many:
        target = folder / f"{_name(one, many)}.nii.gz"
        if progress:
            progress(one.title)
        try:
            volume = dicom.read_series(one)
        except DelineateError as error:
            refused.append((one.title, error.message))
            continue
        _refuse_existing(target, overwrite)
        files.write(volume.reorient(orientation) if orientation else volume, target)
        written.append(target)
    if not written:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in refused)
        raise FormatError(f"none of {len(many)} series can be converted: {reasons}", path=source)
    return Converted(tuple(written), tuple(refused))


def _name(one: dicom.Series, all_series: Sequence[dicom.Series]) -> str:
    """A file name a person recognises: number, modality, description; with the end of the uid where that is not unique."""

    def plain(series: dicom.Series) -> str:
        words = "_".join(word for word in (series.number, series.modality, series.description) if word)
        return re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower() or "series"

    twins = [s for s in all_series if plain(s) == plain(one)]
    return plain(one) if len(twins) == 1 else f"{plain(one)}_{one.uid.replace('.', '_')}"


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if not overwrite and path.exists():
        raise OutputError("exists already; say overwrite to replace it", path=path)

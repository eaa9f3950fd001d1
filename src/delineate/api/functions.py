"""Functions of the Python interface that need no model: reading and writing."""

from __future__ import annotations

from pathlib import Path

from ..core import volume as core
from ..formats import files
from .volume import ImageLike, Volume


def read(image: ImageLike, *, spacing_mm: tuple[float, float, float] | None = None) -> Volume:
    """Read a scan or a mask.

    Args:
        image: a file, a DICOM folder or a folder of slices (see ``formats.files.read``); or an
            image of nibabel or SimpleITK, or a pair (array, affine).
        spacing_mm: (column, row, slice) spacing of pictures, which store none.

    Raises:
        InputError: the file cannot be read. UsageError: ``image`` is something else.

    >>> read(([[[0.0]]], [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])).spacing_mm
    (2.0, 2.0, 2.0)
    """
    if spacing_mm is not None:
        return Volume.of(files.read(Path(image), spacing_mm=spacing_mm))
    return Volume.of(image)


def write(volume: core.Volume, path: str | Path) -> None:
    """Write a volume; the ending of the name gives the format.

    Raises:
        OutputError: an unknown ending, or the file cannot be written.
    """
    files.write(volume, path)

"""Masks as DICOM structure sets: the part of ``convert`` that writes NAME.rtstruct.dcm."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ... import __version__
from ...core.errors import OutputError, UsageError
from ...core.labels import LabelSet, as_whole_numbers, unique_values
from ...core.manifest import Source
from ...core.volume import Volume
from ...formats import dicom, files, label_files
from ...formats.dicom.rtstruct import write_rtstruct

ENDING = ".rtstruct.dcm"

__all__ = ["ENDING", "masks_to_structure_set"]


def masks_to_structure_set(
    masks: Path,
    series: str | Path | None,
    target: Path,
    uid: str = "",
    overwrite: bool = False,
    smallest_mm2: float = 0.0,
) -> tuple[str, ...]:
    """Write the structures of a label file as contours on the slices of a DICOM series.

    Args:
        masks: a label file that ``label_files`` reads, on the grid of the series.
        series: a folder with the series, or one of its files.
        target: the new file.
        uid: SeriesInstanceUID, or UID/PART, if the folder has several series.
        overwrite: replace another file at ``target``.
        smallest_mm2: contours of a smaller area are left out, with a note.

    Returns:
        Notes, one sentence each.

    Raises:
        UsageError: no series is given. InputError: the masks or the series cannot be read, or are
            not on one grid. OutputError: another file is there, or no structure has a voxel.
    """
    if series is None:
        raise UsageError(f"{target} needs --like FOLDER: the DICOM series that the mask belongs to")
    scan = dicom.choose(files.place_of(series), uid)
    # Labels in DICOM are put on the series; masks have to be on it.
    like = f"{dicom.place_of(scan)}#{scan.id}" if label_files.dicom_labels_in(masks) else ""
    volume = label_files.as_codes(label_files.read_label_file(Source(str(masks), like=like)))
    with tempfile.TemporaryDirectory() as folder:
        place = target
        if target.exists() and not overwrite:
            # The same content gives the same bytes.
            place = Path(folder) / target.name
        notes = write_rtstruct(
            *(volume, _labels(volume), scan, place),
            algorithm_name="",
            algorithm_version=__version__,
            smallest_mm2=smallest_mm2,
        )
        if place != target and place.read_bytes() != target.read_bytes():
            raise OutputError("exists already; --overwrite replaces it", path=target)
    return tuple(notes)


def _labels(volume: Volume) -> LabelSet:
    """The structures that the file names, else one for each value."""
    stated = label_files.labels_of(volume.with_unit("label"))
    if stated is not None:
        return stated
    values = unique_values(as_whole_numbers(volume.array, volume.source or None))
    return LabelSet.from_names({value: f"label {value}" for value in values if value})

"""Masks as DICOM objects: what ``convert`` writes as NAME.seg.dcm and NAME.rtstruct.dcm."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ... import __version__
from ...core.errors import OutputError, UsageError
from ...core.labels import LabelSet, as_whole_numbers, unique_values
from ...core.manifest import Source
from ...core.volume import Volume
from ...extras import require_extra
from ...formats import dicom, files, label_files
from ...formats.dicom.rtstruct import write_rtstruct
from ...formats.dicom.seg import write_seg
from ..options import ConvertOptions

SEG, RTSTRUCT = ENDINGS = (".seg.dcm", ".rtstruct.dcm")

__all__ = ["ENDINGS", "RTSTRUCT", "SEG", "masks_to_object"]


def masks_to_object(masks: Path, target: Path, options: ConvertOptions) -> tuple[str, ...]:
    """Write the structures of a label file as segments or contours on the slices of a DICOM series.

    Args:
        masks: a label file that ``label_files`` reads, on the grid of the series.
        target: the new file, with one of ``ENDINGS``.
        options: the series is ``like``, a folder, FOLDER#SERIES_UID or a file of the series, and
            ``series`` if the folder has several.

    Returns:
        Notes, one sentence each.

    Raises:
        UsageError: no series is given, or the type cannot hold structures that overlap.
        InputError: the masks or the series cannot be read, or are not on one grid.
        OutputError: another file is there, or no structure has a voxel.
    """
    if options.like is None:
        raise UsageError(f"{target} needs --like FOLDER: the DICOM series that the mask belongs to")
    place, uid = files.place_and_series(options.like)
    if uid and options.series and uid != options.series:
        raise UsageError(f"--like names the series {uid}, and --series {options.series}; give one")
    scan = dicom.choose(place, uid or options.series or "")
    # Labels in DICOM are put on the series; masks have to be on it.
    like = f"{dicom.place_of(scan)}#{scan.id}" if label_files.dicom_labels_in(masks) else ""
    volume = label_files.as_codes(label_files.read_label_file(Source(str(masks), like=like)))
    with tempfile.TemporaryDirectory() as folder:
        made_in = target
        if target.exists() and not options.overwrite:
            # The same content gives the same bytes.
            made_in = Path(folder) / target.name
        given = volume, _labels(volume), scan, made_in
        made: dict[str, Any] = {"algorithm_name": "", "algorithm_version": __version__}
        if target.name.lower().endswith(SEG):
            require_extra("dicom", target.name)
            notes = write_seg(*given, **made, encoding=options.seg_encoding)
        else:
            notes = write_rtstruct(*given, **made, smallest_mm2=options.smallest_mm2)
        if made_in != target and made_in.read_bytes() != target.read_bytes():
            raise OutputError("exists already; --overwrite replaces it", path=target)
    return tuple(notes)


def _labels(volume: Volume) -> LabelSet:
    """The structures that the file names, else one for each value."""
    stated = label_files.labels_of(volume.with_unit("label"))
    if stated is not None:
        return stated
    values = unique_values(as_whole_numbers(volume.array, volume.source or None))
    return LabelSet.from_names({value: f"label {value}" for value in values if value})

"""DICOMDIR: the index of a medium (PS3.3, F.3). It is compared with the files and proves nothing
else: all files of the folder are read, whether it names them or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from .. import archive
from ..disk import told
from .header.file import Series, open_dataset

MISSING = "named by DICOMDIR, but missing"


def compared(
    series: Sequence[Series], indexes: Sequence[Path]
) -> tuple[list[Series], list[tuple[Path, str]]]:
    """Compare the files of all series with the files that ``indexes`` name.

    Returns:
        The series, with a note about files that are missing; and the missing files of series of
        which no file is there, each with ``MISSING``.
    """
    there = {plane.instance for one in series for plane in one.planes}
    lost: dict[str, list[Path]] = {}
    for index in indexes:
        try:
            with told(index, "DICOMDIR"):
                for path, uid, instance in _named_in(index):
                    if instance not in there and not archive.is_file(path):
                        lost.setdefault(uid, []).append(path)
        except FormatError:
            continue  # a damaged index costs nothing: the files speak for themselves
    known = {one.uid for one in series}
    noted = [
        replace(one, notes=(*one.notes, _note(lost[one.uid]))) if one.uid in lost else one
        for one in series
    ]
    return noted, [(path, MISSING) for uid in lost.keys() - known for path in lost[uid]]


def _note(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"DICOMDIR names files of this series that are missing: {paths[0].name}{more}"


def _named_in(index: Path) -> Iterator[tuple[Path, str, str]]:
    """Path, SeriesInstanceUID and SOPInstanceUID of the images that a DICOMDIR names."""
    dataset = open_dataset(index)
    # The tree is stored as a list; records refer to the next one and to the first below by offsets.
    records = {record.seq_item_tell: record for record in dataset.DirectoryRecordSequence}
    first = int(dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity)
    waiting, seen = [(first, "")], set()
    while waiting:
        at, uid = waiting.pop()
        record = records.get(at)
        if record is None or at in seen:
            continue
        seen.add(at)
        waiting.append((int(record.OffsetOfTheNextDirectoryRecord), uid))
        below = str(record.get("SeriesInstanceUID", "")) or uid
        waiting.append((int(record.OffsetOfReferencedLowerLevelDirectoryEntity), below))
        if record.DirectoryRecordType == "IMAGE" and (parts := _parts(record)):
            yield index.parent.joinpath(*parts), uid, str(record.ReferencedSOPInstanceUIDInFile)


def _parts(record: Any) -> list[str]:
    """The components of a ReferencedFileID; [] if it leads out of the folder."""
    value = record.get("ReferencedFileID") or []
    parts = [value] if isinstance(value, str) else [str(one) for one in value]
    return [] if any(one in ("", ".", "..") or "/" in one for one in parts) else parts

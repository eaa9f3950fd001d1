"""Real DICOM series to NIfTI, to DICOM and to NIfTI again: the number of series whose voxels or
places differ, of those that are refused, and of those that dciodvfy finds errors in.

    python benchmarks/written_images.py [--dciodvfy PROGRAM]

Each series is written twice: with the patient and axes of the first one, and without.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delineate.core.errors import DelineateError
from delineate.core.volume import Volume
from delineate.formats import dicom, files
from delineate.formats.dicom.images import write_images
from measure import DATA, keep

FOLDERS = ("dicom/*", "sarcoma/dicom/*", "hippocampus_dicom")
MOST_MM = 1e-4
MOST_VOXELS = 3e6


def volumes() -> Iterator[tuple[dicom.Series, Volume]]:
    """The series of the data that are one volume of intensities."""
    for pattern in FOLDERS:
        for folder in sorted(DATA.glob(pattern)):
            for series in dicom.find_series(folder):
                if not dicom.problem_of(series):
                    volume = dicom.read_series(series)
                    if volume.array.ndim == 3 and volume.array.size < MOST_VOXELS:
                        yield series, volume


def outcome(first: Volume, folder: Path, like: dicom.Series | None, validator: str) -> str:
    """Write, read and compare a volume."""
    try:
        done = write_images(first, folder / "s", like=like)
    except DelineateError as error:
        return f"refused: {error.message}"
    files.write(files.read(folder / "s"), folder / "b.nii.gz")
    second = files.read(folder / "b.nii.gz")
    if like is None:  # its axes are those of radiologists
        second = second.reorient(first.grid.codes)
    if second.grid.distance_mm(first.grid) > MOST_MM:
        return "other place"
    is_scaled = any("scaled" in note for note in done.notes)
    if not is_scaled and not np.array_equal(first.array, second.array):
        return "other voxels"
    if validator:
        said = subprocess.run([validator, done.paths[0]], capture_output=True, text=True)
        if "Error" in said.stdout + said.stderr:
            return "not valid"
    return "scaled to 16 bits" if is_scaled else "equal"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dciodvfy", default="")
    a = parser.parse_args()
    found: dict[str, Counter[str]] = {"with --like": Counter(), "without": Counter()}
    for series, volume in volumes():
        with tempfile.TemporaryDirectory() as temporary:
            files.write(volume, Path(temporary) / "a.nii.gz")
            first = files.read(Path(temporary) / "a.nii.gz")
            for (way, counts), like in zip(found.items(), (series, None), strict=True):
                folder = Path(temporary) / way
                counts[outcome(first, folder, like, a.dciodvfy)] += 1
    keep("written_images", {way: dict(counts) for way, counts in found.items()})


if __name__ == "__main__":
    main()

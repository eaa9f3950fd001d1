"""Real series that were changed as archives and people change them: read as before, divided, or
refused with the name of a file; never read in silence as something else.
"""

from __future__ import annotations

import copy
import random
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from delineate.core.errors import DelineateError
from delineate.core.volume import Volume
from delineate.formats import dicom, files

SERIES = (
    "hippocampus_dicom",
    "dicom/vendors/hitachi/anatomical",
    "dicom/vendors/ge/anatomical",
    "dicom/vendors/philips/anatomical",
    "dicom/vendors/siemens/anatomical",
    "dicom/vendors/generic/anatomical",
    "dicom/vendors/anatomical",
    "sarcoma/dicom/STS_008/PET/image",
    "sarcoma/dicom/STS_019/MR_T1/image",
    "chaos_ct/DICOM_anon",
)
MOST = 12  # slices of a long series
Slices = list[Any]


@dataclass(frozen=True)
class Series:
    """A folder with a real series, its files, and what is read from it."""

    folder: Path
    slices: Slices
    volume: Volume

    @classmethod
    def of(cls, source: Path, folder: Path) -> Series:
        # Folders of vendors hold several series.
        largest = max(
            (one for one in dicom.find_series(source) if not dicom.problem_of(one)),
            key=lambda one: len(one.planes),
        )
        slices = sorted(map(pydicom.dcmread, largest.files), key=_height)[:MOST]
        for one in slices:
            one.PatientID = one.get("PatientID") or "somebody"
            one.FrameOfReferenceUID = one.get("FrameOfReferenceUID") or "1.2.3"
        return cls(folder, slices, written(folder / "plain", slices))

    @property
    def middle(self) -> int:
        return len(self.slices) // 2


def _height(one: Any) -> float:
    across, down = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
    return float(np.array(one.ImagePositionPatient, float) @ np.cross(across, down))


def save(folder: Path, slices: Slices, names: Sequence[str] = ()) -> Path:
    folder.mkdir(parents=True)
    for n, one in enumerate(slices):
        name = names[n] if names else f"{n:03d}.dcm"
        one.save_as(folder / name, enforce_file_format=False)
    return folder


def written(folder: Path, slices: Slices, names: Sequence[str] = ()) -> Volume:
    return files.read(save(folder, slices, names))


def is_same(found: Volume, expected: Volume) -> bool:
    return found.grid.matches(expected.grid, 1e-6) and np.array_equal(found.array, expected.array)


def changed(series: Series, at: int, **values: Any) -> Slices:
    """The slices, one of them with other attributes."""
    slices = [copy.deepcopy(one) if n == at else one for n, one in enumerate(series.slices)]
    for name, value in values.items():
        setattr(slices[at], name, value)
    return slices


def new(one: Any, **values: Any) -> Any:
    """Another instance with its own UID."""
    found = copy.deepcopy(one)
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name, value in values.items():
        setattr(found, name, value)
    return found


# ---- changes that must not matter ----


def shuffled_and_renamed(series: Series) -> None:
    slices = random.Random(0).sample(series.slices, len(series.slices))
    names = [f"IM{number}" for number in random.Random(1).sample(range(9999), len(slices))]
    assert is_same(written(series.folder / "shuffled", slices, names), series.volume)


def copied(series: Series) -> None:
    found = written(series.folder / "copied", [*series.slices, series.slices[1]])
    assert is_same(found, series.volume)
    assert any("exact copy" in note for note in found.meta["notes"])


def zipped(series: Series) -> None:
    target = series.folder / "series.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted((series.folder / "plain").iterdir()):
            archive.write(path, f"a/{path.name}")
    assert is_same(files.read(target), series.volume)


# ---- changes of one slice ----


def refused_or_divided(series: Series, name: str, slices: Slices) -> None:
    """No volume of the folder has all slices; if one is read alone, a note or a part names it."""
    folder = save(series.folder / name, slices)
    found = dicom.find_series(folder)
    usable = [one for one in found if not dicom.problem_of(one)]
    assert all(len(one.planes) < len(slices) for one in usable)
    if len(usable) == 1 and len(found) == 1:
        assert usable[0].notes
    elif not usable:
        with pytest.raises(DelineateError, match=r"\.dcm|different|gaps"):
            files.read(folder)
    else:
        assert len({one.id for one in found}) == len(found)


def dropped(series: Series) -> None:
    slices = [one for n, one in enumerate(series.slices) if n != series.middle]
    with pytest.raises(DelineateError, match=r"uneven gaps.*\.dcm and .*\.dcm"):
        written(series.folder / "dropped", slices)


def foreign(series: Series) -> None:
    other = new(series.slices[series.middle])
    other.Rows, other.Columns = 2, 3
    other.PixelData = bytes(2 * 3 * other.BitsAllocated // 8)
    refused_or_divided(series, "foreign", [*series.slices, other])


def another_frame_of_reference(series: Series) -> None:
    slices = changed(series, series.middle, FrameOfReferenceUID=generate_uid())
    refused_or_divided(series, "frame", slices)


def another_patient(series: Series) -> None:
    refused_or_divided(series, "patient", changed(series, series.middle, PatientID="someone else"))


def palette(series: Series) -> None:
    slices = changed(series, series.middle, PhotometricInterpretation="PALETTE COLOR")
    refused_or_divided(series, "palette", slices)


def same_uid_other_pixels(series: Series) -> None:
    other = copy.deepcopy(series.slices[series.middle])
    pixels = np.frombuffer(other.PixelData, np.uint8).copy()
    pixels[:64] ^= 1
    other.PixelData = pixels.tobytes()
    with pytest.raises(DelineateError, match=r"same SOPInstanceUID and differ"):
        written(series.folder / "clash", [*series.slices, other])


def truncated(series: Series) -> None:
    folder = save(series.folder / "truncated", series.slices)
    path = folder / f"{series.middle:03d}.dcm"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DelineateError, match=path.name):
        files.read(folder)


# ---- changes of all slices ----


def tilted(series: Series) -> None:
    slices = [copy.deepcopy(one) for one in series.slices]
    for n, one in enumerate(slices):
        position = np.array(one.ImagePositionPatient, float)
        position += 0.3 * n * np.array(one.ImageOrientationPatient[3:], float)
        one.ImagePositionPatient = [f"{value:.6f}" for value in position]
    found = written(series.folder / "tilted", slices)
    assert np.array_equal(found.array, series.volume.array)
    moved = found.grid.affine[:3, 2] - series.volume.grid.affine[:3, 2]
    down = np.array(slices[0].ImageOrientationPatient[3:], float) * (-1, -1, 1)
    np.testing.assert_allclose(moved, 0.3 * down, atol=1e-4)
    assert any("off the normal" in note for note in found.meta["notes"])


def two_echoes(series: Series) -> None:
    slices = changed(series, 0)
    for one in slices:
        one.EchoNumbers = 1
    folder = save(series.folder / "echoes", [*slices, *(new(s, EchoNumbers=2) for s in slices)])
    with pytest.raises(DelineateError, match=r"echo1.*echo2|choose one"):
        files.read(folder)
    found = dicom.find_series(folder)
    assert len(found) == 2
    assert all(is_same(dicom.read_series(one), series.volume) for one in found)


CHANGES: tuple[Callable[[Series], None], ...] = (
    shuffled_and_renamed,
    copied,
    zipped,
    dropped,
    foreign,
    another_frame_of_reference,
    another_patient,
    palette,
    same_uid_other_pixels,
    truncated,
    tilted,
    two_echoes,
)


@pytest.mark.parametrize(
    "name",
    [
        name if n in (1, 7) else pytest.param(name, marks=pytest.mark.rounds)
        for n, name in enumerate(SERIES)
    ],
)
def test_a_changed_series_is_never_read_in_silence(tmp_path, real_data, name):
    series = Series.of(real_data / name, tmp_path)
    for change in CHANGES:
        try:
            change(series)
        except (AssertionError, pytest.fail.Exception) as error:
            raise AssertionError(f"{change.__name__}: {error}") from error
    shutil.rmtree(tmp_path)

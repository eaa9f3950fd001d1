"""Multi-frame objects whose frames are not placed by ImagePositionPatient of functional groups:
nuclear medicine (vectors and a detector) and ultrasound volumes.
"""

from __future__ import annotations

import numpy as np
import pytest
from objects import MEASURES, UPRIGHT, at, enhanced, image, item, write

from delineate.formats import dicom, files

NM, US = "1.2.840.10008.5.1.4.1.1.20", "6.2"
# Rows towards the feet: the normal points to the front, at right angles to the default.
CORONAL = [1, 0, 0, 0, 0, -1]


def frames(count):
    """``count`` frames of 2 rows and 3 columns, each of the value of its number, from 1."""
    return np.ones((1, 2, 3), np.uint16) * np.arange(1, count + 1, dtype=np.uint16)[:, None, None]


def nuclear(count, kind="RECON TOMO", orientation=UPRIGHT, **fields):
    detector = item(ImagePositionPatient=[-10, -20, 30], ImageOrientationPatient=orientation)
    own = {
        "ImageType": ["ORIGINAL", "PRIMARY", kind, "EMISSION"],
        "PixelSpacing": [5, 4],
        "SpacingBetweenSlices": "3",
        "SliceThickness": "7",
        "DetectorInformationSequence": [detector],
        "SliceVector": list(range(1, count + 1)),
    }
    merged = {k: v for k, v in (own | fields).items() if v is not None}
    return image(frames(count), sop_class=NM, modality="NM", **merged)


def found(folder, one):
    """Part -> (affine, the value of each slice) or why it is refused."""
    write(folder, one)
    return {
        series.part: dicom.problem_of(series) or _read(series)
        for series in dicom.find_series(folder)
    }


def _read(series):
    volume = dicom.read_series(series)
    return volume.affine.tolist(), volume.array[0, 0].tolist()


def test_a_reconstruction_lies_along_the_normal_of_its_detector(tmp_path):
    affine = [[-4, 0, 0, 10], [0, -5, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    assert found(tmp_path / "a", nuclear(4)) == {"": (affine, [1, 2, 3, 4])}
    # A negative spacing goes against the normal, and the vector orders the frames.
    one = nuclear(4, SpacingBetweenSlices="-3", SliceVector=[2, 1, 4, 3])
    affine[2][3] = 21
    assert found(tmp_path / "b", one) == {"": (affine, [3, 4, 1, 2])}
    one = nuclear(2, orientation=CORONAL, SliceVector=None)
    affine = [[-4, 0, 0, 10], [0, 0, -3, 20], [0, -5, 0, 30], [0, 0, 0, 1]]
    assert found(tmp_path / "c", one) == {"": (affine, [1, 2])}


def test_time_slots_and_energy_windows_are_volumes(tmp_path):
    slots = {"SliceVector": [1, 2, 3] * 2, "TimeSlotVector": [1] * 3 + [2] * 3}
    parts = found(tmp_path / "a", nuclear(6, "RECON GATED TOMO", **slots))
    assert {part: values for part, (_, values) in parts.items()} == {
        "t001": [1, 2, 3],
        "t002": [4, 5, 6],
    }
    windows = {"SliceVector": [1, 1, 2, 2, 3, 3], "EnergyWindowVector": [1, 2] * 3}
    parts = found(tmp_path / "b", nuclear(6, **windows))
    assert sorted(values for _, values in parts.values()) == [[1, 3, 5], [2, 4, 6]]


def test_projections_are_2_d_images(tmp_path):
    # The detector of a whole-body view has a place, and its pixels have none.
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": CORONAL}
    for kind in ("STATIC", "WHOLE BODY", "DYNAMIC", "TOMO"):
        one = nuclear(2, kind, SliceVector=None, SpacingBetweenSlices=None, **place)
        parts = found(tmp_path / kind, one)
        assert {part: values for part, (_, values) in parts.items()} == {
            "frame1": [1],
            "frame2": [2],
        }
        (series, _) = dicom.find_series(tmp_path / kind)
        volume = dicom.read_series(series)
        assert volume.spacing_mm == (4, 5, 1) and not volume.meta["place_known"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"DetectorInformationSequence": None}, "ImagePositionPatient is missing in the detector"),
        ({"SpacingBetweenSlices": None}, "without SpacingBetweenSlices"),
        ({"SliceVector": [1, 2]}, "3 frames, but SliceVector has 2 values"),
        ({"SliceVector": None, "TimeSlotVector": [1, 2, 3]}, "3 frames without SliceVector"),
        ({"ImagePositionPatient": [1, 2, 3]}, "the detector has one ImagePositionPatient"),
        ({"SliceVector": [1, 2, 4]}, "uneven gaps"),
    ],
)
def test_reconstructions_without_a_place_are_refused(tmp_path, fields, why):
    assert why in found(tmp_path, nuclear(3, **fields))[""]


def test_an_ultrasound_volume_has_positions_of_its_own(tmp_path):
    each = [
        {"PlanePositionVolumeSequence": item(ImagePositionVolume=[-1, -2, 3 + 2 * k])}
        for k in range(3)
    ]
    shared = MEASURES | {"PlaneOrientationVolumeSequence": item(ImageOrientationVolume=UPRIGHT)}
    write(tmp_path / "a", enhanced(frames(3), each, shared, kind=US, modality="US"))
    volume = files.read(tmp_path / "a")
    assert volume.affine.tolist() == [[-2, 0, 0, 1], [0, -1.5, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]]
    assert volume.array[0, 0].tolist() == [1, 2, 3]
    # They are not those of the patient.
    assert not volume.meta["place_known"] and "ImagePositionVolume" in volume.meta["notes"][0]
    both = [one | at(0, 0, 2 * k) for k, one in enumerate(each)]
    placed = shared | {"PlaneOrientationSequence": item(ImageOrientationPatient=UPRIGHT)}
    write(tmp_path / "b", enhanced(frames(3), both, placed, kind=US, modality="US"))
    volume = files.read(tmp_path / "b")
    assert volume.meta["place_known"] and volume.affine[:3, 3].tolist() == [0, 0, 0]

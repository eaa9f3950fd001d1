"""SUV by body weight: cases computed by hand by the rules of QIBA, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
from objects import ct, pet, write
from tests.calls import run

from delineate.core.errors import FormatError
from delineate.formats import files
from delineate.formats.dicom.values.suv import factor_of


def private(one, group_creator, tag, vr, value):
    one.add_new((tag & 0xFFFF0000) | (tag & 0xFFFF) >> 8, "LO", group_creator)
    one.add_new(tag, vr, value)
    return one


def test_one_half_life_after_the_administration(tmp_path):
    # 70000 g / 175 MBq = 0.0004: 5000 Bq/ml are 2 g/ml.
    write(tmp_path / "pet", pet(), pet(1, RescaleSlope="50"))
    volume = files.read(tmp_path / "pet", unit="suv")
    assert volume.unit == "SUV"
    np.testing.assert_allclose(volume.array[:, 0].T, [[2, 4], [1, 2]], rtol=1e-6)
    assert files.read(tmp_path / "pet").array[:, 0].T.tolist() == [[5000, 10000], [2500, 5000]]
    code, _ = run("convert", tmp_path / "pet", tmp_path / "suv.nii.gz", "--unit", "suv")
    assert code == 0
    np.testing.assert_allclose(files.read(tmp_path / "suv.nii.gz").array.max(), 4, rtol=1e-6)
    code, text = run("convert", tmp_path / "pet", tmp_path / "x.nii.gz", "--unit", "sul")
    assert (code, '--unit is "suv"' in text) == (2, True)


@pytest.mark.parametrize(
    ("headers", "factor"),
    [
        # Corrected to the administration: 70000 / 350e6.
        ([pet(DecayCorrection="ADMIN")], 0.0002),
        # ... of one gate of several, without any time.
        ([pet(DecayCorrection="ADMIN", SeriesType=["GATED", "IMAGE"], SeriesTime=None)], 0.0002),
        # Over midnight: 23:30:00 to 01:19:48.
        (
            [
                pet(
                    dose={"RadiopharmaceuticalStartTime": "233000"},
                    SeriesTime="011948",
                    AcquisitionTime="012000",
                )
            ],
            0.0004,
        ),
        # Two half lives by date and time: 3 h 39 min 36 s before 11:49:48 is 08:10:12.
        (
            [
                pet(
                    dose={
                        "RadiopharmaceuticalStartTime": None,
                        "RadiopharmaceuticalStartDateTime": "20240102081012.00",
                    }
                )
            ],
            0.0008,
        ),
        # ... by clocks of different zones: 23:10:12 of the day before in UTC.
        (
            [
                pet(
                    TimezoneOffsetFromUTC="+0900",
                    dose={
                        "RadiopharmaceuticalStartTime": None,
                        "RadiopharmaceuticalStartDateTime": "20240101231012+0000",
                    },
                )
            ],
            0.0008,
        ),
        # The series was made an hour later: the earliest acquisition counts.
        ([pet(1, SeriesTime="130000", AcquisitionTime="120000"), pet(SeriesTime="130000")], 0.0004),
        # ... or the private scan time of GE.
        (
            [
                private(
                    pet(SeriesTime="130000", AcquisitionTime="115500"),
                    "GEMS_PETD_01",
                    0x0009100D,
                    "DT",
                    "20240102114948.00",
                )
            ],
            0.0004,
        ),
        # ... or the moment of the average count rate (30.0079 s in a frame of 60 s, as the count
        # rate falls by 0.63 %) less FrameReferenceTime, 630.0079 s after the start.
        (
            [
                pet(
                    SeriesTime="130000",
                    AcquisitionTime="115948",
                    ActualFrameDuration="60000",
                    FrameReferenceTime="630007.9",
                )
            ],
            0.0004,
        ),
        ([pet(Units="GML", CorrectedImage=None)], 1.0),
        # Counts: 0.5 g/ml for one, or 1250 Bq/ml for one: 1250 * 0.0004.
        ([private(pet(Units="CNTS"), "Philips PET Private Group", 0x70531000, "DS", "0.5")], 0.5),
        ([private(pet(Units="CNTS"), "Philips PET Private Group", 0x70531009, "DS", "1250")], 0.5),
    ],
)
def test_factors_by_hand(headers, factor):
    assert factor_of(headers) == pytest.approx(factor, rel=2e-5)


def test_average_count_rate_in_a_long_frame():
    # A frame of one half life: 1/lambda * ln(ln 2 / 0.5) = 3104.5 s; start 11:49:48 + 0.
    one = pet(SeriesTime="130000", ActualFrameDuration="6588000", FrameReferenceTime="3104530")
    assert factor_of([one]) == pytest.approx(0.0004, rel=1e-5)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([pet(Modality="CT")], "this is CT"),
        ([pet(Units="PROPCNTS")], "Units are PROPCNTS"),
        ([pet(Units="GML", SUVType="LBM")], "SUVType LBM"),
        ([pet(Units="CNTS")], "no private factor of Philips"),
        ([pet(CorrectedImage=["ATTN"])], "has no DECY"),
        ([pet(CorrectedImage=None)], "has no ATTN and no DECY"),
        ([pet(DecayCorrection="NONE")], "DecayCorrection is NONE"),
        ([pet(DecayCorrection=None)], "DecayCorrection is missing"),
        ([pet(), pet(1, DecayCorrection="ADMIN")], "DecayCorrection is ADMIN and START"),
        ([pet(PatientWeight=None)], "PatientWeight is missing"),
        ([pet(PatientWeight="0")], "PatientWeight is 0"),
        ([pet(PatientWeight="70000")], "PatientWeight is 70000, which is not in kg"),
        ([pet(), pet(1, PatientWeight="71")], "PatientWeight is 70 and 71 in one series"),
        ([pet(), pet(1, dose={"RadionuclideTotalDose": "3e8"})], "RadionuclideTotalDose is 3"),
        ([pet(RadiopharmaceuticalInformationSequence=None)], "0 radiopharmaceuticals"),
        ([pet(dose={"RadionuclideTotalDose": None})], "RadionuclideTotalDose is missing"),
        ([pet(dose={"RadionuclideTotalDose": "350"})], "350, which is not in Bq"),
        ([pet(dose={"RadionuclideHalfLife": None})], "RadionuclideHalfLife is missing"),
        ([pet(dose={"RadiopharmaceuticalStartTime": None})], "StartTime is missing"),
        # After the scan, by clocks that differ: a day before would be 13 half lives.
        (
            [pet(dose={"RadiopharmaceuticalStartTime": "115500"})],
            "is after the scan, without a date",
        ),
        ([pet(AcquisitionTime=None)], "AcquisitionTime is missing"),
        ([pet(AcquisitionTime="later")], "AcquisitionTime cannot be read"),
        ([pet(dose={"RadionuclideHalfLife": "280000"})], "the day of the administration is needed"),
        (
            [pet(dose={"RadiopharmaceuticalStartDateTime": "20240102101500"})],
            "StartTime and RadiopharmaceuticalStartDateTime differ",
        ),
        (
            [pet(dose={"RadiopharmaceuticalStartDateTime": "20240103100000"})],
            "-79812 s from the administration to the scan",
        ),
    ],
)
def test_refused(headers, reason):
    with pytest.raises(FormatError, match=reason):
        factor_of(headers)


def test_private_factors_of_philips_that_contradict_dose_and_weight():
    one = private(pet(Units="CNTS"), "Philips PET Private Group", 0x70531009, "DS", "1250")
    one.add_new(0x70531000, "DS", "0.6")
    with pytest.raises(FormatError, match=r"of Philips is 0\.6, dose, weight and times give 0\.5"):
        factor_of([one])


def test_suv_of_something_else_is_refused(tmp_path):
    write(tmp_path / "ct", ct(np.ones((2, 2), np.int16)))
    with pytest.raises(FormatError, match="SUV needs a PET series"):
        files.read(tmp_path / "ct", unit="suv")

"""Series as scanners of many vendors write them: which volumes they become.

Each table is made of slices that are shuffled and of names that say nothing. A slice has the number
of its volume times 10 plus its place as the value, so that no mixture is missed.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from objects import UPRIGHT, at, ct, enhanced, item

from delineate.formats import dicom

K = range(4)
SAGITTAL, CORONAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]


def kind(*words):
    return {"ImageType": ["ORIGINAL", "PRIMARY", *words]}


def private(*elements):
    """Private elements (tag, VR, value) with the creator of their block."""
    return {"private": elements}


def ge(tag, vr, value):
    return private((0x00430010, "LO", "GEMS_PARM_01"), (tag, vr, value))


def siemens(b):
    return private((0x00190010, "LO", "SIEMENS MR HEADER"), (0x0019100C, "IS", b))


def uih(b, direction):
    block = (0x00650010, "LO", "Image Private Header")
    return private(block, (0x00651009, "FD", b), (0x00651037, "FD", direction))


def philips(b):
    return private((0x20010010, "LO", "Philips Imaging DD 001"), (0x20011003, "FL", b))


def dwi(b, *direction):
    more = {"DiffusionGradientOrientation": list(direction)} if direction else {}
    return {"DiffusionBValue": float(b)} | more


def series(*volumes, count=4, **each):
    """Slices of volumes with these fields; ``each`` has fields as functions of volume and slice."""
    made = []
    for v, fields in enumerate(volumes):
        for k in range(count):
            stated = {"Modality": "MR", "InstanceNumber": count * v + k + 1} | fields
            stated |= {name: of(v, k) for name, of in each.items()}
            elements = stated.pop("private", ())
            one = ct(np.full((2, 3), 10 * v + k, np.int16), k, **stated)
            for tag, vr, value in elements:
                one.add_new(tag, vr, value)
            made.append(one)
    return made


def clock(minute, second=0):
    return f"12{minute:02d}{second:02d}"


PLAIN = [{}] * 3
TIMES = {"t001": 0, "t002": 1, "t003": 2}
CASES = {
    # Diffusion.
    "GE: b-values with an offset, images reconstructed in another order": (
        series(
            *(ge(0x00431039, "IS", [b, 8, 0, 0]) for b in (0, 0, 1000001000, 1000001000)),
            ContentTime=lambda v, k: clock(50 - v, 10 - k),
            AcquisitionTime=lambda v, k: clock(0),
        ),
        {"b0_t001": 0, "b0_t002": 1, "b1000_t001": 2, "b1000_t002": 3},
    ),
    "Philips: directions, a trace and an ADC map": (
        series(
            *(kind("M_SE", "M", "SE") | one for one in (dwi(0), dwi(900, 1, 0, 0), dwi(900))),
            {"ImageType": ["DERIVED", "PRIMARY", "ADC"]} | dwi(0),
        ),
        {
            "original_m_se_m_se_b0": 0,
            "original_m_se_m_se_b900_dir02": 1,
            "original_m_se_m_se_b900_no_dir": 2,
            "derived_adc": 3,
        },
    ),
    "Philips: older b-values": (series(philips(0.0), philips(700.0)), {"b0": 0, "b700": 1}),
    "Siemens: trace images and an ADC map": (
        series(
            kind("TRACEW") | siemens(50), kind("TRACEW") | siemens(800), kind("ADC") | siemens(0)
        ),
        {"tracew_b50": 0, "tracew_b800": 1, "adc": 2},
    ),
    "United Imaging": (
        series(uih(0.0, [0.0] * 3), uih(500.0, [1.0, 0.0, 0.0]), uih(500.0, [0.0, 1.0, 0.0])),
        {"b0": 0, "b500_dir01": 2, "b500_dir02": 1},
    ),
    "b = 0 between the directions": (
        series(dwi(0), dwi(1000, 1, 0, 0), dwi(0), dwi(1000, 0, 1, 0), dwi(0)),
        {"b0_t001": 0, "b0_t002": 2, "b0_t003": 4, "b1000_dir01": 3, "b1000_dir02": 1},
    ),
    # Complex images, echoes, water and fat.
    "GE: a field map of four images, slice by slice": (
        series(
            *(ge(0x0043102F, "SS", n) for n in range(4)), InstanceNumber=lambda v, k: 4 * k + v + 1
        ),
        {"magnitude": 0, "phase": 1, "real": 2, "imaginary": 3},
    ),
    "Philips: real and imaginary in time": (
        series(
            *(
                kind(f"{part}_FFE", part, "FFE") | {"TemporalPositionIdentifier": time}
                for time in (1, 2)
                for part in "RI"
            )
        ),
        {"real_t001": 0, "imaginary_t001": 1, "real_t002": 2, "imaginary_t002": 3},
    ),
    "Siemens: a field map of two magnitudes and one phase": (
        series(
            kind("M", "ND") | {"EchoNumbers": 1},
            kind("M", "ND") | {"EchoNumbers": 2},
            kind("P", "ND") | {"EchoNumbers": 2},
        ),
        {"magnitude_echo1": 0, "magnitude_echo2": 1, "phase": 2},
    ),
    "Dixon": (
        series(*(kind("DIXON", word) for word in ("WATER", "FAT", "IN_PHASE", "OUT_PHASE"))),
        {"water": 0, "fat": 1, "in_phase": 2, "out_phase": 3},
    ),
    "echoes of one EchoNumbers": (
        series(*({"EchoNumbers": 1, "EchoTime": te} for te in (2.5, 5.0))),
        {"te2.5": 0, "te5": 1},
    ),
    "susceptibility: magnitude, phase and a projection of neither": (
        series(kind("M"), kind("P"), {"ImageType": ["DERIVED", "PRIMARY", "MNIP"]}),
        {"magnitude": 0, "phase": 1, "plain": 2},
    ),
    # Time.
    "cardiac: trigger times that differ from slice to slice": (
        series(*PLAIN, TriggerTime=lambda v, k: 30.0 * v + 0.7 * k),
        TIMES,
    ),
    "contrast: times that differ from slice to slice": (
        series(
            *PLAIN,
            AcquisitionTime=lambda v, k: clock(v, k),
            InstanceNumber=lambda v, k: 3 * k + v + 1,
        ),
        TIMES,
    ),
    "a table that moves to and fro": (
        series(
            *PLAIN,
            AcquisitionTime=lambda v, k: clock(v, k if v % 2 else 3 - k),
            InstanceNumber=lambda v, k: 4 * v + (k if v % 2 else 3 - k) + 1,
        ),
        TIMES,
    ),
    "perfusion by acquisition": (
        series(*({"AcquisitionNumber": n, "Modality": "CT"} for n in (3, 4))),
        {"acq3": 0, "acq4": 1},
    ),
    "gated PET without times": (
        series(
            *PLAIN,
            Modality=lambda v, k: "PT",
            FrameReferenceTime=lambda v, k: 1000.0,
            ContentTime=lambda v, k: clock(0, (17 * v + 5 * k) % 60),
        ),
        TIMES,
    ),
    "dynamic PET": (
        series(
            *PLAIN,
            Modality=lambda v, k: "PT",
            FrameReferenceTime=lambda v, k: 1000.0 * 2**v,
        ),
        TIMES,
    ),
    "4-D CT with phases in a comment": (
        series(
            *({"Modality": "CT", "ImageComments": f"{phase} %"} for phase in (0, 50)),
            InstanceNumber=lambda v, k: k + 1,
        ),
        {"comment01": 0, "comment02": 1},
    ),
    "4-D CT with phases of breathing": (
        series(
            *({"NominalPercentageOfRespiratoryPhase": float(phase)} for phase in (0, 50)),
            InstanceNumber=lambda v, k: k + 1,
        ),
        {"resp0": 0, "resp50": 1},
    ),
    "two series numbers under one UID": (
        series({"SeriesNumber": 2}, {"SeriesNumber": 3}, InstanceNumber=lambda v, k: k + 1),
        {"series2": 0, "series3": 1},
    ),
}


def parts(folder, objects):
    """Part -> the first voxel of each slice; nothing is refused."""
    random.Random(5).shuffle(objects)
    for n, one in enumerate(objects):
        one.save_as(folder / f"{n:03d}.dcm", enforce_file_format=True)
    found, others = dicom.find(folder)
    assert others == [] and not any(map(dicom.problem_of, found))
    return {one.part: dicom.read_series(one).array[0, 0].tolist() for one in found}


@pytest.mark.parametrize("name", CASES)
def test_volumes(tmp_path, name):
    objects, expected = CASES[name]
    wanted = {part: [10 * volume + k for k in K] for part, volume in expected.items()}
    assert parts(tmp_path, list(objects)) == wanted


def test_stations_of_one_stack_that_overlap(tmp_path):
    """Three stations of four slices, of which neighbours share one position."""
    objects = series(
        *({"AcquisitionNumber": n} for n in (1, 2, 3)),
        ImagePositionPatient=lambda v, k: [0, 0, 7.5 * v + 2.5 * k],
    )
    expected = {f"acq{v + 1}": [10 * v + k for k in K] for v in range(3)}
    assert parts(tmp_path, objects) == expected


def test_planes_of_a_scout_that_does_not_say_so(tmp_path):
    planes = {"axial": UPRIGHT, "sagittal": SAGITTAL, "coronal": CORONAL}
    objects = series(
        *({"ImageOrientationPatient": plane} for plane in planes.values()),
        count=3,
        ImagePositionPatient=lambda v, k: [10 * k * (v == n) for n in (1, 2, 0)],
    )
    assert parts(tmp_path, objects) == {
        "axial": [0, 1, 2],
        "sagittal": [12, 11, 10],  # along the normal, which points to the right
        "coronal": [20, 21, 22],
    }


def test_one_enhanced_object_for_each_point_in_time(tmp_path):
    """Software XA writes a functional series so, with one TemporalPositionIndex."""
    objects = []
    for v in range(3):
        each = []
        for k in K:
            content = item(
                TemporalPositionIndex=1,
                FrameAcquisitionNumber=1,
                FrameAcquisitionDateTime=f"20260101{clock(v, k)}",
            )
            each.append(at(0, 0, 2 * k) | {"FrameContentSequence": content})
        pixels = np.array([np.full((2, 2), 10 * v + k, np.uint16) for k in K])
        objects.append(enhanced(pixels, each, kind="4.1", modality="MR", InstanceNumber=v + 1))
    expected = {f"t{v + 1:03d}": [10 * v + k for k in K] for v in range(3)}
    assert parts(tmp_path, objects) == expected

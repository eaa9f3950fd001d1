"""Enhanced multi-frame objects: each frame is where its functional groups put it, with its own
values; what contradicts itself is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
from objects import MEASURES, PLANE, UPRIGHT, at, enhanced, item, rescale, write

from delineate.formats import dicom, files

# 4 frames of 2 rows and 3 columns; frame n has the values 10 n to 10 n + 5.
FRAMES = (
    np.arange(6, dtype=np.uint16).reshape(2, 3) + 10 * np.arange(4, dtype=np.uint16)[:, None, None]
)
STACK = [at(-1, -2, 3 + 4 * k) for k in range(4)]
# RAS+ by hand: columns 2 mm apart, rows 1.5 mm, slices 4 mm.
AFFINE = [[-2, 0, 0, 1], [0, -1.5, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]]


def read(folder, *objects):
    write(folder, *objects)
    return files.read(folder)


def parts(folder, *objects):
    """Part -> the first voxel of each slice."""
    write(folder, *objects)
    found = dicom.find_series(folder)
    return {one.part: dicom.read_series(one).array[0, 0].tolist() for one in found}


def problem(folder, *objects):
    write(folder, *objects)
    (one,) = dicom.find_series(folder)
    return dicom.problem_of(one)


def frames(count):
    """``count`` frames of 1 row and 2 columns, all of the value of their number."""
    return np.arange(count, dtype=np.uint16)[:, None, None] * np.ones((1, 1, 2), np.uint16)


def test_enhanced_ct_with_a_rescale_of_each_frame(tmp_path):
    scales = [rescale(1 + k, -1024, "HU") for k in range(4)]
    order = [2, 0, 3, 1]  # frames need not be in the order of their positions
    each = [STACK[k] | scales[k] for k in order]
    volume = read(tmp_path, enhanced(FRAMES[order], each))
    assert volume.affine.tolist() == AFFINE
    assert volume.array.dtype == np.int16 and volume.unit == "HU"
    expected = [FRAMES[k].astype(int) * (1 + k) - 1024 for k in range(4)]
    assert volume.array.transpose(2, 1, 0).tolist() == np.array(expected).tolist()


def test_groups_and_positions_that_are_stated_twice_are_refused(tmp_path):
    one = enhanced(FRAMES, STACK)
    one.SharedFunctionalGroupsSequence = [*one.SharedFunctionalGroupsSequence, item(**MEASURES)]
    assert problem(tmp_path / "a", one) == "functional groups that frames share 2 times"
    places = [item(ImagePositionPatient=[0, 0, mm]) for mm in (0, 5)]
    each = [*STACK[:3], {"PlanePositionSequence": places}]
    why = "frame 4 states several ImagePositionPatient"
    assert problem(tmp_path / "b", enhanced(FRAMES, each)) == why


def test_what_the_file_states_otherwise_than_its_frames_is_noted(tmp_path):
    each = [one | rescale(2, -1024, "HU") for one in STACK]
    notes = []
    for n, fields in enumerate(
        (
            {"RescaleSlope": 2, "RescaleIntercept": -1024},
            {"RescaleSlope": 1, "PixelSpacing": [1, 1]},
        )
    ):
        volume = read(tmp_path / str(n), enhanced(FRAMES, each, **fields))
        assert volume.array[0, 0].tolist() == [-1024, -1004, -984, -964]
        assert volume.affine.tolist() == AFFINE
        notes.append(volume.meta.get("notes"))
    assert notes == [
        None,
        [
            "its frames state another RescaleSlope and another RescaleIntercept and another "
            "PixelSpacing than the whole file; those of the frames are used"
        ],
    ]


def test_fractions_of_one_frame_make_floating_point_values(tmp_path):
    each = [one | rescale(0.25 if k == 2 else 1, 0) for k, one in enumerate(STACK)]
    volume = read(tmp_path, enhanced(FRAMES, each))
    assert volume.array.dtype == np.float32
    assert volume.array[:, 0, 2].tolist() == [5, 5.25, 5.5]
    assert volume.array[:, 0, 3].tolist() == [30, 31, 32]


@pytest.mark.parametrize(
    ("kind", "modality"),
    [
        ("2.1", "CT"),
        ("2.2", "CT"),
        ("4.1", "MR"),
        ("4.4", "MR"),
        ("130", "PT"),
        ("128.1", "PT"),
        ("13.1.1", "XA"),
        ("13.1.2", "DX"),
        ("13.1.3", "MG"),
        ("13.1.4", "MG"),
        ("6.2", "US"),
        ("77.1.5.4", "OPT"),
        ("7.3", "OT"),  # a capture with functional groups
    ],
)
def test_any_class_with_positions_of_frames_is_a_volume(tmp_path, kind, modality):
    volume = read(tmp_path, enhanced(FRAMES, STACK, kind=kind, modality=modality))
    assert volume.affine.tolist() == AFFINE
    assert volume.array.transpose(2, 1, 0).tolist() == FRAMES.tolist()
    assert volume.meta["modality"] == modality


@pytest.mark.parametrize("where", ["shared", "each", "both", "top"])
def test_groups_may_be_shared_or_of_each_frame(tmp_path, where):
    groups = MEASURES | PLANE | rescale(2, 1)
    each = [one | (groups if where in ("each", "both") else {}) for one in STACK]
    one = enhanced(FRAMES, each, groups if where in ("shared", "both") else {})
    if where == "top":
        one.PixelSpacing, one.ImageOrientationPatient = [1.5, 2], UPRIGHT
        one.RescaleSlope, one.RescaleIntercept = 2, 1
    volume = read(tmp_path, one)
    assert volume.affine.tolist() == AFFINE
    assert volume.array[0, 0].tolist() == [1, 21, 41, 61]


def test_oblique_frames(tmp_path):
    across, down = [0, 0.8, 0.6], [-1, 0, 0]  # their normal is (0, -0.6, 0.8)
    plane = {"PlaneOrientationSequence": item(ImageOrientationPatient=[*across, *down])}
    each = [at(5, -3 * k, 4 * k) for k in range(4)]  # 5 mm along the normal
    volume = read(tmp_path, enhanced(FRAMES, each, MEASURES | plane))
    expected = [[0, 1.5, 0, -5], [-1.6, 0, 3, 0], [1.2, 0, 4, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)


def content(**fields):
    return {"FrameContentSequence": item(**fields)}


MR_VOLUMES = {
    "stack1 stack2": [content(StackID=n) for n in "12"],
    "te2.5 te5": [{"MREchoSequence": item(EffectiveEchoTime=te)} for te in (2.5, 5.0)],
    "ti100 ti900": [{"MRModifierSequence": item(InversionTimes=ti)} for ti in (100.0, 900.0)],
    "b0 b1000": [{"MRDiffusionSequence": item(DiffusionBValue=b)} for b in (0.0, 1000.0)],
    "t001 t002": [content(TemporalPositionIndex=n) for n in (1, 2)],
    "d01 d02": [content(DimensionIndexValues=[n, 1]) for n in (1, 2)],
    "acq4 acq7": [content(FrameAcquisitionNumber=n) for n in (4, 7)],
    "phase0 phase50": [
        {"CardiacSynchronizationSequence": item(NominalPercentageOfCardiacPhase=float(n))}
        for n in (0, 50)
    ],
    "resp0 resp50": [
        {"RespiratorySynchronizationSequence": item(NominalPercentageOfRespiratoryPhase=float(n))}
        for n in (0, 50)
    ],
    "magnitude phase": [
        {"MRImageFrameTypeSequence": item(FrameType=["ORIGINAL"], ComplexImageComponent=name)}
        for name in ("MAGNITUDE", "PHASE")
    ],
    "real imaginary": [
        {"MRImageFrameTypeSequence": item(FrameType=["ORIGINAL", "PRIMARY", "DIXON", name])}
        for name in ("REAL", "IMAGINARY")
    ],
    "water fat": [
        {"MRImageFrameTypeSequence": item(FrameType=["DERIVED", "PRIMARY", "DIXON", name])}
        for name in ("WATER", "FAT")
    ],
    "label control": [
        {"MRArterialSpinLabelingSequence": item(ASLContext=name)} for name in ("LABEL", "CONTROL")
    ],
}


@pytest.mark.parametrize("names", MR_VOLUMES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_frames_at_one_position_are_volumes_by_what_differs(tmp_path, names, interleaved):
    one, other = MR_VOLUMES[names]
    each = [STACK[k] | groups for groups in (one, other) for k in range(4)]
    order = [0, 4, 1, 5, 2, 6, 3, 7] if interleaved else range(8)
    made = enhanced(frames(8)[list(order)], [each[n] for n in order], kind="4.1", modality="MR")
    made.DimensionIndexSequence = [
        item(DimensionIndexPointer=0x00189087),
        item(DimensionIndexPointer=0x00209057),
    ]
    first, second = names.split()
    assert parts(tmp_path, made) == {first: [0, 1, 2, 3], second: [4, 5, 6, 7]}


def test_time_and_b_values_divide_twice(tmp_path):
    each = [
        STACK[k]
        | content(TemporalPositionIndex=time)
        | {"MRDiffusionSequence": item(DiffusionBValue=b)}
        for b in (0.0, 800.0)
        for time in (1, 2)
        for k in range(4)
    ]
    assert parts(tmp_path, enhanced(frames(16), each, kind="4.1", modality="MR")) == {
        "b0_t001": [0, 1, 2, 3],
        "b0_t002": [4, 5, 6, 7],
        "b800_t001": [8, 9, 10, 11],
        "b800_t002": [12, 13, 14, 15],
    }


def test_directions_and_a_trace_of_one_b_value(tmp_path):
    def weighted(b, direction=None):
        found = item(DiffusionBValue=b)
        if direction:
            found.DiffusionGradientDirectionSequence = [
                item(DiffusionGradientOrientation=direction)
            ]
        return {"MRDiffusionSequence": found}

    weights = [
        weighted(0.0),
        weighted(900.0, [1.0, 0, 0]),
        weighted(900.0, [0, 1.0, 0]),
        weighted(900.0),
    ]
    each = [STACK[k] | weight for k in range(4) for weight in weights]
    assert parts(tmp_path, enhanced(frames(16), each, kind="4.1", modality="MR")) == {
        "b0": [0, 4, 8, 12],
        "b900_no_dir": [3, 7, 11, 15],
        "b900_dir02": [2, 6, 10, 14],
        "b900_dir03": [1, 5, 9, 13],
    }


def test_units_by_the_rescale_type_and_the_map_of_the_same_scale(tmp_path):
    def mapped(slope, unit):
        code = item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
        values = item(RealWorldValueSlope=slope, RealWorldValueIntercept=0.0)
        values.MeasurementUnitsCodeSequence = [code]
        return {"RealWorldValueMappingSequence": values}

    def unit(name, groups, **fields):
        each = [one | groups for one in STACK]
        return read(tmp_path / name, enhanced(FRAMES, each, **fields)).unit

    pet = {"kind": "130", "modality": "PT"}
    assert unit("a", rescale(1, 0, "HU")) == "HU"
    assert unit("b", rescale(1, 0, "MGML")) == "a.u."  # iodine
    assert unit("c", rescale(2.5, 0, "BQML"), **pet) == "Bq/ml"
    assert unit("d", rescale(2.5, 0) | mapped(2.5, "Bq/ml"), **pet) == "Bq/ml"
    assert unit("e", rescale(2.5, 0) | mapped(0.1, "Bq/ml"), **pet) == "a.u."
    assert unit("f", rescale(2.5, 0), **pet) == "a.u."


def test_a_real_world_map_of_each_frame_is_used_without_a_rescale(tmp_path):
    def mapped(slope, intercept):
        values = item(RealWorldValueSlope=slope, RealWorldValueIntercept=intercept)
        return {"RealWorldValueMappingSequence": values}

    volumes = {}

    def first(name, groups, **fields):
        each = [one | groups(k) for k, one in enumerate(STACK)]
        made = enhanced(FRAMES, each, **{"kind": "4.1", "modality": "MR"} | fields)
        volumes[name] = read(tmp_path / name, made)
        return volumes[name].array[0, 0].tolist()

    assert first("differ", lambda k: mapped(0.5 + k, float(k))) == [0, 16, 52, 108]
    # One scale for all frames changes nothing that matters, and a rescale comes first.
    assert first("same", lambda k: mapped(0.5, 1.0)) == [0, 10, 20, 30]
    assert first("both", lambda k: mapped(0.5 + k, 0.0) | rescale(3, 0)) == [0, 30, 60, 90]
    (note,) = volumes["both"].meta["notes"]
    assert note.startswith("4 of 4 frames have a real-world value map that differs")
    # The unit is that of the map, also in CT.
    first("ct", lambda k: mapped(0.5 + k, 0.0), kind="2.1", modality="CT")
    assert volumes["ct"].unit == "a.u."
    table = item()
    table.add_new(0x00409212, "FD", [0.0, 1.0])
    first("table", lambda k: {"RealWorldValueMappingSequence": table})
    assert "a table (RealWorldValueLUTData)" in volumes["table"].meta["notes"][0]


def test_a_tomosynthesis_is_a_stack_of_its_positions(tmp_path):
    """Breast tomosynthesis of an oblique view: planes of 0.1 mm pixels, 1 mm apart."""
    across, down = [0.8, 0, -0.6], [0, 1, 0]  # their normal is (0.6, 0, 0.8)
    measures = {"PixelMeasuresSequence": item(PixelSpacing=[0.1, 0.1], SliceThickness=1)}
    plane = {"PlaneOrientationSequence": item(ImageOrientationPatient=[*across, *down])}
    each = [at(0.6 * k, 7, 0.8 * k) | plane for k in range(4)]
    made = enhanced(
        FRAMES,
        each,
        measures,
        kind="13.1.3",
        modality="MG",
        ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"],
    )
    volume = read(tmp_path, made)
    expected = [[-0.08, 0, -0.6, 0], [0, -0.1, 0, -7], [-0.06, 0, 0.8, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)


def test_frames_without_a_rescale_among_others_are_noted(tmp_path):
    each = [one | (rescale(2, 0) if k < 3 else {}) for k, one in enumerate(STACK)]
    volume = read(tmp_path, enhanced(FRAMES, each))
    assert volume.array[0, 0].tolist() == [0, 20, 40, 30]
    assert volume.unit == "a.u."
    assert volume.meta["notes"] == ["1 of 4 slices state no rescale: their stored values are kept"]


def test_localisers_among_the_frames_are_set_aside(tmp_path):
    scout = {"CTImageFrameTypeSequence": item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER"])}
    side = {"PlaneOrientationSequence": item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])}
    each = [one | PLANE for one in STACK[:3]] + [at(0, 0, 0) | side | scout]
    (tmp_path / "in").mkdir()
    volume = read(tmp_path / "in", enhanced(FRAMES, each, MEASURES))
    assert volume.array[0, 0].tolist() == [0, 10, 20]
    assert volume.meta["notes"] == ["1 of 4 frames of a.dcm is set aside: a localiser"]
    assert dicom.find_series(tmp_path / "in")[0].set_aside == ()


# ---- refused ----


def test_groups_that_contradict_each_other_are_refused(tmp_path):
    each = [one | rescale(1, 0) for one in STACK]
    shared = MEASURES | PLANE
    for name, groups, attribute in (
        ("a", at(0, 0, 0), "ImagePositionPatient"),
        ("b", rescale(2, 0), "RescaleSlope"),
    ):
        made = enhanced(FRAMES, each, shared | groups)
        assert problem(tmp_path / name, made) == (
            f"frame 1 has one {attribute} of its own and shares another"
        )


def test_groups_of_fewer_or_more_frames_are_refused(tmp_path):
    for name, count in (("fewer", 3), ("more", 5)):
        each = [at(-1, -2, 4 * k) for k in range(count)]
        assert problem(tmp_path / name, enhanced(FRAMES, each)) == (
            f"4 frames, but functional groups of {count}"
        )


def test_missing_groups_are_refused(tmp_path):
    # Frame 2 has no position.
    each = [one if k != 1 else {} for k, one in enumerate(STACK)]
    assert problem(tmp_path / "a", enhanced(FRAMES, each)) == (
        "frames without positions (no plane position in functional groups) (1 of 4 files)"
    )
    assert problem(tmp_path / "b", enhanced(FRAMES, STACK, PLANE)).startswith(
        "PixelSpacing is missing or unreadable in 4 of 4 files"
    )
    assert problem(tmp_path / "c", enhanced(FRAMES, STACK, MEASURES)).startswith(
        "ImageOrientationPatient is missing or unreadable in 4 of 4 files"
    )
    assert problem(tmp_path / "d", enhanced(FRAMES, [{}] * 4)) == (
        "frames without positions (no plane position in functional groups)"
    )
    empty = enhanced(FRAMES, STACK)
    empty.PerFrameFunctionalGroupsSequence = []
    assert problem(tmp_path / "e", empty) == (
        "frames without positions (no plane position in functional groups)"
    )


def test_a_missing_frame_leaves_a_gap(tmp_path):
    each = [at(0, 0, z) for z in (0, 4, 12, 16)]
    assert problem(tmp_path, enhanced(FRAMES, each)).startswith(
        "uneven gaps: 1 of 3 differ from 4.00 mm: 8.00 mm between"
    )


# ---- concatenations ----


def concatenation(*sizes, total=True, offsets=True, copies=1):
    """An object of ``sum(sizes)`` frames, cut into parts of these sizes."""
    made, start = [], 0
    count = sum(sizes)
    for n, size in enumerate(sizes, start=1):
        each = [
            at(-1, -2, 3 + 4 * (k % (count // copies)))
            | content(TemporalPositionIndex=1 + k * copies // count)
            for k in range(start, start + size)
        ]
        one = enhanced(frames(count)[start : start + size], each)
        one.ConcatenationUID, one.InConcatenationNumber = "1.2.9", n
        if total:
            one.InConcatenationTotalNumber = len(sizes)
        if offsets:
            one.ConcatenationFrameOffsetNumber = start
        made.append(one)
        start += size
    return made


def test_the_parts_of_a_concatenation_are_one_volume(tmp_path):
    first, second, third = concatenation(3, 2, 1)
    volume = read(tmp_path / "a", third, first, second)
    assert volume.affine.tolist() == AFFINE
    assert volume.array[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert "notes" not in volume.meta
    # Number and offset of the parts are optional, and a copy counts once.
    first, second = concatenation(3, 3, total=False, offsets=False)
    assert read(tmp_path / "b", first, second, first).array[0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_time_series_may_be_cut_anywhere(tmp_path):
    assert parts(tmp_path, *concatenation(5, 7, copies=3)) == {
        "t001": [0, 1, 2, 3],
        "t002": [4, 5, 6, 7],
        "t003": [8, 9, 10, 11],
    }


def test_missing_parts_are_named(tmp_path):
    first, second, third, fourth = concatenation(2, 2, 2, 2)
    end = "of a concatenation missing"
    assert problem(tmp_path / "a", first, second, third) == f"part 4 of 4 {end}"
    assert problem(tmp_path / "b", second, third, fourth) == f"part 1 of 4 {end}"
    assert problem(tmp_path / "c", second, fourth) == f"parts 1, 3 of 4 {end}"
    # Without the number of parts, the last one cannot be missed.
    second = concatenation(2, 2, total=False)[1]
    assert problem(tmp_path / "d", second) == f"part 1 of 2 {end}"


def test_contradictory_parts_are_refused(tmp_path):
    first, second = concatenation(2, 2)
    second.InConcatenationNumber = 1
    contradictory = "parts of a concatenation without a number, or with contradictory ones"
    assert problem(tmp_path / "a", first, second) == contradictory
    del second.InConcatenationNumber
    assert problem(tmp_path / "b", first, second) == contradictory
    second.InConcatenationNumber, second.InConcatenationTotalNumber = 2, 3
    assert problem(tmp_path / "c", first, second) == contradictory
    second.InConcatenationTotalNumber, second.ConcatenationFrameOffsetNumber = 2, 3
    assert problem(tmp_path / "d", first, second) == (
        "part 2 of a concatenation begins at frame 3, not at 2"
    )

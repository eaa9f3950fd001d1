from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import LabelError
from delineate.core.labels import LabelMapping, LabelSet, Range, side_of


@pytest.mark.parametrize(
    ("name", "side", "stem"),
    [
        ("Left kidney", "left", "kidney"),
        ("kidney_right", "right", "kidney"),
        ("Left-Hippocampus", "left", "hippocampus"),
        ("lung_upper_lobe_left", "left", "lung upper lobe"),
        ("RightKidney", "right", "kidney"),
        ("ctx-lh-cuneus", "left", "ctx cuneus"),
        ("liver", None, "liver"),
        ("bright lesion", None, "bright lesion"),
        ("R MFG", "right", "mfg"),
    ],
)
def test_sides_are_read_from_names(name, side, stem):
    assert side_of(name) == (side, stem)


def test_pairs_and_swap_table():
    labels = LabelSet.from_names({0: "background", 3: "Left kidney", 7: "Right kidney", 5: "liver"})
    assert labels.pairs == [(3, 7)]
    assert labels.can_mirror_sides
    # Classes: 1 left kidney, 2 liver, 3 right kidney.
    assert labels.swap_table().tolist() == [
        0,
        3,
        2,
        1,
    ]
    assert not LabelSet.from_names({1: "left lung"}).can_mirror_sides


def test_values_and_names_are_unique():
    with pytest.raises(LabelError, match="name given twice"):
        LabelSet.from_names({1: "a", 2: "a"})
    with pytest.raises(LabelError):
        LabelSet.from_names({-1: "a"})


def test_undeclared_values_are_refused_by_name():
    labels = LabelSet.from_names({1: "a", 2: "b"})
    array = np.array([[[0, 1, 2, 9]]])
    with pytest.raises(LabelError, match="9"):
        LabelMapping().apply(array, labels)
    kept = LabelMapping(values=((1, 1), (2, 1)), rest="background").apply(array, labels)
    assert kept.tolist() == [[[0, 1, 1, 0]]]


def test_grey_ranges_hold_both_ends():
    labels = LabelSet.from_names({1: "liver", 2: "spleen"})
    mapping = LabelMapping(ranges=(Range(55, 70, 1), Range(240, 255, 2)))
    assert mapping.apply(np.array([[[0, 55, 70, 255]]]), labels).tolist() == [[[0, 1, 1, 2]]]
    with pytest.raises(LabelError, match="71"):
        mapping.apply(np.array([[[71]]]), labels)


def test_colours():
    labels = LabelSet.from_names({1: "a", 2: "b"})
    image = np.zeros((3, 2, 2, 1), np.uint8)
    image[0, 0, 0, 0] = 255
    image[1, 1, 1, 0] = 128
    mapping = LabelMapping(rgb=(((255, 0, 0), 1), ((0, 128, 0), 2)))
    assert mapping.apply(image, labels)[..., 0].tolist() == [[1, 0], [0, 2]]


def test_fractions_are_no_labels():
    labels = LabelSet.from_names({1: "a"})
    assert LabelMapping().apply(np.array([[[1.0, 0.0]]]), labels).tolist() == [[[1, 0]]]
    for wrong in (0.5, np.nan):
        with pytest.raises(LabelError):
            LabelMapping().apply(np.array([[[wrong, 0.0]]]), labels)


def test_one_kind_only():
    with pytest.raises(LabelError):
        LabelMapping(values=((1, 1),), ranges=(Range(1, 2, 1),))


def test_json_round_trips():
    labels = LabelSet.from_names({1: "Left a", 2: "Right a", 300: "c"})
    assert LabelSet.from_json(labels.to_json()) == labels
    assert labels.dtype is np.uint16
    mapping = LabelMapping(ranges=(Range(1, 2, 1),), rest="background")
    assert LabelMapping.from_json(mapping.to_json()) == mapping

"""What a file's whole name says of its channel, and structures under other spellings."""

from __future__ import annotations

import pytest

from delineate.core.terms import (
    contradicts_modality,
    match_channels,
    read_with_rest,
    structure_of,
)


def test_equal_lists_match_in_order_even_where_a_name_occurs_twice():
    assert match_channels(["T1", "t1"], ["t1", "T1"]) == [0, 1]
    assert match_channels(["T1", "T1", "T2"], ["T1", "T2", "FLAIR"]) == [None, 2, None]


@pytest.mark.parametrize(
    ("identity", "rest", "told"),
    [
        ("T1", "pat01_axial_gd", "T1 post-contrast"),
        ("T1", "pat01 post contrast", "T1 post-contrast"),
        ("T1", "sub-01_ce-gadolinium", "T1 post-contrast"),
        ("T1", "pat01_gadovist", "T1 post-contrast"),
        ("T1", "pat01_pre_contrast", "T1"),
        ("T1", "pat01 without contrast", "T1"),
        ("T1", "CE_001", "T1"),
        ("T1", "pat01_post_op", "T1"),
        ("T1", "sub-01_ses-02", "T1"),
        ("T1", "pat01_map", ""),
        ("T1", "pat01_sub", ""),
        ("FLAIR", "pat01_gd", ""),
    ],
)
def test_the_rest_of_a_name_says_which_image_it_is(identity, rest, told):
    assert read_with_rest(identity, rest) == told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("leftkidney", "kidney_left"),
        ("LV", "left ventricle"),
        ("RA", "right_atrium"),
        ("MYO", "myocardium"),
        ("NCR/NET", "necrotic and non-enhancing tumor core"),
        ("NETC", "non-enhancing tumour core"),
        ("SNFH", "peritumoral edema"),
        ("RC", "Resection cavity"),
        ("vertebrae", "Vertebra"),
    ],
)
def test_spellings_of_one_structure(one, other):
    assert structure_of(one) == structure_of(other)


def test_names_in_other_scripts_stay_apart():
    assert structure_of("肝臓") != structure_of("腎臓") and structure_of("печень")
    assert structure_of("Milz") != structure_of("Mälz")


@pytest.mark.parametrize(
    ("modality", "channel", "refused"),
    [
        ("MR", "CT", True),
        ("PT", "CT", True),
        ("CT", "T1", True),
        ("CT", "CT", False),
        ("MR", "FLAIR", False),
        ("MR", "image", False),
        ("", "CT", False),
        ("CT", "mri", True),
        ("OT", "CT", False),
    ],
)
def test_a_modality_that_a_channel_cannot_be(modality, channel, refused):
    assert contradicts_modality(modality, channel) is refused

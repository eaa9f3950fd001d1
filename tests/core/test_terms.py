"""Names of channels and structures: what means the same, what does not, and what decides
nothing.
"""

from __future__ import annotations

import itertools

import pytest

from delineate.core.labels import Label, LabelSet
from delineate.core.terms import (
    candidates_of,
    contradictions,
    match_channels,
    may_be,
    names_structure,
    structure_of,
)
from delineate.core.terms.anatomy import ABBREVIATIONS, CODES, FREESURFER, TABLES

# The same four sequences under the names of public collections, in the order FLAIR, T1, T1
# post-contrast, T2.
SCHEMES = {
    "BraTS 2013": ("Flair", "T1", "T1c", "T2"),
    "BraTS 2018-2021": ("flair", "t1", "t1ce", "t2"),
    "BraTS 2023": ("t2f", "t1n", "t1c", "t2w"),
    "Decathlon": ("FLAIR", "T1w", "t1gd", "T2w"),
    "BIDS": ("FLAIR", "T1w", "ce-gadolinium_T1w", "T2w"),
    "hospital": ("T2-FLAIR", "T1_native", "T1 post contrast", "T2 weighted"),
    "UCSF": ("FLAIR", "T1", "T1_Gd", "T2"),
    "post": ("T2_FLAIR", "T1-pre", "T1post", "T2W"),
}


@pytest.mark.parametrize(("one", "other"), itertools.permutations(SCHEMES, 2))
def test_channels_of_public_collections_match_in_any_order(one, other):
    wanted, given = SCHEMES[one], SCHEMES[other]
    for order in itertools.permutations(range(4)):
        assert match_channels([given[n] for n in order], wanted) == [
            order.index(n) for n in range(4)
        ]


def test_every_name_of_a_structure_has_one_identity():
    for table in TABLES:
        for identity, names in table.items():
            for name in map(str.strip, names.split(",")):
                assert {structure_of(name), structure_of(name.upper())} == {identity}
                assert structure_of(name.replace(" ", "_")) == identity
                assert structure_of(f"{name} left") == f"left {identity}"
            assert structure_of(identity) == identity
    for name in (*CODES.values(), *FREESURFER.values(), *ABBREVIATIONS.values()):
        assert structure_of(name) == name
    assert {structure_of(code) for code in CODES} == set(CODES.values())


def test_what_is_no_match_is_none():
    assert match_channels(["adc", "dwi"], ["flair", "t1"]) == [None, None]
    assert match_channels(["t1", "t1n"], ["T1w"]) == [None]  # two candidates decide nothing
    assert match_channels(["t1", "t1n"], ["T1N"]) == [1]  # an equal name does
    assert match_channels(["t1c"], ["t1"]) == [None] and match_channels([], ["t1"]) == [None]
    assert match_channels(["channel 0", "channel 1"], ["flair", "t1"]) == [None, None]


def test_several_candidates_for_one_channel_are_no_match():
    given, wanted = ["T1 +C ax", "T1 +C sag", "T1 ax", "FLAIR"], ["t1", "t1ce", "flair"]
    assert match_channels(given, wanted) == [2, None, 3]
    assert candidates_of(given, wanted) == {1: [0, 1]}
    # An equal identity decides against a more specific image, two of equal identity do not.
    assert match_channels(["T2 fs", "T2"], ["t2w"]) == [1]
    assert match_channels(["t2 fs"], ["t2w"]) == [0]
    assert match_channels(["t2 fs", "T2 SPIR tra"], ["t2w"]) == [None]
    assert match_channels(["T1", "t1n", "t1 fs"], ["T1w"]) == [None]
    assert match_channels(["CT"], ["CT, arterial phase", "CT, portal venous phase"]) == [None, None]
    # One image cannot be two channels.
    assert match_channels(["CT art"], ["CT", "CT contrast"]) == [0, None]
    assert candidates_of(["t1", "t2"], ["t1", "t2"]) == {}


def test_the_only_channel_may_say_less_but_not_something_else():
    for given, wanted in (
        ("image", "CT"),
        ("MR", "T1"),
        ("T1", "MRI"),
        ("channel 0", "FLAIR"),
        ("t1n", "T1w"),
        ("CT", "image"),
    ):
        assert may_be(given, wanted), (given, wanted)
    for given, wanted in (("T2", "T1"), ("PET", "CT"), ("MR", "CT"), ("flair", "t1ce")):
        assert not may_be(given, wanted), (given, wanted)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("oedema", "Edema"),
        ("enhancing tumour", "Enhancing_tumor"),
        ("kidney_left", "Left Kidney"),
        ("Right-Hippocampus", "hippocampus R"),
        ("Oesophagus", "esophagus"),
        ("grey matter", "gray-matter"),
        ("gall bladder", "gallbladder"),
        ("NCR", "necrotic core"),
        ("kidneys", "kidney"),
    ],
)
def test_spellings_of_a_structure_are_the_same(one, other):
    assert structure_of(one) == structure_of(other)


def test_structures_that_are_not_the_same():
    assert structure_of("left kidney") != structure_of("right kidney") != structure_of("kidney")
    assert structure_of("necrosis") != structure_of("edema") and structure_of(
        "liver"
    ) != structure_of("liver tumour")
    assert not any(
        map(names_structure, ("label 3", "Label_12", "foreground", "7", "class 2", "mask"))
    )
    assert all(map(names_structure, ("liver", "V1", "left")))


def test_contradictions_name_both_sides():
    def found(one, other):
        return contradictions(
            LabelSet.from_names(one), LabelSet.from_names(other), "the predictions", "the truth"
        )

    assert found({1: "necrosis", 2: "oedema"}, {1: "edema", 2: "necrotic core"}) == [
        "1 is 'necrosis' in the predictions and 'edema' in the truth",
        "2 is 'oedema' in the predictions and 'necrotic core' in the truth",
    ]
    assert found({1: "liver"}, {6: "Liver", 2: "spleen"}) == [
        "'liver' is 1 in the predictions and 6 in the truth"
    ]
    assert found({1: "oedema", 2: "left kidney"}, {1: "Edema", 2: "kidney_left"}) == []
    assert found({1: "liver", 2: "spleen"}, {1: "label 1", 2: "foreground"}) == []


# Names of the same structures under public schemes, and those that are only near.
ANATOMY = {
    "left kidney": ("kidney_left", "Left Kidney", "LK", "linke Niere", "rein gauche", "左肾"),
    "right kidney": ("kidney_right", "kidney R", "rkidney", "rechte Niere", "riñón derecho"),
    "kidney": ("Kidneys", "kidney", "Nieren", "64033007"),
    "liver": ("Leber", "LIVER", "10200004", "SCT:10200004", "foie", "肝脏"),
    "liver tumor": ("Liver_Tumour", "tumor of the liver"),
    "esophagus": ("oesophagus", "Speiseröhre", "Esophagus"),
    "left lung": ("lung_left", "left lungs", "44029006"),
    "left lung upper lobe": ("lung_upper_lobe_left", "upper lobe of left lung"),
    "tumor core": ("TC", "tumour_core"),
    "enhancing tumor": ("ET", "Enhancing tumour", "GD-enhancing tumor"),
    "nonenhancing tumor": ("NETC", "non-enhancing tumour core"),
    "left hippocampus": ("Left-Hippocampus", "hippocampus L", "freesurfer 17", "aseg 17"),
    "right hippocampus": ("Right-Hippocampus", "rh hippocampus", "freesurfer 53"),
    "left thalamus": ("Left-Thalamus-Proper", "Left-Thalamus"),
    "third ventricle": ("3rd-Ventricle", "ventricle 3"),
    "left ventricle": ("LV", "heart_ventricle_left", "left ventricle blood cavity"),
    "left lateral ventricle": ("Left-Lateral-Ventricle",),
    "myocardium": ("MYO", "heart_myocardium", "myocardium of the left ventricle"),
    "vertebra L1": ("vertebrae_L1", "L1 vertebra"),
    "left rib 1": ("rib_left_1", "left rib 01"),
    "aorta": ("arota", "Aorte"),  # as AMOS spells it
    "inferior vena cava": ("postcava", "IVC"),
}


def test_structures_of_public_schemes_are_the_same_only_within_a_line():
    found = {name: {structure_of(n) for n in (name, *others)} for name, others in ANATOMY.items()}
    assert all(len(identities) == 1 for identities in found.values()), found
    assert len(set.union(*found.values())) == len(ANATOMY)


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_tables_of_names_agree_or_contradict_in_both_directions(order):
    """All pairs of spellings of three structures, in every order of values."""
    rows = [ANATOMY[name] for name in ("left kidney", "liver", "enhancing tumor")]
    for one, other in itertools.product(zip(*(r[:3] for r in rows), strict=True), repeat=2):
        mine = LabelSet.from_names(dict(enumerate(one, start=1)))
        theirs = LabelSet.from_names({v + 1: other[n] for v, n in enumerate(order)})
        agree = order == (0, 1, 2)
        assert (contradictions(mine, theirs, "a", "b") == []) == agree
        assert (contradictions(theirs, mine, "b", "a") == []) == agree


def test_codes_name_structures_without_names():
    coded = LabelSet((Label(1, "label 1", (0, 0, 0), "SCT:10200004"),))
    assert contradictions(coded, LabelSet.from_names({2: "Leber"}), "a", "b")
    assert not contradictions(coded, LabelSet.from_names({1: "Leber"}), "a", "b")

"""A model trained under one naming scheme and a scan named under another: each channel is the right
one or none, for all pairs of public schemes, in every order, with images added and missing.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scans import scan

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.discovery.scans import collect
from delineate.core.errors import DelineateError
from delineate.core.labels import LabelSet
from delineate.core.manifest import ABSENT
from delineate.core.terms import candidates_of, channel_of, match_channels

FLAIR, T1, T1C, T2 = "FLAIR", "T1", "T1 post-contrast", "T2"
# Scheme -> identity -> name.
SCHEMES = {
    "BraTS 2013": {FLAIR: "Flair", T1: "T1", T1C: "T1c", T2: "T2"},
    "VSD": {
        FLAIR: "VSD.Brain.XX.O.MR_Flair.684",
        T1: "VSD.Brain.XX.O.MR_T1.685",
        T1C: "VSD.Brain.XX.O.MR_T1c.686",
        T2: "VSD.Brain.XX.O.MR_T2.687",
    },
    "BraTS 2018": {FLAIR: "flair", T1: "t1", T1C: "t1ce", T2: "t2"},
    "BraTS 2023": {FLAIR: "t2f", T1: "t1n", T1C: "t1c", T2: "t2w"},
    "UPENN": {FLAIR: "FLAIR", T1: "T1", T1C: "T1GD", T2: "T2"},
    "Decathlon": {FLAIR: "FLAIR", T1: "T1w", T1C: "t1gd", T2: "T2w"},
    "BIDS": {FLAIR: "FLAIR", T1: "T1w", T1C: "ce-gadolinium_T1w", T2: "T2w"},
    "MSSEG": {FLAIR: "3DFLAIR", T1: "3DT1", T1C: "3DT1GADO", T2: "2DT2", "PD": "DP"},
    "ISLES": {FLAIR: "MR_Flair", T1: "MR_T1", T2: "MR_T2", "DWI": "MR_DWI", "ADC": "MR_ADC"},
    "ISLES 2022": {FLAIR: "FLAIR", "DWI": "dwi", "ADC": "adc"},
    "CHAOS": {
        "T1 in phase": "T1DUAL InPhase",
        "T1 out of phase": "T1DUAL OutPhase",
        "T2, fat-suppressed": "T2SPIR",
    },
    "HECKTOR": {"CT": "CT", "PET": "PT"},
    "AutoPET": {"CT, resampled": "CTres", "PET, SUV": "SUV"},
    "stroke CT": {"CBF, CT": "CT_CBF", "CBV, CT": "CT_CBV", "MTT, CT": "CT_MTT", "CT": "CT"},
    "English": {
        FLAIR: "Ax T2 FLAIR fs",
        T1: "AX T1 SE",
        T1C: "AX T1 SE POST GAD",
        T2: "sag T2 TSE",
        "ADC": "ep2d_diff_3scan_trace_p2_ADC",
    },
    "German": {
        FLAIR: "t2_tirm_tra_dark-fluid",
        T1: "T1 tra nativ",
        T1C: "t1_mprage_sag_p2_iso KM",
        T2: "T2 TSE tra",
    },
    "French": {FLAIR: "AX FLAIR", T1: "T1 sans gado", T1C: "T1 AX avec gado", T2: "T2 pondérée"},
    "Spanish": {FLAIR: "FLAIR AX", T1: "T1 sin contraste", T1C: "T1 con contraste", T2: "T2 SAG"},
    "Italian": {FLAIR: "FLAIR", T1: "T1 senza mdc", T1C: "T1 dopo mdc", T2: "T2 pesata"},
    "Dutch": {FLAIR: "FLAIR tra", T1: "T1 zonder contrast", T1C: "T1 met contrast", T2: "T2"},
    "Chinese": {FLAIR: "FLAIR", T1: "T1平扫", T1C: "T1增强", T2: "T2"},
    "CT phases": {
        "CT, without contrast": "CT nativ",
        "CT, arterial phase": "ART 1.0 B30f",
        "CT, portal venous phase": "Portalvenös",
        "CT, delayed phase": "CT late phase",
    },
    "CT phases, French": {
        "CT, arterial phase": "temps artériel",
        "CT, portal venous phase": "temps portal",
        "CT, delayed phase": "tardif",
    },
}
# Images that no scheme has: identity ("" is unknown) -> name.
EXTRAS = [
    ("T2*", "T2*"),
    ("SWI", "swi"),
    ("", "T1 map"),
    ("", "T1 SUB"),
    ("", "T1 with and without contrast"),
    ("", "PET CT"),
    ("", "localizer"),
    ("", "channel 1"),
    ("", "image"),
    ("T1 post-contrast", "SAG T1 +C"),
    ("T2, fat-suppressed", "t2 fs"),
    ("T1", "T1 FLAIR"),
    ("CT", "CT Thorax"),
]


def judge(wanted, names, at):
    """Assert that each channel is the right one, and is found if it is the only candidate.

    Args:
        wanted, names: (identity, name) of the model's channels and of the scan's.
        at: for each of ``wanted`` the index in ``names``.
    """
    for (identity, name), place in zip(wanted, at, strict=True):
        same = [n for n, (other, _) in enumerate(names) if other == identity]
        kinds = [n for n, (other, _) in enumerate(names) if other.startswith(f"{identity}, ")]
        assert place is None or place in same or (place in kinds and not same), (name, names)
        if len(same) == 1:
            assert place == same[0], (name, names)
    found = [place for place in at if place is not None]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("one", SCHEMES)
def test_every_scheme_to_every_other_in_every_order(one):
    wanted = list(SCHEMES[one].items())
    for other in SCHEMES.values():
        for names in itertools.permutations(other.items()):
            at = match_channels([name for _, name in names], [name for _, name in wanted])
            judge(wanted, names, at)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_with_images_added_and_missing(data):
    one, other = (data.draw(st.sampled_from(sorted(SCHEMES))) for _ in range(2))
    wanted = data.draw(
        st.lists(st.sampled_from(list(SCHEMES[one].items())), min_size=1, unique=True)
    )
    part = data.draw(st.lists(st.sampled_from(list(SCHEMES[other].items())), unique=True))
    more = data.draw(st.lists(st.sampled_from(EXTRAS), max_size=3, unique=True))
    names = data.draw(st.permutations([*part, *more]))
    lists = [name for _, name in names], [name for _, name in wanted]
    at = match_channels(*lists)
    judge(wanted, names, at)
    # A channel with several candidates is not matched, and they are all listed.
    for n, places in candidates_of(*lists).items():
        assert at[n] is None and places


def test_identities_are_those_of_the_schemes():
    for scheme in SCHEMES.values():
        assert {name: channel_of(name) for name in scheme.values()} == {
            name: identity for identity, name in scheme.items()
        }


# ---- trees ----

FILES = {
    name: scheme
    for name, scheme in SCHEMES.items()
    if {FLAIR, T1, T1C, T2} <= set(scheme) and name != "VSD"
}
LABELS = LabelSet.from_names({1: "x"})


def tree(root: Path, scheme: dict[str, str], leave_out: str = "") -> Path:
    for case in ("Case001", "Case002"):
        for identity in (FLAIR, T1, T1C, T2):
            if identity != leave_out:
                name = scheme[identity].replace(" ", "_")
                scan(root / case / f"{case}_{name}.nii.gz")
    return root


@pytest.mark.parametrize("scheme", FILES)
def test_a_tree_is_found_with_the_same_channels(scheme, tmp_path):
    channels = discover(tree(tmp_path / "in", FILES[scheme]), truth=False).manifest.channels
    assert sorted(map(channel_of, channels)) == [FLAIR, T1, T1C, T2]


@pytest.mark.parametrize("scheme", FILES)
def test_files_are_those_of_the_channels_or_absent(scheme, tmp_path):
    """Whole trees, and trees that lack a channel, for models of every scheme."""
    for leave_out in ("", T1):
        root = tree(tmp_path / (leave_out or "all"), FILES[scheme], leave_out)
        for other in FILES.values():
            wanted = (T2, T1C, T1, FLAIR)
            try:
                cases = collect([root], [other[i] for i in wanted], LABELS).manifest.cases
            except DelineateError as error:
                raise AssertionError(f"{scheme} for {other}") from error
            for case in cases:
                for identity, image in zip(wanted, case.images, strict=True):
                    ending = FILES[scheme][identity].replace(" ", "_") + ".nii.gz"
                    is_it = Path(image.path).name == f"{case.id}_{ending}"
                    assert (image == ABSENT) if identity == leave_out else is_it

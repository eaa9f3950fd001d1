"""What a file's whole name says of its channel, and structures under other spellings."""

from __future__ import annotations

import pytest

from delineate.core.terms import (
    channel_of,
    contradicts_modality,
    match_channels,
    read,
    structure_of,
)
from delineate.core.terms.reading import phrases
from delineate.core.terms.sequences import (
    DERIVED,
    MODIFIERS,
    NEUTRAL,
    PHASE,
    TECHNIQUES,
    WORDS,
)


def test_equal_lists_match_in_order_even_where_a_name_occurs_twice():
    assert match_channels(["T1", "t1"], ["t1", "T1"]) == [0, 1]
    assert match_channels(["T1", "T1", "T2"], ["T1", "T2", "FLAIR"]) == [None, 2, None]


# Text -> identity, in the name of a channel or the description of a series.
TEXTS = {
    # Hospitals.
    "AX T1 SE POST GAD": "T1 post-contrast",
    "t1_mprage_sag_p2_iso KM": "T1 post-contrast",
    "t1_mprage_sag_p2_iso": "T1",
    "MPRAGE +C": "T1 post-contrast",
    "IR-FSPGR post": "T1 post-contrast",
    "T1W_TSE_Gd": "T1 post-contrast",
    "sT1W_3D_TFE": "T1",
    "T1 tra nativ": "T1",
    "T1 ohne KM": "T1",
    "T1 tra nach KM": "T1 post-contrast",
    "T1 sans gado": "T1",
    "T1 SE SAG avec gado": "T1 post-contrast",
    "T1 sin contraste": "T1",
    "T1 con contraste": "T1 post-contrast",
    "T1 ax senza mdc": "T1",
    "T1 ax dopo mezzo di contrasto": "T1 post-contrast",
    "T1 zonder contrast": "T1",
    "T1 na contrast": "T1 post-contrast",
    "T1增强": "T1 post-contrast",
    "T1W/O contrast": "T1",
    "T1 w/o contrast": "T1",
    "T1 W/ GD": "T1 post-contrast",
    "Ax T2 FLAIR fs": "FLAIR",
    "FLAIR T2": "FLAIR",
    "t2_tirm_tra_dark-fluid": "FLAIR",
    "sag T2 TSE": "T2",
    "t2tse": "T2",
    "T2 étoile": "T2*",
    "AX T2 GRE": "T2*",
    "ep2d_diff_3scan_trace_p2_ADC": "ADC",
    "ep2d_diff_b50_400_800_TRACEW": "DWI",
    "DWI b1000": "DWI, b=1000",
    "ep2d_diff b=0": "DWI b=0",
    "Portalvenös": "CT, portal venous phase",
    "Portalvenoes 5.0 B30f": "CT, portal venous phase",
    "ART 1.0 B30f": "CT, arterial phase",
    "CT Abdomen nativ": "CT, without contrast",
    "phase artérielle": "CT, arterial phase",
    "fase tardía": "CT, delayed phase",
    "动脉期": "CT, arterial phase",
    "Nephrographic": "CT, nephrographic phase",
    "T1 vibe tra arterial": "T1 post-contrast, arterial phase",
    "FDG PET WB": "PET, FDG",
    # Collections.
    "VSD.Brain.XX.O.MR_Flair.684": "FLAIR",
    "VSD.Brain.XX.O.MR_T1c.685": "T1 post-contrast",
    "SMIR.Brain.XX.O.MR_DWI.70668": "DWI",
    "SMIR.Brain.XX.O.CT_CBF.345565": "CBF, CT",
    "MR_rCBF": "rCBF, MR",
    "3DT1GADO": "T1 post-contrast",
    "DP": "PD",
    "inplaneT2": "T2",
    "T1DUAL InPhase": "T1 in phase",
    "T1DUAL OutPhase": "T1 out of phase",
    "T2SPIR": "T2, fat-suppressed",
    "CTres": "CT, resampled",
    "SUV": "PET, SUV",
    "reg_IR": "",
    # Other images with similar names.
    "T1 FLAIR": "T1",
    "t1 cerebellum": "T1",
    "t1cerebellum": "",
    "t2 fs": "T2, fat-suppressed",
    "T1 post op": "T1",
    "T1 postop": "T1",
    "T1 MPRAGE postop KM": "T1 post-contrast",
    "t1 c spine": "T1",
    "FLAIR +C": "FLAIR post-contrast",
    "T1_IR": "T1 inversion recovery",
    # No evidence, or for two images.
    "T1-C": "",
    "T1 with and without contrast": "",
    "T1 W/WO": "",
    "t2 tirm": "",
    "T1 T2": "",
    "PD/T2": "",
    "PET CT": "",
    "AdC": "",
    "T1rho": "",
    "T1 map": "",
    "T1 vibe dixon": "",
    "T1 SUB": "",
    "SWI mIP": "",
    "localizer T1": "",
    "PET WB NAC": "",
    "actual": "",
    "insect": "",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_description_names_an_image_or_none(text):
    assert read(text).identity == TEXTS[text]


# Stem of a file -> identity, text before, text after.
FILES = {
    "BraTS-GLI-00000-000-t1c": ("T1 post-contrast", "BraTS-GLI-00000-000-", ""),
    "BraTS-MET-00001-000-t2f": ("FLAIR", "BraTS-MET-00001-000-", ""),
    "BraTS19_CBICA_AAB_1_t1ce": ("T1 post-contrast", "BraTS19_CBICA_AAB_1_", ""),
    "UPENN-GBM-00001_11_T1GD": ("T1 post-contrast", "UPENN-GBM-00001_11_", ""),
    "Flair_subtrMeanDivStd": ("FLAIR", "", "_subtrMeanDivStd"),
    "sub-01_ce-gadolinium_T1w": ("T1 post-contrast", "sub-01", ""),
    "sub-01_ses-post_acq-mprage_T1w": ("T1", "sub-01_ses-post", ""),
    "sub-T1_T2w": ("T2", "sub-T1", ""),
    "sub-01_part-phase_T2starw": ("", "sub-01", ""),
    "CHUM-001__PT": ("PET", "CHUM-001__", ""),
    "pat_1_AX_T1_SE_POST_GAD": ("T1 post-contrast", "pat_1_", ""),
    "pat01_axial_gd_T1": ("T1 post-contrast", "pat01_", ""),
    "pat01 post contrast T1": ("T1 post-contrast", "pat01 ", ""),
    "pat01_gadovist_T1": ("T1 post-contrast", "pat01_", ""),
    "P1_T1_post": ("T1 post-contrast", "P1_", ""),
    "pat01_T1_pre_contrast": ("T1", "pat01_", ""),
    "pat01_T1_without contrast": ("T1", "pat01_", ""),
    "CE_001_t1": ("T1", "CE_001_", ""),
    "B100_T1": ("T1", "B100_", ""),
    "pat01_t1_post_op": ("T1", "pat01_", "_op"),
    "pat01_post_T1": ("", "pat01_", ""),  # a visit, or contrast
    "T1_001_flair": ("", "T1_001_", ""),
    "pt_001_flair": ("FLAIR", "pt_001_", ""),
    "pt_001_ct": ("CT", "pt_001_", ""),
    "pat01_t1_map": ("", "pat01_", ""),
    "pat01_t1_sub": ("", "pat01_", ""),
    "pat01_flair_gd": ("FLAIR post-contrast", "pat01_", ""),
    "flair_1": ("FLAIR", "", "_1"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_name_of_a_file_names_an_image_and_its_scan(name):
    found = read(name, in_file_name=True)
    assert (found.identity, found.before, found.after) == FILES[name]


@pytest.mark.parametrize("name", ["pt_001", "art1st", "sub-01_mask", "AdC_001", "AMOS_0001"])
def test_words_with_other_meanings_are_no_evidence_in_file_names(name):
    assert not read(name, in_file_name=True).has_evidence


def test_no_name_of_the_tables_has_two_meanings():
    tables = [DERIVED, NEUTRAL, PHASE, *WORDS.values(), *TECHNIQUES.values(), *MODIFIERS.values()]
    names = [" ".join(phrase) for table in tables for phrase in phrases(table)]
    assert sorted(names) == sorted(set(names))


def test_an_identity_is_a_name_of_itself():
    for identity, names in WORDS.items():
        meant = "T1" if identity == "T1 native" else identity
        assert read(identity).identity == meant
        for phrase in phrases(names):
            assert {channel_of(sep.join(phrase)) for sep in " _-."} == {meant}, phrase
            assert channel_of(" ".join(phrase).upper()) == meant
    for identity in filter(None, TEXTS.values()):
        assert channel_of(identity) == identity


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

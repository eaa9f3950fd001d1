"""Codes of structures in DICOM objects: every one is a known one, and the names of TotalSegmentator
and FreeSurfer have them.
"""

from __future__ import annotations

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from delineate import extend
from delineate.core.labels import Label, LabelSet
from delineate.core.terms import (
    ABNORMAL_STRUCTURE,
    PRIVATE,
    STRUCTURE,
    Code,
    Coding,
    coding_of,
    structure_of,
)
from delineate.core.terms.anatomy import ABNORMAL, CODED, CODES, FREESURFER, RIBS

SIDED_TEXT = """
kidney adrenal_gland lung_upper_lobe lung_lower_lobe kidney_cyst subclavian_artery
common_carotid_artery brachiocephalic_vein iliac_artery iliac_vena humerus scapula clavicula
femur hip gluteus_maximus gluteus_medius gluteus_minimus autochthon iliopsoas heart_atrium
heart_ventricle
"""
SIDED = SIDED_TEXT.split()
# All of the task "total" of TotalSegmentator 2, but for those of one side.
TOTAL_TEXT = """
spleen gallbladder liver stomach pancreas esophagus trachea thyroid_gland small_bowel duodenum
colon urinary_bladder prostate sacrum heart aorta pulmonary_vein brachiocephalic_trunk
atrial_appendage_left superior_vena_cava inferior_vena_cava portal_vein_and_splenic_vein
spinal_cord brain skull sternum costal_cartilages lung_middle_lobe_right
"""
TOTAL = TOTAL_TEXT.split()
TOTAL += [f"{name}_{side}" for name in SIDED[:20] for side in ("left", "right")]
TOTAL += [f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)]
LEVELS = {"C": 7, "T": 12, "L": 5, "S": 1}
TOTAL += [f"vertebrae_{part}{n}" for part, most in LEVELS.items() for n in range(1, most + 1)]
# Those of SNOMED CT that PS3.16 does not use; its ribs, too.
NOT_IN_DICOM = {
    "65985001": "S1 vertebra",
    "74281007": "Myocardium",
    "110765007": "Portal vein and splenic vein",
    "181674001": "Gluteus maximus muscle",
    "78333006": "Gluteus medius muscle",
    "75297007": "Gluteus minimus muscle",
    "68455001": "Iliopsoas muscle",
    "244849004": "Deep muscle of back",
} | {code: f"{ordinal} rib".capitalize() for ordinal, code in RIBS.items()}
ASEG_TEXT = """
Left-Cerebral-White-Matter Left-Cerebral-Cortex Left-Lateral-Ventricle Left-Inf-Lat-Vent
Left-Cerebellum-White-Matter Left-Cerebellum-Cortex Left-Thalamus Left-Thalamus-Proper
Left-Caudate Left-Putamen Left-Pallidum 3rd-Ventricle 4th-Ventricle Brain-Stem Left-Hippocampus
Left-Amygdala CSF Left-Accumbens-area Left-VentralDC Left-choroid-plexus
Right-Cerebral-White-Matter Right-Cerebral-Cortex Right-Lateral-Ventricle Right-Inf-Lat-Vent
Right-Cerebellum-White-Matter Right-Cerebellum-Cortex Right-Thalamus Right-Caudate Right-Putamen
Right-Pallidum Right-Hippocampus Right-Amygdala Right-Accumbens-area Right-VentralDC
Right-choroid-plexus 5th-Ventricle WM-hypointensities Left-WM-hypointensities
Right-WM-hypointensities Optic-Chiasm
"""
ASEG = ASEG_TEXT.split()
UNCODED_TEXT = """
non-WM-hypointensities Left-vessel Right-vessel CC_Posterior CC_Mid_Posterior CC_Central
CC_Mid_Anterior CC_Anterior ctx-lh-cuneus ctx-rh-cuneus ctx-lh-superiorfrontal
"""
UNCODED = UNCODED_TEXT.split()


def coded(name: str, code: str = "") -> Coding:
    (label,) = LabelSet.from_names({1: name})
    return coding_of(Label(1, name, (0, 0, 0), code, label.side))


def test_every_code_is_known_and_means_what_it_says():
    dicom = {
        (scheme, value): meaning
        for scheme in ("SCT", "DCM")
        for found in concepts[scheme].values()
        for value, (meaning, _) in found.items()
    }
    words = {}
    for text in (*CODED.values(), *ABNORMAL.values()):
        value, meaning = text.split(maxsplit=1)
        scheme, _, number = value.rpartition(":")
        if number in NOT_IN_DICOM:
            assert NOT_IN_DICOM[number] == meaning
            continue
        stated = dicom[scheme or "SCT", number].lower()
        words[meaning] = stated
    # The meanings differ in words only: "Liver structure (body structure)".
    same = {m: s for m, s in words.items() if m.lower()[:4] not in s}
    assert same == {"Neoplasm": "tumor"}
    for code in set(CODES) - set(NOT_IN_DICOM):
        assert ("SCT", code) in dicom or code in ("18639004", "9846003", "44029006", "3341006")


def test_every_structure_has_one_code_and_every_code_one_structure():
    values = [text.split()[0] for text in CODED.values()]
    assert len(set(values)) == len(values)
    for name, text in CODED.items():
        assert structure_of(name) == name
        assert structure_of(text.split()[0]) == name or text.startswith("DCM:")
    assert set(cid_concepts[7150]["SCT"]) >= {"AnatomicalStructure"}


def test_all_names_of_totalsegmentator_are_coded():
    assert len(TOTAL) == len(set(TOTAL)) == 117
    found = {name: coded(name) for name in TOTAL}
    assert {one.kind.scheme for one in found.values()} == {"SCT"}
    assert STRUCTURE not in {one.kind for one in found.values()}
    abnormal = {n for n, one in found.items() if one.category == ABNORMAL_STRUCTURE}
    assert abnormal == {"kidney_cyst_left", "kidney_cyst_right"}
    for name, one in found.items():
        side = next((side for side in ("left", "right") if side in name.split("_")), "")
        assert (one.side is not None) == bool(side and name != "atrial_appendage_left"), name
    # Two names of one code are those of both sides.
    pairs = {(one.kind, one.side, one.region) for one in found.values()}
    assert len(pairs) == 117
    assert coded("kidney_cyst_right") == Coding(
        Code("367643001", "Cyst"),
        ABNORMAL_STRUCTURE,
        Code("64033007", "Kidney"),
        Code("24028007", "Right"),
    )
    assert coded("vertebrae_T10").kind == Code("7610001", "T10 vertebra")
    assert coded("rib_right_9").kind == Code("22565002", "Ninth rib")


def test_the_names_of_freesurfer_are_coded_or_private():
    for name in ASEG:
        one = coded(name)
        assert one.kind.scheme in ("SCT", "DCM"), name
        assert (one.side is not None) == name.startswith(("Left", "Right"))
    for name in FREESURFER.values():
        assert (coded(name).kind.scheme == PRIVATE) == name.startswith("corpus callosum "), name
    private = {name: coded(name) for name in UNCODED}
    assert {one.kind.scheme for one in private.values()} == {PRIVATE}
    assert {one.category for one in private.values()} == {STRUCTURE}
    # One code for both sides, and one for each name.
    assert len({one.kind.value for one in private.values()}) == len(UNCODED) - 2
    assert private["ctx-rh-cuneus"] == Coding(
        Code("D1E64D393F9C3CB8", "ctx cuneus", PRIVATE), side=Code("24028007", "Right")
    )


def test_names_and_own_codes():
    assert coded("label 3") == Coding(STRUCTURE)
    assert coded("Left Kidney") == Coding(Code("64033007", "Kidney"), side=Code("7771000", "Left"))
    assert coded("LV") == Coding(Code("87878005", "Left ventricle"))
    assert coded("thymus", "SCT:9875009").kind == Code("9875009", "thymus")
    assert coded("liver", "99WARD:L1").kind == Code("L1", "liver", "99WARD")
    # What is no code of a known scheme is none.
    assert coded("liver", "aseg 17").kind == coded("liver", "SCT:liver").kind
    assert coded("liver", "SCT:liver").kind == Code("10200004", "Liver")
    tumour = coded("liver tumour", "SCT:10200004")
    assert (tumour.kind.value, tumour.region) == ("108369006", Code("10200004", "Liver"))
    assert coded("tumour of left lung lower lobe") == Coding(
        Code("108369006", "Neoplasm"),
        ABNORMAL_STRUCTURE,
        Code("90572001", "Lower lobe of lung"),
        Code("7771000", "Left"),
    )
    assert coded("whole tumor").region is None


def test_codes_can_be_added():
    organ = Coding(Code("W7", "Organ of ward 7", "99WARD"))
    other = Coding(Code("9875009", "Thymus gland"))
    names = extend.Names(codes={"organ of ward seven": organ, "organ of ward eight": other})
    extend.TERMS.add("ward codes", extend.Terms(lambda: names, "x"))
    assert coded("Ward_seven_organ left") == Coding(organ.kind, side=Code("7771000", "Left"))
    assert structure_of("SCT:9875009") == structure_of("organ of ward eight")
    again = extend.Names(codes={"Liver": organ})
    with pytest.raises(extend.PartError, match="'liver' has the code 10200004 already"):
        extend.TERMS.add("wrong codes", extend.Terms(lambda: again, "x"))
    with pytest.raises(ValueError, match="1 to 16 characters"):
        Code("1" * 17, "too long")

"""Structures as coded segments (PS3.3 C.8.20.4) and back: codes, sides and colours."""

from __future__ import annotations

from dataclasses import dataclass

from ....core.labels import Label, Side, side_of


@dataclass(frozen=True)
class Code:
    """A SNOMED CT concept: its code value and meaning."""

    value: str
    meaning: str


STRUCTURE = Code("91723000", "Anatomical Structure")
ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}
# Name of a structure without its side -> property type of PS3.16 CID 7192 and others; all other
# names are coded as "Anatomical Structure".
TYPES = {
    "liver": Code("10200004", "Liver"),
    "spleen": Code("78961009", "Spleen"),
    "kidney": Code("64033007", "Kidney"),
    "pancreas": Code("15776009", "Pancreas"),
    "gallbladder": Code("28231008", "Gallbladder"),
    "stomach": Code("69695003", "Stomach"),
    "adrenal gland": Code("23451007", "Adrenal gland"),
    "lung": Code("39607008", "Lung"),
    "heart": Code("80891009", "Heart"),
    "aorta": Code("15825003", "Aorta"),
    "brain": Code("12738006", "Brain"),
    "hippocampus": Code("5366008", "Hippocampus"),
    "prostate": Code("41216001", "Prostate"),
    "urinary bladder": Code("89837001", "Bladder"),
    "esophagus": Code("32849002", "Esophagus"),
}
TUMOUR = Code("108369006", "Neoplasm")
TUMOURS = ("tumour", "tumor", "neoplasm", "lesion", "metastasis", "cancer")


def coded(label: Label) -> tuple[Code, Code]:
    """Return category and type of a structure: its own code, else a code by its name without the
    side, else "Anatomical Structure". Tumours are coded as neoplasms whatever their own code.
    """
    name = side_of(label.name)[1]
    # Tumours belong to another category than anatomy.
    if any(word in TUMOURS for word in name.split()):
        return ABNORMAL, TUMOUR
    # Only SNOMED CT numbers are accepted; other schemes fall back to the name.
    own = label.code.removeprefix("SCT:").strip()
    if own.isdigit():
        return STRUCTURE, Code(own, label.name[:64])
    return STRUCTURE, TYPES.get(name) or TYPES.get(name.removesuffix("s")) or STRUCTURE


# Codes of a side in SNOMED CT and in its older form (PS3.16 CID 244).
SIDE_CODES: dict[str, Side] = {
    "7771000": "left",
    "24028007": "right",
    "G-A101": "left",
    "G-A100": "right",
}
BACKGROUND = ("125040", "DCM")  # of a segment that is the background (PS3.16 CID 7150)
# Meanings of codes that name no particular structure.
GENERAL = {
    "anatomical structure",
    "tissue",
    "organ",
    "morphologically altered structure",
    "morphologically abnormal structure",
    "body substance",
    "physical object",
    "spatial and relational concept",
    "function",
}


def rgb_of(stored: tuple[int, int, int]) -> tuple[int, int, int]:
    """The sRGB colour of a Recommended Display CIELab Value (PS3.3 C.10.7.1.1), 0..65535 each, with
    the white point D65 that the writers of segmentations use; colours outside sRGB are clipped.

    >>> rgb_of((65535, 32896, 32896)), rgb_of((0, 32896, 32896))
    ((255, 255, 255), (0, 0, 0))
    """
    lightness, a, b = stored[0] * 100 / 65535, *(v * 255 / 65535 - 128 for v in stored[1:])
    y = (lightness + 16) / 116
    x, y, z = (
        white * (c**3 if c**3 > 0.008856 else (c - 16 / 116) / 7.787)
        for white, c in zip((0.9505, 1.0, 1.0889), (y + a / 500, y, y - b / 200), strict=True)
    )
    linear = (
        3.2406 * x - 1.5372 * y - 0.4986 * z,
        -0.9689 * x + 1.8758 * y + 0.0415 * z,
        0.0557 * x - 0.2040 * y + 1.0570 * z,
    )
    red, green, blue = (
        round(255 * min(max(1.055 * c ** (1 / 2.4) - 0.055 if c > 0.0031308 else 12.92 * c, 0), 1))
        for c in linear
    )
    return red, green, blue

"""The codes of segments that are read, and their colours (PS3.3 C.8.20.4)."""

from __future__ import annotations

from ....core.labels import Side

# Codes of a side in SNOMED CT and in its older form (PS3.16 CID 244).
SIDE_CODES: dict[str, Side] = {
    "7771000": "left",
    "24028007": "right",
    "G-A101": "left",
    "G-A100": "right",
}
BACKGROUND = "DCM:125040"  # of a segment that is the background (PS3.16 CID 7150)
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

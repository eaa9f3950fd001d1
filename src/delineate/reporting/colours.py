"""Contrast of colours (WCAG 2.2): which lines and texts are readable on their background.

Colours are red, green, blue in 0..255. Text needs a contrast of 4.5 to its background, a
line or a mark needs 3.
"""

from __future__ import annotations

from collections.abc import Sequence

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# Background and text of the report's page, light and dark; the page's style has the same values.
PAPER, INK = ((253, 253, 251), (21, 24, 27)), ((29, 34, 38), (227, 230, 228))
LEAST_OF_LINES = 3.0  # contrast of a line to its background (WCAG 1.4.11)

Colour = tuple[int, int, int]


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """The contrast of two colours, from 1 (equal) to 21 (black and white).

    >>> contrast((0, 0, 0), (255, 255, 255)), round(contrast((0, 114, 178), (127, 127, 127)), 2)
    (21.0, 1.29)
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return round((high + 0.05) / (low + 0.05), 4)


def on_dark(colour: Colour) -> Colour:
    """The colour, mixed with as little white as gives it a contrast of 3 to black.

    >>> on_dark((0, 114, 178)), on_dark((20, 20, 120))
    ((0, 114, 178), (81, 81, 155))
    """
    for percent in range(101):
        mixed = _mixed(colour, percent)
        if contrast(mixed, BLACK) >= LEAST_OF_LINES:
            return mixed
    return WHITE


def on_page(colour: str) -> str:
    """A CSS colour with a contrast of 3 to the light page and to the dark one: the colour, mixed
    with as little of the text's colour as needed.

    >>> on_page("#d55e00"), on_page("#f0e442")
    ('#d55e00', 'color-mix(in srgb, #f0e442 60%, currentColor)')
    """
    own = tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
    for percent in range(0, 101, 2):
        mixed = (_mixed(own, percent, ink) for ink in INK)
        if all(contrast(m, p) >= LEAST_OF_LINES for m, p in zip(mixed, PAPER, strict=True)):
            break
    return f"color-mix(in srgb, {colour} {100 - percent}%, currentColor)" if percent else colour


def _mixed(colour: Sequence[int], percent: int, other: Sequence[int] = WHITE) -> Colour:
    red, green, blue = (
        round(c + (o - c) * percent / 100) for c, o in zip(colour, other, strict=True)
    )
    return red, green, blue


def _luminance(colour: Sequence[int]) -> float:
    """Relative luminance, 0 for black and 1 for white."""
    red, green, blue = (
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

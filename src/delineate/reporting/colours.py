"""Contrast of colours (WCAG 2.2): which lines and texts can be told from their ground.

Colours are red, green, blue in 0..255. Text needs a contrast of 4.5 to its ground, a line or a mark
one of 3.
"""

from __future__ import annotations

from collections.abc import Sequence

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
LEAST_OF_LINES = 3.0  # contrast of a line to its ground (WCAG 1.4.11)

Colour = tuple[int, int, int]


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """The contrast of two colours, from 1 (equal) to 21 (black and white).

    >>> contrast((0, 0, 0), (255, 255, 255)), round(contrast((0, 114, 178), (127, 127, 127)), 2)
    (21.0, 1.3)
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return round((high + 0.05) / (low + 0.05), 4)


def on_dark(colour: Colour) -> Colour:
    """The colour, mixed with as little white as gives it a contrast of 3 to black.

    >>> on_dark((0, 114, 178)), on_dark((20, 20, 120))
    ((0, 114, 178), (86, 86, 157))
    """
    for percent in range(101):
        mixed = _mixed(colour, percent)
        if contrast(mixed, BLACK) >= LEAST_OF_LINES:
            return mixed
    return WHITE


def _mixed(colour: Colour, percent: int) -> Colour:
    red, green, blue = (round(c + (255 - c) * percent / 100) for c in colour)
    return red, green, blue


def _luminance(colour: Sequence[int]) -> float:
    """Relative luminance, 0 for black and 1 for white."""
    red, green, blue = (
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

"""Words of any script in the pictures that Matplotlib draws.

Its own font has no Chinese, Japanese, Korean and some other characters, and draws boxes instead.
They are drawn with a font of this machine where it has one. Otherwise structures get the English
name of what they are, or their number, other words lose these characters, and a line of the picture
states it. SVG pictures need nothing: browsers choose fonts themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..core.labels import Label, LabelSet
from ..core.terms import structure_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# Fonts with the characters of East Asia that systems have, first those that are drawn best; then
# any other. "Last Resort" has boxes for all characters.
PREFERRED = ("Noto Sans CJK", "Source Han", "PingFang", "Hiragino", "Microsoft YaHei", "Noto Sans")
BOXES = "Last Resort"
LOST = "?"


def make_legible(figure: Figure, labels: LabelSet) -> None:
    """Give every text of a figure a font that has its characters, or words that can be drawn.

    Args:
        figure: before it is drawn.
        labels: the structures whose names may be in its texts.
    """
    names = {label.name: label for label in labels}
    renamed: dict[str, None] = {}
    for text in _texts(figure):
        words = text.get_text()
        if not (missing := _missing(words)):
            continue
        family = _family_with(missing)
        if family:
            text.set_fontfamily([*text.get_fontfamily(), family])
            continue
        shown = _shown(words, names.get(words), missing)
        text.set_text(shown)
        renamed[shown] = None
    if renamed:
        note = f"no font of this computer has all characters of: {', '.join(renamed)}"
        figure.text(0.995, 0.995, note, ha="right", va="top", color="#a8a8a8", fontsize=6)


def _texts(artist: Artist) -> Iterator[Any]:
    """The texts of a figure. Axes that are off have none: to look for their ticks would make them,
    which takes most of the time of drawing a montage.
    """
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    if isinstance(artist, Text):
        yield artist
    off = isinstance(artist, Axes) and not artist.axison
    for child in artist.get_children():
        if not (off and isinstance(child, Axis)):
            yield from _texts(child)


def _shown(words: str, label: Label | None, missing: frozenset[str]) -> str:
    """What is drawn instead of words with characters that no font has."""
    if label is None:
        return "".join(LOST if one in missing else one for one in words)
    known = structure_of(label.name)
    return f"structure {label.value}" if _missing(known) else f"{known} ({label.value})"


def _missing(words: str) -> frozenset[str]:
    """The characters that Matplotlib's own font lacks."""
    if words.isascii():
        return frozenset()
    from matplotlib.font_manager import findfont

    return frozenset(one for one in words if not one.isspace()) - _characters(
        findfont("DejaVu Sans")
    )


@functools.lru_cache(maxsize=64)
def _family_with(characters: frozenset[str]) -> str:
    """The font of this machine that has all ``characters``; "" if none has."""
    from matplotlib.font_manager import fontManager

    found = {one.name: one.fname for one in fontManager.ttflist if not one.name.startswith(BOXES)}
    for name in sorted(found, key=_rank):
        if characters <= _characters(found[name]):
            return name
    return ""


def _rank(name: str) -> tuple[int, str]:
    order = (n for n, start in enumerate(PREFERRED) if name.startswith(start))
    return next(order, len(PREFERRED)), name


@functools.lru_cache(maxsize=256)
def _characters(path: str) -> frozenset[str]:
    """The characters of a font file; none of one that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        codes: Iterable[int] = FT2Font(path).get_charmap()
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, codes))

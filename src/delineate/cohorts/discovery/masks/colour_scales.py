"""Masks that a plotting program drew with a colour scale, and the label of each colour.

``matplotlib.pyplot.imsave`` draws the labels 0 to n of a slice as n + 1 evenly spaced colours of a
scale, by default viridis, whose darkest colour is the background; converted to grey, the same
labels are intensities such as 30, 91, 137 and 215. Each file is scaled by its own highest label, so
that a slice with fewer labels has other colours, or the same colours for other labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALES = ("viridis", "plasma", "inferno", "magma", "cividis", "hot", "jet", "turbo")
GREY = "gray"  # its labels are intensities, and its background is black
STEPS = 256  # colours of a scale
NEAR = 2  # versions of matplotlib differ by one in a channel, and so by one in the place
# Of red, green and blue in 1/65536, as Pillow converts pictures to grey.
LUMINANCE = np.array((19595, 38470, 7471))


@dataclass(frozen=True)
class ColourScale:
    """The labels of the colours of a cohort.

    Args:
        name: of the scale.
        labels: code 0xRRGGBB, or intensity, -> label; 0 is the background.
        unclear: the indices of the files whose labels the colours do not tell: they have colours
            between those of the others, or only the highest one although others are scaled.
    """

    name: str
    labels: Mapping[int, int]
    unclear: tuple[int, ...]


def scale_of(files: Sequence[frozenset[int]], *, grey: bool) -> ColourScale | None:
    """The scale with which all files were drawn; None if it is none of ``SCALES``.

    Args:
        files: the codes (intensities if ``grey``) in each file, with that of the background.
    """
    most = max((len(codes) for codes in files), default=0)
    if most < 2:
        return None
    codes = np.asarray(sorted(frozenset().union(*files)), dtype=np.int64)
    for name in SCALES:
        places = _places(name, codes, grey)
        if places is not None and (found := _read(name, files, places, most - 1)):
            return found
    return None


def evenly_grey(
    files: Sequence[frozenset[int]], tables: Sequence[frozenset[int]]
) -> ColourScale | None:
    """The grey scale with which ``imsave(cmap="gray")`` drew all files, if these show that each is
    scaled by its own highest label (the greys 0, 85, 170 and 255 next to 0, 128 and 255), or if the
    published data set has as many labels. None for other greys, which are values.

    Args:
        files: the intensities in each file, with 0.
        tables: the labels of the editions of the published data set, if it is known.
    """
    own = [_evenly(len(codes) - 1) for codes in files]
    most = max((len(codes) for codes in files), default=0)
    # Labels that a slice lacks in between leave gaps in its greys.
    is_scaled = any(len(codes) == 3 and codes == one for codes, one in zip(files, own, strict=True))
    if most < 4 or not (is_scaled or frozenset(range(1, most)) in tables):
        return None
    full = _evenly(most - 1)
    scaled = frozenset().union(*(_evenly(n) for n in range(1, most)))
    if any(len(codes) == most and codes != full for codes in files) or any(
        not codes <= scaled for codes in files
    ):
        return None
    labels = {code: k for k, code in enumerate(sorted(full))}
    held = [{labels.get(code, -1) for code in codes} for codes in files]
    return ColourScale(GREY, labels, _unclear(held, most - 1))


def _evenly(highest: int) -> frozenset[int]:
    """The intensities of the labels 0 to ``highest`` on the grey scale."""
    return frozenset(min(STEPS - 1, STEPS * k // max(1, highest)) for k in range(highest + 1))


def _places(name: str, codes: NDArray[np.int64], grey: bool) -> dict[int, int] | None:
    """Code -> its place in the scale; None if one is not in it."""
    from matplotlib import colormaps

    scale = colormaps[name](np.arange(STEPS), bytes=True)[:, :3].astype(np.int64)
    if grey:
        own = (np.dot(scale, LUMINANCE) + 0x8000)[:, None] // 65536
        given = codes[:, None]
    else:
        own = scale
        given = np.stack([codes // 65536, codes // 256 % 256, codes % 256], axis=1)
    distance = np.abs(own[None] - given[:, None]).max(axis=2)
    if (distance.min(axis=1) > NEAR).any():
        return None
    return dict(zip(codes.tolist(), distance.argmin(axis=1).tolist(), strict=True))


def _read(
    name: str, files: Sequence[frozenset[int]], places: Mapping[int, int], highest: int
) -> ColourScale | None:
    """The labels of the colours, if those of the files with the most are evenly spaced."""
    at = {min(STEPS - 1, STEPS * k // highest): k for k in range(highest + 1)}
    label = {
        code: k
        for code, place in places.items()
        for near, k in at.items()
        if abs(place - near) <= NEAR
    }
    full = [codes for codes in files if len(codes) == highest + 1]
    if any({label.get(code) for code in codes} != set(range(highest + 1)) for codes in full):
        return None
    held = [{label.get(code, -1) for code in codes} for codes in files]
    return ColourScale(name, label, _unclear(held, highest))


def _unclear(held: Sequence[set[int]], highest: int) -> tuple[int, ...]:
    """The indices of the files with unclear labels, from the labels in each; -1 is no label."""
    strange = {n for n, labels in enumerate(held) if -1 in labels}
    # If files have a scale of their own, the highest colour alone may be any label. They share one
    # if a file lacks the highest colour.
    if highest == 1 or (not strange and any(0 < max(one) < highest for one in held if one)):
        return tuple(sorted(strange))
    alone = {
        n for n, labels in enumerate(held) if labels - {-1} <= {0, highest} and len(labels) > 1
    }
    return tuple(sorted(strange | alone))

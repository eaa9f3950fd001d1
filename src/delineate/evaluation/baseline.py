"""The trivial baseline of a segmentation: the mean shape of the training cases.

A model must be better than what needs no image. Here that is the region in which at least a certain
share of the training cases has the structure, at the same relative position in the prepared scan;
the share that gives the best mean Dice on the training cases is used. A share of zero is the whole
scan, so the best constant answer, such as the majority class, is one of the choices.

Works on class indices (0 background) of prepared cases, of any shapes. The module reads no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.labels import LabelSet

LATTICE = 48  # points along each axis at which label maps of different shapes are compared


def mean_shape_dice(
    training: Iterable[NDArray[Any]], held_out: Iterable[NDArray[Any]], classes: int
) -> dict[int, float]:
    """The mean Dice of the training cases' mean shape with each structure of the held-out cases.

    Args:
        training, held_out: label maps (I, J, K) of class indices; larger ones are ignored voxels.
        classes: number of classes, background included.

    Returns:
        Class index -> mean Dice over the held-out cases that contain the structure; 0 if no
        training case contains it. Structures that no held-out case contains are left out.

    >>> ball = np.zeros((8, 8, 8), int)
    >>> ball[2:6, 2:6, 2:6] = 1
    >>> mean_shape_dice([ball, ball], [ball], 2), mean_shape_dice([ball], [ball * 0], 2)
    ({1: 1.0}, {})
    """
    learned = [_sampled(label, classes) for label in training]
    if not learned:
        return {}
    # (classes, P) how many training cases have each class at each point.
    counts = np.zeros((classes, learned[0].size), np.int32)
    for points in learned:
        counts[points, np.arange(points.size)] += 1
    # Structure -> number of points with at least n training cases, for n from 0.
    sizes = {c: _at_least(counts[c], len(learned)) for c in range(1, classes)}
    found = _dice(learned, counts, sizes)
    best = {c: int(np.argmax(np.mean(each, axis=0))) for c, each in found.items()}
    scored = _dice([_sampled(label, classes) for label in held_out], counts, sizes)
    return {
        c: float(np.mean([dice[best[c]] for dice in each])) if c in best else 0.0
        for c, each in sorted(scored.items())
    }


def trivial_dice(
    training: Sequence[NDArray[Any]], held_out: Sequence[NDArray[Any]], labels: LabelSet
) -> dict[str, float]:
    """Structure -> its ``mean_shape_dice``; of structures that overlap, whose prepared cases hold
    codes, each has a mask of its own.
    """
    if not labels.overlapping:
        found = mean_shape_dice(training, held_out, len(labels) + 1)
        return {labels.names[index - 1]: dice for index, dice in found.items()}
    each = {}
    for structure in labels:
        one = [labels.inside(codes, structure) for codes in training]
        other = [labels.inside(codes, structure) for codes in held_out]
        if found := mean_shape_dice(one, other, 2):
            each[structure.name] = found[1]
    return each


def _sampled(label: NDArray[Any], classes: int) -> NDArray[np.intp]:
    """(P,) classes at ``LATTICE`` points along each axis, evenly spread over the case; ignored
    voxels count as background.
    """
    steps = [((np.arange(LATTICE) + 0.5) / LATTICE * n).astype(int) for n in label.shape]
    if label.shape[2] == 1:  # a single slice
        steps[2] = np.zeros(1, int)
    points = label[np.ix_(*steps)].ravel().astype(np.intp)
    return np.where(points < classes, points, 0)


def _at_least(counts: NDArray[np.int32], most: int) -> NDArray[np.intp]:
    """(most + 1,) how many of ``counts`` are at least 0, 1, 2, ..."""
    return np.bincount(counts, minlength=most + 1)[::-1].cumsum()[::-1]


def _dice(
    cases: Sequence[NDArray[np.intp]], counts: NDArray[np.int32], sizes: dict[int, NDArray[np.intp]]
) -> dict[int, list[NDArray[np.float64]]]:
    """Structure -> for each case that contains it, the Dice (n,) with the region of at least 0, 1,
    2, ... training cases.
    """
    found: dict[int, list[NDArray[np.float64]]] = {}
    for points in cases:
        for c in np.unique(points[points > 0]).tolist():
            inside = np.flatnonzero(points == c)
            common = _at_least(counts[c, inside], len(sizes[c]) - 1)
            found.setdefault(c, []).append(2 * common / (len(inside) + sizes[c]))
    return found

"""Channels that are exchanged in some cases, found by their intensities.

``profile_of`` describes one channel of one case without its scale: how its intensities are
distributed, and how bright its structures are. Two channels that differ do so in the same way in
every case; where they differ in the opposite way, they are exchanged. Works on arrays and reads no
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SEEN = 50_000  # voxels of a channel
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles of a profile
MOST_STRUCTURES = 4  # whose brightness is part of a profile
FEWEST_CASES = 6
MOST_CHANNELS = 16
MOST_ROUNDS = 3
# The differences of two channels have one direction if this share of them is within acos ALONG of
# it, and if their mean length is at least STEADY standard deviations.
ONE_DIRECTION, ALONG, STEADY = 0.9, 0.7, 2.5


def profiles_of(
    image: NDArray[np.generic], label: NDArray[np.integer] | None
) -> NDArray[np.float64]:
    """A row for each channel of an image (C, I, J, K): the quantiles ``SHARES``, and the mean of
    the largest structures of ``label`` (I, J, K), in standard deviations from the mean. NaN where a
    structure is missing.
    """
    step = max(1, image[0].size // SEEN)
    values = None if label is None else label.reshape(-1)[::step]
    counts = np.bincount(values.astype(np.int64)) if values is not None else np.zeros(1)
    return np.stack([_profile(channel, step, values, counts) for channel in image])


def _profile(
    channel: NDArray[np.generic],
    step: int,
    values: NDArray[np.integer] | None,
    counts: NDArray[np.generic],
) -> NDArray[np.float64]:
    some = np.nan_to_num(channel.reshape(-1)[::step].astype(np.float64))
    seen = some != some.min()  # without the margin
    seen = seen if seen.any() else ~seen
    # Ranges of the middle nine tenths: a few bright voxels do not matter.
    low, high = np.quantile(some[seen], (0.05, 0.95))
    scaled = (np.clip(some, low, high) - low) / max(high - low, 1e-12)
    body = scaled[seen]
    profile = [(float(q) - body.mean()) / (body.std() + 1e-9) for q in np.quantile(body, SHARES)]
    for value in range(1, MOST_STRUCTURES + 1):
        inside = None if values is None or value >= len(counts) else values == value
        known = inside is not None and int(inside.sum()) >= 5
        profile.append(
            (float(scaled[inside].mean()) - body.mean()) / (body.std() + 1e-9) if known else np.nan
        )
    return np.array(profile)


def exchanged(profiles: Mapping[str, NDArray[np.float64]]) -> dict[tuple[int, int], list[str]]:
    """Pairs of channels -> the cases, at most half of them, in which they are exchanged.

    Args:
        profiles: case -> (C, F); cases with fewer channels than most are left out.
    """
    if not profiles:
        return {}
    count = int(np.median([len(p) for p in profiles.values()]))
    cases = [case for case, p in profiles.items() if len(p) == count]
    if len(cases) < FEWEST_CASES or not 2 <= count <= MOST_CHANNELS:
        return {}
    every = np.stack([profiles[case] for case in cases])
    every = every[:, :, np.isfinite(every).all(axis=(0, 1))].copy()
    named: dict[tuple[int, int], list[str]] = {}
    # What is found is put right before the next search, so that it hides no other pair.
    for _ in range(MOST_ROUNDS):
        odd = _odd(every)
        for n, pair in odd.items():
            named.setdefault(pair, []).append(cases[n])
            every[n] = _swapped(every[n], pair)
        if not odd:
            break
    return named


def _odd(every: NDArray[np.float64]) -> dict[int, tuple[int, int]]:
    """Number of a case -> the pair of its channels that is exchanged, of profiles (N, C, F)."""
    found = {
        (a, b): _reversed(every[:, a] - every[:, b])
        for a, b in combinations(range(every.shape[1]), 2)
    }
    odd = np.any(list(found.values()), axis=0)
    if not odd.any() or odd.all():
        return {}
    usual = np.median(every[~odd], axis=0)
    best = {}
    # A channel that is exchanged with one may look exchanged with another: the better fit counts.
    for n in np.flatnonzero(odd).tolist():
        pairs = [pair for pair, cases in found.items() if cases[n]]
        best[n] = min(
            pairs, key=lambda pair: float(((_swapped(every[n], pair) - usual) ** 2).sum())
        )
    return best


def _swapped(profile: NDArray[np.float64], pair: tuple[int, int]) -> NDArray[np.float64]:
    order = np.arange(len(profile))
    order[list(pair)] = order[list(pair[::-1])]
    return profile[order]


def _reversed(lines: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The differences (N, F) of two channels that have the opposite direction of most; none if they
    have no common direction.
    """
    none = np.zeros(len(lines), bool)
    lengths = np.linalg.norm(lines, axis=1)
    axis = np.linalg.eigh(lines.T @ lines)[1][:, -1]
    along = lines @ axis
    cosines = np.abs(along) / np.maximum(lengths, 1e-9)
    if np.mean(cosines > ALONG) < ONE_DIRECTION:
        return none
    if np.abs(along).mean() < STEADY * np.abs(along).std():
        return none
    odd = along > 0 if (along > 0).sum() <= (along < 0).sum() else along < 0
    return np.asarray(odd & (cosines > ALONG))

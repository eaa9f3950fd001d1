"""Flags of predictions that look unlike the training cases.

    scan, label map --measure--> CaseMeasures      of training cases with their truth
    CaseMeasures of n cases --ranges_of--> Ranges  recorded in the model's card
    CaseMeasures, Ranges --flags--> sentences      of a prediction

A quantity is flagged if it is outside everything seen in training and outside the normal-theory
prediction interval for one more observation, mean ± t s sqrt(1 + 1/n) (Hahn & Meeker,
*Statistical Intervals*, 1991). The level of each interval is ``FALSE_FLAGS`` divided by the number
of quantities, so that about this share of good scans is flagged, however many structures there are.
Volumes, spacings and sizes are compared as logarithms. Intensities are compared by HU in CT;
elsewhere, where their unit is arbitrary, by the shape of their distribution and the contrast of the
structures.

Whether a scan is mirrored is asked directly. Its asymmetry along an axis, the difference of the
scan and its mirror image, is compared with that of the mean training scan: their cosine is positive
in scans like those, and changes its sign exactly if the scan is mirrored. It is flagged if it is
negative and outside the prediction interval of the training cases, each compared with the mean of
the others. Exchanged bright and dark are found in the same way, from the scan itself.

Left and right are judged by the rule of ``cohorts.checks.sides``. The module reads no files. Axes
are R, A, S.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cohorts.checks.sides import body_x, wrong_sides
from ..core.labels import LabelSet
from ..core.volume import Volume
from ..core.words import joined, number_text
from ..preprocessing.regions import bounding_box, boxes, component_sizes

SCHEMA = 2
FALSE_FLAGS = 0.01  # of good scans, about
FEWEST = 5  # training cases with a quantity, below which it is not checked
SAMPLE = 100_000  # voxels of a scan that are looked at, evenly spread
PERCENTILES = (1, 25, 50, 75, 99)
LATTICE = 10  # points along each axis of the coarse scan
AXES = {"R": "left to right", "A": "front to back", "S": "head to feet"}
# Least standard deviations, so that quantities that never vary are not flagged for rounding.
LEAST_LOG, LEAST_SHARE, LEAST_HU = 0.05, 0.02, 10.0
# Of a structure: smaller connected components are not counted, because no volume is flagged for so
# small a share either. Truths have hardly any such components, masks of good models some.
SPECK = LEAST_LOG
MOST_NAMED = 4
DIGITS = 6  # of the numbers in a card


@dataclass(frozen=True, eq=False)
class ScanSample:
    """What is kept of a scan until its prediction is there.

    Args:
        quantities: name -> value, of the scan alone.
        values: (i, j, k) every n-th voxel of the first channel, and the ``steps`` n of each axis.
        problems: kind -> sentence: constant, hardly any finite voxel.
        coarse: (LATTICE³,) the first channel at a lattice of points over the scan, axes R, A, S,
            from 0 (the first of ``PERCENTILES``) to 100 (the last); empty without a position in the
            patient.
        middle_mm, width_mm: of the body along x; NaN without a position in the patient.
        placed: whether x means left and right.
    """

    quantities: Mapping[str, float]
    values: NDArray[np.float32]
    steps: tuple[int, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    coarse: tuple[int, ...] = ()
    middle_mm: float = math.nan
    width_mm: float = math.nan
    placed: bool = True


@dataclass(frozen=True)
class CaseMeasures:
    """The quantities of a scan with its label map, and what is wrong whatever the training cases
    were.

    Args:
        quantities: name -> value, such as "volume of liver" -> the logarithm of its ml.
        structures: names of those that are present.
        problems: kind -> sentence.
        components: structure -> number of its connected components, without specks.
        coarse: see ``ScanSample``.
        concerned: kind of a problem -> the structures that it is about.
    """

    quantities: Mapping[str, float]
    structures: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    components: Mapping[str, int] = field(default_factory=dict)
    coarse: tuple[int, ...] = ()
    concerned: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return vars(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaseMeasures:
        """From ``to_json``."""
        known = {key: data[key] for key in ("quantities", "problems", "components")}
        structures, coarse = tuple(data["structures"]), tuple(data["coarse"])
        # Stores of earlier versions lack the last field.
        return cls(
            structures=structures, coarse=coarse, concerned=data.get("concerned", {}), **known
        )


@dataclass(frozen=True)
class Range:
    """A quantity over n training cases: mean, standard deviation, and the extremes."""

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranges:
    """The quantities of all training cases.

    Args:
        cases: number of training cases.
        ranges: quantity -> its range.
        always: structures that every case has.
        components: structure -> the largest number of its connected components.
        coarse: the mean of their coarse scans.
    """

    cases: int
    ranges: Mapping[str, Range]
    always: tuple[str, ...] = ()
    components: Mapping[str, int] = field(default_factory=dict)
    coarse: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for the model's card."""
        return {
            "schema": SCHEMA,
            "cases": self.cases,
            "ranges": {
                name: [r.n, *(float(f"{v:.{DIGITS}g}") for v in (r.mean, r.std, r.low, r.high))]
                for name, r in self.ranges.items()
            },
            "always": list(self.always),
            "components": dict(self.components),
            "coarse": list(self.coarse),
        }

    @classmethod
    def from_json(cls, data: Any) -> Ranges | None:
        """The record in a card; None without one that this version reads."""
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            return None
        ranges = {name: Range(*values) for name, values in data["ranges"].items()}
        always, coarse = tuple(data["always"]), tuple(data["coarse"])
        return cls(data["cases"], ranges, always, data["components"], coarse)


# ---- one case ----


def sample(scan: Volume) -> ScanSample:
    """What is measured of a scan (I, J, K) or (C, I, J, K) before it is prepared."""
    channels = scan.channels_array
    shape = channels.shape[1:]
    step = max(1, math.ceil((np.prod(shape) / SAMPLE) ** (1 / sum(n > 1 for n in shape) or 1)))
    steps = tuple(step if n > 1 else 1 for n in shape)
    quantities: dict[str, float] = {}
    problems: dict[str, str] = {}
    grid = scan.grid.reorient("RAS")[0]
    for axis, spacing, size in zip("RAS", grid.spacing_mm, grid.shape, strict=True):
        if scan.meta.get("spacing_known", True):
            quantities[f"spacing {axis}"] = math.log(spacing)
            quantities[f"size {axis}"] = math.log(spacing * size)
    first = np.zeros((1, 1, 1), np.float32)
    for number, channel in enumerate(channels):
        seen = channel[tuple(slice(None, None, s) for s in steps)].astype(np.float32)
        finite = seen[np.isfinite(seen)]
        first = seen if number == 0 else first
        name = f"channel {number + 1}" if len(channels) > 1 else "the scan"
        if finite.size < 0.01 * seen.size:
            problems["not finite"] = f"hardly any voxel of {name} is finite"
        elif float(finite.min()) == float(finite.max()):
            problems["constant"] = f"all voxels of {name} have the value {float(finite[0]):g}"
        else:
            quantities |= _intensities(number, finite, scan.unit == "HU")
            quantities[f"lacking {number}"] = 1 - finite.size / seen.size
    placed = bool(scan.meta.get("place_known", True)) and shape[2] > 1
    if not placed or problems:
        return ScanSample(quantities, first, steps, problems, placed=placed)
    middle, width = body_x(scan)
    return ScanSample(quantities, first, steps, problems, _coarse(scan), middle, width, placed)


def _coarse(scan: Volume) -> tuple[int, ...]:
    """See ``ScanSample.coarse``."""
    values = scan.reorient("RAS").channels_array[0]
    for axis, n in enumerate(values.shape):
        # The mean of the voxels on both sides of a point, so that a mirrored scan gives the mirror.
        at = ((np.arange(LATTICE) + 0.5) / LATTICE * n - 0.5).clip(0, n - 1)
        # Not ``take``, which copies all voxels of a scan whose axes are turned.
        before = (slice(None),) * axis
        below, above = (values[(*before, f(at).astype(int))] for f in (np.floor, np.ceil))
        values = (below.astype(np.float32) + above) / 2
    values = np.nan_to_num(values)
    low, high = np.percentile(values, (PERCENTILES[0], PERCENTILES[-1]))
    scaled = 100 * (values - low) / max(float(high - low), 1e-30)
    return tuple(np.rint(scaled.clip(0, 100)).astype(int).ravel().tolist())


def _intensities(channel: int, values: NDArray[np.float32], is_hu: bool) -> dict[str, float]:
    """The shape of the distribution of the intensities; of CT its percentiles in HU."""
    at = np.percentile(values, PERCENTILES)
    if is_hu:
        named = zip(PERCENTILES, at.tolist(), strict=True)
        return {f"HU {channel} {p}": v for p, v in named if p in (50, 99)}
    reach = max(float(at[-1] - at[0]), 1e-30)
    inner = zip(PERCENTILES[1:-1], at[1:-1].tolist(), strict=True)
    return {f"intensity {channel} {p}": (v - float(at[0])) / reach for p, v in inner}


def measure(seen: ScanSample, label: Volume, labels: LabelSet) -> CaseMeasures:
    """The quantities of a scan with a label map on its grid (I, J, K)."""
    quantities, problems = dict(seen.quantities), dict(seen.problems)
    array = label.array
    places = {} if labels.overlapping else boxes(array)
    present, components, concerned = [], {}, {}
    for structure in labels:
        # The box of a label value; of bits or of several values, that of the whole mask.
        box = places.get(structure.value)
        if labels.overlapping or structure.parts:
            box = bounding_box(labels.inside(array, structure))
        if box is None:
            continue
        name, mask = structure.name, labels.inside(array[box], structure)
        present.append(name)
        voxels = int(np.count_nonzero(mask))
        quantities[f"volume of {name}"] = math.log(voxels * label.grid.voxel_ml)
        components[name] = _components(mask, voxels)
        if seen.placed and seen.width_mm > 0:
            x = _centre_x(mask, box, label)
            quantities[f"position of {name}"] = (x - seen.middle_mm) / seen.width_mm
    # Of many structures one or two often have one component more than ever before: their sum is
    # compared.
    quantities["components"] = sum(math.log(n) for n in components.values())
    contrast = _contrast(seen, array)
    if math.isfinite(contrast):
        quantities["contrast"] = contrast
    if seen.placed and not seen.problems:
        wrong = wrong_sides(label, labels, seen.middle_mm, seen.width_mm)
        if wrong:
            concerned["side"] = names = [b.name for b in labels if b.value in wrong]
            problems["side"] = (
                f"{joined(names, MOST_NAMED)}: up to {max(wrong.values()):.0f} mm on the wrong side"
            )
    return CaseMeasures(quantities, tuple(present), problems, components, seen.coarse, concerned)


def _components(mask: NDArray[np.bool_], voxels: int) -> int:
    """Connected components (26 neighbours) without specks."""
    sizes = component_sizes(mask)
    return max(1, int((sizes >= SPECK * voxels).sum()))


def _centre_x(mask: NDArray[np.bool_], box: Sequence[slice], label: Volume) -> float:
    """x of a structure's centroid in RAS+ mm."""
    centre = [
        float(np.average(np.arange(n), weights=mask.sum(axis=tuple(o for o in range(3) if o != a))))
        + part.start
        for a, (n, part) in enumerate(zip(mask.shape, box, strict=True))
    ]
    return float(label.grid.to_mm(np.array([centre]))[0, 0])


def _contrast(seen: ScanSample, array: NDArray[Any]) -> float:
    """Mean intensity inside the structures, on the scale of the scan's own percentiles."""
    inside = array[tuple(slice(None, None, s) for s in seen.steps)] > 0
    values = seen.values
    finite = np.isfinite(values)
    if not (inside & finite).any() or seen.problems:
        return math.nan
    low, high = np.percentile(values[finite], (PERCENTILES[0], PERCENTILES[-1]))
    return float((values[inside & finite].mean() - low) / max(float(high - low), 1e-30))


# ---- many cases ----


def ranges_of(cases: Sequence[CaseMeasures]) -> Ranges:
    """The ranges of the training cases."""
    values: dict[str, list[float]] = {}
    scans = [np.array(case.coarse, float) for case in cases if case.coarse]
    total = np.sum(scans, axis=0) if scans else np.zeros(0)
    for quantities in (
        *(case.quantities for case in cases),
        *(_cosines(scan, total - scan) for scan in scans),
    ):
        for name, value in quantities.items():
            values.setdefault(name, []).append(value)
    ranges = {
        name: Range(len(v), float(np.mean(v)), float(np.std(v, ddof=1)), min(v), max(v))
        for name, v in values.items()
        if len(v) >= FEWEST
    }
    structures = dict.fromkeys(name for case in cases for name in case.structures)
    always = [n for n in structures if all(n in case.structures for case in cases)]
    components: dict[str, int] = {}
    for case in cases:
        for name, count in case.components.items():
            components[name] = max(count, components.get(name, 0))
    mean = tuple(np.round(total / max(1, len(scans)), 1).tolist())
    return Ranges(
        len(cases), ranges, tuple(always) if len(cases) >= FEWEST else (), components, mean
    )


def _cosines(coarse: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
    """Cosines of two coarse scans: of their differences from their means ("likeness"), and of their
    asymmetries along each axis; those that are defined.
    """
    each = [scan.reshape((LATTICE,) * 3) for scan in (coarse, other)]
    parts = {"likeness": [scan - scan.mean() for scan in each]} | {
        f"asymmetry {axis}": [scan - np.flip(scan, number) for scan in each]
        for number, axis in enumerate(AXES)
    }
    sizes = {
        name: float(np.prod([np.linalg.norm(p) for p in pair])) for name, pair in parts.items()
    }
    return {
        name: float(np.vdot(*pair)) / sizes[name] for name, pair in parts.items() if sizes[name] > 0
    }


def _best_change(coarse: NDArray[np.float64], mean: NDArray[np.float64]) -> str:
    """The change that makes a coarse scan most like the mean of the training cases: "likeness",
    with bright and dark exchanged, or the asymmetry along an axis, mirrored.
    """
    cube, known = (scan.reshape((LATTICE,) * 3) for scan in (coarse, mean - mean.mean()))
    gains = {f"asymmetry {axis}": np.vdot(np.flip(cube, n), known) for n, axis in enumerate(AXES)}
    gains["likeness"] = -np.vdot(cube, known)
    return max(gains, key=lambda name: float(gains[name]))


def flags(case: CaseMeasures, ranges: Ranges | None) -> list[dict[str, Any]]:
    """What is implausible: kind, sentence and structures of each flag; one about the scan has none
    of them. Without ranges, as of imported models, only what is wrong in itself.
    """
    found = [
        _flag(kind, words, case.concerned.get(kind, ())) for kind, words in case.problems.items()
    ]
    if ranges is None:
        return found
    missing = [name for name in ranges.always if name not in case.structures]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        words = f"{joined(missing, MOST_NAMED)} {verb} missing, which every training case has"
        found.append(_flag("missing", words, missing))
    quantities = dict(case.quantities)
    if case.coarse and ranges.coarse:
        scans = np.array(case.coarse, float), np.array(ranges.coarse)
        # Of several changes that explain a scan, the best one is named.
        best = _best_change(*scans)
        quantities |= {name: value for name, value in _cosines(*scans).items() if name == best}
    outside: dict[str, list[tuple[str, Sequence[str]]]] = {}
    checked = [name for name in quantities if name in ranges.ranges]
    for name in checked:
        value, known = quantities[name], ranges.ranges[name]
        if _is_outside(name, value, known, FALSE_FLAGS / len(checked)):
            about = (
                _more_components(case, ranges)
                if name == "components"
                else (_words(name, value, known), _structure_in(name))
            )
            outside.setdefault(name.split()[0], []).append(about)
    for kind, listed in outside.items():
        words = "; ".join(words for words, _ in listed[:MOST_NAMED])
        found.append(
            _flag(_KINDS.get(kind, kind), words, [n for _, names in listed for n in names])
        )
    return found


def _flag(kind: str, words: str, structures: Sequence[str]) -> dict[str, Any]:
    return {"kind": kind, "words": words, "structures": list(structures)}


def _structure_in(quantity: str) -> Sequence[str]:
    """The structure that a quantity such as "volume of liver" is of, if it is of one."""
    _, _, structure = quantity.partition(" of ")
    return [structure] if structure else ()


def _is_outside(name: str, value: float, known: Range, level: float) -> bool:
    """Whether a value is beyond all training cases and beyond the prediction interval."""
    rounding = 10.0 ** (1 - DIGITS) * max(1.0, abs(value))
    if known.low - rounding <= value <= known.high + rounding:
        return False
    kind = name.split()[0]
    if (kind == "components" and value < known.low) or (kind in _COSINES and value >= 0):
        return False
    # Quick to import, unlike scipy.stats, and hardly any scan comes here.
    from scipy.special import stdtrit

    least = LEAST_HU if kind == "HU" else LEAST_SHARE if kind in _SHARES else LEAST_LOG
    reach = float(stdtrit(known.n - 1, 1 - level / 2)) * max(known.std, least)
    return abs(value - known.mean) > reach * math.sqrt(1 + 1 / known.n)


_COSINES = ("likeness", "asymmetry")
_SHARES = ("intensity", "contrast", "lacking")
_KINDS = {
    "HU": "intensity",
    "contrast": "intensity",
    "lacking": "not finite",
    "likeness": "intensity",
    "asymmetry": "mirrored",
}
_UNITS = {"volume": " ml", "spacing": " mm", "size": " mm"}


def _more_components(case: CaseMeasures, ranges: Ranges) -> tuple[str, Sequence[str]]:
    """A sentence about the structures with more connected components than in any training case, or,
    if it is their number that is new, those with several; and their names.
    """
    more = {
        name: f"{name} ({count}, in training at most {ranges.components.get(name, 0)})"
        for name, count in case.components.items()
        if count > ranges.components.get(name, 0)
    }
    if more:
        words = f"more connected components than ever seen: {joined([*more.values()], MOST_NAMED)}"
        return words, [*more]
    several = {name: f"{name} ({count})" for name, count in case.components.items() if count > 1}
    named = joined([*several.values()], MOST_NAMED)
    return f"more structures in several components than ever seen: {named}", [*several]


def _words(name: str, value: float, known: Range) -> str:
    """The value and the range of the training cases."""
    kind, _, rest = name.partition(" ")
    if kind in _UNITS:
        shown = [number_text(math.exp(v)) for v in (value, known.low, known.high)]
        what = f"{kind} {rest}" if kind == "volume" else f"{kind} along {rest}"
        return f"{what}: {shown[0]}{_UNITS[kind]}, in training {shown[1]} to {shown[2]}"
    if kind == "likeness":
        return "what is bright in the training cases is dark, and the reverse"
    if kind == "asymmetry":
        return f"the scan looks mirrored, {AXES[rest]}, compared with the training cases"
    if kind == "lacking":
        shares = [f"{100 * v:.0f} %" for v in (value, known.low, known.high)]
        return f"{shares[0]} of the voxels are not finite, in training {shares[1]} to {shares[2]}"
    if kind == "position":
        return f"{rest.removeprefix('of ')} is not where it is in the training cases, left to right"
    shown = [f"{v:.3g}" for v in (value, known.low, known.high)]
    what = {"contrast": "contrast of the structures"}.get(kind, "distribution of intensities")
    return f"{what}: {shown[0]}, in training {shown[1]} to {shown[2]}"

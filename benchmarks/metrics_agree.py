"""Agreement of our metrics with those of MONAI, surface-distance, medpy, scikit-image and
scikit-learn on the same masks, and the cases in which they differ.

    python benchmarks/metrics_agree.py --peer FOLDER_OF_A_VENV [--masks 60]

The peers' environment needs monai, medpy, surface-distance-based-measures, scikit-image and
scikit-learn. The masks are random blobs and noise with several volume shares, in 2-D and 3-D with
anisotropic spacing, and special cases that implementations often get wrong: thin sheets and lines,
single voxels, holes, masks that touch or fill the border, and structures that are absent from one
or both masks. Each measure is compared with the measure of ours that has the same definition. For
each, the result holds the number of pairs, the largest difference (absolute and relative to the
larger figure), and the number of pairs in which only one of the two is finite, with these cases. If
a definition is known to differ, ``why`` explains how.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from delineate.metrics import confusion, overlap, surface
from delineate.metrics.centreline import cl_dice, skeleton
from delineate.trust.calibration import calibration
from measure import child, keep

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array, tuple[float, ...]]  # prediction, truth, spacing in mm
# Squared distances on these grids have at most four decimals, so no distance equals a tolerance and
# rounding cannot decide whether it is within.
TOLERANCES = (1.0507, 2.3003)
STRUCTURES = (1, 2, 3)

# The peers' figures, in a process of their environment. MONAI's quantile is also called in float64.
PEERS = """
import json, sys, warnings
import numpy as np

warnings.simplefilter("ignore")
np.Inf, np.NaN = np.inf, np.nan  # surface-distance was written for numpy 1
import monai.metrics as mm, torch
from monai.metrics.confusion_matrix import compute_confusion_matrix_metric
from medpy.metric import binary
import surface_distance as sd
from skimage.measure import euler_number, label
from skimage.morphology import skeletonize
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

in_float32 = mm.hausdorff_distance._compute_percentile_hausdorff_distance
in_float64 = lambda d, percentile: in_float32(d.double(), percentile)
given, target, tolerances = np.load(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
RATES = [
    "sensitivity",
    "specificity",
    "precision",
    "negative predictive value",
    "miss rate",
    "fall out",
    "false discovery rate",
    "false omission rate",
    "prevalence threshold",
    "threat score",
    "accuracy",
    "balanced accuracy",
    "f1 score",
    "matthews correlation coefficient",
    "fowlkes mallows index",
    "informedness",
    "markedness",
]


def precise(call):
    mm.hausdorff_distance._compute_percentile_hausdorff_distance = in_float64
    try:
        return call()
    finally:
        mm.hausdorff_distance._compute_percentile_hausdorff_distance = in_float32


def attempt(call):
    try:
        return float(call())
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        return "refused"


def of_masks(p, t, spacing):
    tp, tt = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (p, t))
    more = {"include_background": True, "spacing": spacing}
    calls = {
        "MONAI dice": lambda: mm.compute_dice(tp, tt),
        "MONAI iou": lambda: mm.compute_iou(tp, tt),
        "MONAI dice, ignore_empty=False": lambda: mm.compute_dice(tp, tt, ignore_empty=False),
        "MONAI hausdorff": lambda: mm.compute_hausdorff_distance(tp, tt, **more),
        "MONAI hausdorff, directed": lambda: mm.compute_hausdorff_distance(
            tp, tt, directed=True, **more
        ),
        "MONAI hd95": lambda: mm.compute_hausdorff_distance(tp, tt, percentile=95, **more),
        "MONAI hd95, directed": lambda: mm.compute_hausdorff_distance(
            tp, tt, percentile=95, directed=True, **more
        ),
        "MONAI hd95, its quantile in float64": lambda: precise(
            lambda: mm.compute_hausdorff_distance(tp, tt, percentile=95, **more)
        ),
        "MONAI hd50": lambda: mm.compute_hausdorff_distance(tp, tt, percentile=50, **more),
        "MONAI asd": lambda: mm.compute_average_surface_distance(tp, tt, **more),
        "MONAI assd": lambda: mm.compute_average_surface_distance(tp, tt, symmetric=True, **more),
        "medpy dice": lambda: binary.dc(p, t),
        "medpy iou": lambda: binary.jc(p, t),
        "medpy precision": lambda: binary.precision(p, t),
        "medpy recall": lambda: binary.recall(p, t),
        "medpy specificity": lambda: binary.specificity(p, t),
        "medpy hausdorff": lambda: binary.hd(p, t, spacing),
        "medpy hd95": lambda: binary.hd95(p, t, spacing),
        "medpy asd": lambda: binary.asd(p, t, spacing),
        "medpy assd": lambda: binary.assd(p, t, spacing),
    }
    for tolerance in tolerances:
        calls[f"MONAI surface dice {tolerance}"] = lambda tolerance=tolerance: (
            mm.compute_surface_dice(tp, tt, [tolerance], **more)
        )
        calls[f"MONAI surface dice {tolerance}, subvoxels"] = lambda tolerance=tolerance: (
            mm.compute_surface_dice(tp, tt, [tolerance], use_subvoxels=True, **more)
        )
    found = {name: attempt(call) for name, call in calls.items()}
    matrix = mm.get_confusion_matrix(tp, tt)
    found |= {f"MONAI {name}": float(v) for name, v in zip(("tp", "fp", "tn", "fn"), matrix[0, 0])}
    found |= {
        f"MONAI {rate}": float(compute_confusion_matrix_metric(rate, matrix)[0, 0])
        for rate in RATES
    }
    found["MONAI prevalence threshold, in float64"] = float(
        compute_confusion_matrix_metric("prevalence threshold", matrix.double())[0, 0]
    )
    return found | of_surfels(p, t, spacing) | of_lines(p, t)


def of_surfels(p, t, spacing):
    d = sd.compute_surface_distances(t, p, spacing)
    calls = {
        f"surface-distance hd{q}": (lambda q=q: sd.compute_robust_hausdorff(d, q))
        for q in (100, 95, 50)
    }
    calls |= {
        f"surface-distance surface dice {x}": (
            lambda x=x: sd.compute_surface_dice_at_tolerance(d, x)
        )
        for x in tolerances
    }
    calls |= {
        "surface-distance average, truth": lambda: sd.compute_average_surface_distance(d)[0],
        "surface-distance average, prediction": lambda: sd.compute_average_surface_distance(d)[1],
    }
    return {name: attempt(call) for name, call in calls.items()}


def kept(m, line):
    # Topology: numbers of components and of background components, and the Euler number.
    topology = lambda a: (
        label(a).max(),
        label(~np.pad(a, 1), connectivity=1).max(),
        euler_number(a, connectivity=a.ndim) if a.any() else 0,
    )
    return topology(m) == topology(line)


def of_lines(p, t):
    def cl(method):
        sp, st = (skeletonize(m, method=method) > 0 for m in (p, t))
        precision, recall = (sp & t).sum() / sp.sum(), (st & p).sum() / st.sum()
        return 2 * precision * recall / (precision + recall)

    found = {"scikit-image clDice, lee": attempt(lambda: cl("lee"))}
    if all(kept(m, skeletonize(m, method="lee") > 0) for m in (p, t)):
        found["scikit-image clDice, lee, where it keeps the topology of both"] = found[
            "scikit-image clDice, lee"
        ]
    return found | (
        {"scikit-image clDice, zhang": attempt(lambda: cl("zhang"))} if p.ndim == 2 else {}
    )


def of_labels(p, t):
    one = lambda m: torch.from_numpy(np.stack([m == v for v in range(4)])[None].astype(np.float32))
    return {
        f"MONAI generalised dice, {weight}{also}": float(
            mm.compute_generalized_dice(
                one(p),
                one(t),
                include_background=bool(also),
                weight_type=weight,
                sum_over_classes=True,
            )
        )
        for weight in ("square", "simple", "uniform")
        for also in ("", ", with background")
    }


def of_probabilities(p, t):
    p, t = p.reshape(len(p), -1).astype(np.float64), t.ravel()

    def errors(confidence, right):
        accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
        count = np.bincount(np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidence))
        return float((np.abs(accuracy - mean) * count[count > 0]).sum() / len(right)), float(
            np.abs(accuracy - mean).max()
        )

    together, one = errors(p.max(0), p.argmax(0) == t), errors(p[1], t == 1)
    return {
        "scikit-learn ece": together[0],
        "scikit-learn mce": together[1],
        "scikit-learn ece of a structure": one[0],
        "scikit-learn mce of a structure": one[1],
        "scikit-learn brier": float(
            brier_score_loss(t, p.T, labels=list(range(len(p))), scale_by_half=False)
        ),
        "scikit-learn brier of a structure": float(brier_score_loss(t == 1, p[1])),
    }


found = {}
lines = {
    "masks": 0,
    "theirs_keep_the_topology": 0,
    "ours_keep_the_topology": 0,
    "the_same": 0,
    "the_same_where_theirs_keep_the_topology": 0,
}
for n in range(int(given["masks"])):
    p, t, spacing = (given[f"{n}_{part}"] for part in "pts")
    found[n] = of_masks(p, t, tuple(spacing.tolist()))
    for m, ours in ((p, given[f"{n}_p_line"]), (t, given[f"{n}_t_line"])):
        theirs = skeletonize(m, method="lee") > 0
        same, good = np.array_equal(ours, theirs), kept(m, theirs)
        for name, holds in zip(lines, (True, good, kept(m, ours), same, same and good)):
            lines[name] += int(holds)
labels = {n: of_labels(given[f"{n}_lp"], given[f"{n}_lt"]) for n in range(int(given["labels"]))}
sure = {n: of_probabilities(given[f"{n}_cp"], given[f"{n}_ct"]) for n in range(int(given["sure"]))}
json.dump({"masks": found, "labels": labels, "sure": sure, "lines": lines}, open(target, "w"))
print(json.dumps({"done": 1}))
"""

# Known differences of definition; "there" is the peer, "here" is ours.
QUANTILE = (
    "a quantile of infinite values is NaN there; its rank is rounded to float32, which shifts the "
    "interpolation between two distances"
)
WHY = {
    "MONAI dice": "an empty truth is NaN there, whatever the prediction is; here it is NaN only if "
    "both are empty, else 0",
    "MONAI iou": "as MONAI dice",
    "MONAI dice, ignore_empty=False": "if both are empty: 1 there",
    "MONAI hd95": QUANTILE,
    "MONAI hd95, directed": QUANTILE,
    "MONAI hd95, its quantile in float64": "a quantile of infinite values is NaN there",
    "MONAI hd50": "a quantile of infinite values is NaN there",
    "MONAI prevalence threshold": "recall + specificity - 1 suffers cancellation in float32 there; "
    "if it is 0, the original quotient is 0 / 0: NaN there, 1/2 here",
    "MONAI prevalence threshold, in float64": "recall + specificity = 1: NaN there, 1/2 here",
    "medpy iou": "if both are empty: 1 there",
    **{
        f"medpy {name}": "an empty mask is an error there"
        for name in ("hausdorff", "hd95", "asd", "assd")
    },
    **{f"surface-distance hd{q}": "if both are empty: infinite there" for q in (100, 95, 50)},
    "scikit-image clDice, lee": "its thinning deletes some bodies completely (every box with even "
    "sides) and sometimes changes a tunnel, while ours keeps the topology; 0 / 0 (one mask empty, "
    "or no line in the other mask) is NaN there, 0 here",
    "scikit-image clDice, lee, where it keeps the topology of both": "0 / 0 (no line in the other "
    "mask, or one mask empty) is NaN there, 0 here",
    "scikit-image clDice, zhang": "another thinning algorithm for 2-D images (Zhang & Suen 1984), "
    "so another line; the difference shows how much clDice depends on the skeleton",
    **{
        f"MONAI generalised dice, {weights}": "if truth and prediction are empty: 1 there"
        for weights in ("square", "simple", "uniform")
    },
}
MONAI_RATES = {
    "sensitivity": "recall",
    "specificity": "specificity",
    "precision": "precision",
    "threat score": "iou",
    "f1 score": "dice",
    "negative predictive value": "negative_predictive_value",
    "miss rate": "miss_rate",
    "fall out": "fall_out",
    "false discovery rate": "false_discovery_rate",
    "false omission rate": "false_omission_rate",
    "prevalence threshold": "prevalence_threshold",
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "matthews correlation coefficient": "matthews",
    "fowlkes mallows index": "fowlkes_mallows",
    "informedness": "informedness",
    "markedness": "markedness",
}


# ---- the masks ----


def blob(rng: np.random.Generator, shape: tuple[int, ...], share: float, smooth: int) -> Array:
    """Smoothed noise, thresholded so that ``share`` of the voxels are inside."""
    field = rng.random(shape)
    for axis in list(range(len(shape))) * smooth:
        field = field + np.roll(field, 1, axis)
    return np.asarray(field > np.quantile(field, 1 - share))


def random_pairs(masks: int) -> Iterator[Pair]:
    """Every third pair is 2-D; every second prediction is the shifted truth with noise."""
    for n in range(masks):
        rng = np.random.default_rng(n)
        shape = tuple(rng.integers(5, 22, 2 if n % 3 == 2 else 3).tolist())
        spacing = tuple(np.round(rng.uniform(0.4, 3.5, len(shape)), 2).tolist())
        share, smooth = float(rng.choice([0.02, 0.1, 0.3, 0.6, 0.9])), int(rng.integers(0, 4))
        truth = blob(rng, shape, share, smooth)
        prediction = (
            np.roll(truth, 1, n % len(shape)) ^ (rng.random(shape) < 0.03)
            if n % 2
            else blob(rng, shape, share, smooth)
        )
        yield prediction, truth, spacing


def special_pairs() -> Iterator[Pair]:
    """Single voxels, thin sheets and lines, holes, masks that touch or fill the border.

    Each is compared with another one, with itself, with itself shifted, and with an empty mask.
    """
    shape, spacing = (11, 14, 9), (0.8, 1.3, 4.0)
    nothing, all_of_it = np.zeros(shape, bool), np.ones(shape, bool)
    point, corner, sheet, line, box, hollow, touching, cross = (
        np.zeros(shape, bool) for _ in range(8)
    )
    point[5, 7, 3] = corner[0, 0, 8] = True
    sheet[4] = line[5, :, 3] = True
    box[2:9, 3:11, 2:7] = hollow[2:9, 3:11, 2:7] = True
    hollow[4:7, 5:9, 4] = hollow[3, 4, 3] = False
    touching[:4, 8:, :] = True
    cross[3:5, :, 4] = cross[:, 6:8, 4] = cross[4, 7, :] = True
    shapes = [point, corner, sheet, line, box, hollow, touching, cross, all_of_it]
    for n, mask in enumerate(shapes):
        other = shapes[(n + 3) % len(shapes)]
        moved = np.roll(mask, (1, 0, 2), (0, 1, 2))
        yield from (
            (mask, other, spacing),
            (mask, mask, spacing),
            (moved, mask, spacing),
            (mask, nothing, spacing),
            (nothing, mask, spacing),
        )
        if mask[:, :, 4].any():
            yield (
                mask[:, :, 4],
                other[:, :, 4] if other[:, :, 4].any() else mask[::-1, :, 4],
                (0.8, 2.1),
            )
    yield from (
        (nothing, nothing, spacing),
        (nothing[0], nothing[0], spacing[1:]),
        (box[4], nothing[4], (0.7, 3.0)),
        (nothing[4], box[4], (0.7, 3.0)),
    )


def label_pairs() -> Iterator[tuple[Array, Array]]:
    """Several structures, some absent from one mask or from both."""
    for n in range(24):
        rng = np.random.default_rng(100 + n)
        shape = tuple(rng.integers(4, 15, 2 if n % 3 == 2 else 3).tolist())
        truth = rng.choice(4, shape, p=[0.7, 0.2, 0.08, 0.02])
        prediction = np.where(rng.random(shape) < 0.6, truth, rng.choice(4, shape))
        for gone in np.flatnonzero(rng.random(3) < 0.4) + 1:
            (truth if n % 2 else prediction)[(truth if n % 2 else prediction) == gone] = 0
        yield prediction, truth
    some = np.array([[0, 1, 2], [2, 1, 0]])
    yield from (
        (some, 0 * some),
        (0 * some, some),
        (0 * some, 0 * some),
        (np.where(some == 2, 0, some), np.where(some == 1, 0, some)),
    )


def probability_pairs() -> Iterator[tuple[Array, Array]]:
    """Probabilities (4, ...) and a truth with which they agree partly."""
    for n in range(12):
        rng = np.random.default_rng(200 + n)
        truth = rng.choice(4, (9, 8, 7), p=[0.6, 0.2, 0.15, 0.05])
        scores = rng.normal(0, 1 + n / 4, (4, *truth.shape)) + n / 6 * (
            truth == np.arange(4).reshape(4, 1, 1, 1)
        )
        yield (np.exp(scores) / np.exp(scores).sum(0)).astype(np.float32), truth


# ---- ours ----


def ours(p: Array, t: Array, spacing: tuple[float, ...]) -> dict[str, float]:
    """Our figures with the same definitions, under the peers' names."""
    counts = overlap.count_foreground(p, t)
    values = {name: float(function(counts)[0]) for name, (_, function) in overlap.MEASURES.items()}
    values |= {name: float(function(counts)[0]) for name, function in confusion.RATES.items()}
    found = {f"MONAI {theirs}": values[mine] for theirs, mine in MONAI_RATES.items()}
    found["MONAI prevalence threshold, in float64"] = values["prevalence_threshold"]
    found |= {f"MONAI {name}": float(getattr(counts, name)[0]) for name in ("tp", "fp", "tn", "fn")}
    found |= {
        f"medpy {name}": values[name]
        for name in ("dice", "iou", "precision", "recall", "specificity")
    }
    found |= {
        "MONAI dice": values["dice"],
        "MONAI iou": values["iou"],
        "MONAI dice, ignore_empty=False": values["dice"],
    }
    found |= of_voxels(surface.distances(p, t, spacing, "voxels")) | of_surfels(
        surface.distances(p, t, spacing, "surfels")
    )
    line = cl_dice(p, t).dice
    lee = "scikit-image clDice, lee"
    return (
        found
        | {lee: line, f"{lee}, where it keeps the topology of both": line}
        | ({"scikit-image clDice, zhang": line} if p.ndim == 2 else {})
    )


def of_voxels(d: surface.Distances) -> dict[str, float]:
    """Figures that the peers compute from edge voxels."""
    one_way = d.to_truth if len(d.to_truth) else np.array([np.nan if all(d.is_empty) else np.inf])
    found = {
        "MONAI hausdorff": surface.hausdorff(d),
        "MONAI hausdorff, directed": float(one_way.max()),
        "MONAI hd95": surface.hd95(d),
    }
    found |= {"MONAI hd95, its quantile in float64": surface.hd95(d)}
    found |= {
        "MONAI hd50": surface.hausdorff(d, 50),
        "MONAI asd": float(one_way.mean()),
        "MONAI assd": surface.assd(d),
    }
    found |= {
        "MONAI hd95, directed": float(np.percentile(one_way, 95))
        if np.isfinite(one_way).all()
        else float(one_way[0])
    }
    found |= {
        "medpy hausdorff": surface.hausdorff(d),
        "medpy hd95": surface.hd95(d, "pooled"),
        "medpy asd": float(one_way.mean()),
        "medpy assd": surface.assd(d),
    }
    return found | {f"MONAI surface dice {x}": surface.surface_dice(d, x) for x in TOLERANCES}


def of_surfels(d: surface.Distances) -> dict[str, float]:
    """Figures that the peers compute from surface elements."""
    found = {f"surface-distance hd{q}": surface.hausdorff(d, q) for q in (100, 95, 50)}
    found |= {f"surface-distance surface dice {x}": surface.surface_dice(d, x) for x in TOLERANCES}
    found |= {f"MONAI surface dice {x}, subvoxels": surface.surface_dice(d, x) for x in TOLERANCES}
    means = [
        float(values @ weights / weights.sum()) if len(values) else math.nan
        for values, weights in d.directions
    ]
    return found | {
        "surface-distance average, prediction": means[0],
        "surface-distance average, truth": means[1],
    }


def of_labels(p: Array, t: Array) -> dict[str, float]:
    found = confusion.confusion(p, t, STRUCTURES)
    return {
        f"MONAI generalised dice, {weights}{also}": overlap.generalised_dice(
            found.counts(background=bool(also)), weights
        )
        for weights in ("square", "simple", "uniform")
        for also in ("", ", with background")
    }


def of_probabilities(p: Array, t: Array) -> dict[str, float]:
    found = calibration(p, t)
    sides = (("", found.together), (" of a structure", found.structures[0]))
    return {
        f"scikit-learn {name}{also}": getattr(one, name)
        for also, one in sides
        for name in ("ece", "mce", "brier")
    }


# ---- comparison ----


def compared(
    kinds: list[str], mine: list[dict[str, float]], theirs: list[dict[str, Any]]
) -> dict[str, Any]:
    """For each measure: pairs, largest differences, and cases in which only one has a figure."""
    out: dict[str, Any] = {}
    for measure in dict.fromkeys(m for row in theirs for m in row):
        rows = [
            (kind, a[measure], math.nan if b[measure] == "refused" else b[measure])
            for kind, a, b in zip(kinds, mine, theirs, strict=True)
            if measure in b
        ]
        numbers = [(a, b) for _, a, b in rows if math.isfinite(a) and math.isfinite(b)]
        apart = [row for row in rows if row[1:] not in numbers and not same(*row[1:])]
        where = Counter(f"{kind}: {a:g} here, {b:g} there" for kind, a, b in apart)
        out[measure] = {
            "pairs": len(rows),
            "largest_difference": max((abs(a - b) for a, b in numbers), default=0.0),
            "largest_share": max(
                (abs(a - b) / max(abs(a), abs(b)) for a, b in numbers if a != b), default=0.0
            ),
            "differ_by_more_than_1e-6": sum(
                abs(a - b) > 1e-6 * max(1.0, abs(a), abs(b)) for a, b in numbers
            ),
            "defined_in_one_of_both": len(apart),
            **({"where": where} if apart else {}),
            **({"why": WHY[measure]} if measure in WHY else {}),
        }
    return out


def same(a: float, b: float) -> bool:
    """Equal, or both NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))


def kind(p: Array, t: Array) -> str:
    """Which of prediction and truth is empty."""
    if p.any() and t.any():
        return "both filled"
    return (
        "both empty"
        if not p.any() and not t.any()
        else "prediction empty"
        if t.any()
        else "truth empty"
    )


def saved(
    path: Path,
    pairs: list[Pair],
    labels: list[tuple[Array, Array]],
    probabilities: list[tuple[Array, Array]],
) -> None:
    """Write all pairs, and our skeletons, for the peers' process to read."""
    arrays: dict[str, Any] = {}
    for n, pair in enumerate(pairs):
        arrays |= {f"{n}_{part}": value for part, value in zip("pts", pair, strict=True)}
        arrays |= {f"{n}_{part}_line": skeleton(m) for part, m in zip("pt", pair[:2], strict=True)}
    for n, (p, t) in enumerate(labels):
        arrays |= {f"{n}_lp": p, f"{n}_lt": t}
    for n, (p, t) in enumerate(probabilities):
        arrays |= {f"{n}_cp": p, f"{n}_ct": t}
    np.savez(path, masks=len(pairs), labels=len(labels), sure=len(probabilities), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", type=Path, required=True, help="virtual environment with the packages above"
    )
    parser.add_argument(
        "--masks", type=int, default=60, help="random pairs, in addition to the special cases"
    )
    a = parser.parse_args()
    pairs = [*random_pairs(a.masks), *special_pairs()]
    labels, probabilities = list(label_pairs()), list(probability_pairs())
    with tempfile.TemporaryDirectory() as temporary:
        given, target = Path(temporary) / "masks.npz", Path(temporary) / "found.json"
        saved(given, pairs, labels, probabilities)
        child(
            PEERS, str(given), str(target), json.dumps(TOLERANCES), python=a.peer / "bin" / "python"
        )
        theirs = json.loads(target.read_text())
    found = compared(
        [kind(*p[:2]) for p in pairs], [ours(*p) for p in pairs], list(theirs["masks"].values())
    )
    found |= compared(
        [kind(*p) for p in labels], [of_labels(*p) for p in labels], list(theirs["labels"].values())
    )
    found |= compared(
        ["probabilities"] * len(probabilities),
        [of_probabilities(*p) for p in probabilities],
        list(theirs["sure"].values()),
    )
    keep(
        "metrics_agree",
        {
            "pairs": len(pairs),
            "tolerances_mm": TOLERANCES,
            "measures": found,
            "skeletons_beside_scikit_image": theirs["lines"],
        },
    )


if __name__ == "__main__":
    main()

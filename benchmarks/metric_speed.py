"""Seconds and memory of the metrics on pairs of masks of 512 x 512 x 300: overlap of all
structures, confusion matrix, lesions, boundary IoU and clDice.

    python benchmarks/metric_speed.py [--peer FOLDER_OF_A_VENV] [--runs 5] [--without NAME ...]

The pairs are: 1, 3 and 41 structures (a body of about 17 litres, divided into boxes) against the
same body displaced by a voxel or two; a liver-like body; the same with 3,000 small lesions, of
which the prediction has half, and as many false lesions; and a tree of vessels, whose prediction
lacks every fifth branch. A peer runs in the peers' environment if that has it, and else in this
one. Each figure is measured in a process of its own after one warm-up on the same masks: the median
of several runs, and the growth of a peak counter that is reset just before them.
The peers compute the same quantity: Dice of every structure; the distance transform and the
thinning on which the original implementations of boundary IoU (in 3-D) and clDice are based.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from measure import absent, child, keep, python_with
from surface_distances import liver

Array = np.ndarray[Any, Any]
SHAPE = (512, 512, 300)
# A measured program is START + imports and a first call + MIDDLE + the measured code + END.
START = """
import json, sys, time, warnings
import numpy as np

warnings.simplefilter("ignore")
a, b, spacing = np.load(sys.argv[1]), np.load(sys.argv[2]), (0.75, 0.75, 1.0)
values = list(range(1, int(b.max()) + 1))
small = np.zeros((6, 6, 6), a.dtype)
small[1:4, 1:4, 1:5] = 1
"""
MIDDLE = """

def work():
"""
END = """
    return float(figure)

figure = work()
print(json.dumps({**measured(work, int(sys.argv[3]), warm=False), "figure": figure}))
"""
BOUNDARY = """
from delineate.metrics.boundary import boundary_iou

boundary_iou(small, small, spacing)
"""
LINES = """
from skimage.morphology import skeletonize


def cl(p, t):
    sp, st = (skeletonize(m > 0, method="lee") > 0 for m in (p, t))
    precision, sensitivity = (sp & (t > 0)).sum() / sp.sum(), (st & (p > 0)).sum() / st.sum()
    return 2 * precision * sensitivity / (precision + sensitivity)
"""
# name -> (imports and a first call, the measured code, the module of a peer)
WAYS: dict[str, tuple[str, str, str]] = {
    "overlap, delineate": (
        "from delineate.metrics import overlap",
        "figure = overlap.dice(overlap.count(a, b, values)).mean()",
        "",
    ),
    "overlap, MONAI": (
        """
import torch
from monai.metrics import compute_dice
""",
        """
p, t = (torch.from_numpy(m)[None, None] for m in (a, b))
figure = compute_dice(p, t, include_background=False, num_classes=len(values) + 1).mean()
""",
        "monai",
    ),
    "overlap, numpy.bincount": (
        "n = len(values) + 1",
        """
pairs = b.astype(np.uint16) * np.uint16(n) + a
h = np.bincount(pairs.ravel(), minlength=n * n).reshape(n, n)
figure = np.mean([2 * h[c, c] / (h[c].sum() + h[:, c].sum()) for c in values])
""",
        "numpy",
    ),
    "overlap, SimpleITK": (
        "import SimpleITK as sitk",
        """
f = sitk.LabelOverlapMeasuresImageFilter()
f.Execute(sitk.GetImageFromArray(a), sitk.GetImageFromArray(b))
figure = np.mean([f.GetDiceCoefficient(v) for v in values])
""",
        "SimpleITK",
    ),
    "confusion, delineate": (
        """
from delineate.metrics import confusion, overlap

confusion.confusion(small, small, values)
""",
        "figure = overlap.dice(confusion.confusion(a, b, values).counts()).mean()",
        "",
    ),
    "confusion, values not told, delineate": (
        """
from delineate.metrics import confusion, overlap

confusion.confusion(small, small)
""",
        "figure = overlap.dice(confusion.confusion(a, b).counts()).mean()",
        "",
    ),
    "lesions by overlap, delineate": (
        """
from delineate.metrics.lesions import lesions

lesions(small, small, spacing)
""",
        "figure = lesions(a, b, spacing).f1",
        "",
    ),
    "lesions by IoU, delineate": (
        """
from delineate.metrics.lesions import lesions

lesions(small, small, spacing, "optimal")
""",
        """figure = lesions(a, b, spacing, "optimal", 0.25).f1""",
        "",
    ),
    "boundary IoU, 2 mm, delineate": (BOUNDARY, "figure = boundary_iou(a, b, spacing, 2.0)", ""),
    "boundary IoU, 12 mm, delineate": (
        BOUNDARY,
        "figure = boundary_iou(a, b, spacing, 12.0)",
        "",
    ),
    "boundary IoU, 2 mm, SciPy's distance transform in the same box": (
        "from scipy.ndimage import distance_transform_edt, find_objects",
        """
box = find_objects(a | b)[0]
near = []
for m in (a[box] > 0, b[box] > 0):
    inside_mm = distance_transform_edt(np.pad(m, 1), spacing)[1:-1, 1:-1, 1:-1]
    near.append(m & (inside_mm <= 2 + 1e-6))
figure = (near[0] & near[1]).sum() / (near[0] | near[1]).sum()
""",
        "scipy",
    ),
    "clDice, delineate": (
        """
from delineate.metrics.centreline import cl_dice

cl_dice(small, small)
""",
        "figure = cl_dice(a, b).dice",
        "",
    ),
    "clDice, scikit-image in the box": (
        LINES + "from scipy.ndimage import find_objects",
        """
box = find_objects(a | b)[0]
figure = cl(a[box], b[box])
""",
        "skimage",
    ),
}
OF_LABELS = [w for w in WAYS if w.startswith(("overlap", "confusion"))]
# MONAI makes one volume per structure, which nobody would do for many.
OF_MANY = [w for w in OF_LABELS if w != "overlap, MONAI"]
OF_MASKS = [w for w in WAYS if w.startswith(("boundary", "clDice"))]


def pieces(structures: int) -> tuple[Array, Array]:
    """Prediction and truth, uint8: an uneven body divided into boxes with cyclic label values."""
    i, j, k = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    body = ((i - 256) / 240) ** 2 + ((j - 256) / 200) ** 2 + (
        (k - 150) / 148
    ) ** 2 < 1 + 0.1 * np.sin(i / 7) * np.sin(j / 5)
    truth = np.where(body, (i // 20 + 7 * (j // 60)) % structures + 1, 0).astype(np.uint8)
    return np.roll(truth, (2, -1, 1), (0, 1, 2)), truth


def lesions() -> tuple[Array, Array]:
    """The liver-like pair with small boxes all over the scan.

    The truth has 3,000 boxes; the prediction has half of them and 1,500 others.
    """
    prediction, truth = liver(SHAPE)
    rng = np.random.default_rng(0)
    for n, (i, j, k) in enumerate(rng.integers(0, np.array(SHAPE) - 5, (4500, 3)).tolist()):
        for mask, has in ((truth, n < 3000), (prediction, n >= 1500)):
            mask[i : i + 4, j : j + 3, k : k + 3] |= has
    return prediction, truth


def vessels() -> tuple[Array, Array]:
    """A tree with nine generations of bifurcations and tubes with a radius of 7 to 1.2 voxels.

    The prediction lacks every fifth branch, is shifted by one voxel and slightly thinner.
    """
    rng, truth, prediction = (
        np.random.default_rng(0),
        np.zeros(SHAPE, np.uint8),
        np.zeros(SHAPE, np.uint8),
    )
    twigs = [(np.array([256.0, 30.0, 150.0]), np.array([0.0, 1.0, 0.0]), 7.0)]
    count = 0
    for generation in range(10):
        grown = []
        for start, along, radius in twigs:
            count += 1
            length = 90 * 0.8**generation
            for at in (start + along * step for step in np.arange(0, length, 0.7)):
                ball(truth, at, radius)
                if count % 5:
                    ball(prediction, at + np.array([1, 0, 0]), radius * 0.9)
            # Each branch ends in two thinner ones that turn off at random.
            for _ in range(2):
                turned = along + rng.normal(0, 0.45, 3)
                grown.append(
                    (
                        start + along * length,
                        turned / np.linalg.norm(turned),
                        max(1.2, radius * 0.8),
                    )
                )
        twigs = grown
    return prediction, truth


def ball(mask: Array, at: Array, radius: float) -> None:
    """Set the voxels of ``mask`` within ``radius`` voxels of ``at``."""
    low = np.maximum(np.floor(at - radius), 0).astype(int)
    high = np.minimum(np.ceil(at + radius) + 1, mask.shape).astype(int)
    if (low < high).all():
        grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= (
            sum((g - c) ** 2 for g, c in zip(grid, at, strict=True)) <= radius**2
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with monai and scikit-image")
    parser.add_argument("--runs", type=int, default=5, help="of ours and of the peers")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=list(WAYS),
        metavar="NAME",
        help="measurements to leave out",
    )
    a = parser.parse_args()
    cases = {
        f"{n} structure{'s' * (n > 1)}": (lambda n=n: pieces(n), OF_LABELS if n < 41 else OF_MANY)
        for n in (1, 3, 41)
    }
    cases |= {
        "liver": (liver, OF_MASKS),
        "lesions": (lesions, [w for w in WAYS if w.startswith("lesions")]),
        "vessels": (vessels, OF_MASKS),
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        paths = [str(Path(temporary) / f"{part}.npy") for part in ("prediction", "truth")]
        for name, (make, ways) in cases.items():
            for path, mask in zip(paths, make(), strict=True):
                np.save(path, mask)
            found[name] = {
                way: measured(way, paths, a)
                for way in ways
                if way not in a.without and (not WAYS[way][2] or python_with(WAYS[way][2], a.peer))
            }
            print(name, {way: row["work_s"] for way, row in found[name].items()}, flush=True)
    peers = {way: module for way, (_, _, module) in WAYS.items() if module}
    keep(
        "metric_speed",
        {"shape": "512x512x300", "runs": a.runs, "absent": absent(peers, a.peer), **found},
    )


def measured(way: str, paths: list[str], a: argparse.Namespace) -> dict[str, float]:
    """Median figures of one way on the saved pair."""
    first, work, module = WAYS[way]
    code = START + first + MIDDLE + textwrap.indent(work, "    ") + END
    python = python_with(module, a.peer) if module else None
    found = child(code, *paths, str(a.runs), python=python)
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_mb")}


if __name__ == "__main__":
    main()

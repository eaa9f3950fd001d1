"""Surface distances of two masks of 512 x 512 x 300: HD95, ASSD and surface Dice together, ours
compared with MONAI, DeepMind's surface-distance and medpy; and their agreement.

    python benchmarks/surface_distances.py [--peer FOLDER_OF_A_VENV] [--runs 5]

The pairs are: a liver-like body against itself, displaced and with a part removed ("liver"); and
the same with 400 small false positives all over the scan ("scattered"). The peers' environment
needs monai, medpy and surface-distance-based-measures. Each figure is measured in a process of its
own after one warm-up: the median of several runs, and the growth of a peak counter that is reset
just before them.
Agreement is measured for equal definitions: edge voxels for MONAI and medpy, surface elements for
surface-distance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from measure import absent, child, keep, python_with

START = """
import json, sys, time
import numpy as np

a, b, spacing = np.load(sys.argv[1]), np.load(sys.argv[2]), (0.75, 0.75, 1.0)
"""
END = """
found = work()
print(json.dumps({**measured(work, int(sys.argv[3]), warm=False), **found}))
"""
OURS = (
    START
    + """
from delineate.metrics import surface

small = np.zeros((4, 4, 4), np.uint8)
small[1:3, 1:3, 1:3] = 1
surface.assd(surface.distances(small, small, (1, 1, 1), ELEMENTS))


def work():
    d = surface.distances(a, b, spacing, ELEMENTS)
    found = {
        "hd95": surface.hd95(d),
        "hd95_pooled": surface.hd95(d, "pooled"),
        "assd": surface.assd(d),
        "nsd": surface.surface_dice(d, 2.0),
    }
    return found


"""
    + END
)
MONAI = (
    START
    + """
import torch, warnings

warnings.simplefilter("ignore")
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)


def work():
    p, t = (torch.from_numpy(m)[None, None] for m in (a, b))
    more = {"include_background": True, "spacing": spacing}
    found = {
        "hd95": float(compute_hausdorff_distance(p, t, percentile=95, **more)),
        "assd": float(compute_average_surface_distance(p, t, symmetric=True, **more)),
        "nsd": float(compute_surface_dice(p, t, [2.0], **more)),
    }
    return found


"""
    + END
)
DEEPMIND = (
    START
    + """
import surface_distance as sd


def work():
    d = sd.compute_surface_distances(b.astype(bool), a.astype(bool), spacing)
    means = sd.compute_average_surface_distance(d)
    found = {
        "hd95": sd.compute_robust_hausdorff(d, 95),
        "nsd": sd.compute_surface_dice_at_tolerance(d, 2.0),
    }
    return found


"""
    + END
)
MEDPY = (
    START
    + """
from medpy.metric import binary


def work():
    found = {"hd95_pooled": binary.hd95(a, b, spacing), "assd": binary.assd(a, b, spacing)}
    return found


"""
    + END
)
# name -> (program, the module of a peer, ours with the same definition)
WAYS = {
    "delineate, surfels": (OURS.replace("ELEMENTS", "'surfels'"), "", ""),
    "delineate, voxels": (OURS.replace("ELEMENTS", "'voxels'"), "", ""),
    "MONAI": (MONAI, "monai", "delineate, voxels"),
    "surface-distance": (DEEPMIND, "surface_distance", "delineate, surfels"),
    "medpy": (MEDPY, "medpy", "delineate, voxels"),
}


def liver(
    shape: tuple[int, int, int] = (512, 512, 300),
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Prediction and truth, uint8.

    The truth is an uneven body of about 1.5 litres; the prediction is shifted by a voxel or two and
    lacks a part.
    """
    at = np.ogrid[tuple(slice(0, n) for n in shape)]
    i, j, k = ((a - c) / r for a, c, r in zip(at, (200, 250, 160), (130, 105, 75), strict=True))
    uneven = 0.08 * np.sin(9 * i + 2 * k) * np.cos(7 * j) + 0.05 * np.sin(23 * j) * np.sin(19 * k)
    truth = (i**2 + j**2 + k**2 + uneven < 1).astype(np.uint8)
    prediction = np.roll(truth, (2, -1, 1), (0, 1, 2))
    prediction[150:190, 170:230, 140:170] = 0
    return prediction, truth


def scattered(prediction: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Add 400 small cubes to ``prediction``, in place."""
    rng = np.random.default_rng(0)
    for i, j, k in rng.integers(0, np.array(prediction.shape) - 5, (400, 3)):
        prediction[i : i + 4, j : j + 4, k : k + 3] = 1
    return prediction


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer",
        type=Path,
        help="virtual environment with monai, medpy and surface-distance-based-measures",
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=list(WAYS),
        metavar="NAME",
        help="libraries to leave out, such as medpy, which is slow",
    )
    a = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        prediction, truth = liver()
        for name, mask in (("liver", prediction), ("scattered", scattered(prediction.copy()))):
            paths = [
                str(Path(temporary) / f"{name}_{part}.npy") for part in ("prediction", "truth")
            ]
            np.save(paths[0], mask)
            np.save(paths[1], truth)
            rows: dict[str, Any] = {}
            for way, (code, module, _) in WAYS.items():
                python = python_with(module, a.peer) if module else None
                if (module and python is None) or way in a.without:
                    continue
                figures = child(code, *paths, str(a.runs), python=python)
                rows[way] = {k: v for k, v in figures.items() if k not in ("seconds", "peak_mb")}
            # Compare each peer with ours of the same definition.
            for way, (_, module, same) in WAYS.items():
                if module and way in rows:
                    rows[way]["ours_times_as_fast"] = round(
                        rows[way]["work_s"] / rows[same]["work_s"], 1
                    )
                    measures = [k for k in ("hd95", "hd95_pooled", "assd", "nsd") if k in rows[way]]
                    rows[way]["largest_difference"] = round(
                        max(abs(rows[way][k] - rows[same][k]) for k in measures), 4
                    )
            found[name] = rows
    peers = {way: module for way, (_, module, _) in WAYS.items() if module}
    keep(
        "surface_distances",
        {
            "shape": "512x512x300",
            "spacing_mm": [0.75, 0.75, 1.0],
            "tolerance_mm": 2.0,
            "runs": a.runs,
            "absent": absent(peers, a.peer),
            **found,
        },
    )


if __name__ == "__main__":
    main()

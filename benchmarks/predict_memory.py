"""`delineate predict` on a 512x512x300 volume: seconds and peak memory of the whole process, by
number of labels.

    python benchmarks/predict_memory.py

The volume is a synthetic CT of smooth noise. The network is untrained, because only its size
matters: 16 base channels, 256 at the lowest resolution, patch 96, 1.5 mm.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import files
from measure import child, keep, medians
from model import model_plan, untrained

SCAN = "512x512x300 int16, 0.8x0.8x1.0 mm, network at 1.5 mm"
PREDICT = """
import sys

sys.argv = ["delineate", "predict", sys.argv[1], sys.argv[2], "-o", sys.argv[3], "--device", "cpu"]
from delineate.cli import app

app(standalone_mode=False)
"""


def write_ct(path: Path) -> None:
    """The volume."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(40, 80, (64, 64, 60)).astype(np.float32)
    array = coarse.repeat(8, 0).repeat(8, 1).repeat(5, 2).astype(np.int16)
    files.write(Volume(array, Grid.from_spacing(array.shape, (0.8, 0.8, 1.0)), "HU"), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--labels", type=int, nargs="+", default=[4, 41])
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ct(folder / "ct.nii.gz")
        for labels in arguments.labels:
            untrained(model_plan(labels)).save(folder / f"{labels}.model")
            runs = [
                child(
                    PREDICT,
                    str(folder / f"{labels}.model"),
                    str(folder / "ct.nii.gz"),
                    str(folder / f"out{labels}"),
                )
                for _ in range(arguments.runs)
            ]
            results[labels] = medians(runs)
    keep(
        "predict_memory",
        {
            "scan": SCAN,
            "runs": arguments.runs,
            "labels": results,
        },
    )


if __name__ == "__main__":
    main()

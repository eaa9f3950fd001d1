"""How many planted faults the flags of predictions find, and how many good scans they flag.

    python benchmarks/flags.py [hippocampus] [phantom] [--budget 3m] [--planted 20] [--seed 0]

A model is trained for a few minutes: on 56 hippocampi (MR), or on 20 patients of the phantom (CT,
64 x 64 x 24 voxels).
The good scans are cases that the training never read (152 hippocampi, 40 patients). The first of
them are planted with one fault each and predicted again. Everything runs through the commands.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from delineate.cohorts.phantom.cohort import make_cohort
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import files
from measure import DATA, keep

DELINEATE = (sys.executable, "-m", "delineate.cli")
MR = 1000.0  # of an MR scan, the largest intensity


def mirrored(scan: Volume, axis: int = 0) -> Volume:
    """The voxels in the reverse order along an axis; the header as before."""
    return scan.with_array(np.flip(scan.array, axis).copy())


def half(scan: Volume) -> Volume:
    """Every other half of the slices is missing."""
    count = scan.grid.shape[2] // 2
    grid = Grid((*scan.grid.shape[:2], count), scan.grid.affine)
    return replace(scan, array=scan.array[..., :count].copy(), grid=grid)


def stretched(scan: Volume) -> Volume:
    """The header states twice the distance of the slices."""
    return replace(scan, grid=Grid(scan.grid.shape, scan.grid.affine @ np.diag([1, 1, 2.0, 1])))


def inverted(scan: Volume) -> Volume:
    """What is bright is dark, from 0 on: of CT and of T1-weighted MR another modality."""
    array = scan.array.astype(np.float32)
    low, high = np.percentile(array, (1, 99))
    return scan.with_array(MR * (1 - np.clip((array - low) / (high - low), 0, 1)))


def noise(scan: Volume) -> Volume:
    """Random intensities with the range of the scan."""
    low, high = np.percentile(scan.array, (1, 99))
    drawn = np.random.default_rng(0).uniform(low, high, scan.array.shape)
    return scan.with_array(drawn.astype(np.float32))


def filled(value: float) -> Callable[[Volume], Volume]:
    """A scan with one value."""
    return lambda scan: scan.with_array(np.full(scan.array.shape, value, np.float32))


FAULTS: dict[str, Callable[[Volume], Volume]] = {
    "mirrored, left to right": mirrored,
    "upside down": lambda scan: mirrored(scan, 2),
    "half the field of view": half,
    "wrong spacing": stretched,
    "wrong modality": inverted,
    "noise": noise,
    "empty": filled(0.0),
    "constant": filled(100.0),
    "NaN": filled(np.nan),
}


def hippocampus(work: Path, seed: int) -> tuple[Path, Path, list[Path]]:
    """The cohort, the split of its training, and the good scans."""
    cohort = DATA / "hippocampus"
    scans = sorted((cohort / "imagesTr").glob("*.nii.gz"))
    order = np.random.default_rng(seed).permutation(len(scans))
    return cohort, _split(work, [scans[n] for n in order[:56]], 10), [scans[n] for n in order[56:]]


def patients(work: Path, seed: int) -> tuple[Path, Path, list[Path]]:
    """The same, of the phantom."""
    cohort = work / "phantom"
    make_cohort(cohort, patients=60, seed=seed, form="nifti", size=(64, 24))
    scans = sorted((cohort / "images").glob("*.nii.gz"))
    return cohort, _split(work, scans[:20], 4), scans[20:]


def _split(work: Path, scans: list[Path], validating: int) -> Path:
    names = [scan.name.removesuffix(".nii.gz") for scan in scans]
    split = work / "split.json"
    split.write_text(json.dumps({"train": names[validating:], "val": names[:validating]}))
    return split


COHORTS = {"hippocampus": hippocampus, "phantom": patients}


def predicted(model: Path, scans: list[Path], out: Path) -> dict[str, Any]:
    """Flagged and all scans, how often each kind of flag occurred, and the scans without flags."""
    line = [*DELINEATE, "--quiet", "predict", model, *scans, "-o", out]
    subprocess.run([str(word) for word in line], stdout=sys.stderr, check=False)
    cases = json.loads((out / "predictions.json").read_text())["cases"]
    kinds = {name: {flag["kind"] for flag in case.get("flags", ())} for name, case in cases.items()}
    failed = {name for name, case in cases.items() if "error" in case}
    return {
        "scans": len(cases),
        "flagged": sum(map(bool, kinds.values())),
        "refused": len(failed),
        "kinds": dict(Counter(kind for found in kinds.values() for kind in found).most_common()),
        "neither": [name for name, found in kinds.items() if not found and name not in failed][:5],
    }


def measured(name: str, budget: str, planted: int, seed: int, work: Path) -> dict[str, Any]:
    """The verdict on the model, and flags of good scans and of each fault."""
    cohort, split, good = COHORTS[name](work, seed)
    model = work / f"{name}.model"
    line = [*DELINEATE, "train", cohort, "--split", split, "-o", model]
    line += ["--budget", budget, "--at-most", "30m"]  # as many steps on a busy machine
    subprocess.run([str(word) for word in line], stdout=sys.stderr, check=True)
    card = json.loads((work / f"{name}.model.run" / "card.json").read_text())
    found = {"good": {**predicted(model, good, work / "good"), "neither": []}}
    for fault, plant in FAULTS.items():
        folder = work / fault.replace(" ", "_").replace(",", "")
        folder.mkdir()
        for scan in good[:planted]:
            files.write(plant(files.read(scan)), folder / scan.name)
        found[fault] = predicted(model, sorted(folder.iterdir()), work / f"{folder.name}_out")
    return {"verdict": card["verdict"]["words"], "budget": budget, "seed": seed, **found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohorts", nargs="*", metavar="COHORT", help=", ".join(COHORTS))
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the choice or drawing of patients")
    a = parser.parse_args()
    for name in a.cohorts or COHORTS:
        with tempfile.TemporaryDirectory() as folder:
            keep(f"flags_{name}", measured(name, a.budget, a.planted, a.seed, Path(folder)))


if __name__ == "__main__":
    main()

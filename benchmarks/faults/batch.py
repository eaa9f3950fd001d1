"""A batch with rotten cases: the sound ones give what they give without them, and each rotten one
is a named failure.

    python -m benchmarks.faults.batch FOLDER [--cases 1000] [--rotten 100]

segments a folder of small scans, of which some are rotten in 20 ways, and the same folder without
them, and prints what differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

from .made import Fault

SHAPE, AFFINE = (20, 18, 16), np.diag([-1.0, 1.5, 2.0, 1.0])
FORMS = ("NIfTI", "No regular file")  # whose damaged files stand in for scans
KINDS = (
    "empty",
    "cut in the middle",
    "the header alone",
    "a size of 0",
    "a fourth axis of 0",
    "sizes of 32767 in a file of 15 kB",
    "datatype 999",
    "voxels at byte 200, inside the header",
    "an extension that runs over the voxels",
    "sform with NaN",
    "sform of zeros",
    "half of the slices that the file holds",
    "gzip: wrong checksum",
    "gzip: cut in the middle",
    "gzip: 2 MB that unpack to 2.1 GB",
    "a named pipe called a.nii.gz",
    "a link to nothing",
    "a link to itself",
    "an empty folder",
    "a text",
)


def kinds() -> list[Fault]:
    """One damaged file of each of ``KINDS``."""
    from .every import FAULTS

    found = {one.what: one for one in FAULTS if one.form in FORMS}
    return [found[what] for what in KINDS]


def make(folder: Path, cases: int, rotten: int) -> list[str]:
    """Write ``cases`` scans, the last of every ``cases // rotten`` rotten; the names of these."""
    folder.mkdir(parents=True)
    every = kinds()
    step = cases // rotten if rotten else cases + 1
    bad = []
    for number in range(cases):
        name = f"case_{number:04d}"
        path = folder / f"{name}.nii.gz"
        if number % step == step - 1 and len(bad) < rotten:
            every[len(bad) % len(every)].make(path)
            bad.append(name)
        else:
            values = np.random.default_rng(number).normal(100, 20, SHAPE).astype(np.float32)
            values[4:10, 5:12, 3 + number % 3 : 9] += 60
            nib.save(nib.Nifti1Image(values, AFFINE), path)
    return bad


def hashes(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every mask."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.nii.gz"))
    }


def _predict(model: Path, scans: Path, out: Path) -> tuple[int, dict[str, str], list[int]]:
    """Exit code, case -> error, and the resident memory over time."""
    command = [sys.executable, "-m", "delineate.cli", "predict", model, scans, "-o", out]
    memory: list[tuple[int, int]] = []
    with open(out.with_suffix(".txt"), "w", encoding="utf-8") as said:
        process = subprocess.Popen(map(str, command), stdout=said, stderr=said)
        watch = threading.Thread(target=_watch, args=(process, out, memory))
        watch.start()
        code = process.wait()
        watch.join()
    cases = json.loads((out / "predictions.json").read_text())["cases"]
    failed = {name: one["error"] for name, one in cases.items() if "error" in one}
    at_100 = max((held for done, held in memory if done <= 100), default=0)
    return code, failed, [at_100, max(held for _, held in memory)]


def _watch(process: subprocess.Popen[bytes], out: Path, memory: list[tuple[int, int]]) -> None:
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            held = watched.memory_info().rss
            done = len(os.listdir(out)) if out.is_dir() else 0
        except (psutil.Error, OSError):
            return
        memory.append((done, held))
        time.sleep(0.2)


def small_model(path: Path) -> Path:
    """A model with random weights for one channel."""
    from tests.plans import small_plan

    from delineate.core.bundle import Bundle, Member
    from delineate.networks.build import build, weights_of

    plan = small_plan()
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--rotten", type=int, default=100)
    given = parser.parse_args()
    folder: Path = given.folder
    bad = make(folder / "mixed", given.cases, given.rotten)
    # The clean folder has the same scans, without the rotten ones.
    (folder / "clean").mkdir()
    for path in (folder / "mixed").iterdir():
        if path.name.removesuffix(".nii.gz") not in bad:
            os.link(path, folder / "clean" / path.name)
    model = small_model(folder / "small.model")
    clean = _predict(model, folder / "clean", folder / "of_clean")
    mixed = _predict(model, folder / "mixed", folder / "of_mixed")
    same = hashes(folder / "of_clean") == hashes(folder / "of_mixed")
    result = {
        "masks": len(hashes(folder / "of_mixed")),
        "masks identical to the clean run": same,
        "failures named": sorted(mixed[1]) == bad,
        "failures": len(mixed[1]),
        "exit codes": [clean[0], mixed[0]],
        "peak of memory at case 100 and over all, MB": [held >> 20 for held in mixed[2]],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

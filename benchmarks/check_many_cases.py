"""Time and peak memory of ``check`` on many small cases.

    python benchmarks/check_many_cases.py [--cases 1000] [--size 48] [--workers N]

The script writes synthetic NIfTI cases (an int16 image and a label with two structures) to a
temporary folder and checks them in a child process. It prints the seconds, the peak resident memory
of the largest process, and the number of findings of each kind.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import files
from measure import keep

CHILD = """
import json, sys
from delineate.commands.check import check
from delineate.commands.options import CheckOptions

if __name__ == "__main__":
    options = CheckOptions(workers=int(sys.argv[3]) or None)
    checked = check(sys.argv[1], sys.argv[2], options)
    kinds = {}
    for finding in checked.findings:
        kinds[finding.kind] = kinds.get(finding.kind, 0) + 1
    counts = {"cases": len(checked.manifest), "usable": len(checked.usable)}
    print(json.dumps({**counts, "findings": kinds}))
"""


def make_cohort(root: Path, cases: int, size: int) -> int:
    """Write the cases and return their size on disk in bytes."""
    labels = LabelSet.from_names({1: "liver", 2: "spleen"})
    affine = np.diag([-1.0, 1.0, 1.5, 1.0])
    for n in range(cases):
        rng = np.random.default_rng(n)
        shape = tuple(int(v) for v in rng.integers(size - 6, size + 7, 3))
        grid = Grid((shape[0], shape[1], shape[2]), affine)
        mask = np.zeros(shape, np.uint8)
        mask[5:20, 5:20, 5:20], mask[25:30, 8:16, 8:16] = 1, 2
        image = rng.normal(100, 20, shape).astype(np.int16) + 60 * mask
        files.write(Volume(image, grid), root / "images" / f"case_{n:04d}.nii.gz")
        files.write(
            Volume(mask, grid, "label"), root / "labels" / f"case_{n:04d}.nii.gz", labels=labels
        )
    return sum(p.stat().st_size for p in root.rglob("*.nii.gz"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument(
        "--size", type=int, default=48, help="approximate number of voxels along each axis"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="number of processes; 0 lets the program choose"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size_bytes = make_cohort(root / "cohort", given.cases, given.size)
        script = root / "child.py"
        script.write_text(CHILD)
        began = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                str(script),
                str(root / "cohort"),
                str(root / "out"),
                str(given.workers),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - began
        # ru_maxrss is in bytes on macOS and in kB on Linux.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (
            1 if sys.platform == "darwin" else 1024
        )
        printed = json.loads(done.stdout)
        figures = {
            "voxels": f"about {given.size}^3",
            "disk_mb": round(size_bytes / 1e6),
            "seconds": round(seconds, 1),
            "ms_a_case": round(1000 * seconds / given.cases, 1),
        }
        keep(
            "check_many_cases",
            {**figures, "peak_mb_of_the_largest_process": round(peak, 1), **printed},
        )


if __name__ == "__main__":
    main()

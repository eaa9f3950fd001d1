"""A training with --epochs that is killed (kill -9) at three random moments and restarted each
time, compared with an uninterrupted one.

    python benchmarks/resume.py [--epochs 12] [--data ../shared/data]

The script prints the SHA-256 of the final weights of both; equal hashes mean that the weights are
bit-identical. The data are 24 real hippocampus cases.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from delineate.core.bundle import Bundle, weights_sha256
from measure import DATA, keep

DELINEATE = (sys.executable, "-m", "delineate.cli")


def prepared(work: Path, data: Path) -> None:
    """Write a split of 20 training and 4 validation cases, and a plan."""
    names = sorted(
        p.name.removesuffix(".nii.gz") for p in (data / "hippocampus/labelsTr").glob("*.nii.gz")
    )[:24]
    (work / "split.json").write_text(json.dumps({"train": names[:20], "val": names[20:]}))
    cohort = str(data / "hippocampus")
    line = [*DELINEATE, "plan", cohort, "--budget", "60s", "-o", str(work / "plan.json")]
    subprocess.run(line, check=True, stdout=sys.stderr)


def killed_three_times(line: list[str], whole_s: float) -> list[float]:
    """Run ``line`` with three kills, then to its end; the moments as shares of ``whole_s``."""
    killed_at: list[float] = []
    for moment in sorted(random.uniform(0.15, 0.85) for _ in range(3)):
        process = subprocess.Popen(line, stdout=sys.stderr)
        # A restart continues after the last checkpoint, so the earlier part is mostly skipped.
        wait_s = whole_s * (moment - (killed_at[-1] if killed_at else 0) * 0.8)
        time.sleep(max(2.0, wait_s))
        killed_at.append(round(moment, 2))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(line, check=True, stdout=sys.stderr)
    return killed_at


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--data", type=Path, default=DATA)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        prepared(work, a.data)

        def line(model: str) -> list[str]:
            words = ["train", str(a.data / "hippocampus"), "--split", str(work / "split.json")]
            words += ["--epochs", str(a.epochs), "--plan", str(work / "plan.json")]
            return [*DELINEATE, *words, "-o", str(work / model)]

        began = time.perf_counter()
        subprocess.run(line("whole"), check=True, stdout=sys.stderr)
        whole_s = time.perf_counter() - began
        killed_at = killed_three_times(line("killed"), whole_s)
        whole, killed = (
            weights_sha256(Bundle.load(work / m).members[0].weights) for m in ("whole", "killed")
        )
        keep(
            "resume",
            {
                "epochs": a.epochs,
                "uninterrupted_s": round(whole_s, 1),
                "killed_at": killed_at,
                "whole": whole,
                "killed": killed,
                "equal": whole == killed,
            },
        )


if __name__ == "__main__":
    main()

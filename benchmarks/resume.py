"""A training with --epochs killed (kill -9) at three random moments and started again each time,
against an uninterrupted one.

    python benchmarks/resume.py [--epochs 12] [--data ../shared/data]

Prints the SHA-256 of the final weights of both: equal means bit for bit the same. Real data: 24
hippocampus cases.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--data", type=Path, default=DATA)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        names = sorted(
            p.name.removesuffix(".nii.gz")
            for p in (a.data / "hippocampus/labelsTr").glob("*.nii.gz")
        )[:24]
        (work / "split.json").write_text(json.dumps({"train": names[:20], "val": names[20:]}))
        plan = [
            sys.executable,
            "-m",
            "delineate.cli",
            "plan",
            a.data / "hippocampus",
            "--budget",
            "60s",
            "-o",
            work / "plan.json",
        ]
        subprocess.run(list(map(str, plan)), check=True, stdout=sys.stderr)
        command = [
            "train",
            a.data / "hippocampus",
            "--split",
            work / "split.json",
            "--epochs",
            a.epochs,
            "--plan",
            work / "plan.json",
            "-o",
        ]

        def words(model: str) -> list[str]:
            return [sys.executable, "-m", "delineate.cli", *map(str, command), str(work / model)]

        began = time.perf_counter()
        subprocess.run(words("whole"), check=True, stdout=sys.stderr)
        whole_s = time.perf_counter() - began
        killed_at = []
        for moment in sorted(random.uniform(0.15, 0.85) for _ in range(3)):
            process = subprocess.Popen(words("killed"), stdout=sys.stderr)
            wait_s = whole_s * (moment - (killed_at[-1] if killed_at else 0) * 0.8)
            time.sleep(max(2.0, wait_s))
            killed_at.append(round(moment, 2))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(words("killed"), check=True, stdout=sys.stderr)
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

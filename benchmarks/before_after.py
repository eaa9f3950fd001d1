"""This checkout against an earlier one: `train` and `predict` as whole processes, and whether
weights and masks are equal bit for bit.

    git worktree add /tmp/before COMMIT
    python benchmarks/before_after.py /tmp/before [--data ../shared/data] [--runs 5] [--epochs 2]

Both sides run in this environment, one after the other in turn, on the same cases of the
hippocampus, with the plan that the earlier checkout makes. Each side's first run is a warm-up and
is not counted. Figures are medians; the ratio is the median of the ratios of pairs, below 1 if this
checkout is faster.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import DATA, keep

HERE = Path(__file__).resolve().parents[1]
CASES = 12


def seconds(checkout: Path, *words: str | Path) -> float:
    """Of one command of the package in ``checkout``."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "delineate.cli", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(map(str, words))} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def cohort(data: Path, folder: Path) -> Path:
    """A small cohort with links to the first cases of the hippocampus."""
    for side in ("imagesTr", "labelsTr"):
        (folder / side).mkdir(parents=True)
        for path in sorted((data / "hippocampus" / side).glob("*.nii.gz"))[:CASES]:
            (folder / side / path.name).symlink_to(path.resolve())
    kept = {path.name for path in (folder / "imagesTr").iterdir()}
    facts = json.loads((data / "hippocampus" / "dataset.json").read_text())
    facts["training"] = [one for one in facts["training"] if Path(one["image"]).name in kept]
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def digests(folder: Path, pattern: str) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob(pattern))]


def weights_of(model: Path) -> list[str]:
    from delineate.core.bundle import Bundle, weights_sha256

    return [weights_sha256(member.weights) for member in Bundle.load(model).members]


def alternated(
    sides: dict[str, Path], work: Path, runs: int, command: str, words: list[str | Path]
) -> dict[str, list[float]]:
    """Seconds of each run of each side; the outputs of the last run stay in ``work``/SIDE."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for run in range(runs + 1):
        for side, checkout in sides.items():
            out = work / side / command
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            target = out / "m.model" if command == "train" else out
            one = seconds(checkout, command, *words, "-o", target)
            if run:
                taken[side].append(one)
    return taken


def row(taken: dict[str, list[float]], equal: bool) -> dict[str, object]:
    before, after = taken["before"], taken["after"]
    ratios = [b / a for a, b in zip(before, after, strict=True)]
    return {
        "before_s": round(statistics.median(before), 2),
        "after_s": round(statistics.median(after), 2),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "equal": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", default="2")
    a = parser.parse_args()
    sides = {"before": a.before.resolve(), "after": HERE}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data, plan = cohort(a.data, work / "cohort"), work / "plan.json"
        seconds(sides["before"], "plan", data, "-o", plan, "--epochs", a.epochs)
        training = [data, "--plan", plan, "--epochs", a.epochs, "--fold", "0"]
        trained = alternated(sides, work, a.runs, "train", training)
        weights = {side: weights_of(work / side / "train" / "m.model") for side in sides}
        # Both sides predict with the model that the earlier checkout trained.
        model = work / "before" / "train" / "m.model"
        predicted = alternated(sides, work, a.runs, "predict", [model, data])
        masks = {side: digests(work / side / "predict", "*.nii.gz") for side in sides}
    found = {
        "before": subprocess.check_output(
            ["git", "-C", str(a.before), "rev-parse", "--short", "HEAD"], text=True
        ).strip(),
        "cases": CASES,
        "train": row(trained, weights["before"] == weights["after"]),
        "predict": row(predicted, masks["before"] == masks["after"] and len(masks["after"]) > 0),
    }
    keep("before_after", found)


if __name__ == "__main__":
    main()

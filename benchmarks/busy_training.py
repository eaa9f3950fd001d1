"""Training steps a minute on an idle machine, and next to one and two busy processes, compared with
nnU-Net's.

    python benchmarks/busy_training.py [--peer FOLDER_OF_A_VENV] [--minutes 1] [--runs 3]
        [--busy 0,1,2] [--work FOLDER]

One plan, made on the idle machine, is trained by the loop that users run, each time from the start
in a process of its own. Busy processes compute without an end, at the same priority. On two cores,
the fair share of a training is 75 % of its idle steps next to one of them, and 50 % next to two.
The numbers of busy processes are run in turns; a ratio is that of the steps of the same turn.
nnU-Net trains on the same patients as `train_nnunet.py --tuned` does, with batches of 2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import busy
from measure import DATA, absent, child, keep, python_with
from train_nnunet import cohort_of, options, trained

DATA_SET = "hippocampus"
CODE = """
import json, sys, tempfile, time
from pathlib import Path
import torch
from delineate.training.loop import TrainingJob, fit
from what_helps import FOLDS, prepared

seconds, lines = 60 * float(sys.argv[3]), []
run = prepared(sys.argv[1], 600.0, 1, Path(sys.argv[2]), None, overwrite=not seconds)
if seconds:
    training, _ = run.sides(1 % FOLDS)
    cases = [run.run.store.open(case.id).loaded() for case in training]
    with tempfile.TemporaryDirectory() as folder:
        fit(
            TrainingJob(
                run.plan,
                cases,
                [],
                Path(folder),
                torch.device("cpu"),
                seed=1,
                deadline=time.monotonic() + seconds,
                listener=lines.append,
            )
        )
print(json.dumps({"steps": lines[-1]["step"] if lines else 0}))
"""


def ours(work: Path, minutes: float) -> Callable[[], float]:
    """The function that trains for so many minutes and returns the number of steps."""
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"DELINEATE_DATA": str(DATA), "PYTHONPATH": here}
    # Plan and prepared cases are made once, before anything is busy.
    child(CODE, DATA_SET, str(work), "0", environment=environment)

    def steps() -> float:
        return child(CODE, DATA_SET, str(work), str(minutes), environment=environment)["steps"]

    return steps


def nnunet(peer: Path, work: Path, minutes: float) -> Callable[[], float]:
    """The same for nnU-Net; its data set is prepared once."""
    there = work / "nnunet"
    there.mkdir(parents=True, exist_ok=True)
    words = ("hippocampus", "--peer", str(peer), "--tuned", "--budget", f"{60 * minutes:g}s")
    given = options([*words, "--data", str(DATA)])
    cohort, report = cohort_of(given, there), there / "told.json"

    def steps() -> float:
        report.unlink(missing_ok=True)
        return float(trained(given, there, cohort)["steps"])

    return steps


def shares(rates: dict[int, list[float]], count: int, idle: int) -> dict[str, Any]:
    """Steps a minute next to ``count`` processes, and their share of those of the same turn."""
    pairs = zip(rates[count], rates[idle], strict=True)
    share = statistics.median(one / max(of, 1e-9) for one, of in pairs)
    return {"steps a minute": rates[count], "share of idle": round(share, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--busy", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--work", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = a.work or Path(folder)
        sides = {"": ours(work, a.minutes)}
        if python_with("nnunetv2", a.peer):
            sides["nnU-Net"] = nnunet(a.peer, work, a.minutes)
        rates: dict[str, dict[int, list[float]]] = {
            side: {count: [] for count in a.busy} for side in sides
        }
        for _ in range(a.runs):
            for count in a.busy:
                for side, steps in sides.items():
                    with busy(count):
                        rates[side][count].append(round(steps() / a.minutes, 1))
                    print(count, "busy", side, rates[side][count], file=sys.stderr, flush=True)
    rows = {f"{count} busy": shares(rates[""], count, a.busy[0]) for count in a.busy}
    for side in sides:
        for count in a.busy if side else ():
            rows[f"{count} busy"][side] = shares(rates[side], count, a.busy[0])
    missing = absent({"nnU-Net": "nnunetv2"}, a.peer)
    found = {"data": DATA_SET, "minutes": a.minutes, "runs": a.runs, "absent": missing}
    keep("busy_training", {**found, "rows": rows})


if __name__ == "__main__":
    main()

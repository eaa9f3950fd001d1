"""A training on several ranks: equal losses, killed ranks, and other numbers of ranks.

    python -m benchmarks.faults.ranks FOLDER [STEPS [cuda]]

trains one tiny plan (batch 2) by the command line on CPU processes, or on GPUs: on 1, 2 and 4
ranks; on 2 with one rank killed in mid-training; and on 2 with all processes killed, continued on
4. It prints the largest relative difference of a loss from that on one rank, which must be at most
1e-4 on CPUs, in float32. With two GPUs, those with 4 ranks are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from benchmarks.faults.training import CASES, tiny_plan
from tests.scans import write_cohort

ALLOWED = 1e-4
DEVICE = sys.argv[3] if len(sys.argv) > 3 else "cpu"
EPOCHS = 10
Losses = dict[int, float]  # by step


def main() -> None:
    """Run all, and end with 1 if one differs."""
    folder = Path(sys.argv[1])  # a run that is there already is kept
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    plan = tiny_plan(write_cohort(folder / "data", CASES))
    made = json.loads(plan.read_text())
    made["schedule"] |= {"steps_per_epoch": max(1, steps // EPOCHS), "epochs": EPOCHS}
    plan.write_text(json.dumps(made))

    one = train(folder, "one", 1)
    worst, most = 0.0, 4
    if DEVICE == "cuda":
        import torch

        most = torch.cuda.device_count()
    trainings: dict[str, Callable[[], Losses]] = {
        "2 ranks": lambda: train(folder, "two", 2),
        "2 ranks, one killed": lambda: train(folder, "killed", 2, kill_a_rank),
    }
    if most >= 4:
        trainings["4 ranks"] = lambda: train(folder, "four", 4)
        trainings["2 ranks, all killed, continued on 4"] = lambda: continued(folder)
    for name, training in trainings.items():
        found = training()
        assert found.keys() == one.keys(), f"{name}: other steps"
        differences = [abs(found[step] / one[step] - 1) for step in one]
        worst = max(worst, *differences)
        print(f"{name}: {max(one)} steps, largest difference {max(differences):.1e}", flush=True)
    sys.exit(int(worst > ALLOWED))


def continued(folder: Path) -> Losses:
    """All processes are killed; the same command on another number of ranks continues."""
    train(folder, "continued", 2, kill_all)
    return train(folder, "continued", 4)


def train(
    folder: Path, name: str, ranks: int, harm: Callable[[psutil.Process], None] | None = None
) -> Losses:
    """The losses of a training, during which something happens to its processes."""
    model = folder / f"{name}.model"
    log = folder / f"{name}.model.run" / "fold_0" / "log.jsonl"
    command = [sys.executable, "-m", "delineate.cli", "train", folder / "data", "-o", model]
    options = ["--plan", folder / "plan.json", "--device", DEVICE, "--devices", ranks]
    with open(folder / f"{name}.txt", "a", encoding="utf-8") as said:
        process = subprocess.Popen([*map(str, [*command, *options])], stderr=said, stdout=said)
        if harm is not None:
            while process.poll() is None and len(losses(log)) < EPOCHS // 3:
                time.sleep(0.1)
            harm(psutil.Process(process.pid))
        code = process.wait()
    print(f"{name}: exit code {code}", flush=True)
    text = (folder / f"{name}.txt").read_text(encoding="utf-8")
    assert harm is not kill_a_rank or text.count("restarts)") == 1, "not started again"
    return losses(log)


def losses(log: Path) -> Losses:
    """Of the lines of a log that are complete."""
    lines = log.read_text().splitlines() if log.is_file() else []
    found = (json.loads(line) for line in lines if line.endswith("}"))
    return {line["step"]: line["loss"] for line in found}


def kill_a_rank(launcher: psutil.Process) -> None:
    """Kill one that does not lead."""
    ranks = [one for one in launcher.children() if "spawn_main" in " ".join(one.cmdline())]
    max(ranks, key=lambda one: one.create_time()).kill()


def kill_all(launcher: psutil.Process) -> None:
    """As a power cut would."""
    for one in (launcher, *launcher.children(recursive=True)):
        one.kill()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

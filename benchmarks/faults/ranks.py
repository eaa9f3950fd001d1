"""A training on several ranks: equal losses, killed ranks, and other numbers of ranks.

    python -m benchmarks.faults.ranks FOLDER [STEPS [cuda]]

trains one tiny plan (batch 2, Muon) by the command line on CPU processes, or on GPUs, with
``--deterministic``: on 1, 2 and 4 ranks; on 2 with one rank killed in mid-training; and on 2 with
all processes killed, continued on 4. All losses must be equal to the bit. Without the option it
trains on 1 and 2 ranks, which differ by rounding. It prints and keeps the largest relative
difference of a loss from that on one rank. With two GPUs, those with 4 ranks are left out.
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

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.scans import write_cohort

from measure import keep

from .training import CASES, tiny_plan

DEVICE = sys.argv[3] if len(sys.argv) > 3 else "cpu"
EPOCHS = 10
EXACT, FREE = ("--deterministic", "--epochs", str(EPOCHS)), ("--epochs", str(EPOCHS))
Losses = dict[int, float]  # by step


def main() -> None:
    """Run all, and end with 1 if one differs."""
    folder = Path(sys.argv[1])  # a run that is there already is kept
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    plan = tiny_plan(write_cohort(folder / "data", CASES))
    made = json.loads(plan.read_text())
    made["schedule"] |= {"steps_per_epoch": max(1, steps // EPOCHS), "epochs": EPOCHS}
    plan.write_text(json.dumps(made))

    most = 4
    if DEVICE == "cuda":
        import torch

        most = torch.cuda.device_count()
    one = train(folder, "one", 1)
    exact: dict[str, Callable[[], Losses]] = {
        "2 ranks": lambda: train(folder, "two", 2),
        "2 ranks, one killed": lambda: train(folder, "killed", 2, kill_a_rank),
    }
    if most >= 4:
        exact["4 ranks"] = lambda: train(folder, "four", 4)
        exact["2 ranks, all killed, continued on 4"] = lambda: continued(folder)
    found = {name: compared(name, one, training()) for name, training in exact.items()}
    free = train(folder, "one_free", 1, options=FREE)
    rounding = compared(
        "2 ranks, not deterministic", free, train(folder, "two_free", 2, options=FREE)
    )
    keep(
        "ranks",
        {
            "optimiser": made["optimiser"]["kind"],
            "device": DEVICE,
            "steps": max(one),
            "largest relative difference of a loss, --deterministic": found,
            "the same on 2 ranks without the option": rounding,
        },
    )
    sys.exit(int(max(found.values()) > 0))


def compared(name: str, one: Losses, other: Losses) -> float:
    """The largest relative difference."""
    assert other.keys() == one.keys(), f"{name}: other steps"
    found = max(abs(other[step] / one[step] - 1) for step in one)
    print(f"{name}: {max(one)} steps, largest difference {found:.1e}", flush=True)
    return found


def continued(folder: Path) -> Losses:
    """All processes are killed; the same command on another number of ranks continues."""
    train(folder, "continued", 2, kill_all)
    return train(folder, "continued", 4)


def train(
    folder: Path,
    name: str,
    ranks: int,
    harm: Callable[[psutil.Process], None] | None = None,
    options: tuple[str, ...] = EXACT,
) -> Losses:
    """The losses of a training, during which something happens to its processes."""
    model = folder / f"{name}.model"
    log = folder / f"{name}.model.run" / "fold_0" / "log.jsonl"
    command = [sys.executable, "-m", "delineate.cli", "train", folder / "data", "-o", model]
    given = ["--plan", folder / "plan.json", "--device", DEVICE, "--devices", ranks, *options]
    with open(folder / f"{name}.txt", "a", encoding="utf-8") as said:
        process = subprocess.Popen([*map(str, [*command, *given])], stderr=said, stdout=said)
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

"""Two real runs compared: liver MR slices trained with and without augmentation, with the same plan
and number of steps.

    python benchmarks/compare_augmentation.py [--steps 400] [--budget 4m] [--keep FOLDER]

Both runs train on ``chaos_t1_png`` and are scored on its 31 `val` pairs. Their checkpoints were
chosen on the same pairs, so the comparison is fair but the figures are optimistic. The runs have
the same number of steps and not the same time, because a time limit would give fewer steps to the
run that shares the machine with other work. The script prints the sentences of `compare`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from measure import DATA, keep
from train_real import delineate


def plans(cohort: Path, work: Path, a: argparse.Namespace) -> dict[str, Path]:
    """Two plans for the same number of steps: with the planned augmentation, and without any."""
    delineate("plan", cohort, "-o", work / "plan.json", "--budget", a.budget, "--seed", str(a.seed))
    plan = json.loads((work / "plan.json").read_text())
    plan["schedule"] |= {
        "epochs": -(-a.steps // plan["schedule"]["steps_per_epoch"]),
        "budget_s": None,
    }
    none = (
        plan["augmentation"]
        | {key: 0.0 for key in plan["augmentation"] if key.endswith("_p")}
        | {"mirror": []}
    )
    found = {}
    for kind, augmentation in (("augmented", plan["augmentation"]), ("plain", none)):
        found[kind] = work / f"{kind}.json"
        found[kind].write_text(json.dumps(plan | {"augmentation": augmentation}))
    return found


def compared(work: Path, per: str) -> dict[str, Any]:
    """The sentences and differences that `compare` reports per case or per patient."""
    runs = [work / f"{kind}.model.run" for kind in ("plain", "augmented")]
    out = work / f"compared_per_{per}"
    delineate("compare", *runs, "-o", out, "--names", "plain,augmented", "--per", per)
    found = json.loads((out / "compare.json").read_text())
    return {
        "sentences": found["sentences"],
        "differences": {k: v["differences"] for k, v in found["labels"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--budget", default="4m", help="time budget for which the plan is made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--keep", type=Path, help="folder in which models and results are kept")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = a.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        cohort = a.data / "chaos_t1_png"
        for kind, plan in plans(cohort, work, a).items():
            model = work / f"{kind}.model"
            delineate("train", cohort, "-o", model, "--plan", plan, "--seed", str(a.seed))
        kept = {f"per_{per}": compared(work, per) for per in ("case", "patient")}
        keep("compare_augmentation", {"steps": a.steps, "seed": a.seed, **kept})


if __name__ == "__main__":
    main()

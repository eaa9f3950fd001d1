"""Two real runs compared: liver MR slices learnt with and without augmentation, by one plan for the
same number of steps.

    python benchmarks/compare_augmentation.py [--steps 400] [--budget 4m] [--keep FOLDER]

Both learn ``chaos_t1_png`` and are scored on its 31 `val` pairs, which chose their checkpoints: the
comparison is fair, the figures are optimistic. Equal steps and not equal time, because a clock
would give the busier minutes fewer. Prints what `compare` found, in its own sentence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from measure import DATA, keep
from train_real import delineate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--budget", default="4m", help="what the plan is made for")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--keep", type=Path, help="folder in which to leave models and figures")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = a.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        cohort = a.data / "chaos_t1_png"
        delineate(
            "plan", cohort, "-o", work / "plan.json", "--budget", a.budget, "--seed", str(a.seed)
        )
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
        for kind, augmentation in (("augmented", plan["augmentation"]), ("plain", none)):
            (work / f"{kind}.json").write_text(json.dumps(plan | {"augmentation": augmentation}))
            delineate(
                "train",
                cohort,
                "-o",
                work / f"{kind}.model",
                "--plan",
                work / f"{kind}.json",
                "--seed",
                str(a.seed),
            )
        runs = [work / f"{kind}.model.run" for kind in ("plain", "augmented")]
        found = {}
        for per in ("case", "patient"):
            delineate(
                "compare",
                *runs,
                "-o",
                work / f"compared_per_{per}",
                "--names",
                "plain,augmented",
                "--per",
                per,
            )
            found[f"per_{per}"] = json.loads(
                (work / f"compared_per_{per}" / "compare.json").read_text()
            )
        kept = {
            name: {
                "sentences": c["sentences"],
                "differences": {k: v["differences"] for k, v in c["labels"].items()},
            }
            for name, c in found.items()
        }
        keep("compare_augmentation", {"steps": a.steps, "seed": a.seed, **kept})


if __name__ == "__main__":
    main()

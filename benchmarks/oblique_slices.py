"""Oblique slices at prediction against axial slices only, on kept-back patients.

A small 2-D U-Net is trained on real MR (the Decathlon's hippocampus), once without and once with
oblique training slices, and predicts the same test patients with several tilts. Run it from the
project's root:

    python benchmarks/oblique_slices.py DATA/hippocampus --epochs 10 -o /tmp/oblique
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import delineate as dl

TILTS_DEG = (0.0, 5.0, 10.0, 20.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10, help="of 60 steps")
    parser.add_argument("--split", default="168/40")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    test = given.out / "test.jsonl"
    plan = given.out / "plan.json"
    made = dl.plan(given.data, dims=2, epochs=given.epochs, split=given.split, device="cpu")
    small = {
        "widths": (16, 32, 64),
        "strides": ((2, 2, 1), (2, 2, 1)),
        "kernels": ((3, 3, 1),) * 3,
    }
    made = made.replace(
        network=made.network.model_dump() | small,
        patch=(48, 64, 1),
        batch=16,
        schedule=made.schedule.model_dump() | {"steps_per_epoch": 60},
    )
    plan.write_text(made.to_json())
    table = []
    for name, changes in (
        ("axial training slices", ()),
        ("oblique training slices", ("augmentation.oblique_p=0.5", "augmentation.oblique_deg=20")),
    ):
        model = given.out / f"{name.split()[0]}.model"
        run = dl.train(
            given.data,
            model,
            plan=plan,
            epochs=given.epochs,
            split=given.split,
            seed=given.seed,
            changes=changes,
            device="cpu",
            say=print,
        )
        cohort = dl.Cohort.load(run.folder / "manifest.jsonl").where("test")
        dl.Cohort.of(cohort).save(test)
        scored = []
        for tilt in TILTS_DEG:
            out = given.out / f"{model.stem}_{tilt:g}"
            done = dl.predict(model, [test], out, device="cpu", oblique_deg=tilt)
            assert not done.failures, done.failures
            found = dl.evaluate(out, test, given.out / f"{out.name}_scores", report=False)
            scored.append(given.out / f"{out.name}_scores")
            seconds = sum(o.value["seconds"]["infer_and_restore"] for o in done.written)
            row = {
                "model": name,
                "tilt_deg": tilt,
                "dice": found.scores.mean("dice"),
                "hd95_mm": found.scores.mean("hd95_mm"),
                "seconds_a_case": seconds / len(done.written),
            }
            table.append(row)
            print(json.dumps(row))
        compared = dl.compare(scored, names=tuple(f"{t:g} degrees" for t in TILTS_DEG))
        print(*compared.sentences, sep="\n")
    (given.out / "table.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()

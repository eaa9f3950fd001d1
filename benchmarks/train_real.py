"""Whole training commands on the real data sets, as a user would type them: seconds, and Dice of
held-out cases by `evaluate`.

    python benchmarks/train_real.py hippocampus [--budget 10m] [--data ../shared/data]

hippocampus  a fifth of the patients for testing, drawn by --seed; mean Dice per case of both
             structures. With --folds 5, five trainings, so that each case is tested once by the
             model that was not trained on it; with --keep, an interrupted series continues at the
             fold that was running.
chaos        2-D slices; Dice pooled over the 31 `val` pairs, and the mean per slice
malc         29 structures, 3 patients for testing
brats        two modalities, four classes, 1 patient for testing
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import DATA, keep, timed

FOLDERS = {
    "chaos": "chaos_t1_png",
    "brats": "brats2013",
}  # names of folders that differ from those here
PAIRS = {  # MICCAI 2012 labels: values on the right and left side
    "Accumbens Area": (23, 30),
    "Amygdala": (31, 32),
    "Caudate": (36, 37),
    "Cerebellum Exterior": (38, 39),
    "Cerebellum White Matter": (40, 41),
    "Cerebral White Matter": (44, 45),
    "Hippocampus": (47, 48),
    "Inf Lat Vent": (49, 50),
    "Lateral Ventricle": (51, 52),
    "Pallidum": (55, 56),
    "Putamen": (57, 58),
    "Thalamus Proper": (59, 60),
    "Ventral DC": (61, 62),
}
MIDLINE = {"3rd Ventricle": 4, "4th Ventricle": 11, "Brain Stem": 35}


def malc_labels(path: Path) -> Path:
    """Write a YAML file of 29 structures: 13 on each side and 3 on the midline."""
    lines = [
        f"{side} {name}: {values[side == 'Left']}"
        for name, values in PAIRS.items()
        for side in ("Right", "Left")
    ]
    lines += [f"{name}: {value}" for name, value in MIDLINE.items()]
    path.write_text("labels:\n" + "".join(f"  {line}\n" for line in lines))
    return path


def delineate(*words: str | Path) -> float:
    """Run a command of delineate; returns the seconds. A model that is not usable is a result."""
    allowed = (0, 3) if words[0] == "train" else (0,)
    return timed([sys.executable, "-m", "delineate.cli", *words], allowed=allowed)


def split_of(names: list[str], test: int, seed: int, path: Path, part: int = 0) -> Path:
    """Write a split file: shuffled names ``part * test`` to ``(part + 1) * test`` are for testing.

    All others are for training. The last part also receives the remainder.
    """
    drawn = list(names)
    random.Random(seed).shuffle(drawn)
    begin, end = part * test, (part + 1) * test
    out = set(drawn[begin:] if len(drawn) - end < test else drawn[begin:end])
    path.write_text(json.dumps({"test": sorted(out), "train": sorted(set(names) - out)}))
    return path


def scored(
    model: Path, truth: Path, work: Path, only: str = "test", mirror: bool = False
) -> dict[str, Any]:
    """The scores of the held-out cases by `evaluate`, with the seconds of the prediction.

    Results that are already in ``work`` are used again.
    """
    way = "mirrored_" if mirror else ""
    found, seconds = work / f"{way}scores" / "scores.json", work / f"{way}predict_s.json"
    if not found.exists():
        taken = delineate(
            "predict",
            model,
            truth,
            "-o",
            work / f"{way}out",
            "--only",
            only,
            *(["--mirror"] if mirror else []),
        )
        seconds.write_text(json.dumps(round(taken, 1)))
        delineate("evaluate", work / f"{way}out", truth, "-o", found.parent, "--no-report")
    return json.loads(found.read_text()) | {
        "predict_s": json.loads(seconds.read_text()) if seconds.exists() else None
    }


def dice_of(scores: dict[str, Any]) -> dict[str, float]:
    """Structure -> mean Dice over cases."""
    return {row["label"]: row["mean"] for row in scores["summary"] if row["metric"] == "dice"}


def cross_validated(
    a: argparse.Namespace, work: Path, cohort: Path, names: list[str]
) -> dict[str, Any]:
    """Train all folds; means over all cases, each scored by the fold not trained on it."""
    train_s: list[float] = []
    folds: dict[str, list[dict[str, Any]]] = {"plain": [], "mirrored": []}
    for fold in range(a.folds):
        place = work / f"fold_{fold}"
        place.mkdir(exist_ok=True)
        done = place / "seconds.json"
        if not done.exists():
            split = split_of(names, len(names) // a.folds, a.seed, place / "split.json", fold)
            taken = delineate(
                "train",
                cohort,
                "-o",
                place / "model",
                "--budget",
                a.budget,
                "--seed",
                str(a.seed),
                "--split",
                split,
            )
            done.write_text(json.dumps(taken))
        train_s.append(round(json.loads(done.read_text()), 1))
        for way, scores in folds.items():
            if way == "plain" or a.mirror:
                scores.append(
                    scored(
                        place / "model",
                        place / "model.run" / "manifest.jsonl",
                        place,
                        mirror=way == "mirrored",
                    )
                )
    means = {way: over_folds(scores) for way, scores in folds.items() if scores}
    return {"folds": a.folds, "train_s": train_s, **means.pop("plain"), **means}


def over_folds(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the cases of all folds: each fold counts by its number of cases."""
    counts, tables = [len(fold["cases"]) for fold in folds], [dice_of(fold) for fold in folds]
    dice = {
        label: round(
            sum(t[label] * n for t, n in zip(tables, counts, strict=True)) / sum(counts), 4
        )
        for label in tables[0]
    }
    by_fold = [round(fold["means"]["dice_mean_per_case"], 4) for fold in folds]
    return {
        "cases": sum(counts),
        "dice": dice,
        "mean": round(sum(dice.values()) / len(dice), 4),
        "mean_by_fold": by_fold,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["hippocampus", "chaos", "malc", "brats"])
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--folds", type=int, default=0, help="hippocampus: number of folds of a cross-validation"
    )
    parser.add_argument("--mirror", action="store_true", help="also predict with mirroring")
    parser.add_argument("--keep", type=Path, help="folder in which model and predictions are kept")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = a.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        model, more, only = work / f"{a.what}.model", [], "test"
        cohort = a.data / FOLDERS.get(a.what, a.what)
        if a.what == "chaos":
            only = "val"
        else:
            patients = {
                "hippocampus": "labels*/*.nii.gz",
                "malc": "labels/*.nii.gz",
                "brats": "*/OTMultiClass.nii.gz",
            }[a.what]
            names = sorted(
                p.parent.name if a.what == "brats" else p.name.removesuffix(".nii.gz")
                for p in cohort.glob(patients)
            )
            if a.folds:
                cross = cross_validated(a, work, cohort, names)
                return keep(
                    f"train_{a.what}_{a.folds}_folds_{a.budget}",
                    {"budget": a.budget, "seed": a.seed, **cross},
                )
            more = [
                "--split",
                split_of(
                    names,
                    {"hippocampus": len(names) // 5, "malc": 3, "brats": 1}[a.what],
                    a.seed,
                    work / "split.json",
                ),
            ]
        if a.what == "malc":
            more += ["--labels", malc_labels(work / "labels.yaml")]
        train_s = delineate(
            "train", cohort, "-o", model, "--budget", a.budget, "--seed", str(a.seed), *more
        )
        truth = cohort if a.what == "chaos" else work / f"{a.what}.model.run" / "manifest.jsonl"
        result: dict[str, Any] = {"budget": a.budget, "seed": a.seed, "train_s": round(train_s, 1)}
        result["validation_by_minutes"] = curve(
            next((work / f"{a.what}.model.run").glob("*/log.jsonl"))
        )
        result |= summed_up(scored(model, truth, work, only))
        if a.mirror:
            result["mirrored"] = summed_up(scored(model, truth, work, only, mirror=True))
        keep(f"train_{a.what}_{a.budget}", result)


def curve(log: Path) -> list[tuple[float, float]]:
    """(minutes of training, mean Dice of the validation cases) of each validation."""
    lines = map(json.loads, log.read_text().splitlines())
    return [
        (round(line["seconds"] / 60, 1), round(line["val_dice_mean"], 4))
        for line in lines
        if line.get("val_dice_mean") is not None
    ]


def summed_up(scores: dict[str, Any]) -> dict[str, Any]:
    """The part of the scores that is kept in a result."""
    dice = {label: round(mean, 4) for label, mean in dice_of(scores).items()}
    return {
        "predict_s": scores["predict_s"],
        "cases": len(scores["cases"]),
        "means": scores["means"],
        "dice": dice,
    }


if __name__ == "__main__":
    main()

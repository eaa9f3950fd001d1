"""Every recipe as a user would type it, scaled to a time budget: Dice of held-out cases, seconds
per epoch.

    python benchmarks/train_recipe.py liver-ct-unet3d [--budget 10m] [--data ../shared/data]
        [--keep FOLDER]

liver-ct-unet3d   phantoms in the tutorial's folder layout, 5 of 20 patients for testing; then the
                  real chaos_ct, a domain that the model was not trained on
liver-ct-unet2d   the same, with and without oblique planes
brain-quicknat    malc, 27 structures, 3 patients for testing: trained from scratch; pre-trained on
                  tissues and fine-tuned; each view alone; dropout sampling
liver-mr-unet2d   chaos_t1_png, scored on its `val` pairs
liver-mr-16bit    phantom MR in the CHAOS layout: 16 bits compared with 8 bits, with and without
                  augmentation and dropout, by `compare`
brats-vnet        brats2013, 2 patients for training, 1 for validation, 1 for testing; then with a
                  missing modality
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from measure import DATA, keep
from train_real import delineate, split_of


def trained(data: Path, model: Path, *words: str | Path) -> dict[str, Any]:
    """Train, and return figures from the model card and the logs."""
    delineate("train", data, "-o", model, *words)
    run = model.with_name(model.name + ".run")
    card, plan = (
        json.loads((run / "card.json").read_text()),
        json.loads((run / "plan.json").read_text()),
    )
    logs = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(run.glob("fold_*/**/log.jsonl"))
    ]
    epochs = [line["epoch_s"] for lines in logs for line in lines if line.get("epoch_s")]
    return {
        "train_s": card["seconds"],
        "dice": {
            name: round(value, 4)
            for name, value in card["scores"]["dice"].items()
            if value is not None
        },
        "dice_mean": round(card["scores"]["dice_mean"], 4),
        "scored": f"{card['scores']['cases']} cases, {card['scores']['what']}",
        "epoch_s": round(statistics.median(epochs), 2) if epochs else None,
        "epochs": [round(lines[-1]["epoch"], 1) for lines in logs],
        "steps": [lines[-1]["step"] for lines in logs],
        "scaling": plan["reasons"].get("scaling", "none: the full setting"),
    }


def scored(prediction: Path, truth: Path, out: Path, *words: str | Path) -> dict[str, float]:
    """The means of Dice by `evaluate`."""
    delineate("evaluate", prediction, truth, "-o", out, *words)
    return {
        key: round(value, 4)
        for key, value in json.loads((out / "scores.json").read_text())["means"].items()
        if key.startswith("dice") and value is not None
    }


def liver_ct_unet3d(a: argparse.Namespace, work: Path) -> dict[str, Any]:
    return {"recipe": "liver-ct-unet3d", **_on_phantom(a, work, "liver-ct-unet3d")}


def liver_ct_unet2d(a: argparse.Namespace, work: Path) -> dict[str, Any]:
    return {
        name: _on_phantom(a, work, name) for name in ("liver-ct-unet2d", "liver-ct-unet2d-axial")
    }


def _on_phantom(a: argparse.Namespace, work: Path, recipe: str) -> dict[str, Any]:
    """Train a recipe on phantoms; score the test phantoms and the real CT."""
    tree, model = work / "phantom", work / f"{recipe}.model"
    if not tree.is_dir():
        delineate("phantom", tree, "--format", "volumes", "--organs", "liver", "--patients", "20")
    found = trained(tree, model, "--recipe", recipe, "--budget", a.budget, "--seed", str(a.seed))
    found["test"] = scored(
        model.with_name(model.name + ".run") / "test" / "predictions",
        model.with_name(model.name + ".run") / "test" / "manifest.jsonl",
        work / f"{recipe}_test",
    )
    delineate("predict", model, a.data / "chaos_ct", "-o", work / f"{recipe}_real")
    found["real CT, never seen"] = scored(
        work / f"{recipe}_real", a.data / "chaos_ct", work / f"{recipe}_real_scores"
    )
    return found


def liver_mr_unet2d(a: argparse.Namespace, work: Path) -> dict[str, Any]:
    cohort, model = a.data / "chaos_t1_png", work / "liver-mr-unet2d.model"
    found = trained(
        cohort, model, "--recipe", "liver-mr-unet2d", "--budget", a.budget, "--seed", str(a.seed)
    )
    delineate("predict", model, cohort, "-o", work / "val", "--only", "val")
    return found | {"val": scored(work / "val", cohort, work / "val_scores")}


def liver_mr_16bit(a: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The same patients with 16 and with 8 bits, and without augmentation or dropout.

    The 8-bit images are scaled by the maximum of the cohort, as in the original work. All four runs
    have the same plan and number of steps, because a time limit would give fewer steps to a run
    that shares the machine with other work.
    """
    tree = work / "chaos-mr"
    if not tree.is_dir():
        delineate("phantom", tree, "--format", "chaos-mr", "--patients", "20")
    split = split_of(
        sorted(p.name for p in tree.iterdir() if p.is_dir()), 5, a.seed, work / "split.json"
    )
    inphase = ["--layout", "chaos-mr-inphase"]
    delineate(
        "plan",
        tree,
        "-o",
        work / "plan.json",
        "--recipe",
        "liver-mr-unet2d",
        "--budget",
        a.budget,
        "--seed",
        str(a.seed),
        *inphase,
    )
    plan = json.loads((work / "plan.json").read_text())
    plan["schedule"] |= {
        "epochs": -(-a.steps // plan["schedule"]["steps_per_epoch"]),
        "budget_s": None,
    }
    no_augmentation = (
        plan["augmentation"]
        | {key: 0.0 for key in plan["augmentation"] if key.endswith("_p")}
        | {"mirror": []}
    )
    changes = {
        "16 bits": {},
        "8 bits": {},
        "no augmentation": {"augmentation": no_augmentation},
        "no dropout": {"network": plan["network"] | {"dropout": 0}},
    }
    found: dict[str, Any] = {"steps": a.steps}
    for name, change in changes.items():
        (work / f"{name}.json").write_text(json.dumps(plan | change))
        common = ["--plan", work / f"{name}.json", "--labels", _liver(work), "--split", split]
        if name == "8 bits":
            data, how = (
                _in_8_bits(work, plan["channels"][0]["name"]),
                ["--description", work / "8bit.yaml"],
            )
        else:
            data, how = tree, inphase
        found[name] = trained(data, work / f"{name}.model", *how, *common)
    runs = [work / f"{name}.model.run" for name in changes]
    delineate("compare", *runs, "-o", work / "compare", "--names", ",".join(changes))
    return found | {"compare": json.loads((work / "compare" / "compare.json").read_text())}


def _in_8_bits(work: Path, channel: str) -> Path:
    """Write the cohort of the first run as 8-bit NIfTI."""
    import nibabel as nib

    from delineate.cohorts.reading import read_image, read_label
    from delineate.core.manifest import Manifest

    cohort = Manifest.load(work / "16 bits.model.run" / "manifest.jsonl")
    images = {case.id: read_image(case, cohort) for case in cohort}
    most = max(float(v.array.max()) for v in images.values())
    for case in cohort:
        volume, label = images[case.id], read_label(case, cohort, images[case.id].grid)
        for kind, array in (
            ("images", np.clip(volume.array * (255 / most), 0, 255).astype(np.uint8)),
            ("labels", label.array),
        ):
            path = work / "8bit" / kind / f"{case.id}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.squeeze(array), volume.grid.affine), path)
    (work / "8bit.yaml").write_text(
        f'channels:\n  {channel}: "images/{{id}}.nii.gz"\nlabel: '
        '"labels/{id}.nii.gz"\nmodality: MR\nlabels:\n  liver: 1\n'
    )
    return work / "8bit"


def _liver(work: Path) -> Path:
    (work / "liver.yaml").write_text("labels:\n  liver: liver\n")
    return work / "liver.yaml"


def brain_quicknat(a: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Pre-training, fine-tuning, training from scratch; single views; dropout samples."""
    cohort = a.data / "malc"
    names = sorted(p.name.removesuffix(".nii.gz") for p in (cohort / "labels").glob("*.nii.gz"))
    split = split_of(names, 3, a.seed, work / "split.json")
    (work / "tissues.yaml").write_text(
        'channels:\n  T1: "images/{id}.nii.gz"\nlabel: "tissues/{id}.nii.gz"\nmodality: '
        "MR\nlabels:\n  CSF: 1\n  grey matter: 2\n  white matter: 3\n"
    )
    common = ["--recipe", "brain-quicknat", "--seed", str(a.seed)]
    experts, expert_split = (
        _experts(cohort, split, a.experts, work) if a.experts else (cohort, split)
    )
    second = ["--split", expert_split, "--budget", a.budget, *common]
    found: dict[str, Any] = {
        "brains with expert labels, to train and validate": a.experts or len(names) - 3,
        "pre-training on tissues": trained(
            cohort,
            work / "tissues.model",
            *common,
            "--split",
            split,
            "--description",
            work / "tissues.yaml",
            "--budget",
            a.first,
        ),
        "fine-tuned": trained(
            experts, work / "fine.model", *second, "--init", work / "tissues.model"
        ),
        "from scratch": trained(experts, work / "scratch.model", *second),
    }
    truth = work / "fine.model.run" / "test" / "manifest.jsonl"
    for view in ("axial", "coronal", "sagittal"):
        delineate("predict", work / "fine.model", truth, "-o", work / view, "--views", view)
        found[f"{view} alone"] = scored(work / view, truth, work / f"{view}_scores")
    delineate("predict", work / "fine.model", truth, "-o", work / "mc", "--samples", str(a.samples))
    found["all views"] = scored(work / "mc", truth, work / "mc_scores")
    return found | {"sampling": rank_correlation(work)}


def _experts(cohort: Path, split: Path, count: int, work: Path) -> tuple[Path, Path]:
    """A cohort with ``count`` brains for training and validation, plus the test brains; its split.

    One of the ``count`` brains is for validation.
    """
    sides = json.loads(split.read_text())
    chosen = sides["train"][:count]
    for name in (*chosen, *sides["test"]):
        for kind in ("images", "labels"):
            link = work / "experts" / kind / f"{name}.nii.gz"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((cohort / kind / link.name).resolve())
    (work / "experts" / "labels.csv").write_text((cohort / "labels.csv").read_text())
    (work / "experts.json").write_text(
        json.dumps({"train": chosen[:-1], "val": chosen[-1:], "test": sides["test"]})
    )
    return work / "experts", work / "experts.json"


def rank_correlation(work: Path) -> dict[str, float]:
    """Spearman's rank correlation between the IoU of dropout samples and Dice.

    It is computed over all pairs of structure and case, and over the means of the structures.
    """
    cases = json.loads((work / "mc" / "predictions.json").read_text())["cases"]
    iou = {
        (case, name): row["iou"]
        for case, entry in cases.items()
        for name, row in entry["uncertainty"].items()
    }
    rows = json.loads((work / "mc_scores" / "scores.json").read_text())["rows"]
    pairs = {
        (r["case"], r["label"]): (iou.get((r["case"], r["label"])), r["value"])
        for r in rows
        if r["metric"] == "dice"
    }
    pairs = {key: pair for key, pair in pairs.items() if None not in pair}
    labels = sorted({label for _, label in pairs})
    means = [
        [
            float(np.mean([pair[n] for (_, label), pair in pairs.items() if label == name]))
            for name in labels
        ]
        for n in (0, 1)
    ]
    x, y = zip(*pairs.values(), strict=True)
    return {
        "pairs": len(pairs),
        "spearman over cases and structures": _spearman(x, y),
        "structures": len(labels),
        "spearman over structures": _spearman(*means),
    }


def _spearman(x: Any, y: Any) -> float:
    def ranks(values: Any) -> Any:
        values = np.asarray(values)
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    return round(float(np.corrcoef(ranks(x), ranks(y))[0, 1]), 4)


def brats_vnet(a: argparse.Namespace, work: Path) -> dict[str, Any]:
    names = sorted(p.name for p in (a.data / "brats2013").iterdir() if p.is_dir())
    (work / "split.json").write_text(
        json.dumps({"train": names[:2], "val": names[2:3], "test": names[3:]})
    )
    found = {}
    for recipe in ("brats-vnet", "brats-vnet-light"):
        model = work / f"{recipe}.model"
        found[recipe] = trained(
            a.data / "brats2013",
            model,
            "--recipe",
            recipe,
            "--split",
            work / "split.json",
            "--budget",
            a.budget,
            "--seed",
            str(a.seed),
        )
        lacking = work / "lacking" / names[3]
        lacking.mkdir(parents=True, exist_ok=True)
        for path in (a.data / "brats2013" / names[3]).iterdir():
            if not path.name.startswith("T1c") and not (lacking / path.name).exists():
                (lacking / path.name).symlink_to(path)
        delineate(
            "predict", model, lacking.parent, "-o", work / f"{recipe}_lacking", "--allow-missing"
        )
        found[recipe]["without T1c"] = scored(
            work / f"{recipe}_lacking",
            model.with_name(model.name + ".run") / "test" / "manifest.jsonl",
            work / f"{recipe}_lacking_scores",
        )
    return found


WHAT = {
    "liver-ct-unet3d": liver_ct_unet3d,
    "liver-ct-unet2d": liver_ct_unet2d,
    "liver-mr-unet2d": liver_mr_unet2d,
    "liver-mr-16bit": liver_mr_16bit,
    "brain-quicknat": brain_quicknat,
    "brats-vnet": brats_vnet,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--budget", default="10m", help="time of each training")
    parser.add_argument("--first", default="8m", help="time of the pre-training on tissues")
    parser.add_argument(
        "--experts",
        type=int,
        default=0,
        help="number of brains with expert labels in the second stage; 0: all except test brains",
    )
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument(
        "--steps",
        type=int,
        default=600,
        help="steps of each training of liver-mr-16bit",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--keep", type=Path, help="folder in which models and predictions are kept")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = a.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        name = f"recipe_{a.what.replace('-', '_')}" + (f"_{a.experts}_experts" if a.experts else "")
        keep(name, {"budget": a.budget, "seed": a.seed, **WHAT[a.what](a, work)})


if __name__ == "__main__":
    sys.exit(main())

"""The five published tutorials' recipes against our own planner: the same patients, minutes and
seeds, judged by patients that were kept back. Writes docs/tutorials/compared.md.

    python benchmarks/tutorials.py [--budget 10m] [--seeds 1,2,3] [--systems brain-mr ...]
        [--data ../shared/data] [--keep FOLDER]
    python benchmarks/tutorials.py --page    # only writes the page from results/tutorials.json

A run that is in ``--keep`` is not repeated, so an interrupted series continues. Each run keeps the
machine that trained it, and each row of the page names its machines. The Dice of a patient is the
mean over its structures and the seeds; the interval is over patients (bootstrap).

liver-ct-3d    phantoms in the tutorial's folders, 5 of 20 patients kept back
brain-mr       malc, 3 of 15 brains kept back; fine-tuned from tissue labels, from scratch, and each
               view alone
liver-mr       chaos_t1_png, the 31 pairs of `val` kept back
liver-ct-2d    phantoms, 7 of 20 patients kept back; with and without oblique slices
brain-tumours  brats2013, all modalities; each of the 4 patients kept back once
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from delineate.cohorts.discovery.layouts import find
from delineate.core.inputs import read_json_if_any
from delineate.metrics.statistics import interval
from delineate.planning.recipes import brain_quicknat
from measure import DATA, keep, processor
from train_real import delineate, split_of

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "compared.md"
TISSUES = (
    'channels:\n  T1: "images/{id}.nii.gz"\nlabel: "tissues/{id}.nii.gz"\nmodality: MR\n'
    "labels:\n  CSF: 1\n  grey matter: 2\n  white matter: 3\n"
)
Words = tuple[str, ...]


@dataclass(frozen=True)
class System:
    """A tutorial: what it reports, and what is run here.

    Args:
        title: of the tutorial.
        reported, on, mistakes: what the tutorial states, its data, and the faults that the figure
            contains.
        data: what is run here.
        cohort: (folder of the real data, working folder) -> the cohort.
        names: cohort -> the cases that may be kept back.
        others: cohort -> further cases, which are only trained on.
        test, parts: number kept back in a run, and number of runs, each with others kept back.
        variants: name -> options of `train`; our planner without a recipe is added.
        views: these views of the first variant are also scored alone.
        ours: cohort -> structures of our planner, if a recipe chooses them itself.
        earlier: rows of the page from older records: (what, file, keys to the Dice).
    """

    title: str
    reported: str
    on: str
    mistakes: str
    data: str
    cohort: Callable[[Path, Path], Path]
    names: Callable[[Path], list[str]]
    test: int
    variants: dict[str, Words]
    parts: int = 1
    views: Words = ()
    others: Callable[[Path], list[str]] = lambda _: []
    ours: Callable[[Path], dict[str, list[int]]] | None = None
    earlier: tuple[tuple[str, str, Words], ...] = field(default=())


def phantoms(form: str) -> Callable[[Path, Path], Path]:
    """A cohort of 20 phantoms in a tree, made once."""

    def make(_: Path, work: Path) -> Path:
        tree = work / f"phantom-{form}"
        if not tree.is_dir():
            words = ("--format", form, "--organs", "liver", "--patients", "20")
            delineate("phantom", tree, *words)
        return tree

    return make


def real(name: str) -> Callable[[Path, Path], Path]:
    return lambda data, _: data / name


def phantom_names(_: Path) -> list[str]:
    return [f"phantom_{n:03d}" for n in range(1, 21)]


def stems(folder: str) -> Callable[[Path], list[str]]:
    return lambda cohort: sorted(path.name.split(".")[0] for path in (cohort / folder).iterdir())


def structures_of_recipe(cohort: Path) -> dict[str, list[int]]:
    """The 27 structures of ``brain-quicknat``, with their values in MALC."""
    found = brain_quicknat.structures(find(cohort), has_choice=False)
    return {
        label.name: [stored for stored, value in found.mapping.values if value == label.value]
        for label in found.labels
    }


SYSTEMS = {
    "liver-ct-3d": System(
        title="3-D U-Net, liver CT",
        reported="Dice about 0.86",
        on="its own split of the Decathlon's liver task",
        mistakes="one minus the loss, with the background; the test set selects the best of 600 "
        "epochs",
        data="20 phantoms, 5 kept back",
        cohort=phantoms("volumes"),
        names=phantom_names,
        test=5,
        variants={"recipe": ("--recipe", "liver-ct-unet3d")},
        earlier=(
            (
                "recipe, 5 phantoms kept back",
                "recipe_liver_ct_unet3d",
                ("test", "dice_mean_per_case"),
            ),
        ),
    ),
    "brain-mr": System(
        title="QuickNAT, brain MR",
        reported="values up to 3; the paper of QuickNAT: 0.90",
        on="slices of OASIS-1, three tissues; the paper: 27 structures of MALC",
        mistakes="Dice of class indices; validation and test are copies of training brains",
        data="15 brains of MALC, 27 structures, 3 kept back",
        cohort=real("malc"),
        names=stems("labels"),
        test=3,
        variants={
            "recipe, fine-tuned from tissues": ("--recipe", "brain-quicknat", "--init", "tissues"),
            "recipe, from scratch": ("--recipe", "brain-quicknat"),
        },
        views=("axial", "coronal", "sagittal"),
        ours=structures_of_recipe,
        earlier=(
            (
                "recipe, fine-tuned, 3 brains kept back",
                "recipe_brain_quicknat",
                ("fine-tuned", "dice_mean"),
            ),
            (
                "recipe, from scratch, the same brains",
                "recipe_brain_quicknat",
                ("from scratch", "dice_mean"),
            ),
            (
                "recipe, axial view alone",
                "recipe_brain_quicknat",
                ("axial alone", "dice_mean_per_case"),
            ),
            (
                "recipe, coronal view alone",
                "recipe_brain_quicknat",
                ("coronal alone", "dice_mean_per_case"),
            ),
            (
                "our planner, the same brains, but 29 structures",
                "train_malc_8m",
                ("means", "dice_mean_per_case"),
            ),
        ),
    ),
    "liver-mr": System(
        title="2-D U-Net, liver MR",
        reported="Dice 0.89",
        on="its own 4 of 20 patients of CHAOS, T1 in phase",
        mistakes="clipped greys in the place of a mask; empty slices count as 1; the test slices "
        "are the validation slices",
        data="531 pairs of CHAOS, the 31 of `val` kept back (their patients may be in the others)",
        cohort=real("chaos_t1_png"),
        names=stems("val/Data"),
        others=stems("train/Data"),
        test=31,
        variants={"recipe": ("--recipe", "liver-mr-unet2d")},
        earlier=(
            (
                "recipe, the 31 pairs (they selected the network)",
                "recipe_liver_mr_unet2d",
                ("val", "dice_mean_per_patient"),
            ),
            (
                "our planner, the 31 pairs (they selected the network)",
                "train_chaos_10m",
                ("means", "dice_mean_per_patient"),
            ),
        ),
    ),
    "liver-ct-2d": System(
        title="2-D U-Net, liver CT",
        reported="test Dice 0.87",
        on="the last fifth of the training slices of 13 patients of 3D-IRCADb",
        mistakes="the best of 20 validation values; one patient on both sides; HU in 8 bits",
        data="20 phantoms, 7 kept back",
        cohort=phantoms("ircadb"),
        names=lambda _: [f"3Dircadb1.{n}" for n in range(1, 21)],
        test=7,
        variants={
            "recipe": ("--recipe", "liver-ct-unet2d"),
            "recipe, axial slices alone": ("--recipe", "liver-ct-unet2d-axial"),
        },
        earlier=(
            (
                "recipe, 5 phantoms kept back",
                "recipe_liver_ct_unet2d",
                ("liver-ct-unet2d", "test", "dice_mean_per_case"),
            ),
            (
                "recipe, axial slices alone",
                "recipe_liver_ct_unet2d",
                ("liver-ct-unet2d-axial", "test", "dice_mean_per_case"),
            ),
        ),
    ),
    "brain-tumours": System(
        title="V-Net, brain tumours",
        reported="voxel accuracy; no Dice",
        on="BraTS, its own split",
        mistakes="accuracy of a background that fills 99 %; the test images choose the checkpoint",
        data="4 cases of BraTS 2013, FLAIR and T1 with contrast, each kept back once",
        cohort=real("brats2013"),
        names=lambda cohort: sorted(path.name for path in cohort.iterdir() if path.is_dir()),
        test=1,
        parts=4,
        variants={
            "recipe": ("--recipe", "brats-vnet"),
            "recipe, light": ("--recipe", "brats-vnet-light"),
        },
        earlier=(
            ("recipe, 1 patient kept back", "recipe_brats_vnet", ("brats-vnet", "dice_mean")),
            (
                "recipe, light, the same patient",
                "recipe_brats_vnet",
                ("brats-vnet-light", "dice_mean"),
            ),
        ),
    ),
}
OURS = "our planner, without a recipe"


def measured(name: str, a: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All runs of a system: variant -> its runs, one for each seed and part."""
    system = SYSTEMS[name]
    cohort = system.cohort(a.data, work)
    ours: Words = ()
    if system.ours is not None:
        labels = work / f"{name}.yaml"
        labels.write_text(json.dumps({"labels": system.ours(cohort)}))  # JSON is YAML
        ours = ("--labels", str(labels))
    found: dict[str, Any] = {}
    for variant, words in (system.variants | {OURS: ours}).items():
        runs = [
            run(system, cohort, words, seed, part, a, work / name / f"{variant}-{seed}-{part}")
            for seed in a.seeds
            for part in range(system.parts)
        ]
        found[variant] = summary(runs)
    for view in system.views:
        first = next(iter(system.variants))
        folders = [work / name / f"{first}-{seed}-0" for seed in a.seeds]
        runs = [scores(folder, "--views", view) for folder in folders]
        found[f"recipe, {view} view alone"] = summary(runs)
    return found


def run(
    system: System,
    cohort: Path,
    words: Words,
    seed: int,
    part: int,
    a: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    """Train without the kept-back patients, and score these; see ``scores``."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = folder / "trained.json"
    if not trained.exists():
        # The same patients are kept back for every variant and every seed.
        split = split_of(system.names(cohort), system.test, 1, folder / "split.json", part)
        sides = json.loads(split.read_text())
        split.write_text(json.dumps(sides | {"train": sides["train"] + system.others(cohort)}))
        common = ("--split", str(split), "--budget", a.budget, "--seed", str(seed))
        if "--init" in words:
            (folder / "tissues.yaml").write_text(TISSUES)
            stage = (*words[: words.index("--init")], "--description", str(folder / "tissues.yaml"))
            delineate("train", cohort, "-o", folder / "tissues.model", *common, *stage)
            words = (*words[:-1], str(folder / "tissues.model"))
        taken = delineate("train", cohort, "-o", folder / "m.model", *common, *words)
        trained.write_text(json.dumps({"train_s": round(taken, 1), "machine": machine()}))
    return scores(folder)


def scores(folder: Path, *words: str) -> dict[str, Any]:
    """Dice of the kept-back cases by `evaluate`: case -> mean over its structures."""
    place = folder / "-".join(("scored", *words)).replace("--", "")
    if not (place / "scores.json").exists():
        # The run itself scores only the cases for which its time suffices.
        truth = folder / "m.model.run" / "manifest.jsonl"
        only = ("--only", "test")
        delineate("predict", folder / "m.model", truth, "-o", place / "out", *only, *words)
        delineate("evaluate", place / "out", truth, "-o", place, "--no-report")
    rows = json.loads((place / "scores.json").read_text())["rows"]
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] == "dice" and row["value"] is not None:
            values.setdefault(row["case"], []).append(row["value"])
    dice = {case: statistics.fmean(found) for case, found in values.items()}
    return {"dice": dice, **json.loads((folder / "trained.json").read_text())}


def machine() -> str:
    """The processor and its cores, such as "AMD EPYC (AVX2), 2 cores"."""
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores"


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over patients, each the mean over the seeds, with its interval."""
    by_case: dict[str, list[float]] = {}
    for one in runs:
        for case, value in one["dice"].items():
            by_case.setdefault(case, []).append(value)
    # Slices of one patient, such as P13_T1_00028, are one patient.
    means = np.array([statistics.fmean(values) for values in by_case.values()])
    patients = [case.split("_T1_")[0] for case in by_case]
    low, high = interval(means, patients)
    return {
        "mean": float(np.mean(means)),
        "interval": [low, high] if len(set(patients)) > 1 else None,
        "patients": len(set(patients)),
        "runs": len(runs),
        "train_s": [one["train_s"] for one in runs],
        "machines": sorted({one["machine"] for one in runs}),
        "dice": by_case,
    }


# ---- the page ----


def page() -> str:
    """The page, from ``results/``; a figure that was not measured is "not run yet"."""
    record = read_json_if_any(RESULTS / "tutorials.json") or {}
    return "\n".join([*_head(), *_claims(), *_comparison(record), *_earlier()]) + "\n"


def _head() -> Iterator[str]:
    yield "# What the tutorials report, and what is reached here"
    yield ""
    yield "For anyone who compares a published figure with ours. The page states on which data and"
    yield "with which mistakes each figure was computed. Do not edit it by hand: it is written by"
    yield "`python benchmarks/tutorials.py` from `benchmarks/results/*.json`."


def _claims() -> Iterator[str]:
    yield ""
    yield "## What the tutorials report"
    yield ""
    yield "| tutorial | reports | on | with these mistakes |"
    yield "|---|---|---|---|"
    for name, s in SYSTEMS.items():
        yield f"| [{s.title}](from-{name}.md) | {s.reported} | {s.on} | {s.mistakes} |"


def _comparison(record: dict[str, Any]) -> Iterator[str]:
    systems = record.get("systems", {})
    yield ""
    yield "## The same patients, minutes and seeds"
    yield ""
    yield "Dice of patients that were kept back from every choice: mean over patients, with its"
    yield "95 % interval. Hardly anything else computed meanwhile. The networks of a recipe share"
    yield "the minutes; a model whose verdict is 'not usable' counts as any other. A fine-tuned"
    yield "network was trained on tissues before, for as long again. Minutes: of one training."
    yield "In the same minutes another machine does more or fewer steps: compare rows of the same"
    yield "machine."
    yield ""
    yield "| data here | trained with | Dice | patients | runs | minutes | machine |"
    yield "|---|---|---|---|---|---|---|"
    for name, system in SYSTEMS.items():
        found = systems.get(name, {}).get("variants", {})
        views = [f"recipe, {view} view alone" for view in system.views]
        for variant in (*system.variants, *views, OURS):
            yield f"| {system.data} | {variant} | {_cells(found.get(variant))} |"
    yield ""
    yield "Commands:"
    yield ""
    yield "```text"
    for name in SYSTEMS:
        options = systems.get(name, {}).get("options", "--budget 10m --seeds 1,2,3")
        yield f"python benchmarks/tutorials.py --systems {name} {options}"
    yield "```"


def _cells(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run yet | | | |"
    minutes = statistics.fmean(found["train_s"]) / 60
    dice = f"{found['mean']:.3f}"
    if found["interval"]:
        low, high = found["interval"]
        dice += f" ({low:.3f} to {high:.3f})"
    machines = "; ".join(found["machines"])
    return f"{dice} | {found['patients']} | {found['runs']} | {minutes:.1f} | {machines}"


def _earlier() -> Iterator[str]:
    yield ""
    yield "## Earlier single runs"
    yield ""
    yield "One run of each, scaled to the minutes stated, on two cores without AMX or AVX512-BF16"
    yield "(AMD EPYC, AVX2, 24 GB). There is no interval, and not all lines of a system have the"
    yield "same minutes or patients: do not compare them as if they had."
    yield ""
    yield "| system | run | mean Dice | minutes | command |"
    yield "|---|---|---|---|---|"
    for system in SYSTEMS.values():
        for what, file, keys in system.earlier:
            record = json.loads((RESULTS / f"{file}.json").read_text())
            dice, seconds = _looked_up(record, keys)
            command = record["command"].replace("benchmarks/", "")
            minutes = f"{seconds / 60:.1f}" if seconds else ""
            yield f"| {system.title} | {what} | {dice:.3f} | {minutes} | `{command}` |"


def _looked_up(record: dict[str, Any], keys: Words) -> tuple[float, float | None]:
    """The Dice below ``keys``, and the nearest seconds of training above it."""
    seconds = record.get("train_s")
    value: Any = record
    for key in keys:
        value = value[key]
        if isinstance(value, dict):
            seconds = value.get("train_s", seconds)
    return value, seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--budget", default="10m", help="time of each training")
    parser.add_argument(
        "--seeds", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 3]
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--keep", type=Path, help="folder in which runs are kept, to continue")
    parser.add_argument("--page", action="store_true", help="only write the page")
    a = parser.parse_args()
    if not a.page:
        with tempfile.TemporaryDirectory() as scratch:
            work = a.keep or Path(scratch)
            work.mkdir(parents=True, exist_ok=True)
            old = read_json_if_any(RESULTS / "tutorials.json") or {}
            systems = dict(old.get("systems", {}))
            for name in a.systems:
                seeds = ",".join(map(str, a.seeds))
                systems[name] = {
                    "options": f"--budget {a.budget} --seeds {seeds}",
                    "variants": measured(name, a, work),
                }
                keep("tutorials", {"systems": systems})
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()

"""Settings of a plan compared for trainings of a given length, on several data sets and with
several seeds.

    python benchmarks/what_helps.py hippocampus --minutes 4 --seeds 1 2 3 --settings "as planned"
        "rate 3e-3" [--work FOLDER]
    python benchmarks/what_helps.py --page

Each run trains on four fifths of the patients, without validation, until the time is up. The
averaged weights are then scored on the held-out fifth (Dice pooled over preprocessed cases, mean
over structures, no mirroring). A seed decides the initial weights, the batches and the fifth, so
that settings are compared pair by pair. With ``--patients``, a training uses only that number of
patients and is scored on all others: this shows in minutes, and on many cases, what helps a long
training against overfitting. ``--steps`` ends runs after a number of steps instead, for settings
with the same cost and for busy machines. Rows are added to ``results/what_helps.json``; ``--page``
writes them to docs/reference/experiments.md. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from delineate.commands.train.planned import PlannedRun, settle_plan
from delineate.commands.train.preparation import prepare_cohort
from delineate.commands.train.request import Request
from delineate.commands.train.run import open_run
from delineate.commands.train.sides import settle_cohort
from delineate.core.plan import Plan
from delineate.networks.build import build, load_weights
from delineate.training import validation as scoring
from delineate.training.loop import TrainingJob, fit
from measure import DATA, processor
from train_real import FOLDERS, malc_labels

RESULTS = Path(__file__).parent / "results" / "what_helps.json"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "experiments.md"
FOLDS = 5
INTENSITY = ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
SETTINGS: dict[str, dict[str, Any]] = {  # name -> changes of the plan, by dotted path
    "as planned": {},
    "rate 2e-3": {"optimiser.learning_rate": 2e-3},
    "rate 3e-3": {"optimiser.learning_rate": 3e-3},
    "rate 5e-3": {"optimiser.learning_rate": 5e-3},
    "SGD": {
        "optimiser.kind": "sgd",
        "optimiser.learning_rate": 1e-2,
        "optimiser.weight_decay": 3e-5,
        "schedule.kind": "poly",
    },
    "Muon": {"optimiser.kind": "muon"},
    "Muon at 3e-3": {"optimiser.kind": "muon", "optimiser.learning_rate": 3e-3},
    "Muon at 5e-3": {"optimiser.kind": "muon", "optimiser.learning_rate": 5e-3},
    "average 0.995": {"schedule.ema": 0.995},
    "average 0.99": {"schedule.ema": 0.99},
    "no average": {"schedule.ema": 0.0},
    "batch 1": {"batch": 1},
    "batch 4": {"batch": 4},
    "8 wide": {"network.widths": 8},
    "16 wide": {"network.widths": 16},
    "24 wide": {"network.widths": 24},
    "32 wide": {"network.widths": 32},
    "one convolution at full resolution": {"network.convs": "shallow"},
    "one convolution a decoder level": {"network.convs": "shallow", "network.decoder_convs": 1},
    "8, 32, 64, ... wide": {"network.widths": [8, 32]},
    "16, 48, 96, ... wide": {"network.widths": [16, 48]},
    "8, 48, 96, ... wide": {"network.widths": [8, 48]},
    "residual": {"network.encoder": "residual"},
    "no intensity augmentation": {f"augmentation.{name}_p": 0.0 for name in INTENSITY},
    "no augmentation": {
        f"augmentation.{name}_p": 0.0 for name in ("rotation", "scale", *INTENSITY)
    },
    "one convolution a level": {"network.convs": 1},
    "elastic": {"augmentation.elastic_p": 0.3},
    "rotated more often": {"augmentation.rotation_p": 0.7, "augmentation.scale_p": 0.7},
    "mirrored along all axes": {"augmentation.mirror": [0, 1, 2]},
    "never mirrored": {"augmentation.mirror": []},
    "no decay": {"optimiser.weight_decay": 0.0},
    **{
        f"decay {decay}": {"optimiser.weight_decay": float(decay)}
        for decay in ("0.3", "1", "3", "6", "10")
    },
    "dropout 0.1": {"network.dropout": 0.1},
    "rotated by up to 30": {"augmentation.rotation_deg": [30.0, 30.0, 30.0]},
    "no deep supervision": {"network.deep_supervision": False},
    "Dice of each case": {"loss.batch_dice": False},
}


def changes_of(setting: str) -> dict[str, Any]:
    """The changes of a setting, or of several joined by " + ".

    In addition to ``SETTINGS``, a patch size can be given, such as "patch 96x112x96".
    """
    changes: dict[str, Any] = {}
    for name in setting.split(" + "):
        changes |= (
            {"patch": [int(n) for n in name[6:].split("x")]}
            if name.startswith("patch ")
            else SETTINGS[name]
        )
    return changes


def changed(plan: Plan, changes: dict[str, Any]) -> Plan:
    """The plan with ``changes``, validated."""
    data = plan.model_dump(mode="json")
    for where, value in changes.items():
        *parts, name = where.split(".")
        part = data
        for key in parts:
            part = part[key]
        # Widths and "shallow" depend on the number of levels of the plan.
        if name == "widths":
            value = widths(value, part["widths"])
        if name == "convs" and value == "shallow":
            part["decoder_convs"] = [1, *[2] * (len(part["widths"]) - 2)]
            value = [1, *[2] * (len(part["widths"]) - 1)]
        part[name] = value
    return Plan.model_validate(data)


def widths(first: int | list[int], planned: list[int]) -> list[int]:
    """Channels per level, from the base channels ``first``; the others keep their proportion.

    If ``first`` is a pair, it gives the channels of the first two levels, and the others keep their
    proportion to the second.
    """
    if isinstance(first, int):
        return [max(first, w * first // planned[0]) for w in planned]
    return [first[0], *(max(first[1], w * first[1] // planned[1]) for w in planned[1:])]


def prepared(
    name: str, budget_s: float, seed: int, work: Path, dims: int | None, overwrite: bool = True
) -> PlannedRun:
    """A cohort, read, planned for the budget and preprocessed as ``train`` does it. Without
    ``overwrite``, an earlier plan and its prepared cases are used.

    The store is used for all seeds.
    """
    cohort = DATA / FOLDERS.get(name, name)
    labels = str(malc_labels(work / "malc.yaml")) if name == "malc" else ""
    request = Request(
        data=str(cohort),
        budget_s=max(30.0, budget_s),
        fold=seed % FOLDS,
        folds=FOLDS,
        seed=seed,
        labels=labels,
        dims=dims,
    )
    run = open_run(request.validated(), work / f"{name}_{seed}_{dims or 'own'}.model", overwrite)
    planned = settle_plan(run, settle_cohort(run)[0])
    prepare_cohort(planned.learning, planned.plan, run.store)
    return planned


def score(
    planned: PlannedRun, plan: Plan, seed: int, seconds: float | None, patients: int | None
) -> dict[str, Any]:
    """Train on all folds except one, or on some patients of these, and score on all others.

    Args:
        seconds: length of the training; None uses the plan's schedule.
        patients: number of training patients; None uses all.
    """
    training, held_out = planned.sides(seed % FOLDS)
    if patients is not None:
        drawn = sorted({case.patient for case in training})
        random.Random(seed).shuffle(drawn)
        held_out = [*held_out, *(case for case in training if case.patient not in drawn[:patients])]
        training = [case for case in training if case.patient in drawn[:patients]]
    learnt = [planned.run.store.open(case.id).loaded() for case in training]
    device, lines = torch.device("cpu"), []
    with tempfile.TemporaryDirectory() as folder:
        deadline = None if seconds is None else time.monotonic() + seconds
        job = TrainingJob(
            plan,
            learnt,
            [],
            Path(folder),
            device,
            seed=seed,
            deadline=deadline,
            listener=lines.append,
        )
        weights = fit(job)
    module = build(plan.network, seed=0).eval()
    load_weights(module, weights)
    found = scoring.evaluate(
        plan, module, [planned.run.store.open(case.id) for case in held_out], device
    )
    named = {name: round(value, 4) for name, value in found["val_dice"].items()}
    return {
        "steps": lines[-1]["step"],
        "dice": round(found["val_dice_mean"], 4),
        "worst": min(named.items(), key=lambda item: item[1]),
        "cases": len(held_out),
    }


def rows() -> list[dict[str, Any]]:
    """All runs that were kept so far."""
    if not RESULTS.is_file():
        return []
    kept: list[dict[str, Any]] = json.loads(RESULTS.read_text())["runs"]
    return kept


def add(row: dict[str, Any]) -> None:
    """Keep a run; it replaces an earlier one with the same data, length, setting and seed.

    The file is written after every run, because a series takes hours.
    """
    key = ("data", "length", "setting", "seed")
    kept = [r for r in rows() if any(r[k] != row[k] for k in key)] + [row]
    shown = {"benchmark": "what_helps", "command": "see benchmarks/what_helps.py", "runs": kept}
    RESULTS.write_text(
        json.dumps(shown, indent=1).replace("\n   ", " ").replace("\n  }", " }") + "\n"
    )


HEAD = (
    "# Experiments: what helps a training\n\n"
    "For anyone who wants to know which setting of a training helps, and by how much.\n\n"
    "Written by `python benchmarks/what_helps.py --page` from\n"
    "`benchmarks/results/what_helps.json`. Do not edit it by hand. Each run trains on four\n"
    "fifths of a cohort's patients and is scored on the held-out fifth (Dice pooled over\n"
    "preprocessed cases, mean over structures, averaged weights, no mirroring). A seed\n"
    "decides the initial weights, the batches and the fifth, so a difference is between two\n"
    "runs that differ only in the setting. Settings are changes of the plan that the rules\n"
    "made on that day. If a number of patients is given, only these were used for training\n"
    "and all others for scoring. Decay *of the heads too* is what the optimiser did before.\n"
    "*8 channels* is the number of base channels; in the option `--settings` it is `8 wide`.\n"
)
# Names of settings as the page writes them.
WORDS = {" wide": " channels", " a decoder level": " per decoder level", " a level": " per level"}


def _words(setting: str) -> str:
    for name, words in WORDS.items():
        setting = setting.replace(name, words)
    return setting


def page() -> str:
    """The page: a table for each data set and length.

    It has mean and standard deviation over seeds, and the difference from the first setting of the
    table, seed by seed.
    """
    found, parts = rows(), [HEAD]
    for data, length in sorted({(r["data"], r["length"]) for r in found}):
        here = [r for r in found if (r["data"], r["length"]) == (data, length)]
        base = {r["seed"]: r["dice"] for r in here if r["setting"] == here[0]["setting"]}
        lines = [
            f"## {data}, {length}\n",
            "| setting | steps | Dice: mean (standard deviation) | difference, seed by seed |",
            "|---|---|---|---|",
        ]
        for setting in dict.fromkeys(r["setting"] for r in here):
            of = sorted((r for r in here if r["setting"] == setting), key=lambda r: r["seed"])
            dice = [r["dice"] for r in of]
            spread = (
                f" ({statistics.stdev(dice):.4f}), {len(dice)} seeds"
                if len(dice) > 1
                else ", 1 seed"
            )
            differences = " ".join(
                f"{r['dice'] - base[r['seed']]:+.4f}"
                for r in of
                if r["seed"] in base and setting != here[0]["setting"]
            )
            lines.append(
                f"| {_words(setting)} | {statistics.mean(r['steps'] for r in of):.0f} | "
                f"{statistics.mean(dice):.4f}{spread} | {differences} |"
            )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def compare(a: argparse.Namespace, planned: PlannedRun, setting: str, seed: int) -> None:
    """Train and score one setting with one seed, and keep the result."""
    plan = changed(planned.plan, changes_of(setting))
    if a.steps is not None:
        each = min(plan.schedule.steps_per_epoch, a.steps)
        schedule = {
            "schedule.budget_s": None,
            "schedule.epochs": a.steps // each,
            "schedule.steps_per_epoch": each,
        }
        plan = changed(plan, schedule)
    began = time.perf_counter()
    found = score(planned, plan, seed, None if a.minutes is None else 60 * a.minutes, a.patients)
    length = f"{a.minutes:g} min" if a.steps is None else f"{a.steps} steps"
    length += f", {a.patients} patients" if a.patients else ""
    row = {
        "data": a.data,
        "length": length,
        "setting": setting + (f" + {a.dims}-D" if a.dims else ""),
        "seed": seed,
    }
    add(row | found | {"seconds": round(time.perf_counter() - began), "machine": processor()})
    print(row | found, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", choices=["hippocampus", "chaos", "malc", "brats"])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["as planned"],
        metavar="SETTING",
        help="; ".join(SETTINGS) + "; join several with +",
    )
    parser.add_argument(
        "--patients",
        type=int,
        help="train on this number of patients and score on all others; a quick substitute "
        "for a long training on many patients",
    )
    parser.add_argument(
        "--dims", type=int, choices=[2, 3], help="2-D or 3-D, instead of the choice of the rules"
    )
    parser.add_argument("--work", type=Path, help="folder in which the preprocessed cases are kept")
    parser.add_argument("--page", action="store_true", help="write docs/reference/experiments.md")
    a = parser.parse_args()
    if a.page:
        PAGE.write_text(page(), encoding="utf-8")
        return
    if a.data is None or (a.minutes is None) == (a.steps is None):
        parser.error("give a data set, and --minutes or --steps")
    with tempfile.TemporaryDirectory() as name:
        work = a.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        budget_s = 600.0 if a.minutes is None else 60 * a.minutes
        planned = prepared(a.data, budget_s, a.seeds[0], work, a.dims)
        for seed in a.seeds:
            for setting in a.settings:
                compare(a, planned, setting, seed)


if __name__ == "__main__":
    main()

"""Norms whose statistics do not depend on the window: what they cost in Dice.

    python benchmarks/norms.py [--data hippocampus malc brats chaos] [--seeds 1 2 3] [--steps 1200]
        [--work FOLDER]
    python benchmarks/norms.py --table

With them each voxel of a scan could be computed once, in slabs that stream through the network. Per
cohort and seed two networks are trained that differ in their norm alone, instance or batch, for
equal steps, so that a load of the machine changes nothing but the time. Statistics of batch norm
are calibrated over training cases after the training (``training.norm_statistics``). Each network
then segments the held-out fifth twice: in overlapping windows, and the whole scan in one window,
which is what streaming slabs compute:

instance, windows   statistics of each window: what the rules plan
instance, whole     statistics of the scan, at inference alone
batch, windows      calibrated statistics
batch, whole        calibrated statistics, each voxel once

Dice is the mean over cases of the mean over structures, on preprocessed grids. Patches are smaller
than scans in every cohort. Rows are added to ``results/norms.json`` one by one, and rows that are
there are not computed again. The whole needs about 80 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from delineate.commands.train.planned import PlannedRun
from delineate.commands.train.preparation import prepare_cohort
from delineate.commands.train.request import Request
from delineate.commands.train.run import open_run
from delineate.commands.train.sides import settle_cohort
from delineate.core.plan import (
    Augmentation,
    Channel,
    Network,
    Normalisation,
    Optimiser,
    Plan,
    Schedule,
    Structure,
)
from delineate.core.store import StoredCase
from delineate.inference.engine import Engine
from delineate.networks.build import build, load_weights
from delineate.training import validation as scoring
from delineate.training.loop import TrainingJob, fit
from delineate.training.norm_statistics import calibrate
from measure import DATA, processor

RESULTS = Path(__file__).parent / "results" / "norms.json"
FOLDERS = {"chaos": "chaos_t1_png", "brats": "brats2013"}
# Spacing in mm and patch; structures that are selected, if not all are.
COHORTS: dict[str, tuple[float, tuple[int, int, int]]] = {
    "hippocampus": (1.0, (24, 32, 24)),
    "malc": (2.0, (32, 32, 32)),
    "brats": (2.0, (32, 32, 32)),
    "chaos": (1.0, (96, 96, 1)),
}
LABELS = {
    "malc": {"right hippocampus": 47, "left hippocampus": 48, "right putamen": 57}
    | {"left putamen": 58, "brain stem": 35, "4th ventricle": 11}
}
NORMS, WAYS = ("instance", "batch"), ("windows", "whole")
FOLDS, OVERLAP = 5, 0.5
CALIBRATION = 256  # patches


def prepared(name: str, seed: int, steps: int, work: Path) -> PlannedRun:
    """A cohort with its plan, preprocessed."""
    labels = ""
    if name in LABELS:
        labels = str(work / f"{name}.yaml")
        lines = [f"  {key}: {value}\n" for key, value in LABELS[name].items()]
        Path(labels).write_text("labels:\n" + "".join(lines))
    data = str(DATA / FOLDERS.get(name, name))
    split = {} if name == "chaos" else {"fold": seed % FOLDS, "folds": FOLDS}
    if name == "brats":  # four patients
        split = {"fold": seed % 4, "folds": 4}
    request = Request(data=data, epochs=1, seed=seed, labels=labels, device="cpu", **split)
    run = open_run(request.validated(), work / f"{name}_{seed}.model", True)
    manifest = settle_cohort(run)[0]
    spacing, patch = COHORTS[name]
    dims = 2 if patch[2] == 1 else 3
    last, flat = (None, 1) if dims == 2 else (spacing, 2)
    network = Network(
        dims=dims,
        channels=len(manifest.channels),
        classes=len(manifest.labels) + 1,
        widths=(16, 32, 64, 64) if dims == 2 else (8, 16, 32, 64),
        strides=((2, 2, flat),) * 3,
        kernels=((3, 3, 1 if dims == 2 else 3),) * 4,
        convs=(1, 2, 2, 2),
        decoder_convs=1,
    )
    plan = Plan(
        channels=tuple(
            Channel(name=one, normalise=Normalisation(kind="robust")) for one in manifest.channels
        ),
        structures=tuple(Structure(**one) for one in manifest.labels.to_json()),
        crop="nonzero",
        spacing_mm=(spacing, spacing, last),
        patch=patch,
        batch=6 if dims == 2 else 2,
        network=network,
        optimiser=Optimiser(kind="muon", learning_rate=3e-3, weight_decay=1.7),
        schedule=Schedule(epochs=max(1, steps // 100), steps_per_epoch=min(100, steps), ema=0.99),
        augmentation=Augmentation(mirror=()),
        seed=seed,
    )
    planned = PlannedRun(run, manifest, plan)
    prepare_cohort(planned.learning, plan, run.store)
    return planned


def scored(planned: PlannedRun, norm: str, seed: int) -> dict[str, float]:
    """Way of inference -> Dice of one norm."""
    plan, store = planned.plan, planned.run.store
    plan = plan.replace(network=plan.network.model_dump() | {"norm": norm})
    training, held_out = planned.sides(planned.folds[0])
    learnt = [store.open(case.id).loaded() for case in training]
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        weights = fit(TrainingJob(plan, learnt, [], Path(folder), device, seed=seed))
    module = build(plan.network, seed=0).eval()
    load_weights(module, weights)
    calibrate(module, plan, learnt, seed, 0, device, CALIBRATION)
    engine = Engine(plan, ((module, 1.0),), device, torch.float32)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for case in held_out:
        stored = store.open(case.id)
        found["windows"].append(dice(engine, stored))
        found["whole"].append(dice(replace(engine, plan=in_one_window(plan, stored)), stored))
    return {way: round(float(np.nanmean(values)), 4) for way, values in found.items()}


def in_one_window(plan: Plan, case: StoredCase) -> Plan:
    """The plan with a patch that holds the whole case."""
    patch = [-(-n // d) * d for n, d in zip(case.shape, plan.network.divisor, strict=True)]
    return plan.replace(patch=[*patch[:2], 1] if plan.dims == 2 else patch)


@torch.inference_mode()
def dice(engine: Engine, case: StoredCase) -> float:
    """The mean over structures."""
    total = torch.zeros((), dtype=torch.int64)
    for slab, truth in scoring.march(engine, case, OVERLAP):
        total = total + scoring.slab_counts(engine.plan, slab, truth)
    return scoring.dice(total.numpy(), engine.plan.structures)[1]


def rows() -> list[dict[str, Any]]:
    """All rows that were kept."""
    kept: list[dict[str, Any]] = []
    if RESULTS.is_file():
        kept = json.loads(RESULTS.read_text())["rows"]
    return kept


def add(row: dict[str, Any]) -> None:
    """Keep a row at once: the whole takes long."""
    shown = {"benchmark": "norms", "command": "benchmarks/norms.py", "rows": [*rows(), row]}
    text = json.dumps(shown, indent=1).replace("\n   ", " ").replace("\n  }", " }")
    RESULTS.write_text(text + "\n")


def table() -> str:
    """Dice of every cohort and way, over seeds, with the difference to instance norm in windows,
    seed by seed.
    """
    lines = ["| cohort | steps | norm, inference | Dice | difference, seed by seed |"]
    lines.append("|---|---|---|---|---|")
    found = rows()
    for data, steps in dict.fromkeys((row["data"], row["steps"]) for row in found):
        here = [row for row in found if (row["data"], row["steps"]) == (data, steps)]
        base = {row["seed"]: row["windows"] for row in here if row["norm"] == NORMS[0]}
        for norm in NORMS:
            own = sorted((r for r in here if r["norm"] == norm), key=lambda row: row["seed"])
            for way in WAYS if own else ():
                values = [row[way] for row in own]
                spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else ""
                changes = [f"{r[way] - base[r['seed']]:+.4f}" for r in own if r["seed"] in base]
                shown = " ".join(changes) if (norm, way) != (NORMS[0], WAYS[0]) else ""
                lines.append(
                    f"| {data} | {steps} | {norm}, {way} | {statistics.mean(values):.4f}{spread} | "
                    f"{shown} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=COHORTS, default=list(COHORTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--table", action="store_true", help="print the table of the kept rows")
    a = parser.parse_args()
    if a.table:
        print(table())
        return
    with tempfile.TemporaryDirectory() as own:
        work = a.work or Path(own)
        work.mkdir(parents=True, exist_ok=True)
        for seed in a.seeds:
            for data in a.data:
                keys = [
                    {"data": data, "steps": a.steps, "seed": seed, "norm": norm} for norm in NORMS
                ]
                known = [{key: row[key] for key in keys[0]} for row in rows()]
                missing = [one for one in keys if one not in known]
                planned = prepared(data, seed, a.steps, work) if missing else None
                for one in missing:
                    assert planned is not None
                    began = time.perf_counter()
                    found = scored(planned, one["norm"], seed)
                    seconds = round(time.perf_counter() - began)
                    add(one | found | {"seconds": seconds, "machine": processor()})
                    print(one | found | {"seconds": seconds}, file=sys.stderr, flush=True)
    print(table())


if __name__ == "__main__":
    main()

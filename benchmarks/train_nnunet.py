"""nnU-Net trained for the same time on the same patients as `train_real.py`, on this machine, and
scored by the same `evaluate`.

    python benchmarks/train_nnunet.py hippocampus --peer FOLDER_OF_A_VENV --budget 20m [--seed 1]
        [--tuned] [--keep FOLDER]

nnU-Net uses its own planner, network, augmentation and training step (`3d_fullres`), without
validation. Its learning rate follows the clock and decreases to 0 at the end of the budget, so that
the training ends annealed as ours does. The budget is for its training steps alone; preprocessing,
start-up and prediction are not counted but reported, while our budget includes everything until the
model is on disk. With ``--tuned`` it is what an expert makes of the same minutes on a CPU: batches
of 2, channels-last memory, bfloat16 if the processor has hardware for it, and one worker for the
patches, so that no more threads run than there are cores. The test patients are those of
`train_real.py` with the same seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from delineate.commands.parsing import parse_duration
from measure import DATA, keep, timed
from nnunet_peer import (
    TRAINED,
    command,
    counted_back,
    link_scans,
    mapped,
    predict,
    prepare,
    raw_dataset,
)
from train_real import delineate, malc_labels, split_of, summed_up


@dataclass(frozen=True)
class Cohort:
    """Cases of a data set: files by case, names of training and test cases, structures.

    ``names`` is the YAML file that maps the structures to label values, as ``labels`` does.
    """

    images: dict[str, Path]
    truths: dict[str, Path]
    train: list[str]
    test: list[str]
    labels: dict[str, int]
    names: Path


# Runs in nnU-Net's environment: its own training steps until the time is up.
BY_THE_CLOCK = """
import json, os, sys, time
import torch
from nnunetv2.run.run_training import get_trainer_from_args

if __name__ == "__main__":
    tuned = sys.argv[4] == "tuned"
    torch.set_num_threads(os.cpu_count())
    trainer = get_trainer_from_args(sys.argv[1], "3d_fullres", "all", device=torch.device("cpu"))
    if tuned:
        trainer.configuration_manager.configuration["batch_size"] = 2
        trainer.initialize()
        trainer.network.to(memory_format=torch.channels_last_3d)
        plain = trainer.network.forward
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()

        def forward(x):
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16):
                out = plain(x.contiguous(memory_format=torch.channels_last_3d))
            return [each.float() for each in out] if isinstance(out, (list, tuple)) else out.float()

        trainer.network.forward = forward
    trainer.on_train_start()
    trainer.network.train()
    budget, began, steps, losses, printed = float(sys.argv[2]), time.monotonic(), 0, [], 0
    while (taken := time.monotonic() - began) < budget:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - taken / budget) ** 0.9
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
        steps += 1
        if taken - printed > 60:
            printed = taken
            print(f"{taken / 60:.0f} min, step {steps}, loss {losses[-1]:.3f}", flush=True)
    taken = time.monotonic() - began
    trainer.on_train_end()
    with open(sys.argv[3], "w") as file:
        last = losses[-20:]
        json.dump(
            {
                "steps": steps,
                "training_s": round(taken, 1),
                "last_loss": round(sum(last) / len(last), 3),
                "patch": list(trainer.configuration_manager.patch_size),
                "batch": trainer.batch_size,
                "parameters": sum(p.numel() for p in trainer.network.parameters()),
            },
            file,
        )
"""
NUMBER = 900  # nnU-Net's number of the data set


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["hippocampus", "malc"])
    parser.add_argument(
        "--peer", type=Path, required=True, help="virtual environment with nnunetv2"
    )
    parser.add_argument("--budget", default="20m", help="time of the training steps alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tuned", action="store_true", help="as an expert tunes it for a CPU")
    parser.add_argument("--mirror", action="store_true", help="also predict with mirroring")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder in which model and predictions are kept; results that are already there are "
        "used again",
    )
    return parser.parse_args(words)


def cohort_of(a: argparse.Namespace, work: Path) -> Cohort:
    """The cases of the data set, split as in `train_real.py`, with the structures to train."""
    folder = a.data / a.what
    truths = {p.name.removesuffix(".nii.gz"): p for p in sorted(folder.glob("labels*/*.nii.gz"))}
    images = {case: next(folder.glob(f"images*/{case}.nii.gz")) for case in truths}
    test = {"hippocampus": len(truths) // 5, "malc": 3}[a.what]
    split_of(sorted(truths), test, a.seed, work / "split.json")
    split = json.loads((work / "split.json").read_text())
    names = work / "labels.yaml"
    if a.what == "malc":
        malc_labels(names)
    else:
        names.write_text("labels: {Anterior: 1, Posterior: 2}\n")
    labels: dict[str, int] = yaml.safe_load(names.read_text())["labels"]
    return Cohort(images, truths, split["train"], split["test"], labels, names)


def trained(a: argparse.Namespace, work: Path, cohort: Cohort) -> dict[str, Any]:
    """Preprocess and train; the figures of both. A finished training is not repeated."""
    report = work / "told.json"
    if not report.is_file():
        cases = {case: (cohort.images[case], cohort.truths[case]) for case in cohort.train}
        prepared = work / "prepared.json"
        if not prepared.is_file():
            raw_dataset(work, NUMBER, a.what, cases, cohort.labels)
            prepare_s = round(timed(*prepare(a.peer, work, NUMBER)), 1)
            prepared.write_text(json.dumps(prepare_s))
        prepare_s = json.loads(prepared.read_text())
        program = work / "by_the_clock.py"
        program.write_text(BY_THE_CLOCK)
        how = "tuned" if a.tuned else "as installed"
        words = (program, str(NUMBER), str(parse_duration(a.budget)), report, how)
        line, environment = command(a.peer, work, "python", *words)
        environment |= {"nnUNet_n_proc_DA": "1"} if a.tuned else {}
        whole_s = round(timed(line, environment), 1)
        # The program has written its figures; add the times measured here.
        figures = json.loads(report.read_text())
        report.write_text(
            json.dumps({"prepare_s": prepare_s, "whole_training_s": whole_s, **figures})
        )
    return dict(json.loads(report.read_text()))


def scored(
    a: argparse.Namespace, work: Path, cohort: Cohort, way: str, scans: Path, truth: Path
) -> dict[str, Any]:
    """Predict the test scans and score them; a finished prediction is not repeated."""
    model = work / "results" / f"Dataset{NUMBER:03d}_{a.what}" / TRAINED
    out, seconds = work / way, work / f"{way}_s.json"
    if not seconds.is_file():
        mirror = way == "mirrored"
        predict_s = timed(*predict(a.peer, model, scans, out, fold="all", mirror=mirror))
        counted_back(out, cohort.labels)
        seconds.write_text(json.dumps(predict_s))
    predict_s = json.loads(seconds.read_text())
    found = work / f"{way}_scores"
    delineate("evaluate", out, truth, "-o", found, "--labels", cohort.names, "--no-report")
    scores = json.loads((found / "scores.json").read_text())
    return summed_up(scores | {"predict_s": round(predict_s, 1)})


def main() -> None:
    a = options()
    with tempfile.TemporaryDirectory() as name:
        work = a.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        cohort = cohort_of(a, work)
        found: dict[str, Any] = {
            "budget": a.budget,
            "seed": a.seed,
            "train_cases": len(cohort.train),
            **trained(a, work, cohort),
        }
        scans = link_scans({case: cohort.images[case] for case in cohort.test}, work / "scans")
        truth = work / "truth"
        truth.mkdir(exist_ok=True)
        # Structures without a name here are removed, because `evaluate` would refuse them.
        same = {value: value for value in cohort.labels.values()}
        for case in cohort.test:
            mapped(cohort.truths[case], truth / f"{case}.nii.gz", same)
        for way in ("plain", "mirrored") if a.mirror else ("plain",):
            found[way] = scored(a, work, cohort, way, scans, truth)
        keep(f"train_nnunet_{a.what}_{a.budget}{'_tuned' * a.tuned}", found)


if __name__ == "__main__":
    main()

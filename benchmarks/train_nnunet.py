"""nnU-Net trained for the same minutes on the same patients as `train_real.py`, on this machine,
and scored by the same `evaluate`.

    python benchmarks/train_nnunet.py hippocampus --peer FOLDER_OF_A_VENV --budget 20m [--seed 1]
    [--keep FOLDER]

Its own planner, network, augmentation and training step (`3d_fullres`), without validation, with
the learning rate following the clock down to
nothing, so that the training ends annealed as ours does. Its minutes are those of training alone:
preparing, starting and predicting come on top and are told, while ours hold everything up to the
model on disk. The patients to test are those of `train_real.py` with the same seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from delineate.cli.command_line import parse_duration
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

BY_THE_CLOCK = """
import json, os, sys, time
import torch
from nnunetv2.run.run_training import get_trainer_from_args

if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count())
    trainer = get_trainer_from_args(sys.argv[1], "3d_fullres", "all", device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    budget, began, steps, losses, told = float(sys.argv[2]), time.monotonic(), 0, [], 0
    while (taken := time.monotonic() - began) < budget:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - taken / budget) ** 0.9
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
        steps += 1
        if taken - told > 60:
            told = taken
            print(f"{taken / 60:.0f} min, step {steps}, loss {losses[-1]:.3f}", flush=True)
    taken = time.monotonic() - began
    trainer.on_train_end()
    with open(sys.argv[3], "w") as file:
        last = losses[-20:]
        json.dump({"steps": steps, "training_s": round(taken, 1),
                   "last_loss": round(sum(last) / len(last), 3),
                   "patch": list(trainer.configuration_manager.patch_size),
                   "batch": trainer.batch_size,
                   "parameters": sum(p.numel() for p in trainer.network.parameters())}, file)
"""
NUMBER = 900  # of the dataset, which nnU-Net wants


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["hippocampus", "malc"])
    parser.add_argument("--peer", type=Path, required=True, help="an environment with nnunetv2")
    parser.add_argument("--budget", default="20m", help="of training alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mirror", action="store_true", help="predict with mirroring too")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder in which to leave model and predictions; what stands there already is taken "
        "as it is",
    )
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = a.keep or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        cohort = a.data / a.what
        truths = {
            p.name.removesuffix(".nii.gz"): p for p in sorted(cohort.glob("labels*/*.nii.gz"))
        }
        images = {case: next(cohort.glob(f"images*/{case}.nii.gz")) for case in truths}
        split_of(
            sorted(truths),
            {"hippocampus": len(truths) // 5, "malc": 3}[a.what],
            a.seed,
            work / "split.json",
        )
        split = json.loads((work / "split.json").read_text())
        names = work / "labels.yaml"
        if a.what == "malc":
            malc_labels(names)
        else:
            names.write_text("labels: {Anterior: 1, Posterior: 2}\n")
        labels: dict[str, int] = yaml.safe_load(names.read_text())["labels"]

        found: dict[str, Any] = {
            "budget": a.budget,
            "seed": a.seed,
            "train_cases": len(split["train"]),
        }
        program, told, trained = (
            work / "by_the_clock.py",
            work / "told.json",
            work / "results" / f"Dataset{NUMBER:03d}_{a.what}" / TRAINED,
        )
        if not told.is_file():
            raw_dataset(
                work,
                NUMBER,
                a.what,
                {case: (images[case], truths[case]) for case in split["train"]},
                labels,
            )
            prepare_s = round(timed(*prepare(a.peer, work, NUMBER)), 1)
            program.write_text(BY_THE_CLOCK)
            whole_s = round(
                timed(
                    *command(
                        a.peer,
                        work,
                        "python",
                        program,
                        str(NUMBER),
                        str(parse_duration(a.budget)),
                        told,
                    )
                ),
                1,
            )
            told.write_text(
                json.dumps(
                    {
                        "prepare_s": prepare_s,
                        "whole_training_s": whole_s,
                        **json.loads(told.read_text()),
                    }
                )
            )
        found |= json.loads(told.read_text())

        scans = link_scans({case: images[case] for case in split["test"]}, work / "scans")
        truth = work / "truth"
        truth.mkdir(exist_ok=True)
        for case in split["test"]:  # without what has no name here, which `evaluate` would refuse
            mapped(
                truths[case], truth / f"{case}.nii.gz", {value: value for value in labels.values()}
            )
        for way in ("plain", "mirrored") if a.mirror else ("plain",):
            out, seconds = work / way, work / f"{way}_s.json"
            if not seconds.is_file():
                predict_s = timed(
                    *predict(a.peer, trained, scans, out, fold="all", mirror=way == "mirrored")
                )
                counted_back(out, labels)
                seconds.write_text(json.dumps(predict_s))
            predict_s = json.loads(seconds.read_text())
            delineate(
                "evaluate",
                out,
                truth,
                "-o",
                work / f"{way}_scores",
                "--labels",
                names,
                "--no-report",
            )
            scores = json.loads((work / f"{way}_scores" / "scores.json").read_text())
            found[way] = summed_up(scores | {"predict_s": round(predict_s, 1)})
        keep(f"train_nnunet_{a.what}_{a.budget}", found)


if __name__ == "__main__":
    main()

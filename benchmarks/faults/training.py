"""Faults that a training meets: in its cases, in its course, and on its disk.

    python -m benchmarks.faults.training FOLDER

trains a tiny network with each fault, and prints the exit code, what was left out, and the message.
docs/reference/training-faults.md has the table.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
from tests.scans import AFFINE, mask, scan, write_cohort

CASES, BAD = 8, "c3"
FAR = AFFINE + np.array([[0, 0, 0, 500.0], [0] * 4, [0] * 4, [0] * 4])
Edit = Callable[[Path], object]


# Outcomes, with the exit code of a run whose model is usable.
LEFT_OUT = "the case is left out and named; exit code 1"
USED = "used; exit code 0"
WARNED = "a finding of the check names the case; exit code 0"
INPUT = "refused before training; exit code 2"
VERDICT = "the verdict says so; exit code 3"
SMALLER = "batches are computed in twice as many parts from then on; exit code 0"
SKIPPED = "the batch is left out, and counted in the card (`left_out`); exit code 0"
NO_MODEL = "stopped, and a model is written only if there is a checkpoint; exit code 3"
DISK = "stopped; the checkpoint before is kept, and the same command continues; exit code 2"


@dataclass(frozen=True)
class TrainingFault:
    """A fault and what must become of it.

    Args:
        what: in words, a line of the table.
        edit: changes the cohort before the training.
        during: a context in which the training runs.
        outcome: one of the sentences above.
        named: the case that ``LEFT_OUT`` names.
    """

    what: str
    edit: Edit = lambda folder: None
    during: Callable[[Path], Any] = lambda folder: nullcontext()
    outcome: str = LEFT_OUT
    named: str = BAD


def _image(change: Callable[[np.ndarray], np.ndarray], part: str = "images") -> Edit:
    def edit(folder: Path) -> None:
        path = folder / part / f"{BAD}.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.array(image.dataobj, np.float32)), AFFINE), path)

    return edit


def _with(value: float) -> Edit:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 3, 3] = value
        return array

    return _image(change)


def _all(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(folder: Path) -> None:
        for path in sorted((folder / "images").iterdir()):
            image = nib.load(path)
            nib.save(nib.Nifti1Image(change(np.array(image.dataobj, np.float32)), AFFINE), path)

    return edit


def _labels(value: int) -> Edit:
    def edit(folder: Path) -> None:
        for path in (folder / "labels").iterdir():
            nib.save(nib.Nifti1Image(np.full((20, 18, 16), value, np.uint8), AFFINE), path)

    return edit


def _remove(part: str) -> Edit:
    return lambda folder: (folder / part / f"{BAD}.nii.gz").unlink()


@contextmanager
def _at_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` once, before a step of the loop."""
    from delineate.training import loop

    real, seen = loop._step_stats, []

    def stats(*given: Any, **more: Any) -> Any:
        seen.append(1)
        if len(seen) == step:
            act()
        return real(*given, **more)

    with mock.patch.object(loop, "_step_stats", stats):
        yield


@contextmanager
def _losses(value: float, first: int = 1) -> Iterator[None]:
    """From the step ``first`` on, the loss is ``value``."""
    from delineate.training import loop

    real, seen = loop._step_stats, []

    def stats(loss: Any, *given: Any, **more: Any) -> Any:
        seen.append(1)
        return real(loss * 0 + value if len(seen) >= first else loss, *given, **more)

    with mock.patch.object(loop, "_step_stats", stats):
        yield


@contextmanager
def _infinite_once(folder: Path) -> Iterator[None]:
    """The gradients of the third batch are NaN."""
    from delineate.training import losses

    real, seen = losses.deeply_supervised, []

    def cost(*given: Any, **more: Any) -> Any:
        seen.append(1)
        return real(*given, **more) * (np.nan if len(seen) == 3 else 1.0)

    with mock.patch.object(losses, "deeply_supervised", cost):
        yield


def _path(folder: Path) -> Path:
    return folder / "images" / f"{BAD}.nii.gz"


def _as_pipe(folder: Path) -> None:
    _path(folder).unlink()
    os.mkfifo(_path(folder))


def _gone_in_training(folder: Path) -> Any:
    return _at_step(2, lambda: shutil.rmtree(folder / "images"))


def _store_gone(folder: Path) -> Any:
    return _at_step(2, lambda: shutil.rmtree(folder.parent / "m.model.run/store" / BAD))


def _full_disk(folder: Path) -> Any:
    from delineate.core import atomic

    def full(path: Path) -> None:
        if Path(path).name.startswith(".") and "last" in Path(path).name:
            raise OSError(28, "No space left on device")
        real(path)

    real = atomic._sync
    return mock.patch.object(atomic, "_sync", full)


def _out_of_memory(times: int) -> Callable[[Path], Any]:
    import torch

    @contextmanager
    def during(folder: Path) -> Iterator[None]:
        from delineate.training import loop

        real, left = loop._step_stats, [times]

        def stats(*given: Any, **more: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(*given, **more)

        with mock.patch.object(loop, "_step_stats", stats):
            yield

    return during


FAULTS = (
    TrainingFault("one voxel is NaN", _with(np.nan), outcome=WARNED),
    TrainingFault("one voxel is infinite", _with(np.inf), outcome=WARNED),
    TrainingFault("all voxels of an image are NaN", _image(lambda a: a * np.nan)),
    TrainingFault("all voxels of every image are NaN", _all(lambda a: a * np.nan), outcome=INPUT),
    TrainingFault("one voxel of 3e38", _with(3e38), outcome=USED),
    TrainingFault("an image of one value", _image(lambda a: a * 0 + 7)),
    TrainingFault("a mask of background alone", _image(lambda a: a * 0, "labels"), outcome=WARNED),
    TrainingFault("masks of background alone, in every case", _labels(0), outcome=INPUT),
    TrainingFault(
        "a mask of an undeclared value",
        _image(lambda a: np.where(a == 2, 7, a), "labels"),
    ),
    TrainingFault("a mask with fractions", _image(lambda a: a * 0.37, "labels")),
    TrainingFault(
        "a mask of another shape and place",
        lambda f: scan(f / "labels" / f"{BAD}.nii.gz", mask()[4:9, 5:10, 3:8], FAR),
    ),
    TrainingFault("an image that is missing", _remove("images")),
    TrainingFault("a mask that is missing", _remove("labels"), outcome=WARNED),
    TrainingFault("an image that is empty", lambda f: _path(f).write_bytes(b"")),
    TrainingFault("an image that is a named pipe", _as_pipe),
    TrainingFault("all images vanish in training", during=_gone_in_training, named="no such file"),
    TrainingFault("a prepared case vanishes in training", during=_store_gone, outcome=USED),
    TrainingFault(
        "the loss is NaN from the first step on", during=lambda f: _losses(np.nan), outcome=VERDICT
    ),
    TrainingFault(
        "the gradients of one batch are not finite", during=_infinite_once, outcome=SKIPPED
    ),
    TrainingFault("out of memory once", during=_out_of_memory(1), outcome=SMALLER),
    TrainingFault("out of memory always", during=_out_of_memory(10**9), outcome=NO_MODEL),
    TrainingFault("the disk is full at a checkpoint", during=_full_disk, outcome=DISK),
)


def tiny_plan(folder: Path) -> Path:
    """A plan of 2 epochs of 4 steps."""
    from delineate.cohorts.discovery.layouts import find
    from delineate.planning import rules

    manifest = find(folder)
    machine = rules.Machine("cpu", 2, 8 << 30)
    made = rules.make_plan(
        rules.fingerprint(manifest, workers=1), manifest, machine, epochs=2, probe=lambda *_: 0.1
    )
    widths = tuple(min(8 * 2**n, 16) for n in range(len(made.network.widths)))
    made = made.replace(
        network=made.network.model_dump() | {"widths": widths},
        schedule=made.schedule.model_dump() | {"steps_per_epoch": 4},
    )
    path = folder.parent / "plan.json"
    path.write_text(made.to_json())
    return path


def judged(fault: TrainingFault, folder: Path, plan: Path) -> str:
    """Train with a fault in a new ``folder``: "" if its outcome is as stated, else what it was."""
    from delineate.commands.options import TrainOptions
    from delineate.commands.train.train import train
    from delineate.core.errors import InputError, OutputError, TrainingError

    data = write_cohort(folder / "data", CASES)
    fault.edit(data)
    said: list[str] = []
    try:
        with fault.during(data):
            done = train(
                data, folder / "m.model", TrainOptions(plan=plan, device="cpu"), say=said.append
            )
    except InputError as error:
        return "" if fault.outcome == INPUT else str(error)
    except TrainingError as error:
        return "" if fault.outcome == NO_MODEL and "memory" in str(error) else str(error)
    except OutputError as error:
        kept = (folder / "m.model.run/fold_0/last.safetensors").exists()
        return "" if fault.outcome == DISK and "full" in str(error) else f"{error} {kept}"
    findings = json.loads((folder / "m.model.run/check/findings.json").read_text())["findings"]
    card = json.loads((folder / "m.model.run/card.json").read_text())
    named = any(fault.named in one for one in done.failures)
    right = {
        LEFT_OUT: named and card["failures"] == len(done.failures),
        USED: not done.failures,
        WARNED: not done.failures and any(one["case"] == BAD for one in findings),
        VERDICT: "finite" in done.verdict.words,
        SMALLER: not done.failures and card.get("batch_parts") == {"fold_0": 2},
        SKIPPED: not done.failures and card.get("left_out") == {"fold_0": 1},
    }
    return "" if right.get(fault.outcome) else f"{done.failures} {done.verdict.words} {said[-5:]}"


def main() -> None:
    folder = Path(sys.argv[1])
    plan = tiny_plan(write_cohort(folder / "sound", CASES))
    for number, fault in enumerate(FAULTS):
        wrong = judged(fault, folder / f"{number:02d}", plan)
        print(f"| {fault.what} | {fault.outcome} |{wrong and ' WRONG: ' + wrong}", flush=True)


if __name__ == "__main__":
    main()

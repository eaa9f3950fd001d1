"""Demo: the whole pipeline on a phantom cohort. DICOM in; a model, scores, a report and a DICOM SEG
out.

A quarter of the patients is kept for testing and not used in training. Nothing is downloaded. The
same command again continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core import atomic
from ..core.errors import UsageError
from ..core.inputs import read_json
from ..core.progress import Progress, Say, silent, unsaid
from ..evaluation.training_verdict import Verdict
from ..extras import require_extra
from ..inference.devices import choose_device
from . import predict as predict_step
from .options import DemoOptions, PhantomOptions, PredictOptions, TrainOptions
from .train import train as train_step
from .trial_data import phantom


@dataclass(frozen=True)
class DemoResult:
    """The files, the mean Dice on the test patients, the failures, and the training's verdict."""

    model: Path
    report: Path
    dice_mean: float
    failures: Sequence[str] = ()
    verdict: Verdict = field(default_factory=Verdict)


def demo(
    out: str | Path,
    options: DemoOptions = DemoOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
) -> DemoResult:
    """Make the cohort, train on three quarters of it, test on the rest, and write one patient's
    DICOM SEG.

    Raises:
        UsageError: ``out`` holds a demo with other settings, or there is no such device here.
        OutputError: nothing can be written there.
    """
    # Missing packages and devices are refused before the cohort is made.
    require_extra("train", "demo")
    require_extra("dicom", "demo")
    choose_device(options.device)
    folder = atomic.make_folder(out)
    cohort, split = folder / "cohort", folder / "split.json"
    if not split.is_file():
        made = PhantomOptions(patients=options.patients, seed=options.seed, form="dicom")
        phantom(cohort, made, progress=progress)
        atomic.write_text(split, json.dumps(_split(cohort, options.seed), indent=1))
    sides = read_json(split)
    if not isinstance(sides, dict) or not all(sides.get(side) for side in ("train", "test")):
        raise UsageError("is not the split of a demo; choose another folder", path=split)
    say(
        f"phantom cohort of {len(sides['train']) + len(sides['test'])} patients as DICOM series "
        f"in {cohort}; "
        f"{len(sides['test'])} of them are kept for testing"
    )
    model = folder / "phantom.model"
    trained = train_step.train(
        cohort,
        model,
        TrainOptions(
            budget_s=options.budget_s,
            at_most_s=max(options.at_most_s, options.budget_s),
            split=split,
            seed=options.seed,
            device=options.device,
        ),
        say=say,
        progress=progress,
    )
    example = cohort / sides["test"][0]
    done = predict_step.predict(
        model,
        [example / "DICOM_anon"],
        folder / "example",
        PredictOptions(device=options.device, dicom_seg=True),
    )
    failures = [*trained.failures, *(str(o.error) for o in done.failures)]
    dice = float(trained.scores.get("dice_mean", float("nan")))
    say(
        f"mean test Dice {dice:.3f} over {len(trained.scores.get('dice', {}))} organs; "
        f"a DICOM SEG of patient {sides['test'][0]} is in {folder / 'example'}"
    )
    return DemoResult(model, trained.run / "report.html", dice, failures, trained.verdict)


def _split(cohort: Path, seed: int) -> dict[str, list[str]]:
    """A quarter of the patients to test, drawn by ``seed``."""
    names = sorted(p.name for p in cohort.iterdir() if p.is_dir())
    order = np.random.default_rng(seed).permutation(len(names))
    count = max(1, len(names) // 4)
    return {
        "train": sorted(names[i] for i in order[count:]),
        "test": sorted(names[i] for i in order[:count]),
    }

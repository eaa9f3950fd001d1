"""A training, a prediction, an evaluation and a report that take a second or two: the commands that
the scripts of this folder disturb. They run in this process.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np

from delineate.cli.exits import UNUSABLE_MODEL
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions, PredictOptions, ReportOptions, TrainOptions
from delineate.commands.predict import predict
from delineate.commands.report import report
from delineate.commands.train.train import train
from delineate.core.labels import LabelSet
from delineate.core.plan import (
    Augmentation,
    Channel,
    Network,
    Normalisation,
    Plan,
    Schedule,
    Structure,
)
from delineate.core.progress import Progress, silent

Say = Callable[[str], None]
SHAPE = (16, 14, 12)
TRAIN, VALIDATE, TEST = ("c0", "c1"), ("c2",), ("c3",)


def write_inputs(folder: Path) -> None:
    """Write ``cohort``, ``plan.json``, ``split.json`` and ``scans`` to ``folder``."""
    rng, affine = np.random.default_rng(0), np.diag([-1.0, 1.5, 2.0, 1])
    for n, name in enumerate((*TRAIN, *VALIDATE, *TEST)):
        label = np.zeros(SHAPE, np.uint8)
        label[3:8, 4:9, 2 + n % 3 : 7] = 1
        label[9:13, 5:10, 3:9] = 2
        image = np.rint(rng.normal(100, 20, SHAPE) + 60 * label).astype(np.int16)
        for array, part in ((image, "images"), (label, "labels")):
            path = folder / "cohort" / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), path)
        if n < 3:
            (folder / "scans").mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(image, affine), folder / "scans" / f"{name}.nii.gz")
    split = {"train": TRAIN, "val": VALIDATE, "test": TEST}
    (folder / "split.json").write_text(json.dumps(split))
    (folder / "plan.json").write_text(plan().to_json())


def plan() -> Plan:
    labels = LabelSet.from_names({1: "first part", 2: "second part"})
    kernels = ((3, 3, 3),) * 2
    return Plan(
        channels=(Channel(name="image", normalise=Normalisation(kind="robust")),),
        structures=tuple(Structure(**d) for d in labels.to_json()),
        spacing_mm=(1.0, 1.5, 2.0),
        patch=(16, 16, 16),
        batch=1,
        network=Network(
            dims=3, channels=1, classes=3, widths=(2, 4), strides=((2, 2, 2),), kernels=kernels
        ),
        schedule=Schedule(epochs=3, steps_per_epoch=2),
        augmentation=Augmentation(mirror=(0,)),
    )


def training(folder: Path, say: Say, progress: Progress = silent) -> int:
    """Each command gives its number of failures."""
    options = TrainOptions(
        epochs=3, plan=str(folder / "plan.json"), split=str(folder / "split.json"), device="cpu"
    )
    return len(
        train(folder / "cohort", folder / "m.model", options, say=say, progress=progress).failures
    )


def prediction(folder: Path, say: Say) -> int:
    options = PredictOptions(device="cpu")
    found = predict(folder / "m.model", [folder / "scans"], folder / "masks", options, say=say)
    return len(found.failures)


def evaluation(folder: Path, say: Say) -> int:
    options = EvaluateOptions(workers=1, report=False, pictures=False)
    found = evaluate(folder / "masks", folder / "cohort" / "labels", folder / "scores", options)
    return len(found.failures)


def reporting(folder: Path, say: Say) -> int:
    report(folder / "m.model.run", None, ReportOptions())
    return 0


@contextlib.contextmanager
def empty_figures() -> Iterator[None]:
    """Figures are written as always, but nothing is drawn in them: most of the time of these
    commands is drawing.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    save, axes = Figure.savefig, mock.MagicMock(texts=[])
    axes.get_legend_handles_labels.return_value = [], []
    axes.get_position.return_value = Bbox.unit()

    def subplots(figure: Figure, rows: int = 1, columns: int = 1, **options: Any) -> Any:
        figure.__dict__["filled"] = [axes]
        found = np.empty((rows, columns), object)
        for place in np.ndindex(rows, columns):
            found[place] = axes
        return np.squeeze(found)[()] if options.get("squeeze", True) else found

    def savefig(figure: Figure, target: Any, **options: Any) -> None:
        save(Figure(figsize=(1, 1)), target, **options)

    with (
        mock.patch.object(Figure, "subplots", subplots),
        mock.patch.object(Figure, "axes", property(lambda one: one.__dict__.get("filled", []))),
        mock.patch.object(Figure, "legend"),
        mock.patch.object(Figure, "savefig", savefig),
    ):
        yield


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Equal networks are converted for OpenVINO once, and equal templates of pages compiled once,
    neither of which reads or writes a file.
    """
    import jinja2

    from delineate.inference import openvino

    convert, compile_template, known = openvino._converted, jinja2.Environment.compile, {}

    def converted(module: Any, *shapes: Any) -> Any:
        weights = {name: one.numpy().tobytes() for name, one in module.state_dict().items()}
        key = (str(module), tuple(map(tuple, shapes)), tuple(weights.items()))
        if key not in known:
            known[key] = convert(module, *shapes)
        return known[key] and known[key].clone()

    def compiled(environment: jinja2.Environment, *given: Any, **named: Any) -> Any:
        key = (given, tuple(named.items()))
        if key not in known:
            known[key] = compile_template(environment, *given, **named)
        return known[key]

    with (
        mock.patch.object(openvino, "_converted", converted),
        mock.patch.object(jinja2.Environment, "compile", compiled),
    ):
        yield


COMMANDS: dict[str, Callable[[Path, Say], int]] = {
    "train": training,
    "predict": prediction,
    "evaluate": evaluation,
    "report": reporting,
}


def words(command: str, folder: Path) -> list[str]:
    """The same commands for ``delineate``; a training that is not deterministic is the same too."""
    at = {name: str(folder / name) for name in ("cohort", "m.model", "m.model.run", "masks")}
    return {
        "train": [
            *("train", at["cohort"], "-o", at["m.model"], "--epochs", "3", "--device", "cpu"),
            *("--plan", str(folder / "plan.json"), "--split", str(folder / "split.json")),
        ],
        "predict": [
            *("predict", at["m.model"], str(folder / "scans"), "-o", at["masks"]),
            *("--device", "cpu"),
        ],
        "evaluate": [
            *("evaluate", at["masks"], str(folder / "cohort/labels"), "-o", str(folder / "scores")),
            *("--no-report", "--workers", "1"),
        ],
        "report": ["report", at["m.model.run"]],
    }[command]


def by_command_line(command: str, folder: Path) -> int:
    """Give a command as a user does, in this process; 0 or its exit code. The model of so short a
    training is not usable, which is no failure here.
    """
    from delineate.cli.command_line import main

    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["delineate", *words(command, folder)]),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
            usual = (0, UNUSABLE_MODEL) if command == "train" else (0,)
            return 0 if code in usual else code
    return 0

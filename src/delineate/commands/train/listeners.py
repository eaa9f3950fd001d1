"""Listeners of a training: the figures of ``log.jsonl`` in TensorBoard, MLflow, Weights & Biases,
or a registered receiver (``--listener NAME``).

``log.jsonl`` is always written, and the report reads it; what a listener writes is never read
back. A listener that fails is dropped with a message: it never stops a training.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...core import atomic
from ...core.progress import Progress, Say
from ...extend.parts import FollowedRun, Listener, Recorder
from ...extend.registers import LISTENERS, name_in
from ...extras import EXTRAS, require_extra, require_package

NOT_FIGURES = ("step", "epoch", "progress")  # the position of a line, not its figures


def find_listeners(given: Sequence[str | Callable[..., Any]]) -> dict[str, Listener]:
    """The listeners by name; a function or class that is given is registered.

    Raises:
        PartError: a name is unknown. UsageError: a package that one needs is not installed.
    """
    found = {name: LISTENERS[name] for name in (name_in(LISTENERS, one) for one in given)}
    for name, listener in found.items():
        if listener.needs in EXTRAS:
            require_extra(listener.needs, f"the listener {name}")
        elif listener.needs:
            require_package(listener.needs, f"the listener {name}")
    return found


class Recorders:
    """The recorders of one network's training.

    Args:
        listeners: by name.
        run: the network and its folder.
        say: receives a message if a listener fails.
    """

    def __init__(self, listeners: Mapping[str, Listener], run: FollowedRun, say: Say):
        self._say = say
        self._open: dict[str, Recorder] = {}
        for name, listener in listeners.items():
            try:
                self._open[name] = listener.follow(run)
            except Exception as error:
                self._drop(name, error)

    def add(self, line: Mapping[str, Any]) -> None:
        """Pass on one line of the log."""
        for name, recorder in tuple(self._open.items()):
            try:
                recorder.add(line)
            except Exception as error:
                self._drop(name, error)

    def close(self) -> None:
        """End all records."""
        for name, recorder in tuple(self._open.items()):
            try:
                recorder.close()
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        # Whatever is wrong with a listener, the training is worth more.
        self._open.pop(name, None)
        self._say(
            f"listener {name} failed and is not used any more ({type(error).__name__}: {error}); "
            "the training goes on"
        )


class LogLines:
    """The log lines of one network as progress, and each validation as a sentence.

    Args:
        name: of the network, in words.
        say, progress: see ``core.progress``.
    """

    def __init__(self, name: str, say: Say, progress: Progress):
        self._name, self._say, self._progress = name, say, progress
        self._validated = ""  # the last validation Dice, in front because a bar has little room

    def add(self, line: Mapping[str, Any]) -> None:
        """Report one line."""
        loss, dice = f"loss {line['loss']:.3f}", f"Dice {line['train_dice_mean']:.3f}"
        if "val_dice_mean" in line:
            self._validated = f"validation Dice {line['val_dice_mean']:.3f}, "
            self._say(
                f"{self._name}, epoch {line['epoch']:.0f}, step {line['step']}: {loss}, {dice}; "
                f"{self._validated}loss {line['val_loss']:.3f}"
            )
        note = f"{self._validated}{loss}" if self._validated else f"{loss}, {dice}"
        self._progress(f"train {self._name}", line["progress"], 1.0, note)


def figures(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(tag, value) of every finite figure of a log line; the tag of a structure's figure is
    ``val_dice/liver``.
    """
    for key, value in line.items():
        if isinstance(value, dict):
            yield from figures(value, f"{prefix}{key}/")
        elif (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and key not in NOT_FIGURES
        ):
            yield f"{prefix}{key}", float(value)


class EventFile:
    """TensorBoard: the log lines as an event file in ``MODEL.run/fold_K/tensorboard``. A run that
    continues from a checkpoint replaces later lines.
    """

    def __init__(self, run: FollowedRun) -> None:
        self._folder = run.folder / "tensorboard"
        self._writer: Any = None

    def add(self, line: Mapping[str, Any]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=line["step"])
        for name, value in figures(line):
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MLflowRun:
    """MLflow: one run per network in the experiment named like the model, with the settings of the
    plan as parameters. The address is that of MLFLOW_TRACKING_URI, as always. A training that
    continues continues its run.
    """

    def __init__(self, run: FollowedRun) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        kept = run.folder / "mlflow_run_id.txt"
        if kept.is_file():
            self._id = kept.read_text(encoding="utf-8")
            self._client.update_run(self._id, status="RUNNING")
            return
        title = run.model.stem
        experiment = self._client.get_experiment_by_name(title)
        made = self._client.create_run(
            self._client.create_experiment(title)
            if experiment is None
            else experiment.experiment_id,
            run_name=run.name,
            tags={"model": str(run.model)},
        )
        self._id = made.info.run_id
        atomic.write_text(kept, self._id)
        for key, value in _settings(run.plan.model_dump(mode="json", exclude={"reasons"})):
            self._client.log_param(self._id, key, value)

    def add(self, line: Mapping[str, Any]) -> None:
        for name, value in figures(line):
            self._client.log_metric(self._id, name, value, step=line["step"])

    def close(self) -> None:
        self._client.set_terminated(self._id)


class WandbRun:
    """Weights & Biases: one run per network in the project named like the model. Account and
    server are those of its own settings (``wandb login``, WANDB_MODE=offline). A training that
    continues continues its run.
    """

    def __init__(self, run: FollowedRun) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=run.model.stem,
            name=run.name,
            id=hashlib.sha256(os.fsencode(run.folder.resolve())).hexdigest()[:16],
            resume="allow",
            dir=str(run.folder),
            config=dict(_settings(run.plan.model_dump(mode="json", exclude={"reasons"}))),
        )

    def add(self, line: Mapping[str, Any]) -> None:
        self._run.log(dict(figures(line)), step=line["step"])

    def close(self) -> None:
        self._run.finish()


def _settings(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """("network.dims", "3") for every setting of a plan, at most 500 characters each."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)[:500]


for _name, _listener in {
    "tensorboard": Listener(EventFile, "TensorBoard event files.", "tensorboard"),
    "mlflow": Listener(MLflowRun, "An MLflow run.", "mlflow"),
    "wandb": Listener(WandbRun, "A Weights & Biases run.", "wandb"),
}.items():
    LISTENERS.add(_name, _listener)

"""The training loop, top to bottom.

    batches -> forward -> loss -> backward -> clip -> step -> moving average     every step
    checkpoint, log                                                             every epoch
    validation of the averaged weights on whole cases, best member kept         now and then

What a run leaves in its folder: ``last.safetensors`` (everything needed to go on, bit for bit),
``best.safetensors`` (the averaged weights that did best on validation data),
``epoch_NNNNN.safetensors`` (those of every ``keep_every`` epochs, where the plan asks for them),
``log.jsonl``: a line each epoch. Modes (train or eval) are set here and nowhere else: the trained
module always trains, the averaged one always evaluates. Works on class indices and prepared arrays;
knows no label names but to log them, and no files but its own.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.numpy import load_file, save_file
from torch import nn

from ..core import atomic
from ..core.bundle import Weights
from ..core.errors import TrainingError
from ..core.plan import Plan, Schedule
from ..core.scores import without_nan
from ..core.store import StoredCase
from ..inference import engine as infer
from ..networks.build import build, load_weights, weights_of
from . import checkpoint, losses
from . import validation as scoring
from .norm_statistics import calibrate
from .optimisers import make_optimiser
from .patches import batches
from .schedule import Clock, rate

VALIDATION_SHARE = 0.08  # of the time may go into validation
VALIDATIONS = 12  # in a run whose plan does not say how often
EXTENSION_RATE = (
    0.5  # of the learning rate: the weights have settled, and a full restart would first undo that
)
CHECKPOINT_EVERY_S = 15.0
# steps after which the host looks at what they gave; a GPU would stand idle if it did at each
WATCHED = 20

# What it would say, the run's card says.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

Listener = Callable[[dict[str, Any]], None]
Figures = tuple[torch.Tensor, torch.Tensor]  # of one step, on its device: loss (), counts (3, L)


@dataclass
class TrainingJob:
    """One network being trained: what ``fit`` is given.

    ``folder`` receives the run's files; ``deadline`` is a ``time.monotonic`` instant by which
    training must have ended; ``listener`` hears every log line; ``on_best`` gets weights whenever
    they are the best so far. ``extension``: how often a training that had ended was given more
    time; each begins the schedule anew, at ``EXTENSION_RATE`` of the learning rate.
    """

    plan: Plan
    train: Sequence[StoredCase]
    validate: Sequence[StoredCase]
    folder: Path
    device: torch.device
    seed: int
    deadline: float | None = None
    init: Weights | None = None
    listener: Listener = lambda line: None
    on_best: Callable[[Weights, dict[str, Any]], None] = lambda weights, line: None
    threads: int = 1
    extension: int = 0


@dataclass
class TrainingState:
    """What a checkpoint keeps beside tensors."""

    step: int = 0
    spent_s: float = 0.0
    best: float | None = None  # of the best validation, higher is better; none yet
    best_step: int = -1
    validated_at: float = 0.0  # progress of the last validation
    validation_s: float = 0.0
    validations: int = 0
    finished: bool = False
    extension: int = 0
    origin_s: float = 0.0  # spent when the last extension began
    infinite: int = 0  # steps in a row whose loss was not finite, as far as was looked
    losses: list[float] = field(default_factory=list)  # of the running epoch
    counts: list[list[int]] = field(default_factory=list)  # of the running epoch, see ``scoring``


def fit(job: TrainingJob) -> Weights:
    """Train, or go on where a killed run stopped; gives the best averaged weights.

    Raises:
        TrainingError: no case holds a structure, or the loss is not finite.
    """
    if not any(case.points for case in job.train):
        raise TrainingError(
            "no training case holds any of the structures; there is nothing to learn",
            path=job.folder,
        )
    plan, schedule = job.plan, job.plan.schedule
    dtype = infer.fast_dtype(job.device)
    fabric = Fabric(accelerator=job.device.type, devices=1, precision=_precision(dtype))
    module = build(plan.network, seed=job.seed).to(job.device)
    if job.init is not None:
        load_weights(module, job.init, strict=False)
    average = copy.deepcopy(module).to(job.device).eval()
    optimiser = make_optimiser(module, plan.optimiser, dtype)
    state = TrainingState()
    if (job.folder / "last.safetensors").is_file():
        state = TrainingState(
            **checkpoint.load(job.folder / "last.safetensors", module, average, optimiser)
        )
    model, optimiser_ = fabric.setup(module, optimiser)
    if job.extension > state.extension:
        state.extension, state.origin_s, state.validated_at, state.finished = (
            job.extension,
            state.spent_s,
            0.0,
            False,
        )
    clock = Clock(schedule, state.spent_s, job.deadline, state.origin_s)
    peak = plan.optimiser.learning_rate * (EXTENSION_RATE if state.extension else 1.0)
    _truncate_log(job, state.step)
    if state.finished:
        return load_file(job.folder / "best.safetensors")

    model.train()
    saved_at = epoch_began = time.monotonic()
    unread: list[Figures] = []
    with closing(
        batches(
            plan, job.train, job.seed, state.step, job.threads, pinned=job.device.type == "cuda"
        )
    ) as stream:
        progress = clock.progress(state.step)
        while progress < 1:
            for group in optimiser_.param_groups:
                group["lr"] = peak * rate(schedule, progress)
            image, label = (t.to(job.device, non_blocking=True) for t in next(stream))
            # Dropout's stream.
            torch.manual_seed(int(np.random.default_rng([job.seed, state.step, 1]).integers(2**31)))
            outputs = model(image)
            loss = losses.deeply_supervised(outputs, label, plan.loss)
            optimiser_.zero_grad(set_to_none=True)
            fabric.backward(loss)
            fabric.clip_gradients(
                model, optimiser_, max_norm=plan.optimiser.clip_norm, error_if_nonfinite=False
            )
            optimiser_.step()
            _update_ema(average, module, min(schedule.ema, (1 + state.step) / (10 + state.step)))
            unread.append(_step_stats(loss, outputs, label))
            state.step += 1

            progress = clock.progress(state.step)
            epoch_ends = state.step % schedule.steps_per_epoch == 0
            if progress >= 1 or epoch_ends or len(unread) == WATCHED:
                _flush_step_stats(state, unread)
                _refuse_infinite(state, job)
            if progress >= 1 or epoch_ends:
                line = {
                    "learning_rate": optimiser_.param_groups[0]["lr"],
                    "progress": progress,
                    "epoch_s": round(time.monotonic() - epoch_began, 3),
                }
                if progress >= 1 or _validation_is_due(state, clock, progress):
                    line |= _validate(job, state, clock, average, line)
                    # Validating may have used up the time: then this was the last.
                    line["progress"] = progress = clock.progress(state.step)
                _log(job, state, clock, line)
                if (
                    epoch_ends
                    and schedule.keep_every
                    and state.step // schedule.steps_per_epoch % schedule.keep_every == 0
                ):
                    _write(average, _kept_file(job, state.step))
                if (
                    progress >= 1
                    or schedule.epochs is not None
                    or time.monotonic() - saved_at > CHECKPOINT_EVERY_S
                ):
                    state.finished, state.spent_s, saved_at = (
                        progress >= 1,
                        clock.elapsed_s,
                        time.monotonic(),
                    )
                    checkpoint.save(
                        job.folder / "last.safetensors", module, average, optimiser, vars(state)
                    )
                epoch_began = time.monotonic()
    if not (
        job.folder / "best.safetensors"
    ).is_file():  # the deadline had passed before the first step
        _keep_best(job, average, {"step": state.step})
    return load_file(job.folder / "best.safetensors")


@torch.no_grad()
def _update_ema(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Exponential moving average of the parameters (Polyak 1992) and, alike, of the statistics that
    batch norm keeps.

    Averaged weights need the statistics of what they compute, not those of the last step's weights
    (Izmailov 2018); to first order these are the averaged statistics. Buffers that are no real
    numbers are copied. A decay of 0 copies everything.
    """
    own: list[torch.Tensor] = list(average.parameters())
    other = [p.detach() for p in module.parameters()]
    torch._foreach_mul_(own, decay)
    torch._foreach_add_(own, other, alpha=1 - decay)
    for mine, theirs in zip(average.buffers(), module.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)  # leaves constants as they are, to the last bit
        else:
            mine.copy_(theirs)


def _precision(dtype: torch.dtype) -> Any:
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}[
        dtype
    ]


@torch.no_grad()
def _step_stats(
    loss: torch.Tensor, outputs: torch.Tensor | list[torch.Tensor], label: torch.Tensor
) -> Figures:
    logits = outputs[0] if isinstance(outputs, list) else outputs  # full resolution
    return loss.detach(), scoring.counts(label, logits.argmax(1), logits.shape[1])


def _flush_step_stats(state: TrainingState, unread: list[Figures]) -> None:
    """Add the steps whose figures still lie on the device to the running epoch."""
    losses, counts = (torch.stack(figures) for figures in zip(*unread, strict=True))
    unread.clear()
    state.losses += losses.tolist()
    state.counts = (counts.sum(0).cpu().numpy() + (state.counts or 0)).tolist()
    state.infinite = 0 if losses.isfinite().any() else state.infinite + len(losses)


def _refuse_infinite(state: TrainingState, job: TrainingJob) -> None:
    if state.infinite >= WATCHED:
        raise TrainingError(
            f"the loss has not been finite for {state.infinite} steps (step {state.step}); a "
            "lower learning rate in the plan may help",
            path=job.folder,
        )


def _validation_is_due(state: TrainingState, clock: Clock, progress: float) -> bool:
    """Every ``validate_every`` epochs, else evenly over the run.

    By the clock never so often that it eats more than its share of the time, and not where it would
    last to the end: the steps that anneal the rate are worth more, and the end has a validation of
    its own.
    """
    schedule = clock.schedule
    every, epoch = schedule.validate_every, state.step // schedule.steps_per_epoch
    if schedule.epochs is not None:
        return epoch % (every or max(1, schedule.epochs // VALIDATIONS)) == 0
    wanted = epoch % every == 0 if every else progress - state.validated_at >= 1 / VALIDATIONS
    ends_s = clock.elapsed_s + state.validation_s / max(1, state.validations)
    return (
        wanted
        and state.validation_s <= VALIDATION_SHARE * clock.elapsed_s
        and ends_s < clock.total_s
    )


def _validate(
    job: TrainingJob, state: TrainingState, clock: Clock, average: nn.Module, line: dict[str, Any]
) -> dict[str, Any]:
    """What ``scoring.evaluate`` finds; the network is kept where it is the best so far."""
    began, progress = time.monotonic(), line["progress"]
    calibrate(average, job.plan, job.train, job.seed, state.step, job.device)
    limit = (
        None
        if clock.schedule.epochs is not None
        else max(1.0, VALIDATION_SHARE / VALIDATIONS * 1.5 * clock.total_s)
    )
    found = scoring.evaluate(job.plan, average, job.validate, job.device, limit)
    state.validation_s += time.monotonic() - began
    state.validations += 1
    state.validated_at = progress
    score = _score(job.plan.schedule, found, progress)
    if state.best is None or score >= state.best:
        state.best, state.best_step = score, state.step
        _keep_best(job, average, {"step": state.step, **line, **found})
    return found


def _score(schedule: Schedule, found: dict[str, Any], progress: float) -> float:
    """What the best network is chosen by, higher is better; where there is nothing to compare by,
    the latest is the best.
    """
    if not found["val_cases"]:
        return progress
    score = found["val_dice_mean"] if schedule.best_by == "dice" else -found["val_loss"]
    worst = 0.0 if schedule.best_by == "dice" else -1e9
    return float(score) if np.isfinite(score) else worst + progress * 1e-3


def _keep_best(job: TrainingJob, average: nn.Module, line: dict[str, Any]) -> None:
    job.on_best(_write(average, job.folder / "best.safetensors"), line)


def _write(average: nn.Module, path: Path) -> Weights:
    """The weights, which now stand in ``path`` as well."""
    weights = weights_of(average)
    with atomic.replacing(path) as temporary:
        save_file({k: np.asarray(v, order="C") for k, v in weights.items()}, temporary)
    return weights


def _kept_file(job: TrainingJob, step: int) -> Path:
    return job.folder / f"epoch_{step // job.plan.schedule.steps_per_epoch:05d}.safetensors"


def _log(job: TrainingJob, state: TrainingState, clock: Clock, line: dict[str, Any]) -> None:
    """Write and tell the epoch's line, and begin the next epoch's figures.

    ``loss`` is the mean over the epoch's steps; ``train_dice`` (by name) and its mean
    ``train_dice_mean`` are of the hard predictions for the augmented patches, pooled over the
    epoch, each made by the network as it was then. ``epoch_s`` seconds of training went into the
    epoch, validation not counted. Lines with a validation have what ``scoring.evaluate`` gives.
    """
    mean = float(np.mean(state.losses)) if state.losses else float("nan")
    named, mean_dice = (
        scoring.dice(np.array(state.counts), job.plan.structures)
        if state.counts
        else ({}, float("nan"))
    )
    full = {
        "step": state.step,
        "epoch": state.step / job.plan.schedule.steps_per_epoch,
        "seconds": round(clock.elapsed_s, 2),
        "loss": mean,
        "train_dice": named,
        "train_dice_mean": mean_dice,
        **line,
    }
    state.losses, state.counts = [], []
    with (job.folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(without_nan(full)) + "\n")
    job.listener(full)


def _truncate_log(job: TrainingJob, step: int) -> None:
    """Drop the log's lines and the kept weights that are newer than the checkpoint from which the
    run goes on.
    """
    path = atomic.make_folder(job.folder) / "log.jsonl"
    if path.is_file():
        lines = [
            text for text in path.read_text(encoding="utf-8").splitlines() if text.endswith("}")
        ]
        atomic.write_text(
            path, "".join(text + "\n" for text in lines if json.loads(text)["step"] <= step)
        )
    for kept in job.folder.glob(f"epoch_{'[0-9]' * 5}.safetensors"):
        if kept.name > _kept_file(job, step).name:
            kept.unlink()

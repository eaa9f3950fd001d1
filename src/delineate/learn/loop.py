"""The training loop, top to bottom.

    batches -> forward -> loss -> backward -> clip -> step -> moving average     every step
    checkpoint, log                                                             every epoch
    validation of the averaged weights on whole cases, best member kept         now and then

What a run leaves in its folder: ``last.safetensors`` (everything needed to go on, bit for bit), ``best.safetensors`` (the
averaged weights that did best on validation data), ``log.jsonl``. Modes (train or eval) are set here and nowhere else:
the trained module always trains, the averaged one always evaluates. Works on class indices and prepared arrays;
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
from ..core.plan import Inference, Optimiser, Plan
from ..core.scores import without_nan
from ..core.store import StoredCase
from ..nets import infer
from ..nets.build import build, load_weights, weights_of
from . import checkpoint, losses
from .patches import batches
from .schedule import Clock, rate

VALIDATION_SHARE = 0.08  # of the time may go into validation
VALIDATIONS = 12  # at most, in a run by the clock
CHECKPOINT_EVERY_S = 15.0

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it would say, the run's card says

Listener = Callable[[dict[str, Any]], None]


@dataclass
class Training:
    """One network being trained: what ``fit`` is given.

    ``folder`` receives the run's files; ``deadline`` is a ``time.monotonic`` instant by which training must have ended;
    ``listener`` hears every log line; ``on_best`` gets weights whenever they are the best so far.
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


@dataclass
class State:
    """What a checkpoint keeps beside tensors."""

    step: int = 0
    spent_s: float = 0.0
    best: float = -1.0
    best_step: int = -1
    validated_at: float = 0.0  # progress of the last validation
    validation_s: float = 0.0
    finished: bool = False
    losses: list[float] = field(default_factory=list)  # of the running epoch


def fit(job: Training) -> Weights:
    """Train, or go on where a killed run stopped; gives the best averaged weights.

    Raises:
        TrainingError: no case holds a structure, or the loss is not finite.
    """
    if not any(case.points for case in job.train):
        raise TrainingError("no training case holds any of the structures; there is nothing to learn", path=job.folder)
    plan, schedule = job.plan, job.plan.schedule
    fabric = Fabric(accelerator=job.device.type, devices=1, precision=_precision(infer.fast_dtype(job.device)))
    module = build(plan.network, seed=job.seed).to(job.device)
    if job.init is not None:
        load_weights(module, job.init, strict=False)
    average = copy.deepcopy(module).to(job.device).eval()
    optimiser = make_optimiser(module, plan.optimiser)
    state = State()
    if (job.folder / "last.safetensors").is_file():
        state = State(**checkpoint.load(job.folder / "last.safetensors", module, average, optimiser))
    model, optimiser_ = fabric.setup(module, optimiser)
    clock = Clock(schedule, state.spent_s, job.deadline)
    _cut_log(job.folder, state.step)
    if state.finished:
        return load_file(job.folder / "best.safetensors")

    model.train()
    saved_at = time.monotonic()
    with closing(batches(plan, job.train, job.seed, state.step, job.threads)) as stream:
        progress = clock.progress(state.step)
        while progress < 1:
            for group in optimiser_.param_groups:
                group["lr"] = plan.optimiser.learning_rate * rate(schedule, progress)
            image, label = (t.to(job.device, non_blocking=True) for t in next(stream))
            torch.manual_seed(int(np.random.default_rng([job.seed, state.step, 1]).integers(2**31)))  # dropout's stream
            loss = losses.deeply_supervised(model(image), label, plan.loss)
            optimiser_.zero_grad(set_to_none=True)
            fabric.backward(loss)
            fabric.clip_gradients(model, optimiser_, max_norm=plan.optimiser.clip_norm, error_if_nonfinite=False)
            optimiser_.step()
            _follow(average, module, min(schedule.ema, (1 + state.step) / (10 + state.step)))
            state.losses.append(float(loss.detach()))
            _refuse_infinite(state, job)
            state.step += 1

            progress = clock.progress(state.step)
            epoch_ends = state.step % schedule.steps_per_epoch == 0
            if progress >= 1 or (epoch_ends and _validation_is_due(state, clock, progress)):
                _validate(job, state, clock, average, progress, optimiser_.param_groups[0]["lr"])
                progress = clock.progress(state.step)
            elif epoch_ends:
                _log(job, state, clock, {"learning_rate": optimiser_.param_groups[0]["lr"], "progress": progress})
            if progress >= 1 or (epoch_ends and (schedule.epochs is not None or time.monotonic() - saved_at > CHECKPOINT_EVERY_S)):
                state.finished, state.spent_s, saved_at = progress >= 1, clock.elapsed_s, time.monotonic()
                checkpoint.save(job.folder / "last.safetensors", module, average, optimiser, vars(state))
    if not (job.folder / "best.safetensors").is_file():  # the deadline had passed before the first step
        _keep_best(job, average, {"step": state.step})
    return load_file(job.folder / "best.safetensors")


def make_optimiser(module: nn.Module, plan: Optimiser) -> torch.optim.Optimizer:
    """The plan's optimiser; weight decay spares norms and biases."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    spared = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    if plan.kind == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Exponential moving average of the parameters (Polyak 1992); buffers are copied."""
    own: list[torch.Tensor] = list(average.parameters())
    other = [p.detach() for p in module.parameters()]
    torch._foreach_mul_(own, decay)
    torch._foreach_add_(own, other, alpha=1 - decay)
    for mine, theirs in zip(average.buffers(), module.buffers(), strict=True):
        mine.copy_(theirs)


def _precision(dtype: torch.dtype) -> Any:
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}[dtype]


def _refuse_infinite(state: State, job: Training) -> None:
    recent = state.losses[-20:]
    if len(recent) == 20 and not np.isfinite(recent).any():
        raise TrainingError(
            f"the loss has not been finite for 20 steps (step {state.step}); a lower learning rate in the plan may help", path=job.folder
        )


def _validation_is_due(state: State, clock: Clock, progress: float) -> bool:
    """Evenly over the run, and never so often that it eats more than its share of the time."""
    if clock.schedule.epochs is not None:
        every = max(1, clock.schedule.epochs // VALIDATIONS)
        return (state.step // clock.schedule.steps_per_epoch) % every == 0
    return progress - state.validated_at >= 1 / VALIDATIONS and state.validation_s <= VALIDATION_SHARE * clock.elapsed_s


def _validate(job: Training, state: State, clock: Clock, average: nn.Module, progress: float, learning_rate: float) -> None:
    began = time.monotonic()
    limit = None if clock.schedule.epochs is not None else max(1.0, VALIDATION_SHARE / VALIDATIONS * 1.5 * clock.total_s)
    found = evaluate(job.plan, average, job.validate, job.device, limit)
    state.validation_s += time.monotonic() - began
    state.validated_at = progress
    line = {"learning_rate": learning_rate, "progress": progress, **found}
    score = found["val_dice_mean"] if job.validate else progress
    if not np.isfinite(score):
        score = progress * 1e-3  # nothing to compare by: the latest is the best
    if score >= state.best:
        state.best, state.best_step = score, state.step
        _keep_best(job, average, {"step": state.step, **line})
    _log(job, state, clock, line)


def _keep_best(job: Training, average: nn.Module, line: dict[str, Any]) -> None:
    weights = weights_of(average)
    with atomic.replacing(job.folder / "best.safetensors") as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in weights.items()}, temporary)
    job.on_best(weights, line)


def evaluate(plan: Plan, module: nn.Module, cases: Sequence[StoredCase], device: torch.device, limit_s: float | None = None) -> dict[str, Any]:
    """Dice of each structure pooled over whole prepared cases, and the cross-entropy there.

    Args:
        limit_s: stop after the case during which this many seconds have passed (at least one case is done).

    Returns:
        ``val_dice`` name -> Dice (NaN where neither truth nor prediction has a voxel), ``val_dice_mean``, ``val_loss``
        (cross-entropy + 1 - mean Dice), ``val_cases``.
    """
    engine = infer.Engine(plan, ((module, 1.0),), device, infer.fast_dtype(device))
    classes, began = plan.network.classes, time.monotonic()
    table = np.zeros((classes, classes), dtype=np.int64)  # truth x prediction
    entropy, voxels, done = 0.0, 0, 0
    for case in cases:
        confusion, nats = _score_case(engine, case)
        table += confusion
        entropy, voxels, done = entropy + nats, voxels + int(np.prod(case.shape)), done + 1
        if limit_s is not None and time.monotonic() - began > limit_s:
            break
    both, total = np.diag(table)[1:], (table.sum(0) + table.sum(1))[1:]
    dice = np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)
    mean = float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")
    named = {s.name: float(d) for s, d in zip(plan.structures, dice, strict=True)}
    return {"val_dice": named, "val_dice_mean": mean, "val_loss": entropy / max(voxels, 1) + 1 - mean, "val_cases": done}


def _score_case(engine: infer.Engine, case: StoredCase) -> tuple[np.ndarray[Any, Any], float]:
    """(truth x prediction) counts and the summed cross-entropy of one case, slab by slab."""
    classes = engine.plan.network.classes
    axis = infer.marching_axis(case.shape, engine.plan)
    scan = torch.from_numpy(np.asarray(case.image[:], dtype=np.float32))
    truth = torch.from_numpy(np.moveaxis(np.asarray(case.label[:]), axis, 0).astype(np.int64)).to(engine.device)
    table, nats, start = np.zeros(classes * classes, dtype=np.int64), 0.0, 0
    for slab in infer.slabs(scan, engine, Inference(overlap=min(engine.plan.inference.overlap, 0.25))):
        here = truth[start : start + slab.shape[1]]
        table += torch.bincount((here * classes + slab.argmax(0)).flatten(), minlength=classes * classes).cpu().numpy()
        nats -= float(slab.gather(0, here[None]).float().clamp_min(1e-6).log().sum())
        start += slab.shape[1]
    return table.reshape(classes, classes), nats


def _log(job: Training, state: State, clock: Clock, line: dict[str, Any]) -> None:
    mean = float(np.mean(state.losses)) if state.losses else float("nan")
    full = {"step": state.step, "epoch": state.step / job.plan.schedule.steps_per_epoch, "seconds": round(clock.elapsed_s, 2), "loss": mean, **line}
    state.losses = []
    with (job.folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(without_nan(full)) + "\n")
    job.listener(full)


def _cut_log(folder: Path, step: int) -> None:
    """Drop lines that were logged after the checkpoint from which the run goes on."""
    path = folder / "log.jsonl"
    atomic.make_folder(folder)
    if path.is_file():
        lines = [text for text in path.read_text(encoding="utf-8").splitlines() if text.endswith("}")]
        atomic.write_text(path, "".join(text + "\n" for text in lines if json.loads(text)["step"] <= step))

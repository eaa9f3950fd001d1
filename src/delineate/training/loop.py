"""The training loop, top to bottom.

    batches -> forward -> loss -> backward -> clip -> step -> moving average     every step
    log, checkpoint                                   every epoch, ten times in a run at least
    loss and Dice on validation patches               as often, if whole cases cannot be validated
    validation of the averaged weights on whole cases, best weights kept        regularly

Files in the run folder: ``last.safetensors`` (everything needed to resume exactly),
``best.safetensors`` (the averaged weights with the best validation score),
``epoch_NNNNN.safetensors`` (the weights of every ``keep_every`` epochs, if set in the plan),
``log.jsonl`` (a line per epoch, or per part of one if there are few). Modes (train or eval) are set
only here: the trained module is always in training mode, the averaged one in evaluation mode. The
module works on class indices and preprocessed arrays; it uses label names only for the log, and
accesses no files but its own.

Several ranks (``ranks``) make each step together: they execute the same lines, and only the one
that leads writes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from ..core import atomic
from ..core.bundle import Weights, load_weights, save_weights
from ..core.errors import RankError, TrainingError
from ..core.inputs import json_text, read_json_lines
from ..core.plan import Augmentation, Plan, Schedule
from ..core.progress import Say, unsaid
from ..core.scores import without_nan
from ..core.store import StoredCase
from ..execution import stopping
from ..inference import engine as infer
from ..networks.build import build, weights_of
from ..networks.build import load_weights as fill
from . import checkpoint, losses, overlapping
from . import validation as scoring
from .by_sample import BySample, threads_of
from .norm_statistics import calibrate
from .optimisers import make_optimiser
from .patches import batches, draw_batch
from .ranks import ALONE, Ranks
from .schedule import Clock, rate
from .threads import ThreadChoice, counts_to_try

VALIDATION_SHARE = 0.08  # largest fraction of the time for validation
VALIDATIONS = 12  # per run, if the plan does not set their interval
POINTS = 10  # of every curve, at least
# Of the steps' time, what validation patches may take where there are fewer validations; a batch at
# each point at least. They draw a curve and choose nothing.
POINTS_SHARE = 0.01
STEP_PASSES = 3  # a training step takes about as long as so many forward passes
MOST_BATCHES = 16  # of validation patches at a point
POINTS_STREAM = 2_000_003  # added to the seed: the patches are always the same
# Fraction of the learning rate in an extension. The weights have converged, and the full learning
# rate would undo this first.
EXTENSION_RATE = 0.5
CHECKPOINT_EVERY_S = 15.0
# Number of steps after which the host reads their loss and counts. Reading them after every step
# would leave a GPU idle.
WATCHED = 20

Listener = Callable[[dict[str, Any]], None]
Figures = tuple[torch.Tensor, torch.Tensor]  # of one step, on the device: loss (), counts (3, L)


@dataclass
class TrainingJob:
    """The training of one network: the input of ``fit``.

    ``folder`` receives the files of the run; ``deadline`` is a ``time.monotonic`` instant at which
    training must have ended; ``listener`` is called with every log line, ``on_best`` with the
    weights and log line whenever they are the best so far, ``say`` with a sentence about a damaged
    file or a lack of memory. ``extension`` is the number of times that a finished training was
    extended; each extension starts the schedule again, at ``EXTENSION_RATE`` times the learning
    rate. ``ranks`` are those that train it together; ``by_sample`` makes the weights independent of
    their number, to the bit.
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
    say: Say = unsaid
    threads: int = 1
    extension: int = 0
    ranks: Ranks = ALONE
    by_sample: bool = False


@dataclass
class TrainingState:
    """The part of a checkpoint that is not tensors."""

    step: int = 0
    spent_s: float = 0.0
    best: float | None = None  # best validation score, higher is better; None before the first
    best_step: int = -1
    validated_at: float = 0.0  # progress of the last validation
    validation_s: float = 0.0
    validations: int = 0
    finished: bool = False
    extension: int = 0
    learning_rate: float = 0.0  # of the last step
    epoch_ended: bool = False  # after the last step of an epoch or part, until its line is logged
    logged_at: float = 0.0  # progress at the last line
    point_batches: int = 0  # of validation patches at each point of the curve; 0 before the first
    origin_s: float = 0.0  # ``spent_s`` at the start of the last extension
    lines: int = 0  # of the log
    parts: int = 1  # in which a batch is computed, more than one after memory ran out
    left_out: int = 0  # steps whose gradients were not finite, of those read
    infinite: int = 0  # the latest of them without one that was finite
    losses: list[float] = field(default_factory=list)  # of the current epoch
    counts: list[list[int]] = field(default_factory=list)  # of the current epoch, see ``scoring``


def fit(job: TrainingJob) -> Weights:
    """Train, or resume an interrupted run; returns the best averaged weights, in a rank that does
    not lead none.

    Raises:
        StopSignal: a signal was noted; everything is saved.
        TrainingError: no training case contains a structure, the loss is not finite, or memory
            runs out.
        RankError: a rank was lost.
    """
    if not any(case.points for case in job.train):
        raise TrainingError(
            "no training case contains any of the structures: there is nothing to learn",
            path=job.folder,
        )
    networks, ranks = _Networks.of(job), job.ranks
    state, plan, schedule = networks.state, job.plan, job.plan.schedule
    clock = Clock(schedule, state.spent_s, job.deadline, state.origin_s)
    peak = plan.optimiser.learning_rate * (EXTENSION_RATE if state.extension else 1.0)
    if ranks.leads:
        _truncate_log(job, state)
    if state.finished:
        return _best(job)

    networks.model.train()
    saved_at = epoch_began = time.monotonic()
    unread: list[Figures] = []
    stream = batches(
        plan,
        job.train,
        job.seed,
        state.step,
        job.threads,
        pinned=job.device.type == "cuda",
        part=ranks.part(plan.batch),
    )
    with stopping.at_steps(), closing(stream), _thread_choice(networks) as threads:
        progress = ranks.agree(clock.progress(state.step))
        while (progress < 1 or state.epoch_ended) and not ranks.stop():
            # One training step, unless a run was stopped after the last step of an epoch.
            if not state.epoch_ended:
                state.learning_rate = peak * rate(schedule, progress)
                unread.append(networks.step(*ranks.next_of(stream)))
                threads.step_ended()
                progress = ranks.agree(clock.progress(state.step))
                state.epoch_ended = progress >= 1 or _line_is_due(state, schedule, progress)
                # Read the statistics of several steps at once.
                if state.epoch_ended or len(unread) == WATCHED:
                    left_out = state.left_out
                    _flush_step_stats(state, unread, ranks)
                    _refuse_infinite(state, job, left_out)
                if not state.epoch_ended or ranks.stop():
                    continue

            # The end of an epoch, of a part or of the training: validate, log, save.
            progress = _end_epoch(networks, clock, progress, epoch_began)
            state.epoch_ended = False
            if _checkpoint_is_due(schedule, progress, saved_at):
                state.finished = progress >= 1
                saved_at = time.monotonic()
                networks.save(clock)
            epoch_began = time.monotonic()
            threads.paused()
        # Here, so that no moment of a signal loses the steps since the last checkpoint.
        if stop := ranks.stop():
            if unread:
                _flush_step_stats(state, unread, ranks)
            networks.save(clock)
    if stop:  # another rank noted it
        raise stopping.StopSignal(stop)
    # If the deadline had passed before the first step, there are no best weights yet.
    if not ranks.agree((job.folder / "best.safetensors").is_file()):
        _keep_best(job, networks.average, {"step": state.step})
    return _best(job)


def _best(job: TrainingJob) -> Weights:
    return load_weights(job.folder / "best.safetensors", job.say) if job.ranks.leads else {}


@dataclass
class _Networks:
    """What a step changes: the network (``model`` is ``module`` as fabric runs it), its average,
    the optimiser and the state.
    """

    job: TrainingJob
    fabric: Fabric
    module: nn.Module
    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    stepper: Any  # the optimiser as fabric runs it
    state: TrainingState
    samples: BySample | None = None

    @classmethod
    def of(cls, job: TrainingJob) -> _Networks:
        """Build them, and load the checkpoint of an earlier run."""
        dtype, ranks = infer.fast_dtype(job.device), job.ranks
        fabric = ranks.fabric_for(job.device)
        module = build(job.plan.network, seed=job.seed).to(job.device)
        if job.init is not None:
            fill(module, job.init, strict=False)
        average = copy.deepcopy(module).to(job.device).eval()
        ranks.share_norms(module, job.plan.batch)
        optimiser = make_optimiser(module, job.plan.optimiser, dtype, ranks)
        state = _resume(job, module, average, optimiser)
        model, stepper = fabric.setup(module, optimiser)
        samples = BySample(module, ranks, job.plan.batch, job.device) if job.by_sample else None
        return cls(job, fabric, module, model, average, optimiser, stepper, state, samples)

    def step(self, image: torch.Tensor, label: torch.Tensor) -> Figures:
        """One training step on a batch, with the learning rate of the state."""
        plan, state = self.job.plan, self.state
        for group in self.stepper.param_groups:
            group["lr"] = state.learning_rate
        image, label = (t.to(self.job.device, non_blocking=True) for t in (image, label))
        statistics = [one for one in self.module.buffers() if one.is_floating_point()]
        before = [one.clone() for one in statistics]
        with self.job.ranks.step():
            figures = self._gradients(image, label)
        norm = self.fabric.clip_gradients(
            self.model,
            self.stepper,
            max_norm=plan.optimiser.clip_norm,
            error_if_nonfinite=False,
        )
        assert norm is not None  # of gradients that are clipped by their norm
        gradients = [one.grad for one in self.module.parameters() if one.grad is not None]
        figures = _without_infinite(norm, gradients, statistics, before, figures)
        self.stepper.step()
        # The average is short at the start, so that it forgets the initial weights.
        decay = min(plan.schedule.ema, (1 + state.step) / (10 + state.step))
        _update_ema(self.average, self.module, decay)
        state.step += 1
        return figures

    def _gradients(self, image: torch.Tensor, label: torch.Tensor) -> Figures:
        """The gradients of a batch. If memory runs out, the batch is computed in twice as many
        parts, whose gradients are summed, now and in all later steps.

        Raises:
            TrainingError: a part of one sample does not fit either.
        """
        state, samples = self.state, len(image)
        while True:
            try:
                if self.samples is not None and state.parts == 1:
                    return self._gradients_by_sample(self.samples, image, label)
                return self._gradients_of_parts(image, label, min(state.parts, samples))
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if self.job.ranks.size > 1:  # the others wait for these gradients
                    raise RankError(
                        f"rank {self.job.ranks.rank} is out of memory with {samples} samples at a "
                        "time; more devices, a smaller batch or patch (--set patch=...) need less",
                        path=self.job.folder,
                    ) from error
                if state.parts >= samples:
                    raise TrainingError(
                        "out of memory with one sample at a time; a smaller patch (--set "
                        "patch=...) or network needs less",
                        path=self.job.folder,
                    ) from error
            # Outside the handler: the error keeps the tensors of the failed pass alive.
            state.parts *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.job.say(f"out of memory: batches are computed in {state.parts} parts from now on")

    def _gradients_of_parts(self, image: torch.Tensor, label: torch.Tensor, parts: int) -> Figures:
        plan, state, ranks = self.job.plan, self.state, self.job.ranks
        overlap, share = plan.network.overlapping, ranks.share(self.job.plan.batch)
        cost = overlapping.combined if overlap else None
        # The random stream of dropout depends only on seed and step, as the batch does.
        drawn = np.random.default_rng([self.job.seed, state.step, 1]).integers(2**31)
        torch.manual_seed(int(drawn))
        self.stepper.zero_grad(set_to_none=True)
        figures: list[Figures] = []
        for x, y in zip(image.chunk(parts), label.chunk(parts), strict=True):
            outputs = self.model(x)
            loss = losses.deeply_supervised(outputs, y, plan.loss, cost, share)
            if parts > 1:
                loss = loss * (len(x) / len(image))
            # The gradients of several ranks are averaged, and those of their shares add up.
            self.fabric.backward(loss * ranks.size if ranks.size > 1 else loss)
            found = _step_stats(loss, outputs, y, plan.loss.ignore, overlap)
            figures.append(found if share.counts else (found[0], found[1] * 0))
        if len(figures) == 1:
            return figures[0]
        # The shares of the loss, and the counts, add up to those of the batch.
        summed = [torch.stack(part).sum(0) for part in zip(*figures, strict=True)]
        return summed[0], summed[1]

    def _gradients_by_sample(
        self, samples: BySample, image: torch.Tensor, label: torch.Tensor
    ) -> Figures:
        plan = self.job.plan
        overlap = plan.network.overlapping
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)

        def cost(n: int, share: losses.Share) -> tuple[torch.Tensor, Figures]:
            x, y = image[n : n + 1], label[n : n + 1]
            with self.fabric.autocast():
                outputs = self.module(x)
            over = overlapping.combined if overlap else None
            loss = losses.deeply_supervised(outputs, y, plan.loss, over, share)
            found = _step_stats(loss, outputs, y, plan.loss.ignore, overlap)
            return loss if scaler is None else scaler.scale(loss), found

        figures = samples.gradients(cost, (self.job.seed, self.state.step, 1))
        loss = samples.in_order([one for one, _ in figures])
        counts = torch.stack([counts for _, counts in figures]).sum(0)
        # Those of several ranks are added up.
        return loss if self.job.ranks.leads else loss * 0, counts * int(samples.counts)

    def save(self, clock: Clock) -> None:
        """Write the checkpoint."""
        if not self.job.ranks.leads:
            return
        self.state.spent_s = clock.elapsed_s
        checkpoint.save(
            self.job.folder / "last.safetensors",
            self.module,
            self.average,
            self.optimiser,
            vars(self.state),
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python says so; torch has no type for it on CPUs."""
    words = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        one in str(error) for one in words
    )


def _resume(
    job: TrainingJob, module: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> TrainingState:
    """The state of the checkpoint, with its tensors loaded into the arguments; a new state if there
    is no checkpoint. A new extension starts the schedule again.
    """
    state, path = TrainingState(), job.folder / "last.safetensors"
    if path.is_file():
        state = TrainingState(**checkpoint.load(path, module, average, optimiser, job.say))
    if job.ranks.size > 1:
        state.parts = 1  # a share needs less memory than the batch
        if job.ranks.agree(state.step) != state.step:
            raise RankError(
                f"rank {job.ranks.rank} reads another checkpoint than rank 0; all need the same "
                "folder on a shared disk",
                path=job.folder,
            )
    if job.extension > state.extension:
        state.extension, state.origin_s = job.extension, state.spent_s
        state.validated_at, state.logged_at, state.finished = 0.0, 0.0, False
    return state


def _end_epoch(networks: _Networks, clock: Clock, progress: float, began: float) -> float:
    """Validate if it is due, log the epoch, or part of one, that began at the instant ``began``,
    and keep the weights that the plan wants; returns the progress after that.

    Raises:
        StopSignal: during validation; everything is saved, and a resumed run validates again.
    """
    job, state = networks.job, networks.state
    line = {
        "learning_rate": state.learning_rate,
        "progress": progress,
        "epoch_s": round(
            (time.monotonic() - began) * job.plan.schedule.steps_per_epoch / len(state.losses), 3
        ),
    }
    if _draws_points(job, state, progress):
        line |= _on_patches(networks, progress)
    if progress >= 1 or job.ranks.agree(_validation_is_due(state, clock, progress)):
        try:
            line |= _validate(job, state, clock, networks.average, line)
        except stopping.StopSignal:
            networks.save(clock)
            raise
        # Validation may have used up the time: then this step was the last.
        line["progress"] = progress = job.ranks.agree(clock.progress(state.step))
    state.logged_at = progress
    _log(job, state, clock, line)
    if _keeps_weights(job, state.step) and job.ranks.leads:
        _write(networks.average, _kept_file(job, state.step))
    return progress


@contextmanager
def _thread_choice(networks: _Networks) -> Iterator[ThreadChoice]:
    """The number of threads is chosen on a CPU, and not if a run by epochs must be repeatable to
    the bit: sums over threads depend on their number, so that of a sample is used for all that is
    computed by sample. Afterwards it is as before, and the threads of samples have ended.
    """
    job = networks.job
    budget_s, alone = job.plan.schedule.budget_s, job.ranks.size == 1
    chooses = job.device.type == "cpu" and budget_s is not None and alone
    own = torch.get_num_threads()
    fixed = threads_of(job.plan.batch) if job.by_sample and job.device.type == "cpu" else own
    try:
        yield ThreadChoice(counts_to_try(own) if chooses else [fixed], torch.set_num_threads)
    finally:
        torch.set_num_threads(own)
        if networks.samples is not None:
            networks.samples.close()


@torch.no_grad()
def _update_ema(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Exponential moving average of the parameters (Polyak 1992) and of the batch norm statistics.

    Averaged weights need the statistics of their own activations, not of those of the last weights
    (Izmailov 2018); to first order these are the averaged statistics. Buffers that are not floating
    point are copied. A decay of 0 copies everything.
    """
    own: list[torch.Tensor] = list(average.parameters())
    other = [p.detach() for p in module.parameters()]
    # All parameters in two calls: average = decay * average + (1 - decay) * module.
    torch._foreach_mul_(own, decay)
    torch._foreach_add_(own, other, alpha=1 - decay)
    for mine, theirs in zip(average.buffers(), module.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)  # lerp leaves equal values exactly as they are
        else:
            mine.copy_(theirs)


@torch.no_grad()
def _step_stats(
    loss: torch.Tensor,
    outputs: torch.Tensor | list[torch.Tensor],
    label: torch.Tensor,
    ignore: bool,
    overlap: bool = False,
) -> Figures:
    """Loss and voxel counts of a step, still on the device."""
    logits = outputs[0] if isinstance(outputs, list) else outputs  # full resolution
    if overlap:
        return loss.detach(), overlapping.counts(label, logits > 0, ignore)
    return loss.detach(), scoring.counts(label, logits.argmax(1), logits.shape[1], ignore)


def _without_infinite(
    norm: torch.Tensor,
    gradients: Sequence[torch.Tensor],
    statistics: Sequence[torch.Tensor],
    before: Sequence[torch.Tensor],
    figures: Figures,
) -> Figures:
    """Leave a batch out whose gradients are not finite: one would make all weights NaN. Its
    gradients become 0, statistics of batch norm are those before, and its loss is NaN. No value is
    read from a GPU, which the loop would wait for.

    Args:
        norm: of all gradients.
        gradients, statistics: changed in place.
        before: the statistics before the batch.
        figures: of the batch.
    """
    is_finite = norm.isfinite()
    if is_finite.device.type == "cpu" and is_finite:
        return figures
    for gradient in gradients:
        gradient.masked_fill_(~is_finite, 0.0)
    for now, then in zip(statistics, before, strict=True):
        now.copy_(torch.where(is_finite, now, then))
    loss, counts = figures
    return torch.where(is_finite, loss, float("nan")), counts * is_finite


def _flush_step_stats(state: TrainingState, unread: list[Figures], ranks: Ranks = ALONE) -> None:
    """Read the statistics of the unread steps from the device and add them to the current epoch."""
    losses, counts = (ranks.sum(torch.stack(figures)) for figures in zip(*unread, strict=True))
    unread.clear()
    state.losses += losses.tolist()
    state.counts = (counts.sum(0).cpu().numpy() + (state.counts or 0)).tolist()
    # Single batches that are not finite are left out; only an unbroken series is an error.
    state.left_out += int((~losses.isfinite()).sum())
    state.infinite = 0 if losses.isfinite().any() else state.infinite + len(losses)


def _refuse_infinite(state: TrainingState, job: TrainingJob, left_out: int) -> None:
    """Stop a training whose loss has not been finite for ``WATCHED`` steps; say that fewer were
    left out, of which there were ``left_out`` before.
    """
    if state.left_out > left_out:
        job.say(
            f"step {state.step}: the gradients of {state.left_out - left_out} of the last steps "
            f"were not finite; their batches are left out ({state.left_out} in all)"
        )
    if state.infinite >= WATCHED:
        raise TrainingError(
            f"the loss has not been finite for {state.infinite} steps (step {state.step}); a "
            "lower learning rate in the plan may help",
            path=job.folder,
        )


def _line_is_due(state: TrainingState, schedule: Schedule, progress: float) -> bool:
    """After every epoch; after even parts of an epoch if the run has fewer than ``POINTS``; and by
    the clock, where the next step would make the part longer than that.
    """
    part = schedule.steps_per_epoch
    if schedule.epochs is not None:
        part = max(1, part // -(-POINTS // schedule.epochs))
    elif progress + progress / state.step - state.logged_at > 1 / POINTS:
        return True
    return state.step % schedule.steps_per_epoch % part == 0


def _draws_points(job: TrainingJob, state: TrainingState, progress: float) -> bool:
    """Whether validation patches draw a point of the curve here: in each part of a run, unless
    enough epochs end with a validation of whole cases.
    """
    schedule = job.plan.schedule
    epochs = schedule.epochs or 0
    enough = epochs // _validation_interval(schedule) >= POINTS
    return bool(job.validate) and not enough and _next_part(state.logged_at, progress)


def _on_patches(networks: _Networks, progress: float) -> dict[str, Any]:
    """Loss and Dice of the averaged weights on validation patches, the same at each point."""
    job, state = networks.job, networks.state
    if not state.point_batches:
        steps = POINTS_SHARE * state.step / progress * STEP_PASSES / VALIDATIONS
        state.point_batches = min(max(1, round(steps)), MOST_BATCHES)
    still = job.plan.replace(augmentation=Augmentation.none())
    drawn = [
        draw_batch(still, job.validate, job.seed + POINTS_STREAM, number)
        for number in range(state.point_batches)
    ]
    calibrate(
        networks.average, job.plan, job.train, job.seed, state.step, job.device, job.plan.batch
    )
    return scoring.on_patches(job.plan, networks.average, drawn, job.device)


def _validation_interval(schedule: Schedule) -> int:
    """Epochs from one validation to the next, of a schedule by epochs."""
    return schedule.validate_every or max(1, (schedule.epochs or 0) // VALIDATIONS)


def _validation_is_due(state: TrainingState, clock: Clock, progress: float) -> bool:
    """Every ``validate_every`` epochs, else evenly over the run.

    Under a time budget validation never exceeds its share of the time. It is skipped if it would
    last until the end of the run: the steps that anneal the learning rate are worth more, and there
    is a validation at the end.
    """
    schedule, every = clock.schedule, clock.schedule.validate_every
    if every or schedule.epochs is not None:
        due = state.step % (_validation_interval(schedule) * schedule.steps_per_epoch) == 0
    else:
        due = _next_part(state.validated_at, progress)
    if schedule.epochs is not None:
        return due
    # The expected end of a validation, from the mean duration of those before.
    ends_s = clock.elapsed_s + state.validation_s / max(1, state.validations)
    return (
        due and state.validation_s <= VALIDATION_SHARE * clock.elapsed_s and ends_s < clock.total_s
    )


def _next_part(before: float, progress: float) -> bool:
    """Whether another of ``VALIDATIONS`` equal parts of the run has ended since ``before``."""
    return int(progress * VALIDATIONS) > int(before * VALIDATIONS)


def _validate(
    job: TrainingJob, state: TrainingState, clock: Clock, average: nn.Module, line: dict[str, Any]
) -> dict[str, Any]:
    """The result of ``scoring.evaluate``; the weights are kept if they are the best so far."""
    began, progress = time.monotonic(), line["progress"]
    # Under a time budget, a validation takes two thirds of its even share of the time: it ends only
    # with a case, and none of the later ones should have to be skipped.
    limit = (
        None
        if clock.schedule.epochs is not None
        else VALIDATION_SHARE / VALIDATIONS * clock.total_s * 2 / 3
    )
    with stopping.at_once():  # it may take long, and can be repeated
        calibrate(average, job.plan, job.train, job.seed, state.step, job.device)
        found = scoring.evaluate(job.plan, average, job.validate, job.device, limit, job.ranks)
    state.validation_s += time.monotonic() - began
    state.validations += 1
    state.validated_at = progress
    # On a tie the later weights are kept.
    score = _score(job.plan.schedule, found, progress)
    if state.best is None or score >= state.best:
        state.best, state.best_step = score, state.step
        _keep_best(job, average, {"step": state.step, **line, **found})
    return found


def _score(schedule: Schedule, found: dict[str, Any], progress: float) -> float:
    """The score that selects the best weights, higher is better. Without validation cases the
    latest weights are the best; an undefined score ranks lowest.
    """
    if not found["val_cases"]:
        return progress
    # The worst score plus a little for progress: of several undefined scores the latest is best.
    score = found["val_dice_mean"] if schedule.best_by == "dice" else -found["val_loss"]
    worst = 0.0 if schedule.best_by == "dice" else -1e9
    return float(score) if np.isfinite(score) else worst + progress * 1e-3


def _keep_best(job: TrainingJob, average: nn.Module, line: dict[str, Any]) -> None:
    if job.ranks.leads:
        job.on_best(_write(average, job.folder / "best.safetensors"), line)


def _write(average: nn.Module, path: Path) -> Weights:
    """Write the averaged weights to ``path``, and return them."""
    weights = weights_of(average)
    save_weights(path, weights)
    return weights


def _keeps_weights(job: TrainingJob, step: int) -> bool:
    """Whether the plan keeps the weights of the epoch that ends at ``step``."""
    every = job.plan.schedule.keep_every
    return every is not None and step % (job.plan.schedule.steps_per_epoch * every) == 0


def _checkpoint_is_due(schedule: Schedule, progress: float, saved_at: float) -> bool:
    """At the end; else after every epoch, or by the clock at most every ``CHECKPOINT_EVERY_S``."""
    return (
        progress >= 1
        or schedule.epochs is not None
        or time.monotonic() - saved_at > CHECKPOINT_EVERY_S
    )


def _kept_file(job: TrainingJob, step: int) -> Path:
    return job.folder / f"epoch_{step // job.plan.schedule.steps_per_epoch:05d}.safetensors"


def _log(job: TrainingJob, state: TrainingState, clock: Clock, line: dict[str, Any]) -> None:
    """Write the log line of the epoch, or part of one, pass it to the listener, and reset the
    statistics.

    ``loss`` is the mean over the steps since the last line whose gradients were finite; the number
    of all others of the run is ``left_out``. ``train_dice`` (by name) and its mean
    ``train_dice_mean`` are those of the hard predictions for the augmented patches, pooled over
    these steps, each with the weights of its step. ``epoch_s`` is the training time of an epoch in
    seconds, without validation, at the speed of these steps. A line with a validation contains the
    result of ``scoring.evaluate``, one with validation patches that of ``scoring.on_patches``.
    """
    # The statistics of all steps since the last line.
    found = [loss for loss in state.losses if math.isfinite(loss)]
    mean = float(np.mean(found)) if found else float("nan")
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
        **({"batch_parts": state.parts} if state.parts > 1 else {}),
        **({"left_out": state.left_out} if state.left_out else {}),
        **line,
    }
    state.losses, state.counts, state.lines = [], [], state.lines + 1
    if job.ranks.leads:
        atomic.append_line(job.folder / "log.jsonl", json_text(without_nan(full)))
        job.listener(full)


def _truncate_log(job: TrainingJob, state: TrainingState) -> None:
    """Remove the log lines and the kept weights that are newer than the checkpoint from which the
    run resumes; lines that were lost are reported.
    """
    path, step = atomic.make_folder(job.folder) / "log.jsonl", state.step
    written = read_json_lines(path) if path.is_file() else []
    lines = [line for line in written if line["step"] <= step]
    if lost := max(0, state.lines - len(lines)):
        job.say(f"{path}: {lost} of {state.lines} lines are damaged or lost")
    state.lines = len(lines)
    if lines != written or lost:
        atomic.write_text(path, "".join(json_text(line) + "\n" for line in lines))
    # The number in the name has a fixed width, so names are ordered by epoch.
    for kept in job.folder.glob(f"epoch_{'[0-9]' * 5}.safetensors"):
        if kept.name > _kept_file(job, step).name:
            kept.unlink()

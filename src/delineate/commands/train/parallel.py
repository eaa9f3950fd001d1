"""The networks of a run (folds, views) that are trained at the same time, each by a worker of an
engine.

The process that was called leads. It alone writes the model, its card and what listeners record,
from the files that the workers leave in the run's folder, which all of them must see:

    stop.json               asks the workers to stop at their next step
    shares.json             seconds of training that each network has
    fold_K/running.json     the worker that trains it
    fold_K/kept.json        the validation of its best weights so far

A worker continues from the checkpoint in its folder: a network whose worker was killed is given to
another one, which waits until the claim of the first counts no more. A worker stops, too, if the
leader has died or was replaced. How a network is trained is not known here.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core import atomic
from ...core.bundle import load_weights
from ...core.errors import DelineateError, OutputError
from ...core.inputs import read_json_if_any, read_json_lines
from ...core.plan import Plan
from ...core.store import Store
from ...execution import stopping
from ...execution.claims import CLAIM, STALE_AFTER_S, Claim, claimed, holder_of
from ...execution.local import TRIES, Outcome
from ...extend.parts import FollowedRun
from ...extend.registers import AUGMENTATIONS, LOSSES, NETWORKS, OPTIMISERS, parts_of
from .listeners import LogLines, Recorders
from .model_file import ModelFile
from .planned import NetworkJob, PlannedRun
from .run import TrainingRun

STOP, SHARES, KEPT = "stop.json", "shares.json", "kept.json"
LOOK_S = 1.0  # between two looks of a worker at what it is asked
MISSED = 5  # looks in a row without a leader: a network drive may be away for a moment
PATIENCE_S = 2 * STALE_AFTER_S  # for the claim that a killed worker has left

REGISTERS = (NETWORKS, OPTIMISERS, LOSSES, AUGMENTATIONS)


@dataclass(frozen=True)
class Task:
    """The training of one network by a worker.

    Args:
        claim: the leader's, on the run's folder.
        plan: of the run.
        training, validating: ids of the cases.
        device: see ``inference.devices.choose_device``.
        copies: workers that share a machine.
        threads: of the leader, if the arithmetic must be the same; None for the worker's own.
        extension: see ``loop.TrainingJob``.
        share_s: seconds of training that the network has; None without a budget.
        ends_at: seconds since 1970 at which all training must have ended.
        init: the model to start from; "" for none.
        scoring_s: for scoring training cases; None sets no limit.
        parts: of the plan that the leader has registered itself: register, name, part.
    """

    claim: Claim
    job: NetworkJob
    plan: Plan
    training: tuple[str, ...]
    validating: tuple[str, ...]
    device: str
    copies: int
    threads: int | None
    deterministic: bool
    extension: int
    share_s: float | None
    ends_at: float
    init: str
    scoring_s: float | None
    parts: tuple[tuple[int, str, Any], ...] = ()

    @property
    def folder(self) -> Path:
        """The network's own."""
        return self.job.folder(self.claim.path.parent)

    @property
    def store(self) -> Store:
        """The prepared cases."""
        return Store(self.claim.path.parent / "store")

    def left_s(self, spent_s: float) -> float | None:
        """Seconds that are left for training after those of earlier workers; None without a
        budget.
        """
        if self.share_s is None:
            return None
        return max(1.0, min(self.share_s - spent_s, self.ends_at - time.time()))

    def keep(self, validation: Mapping[str, Any]) -> None:
        """Let the leader know of new best weights."""
        atomic.write_json(self.folder / KEPT, dict(validation))


@dataclass(frozen=True)
class Trained:
    """What a worker gives back: scores of some training cases, why the training could not
    continue, sentences for the user; or an error, or that it was stopped.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    diverged: str = ""
    said: tuple[str, ...] = ()
    error: DelineateError | None = None
    stopped: bool = False


def applies(run: TrainingRun, jobs: Sequence[NetworkJob]) -> bool:
    """Whether the networks of a run are trained by workers."""
    most = len(jobs) if run.workers is None and not run.work.is_local else run.workers or 1
    return len(jobs) > 1 and most > 1 and run.leader is None


def custom_parts(plan: Plan) -> tuple[tuple[int, str, Any], ...]:
    """The parts of a plan that workers may lack: register, name and part of those that are not the
    package's own.
    """
    return tuple(
        (REGISTERS.index(register), name, register[name])
        for register, name in parts_of(plan)
        if not register.is_own(name)
    )


def device_of(number: int, device: str, gpus: int, is_local: bool) -> str:
    """The device of a network: of several GPUs of this machine each has one in turn; a worker of a
    cluster sees only its own.

    >>> device_of(3, "auto", 2, True), device_of(3, "cpu", 0, True), device_of(3, "auto", 2, False)
    ('cuda:1', 'cpu', 'auto')
    """
    if not gpus or (":" in device and is_local):
        return device
    return f"cuda:{number % gpus}" if is_local else device.partition(":")[0]


# ---- the worker ----


@contextmanager
def taken(task: Task) -> Iterator[None]:
    """The block of a worker that trains a network: it holds the claim of the network, and notes a
    stop if the leader asks for it or there is none any more.

    Raises:
        OutputError: the run's folder is not seen here, or another worker trains the network.
    """
    run = task.claim.path.parent
    if not task.claim.is_held():
        raise OutputError(
            f"is not the folder of this run on the machine {platform.node()}: the model must be on "
            "a disk that all workers see under the same path",
            path=run,
        )
    for number, name, part in task.parts:
        if name not in REGISTERS[number]:
            REGISTERS[number].add(name, part)
    with (
        claimed(atomic.make_folder(task.folder) / CLAIM, PATIENCE_S),
        stopping.asked(_Asked(task.claim), LOOK_S),
    ):
        yield


class _Asked:
    """Whether a worker should stop."""

    def __init__(self, claim: Claim):
        self.claim, self.missed = claim, 0

    def __call__(self) -> bool:
        try:
            found = read_json_if_any(self.claim.path.with_name(STOP)) or {}
        except DelineateError:
            found = {}
        lives = self.claim.is_held() and holder_of(self.claim.path)
        self.missed = 0 if lives else self.missed + 1
        return self.missed >= MISSED or found.get("token") == self.claim.token


# ---- the leader ----


def share_s(run: TrainingRun, reserve_s: float, spent_s: Sequence[float]) -> float | None:
    """Seconds of training for each network, as in sequence: equal parts of the budget without what
    follows training. A run that continues keeps them.

    Args:
        reserve_s: for what follows training.
        spent_s: by each network in this budget or extension so far.
    """
    if run.request.budget_s is None:
        return None
    extensions = len(run.clock.extensions)
    kept = read_json_if_any(run.folder / SHARES) or {}
    if kept.get("extensions") == extensions:
        return float(kept["seconds"])
    total_s = run.clock.remaining_s() - reserve_s + sum(spent_s)
    found = max(1.0, total_s / len(spent_s))
    run.save_json(SHARES, {"extensions": extensions, "seconds": round(found, 1)})
    return found


class Follower:
    """What a network's worker leaves in its folder, as the leader passes it on.

    Args:
        planned: the run.
        task: of the network.
        model: gets the best weights so far.
    """

    def __init__(self, planned: PlannedRun, task: Task, model: ModelFile):
        run, job = planned.run, task.job
        self.run, self.task, self.model = run, task, model
        self.words = job.words
        followed = FollowedRun(task.folder, job.name, run.model, job.plan(planned.plan))
        self._recorders = Recorders(run.listeners, followed, run.say)
        self._spoken = LogLines(self.words, run.say, run.progress)
        self._log, self._kept = task.folder / "log.jsonl", task.folder / KEPT
        self._lines = len(read_json_lines(self._log)) if self._log.is_file() else 0
        self._seen = {path: _version(path) for path in (self._log, self._kept)}
        self._holder = ""

    def look(self) -> None:
        """Pass on what is new."""
        holder = holder_of(self.task.folder / CLAIM)
        if holder and holder != self._holder:
            again = ", which continues from the last checkpoint" if self._holder else ""
            self.run.say(f"{self.words}: trained by {holder}{again}")
            self._holder = holder
        if self._is_new(self._kept):
            self.keep(read_json_if_any(self._kept) or {})
        if self._is_new(self._log):
            lines = read_json_lines(self._log)
            # Another worker removes the lines after its checkpoint.
            self._lines = min(self._lines, len(lines))
            for line in lines[self._lines :]:
                self._spoken.add(line)
                self._recorders.add(line)
            self._lines = len(lines)
            self.run.clock.save()

    def keep(self, validation: Mapping[str, Any]) -> None:
        """Write the model with the best weights so far."""
        best = self.task.folder / "best.safetensors"
        self.model.add(self.task.job, load_weights(best, self.run.say))
        if validation:
            self.model.note("validation", self.task.job.name, dict(validation))
        self.model.save()

    def close(self) -> None:
        """Pass on what is left, and end."""
        self.look()
        self._recorders.close()

    def _is_new(self, path: Path) -> bool:
        before, self._seen[path] = self._seen[path], _version(path)
        return self._seen[path] not in (before, None)


def _version(path: Path) -> tuple[int, int] | None:
    """What changes with a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def train_all(
    planned: PlannedRun,
    model: ModelFile,
    tasks: Sequence[Task],
    train: Callable[[Task], Trained],
    finished: Callable[[Task, Trained, float], object],
) -> None:
    """Train all networks by workers.

    Args:
        train: the work of a worker, importable by name.
        finished: called here when one has ended, with the seconds that it took.

    Raises:
        StopSignal: a signal arrived; all have stopped and saved everything.
        DelineateError: that of the first network that failed; the others have stopped then.
    """
    run = planned.run
    lead = _Lead(run, [Follower(planned, task, model) for task in tasks], finished)
    lead.stop.unlink(missing_ok=True)
    try:
        with stopping.at_steps():
            run.work.without_limits().run(
                train,
                tasks,
                names=[task.job.name for task in tasks],
                workers=run.workers,
                whole_node=True,
                each=lead.end,
                tries=TRIES,
                meanwhile=lead.look,
            )
    finally:
        lead.stop.unlink(missing_ok=True)
        for follower in lead.followers:
            follower.close()
    if lead.errors:
        raise lead.errors[0]


@dataclass
class _Lead:
    """What the leader does while its workers train."""

    run: TrainingRun
    followers: Sequence[Follower]
    finished: Callable[[Task, Trained, float], object]
    errors: list[DelineateError] = field(default_factory=list)

    @property
    def stop(self) -> Path:
        return self.run.folder / STOP

    def look(self) -> None:
        """Pass on what is new, and a stop to the workers."""
        self.run.confirm_claim()
        for follower in self.followers:
            follower.look()
        if stopping.requested():
            self._ask_to_stop()

    def end(self, outcome: Outcome[Trained]) -> None:
        """Receive what a worker gives back."""
        self.run.confirm_claim()
        found = outcome.value
        follower = next(one for one in self.followers if one.task.job.name == outcome.name)
        follower.look()
        for sentence in () if found is None else found.said:
            self.run.say(f"{follower.words}: {sentence}")
        if error := outcome.error if found is None else found.error:
            self.errors.append(error)
            self.run.say(f"{follower.words} failed; the others stop at their next step")
            self._ask_to_stop()
        elif found is not None and not found.stopped:
            self.finished(follower.task, found, outcome.seconds)

    def _ask_to_stop(self) -> None:
        if not self.stop.is_file():
            atomic.write_json(self.stop, {"token": self.followers[0].task.claim.token})

"""One training in several processes: ``--devices`` on each of ``--nodes``.

The first process (rank 0) is the training: it alone checks, plans, prepares, evaluates and writes,
and holds the claim on the run. The others wait for its orders, and join it in the training of each
network (``training.ranks``). They read the prepared cases and the checkpoint from the run's folder,
which all machines must see.

Processes that torchrun or Slurm has started are used; else ``execution.launch`` starts those of
this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...core.bundle import Weights
from ...core.errors import RankError, StoreError, TrainingError, UsageError
from ...core.plan import Plan
from ...core.progress import Say
from ...inference import devices as found_devices
from ..options import TrainOptions


class Ranks(Protocol):
    """The processes, of which this is one (``training.ranks``)."""

    @property
    def size(self) -> int:
        """How many there are."""

    def order(self, what: Order | None) -> Order | None:
        """What rank 0 wants all to do next."""


def refuse_unfit(options: TrainOptions) -> None:
    """Check the numbers of devices and nodes.

    Raises:
        UsageError: they are not possible here.
    """
    devices, nodes = options.devices, options.nodes
    for name, number in (("devices", devices), ("nodes", nodes)):
        if number < 1:
            raise UsageError(f"--{name} must be at least 1, found {number}")
    started = int(os.environ.get("WORLD_SIZE", 1)) if _by_torchrun() else devices * nodes
    if started != devices * nodes:
        raise UsageError(
            f"torchrun has started {started} processes, but --devices {devices} and --nodes {nodes}"
            f" make {devices * nodes}"
        )
    _refuse_unfit_shard(options)
    if devices * nodes == 1:
        return
    if (options.workers or 1) > 1:
        raise UsageError(
            "--workers trains networks apart from each other, --devices and --nodes each network "
            "together: give one of them"
        )
    if ":" in options.device or options.device == "mps":
        raise UsageError(
            f"--device {options.device} is one device; with --devices or --nodes it is auto, cpu "
            "or cuda (CUDA_VISIBLE_DEVICES chooses among GPUs)"
        )
    if found_devices.choose_device(options.device).type == "cuda":
        import torch

        if devices > (count := torch.cuda.device_count()):
            raise UsageError(f"--devices {devices}, but this machine has {count} CUDA GPU(s)")
    if nodes > 1 and not started_outside(options):
        lacking = [
            name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)
        ]
        if lacking:
            raise UsageError(
                f"--nodes {nodes} needs torchrun, srun, or the same command on each node with "
                f"NODE_RANK, MASTER_ADDR and MASTER_PORT; not set here: {', '.join(lacking)}"
            )


def _refuse_unfit_shard(options: TrainOptions) -> None:
    """A shard prepares its cases and trains nothing."""
    if options.work.shard.is_whole:
        return
    if options.devices * options.nodes > 1:
        raise UsageError("--shard prepares cases; --devices and --nodes are for the training after")
    if options.overwrite or options.extend_s is not None:
        raise UsageError(
            "--shard works next to others in one run: --overwrite and --extend are for a call "
            "without it"
        )


def started_outside(options: TrainOptions) -> bool:
    """Whether torchrun or Slurm has started all processes, of which this is one."""
    tasks = os.environ.get("SLURM_NTASKS"), os.environ.get("SLURM_PROCID")
    count = str(options.devices * options.nodes)
    return _by_torchrun() or (tasks[0] == count and tasks[1] is not None)


def restarts() -> tuple[int, float]:
    """How often torchrun has started all processes again, and when the training was asked for
    (seconds since 1970).
    """
    import psutil

    count = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) if _by_torchrun() else 0
    return count, psutil.Process(os.getppid()).create_time() if count else time.time()


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def node() -> int:
    """The number of this machine, as its user states it."""
    return int(os.environ.get("NODE_RANK", 0))


@dataclass(frozen=True)
class Order:
    """The training of one network, as the other ranks are asked to join it; see
    ``loop.TrainingJob``.
    """

    plan: Plan
    whole: Plan
    view: str
    store: Path
    training: tuple[str, ...]
    validating: tuple[str, ...]
    folder: Path
    seed: int
    left_s: float | None
    init: Weights | None
    threads: int
    extension: int
    deterministic: bool
    copies: int


class Leader:
    """Rank 0 of a training.

    Args:
        ranks: of which this process is the first.
        copies: processes on this machine, each of which may hold the cases in memory.
    """

    def __init__(self, ranks: Ranks, copies: int):
        self.ranks: Any = ranks  # those of the loop, which this module does not know
        self.copies, self._waiting = copies, True

    def fit(self, order: Order, fit: Callable[[], Weights], say: Say) -> Weights:
        """Train a network with the other ranks, by ``fit``."""
        size, batch = self.ranks.size, order.plan.batch
        if batch < size:
            say(
                f"the batch of {batch} is smaller than the {size} ranks, of which {size - batch} "
                f"are idle: fewer --devices, or --set batch={size}, use all"
            )
        self._waiting = False
        self.ranks.order(order)
        try:
            weights = fit()
        except RankError:
            raise
        except (StoreError, TrainingError):  # raised by all ranks
            self._waiting = True
            raise
        self._waiting = True
        return weights

    def dismiss(self) -> None:
        """Let the others end, if they wait for an order."""
        if self._waiting:
            with suppress(RankError):  # what ended the training is raised, not this
                self.ranks.order(None)


def follow(ranks: Ranks, join: Callable[[Order], object]) -> None:
    """A rank that does not lead: ``join`` the training of each network.

    Raises:
        RankError: another rank was lost, or this one cannot do its share.
        StopSignal: a signal that all have noted.
    """
    while (order := ranks.order(None)) is not None:
        try:
            join(order)
        except RankError:
            raise
        except (StoreError, TrainingError):
            continue  # all have raised it; rank 0 decides what follows

"""The ranks of a training: processes that each compute their share of every batch.

All ranks have the same weights and make the same steps. A batch is the same for any number of
ranks, and the losses of its shares add up to its loss, so that the number changes only the order
of sums. Rank 0 leads: it alone writes, and what depends on a clock or a signal is decided by it
(``agree``). lightning-fabric finds the processes (torchrun, Slurm, or those that ``execution.
launch`` starts) and adds the gradients. ``ALONE`` is the training in one process: it communicates
nothing.

Small decisions go through the CPUs (gloo), so that no rank waits for its GPU. A rank that is lost
raises ``LostRankError`` in the others: at once if its process ended, else after ``TIMEOUT``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ..core.errors import DelineateError, LostRankError, RankError
from ..execution import stopping
from ..inference import engine as infer
from ..networks.blocks import BatchNorm
from .losses import WHOLE, Share

# Its messages about the device are in the run's card.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # for another rank within a step or a validation
WAITING = timedelta(days=30)  # for rank 0 before and after the training of a network


@dataclass(frozen=True)
class Ranks:
    """The ranks of which this process is one.

    Args:
        rank, size: its number from 0, and that of all.
        fabric: of these ranks; None for one alone.
        decisions, orders: groups of all ranks for small objects; the second one waits long.
    """

    rank: int = 0
    size: int = 1
    fabric: Fabric | None = None
    decisions: Any = None
    orders: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process writes and decides."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """That of this rank."""
        return torch.device("cpu") if self.fabric is None else self.fabric.device

    def fabric_for(self, device: torch.device) -> Fabric:
        """The fabric that computes on ``device``."""
        if self.fabric is not None:
            return self.fabric
        # Alone also within a job of Slurm that has several tasks, which lightning-fabric refuses.
        return Fabric(
            accelerator=device.type,
            devices=1,
            precision=_precision(device),
            plugins=LightningEnvironment(),
        )

    # ---- batches ----

    def part(self, samples: int) -> slice:
        """The samples of a batch that this rank draws and computes: parts of consecutive samples,
        whose sizes differ by one at most. With fewer samples than ranks, some have none; they
        compute the first sample, for nothing.

        >>> [Ranks(rank, 3).part(5) for rank in range(3)]
        [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
        """
        first, last = (samples * (self.rank + n) // self.size for n in (0, 1))
        return slice(first, last) if last > first else slice(0, 1)

    def share(self, samples: int) -> Share:
        """This rank's share of a batch."""
        if self.size == 1:
            return WHOLE
        first, last = (samples * (self.rank + n) // self.size for n in (0, 1))
        return Share(last - first, samples, summed_by(_sum))

    # ---- sums ----

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, on its device."""
        if self.size == 1:
            return x
        with _lost(self):
            return _sum(x)

    def of_all_samples(self, own: Sequence[Tensor], samples: int) -> list[Tensor]:
        """A tensor of every sample of a batch, in their order, from those of the samples of this
        rank's ``part``; all have one shape.
        """
        if self.size == 1:
            return list(own)
        counts = [Ranks(rank, self.size).share(samples).samples for rank in range(self.size)]
        mine = torch.stack(list(own))
        if missing := max(counts) - len(mine):
            mine = torch.cat([mine, mine.new_zeros((missing, *mine.shape[1:]))])
        found = [torch.empty_like(mine) for _ in counts]
        with _lost(self):
            dist.all_gather(found, mine)
        return [one for rows, count in zip(found, counts, strict=True) for one in rows[:count]]

    def share_norms(self, module: nn.Module, samples: int) -> None:
        """Let batch norms use the statistics of whole batches."""
        for layer in module.modules():
            if self.size > 1 and isinstance(layer, BatchNorm):
                layer.share = self.share(samples)

    # ---- decisions ----

    def agree(self, value: T) -> T:
        """What rank 0 has, in all ranks."""
        return value if self.size == 1 else self._given(value, 0, self.decisions)

    def stop(self) -> int | None:
        """The number of the signal that any rank has noted; None if none has."""
        number = stopping.requested()
        return number if self.size == 1 else self._largest(number or 0) or None

    def next_of(self, drawn: Iterator[T]) -> T:
        """The next batch; an error of one rank (a damaged case) is raised by all."""
        with self.agreeing():
            return next(drawn)

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """An error in the block of one rank is raised by all at its end; in the block they work
        apart.
        """
        error: DelineateError | None = None
        try:
            yield
        except DelineateError as found:
            if self.size == 1:
                raise
            error = found
        if self.size > 1 and (failed := self._largest(0 if error is None else self.rank + 1)):
            raise self._given(error, failed - 1, self.decisions)  # type: ignore[misc]

    def order(self, what: T) -> T:
        """What rank 0 wants all to do next; the others wait for it."""
        return self._given(what, 0, self.orders)

    def _largest(self, number: int) -> int:
        found = torch.tensor(number)
        with _lost(self):
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.decisions)
        return int(found)

    def _given(self, value: T, by: int, group: Any) -> T:
        kept = [value]
        with _lost(self):
            dist.broadcast_object_list(kept, by, group=group, device=torch.device("cpu"))
        return kept[0]

    # ---- steps ----

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A block that computes with the others; the loss of one becomes a ``LostRankError``."""
        if self.size == 1:
            yield
            return
        with _lost(self):
            yield

    def divided(self, matrices: Sequence[Tensor], work: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """``work`` on every tensor, each done by one rank; it keeps shapes."""
        if self.size == 1:
            return [work(one) for one in matrices]
        # The largest first, each to the rank that has the least to do.
        load, mine = [0] * self.size, set[int]()
        for index in sorted(range(len(matrices)), key=lambda n: -matrices[n].numel()):
            rank = load.index(min(load))
            load[rank] += matrices[index].numel()
            if rank == self.rank:
                mine.add(index)
        # The others contribute zeros, so that the sum is exact.
        done = [
            (work(one) if index in mine else torch.zeros_like(one)).flatten()
            for index, one in enumerate(matrices)
        ]
        parts = torch.split(self.sum(torch.cat(done)), [one.numel() for one in matrices])
        return [part.view(one.shape) for part, one in zip(parts, matrices, strict=True)]


ALONE = Ranks()


@contextlib.contextmanager
def joined(device: torch.device, devices: int, nodes: int, own: bool) -> Iterator[Ranks]:
    """The ranks of this process, which is one of ``devices`` on each of ``nodes``.

    Args:
        own: the processes were started by ``execution.launch``; else by what lightning-fabric
            recognises.

    Raises:
        LostRankError: the others cannot be reached.
    """
    # Of kernels of one voxel, whose memory order means nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    strategy = DDPStrategy(
        cluster_environment=LightningEnvironment() if own else None, timeout=TIMEOUT
    )
    fabric = Fabric(
        accelerator=device.type,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=_precision(device),
    )
    try:
        _join_apart(device)
        fabric.launch()
        decisions = dist.new_group(backend="gloo", timeout=TIMEOUT)
        orders = dist.new_group(backend="gloo", timeout=WAITING)
    except RuntimeError as error:
        raise LostRankError(f"the ranks cannot reach each other ({_line(error)})") from error
    try:
        yield Ranks(fabric.global_rank, fabric.world_size, fabric, decisions, orders)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _join_apart(device: torch.device) -> None:
    """Join the ranks apart from those that torchrun had started before on this machine: its store
    has their addresses still, which torch does not set apart, so that ranks may wait for the dead.
    (The agents of several machines count starts differently; there the store is used as it is.)
    """
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if count == "0" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"start {count}", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )


def _precision(device: torch.device) -> Any:
    return {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}[
        infer.fast_dtype(device)
    ]


@contextlib.contextmanager
def _lost(ranks: Ranks) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if "expected to have finished reduction" in text:
            raise RankError(
                "the network has weights that its class scores do not depend on, which several "
                "devices cannot train; remove them, or use one device"
            ) from error
        if isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text:
            raise LostRankError(
                f"rank {ranks.rank} of {ranks.size} lost the connection to another ({_line(error)})"
            ) from error
        raise


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _sum(x: Tensor) -> Tensor:
    found = x.detach().clone()
    dist.all_reduce(found)
    return found


class _Sum(torch.autograd.Function):
    """The sum over the parts of a batch. The loss is a sum over them too, so that the gradients of
    all are added.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, add: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.add = add
        return add(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.add(grad), None


def summed_by(add: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The sum over the parts of a batch that ``add`` computes, differentiable."""

    def summed(x: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(x, add)  # type: ignore[no-untyped-call]
        return found

    return summed

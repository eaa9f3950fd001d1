"""The gradients of a batch, every sample of which is computed by itself.

A sum in another order is another number, and Muon enlarges the difference. Here no operation sees
more than one sample: each is a share of the batch (``losses.Share``), and what samples have in
common (the Dice of the batch, the statistics of batch norms, the gradients) is added up in the
order of the samples. So the result is the same to the bit on any number of ranks. Each sample has
as many threads as a batch's part of those that one process would use (``threads_of``), since
operations divide sums by threads too.

Every sample has a thread of Python. At a sum all samples of this process wait for each other, and
the last to arrive adds them up with those of the other ranks. On a GPU, and in networks that draw
random numbers, they compute one after the other, each with its own random stream.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..execution.launch import THREADS_ALONE
from ..networks.blocks import BatchNorm
from .losses import Share
from .ranks import Ranks, summed_by

# (number of the sample among those of this rank, its share) -> loss (), and any figures.
Cost = Callable[[int, Share], tuple[Tensor, Any]]


def threads_of(batch: int) -> int:
    """The threads of one sample on a CPU, the same for any number of ranks: its part of those of
    this process, or of one alone if this is one of several ranks.
    """
    stated = os.environ.get(THREADS_ALONE)
    return max(1, (int(stated) if stated else torch.get_num_threads()) // batch)


class BySample:
    """Computes gradients of ``module`` sample by sample.

    Args:
        ranks: those that share each batch of ``batch`` samples.
        device: of the module.

    Close it to end its threads.
    """

    def __init__(self, module: nn.Module, ranks: Ranks, batch: int, device: torch.device):
        self.module, self.ranks, self.batch, self.device = module, ranks, batch, device
        part = ranks.part(batch)
        self.own, self.counts = part.stop - part.start, ranks.share(batch).counts > 0
        self.norms = [one for one in module.modules() if isinstance(one, BatchNorm)]
        threads = threads_of(batch)
        abreast = torch.get_num_threads() // threads
        if device.type != "cpu" or any(_may_draw(one) for one in module.modules()):
            abreast = 1
        self._one_by_one = abreast <= 1
        self._turns = threading.Semaphore(max(1, abreast))
        self._pool = ThreadPoolExecutor(
            self.own, "samples", initializer=self._begin, initargs=(threads,)
        )
        self._here = threading.local()  # the number of the sample that a thread computes
        self._waiting: list[Any] = []
        self._barrier, self._total = threading.Barrier(1), torch.zeros(())

    def gradients(self, cost: Cost, seed: Sequence[int]) -> list[Any]:
        """Set the gradients of the parameters to those of the batch.

        Args:
            cost: the loss of one sample's share; the losses of all samples add up.
            seed: of what the network draws in this step.

        Returns:
            The figures of this rank's samples.
        """
        share = Share(int(self.counts), self.batch, summed_by(self._sum), self._is_first)
        self._waiting = [None] * self.own
        self._barrier = threading.Barrier(self.own, self._add)
        weights = [one for one in self.module.parameters() if one.requires_grad]
        first = self.ranks.part(self.batch).start
        with self._shared_norms(share):
            found = [
                self._pool.submit(self._sample, number, weights, cost, share, (*seed, first))
                for number in range(self.own)
            ]
            errors = [error for one in found if (error := one.exception()) is not None]
        # The others were only interrupted by it.
        for error in sorted(errors, key=lambda one: isinstance(one, threading.BrokenBarrierError)):
            raise error
        grads, figures = zip(*(one.result() for one in found), strict=True)
        self._set(weights, grads)
        return list(figures)

    def in_order(self, own: Sequence[Tensor]) -> Tensor:
        """The sum of a tensor over the samples of the batch, from this rank's; equal in all."""
        first, *others = self.ranks.of_all_samples(own, self.batch)
        total = first.clone()
        for one in others:
            total += one
        return total

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    # ---- in the thread of a sample ----

    def _begin(self, threads: int) -> None:
        if self.device.type == "cpu":
            torch.set_num_threads(threads)
        elif self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def _sample(
        self,
        number: int,
        weights: Sequence[Tensor],
        cost: Cost,
        share: Share,
        seed: tuple[int, ...],
    ) -> tuple[tuple[Tensor | None, ...], Any]:
        self._here.number = number
        try:
            # A backward pass in this thread, on a GPU too: one that waits must not stop the others.
            with self._turns, torch.autograd.set_multithreading_enabled(False):
                if self._one_by_one:
                    stream = np.random.default_rng([*seed[:-1], seed[-1] + number])
                    torch.manual_seed(int(stream.integers(2**31)))
                loss, figures = cost(number, share)
                return torch.autograd.grad(loss, weights, allow_unused=True), figures
        except BaseException:
            self._barrier.abort()
            raise

    def _sum(self, x: Tensor) -> Tensor:
        """The sum over the samples of the batch."""
        self._waiting[self._here.number] = x.detach()
        with self._random_kept() if self._one_by_one else nullcontext():
            self._turns.release()
            try:
                self._barrier.wait()
            finally:
                self._turns.acquire()
        return self._total.clone()

    def _add(self) -> None:
        self._total = self.in_order(self._waiting)

    def _is_first(self) -> bool:
        return bool(self._here.number == 0)

    @contextmanager
    def _random_kept(self) -> Iterator[None]:
        cuda = self.device.type == "cuda"
        kept = torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if cuda else None
        yield
        torch.set_rng_state(kept[0])
        if kept[1] is not None:
            torch.cuda.set_rng_state(kept[1], self.device)

    @contextmanager
    def _shared_norms(self, share: Share) -> Iterator[None]:
        before = [one.share for one in self.norms]
        for one in self.norms:
            one.share = share
        try:
            yield
        finally:
            for one, kept in zip(self.norms, before, strict=True):
                one.share = kept

    def _set(self, weights: Sequence[Tensor], grads: Sequence[Sequence[Tensor | None]]) -> None:
        """Add up the gradients, which are those of every sample."""
        moved = [n for n, one in enumerate(grads[0]) if one is not None]
        rows = [torch.cat([one.flatten() for one in sample if one is not None]) for sample in grads]
        total = self.in_order(rows)
        for one in weights:
            one.grad = None
        parts = torch.split(total, [weights[n].numel() for n in moved])
        for n, part in zip(moved, parts, strict=True):
            weights[n].grad = torch.empty_like(weights[n]).copy_(part.view(weights[n].shape))


def _may_draw(module: nn.Module) -> bool:
    """Whether the module may draw random numbers: a dropout, or one from outside."""
    own = type(module).__module__.split(".")[0] in ("torch", "delineate")
    return not own or isinstance(module, nn.modules.dropout._DropoutNd)

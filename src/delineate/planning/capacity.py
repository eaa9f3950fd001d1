"""What a machine can train: its memory, and the measured time of a training step.

A candidate is a ``NetworkChoice``: network, patch and batch. The rules and the recipes list their
candidates from large to small; ``largest_that_fits`` picks one. Patch axes are those of the
preprocessed grid; memory is in bytes, time in seconds. The module knows neither cohorts nor plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import PlanError
from ..core.machine import cores, memory_bytes
from ..core.plan import Network

Triple = tuple[int, int, int]
NetworkChoice = tuple[Network, Triple, int]  # network, patch, batch
# Of a training under a time budget. Curves have a point and checkpoints are chosen at the end of an
# epoch: with 30, ten are left if the machine is three times slower than when its steps were timed.
LEAST_EPOCHS = 30


@dataclass(frozen=True)
class Machine:
    """The hardware available for training."""

    device: str = "cpu"
    cores: int = 1
    ram_bytes: int = 8 << 30
    gpu_bytes: int = 0
    matrix_units: bool = True  # half-precision matrix hardware: a GPU, AMX or AVX512-BF16

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """The machine that runs this process."""
        import torch

        from ..inference.devices import choose_device
        from ..inference.engine import fast_dtype

        chosen = choose_device(device)
        gpu = torch.cuda.get_device_properties(chosen).total_memory if chosen.type == "cuda" else 0
        return cls(
            chosen.type,
            cores(),
            memory_bytes(),
            gpu,
            fast_dtype(chosen) != torch.float32,
        )

    def __str__(self) -> str:
        gpu = f", GPU with {self.gpu_bytes / 2**30:.0f} GiB" if self.gpu_bytes else ""
        return (
            f"{self.cores} core{'' if self.cores == 1 else 's'}"
            f"{'' if self.matrix_units else ' without AMX or AVX512-BF16'}, "
            f"{self.ram_bytes / 2**30:.0f} GiB RAM{gpu}"
        )


def largest_that_fits(
    choices: Sequence[NetworkChoice],
    budget_s: float | None,
    machine: Machine,
    probe: Callable[[Network, Triple, int], float],
    wanted: float,
) -> tuple[NetworkChoice, float, str]:
    """The first of ``choices`` (network, patch, batch; from large to small) that fits the memory
    and reaches enough training steps within the budget; the last one if none does.

    Args:
        probe: (network, patch, batch) -> seconds of one training step.
        wanted: number of steps that is enough; without a budget it has no effect.

    Returns:
        The choice, its measured seconds per step, and a text that lists what was tried ("" without
        a budget).

    Raises:
        PlanError: not even the last choice fits the memory.
    """
    choices = fitting_memory(choices, machine)
    if budget_s is None:
        return choices[0], probe(*choices[0]), ""
    tried = []
    # The smallest candidate is cheap to measure. Its time shows which others are worth measuring.
    least_s = probe(*choices[-1])
    chosen, step_s = choices[-1], least_s
    for choice in choices:
        # Skip a candidate without measuring it if even an optimistic estimate is far too slow.
        guess_s = least_s * _work(*choice) / _work(*choices[-1])
        if budget_s / guess_s < 0.8 * wanted and choice != choices[-1]:
            continue
        # The first candidate with enough steps is the largest one.
        chosen, step_s = choice, least_s if choice == choices[-1] else probe(*choice)
        network, patch, batch_size = choice
        tried.append(
            f"{network.widths[0]} channels, patch {'x'.join(map(str, patch))}, batch "
            f"{batch_size}: {step_s:.2f} s per step"
        )
        if budget_s / step_s >= wanted:
            break
    report = f"; tried: {'; '.join(tried)}; required: {wanted:.0f} steps in {budget_s:.0f} s"
    return chosen, step_s, report


def fitting_memory(choices: Sequence[NetworkChoice], machine: Machine) -> list[NetworkChoice]:
    """The choices whose training fits the memory.

    Raises:
        PlanError: none does.
    """
    fitting = [choice for choice in choices if _fits_memory(*choice, machine)]
    if not fitting:
        raise PlanError(
            f"not even the smallest network fits the memory of this machine ({machine})"
        )
    return fitting


def steps_wanted(budget_s: float | None, fewest: float) -> float:
    """Number of steps that is enough. It grows with the budget, so that a longer training gets both
    more steps and a larger network.
    """
    return fewest + 0.6 * (budget_s or 0.0)


def _work(network: Network, patch: Triple, batch_size: int) -> float:
    """Relative work of a step: voxels times channels. It underestimates networks with many
    channels, so that no candidate that might fit is ruled out unmeasured.
    """
    return batch_size * float(np.prod(patch)) * network.widths[0]


def _fits_memory(network: Network, patch: Triple, batch_size: int, machine: Machine) -> bool:
    """Whether a training step fits. The rest of the memory is for weights, data and other
    processes.
    """
    need = training_bytes(network, patch, batch_size)
    return need < 0.6 * (machine.gpu_bytes or machine.ram_bytes)


def training_bytes(network: Network, patch: Triple, batch_size: int) -> float:
    """Memory of a training step, about: 24 tensors with the base channels at full resolution, 2
    bytes per value, and six copies of the class scores in float32.
    """
    voxels = batch_size * float(np.prod(patch))
    return voxels * (24 * network.widths[0] * 2 + 6 * 4 * network.classes)


def measure_step(network: Network, patch: Triple, batch_size: int, device: str = "cpu") -> float:
    """Seconds of one training step (forward, backward, update) on ``device``: the minimum of three
    after a warm-up step, plus 10 % for reading and augmentation.
    """
    import torch

    from ..inference.devices import choose_device
    from ..inference.engine import fast_dtype
    from ..networks.build import build

    chosen = choose_device(device)
    module = build(network, seed=0).to(chosen).train()
    optimiser = torch.optim.AdamW(module.parameters())
    space = patch[: network.dims]
    x = torch.randn(batch_size, network.channels, *space, device=chosen)
    dtype, seconds = fast_dtype(chosen), []
    for _ in range(4):
        began = time.perf_counter()
        with torch.autocast(chosen.type, dtype, enabled=dtype != torch.float32):
            out = module(x)
        # A stand-in for the loss with about the same cost.
        logs = (out[0] if isinstance(out, list) else out).float().movedim(1, -1).log_softmax(-1)
        (logs.exp().mean() - logs.mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
        if chosen.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - began)
        # A step this slow is measured only once.
        if seconds[0] > 20:
            break
    return float(min(seconds[1:] or seconds)) * 1.1

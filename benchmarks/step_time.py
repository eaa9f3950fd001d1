"""Time of one training step (forward, backward, update) of nnU-Net's plain 3-D networks: torch as
nnU-Net runs it on this machine, compared with ours.

    python benchmarks/step_time.py [--runs 3]

nnU-Net's step uses float32 in contiguous memory, torch's instance norm and SGD. Ours uses half
precision if the processor supports it, channels-last memory, our instance norm and AdamW.
Convolutions, patch and batch are the same. Both run one after the other in one process, and the
fastest of several steps counts.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from delineate.networks import blocks
from delineate.networks.build import build
from delineate.planning.capacity import measure_step
from forward import nnunet_3d
from measure import keep

CASES = (((40, 56, 40), 2, (32, 64, 128, 256)), ((96, 96, 96), 2, (32, 64, 128, 256, 320)))


class PlainNorm(nn.InstanceNorm3d):
    """Torch's own instance norm, with the signature of ours."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=True)


def as_nnunet_does(
    widths: tuple[int, ...], patch: tuple[int, int, int], batch: int, runs: int
) -> float:
    """Seconds of the fastest of ``runs`` steps, after one warm-up."""
    own = blocks.InstanceNorm
    blocks.InstanceNorm = PlainNorm  # type: ignore[assignment, misc]
    try:
        module = (
            build(nnunet_3d(widths=widths), 0).to(memory_format=torch.contiguous_format).train()
        )
    finally:
        blocks.InstanceNorm = own  # type: ignore[misc]
    optimiser = torch.optim.SGD(module.parameters(), 0.01, momentum=0.99, nesterov=True)
    x, y = torch.randn(batch, 1, *patch), torch.zeros(batch, *patch, dtype=torch.int64)
    taken = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        outputs: list[Tensor] = module(x)
        logs = outputs[0].log_softmax(1)
        loss = functional.nll_loss(logs, y) + logs.exp().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    steps = []
    for patch, batch, widths in CASES:
        peer = as_nnunet_does(widths, patch, batch, runs)
        # ``measure_step`` adds 10 % for reading the data.
        ours = measure_step(nnunet_3d(widths=widths), patch, batch, "cpu") / 1.1
        steps.append(
            {
                "patch": "x".join(map(str, patch)),
                "batch": batch,
                "ours_s": round(ours, 3),
                "peer_s": round(peer, 3),
                "ratio": round(peer / ours, 2),
            }
        )
    keep("step_time", {"steps": steps})


if __name__ == "__main__":
    main()

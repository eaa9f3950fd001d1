"""Time of the usual training loss (Dice and cross-entropy), forward and backward, compared with
nnU-Net's and MONAI's, and agreement of ours with its textbook form.

    python benchmarks/loss_speed.py [--peer FOLDER] [--runs 5]

All losses receive the same logits and truth; the peers run in a process of their own environment.
For ours the logits are in channels-last memory, as a channels-last network leaves them; for the
peers they are in contiguous memory, which is fastest for them. Ours and theirs differ in details
(smoothing, the cost of an absent class). The agreement is therefore that of ours with its textbook
form, computed term by term with autograd.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from delineate.core.plan import Loss
from delineate.training import losses
from measure import absent, child, in_turns, keep

CASES = ((3, 2, (40, 56, 40)), (29, 2, (48, 48, 48)), (104, 1, (64, 64, 64)), (2, 6, (256, 256)))

PEERS = """
import importlib.util, json, sys, time, torch

runs, (classes, batch, *size) = int(sys.argv[1]), (int(n) for n in sys.argv[2].split(","))
generator = torch.Generator().manual_seed(0)
z = torch.randn(batch, classes, *size, generator=generator).requires_grad_()
y = torch.randint(0, classes, (batch, 1, *size), generator=generator)


def seconds(loss):
    def one():
        z.grad = None
        loss(z, y).backward()

    one()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        one()
        taken.append(time.perf_counter() - began)
    return {"seconds": statistics.median(taken), "each_s": [round(one, 5) for one in taken]}


found = {}
if importlib.util.find_spec("nnunetv2"):
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    found["nnU-Net"] = seconds(
        DC_and_CE_loss(
            {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            dice_class=MemoryEfficientSoftDiceLoss,
        )
    )
if importlib.util.find_spec("monai"):
    from monai.losses import DiceCELoss

    found["MONAI"] = seconds(
        DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    )
print(json.dumps(found))
"""


def ours(z: Tensor, y: Tensor) -> Tensor:
    """The loss of training, with its own gradient."""
    return losses.deeply_supervised(z, y, Loss())


def textbook(z: Tensor, y: Tensor) -> Tensor:
    """The same loss as the sum of its terms, through autograd."""
    return losses.soft_dice(z.softmax(1), y) + losses.cross_entropy(z, y)


def measured(classes: int, batch: int, size: tuple[int, ...], runs: int) -> dict[str, Any]:
    """Seconds of both forms, and the largest difference of their gradients (relative)."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(batch, classes, *size, generator=generator)
    y = torch.randint(0, classes, (batch, *size), generator=generator)
    z = scores.to(
        memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d
    ).requires_grad_()

    def gradient(loss: Any) -> Tensor:
        z.grad = None
        loss(z, y).backward()
        assert z.grad is not None
        return z.grad

    found, expected = gradient(ours), gradient(textbook)
    return {
        **in_turns(
            {"delineate": lambda: gradient(ours), "textbook": lambda: gradient(textbook)}, runs
        ),
        "largest_difference": float((found - expected).abs().max() / expected.abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2 and monai")
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    rows = []
    for classes, batch, size in CASES:
        row = {
            "scores": f"{batch}x{classes}x" + "x".join(map(str, size)),
            **measured(classes, batch, size, a.runs),
        }
        if a.peer is not None:
            printed = child(
                PEERS,
                str(a.runs),
                ",".join(map(str, (classes, batch, *size))),
                python=a.peer / "bin" / "python",
            )
            row |= {name: printed[name] for name in ("nnU-Net", "MONAI") if name in printed}
        rows.append(row)
        print(rows[-1], file=sys.stderr, flush=True)
    missing = absent({"nnU-Net": "nnunetv2", "MONAI": "monai"}, a.peer)
    keep("loss_speed", {"runs": a.runs, "absent": missing, "losses": rows})


if __name__ == "__main__":
    main()

"""Time of the usual training loss (Dice and cross-entropy), forward and backward, compared with
nnU-Net's and MONAI's, and agreement of ours with its textbook form.

    python benchmarks/loss_speed.py [--peer FOLDER] [--runs 5]

All losses receive the same logits and truth. Each is a process of its own, the peers' in their
environment, and the runs alternate. For ours the logits are in channels-last memory, as a
channels-last network leaves them; for the peers they are in contiguous memory, which is fastest for
them. Ours and theirs differ in details (smoothing, the cost of an absent class). The agreement is
therefore that of ours with its textbook form, computed term by term with autograd.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from delineate.core.plan import Loss
from delineate.training import losses
from measure import Way, absent, children_in_turns, keep, python_with

CASES = ((3, 2, (40, 56, 40)), (29, 2, (48, 48, 48)), (104, 1, (64, 64, 64)), (2, 6, (256, 256)))
# A measured program is START + the loss + END.
START = """
import json, sys, torch

runs, (classes, batch, *size) = int(sys.argv[1]), (int(n) for n in sys.argv[2].split(","))
generator = torch.Generator().manual_seed(0)
z = torch.randn(batch, classes, *size, generator=generator)
y = torch.randint(0, classes, (batch, 1, *size), generator=generator)
last = torch.channels_last if len(size) == 2 else torch.channels_last_3d
"""
END = """
z.requires_grad_()


def work():
    z.grad = None
    loss(z, y).backward()


print(json.dumps(measured(work, runs)))
"""
OURS = """
from delineate.core.plan import Loss
from delineate.training import losses

z, y = z.to(memory_format=last), y[:, 0]


def loss(z, y):
    return losses.deeply_supervised(z, y, Loss())

"""
TEXTBOOK = """
from delineate.training import losses

z, y = z.to(memory_format=last), y[:, 0]


def loss(z, y):
    return losses.soft_dice(z.softmax(1), y) + losses.cross_entropy(z, y)

"""
NNUNET = """
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

loss = DC_and_CE_loss(
    {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
    {},
    dice_class=MemoryEfficientSoftDiceLoss,
)
"""
MONAI = """
from monai.losses import DiceCELoss

loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
"""
PEERS = {"nnU-Net": ("nnunetv2", NNUNET), "MONAI": ("monai", MONAI)}


def measured(
    classes: int, batch: int, size: tuple[int, ...], a: argparse.Namespace
) -> dict[str, Any]:
    """Figures of every loss."""
    words = (str(a.runs), ",".join(map(str, (classes, batch, *size))))
    ways = {
        name: Way(START + code + END, words)
        for name, code in (("delineate", OURS), ("textbook", TEXTBOOK))
    }
    for name, (module, code) in PEERS.items():
        python = python_with(module, a.peer)
        if python is not None:
            ways[name] = Way(START + code + END, words, python)
    return dict(children_in_turns(ways))


def largest_difference(classes: int, batch: int, size: tuple[int, ...]) -> float:
    """Of the gradients of ours and its textbook form, relative to the largest gradient."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, classes, *size, generator=generator).requires_grad_()
    y = torch.randint(0, classes, (batch, *size), generator=generator)
    textbook = losses.soft_dice(z.softmax(1), y) + losses.cross_entropy(z, y)
    (found,) = torch.autograd.grad(losses.deeply_supervised(z, y, Loss()), z)
    (expected,) = torch.autograd.grad(textbook, z)
    return float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2 and monai")
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    rows = []
    for classes, batch, size in CASES:
        row = {"scores": f"{batch}x{classes}x" + "x".join(map(str, size))}
        row |= measured(classes, batch, size, a)
        row |= {"largest_difference": largest_difference(classes, batch, size)}
        rows.append(row)
        print(rows[-1], file=sys.stderr, flush=True)
    missing = absent({name: module for name, (module, _) in PEERS.items()}, a.peer)
    keep("loss_speed", {"runs": a.runs, "absent": missing, "losses": rows})


if __name__ == "__main__":
    main()

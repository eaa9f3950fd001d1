"""Time of one training step on nnU-Net's plain 3-D networks: the step of our training loop (deep
supervision with Dice and cross-entropy, clipping, Muon, moving average, figures), compared with
nnU-Net's (its network and loss, clipping, SGD).

    python benchmarks/step_time.py [--peer FOLDER_OF_A_VENV] [--before CHECKOUT] [--runs 5]
        [--cases 1 2]

nnU-Net's step is measured as installed (float32 on a CPU) and as an expert tunes it: bfloat16
autocast if the processor has hardware for it, channels-last memory, and compiled if a compiler is
there. Patch, batch and convolutions are the same. Each runs in a process of its own, with the same
number of threads, and their steps alternate; the median of several after a warm-up counts. With
``--before`` the step of an earlier checkout of this project is measured too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measure import Way, absent, checkout, children_in_turns, commit, keep, python_with

CASES = (((40, 56, 40), 2, (32, 64, 128, 256)), ((96, 96, 96), 2, (32, 64, 128, 256, 320)))
HEAD = """
import json, os, sys, tempfile
from pathlib import Path
import torch

torch.set_num_threads(len(os.sched_getaffinity(0)))
(patch, batch, widths), runs = json.loads(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(1)
x = torch.randn(batch, 1, *patch)
y = torch.nn.functional.avg_pool3d(x, 5, 1, 2).gt(0.05)[:, 0]
"""
OURS = """
sys.path.insert(0, sys.argv[3])
from delineate.core.plan import Optimiser
from delineate.training.loop import TrainingJob, _Networks
from forward import nnunet_3d
from model import model_plan

plan = model_plan(2, patch=32).replace(
    network=nnunet_3d(widths=tuple(widths)),
    patch=tuple(patch),
    optimiser=Optimiser(kind="muon", learning_rate=3e-3),
)
with tempfile.TemporaryDirectory() as folder:
    job = TrainingJob(plan, (), (), Path(folder), torch.device("cpu"), 0)
    networks = _Networks.of(job)
    networks.model.train()
    networks.state.learning_rate = 1e-4
    image = x.contiguous(memory_format=torch.channels_last_3d)
    found = measured(lambda: [figure.tolist() for figure in networks.step(image, y.long())], runs)
    found["parameters"] = sum(p.numel() for p in networks.module.parameters())
print(json.dumps(found))
"""
PEER = """
import numpy as np
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

tuned, n = sys.argv[3] == "tuned", len(widths)
model = PlainConvUNet(
    1, n, list(widths), torch.nn.Conv3d, 3, [1] + [2] * (n - 1), 2, 3, 2, True,
    torch.nn.InstanceNorm3d, {"eps": 1e-5, "affine": True}, None, None,
    torch.nn.LeakyReLU, {"inplace": True}, deep_supervision=True,
).train()
shares = np.array([1 / 2**i for i in range(n - 1)])
shares[-1] = 0
loss = DeepSupervisionWrapper(
    DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        weight_ce=1,
        weight_dice=1,
        dice_class=MemoryEfficientSoftDiceLoss,
    ),
    shares / shares.sum(),
)
truth = [y.float()[:, None, :: 2**i, :: 2**i, :: 2**i] for i in range(n - 1)]
optimiser = torch.optim.SGD(
    model.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True
)
run, compiled = model, False
has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
precision = "bfloat16" if tuned and has_bf16 else "float32"
if tuned:
    model = run = model.to(memory_format=torch.channels_last_3d)
    x = x.contiguous(memory_format=torch.channels_last_3d)


def step():
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        cost = loss([out.float() for out in run(x)], truth)
    cost.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
    optimiser.step()
    return cost.item()


if tuned:
    try:
        run, compiled = torch.compile(model), True
        step()
    except Exception:  # no compiler on this machine
        run, compiled = model, False
found = measured(step, runs)
found |= {"compiled": compiled, "precision": precision}
found |= {"parameters": sum(p.numel() for p in model.parameters())}
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 2], help="1: small, 2: 96³")
    a = parser.parse_args()
    steps = []
    for case in (CASES[n - 1] for n in a.cases):
        words, here = (json.dumps(case), str(a.runs)), str(Path(__file__).parent)
        row: dict[str, Any] = {"patch": "x".join(map(str, case[0])), "batch": case[1]}
        ways = {"ours": Way(HEAD + OURS, (*words, here))}
        if a.before:
            environment = checkout(a.before)
            ways["before"] = Way(HEAD + OURS, (*words, here), environment=environment)
        python = python_with("nnunetv2", a.peer)
        for way in ("as installed", "tuned") if python else ():
            ways[way] = Way(HEAD + PEER, (*words, way), python=python)
        steps.append(row | children_in_turns(ways))
    before = {"before": commit(a.before)} if a.before else {}
    missing = {"absent": absent({"nnU-Net": "nnunetv2"}, a.peer)}
    keep("step_time", {"runs": a.runs, **before, **missing, "steps": steps})


if __name__ == "__main__":
    main()

"""A network, a loss term, an augmentation, an optimiser, a recipe and a listener."""

import json

import torch
from torch import nn

from delineate import extend
from delineate.planning.rules import make_plan


@extend.network("two-layers", definition="Two convolutions, for an example.")
class TwoLayers(nn.Module):
    def __init__(self, net):
        super().__init__()
        conv = nn.Conv2d if net.dims == 2 else nn.Conv3d
        self.body = conv(net.channels, 8, 3, padding=1)
        self.head = conv(8, net.classes, 1)

    def forward(self, x):
        return self.head(self.body(x).relu())


@extend.loss("total-variation", definition="Mean absolute difference between neighbours.")
def total_variation(scores, target):
    p = scores.softmax(1)
    return sum(p.diff(dim=axis).abs().mean() for axis in range(2, p.ndim))


@extend.augmentation("offset", definition="Adds one random number to the image.")
def offset(image, label, rng, plan):
    return image + float(rng.normal(0, 0.1)), label


@extend.optimiser("rprop", definition="Resilient backpropagation (Riedmiller 1993).")
def rprop(module, plan, dtype):
    return torch.optim.Rprop(module.parameters(), lr=plan.learning_rate)


def plan_with_rprop(*given, **settings):
    plan = make_plan(*given, **settings)
    return plan.replace(optimiser={"kind": "rprop", "learning_rate": 1e-3})


RECIPE = extend.Recipe("example-recipe", "The rules with another optimiser.", plan_with_rprop)


@extend.listener("text-file", definition="Writes the losses to a text file.")
class TextFile:
    def __init__(self, run):
        self.file = (run.folder / "losses.txt").open("a")

    def add(self, line):
        self.file.write(json.dumps({"step": line["step"], "loss": line["loss"]}) + "\n")

    def close(self):
        self.file.write("closed\n")
        self.file.close()

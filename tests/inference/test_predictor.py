"""One scan through a model: what is left out changes nothing where it matters."""

import numpy as np
import pytest
import torch
from tests.plans import small_plan
from torch import nn

from delineate.core.errors import UsageError
from delineate.core.grid import Grid
from delineate.core.plan import Channel, Normalisation
from delineate.core.volume import Volume
from delineate.inference.engine import Engine
from delineate.inference.predictor import predict

HU = Channel(
    name="CT", normalise=Normalisation(kind="window", low=-1024, high=600, mean=0, std=500)
)


class Brighter(nn.Module):
    """Class 1 where a voxel is brighter than fat; counts the windows that it is shown."""

    shown = 0

    def forward(self, x):
        self.shown += len(x)
        return torch.cat([x * 0, (x + 0.2) * 9, x * 0 - 9], 1)


def scan(shape=(96, 96, 32)):
    hu = np.random.default_rng(0).normal(-1000, 15, shape).astype(np.float32)
    hu[36:60, 40:56] = 60
    return Volume(hu, Grid(shape, np.diag([4.0, 4.0, 4.0, 1.0])), "HU")


def test_air_far_from_the_body_is_not_looked_at_and_nothing_else_changes():
    found, shown = [], []
    for skip in (False, True):
        module = Brighter()
        plan = small_plan(channels=(HU,), spacing_mm=(4.0, 4.0, 4.0))
        found.append(
            predict(
                scan(),
                Engine(plan, ((module, 1.0),), torch.device("cpu"), torch.float32),
                skip_air=skip,
            ).labels.array
        )
        shown.append(module.shown)
    assert (found[0] == found[1]).all() and found[0][36:60, 40:56].all()
    assert shown[1] < 0.6 * shown[0]


def test_only_a_ct_has_air_to_leave_out():
    engine = Engine(small_plan(), ((Brighter(), 1.0),), torch.device("cpu"), torch.float32)
    with pytest.raises(UsageError, match="skipped in CT"):
        predict(scan(), engine, skip_air=True)

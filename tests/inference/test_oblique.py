"""Oblique slices at prediction: shifts there and back, all directions, and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from tests.calls import run
from tests.plans import small_network, small_plan
from tests.scans import scan

import delineate as dl
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import UsageError
from delineate.inference import oblique
from delineate.inference.engine import Engine, slabs
from delineate.inference.planes import planes
from delineate.networks.build import build, weights_of

CPU = torch.device("cpu")


class Threshold(torch.nn.Module):
    """Bright voxels are class 1: what it says of a voxel does not depend on the plane."""

    def forward(self, x):
        return torch.cat([-8 * (x - 0.5), 8 * (x - 0.5)], dim=1)


def engine(average: str = "probabilities") -> Engine:
    plan = small_plan(2, {1: "bright"}, network=small_network(2, channels=1, classes=2))
    plan = plan.replace(inference=plan.inference.model_dump() | {"average": average})
    return Engine(plan, ((Threshold().eval(), 1.0),), CPU, torch.float32)


def smooth_scan() -> torch.Tensor:
    """(1, 24, 20, 12) with values that change linearly along K, which shifts keep exactly."""
    i, j, k = torch.meshgrid(*(torch.arange(n) for n in (24, 20, 12)), indexing="ij")
    return (0.02 * i + 0.01 * j + 0.05 * k)[None].float() / 1.3


@pytest.mark.parametrize("tilt", [(0, 0.0), (0, 0.31), (1, -0.4), (1, 0.2)])
def test_a_tilt_and_back_changes_nothing_inside(tilt):
    scan = smooth_scan()
    tilted, start = oblique._tilted(scan, tilt)
    with planes(12, 1, (24, 20), CPU) as average:
        for plane in tilted.permute(0, 3, 1, 2).split(5, dim=1):
            oblique._add(average, plane, start, tilt, 12)
            start += plane.shape[1]
        back = next(iter(average.walk(0, 12)))[1].movedim(1, 0)
    expected = scan.permute(0, 3, 1, 2)
    assert torch.allclose(back[:, 1:-1], expected[:, 1:-1], atol=1e-5)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("memory_bytes", [None, 3000])
def test_a_network_that_sees_single_voxels_gives_the_same_in_all_directions(average, memory_bytes):
    one, scan = engine(average), smooth_scan()
    plain = torch.cat(list(slabs(scan, one)), dim=1)
    found = torch.cat(
        list(oblique.slabs(scan, one, None, memory_bytes, (1.0, 1.0, 2.0), 15.0)), dim=1
    )
    if average == "logits":
        plain, found = plain.softmax(0), found.softmax(0)
    assert torch.allclose(found.sum(0), torch.ones(()), atol=2e-3)
    # Interpolation changes the probabilities a little, and most at the first and the last slice.
    assert (found - plain).abs()[:, 1:-1].max() < 0.03
    assert (found - plain).abs().mean() < 0.01


def test_planes_are_tilted_by_the_angle():
    """A plane of bright voxels in the direction of a tilt lies in one slice of it."""
    slope = math.tan(math.radians(20.0)) / 2  # slices of 2 mm, pixels of 1 mm
    scan = torch.zeros(1, 21, 8, 15)
    for i in range(21):
        k = 7 + slope * (i - 10)
        scan[0, i, :, math.floor(k)] = 1 - (k - math.floor(k))
        scan[0, i, :, math.floor(k) + 1] = k - math.floor(k)
    tilted, start = oblique._tilted(scan, (0, slope))
    bright = tilted[0].mean(dim=(0, 1))
    assert int(bright.argmax()) + start == 7
    assert bright.max() > 0.6 > 2 * scan[0].mean((0, 1)).max()


def test_what_has_no_tilted_planes_is_refused():
    plan = engine().plan
    oblique.refuse_unfit(plan, 15)
    with pytest.raises(UsageError, match="from 0 to 45, found 60"):
        oblique.refuse_unfit(plan, 60)
    with pytest.raises(UsageError, match="this one has 3 dimensions"):
        oblique.refuse_unfit(small_plan(3), 10)


def test_the_command_and_python_average_the_same_directions(tmp_path):
    plan = small_plan(2)
    bundle = Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 3))),))
    bundle.save(tmp_path / "m.model")
    ct = scan(tmp_path / "ct.nii.gz")
    model = dl.load(tmp_path / "m.model", device="cpu")
    plain, tilted = model.predict(ct), model.predict(ct, oblique_deg=20.0)
    assert (plain.numpy() != tilted.numpy()).any()
    words = (tmp_path / "m.model", ct, "-o", tmp_path / "out", "--oblique", 20, "--device", "cpu")
    code, printed = run("predict", *words)
    assert code == 0, printed
    written = dl.read(tmp_path / "out" / "ct.nii.gz")
    assert (written.array == tilted.numpy()).all()
    with pytest.raises(UsageError, match="from 0 to 45, found 60"):
        model.predict(ct, oblique_deg=60.0)

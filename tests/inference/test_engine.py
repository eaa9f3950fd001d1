from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.plans import small_network, small_plan
from torch import nn

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import OutputError, UsageError
from delineate.core.plan import Augmentation, Inference, Plan, View
from delineate.inference import engine as infer
from delineate.inference import planes
from delineate.inference.engine import Engine, marching_axis, sampling, slabs
from delineate.networks.build import build, load_weights, weights_of

SHAPES = [(40, 33, 50), (10, 20, 30), (70, 16, 16), (5, 6, 7), (16, 50, 17)]


class Pointwise(nn.Module):
    """Logits that depend on the voxel alone: however windows fall, the scores must not change."""

    def forward(self, x):
        return torch.cat([x * 0, x, -x], 1)


class Lateral(nn.Module):
    """Says "left part" in the lower half of the first axis of the window and "right part" in the
    upper half.
    """

    def forward(self, x):
        ramp = (
            torch.linspace(-1, 1, x.shape[2])
            .view(1, 1, -1, *([1] * (x.ndim - 3)))
            .expand(x.shape[0], 1, *x.shape[2:])
        )
        return torch.cat([torch.full_like(ramp, -5), -ramp * 5, ramp * 5], 1)


def engine(dims, module, plan=None, weights=(1.0,)) -> Engine:
    return Engine(
        plan or small_plan(dims),
        tuple((module, w) for w in weights),
        torch.device("cpu"),
        torch.float32,
    )


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_blending_changes_nothing_and_slabs_cover_the_scan(dims, shape):
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    axis = marching_axis(shape, small_plan(dims))
    expected = torch.softmax(torch.cat([x * 0, x, -x]), 0).movedim(axis + 1, 1)
    for weights, mirror in itertools.product(((1.0,), (1.0, 2.0)), ((), (1,))):
        out = torch.cat(
            list(slabs(x, engine(dims, Pointwise(), weights=weights), Inference(mirror=mirror))), 1
        )
        assert out.shape == expected.shape
        assert (out - expected).abs().max() < 1e-5


def test_slabs_come_before_the_last_window_ran():
    calls = []

    class Counting(Pointwise):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    stream = slabs(torch.randn(1, 20, 20, 80), engine(3, Counting()))
    infer_at_once = infer.WINDOW_VOXELS
    infer.WINDOW_VOXELS = 16**3
    try:
        next(stream)
        early = sum(calls)
        list(stream)
    finally:
        infer.WINDOW_VOXELS = infer_at_once
    assert early < sum(calls) / 2


def test_held_scores_do_not_grow_with_the_scan(monkeypatch):
    sizes = []
    original = infer.planes
    monkeypatch.setattr(infer, "planes", lambda *a: sizes.append(a[:3]) or original(*a))
    for length in (40, 400):
        list(slabs(torch.zeros(1, 16, 16, length), engine(3, Pointwise())))
    assert sizes[0] == sizes[1]


def test_mirroring_swaps_sided_structures():
    """A network that calls things by their place in the window is torn between the two when
    mirrored without swapping.
    """
    plan = small_plan(3)
    x = torch.zeros(1, 16, 16, 16)
    plain = torch.cat(list(slabs(x, engine(3, Lateral(), plan))), 1)
    mirrored = torch.cat(list(slabs(x, engine(3, Lateral(), plan), Inference(mirror=(0,)))), 1)
    assert (plain - mirrored).abs().max() < 1e-5
    unsided = small_plan(3, names={1: "one", 2: "two"})
    torn = torch.cat(list(slabs(x, engine(3, Lateral(), unsided), Inference(mirror=(0,)))), 1)
    assert (plain - torn).abs().max() > 0.3


def test_half_precision_accumulation_agrees(monkeypatch):
    x = torch.randn(1, 40, 33, 50)
    full = torch.cat(list(slabs(x, engine(3, Pointwise()))), 1)
    monkeypatch.setattr(planes, "HALF_ABOVE_BYTES", 1)
    half = torch.cat(list(slabs(x, engine(3, Pointwise()))), 1)
    assert half.dtype == torch.float16
    assert (full - half.float()).abs().max() < 5e-3


def test_a_flat_network_sees_each_slice_once():
    net = small_network(2)
    assert net.dims == 2
    seen = []

    class Recording(Pointwise):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return super().forward(x)

    list(slabs(torch.randn(1, 16, 16, 9), engine(2, Recording())))
    assert sum(s[0] for s in seen) == 9 and all(len(s) == 4 for s in seen)


# ---- views ----

SIDED = {1: "left kidney", 2: "liver", 3: "right kidney"}
VIEWS = (
    View(axis=2, patch=(16, 8, 1), weight=0.4),
    View(axis=1, patch=(12, 1, 16), weight=0.5),
    View(axis=0, patch=(1, 16, 12), weight=0.2, merge_sides=True),
)


def plan_of_views(views=VIEWS) -> Plan:
    network = small_network(
        2, classes=4, widths=(4, 6), strides=((2, 2, 1),), kernels=((3, 3, 1),) * 2
    )
    return small_plan(
        2,
        SIDED,
        views=views,
        patch=(16, 8, 1),
        network=network,
        augmentation=Augmentation(mirror=(0, 1)),
    )


def bundle_of_views(folds=(0, 1), plan=None) -> Bundle:
    plan = plan or plan_of_views()
    members = []
    for fold, (name, view) in itertools.product(folds, plan.named_views().items()):
        module = build(plan.seen(view).network, seed=10 * fold + view.axis)
        members.append(Member(f"fold_{fold}_{name}", weights_of(module), fold, view.weight, name))
    return Bundle(plan, tuple(members))


def by_hand(scan, bundle, inference) -> np.ndarray:
    """(L, I, J, K) float64: every member alone on a scan that was turned before, turned back,
    classes handed out, averaged.
    """
    plan, total = bundle.plan, 0.0
    names = plan.named_views()
    for member in bundle.members:
        view = names[member.view]
        own = plan.replace(inference=inference.model_dump()).seen(view)
        module = build(own.network)
        load_weights(module, member.weights)
        turned = scan.permute(0, *(1 + a for a in view.order)).contiguous()
        out = torch.cat(
            list(
                slabs(
                    turned, Engine(own, ((module.eval(), 1.0),), torch.device("cpu"), torch.float32)
                )
            ),
            1,
        )
        array = out.movedim(1, 3).double().numpy()  # (L', *order)
        back = array.transpose(0, *(1 + view.order.index(a) for a in range(3)))
        if view.merge_sides:
            # The kidney's whole probability for either side.
            back = np.stack([back[0], back[1], back[2], back[1]])
        folds = sum(m.view == member.view for m in bundle.members)
        total = total + back * view.weight / folds
    return total / total.sum(0)


def averaged(scan, bundle, inference=None, **more) -> np.ndarray:
    engine = Engine.from_bundle(bundle, torch.device("cpu"), torch.float32, **more)
    return torch.cat(list(slabs(scan, engine, inference)), 1).movedim(1, 3).numpy()


@pytest.mark.parametrize(("shape", "mirror"), [((20, 13, 31), ()), ((9, 30, 6), (0, 1, 2))])
def test_views_and_folds_average_as_by_hand(shape, mirror):
    scan = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    bundle, inference = bundle_of_views(), Inference(mirror=mirror)
    expected = by_hand(scan, bundle, inference)
    found = averaged(scan, bundle, inference)
    assert found.shape == (4, *shape) and np.abs(found.sum(0) - 1).max() < 1e-5
    assert np.abs(found - expected).max() < 2e-3  # half precision
    # There was something to get wrong.
    assert expected.std() > 0.01 and np.abs(expected - expected[:, ::-1]).max() > 0.05


def test_a_missing_fold_of_a_view_does_not_shift_the_views_weights():
    scan = torch.randn(1, 12, 10, 14, generator=torch.Generator().manual_seed(1))
    whole = bundle_of_views()
    early = Bundle(
        whole.plan,
        tuple(m for m in whole.members if m.name not in ("fold_1_coronal", "fold_1_sagittal")),
    )
    assert np.abs(averaged(scan, early) - by_hand(scan, early, whole.plan.inference)).max() < 2e-3


def test_chosen_views_alone_and_names_that_do_not_exist():
    scan = torch.randn(1, 12, 10, 14, generator=torch.Generator().manual_seed(1))
    whole = bundle_of_views()
    axial = Bundle(whole.plan, tuple(m for m in whole.members if m.view == "axial"))
    assert np.array_equal(averaged(scan, whole, views=("axial",)), averaged(scan, axial))
    with pytest.raises(UsageError, match="no view oblique; it has axial, coronal, sagittal"):
        averaged(scan, whole, views=("axial", "oblique"))
    plain = small_plan(2)
    one = Bundle(plain, (Member("fold_0", weights_of(build(plain.network, 0)), 0),))
    with pytest.raises(UsageError, match="without views"):
        averaged(scan, one, views=("axial",))


def test_a_merged_class_does_not_favour_the_background():
    """The sagittal view is sure of a kidney, the others waver between its side and nothing: the
    side that they lean to wins.
    """

    class Says(nn.Module):
        def __init__(self, *probabilities):
            super().__init__()
            self.logits = torch.log(torch.tensor(probabilities))

        def forward(self, x):
            return self.logits.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])

    sure, wavering = Says(0.02, 0.96, 0.02), Says(0.45, 0.38, 0.02, 0.15)
    members = ((wavering, 0.4), (wavering, 0.4), (sure, 0.4))
    engine = Engine(
        plan_of_views(),
        members,
        torch.device("cpu"),
        torch.float32,
        ("axial", "coronal", "sagittal"),
    )
    scores = torch.cat(list(slabs(torch.zeros(1, 12, 10, 9), engine)), 1)
    assert (scores.argmax(0) == 1).all()
    halves = (2 * np.array([0.45, 0.38, 0.02, 0.15]) + np.array([0.02, 0.48, 0.02, 0.48])) / 3
    assert scores[1, 0, 0, 0] > halves[1]  # with half a vote each the kidney would be weaker


@pytest.fixture
def small_windows(monkeypatch, tmp_path):
    """The average lies in a file, a few planes at a time."""
    monkeypatch.setattr(planes, "MEMORY_BYTES", 0)
    monkeypatch.setattr(planes, "SLAB_BYTES", 4 * 4 * 20 * 13 * 3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_an_average_in_a_file_is_the_same_and_the_file_is_gone(small_windows, monkeypatch):
    scan = torch.randn(1, 20, 13, 31, generator=torch.Generator().manual_seed(0))
    engine = Engine.from_bundle(bundle_of_views((0,)), torch.device("cpu"), torch.float32)
    stream = slabs(scan, engine)
    parts = [next(stream)]
    assert [p.stat().st_size for p in small_windows.glob("delineate_*/scores")] == [
        2 * 4 * 20 * 13 * 31
    ]
    parts += list(stream)
    assert max(p.shape[1] for p in parts) <= 6 and not list(small_windows.iterdir())
    planes.MEMORY_BYTES = 2**31
    monkeypatch.setattr(planes, "HALF_ABOVE_BYTES", 0)
    assert torch.equal(torch.cat(parts, 1), torch.cat(list(slabs(scan, engine)), 1))


def test_the_file_is_gone_after_an_error_too(small_windows):
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("as planned")

    members = ((Failing(), 1.0),)
    engine = Engine(
        plan_of_views(VIEWS[1:2]), members, torch.device("cpu"), torch.float32, ("coronal",)
    )
    with pytest.raises(RuntimeError, match="as planned"):
        list(slabs(torch.zeros(1, 20, 13, 31), engine))
    stream = slabs(
        torch.zeros(1, 20, 13, 31),
        Engine.from_bundle(bundle_of_views((0,)), torch.device("cpu"), torch.float32),
    )
    next(stream)
    stream.close()  # whoever restores has failed
    assert not list(small_windows.iterdir())


def test_a_full_disk_is_told_before_anything_is_computed(small_windows, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(planes.os, "posix_fallocate", full)
    engine = Engine.from_bundle(bundle_of_views((0,)), torch.device("cpu"), torch.float32)
    with pytest.raises(OutputError, match="TMPDIR"):
        next(slabs(torch.zeros(1, 20, 13, 31), engine))
    assert not list(Path(small_windows).iterdir())


# ---- Monte-Carlo dropout ----


def test_sampling_wakes_dropout_alone_and_leaves_no_trace():
    plan = small_plan(3, network=small_network(3, dropout=0.3, norm="batch"))
    module = build(plan.network, 0).eval()
    engine = Engine(plan, ((module, 1.0),), torch.device("cpu"), torch.float32)
    scan = torch.randn(1, 20, 18, 17, generator=torch.Generator().manual_seed(0))

    def scores():
        return torch.cat(list(slabs(scan, engine)), 1)

    plain, before = scores(), {k: v.clone() for k, v in module.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn = []
    for seed in (1, 1, 2):
        with sampling(engine, seed):
            drawn.append(scores())
    # The stream outside went on as if nothing had been drawn.
    assert torch.equal(torch.rand(3), expected)
    assert (
        torch.equal(drawn[0], drawn[1])
        and not torch.equal(drawn[0], drawn[2])
        and not torch.equal(drawn[0], plain)
    )
    assert not any(m.training for m in module.modules())
    # Batch norm learnt nothing.
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert torch.equal(scores(), plain)


def test_sampling_ends_after_an_error_and_needs_dropout():
    plan = small_plan(3, network=small_network(3, dropout=0.3))
    module = build(plan.network, 0).eval()
    with (
        pytest.raises(RuntimeError),
        sampling(Engine(plan, ((module, 1.0),), torch.device("cpu"), torch.float32), 1),
    ):
        raise RuntimeError
    assert not any(m.training for m in module.modules())
    with (
        pytest.raises(ValueError, match="dropout"),
        sampling(engine(3, build(small_network(3), 0).eval()), 1),
    ):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_views_and_samples_on_a_gpu(monkeypatch):
    device, scan = (
        torch.device("cuda"),
        torch.randn(1, 20, 13, 31, generator=torch.Generator().manual_seed(0)),
    )
    bundle = bundle_of_views(
        plan=plan_of_views().replace(
            network=plan_of_views().network.model_dump() | {"dropout": 0.3}
        )
    )
    engine = Engine.from_bundle(bundle, device, torch.float32)
    expected = by_hand(scan, bundle, bundle.plan.inference)
    found = torch.cat(list(slabs(scan, engine)), 1)
    assert (
        found.device.type == "cuda"
        and np.abs(found.movedim(1, 3).cpu().numpy() - expected).max() < 2e-3
    )
    before = torch.cuda.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with sampling(engine, seed):
            drawn.append(torch.cat(list(slabs(scan, engine)), 1))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.cuda.get_rng_state(), before)
    # A GPU without room: the average lies in a file.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    assert (
        np.abs(torch.cat(list(slabs(scan, engine)), 1).movedim(1, 3).cpu().numpy() - expected).max()
        < 2e-3
    )


@pytest.mark.parametrize("of", ["2-D", "3-D", "views"])
@pytest.mark.rounds
def test_windows_never_wait_for_their_device(of):
    """The meta device has no values: whatever asks for one raises, and so does what mixes it with
    the CPU. A GPU would stand idle there.
    """
    device, scan = (
        torch.device("meta"),
        torch.randn(1, 40, 33, 50, generator=torch.Generator().manual_seed(0)),
    )
    scan[:, 20:] = 0  # windows without contrast
    plan = plan_of_views() if of == "views" else small_plan(2 if of == "2-D" else 3)
    networks = tuple((build(plan.network, n).eval().to(device), 1.0) for n in range(2))
    one = Engine(
        plan,
        networks,
        device,
        torch.float32,
        tuple(plan.named_views())[:2] if of == "views" else (),
    )
    found = list(slabs(scan, one, Inference(mirror=(0, 1)), memory_bytes=2**30))
    assert all(slab.device == device for slab in found)
    axis = 2 if of == "views" else marching_axis(scan.shape[1:], plan)
    assert sum(slab.shape[1] for slab in found) == scan.shape[1 + axis]


@pytest.mark.parametrize("dims", [2, 3])
def test_sums_in_a_file_are_those_in_memory(dims, monkeypatch):
    """Windows that overlap along every axis, several of them before planes are done, mirrored."""
    monkeypatch.setattr(planes, "HALF_ABOVE_BYTES", 0)
    monkeypatch.setattr(planes, "SLAB_BYTES", 3 * 2 * 3 * 24 * 21)
    x = torch.randn(1, 24, 21, 30, generator=torch.Generator().manual_seed(1))
    one = engine(dims, Pointwise())
    kept = torch.cat(list(slabs(x, one, Inference(mirror=(0, 1)))), 1)
    filed = torch.cat(list(slabs(x, one, Inference(mirror=(0, 1)), memory_bytes=0)), 1)
    assert kept.dtype == torch.float16 and torch.equal(kept, filed)
    monkeypatch.setattr(planes, "HALF_ABOVE_BYTES", 2**30)
    precise = torch.cat(list(slabs(x, one, Inference(mirror=(0, 1)))), 1)
    assert precise.dtype == torch.float32 and (precise - kept.float()).abs().max() < 5e-3


def test_windows_without_contrast_are_computed_once_and_change_nothing(monkeypatch):
    """Air around a blob, two different constants, mirrored, two members; padding to a patch is air
    too.
    """
    x = torch.full((1, 64, 33, 30), -1.0)
    x[:, 50:] = 2.0
    x[:, 14:22, 9:20, 9:20] = torch.randn(8, 11, 11, generator=torch.Generator().manual_seed(2))
    calls: list[int] = []

    class Counting(Pointwise):
        def forward(self, image):
            calls.append(len(image))
            return super().forward(image) + image.mean()

    one = engine(3, Counting(), weights=(1.0, 0.5))
    quick = torch.cat(list(slabs(x, one, Inference(mirror=(0, 2)))), 1)
    few = sum(calls)
    calls.clear()
    monkeypatch.setattr(infer.arrays, "ends", lambda _: (0.0, 1.0))  # now every window has contrast
    plain = torch.cat(list(slabs(x, one, Inference(mirror=(0, 2)))), 1)
    monkeypatch.undo()
    assert (quick - plain).abs().max() < 1e-6 and few < 0.75 * sum(calls)

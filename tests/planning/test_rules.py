from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import PlanError
from delineate.core.labels import LabelSet
from delineate.core.manifest import Case, Manifest, Source
from delineate.planning.candidates import topology
from delineate.planning.capacity import Machine
from delineate.planning.fingerprint import CaseFingerprint, Fingerprint
from delineate.planning.rules import make_plan

HERE = Machine("cpu", 2, 16 << 30)


def found(
    shape=(256, 256, 120), spacing=(0.8, 0.8, 2.0), body=None, hu=True, zero=0.0, n=6
) -> Fingerprint:
    rng = np.random.default_rng(0)
    inside = tuple(float(v) for v in rng.normal(100, 30, 2000))
    one = CaseFingerprint(
        shape, spacing, body or shape, zero, hu, "CT" if hu else "MR", (inside,), {1: 5000}
    )
    return Fingerprint((one,) * n, ("CT",))


def manifest(names=None, n=6) -> Manifest:
    cases = tuple(Case(f"c{i}", f"c{i}", (Source("/x"),), (Source("/y"),)) for i in range(n))
    return Manifest(cases, ("CT",), LabelSet.from_names(names or {1: "liver"}))


def make(fingerprint, names=None, probe=lambda *_: 0.2, **more):
    more = more or {"budget_s": 600.0}
    return make_plan(fingerprint, manifest(names), HERE, probe=probe, **more)


def test_ct_gets_one_window_from_intensities_inside_the_structures():
    rule = make(found()).channels[0].normalise
    assert (
        rule.kind == "window"
        and 0 < rule.low < 60
        and 140 < rule.high < 200
        and rule.mean == pytest.approx(100, abs=3)
    )


def test_mr_is_normalised_image_by_image():
    assert make(found(hu=False)).channels[0].normalise.kind == "robust"
    assert make(found(hu=False, zero=0.6)).channels[0].normalise.inside == "nonzero"


def test_every_choice_has_its_reason():
    plan = make(found())
    expected = {
        "network.dims",
        "orientation",
        "crop",
        "spacing_mm",
        "normalise.CT",
        "patch",
        "network",
        "schedule",
        "optimiser",
        "optimiser.weight_decay",
        "augmentation.mirror",
    }
    assert expected | {"low_resolution"} <= set(plan.reasons) and all(plan.reasons.values())


def test_single_slices_are_flat_and_so_are_a_few_thick_ones():
    assert make(found(shape=(256, 256, 1))).dims == 2
    plan = make(found(shape=(6, 256, 256), spacing=(8.0, 1.0, 1.0)))
    assert plan.dims == 2 and plan.orientation == "ASR" and plan.spacing_mm[2] is None
    assert make(found()).dims == 3


def test_a_short_budget_asks_for_a_smaller_network_and_coarser_voxels():
    def probe(network, patch, batch):
        return batch * float(np.prod(patch)) * network.widths[0] / 3e7

    short, long = (
        make(found(), probe=probe, budget_s=120.0),
        make(found(), probe=probe, budget_s=36000.0),
    )
    assert short.network.widths[0] < long.network.widths[0] and np.prod(short.patch) < np.prod(
        long.patch
    )
    assert min(short.spacing_mm) > min(long.spacing_mm)
    assert "coarsened" in short.reasons["spacing_mm"]


def test_a_budget_asks_for_few_convolutions_where_they_are_dear():
    light, full = make(found()).network, make(found(), epochs=100).network
    assert (
        light.convs_at(0) == 1
        and light.convs_at(1) == 2
        and {light.decoder_convs_at(n) for n in range(len(light.strides))} == {1}
    )
    assert (
        {full.convs_at(n) for n in range(len(full.widths))}
        == {full.decoder_convs_at(n) for n in range(len(full.strides))}
        == {2}
    )


def test_a_short_budget_has_short_epochs():
    """A curve has a point per epoch."""
    for budget_s in (2.0, 30.0, 120.0, 36000.0):
        schedule = make(found(), budget_s=budget_s).schedule
        assert budget_s / 0.2 / schedule.steps_per_epoch >= min(30, budget_s / 0.2)
        assert schedule.steps_per_epoch <= 250


def test_weights_are_forgotten_as_often_however_long_the_training():
    """Decay x rate x steps is the same, but for trainings so short that little is learnt that could
    be forgotten.
    """
    product = {}
    for name, end, steps in (
        ("budget", {"budget_s": 600.0}, 3000),
        ("day", {"budget_s": 86400.0}, 432000),
        ("epochs", {"epochs": 500}, None),
    ):
        plan = make(found(), **end)
        product[name] = (
            plan.optimiser.weight_decay
            * plan.optimiser.learning_rate
            * (steps or 500 * plan.schedule.steps_per_epoch)
        )
    assert product == pytest.approx(dict.fromkeys(product, 6.0), rel=0.05)
    assert make(found(), epochs=1).optimiser.weight_decay == pytest.approx(3.3)


def test_many_classes_are_told_apart_by_many_maps():
    """The patch shrinks before the width, however slow a machine without AMX or AVX512-BF16 is."""
    slow = Machine("cpu", 2, 16 << 30, matrix_units=False)
    several = {value: f"structure {value}" for value in range(1, 29)}
    widths = {
        len(names): make_plan(
            found(), manifest(names), slow, budget_s=300.0, probe=lambda *_: 60.0
        ).network.widths[0]
        for names in ({1: "liver"}, several)
    }
    assert widths == {1: 8, 28: 16}

    def probe(network, patch, batch):
        return batch * float(np.prod(patch)) * network.widths[0] / 8e6

    some = make_plan(found(), manifest(several), slow, budget_s=300.0, probe=probe)
    assert some.network.widths[0] == 32 and max(some.patch) < 48


def test_mirroring_respects_sides():
    assert make(
        found(), {1: "left kidney", 2: "right kidney"}, budget_s=3600.0
    ).augmentation.mirror == (0,)
    assert make(
        found(), {1: "left kidney", 2: "right kidney"}, epochs=1000
    ).augmentation.mirror == (0,)
    short = make(found(), {1: "left kidney", 2: "right kidney"}, budget_s=300.0)
    assert short.augmentation.mirror == () and "few" in short.reasons["augmentation.mirror"]
    assert make(found(), budget_s=300.0).augmentation.mirror == (0,)
    assert make(found(), {1: "left kidney", 2: "liver"}).augmentation.mirror == ()
    assert make(found()).augmentation.mirror == (0,)


def test_thick_slices_are_rotated_only_within_and_pooled_late():
    plan = make(found(spacing=(0.8, 0.8, 5.0), shape=(300, 300, 40)))
    assert (
        plan.augmentation.rotation_deg[:2] == (0.0, 0.0) and plan.augmentation.rotation_deg[2] > 0
    )
    assert plan.network.strides[0][2] == 1 and plan.network.kernels[0][2] == 1


def test_a_large_scan_gets_a_first_stage_at_low_resolution():
    plan = make(found(shape=(512, 512, 400), spacing=(0.8, 0.8, 1.0)), epochs=10)
    assert plan.low_resolution is not None and min(plan.low_resolution.spacing_mm) > min(
        plan.spacing_mm
    )
    assert make(found(shape=(40, 50, 40), spacing=(1, 1, 1))).low_resolution is None


@pytest.mark.parametrize(
    "shape", [(35, 50, 35), (9, 200, 200), (512, 512, 60), (16, 16, 16), (300, 20, 8)]
)
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.7, 5), (3, 1, 1)])
def test_patches_divide_and_never_dwarf_the_scan(shape, spacing):
    patch, strides, kernels = topology(shape, spacing, 64**3, 3)
    divisor = np.prod(strides, axis=0)
    assert not np.any(np.array(patch) % divisor) and len(kernels) == len(strides) + 1
    assert np.prod(patch) < 64**3 * 2.5
    assert all(p <= n + d for p, n, d in zip(patch, shape, divisor, strict=True))
    assert all(p // d >= 4 for p, d, n in zip(patch, divisor, shape, strict=True) if n >= 8)


@pytest.mark.parametrize("edge", [24, 32, 40, 48, 64])
def test_a_patch_has_about_as_many_voxels_as_it_may(edge):
    patch, _, _ = topology((140, 180, 140), (1.0, 1.0, 1.0), edge**3, 3)
    assert 0.7 < np.prod(patch) / edge**3 < 1.5


def test_exactly_one_end():
    with pytest.raises(PlanError, match="exactly one"):
        make_plan(found(), manifest(), HERE, budget_s=5.0, epochs=3, probe=lambda *_: 1)
    with pytest.raises(PlanError, match="exactly one"):
        make_plan(found(), manifest(), HERE, probe=lambda *_: 1)


def test_too_small_for_any_network():
    with pytest.raises(PlanError, match="at least 8"):
        topology((5, 5, 5), (1, 1, 1), 1000, 3)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.plans import intensity_changed, small_network, small_plan

from delineate.core.plan import Augmentation, Channel, Normalisation
from delineate.core.store import Store, StoredCase
from delineate.training import augmentation as augment
from delineate.training.patches import draw_batch

SPACING = (1.0, 1.3, 4.0)
SHAPE = (72, 60, 24)
CENTRE = (33, 31, 11)
NOTHING = Augmentation.none()


def oblique_plan(**changes: Any):
    aug = NOTHING.model_copy(update={"oblique_p": 1.0, "oblique_deg": 25.0, **changes})
    return small_plan(2, spacing_mm=(None, None, None), patch=(40, 32, 1), augmentation=aug)


def in_mm(spatial: augment.Spatial) -> np.ndarray:
    """The spatial change as a map from millimetres to millimetres."""
    return np.diag(SPACING) @ spatial.matrix @ np.diag(1 / np.array(SPACING))


def tilt_deg(matrix: np.ndarray) -> tuple[float, float]:
    """Angles about the I, then the J axis, from where the normal points."""
    n = matrix[:, 2] / np.linalg.norm(matrix[:, 2])
    return float(np.rad2deg(-np.arcsin(n[1]))), float(np.rad2deg(np.arctan2(-n[0], n[2])))


def ramp(mm: np.ndarray) -> np.ndarray:
    """A linear function of the position: interpolation has it exactly."""
    return mm @ np.array([0.31, -0.17, 0.53]) + 4


def ellipsoid(mm: np.ndarray) -> np.ndarray:
    """Below 1 inside; nothing about it is symmetric on the grid."""
    return np.sqrt(
        (((mm - np.array([35.0, 38.0, 45.0])) / np.array([21.0, 17.0, 26.0])) ** 2).sum(-1)
    )


def analytic_volume() -> tuple[np.ndarray, np.ndarray]:
    mm = np.stack(
        np.meshgrid(
            *[np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)], indexing="ij"
        ),
        -1,
    )
    return ramp(mm)[None].astype(np.float32), (ellipsoid(mm) < 1).astype(np.uint8)


# ---- oblique planes ----


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("tile", [12, 64])
def test_an_oblique_plane_shows_what_stands_at_its_millimetres(turned, tile, monkeypatch):
    # One piece, or many that do not divide the plane evenly.
    monkeypatch.setattr(augment, "TILE", tile)
    image, label = analytic_volume()
    plan = oblique_plan(
        **(
            {
                "rotation_p": 1.0,
                "rotation_deg": (0.0, 0.0, 40.0),
                "scale_p": 1.0,
                "scale": (0.8, 0.9),
            }
            if turned
            else {}
        )
    )
    offsets = np.stack(
        np.meshgrid(np.arange(40) - 20, np.arange(32) - 16, [0], indexing="ij"), -1
    ) * np.array(SPACING)
    depths = []
    for seed in range(6):
        spatial = augment.draw(plan, np.random.default_rng(seed), SPACING, SHAPE)
        x, y = augment.sample_patch(
            StoredCase("a", image, label, {}, SPACING), CENTRE, plan.patch, spatial
        )
        mm = np.array(CENTRE) * SPACING + offsets @ in_mm(spatial).T
        inside = ((mm >= 0) & (mm <= (np.array(SHAPE) - 1) * SPACING)).all(-1)
        depths.append(np.ptp(mm[..., 2]))
        assert inside.mean() > 0.9
        assert np.abs(x[0].numpy() - ramp(mm))[inside].max() < 2e-3
        nearest = np.rint(mm / SPACING).astype(int)
        off_centre = np.abs(mm / SPACING - nearest)
        sure = inside & (np.abs(off_centre - 0.5) > 1e-3).all(-1)
        assert np.array_equal(y.numpy()[sure], label[tuple(nearest[sure].T)])
        # Further from the surface than half a voxel.
        clear = inside & (np.abs(ellipsoid(mm) - 1) > 0.15)
        assert (
            np.array_equal(y.numpy()[clear], ellipsoid(mm)[clear] < 1)
            and 0.1 < y.float().mean() < 0.9
        )
    assert min(depths) > 2 and max(depths) > 16  # the plane crosses several slices of 4 mm


def test_the_tilt_is_rigid_in_millimetres_about_both_axes_and_within_its_range():
    angles = []
    for seed in range(300):
        matrix = in_mm(augment.draw(oblique_plan(), np.random.default_rng(seed), SPACING, SHAPE))
        assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-9) and np.linalg.det(
            matrix
        ) == pytest.approx(1)
        angles.append(tilt_deg(matrix))
    a, b = np.array(angles).T
    for one in (a, b):
        assert np.abs(one).max() <= 25 and one.max() > 23 and one.min() < -23
        assert one.std() == pytest.approx(50 / np.sqrt(12), rel=0.1)  # drawn evenly
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


def test_turn_and_zoom_stay_in_the_tilted_plane():
    plan = oblique_plan(
        rotation_p=1.0, rotation_deg=(90.0, 90.0, 40.0), scale_p=1.0, scale=(0.8, 0.8)
    )
    matrix = in_mm(augment.draw(plan, np.random.default_rng(4), SPACING, SHAPE))
    assert np.allclose(matrix.T @ matrix, np.diag([0.64, 0.64, 1.0]), atol=1e-9)
    assert max(np.abs(tilt_deg(matrix))) > 2


def test_a_single_slice_is_never_tilted():
    for seed in range(20):
        assert augment.draw(
            oblique_plan(), np.random.default_rng(seed), SPACING, (72, 60, 1)
        ).is_plain


def test_tilting_is_as_frequent_as_asked_and_is_not_for_3d():
    plan = oblique_plan(oblique_p=0.3)
    drawn = [
        augment.draw(plan, np.random.default_rng(seed), SPACING, SHAPE).is_oblique
        for seed in range(400)
    ]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.07)
    solid = small_plan(augmentation=NOTHING.model_copy(update={"oblique_p": 1.0}))
    assert augment.draw(solid, np.random.default_rng(0), SPACING, SHAPE).is_plain


def test_only_thin_boxes_around_an_oblique_plane_are_read():
    class Watched:
        def __init__(self, array):
            self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

        def __getitem__(self, where):
            part = self.array[where]
            self.read += part.size
            return part

    shape, patch = (300, 280, 160), (256, 256, 1)
    label = Watched(np.zeros(shape, np.uint8))
    image = Watched(np.zeros((1, *shape), np.float16))
    angle = np.deg2rad(20)
    spatial = augment.Spatial(augment._rotation(np.array([angle, angle, 0])), None, ())
    x, y = augment.sample_patch(StoredCase("a", image, label, {}), (150, 140, 80), patch, spatial)
    assert x.shape == (1, *patch) and y.shape == patch
    spans = np.ceil(np.abs(spatial.matrix[:, :2]) @ [255, 255]) + 2
    assert image.read == label.read < np.prod(spans) / 3


def test_every_2d_plan_can_learn_from_oblique_planes(tmp_path):
    """Through the store and the batch, with everything else switched on, sides swapped, and bit for
    bit the same again.
    """
    rng = np.random.default_rng(0)
    label = np.zeros((40, 36, 14), np.uint8)
    label[8:20, 6:18, 3:9], label[22:34, 10:28, 4:12] = 1, 2
    store = Store(tmp_path)
    store.add(
        "a",
        (label * 2.0 + rng.normal(0, 0.01, label.shape))[None],
        label,
        3,
        (16, 16, 1),
        spacing_mm=SPACING,
    )
    aug = NOTHING.model_copy(
        update={"oblique_p": 1.0, "rotation_p": 0.5, "scale_p": 0.5, "mirror": (0,)}
    )
    plan = small_plan(2, spacing_mm=(None, None, None), augmentation=aug, foreground=1.0)
    swapped, agree = torch.tensor([0, 2, 1]), []
    for step in range(20):
        x, y = draw_batch(plan, [store.open("a")], 1, step)
        again = draw_batch(plan, [store.open("a").loaded()], 1, step)
        assert x.shape == (2, 1, 16, 16) and torch.equal(x, again[0]) and torch.equal(y, again[1])
        seen = torch.round(x[:, 0] / 2).long().clamp(0, 2)
        agree += [
            max(float((s == t).float().mean()), float((swapped[s] == t).float().mean()))
            for s, t in zip(seen, y, strict=True)
        ]
    assert min(agree) > 0.6 and np.mean(agree) > 0.85  # they differ in the interpolated rim


@pytest.mark.parametrize("dims", [2, 3])
def test_the_own_spacing_of_a_scan_counts_where_the_plan_keeps_it(dims):
    aug = NOTHING.model_copy(update={"rotation_p": 1.0, "rotation_deg": (30.0, 30.0, 30.0)})
    plan = small_plan(dims, spacing_mm=(None, None, None), augmentation=aug)
    matrix = in_mm(augment.draw(plan, np.random.default_rng(2), SPACING, SHAPE))
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-9) and np.abs(matrix[0, 1]) > 0.02
    assert dims == 3 or np.allclose(matrix[2], [0, 0, 1])


def test_elastic_displacement_is_in_millimetres_of_the_scan():
    plan = small_plan(
        2,
        spacing_mm=(None, None, None),
        augmentation=NOTHING.model_copy(update={"elastic_p": 1.0, "elastic_mm": 3.0}),
    )
    drawn = [
        augment.draw(plan, np.random.default_rng(n), (0.5, 2.0, 4.0), SHAPE).elastic
        for n in range(60)
    ]
    assert np.std([d[0] for d in drawn]) == pytest.approx(6.0, rel=0.1) and np.std(
        [d[1] for d in drawn]
    ) == pytest.approx(1.5, rel=0.1)


# ---- missing channels ----


def test_channels_are_dropped_as_often_as_asked_and_never_all():
    x, aug, rng = (
        torch.randn(3, 4, 5, 1) + 5,
        NOTHING.model_copy(update={"drop_channel_p": 0.4}),
        np.random.default_rng(0),
    )
    gone = []
    for _ in range(3000):
        out = intensity_changed(x, aug, rng)
        empty = ~out.flatten(1).any(1)
        assert torch.equal(out[~empty], x[~empty]) and not empty.all()
        gone.append(empty.numpy())
    share = np.mean(gone, axis=0)
    assert np.allclose(share, 0.4 - 0.4**3 / 3, atol=0.03)  # where all would go, one of three stays
    # None, one or two at once; the sample itself is left alone.
    assert np.ptp(np.sum(gone, axis=1)) == 2 and x.flatten(1).any(1).all()


def test_one_channel_is_never_dropped():
    x = torch.randn(1, 4, 4, 4)
    aug = NOTHING.model_copy(update={"drop_channel_p": 0.9})
    assert all(
        torch.equal(intensity_changed(x, aug, np.random.default_rng(n)), x) for n in range(20)
    )


def test_dropping_comes_after_every_other_change_and_is_drawn_from_the_sample_s_stream(tmp_path):
    rng = np.random.default_rng(0)
    label = np.ones((16, 16, 16), np.uint8)
    store = Store(tmp_path)
    store.add("a", rng.normal(3, 1, (4, 16, 16, 16)), label, 2, (16, 16, 16))
    aug = Augmentation(brightness_p=1, noise_p=1, gamma_p=1, drop_channel_p=0.5)
    plan = small_plan(
        channels=tuple(Channel(name=n, normalise=Normalisation(kind="none")) for n in "abcd"),
        network=small_network(channels=4),
        augmentation=aug,
    )
    first = [draw_batch(plan, [store.open("a")], 5, step)[0] for step in range(6)]
    empty = torch.stack([(~x.flatten(2).any(2)) for x in first])
    assert empty.any() and not empty.all(-1).any()
    assert all(
        torch.equal(x, draw_batch(plan, [store.open("a")], 5, step)[0])
        for step, x in enumerate(first)
    )


# ---- plans without the new options ----


def test_options_that_are_off_draw_no_random_number():
    rng, other = np.random.default_rng(8), np.random.default_rng(8)
    augment.draw(small_plan(2, augmentation=NOTHING), rng, SPACING, SHAPE)
    other.random(3)  # rotation, scale, elastic
    assert rng.bit_generator.state == other.bit_generator.state
    intensity_changed(torch.randn(2, 4, 4, 1), NOTHING, rng)
    other.random(6)  # low resolution, blur, noise, brightness, contrast, gamma
    assert rng.bit_generator.state == other.bit_generator.state

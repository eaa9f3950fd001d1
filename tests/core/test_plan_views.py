"""Views: what each view's plan, labels and prepared cases are, held against moving arrays by
hand.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.plans import small_network, small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import BundleError, PlanError
from delineate.core.labels import LabelSet
from delineate.core.plan import Augmentation, Inference, Loss, Plan, View
from delineate.core.store import Store, StoredCase

NAMES = {1: "left kidney", 2: "liver", 4: "right kidney", 9: "left lung"}
VIEWS = (
    View(axis=2, patch=(16, 8, 1), weight=0.4),
    View(axis=1, patch=(12, 1, 16), weight=0.4),
    View(axis=0, patch=(1, 16, 12), weight=0.2, merge_sides=True),
)


def plan_with_views(**changes) -> Plan:
    base = {
        "views": VIEWS,
        "patch": (16, 8, 1),
        "spacing_mm": (1.0, 2.0, 3.0),
        "network": small_network(2, classes=5),
    }
    return small_plan(2, NAMES, **{**base, **changes})


def test_merging_joins_pairs_and_leaves_the_rest():
    labels = LabelSet.from_names(NAMES)
    merged = labels.merged()
    assert [(b.value, b.name, b.side) for b in merged] == [
        (1, "kidney", None),
        (2, "liver", None),
        (9, "left lung", "left"),
    ]
    assert labels.merge_table().tolist() == [0, 1, 2, 1, 3]
    assert merged.merge_table().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({1: "left", 2: "right"}, ["left + right"]),
        (
            {1: "kidney", 2: "left kidney", 3: "right kidney"},
            ["kidney", "left kidney + right kidney"],
        ),
    ],
)
def test_a_merged_name_is_never_empty_or_taken(names, expected):
    assert LabelSet.from_names(names).merged().names == expected


def test_views_are_named_by_their_planes():
    assert list(plan_with_views().named_views()) == ["axial", "coronal", "sagittal"]
    assert list(plan_with_views(orientation="ASR").named_views()) == [
        "sagittal",
        "axial",
        "coronal",
    ]


def test_a_view_s_plan_says_everything_in_the_view_s_axes():
    augmentation = Augmentation(rotation_deg=(1, 2, 3), mirror=(0, 1, 2))
    weights = (0.5, 2.0, 1.0, 2.0, 4.0)
    plan = plan_with_views(
        augmentation=augmentation,
        inference=Inference(mirror=(0, 2)),
        loss=Loss(class_weights=weights),
    )
    axial, coronal, sagittal = (plan.seen(view) for view in plan.views)
    assert [p.orientation for p in (axial, coronal, sagittal)] == ["RAS", "RSA", "ASR"]
    assert [p.spacing_mm for p in (axial, coronal, sagittal)] == [(1, 2, 3), (1, 3, 2), (2, 3, 1)]
    assert [p.patch for p in (axial, coronal, sagittal)] == [(16, 8, 1), (12, 16, 1), (16, 12, 1)]
    assert [p.augmentation.rotation_deg for p in (axial, coronal, sagittal)] == [
        (1, 2, 3),
        (1, 3, 2),
        (2, 3, 1),
    ]
    assert [p.augmentation.mirror for p in (axial, coronal, sagittal)] == [
        (0, 1)
    ] * 3  # a flip along the sliced axis changes no slice
    assert [p.inference.mirror for p in (axial, coronal, sagittal)] == [(0,), (0, 1), (1,)]
    assert [p.sided_axis for p in (axial, coronal, sagittal)] == [0, 0, 2]
    assert [p.network.classes for p in (axial, coronal, sagittal)] == [5, 5, 4]
    assert axial.loss.class_weights == weights
    # Median / frequency: two frequencies of 2 add up to 1.
    assert sagittal.loss.class_weights == pytest.approx((0.5, 1.0, 1.0, 4.0))
    assert (
        all(not p.views for p in (axial, coronal, sagittal))
        and Plan.from_json(sagittal.to_json()) == sagittal
    )


@pytest.mark.parametrize(
    "views",
    [
        (View(axis=0, patch=(16, 16, 16)),),
        (View(axis=1, patch=(16, 1, 10)),),
        (View(axis=2, patch=(16, 16, 1)), View(axis=2, patch=(8, 8, 1))),
    ],
)
def test_views_that_cannot_be_are_refused(views):
    with pytest.raises((PlanError, ValueError), match="view"):
        plan_with_views(views=views)


def test_a_bundle_may_have_some_of_the_views_and_no_others():
    weights = {"w": np.zeros(1, np.float32)}
    plan = plan_with_views()
    assert (
        Bundle(plan, (Member("fold_0_axial", weights, 0, 0.4, "axial"),)).members[0].view == "axial"
    )
    for view in ("", "oblique"):
        with pytest.raises(BundleError, match="views"):
            Bundle(plan, (Member("fold_0", weights, 0, 1.0, view),))


@pytest.fixture
def stored(tmp_path) -> StoredCase:
    rng = np.random.default_rng(1)
    label = np.zeros((13, 9, 7), np.uint8)
    label[1:4, 2:7, 1:6], label[5:9, 3:5, 2:4], label[10:12, 1:8, 3:6], label[0, 0, 0] = 1, 2, 3, 4
    store = Store(tmp_path / "store")
    store.add("a", rng.normal(size=(2, 13, 9, 7)), label, 5, (4, 4, 4), spacing_mm=(1.0, 2.0, 3.0))
    return store.open("a")


@pytest.mark.parametrize("view", VIEWS, ids=["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("loaded", [True, False])
def test_a_stored_case_is_seen_as_its_transposed_self(stored, view, loaded):
    table = LabelSet.from_names(NAMES).merge_table() if view.merge_sides else np.arange(5)
    whole = stored.loaded()
    seen = (whole if loaded else stored).seen(view.order, table)
    image, label = (
        np.transpose(whole.image, (0, *(1 + a for a in view.order))),
        table[whole.label].transpose(view.order),
    )
    assert seen.shape == label.shape and seen.spacing_mm == tuple(
        (1.0, 2.0, 3.0)[a] for a in view.order
    )
    assert (
        seen.label.dtype == np.uint8 and seen.image.shape == image.shape and seen.step == whole.step
    )
    for box in ((slice(2, 6), slice(1, 5), slice(3, 4)), (slice(0, 3), slice(None), slice(6, 7))):
        assert np.array_equal(seen.image[(slice(None), *box)], image[(slice(None), *box)])
        assert np.array_equal(seen.label[box], label[box])
    assert np.array_equal(seen.image[:], image) and np.array_equal(seen.loaded().label, label)
    assert set(seen.points) == set(np.unique(label)) - {0}
    for index, voxels in seen.points.items():
        assert (label[tuple(voxels.T)] == index).all() and len(voxels) == (label == index).sum()

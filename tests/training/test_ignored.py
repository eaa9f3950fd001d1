"""Ignored voxels: no loss, no gradient, no weight, no centre of a patch and no score."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.cohorts.imitate import AFFINE, SHAPE, nifti, noise
from tests.plans import small_plan

from delineate.cohorts.checks.doctor import examine
from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_label
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions, TrainOptions
from delineate.commands.train.preparation import prepare_cohort
from delineate.core.errors import LabelError, UsageError
from delineate.core.labels import IGNORED, LabelMapping, LabelSet
from delineate.core.manifest import Manifest
from delineate.core.plan import Augmentation, Loss
from delineate.core.store import Store, StoredCase
from delineate.planning.fingerprint import examine as fingerprint
from delineate.preprocessing.resample import resample_labels
from delineate.training import augmentation as augment
from delineate.training import losses, validation
from delineate.training.patches import draw_batch

TERMS = ("dice", "generalised_dice", "tversky", "cross_entropy", "binary_cross_entropy", "focal")
NOTHING = dict.fromkeys(TERMS, 0.0)


def scene(shape=(2, 3, 6, 5, 4), seed=0):
    """Logits, truth with ignored voxels (index 3), and where they are."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=draws, dtype=torch.float64)
    truth = torch.randint(0, 3, (shape[0], *shape[2:]), generator=draws)
    away = torch.rand(truth.shape, generator=draws) < 0.3
    return x, truth.masked_fill(away, 3), away


def loss_of(*names: str, **more) -> Loss:
    return Loss(**(NOTHING | dict.fromkeys(names, 1.0)), ignore=True, **more)


LOSSES = {
    **{name: loss_of(name) for name in TERMS},
    "fused": loss_of("dice", "cross_entropy"),
    "by sample": loss_of("dice", "cross_entropy", batch_dice=False, background=True),
    "weighted": loss_of("dice", "cross_entropy", class_weights=(1.0, 2.0, 3.0), boundary=2.0),
    "general": loss_of(*TERMS, class_weights=(1.0, 2.0, 3.0), boundary=2.0, background=True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_at_ignored_voxels_and_no_effect_of_their_logits(name):
    x, truth, away = scene()
    x.requires_grad_()
    cost = losses.combined(x, truth, LOSSES[name])
    cost.backward()
    there = away[:, None].expand_as(x)
    assert not x.grad[there].any() and x.grad[~there].any()
    with torch.no_grad():
        other = torch.where(there, 20 * torch.randn_like(x), x)
        assert torch.allclose(losses.combined(other, truth, LOSSES[name]), cost, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_finite_differences(name):
    x, truth, _ = scene((1, 3, 3, 3, 2))
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: losses.combined(z, truth, LOSSES[name]), (x,), atol=1e-6
    )


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_that_of_the_other_voxels_alone(name):
    """Rows of ignored voxels at the end cost what the volume without these rows costs."""
    x, truth, _ = scene((2, 3, 6, 5, 4))
    truth = truth.clamp(max=2)
    truth[:, 4:] = 3
    plain = LOSSES[name].model_copy(update={"ignore": False})
    cost = losses.combined(x, truth, LOSSES[name])
    assert torch.allclose(cost, losses.combined(x[:, :, :4], truth[:, :4], plain), atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_without_ignored_voxels_nothing_changes(name):
    x, truth, _ = scene()
    truth = truth.clamp(max=2)
    plain = LOSSES[name].model_copy(update={"ignore": False})
    pair = [losses.combined(x, truth, one) for one in (plain, LOSSES[name])]
    assert torch.allclose(*pair, atol=1e-12)


def test_all_voxels_ignored_is_finite_and_has_no_gradient():
    x, truth, _ = scene()
    x.requires_grad_()
    away = torch.full_like(truth, 3)
    cost = losses.deeply_supervised([x, x[..., ::2, :, :]], away, loss_of(*TERMS))
    cost.backward()
    assert torch.isfinite(cost) and not x.grad.any()


def test_an_ignored_index_is_refused_unless_the_plan_ignores():
    x, truth, _ = scene()
    with pytest.raises(ValueError, match=r"0\.\.2, found 0\.\.3"):
        losses.combined(x, truth, Loss())


def test_ignored_voxels_are_not_counted_on_either_device(monkeypatch):
    _, truth, away = scene()
    predicted = torch.randint(0, 3, truth.shape)
    found = validation.counts(truth, predicted, 3, ignore=True)
    known = validation.counts(truth[~away], predicted[~away], 3)
    assert torch.equal(found, known)
    outside = predicted.where(truth < 3, truth.new_tensor(3))
    assert torch.equal(validation._class_after_class(truth, outside, 4)[:, :3], known)


# ---- cohorts ----


def masks(root, value, dtype=np.int16, names=None, junk=0):
    """Six cases with the structures 1 and 2, and a band of ``value`` over part of both; ``junk``
    changes what is below the band.
    """
    for n in range(6):
        array = np.zeros(SHAPE, dtype)
        array[2:6, 2:6, 1:5], array[6:9, 2:6, 1:5] = 1, 2
        array[3:8, 4:6, 1:5] = value
        folder = "imagesTr" if names else "images"
        tail = "_0000" if names else ""
        nifti(root / folder / f"c{n}{tail}.nii.gz", noise(n))
        nifti(root / folder.replace("images", "labels") / f"c{n}.nii.gz", array)
    if names:
        meta = {"channel_names": {"0": "MR"}, "labels": names, "file_ending": ".nii.gz"}
        (root / "dataset.json").write_text(json.dumps(meta))
    return root


NNUNET = {"background": 0, "a": 1, "b": 2, "ignore": 3}


def stated(tmp_path, how):
    """The cohort with 255, -1 or nnU-Net's label ignored, stated in one of the possible ways."""
    if how == "dataset.json":
        return discover(masks(tmp_path / "c", 3, names=NNUNET))
    root = masks(tmp_path / "c", -1 if how == "option -1" else 255)
    if how.startswith("option"):
        return discover(root, ignore=(-1, 255))
    path = tmp_path / "own.yaml"
    if how == "labels":
        path.write_text("labels:\n  a: 1\n  b: 2\nignore: 255\nrest: refuse\n")
        return discover(root, labels=path)
    path.write_text(
        "channels:\n  MR: images/{id}.nii.gz\nlabel: labels/{id}.nii.gz\nignore: [-1, 255]\n"
    )
    return discover(root, description=path)


@pytest.mark.parametrize(
    "how", ["dataset.json", "option 255", "option -1", "labels", "description"]
)
def test_a_stated_value_is_ignored_and_makes_no_structure(tmp_path, how):
    found = stated(tmp_path, how)
    cohort = found.manifest
    assert cohort.labels.values == [1, 2] and cohort.mapping.ignore
    assert Manifest.from_jsonl(cohort.to_jsonl()).mapping == cohort.mapping
    label = read_label(cohort.cases[0], cohort)
    assert label.array.dtype == np.uint16
    assert np.array_equal(np.unique(label.array), [0, 1, 2, IGNORED])
    assert (label.array[3:8, 4:6, 1:5] == IGNORED).all()
    examined = examine((cohort.cases[0], cohort))
    assert examined.ignored == 5 * 2 * 4 and set(examined.voxels) == {1, 2}
    assert not [f for f in (*found.findings, *examined.findings) if f.severity != "note"]


def test_an_unstated_value_teaches_how_to_state_it(tmp_path):
    with pytest.raises(LabelError, match=r"found -1 to 2.*--ignore -1"):
        discover(masks(tmp_path / "minus", -1))
    found = discover(masks(tmp_path / "high", 255))
    assert found.manifest.labels.values == [1, 2, 255]
    (warning,) = [f for f in found.findings if f.severity == "warning"]
    assert "--ignore 255" in warning.message


def test_a_named_255_or_a_single_one_is_no_suspect(tmp_path):
    for n in range(3):
        nifti(tmp_path / "images" / f"c{n}.nii.gz", noise(n))
        array = np.zeros(SHAPE, np.uint8)
        array[2:5, 2:5, 2:4], array[6:8] = 255, 128
        nifti(tmp_path / "labels" / f"c{n}.nii.gz", array)
    assert not [f for f in discover(tmp_path).findings if f.severity == "warning"]


def test_colours_and_files_may_be_ignored_too():
    labels = LabelSet.from_names({1: "a"})
    colours = np.zeros((3, 2, 2, 1), np.uint8)
    colours[:, 0, 0, 0], colours[:, 1, 1, 0] = (255, 0, 0), (224, 224, 192)
    mapping = LabelMapping(rgb=(((255, 0, 0), 1),), ignore=(0xE0E0C0,))
    assert mapping.apply(colours, labels)[..., 0].tolist() == [[1, 0], [0, IGNORED]]
    channels = np.zeros((2, 2, 2, 1), np.int16)
    channels[1, 0, 0, 0], channels[1, 1, 1, 0] = 1, -1
    mapping = LabelMapping(channels=((1, 1),), ignore=(-1,))
    assert mapping.apply(channels, labels)[..., 0].tolist() == [[1, 0], [0, IGNORED]]
    assert LabelMapping.from_json(mapping.to_json()) == mapping
    with pytest.raises(LabelError, match="65535"):
        one = LabelSet.from_names({IGNORED: "a"})
        LabelMapping(ignore=(7,)).apply(np.full((1, 1, 1), IGNORED, np.uint16), one)


def test_what_is_under_the_band_changes_neither_fingerprint_nor_store(tmp_path):
    """The truth below ignored voxels is unknown: whatever is written there has no effect."""
    cohort = discover(masks(tmp_path / "c", 255), ignore=(255,)).manifest
    case = cohort.cases[0]
    found = fingerprint(case, cohort)
    truth = read_label(case, cohort).array
    assert found.voxels[IGNORED] == 40 and found.voxels[1] == int((truth == 1).sum())
    image = np.asarray(nib.load(case.images[0].path).dataobj)
    inside = set(image[(truth == 1) | (truth == 2)].ravel().tolist())
    assert set(found.inside[0]) <= inside
    plan = small_plan(loss=Loss(ignore=True), spacing_mm=(None, None, None))
    store = Store(tmp_path / "store")
    assert not [o.error for o in prepare_cohort(cohort, plan, store) if o.error]
    stored = store.open(case.id)
    label = np.asarray(stored.label[:])
    assert set(np.unique(label)) == {0, 1, 2, 3} and (label == 3).sum() == 40
    for voxels in stored.points.values():
        assert not (label[tuple(voxels.T)] == 3).any()
    image, patch = draw_batch(plan, [stored.loaded()], 0, 0)
    assert int(patch.max()) == 3 and image.shape[0] == len(patch)


def test_resampling_and_turning_keep_ignored_voxels_ignored():
    rng = np.random.default_rng(0)
    label = np.zeros((24, 20, 16), np.uint8)
    label[4:12, 5:15, 3:9], label[12:20, 5:15, 3:9], label[8:16, 8:12, 2:14] = 1, 2, 3
    finer = resample_labels(label, (48, 40, 32))
    assert (finer[18:30, 18:22, 6:26] == 3).all()
    every = Augmentation(rotation_p=1, scale_p=1, elastic_p=1, mirror=(0, 1, 2))
    plan = small_plan(augmentation=every, loss=Loss(ignore=True))
    # The image shows the label, so ignored voxels must be where the image shows them.
    image = (label * 2.0 + rng.normal(0, 0.01, label.shape))[None].astype(np.float16)
    for seed in range(4):
        spatial = augment.draw(plan, np.random.default_rng(seed), (1.0, 1.0, 1.0), label.shape)
        x, y = augment.sample_patch(
            StoredCase("a", image, label, {}), (12, 10, 8), (16, 16, 16), spatial
        )
        shown = torch.round(x[0] / 2) == 3
        assert (y[shown] == 3).float().mean() > 0.8 and (shown[y == 3]).float().mean() > 0.5


def test_sides_are_exchanged_and_ignored_voxels_are_not():
    label = np.zeros((16, 16, 16), np.uint8)
    label[:5], label[5:10], label[10:] = 1, 2, 3
    case = StoredCase("a", np.zeros((1, 16, 16, 16), np.float32), label, {})
    flips = Augmentation.none().model_copy(update={"mirror": (0,)})
    mirrored = small_plan(loss=Loss(ignore=True), augmentation=flips)
    seen = set()
    for step in range(8):
        _, patch = draw_batch(mirrored, [case], 0, step)
        for one in patch:
            seen.add(tuple(one[:, 0, 0].tolist()))
    flipped = (3,) * 6 + (1,) * 5 + (2,) * 5
    assert seen == {(1,) * 5 + (2,) * 5 + (3,) * 6, flipped}
    assert np.array_equal(
        case.seen((2, 1, 0), np.array([0, 1, 1])).label[:][0, 0], [1] * 10 + [2] * 6
    )


# ---- scores ----


def predictions(root, junk):
    """Predictions that are right outside the band, and ``junk`` inside it."""
    for n in range(6):
        array = np.zeros(SHAPE, np.uint8)
        array[2:6, 2:6, 1:5], array[6:9, 2:6, 1:5] = 1, 2
        array[3:8, 4:6, 1:5] = junk
        nifti(root / f"c{n}.nii.gz", array)
    return root


@pytest.mark.parametrize("truth", ["cohort", "dataset.json", "files", "file"])
def test_ignored_voxels_have_no_score(tmp_path, truth):
    names = NNUNET if truth in ("cohort", "dataset.json") else None
    root = masks(tmp_path / "c", 3 if names else 255, names=names)
    folder = root / ("labelsTr" if names else "labels")
    there = {"cohort": root, "file": folder / "c0.nii.gz"}.get(truth, folder)
    ignore = () if names else (255,)
    rows = []
    for junk in (0, 1, 2):
        mine = predictions(tmp_path / f"p{junk}", junk)
        mine = mine / "c0.nii.gz" if truth == "file" else mine
        out = tmp_path / f"out{junk}"
        options = EvaluateOptions(workers=1, ignore=ignore, report=False)
        found = evaluate(mine, there, out, options)
        assert found.labels.values == [1, 2]
        rows.append(json.loads((out / "scores.json").read_text())["rows"])
        assert any("ignores" in note for note in found.notes)
        assert found.confusion is not None
        voxels = (1 if truth == "file" else 6) * (int(np.prod(SHAPE)) - 40)
        assert int(found.confusion.voxels.sum()) == voxels
    assert rows[0] == rows[1] == rows[2]
    values = {(r["label"], r["metric"]): r["value"] for r in rows[0]}
    for (_, metric), value in values.items():
        if metric in ("dice", "iou"):
            assert value == 1
        if metric.startswith("hd95"):
            assert value == 0


def test_a_mistake_outside_the_band_still_counts(tmp_path):
    root = masks(tmp_path / "c", 255)
    mine = predictions(tmp_path / "p", 0)
    wrong = np.asarray(nib.load(mine / "c0.nii.gz").dataobj).copy()
    wrong[2:6, 2:4, 1:5] = 2
    nib.save(nib.Nifti1Image(wrong, AFFINE), mine / "c0.nii.gz")
    found = evaluate(mine, root / "labels", None, EvaluateOptions(workers=1, ignore=(255,)))
    assert min(r.value for r in found.scores if r.metric == "dice") < 0.5


def test_the_option_takes_whole_numbers(tmp_path):
    from delineate.commands.parsing import parse_whole_numbers

    assert parse_whole_numbers(["255", "-1,7"]) == (255, -1, 7)
    with pytest.raises(UsageError, match="whole numbers"):
        parse_whole_numbers(["grey"])
    assert TrainOptions(ignore=(255,)).ignore == (255,)

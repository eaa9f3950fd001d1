from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.plans import intensity_changed, small_network, small_plan

from delineate.core.errors import TrainingError
from delineate.core.inputs import read_json_lines
from delineate.core.plan import Augmentation, Schedule
from delineate.core.store import Store, StoredCase
from delineate.inference import engine as infer
from delineate.training import augmentation as augment
from delineate.training.loop import TrainingJob, fit
from delineate.training.patches import batches, draw_batch
from delineate.training.schedule import Clock, rate

# ---- augmentation ----


def scene(shape=(24, 20, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A picture in which the image tells the label, so that both must move together."""
    rng = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    label[4:12, 5:15, 3:9] = 1
    label[13:20, 6:14, 7:13] = 2
    return (label * 2.0 + rng.normal(0, 0.01, shape))[None].astype(np.float16), label


def test_image_and_label_move_together():
    image, label = scene()
    plan = small_plan(
        augmentation=Augmentation(
            rotation_p=1, rotation_deg=(25, 25, 25), scale_p=1, elastic_p=1, mirror=(0, 1, 2)
        )
    )
    for seed in range(8):
        spatial = augment.draw(plan, np.random.default_rng(seed), (1.0, 1.0, 1.0), (24, 20, 16))
        x, y = augment.sample_patch(
            StoredCase("a", image, label, {}), (12, 10, 8), (16, 16, 16), spatial
        )
        assert x.shape == (1, 16, 16, 16) and y.dtype == torch.uint8
        agree = (torch.round(x[0] / 2).long() == y).float().mean()
        assert agree > 0.8  # they differ only in the interpolated rim


def test_a_plain_patch_is_a_slice_even_beyond_the_edge():
    image, label = scene()
    spatial = augment.draw(
        small_plan(augmentation=Augmentation(rotation_p=0, scale_p=0)),
        np.random.default_rng(0),
        (1.0, 1.0, 1.0),
        (24, 20, 16),
    )
    x, y = augment.sample_patch(
        StoredCase("a", image, label, {}), (2, 10, 8), (16, 16, 16), spatial
    )
    assert torch.equal(x[0, 6:], torch.from_numpy(image[0, :10, 2:18, 0:16].astype(np.float32)))
    assert not x[0, :6].any() and torch.equal(y[6:], torch.from_numpy(label[:10, 2:18, 0:16]))


def test_rotation_is_rigid_in_millimetres():
    plan = small_plan(
        spacing_mm=(1.0, 1.0, 4.0),
        augmentation=Augmentation(rotation_p=1, rotation_deg=(30, 30, 30), scale_p=0),
    )
    matrix = augment.draw(plan, np.random.default_rng(3), (1.0, 1.0, 4.0), (24, 20, 16)).matrix
    in_mm = np.diag([1, 1, 4]) @ matrix @ np.diag([1, 1, 0.25])
    assert np.allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-9) and not np.allclose(matrix, np.eye(3))


def test_mirroring_swaps_sides(tmp_path):
    image, label = scene((16, 16, 16))
    plan = small_plan(
        foreground=0.0,
        augmentation=Augmentation(
            rotation_p=0,
            scale_p=0,
            mirror=(0,),
            noise_p=0,
            blur_p=0,
            brightness_p=0,
            contrast_p=0,
            gamma_p=0,
            low_resolution_p=0,
        ),
    )
    store = Store(tmp_path)
    store.add("a", image, label, 3, plan.patch)
    cases = [store.open("a")]
    kinds = set()
    for step in range(12):
        x, y = draw_batch(plan, cases, 0, step)
        for one, truth in zip(x[:, 0], y, strict=True):
            flipped = not torch.allclose(
                one, torch.from_numpy(image[0].astype(np.float32)), atol=1e-3
            )
            swap = torch.tensor([0, 2, 1])
            expected = (
                swap[torch.from_numpy(label.astype(np.int64))].flip(0)
                if flipped
                else torch.from_numpy(label.astype(np.int64))
            )
            assert torch.equal(truth, expected)
            kinds.add(flipped)
    assert kinds == {True, False}


def test_intensity_changes_keep_shape_and_are_finite():
    x = torch.randn(2, 16, 16, 16)
    always = Augmentation(
        noise_p=1, blur_p=1, brightness_p=1, contrast_p=1, gamma_p=1, low_resolution_p=1
    )
    for sample in (x, x[..., :1]):
        out = intensity_changed(sample, always, np.random.default_rng(0))
        assert (
            out.shape == sample.shape and torch.isfinite(out).all() and not torch.equal(out, sample)
        )


# ---- patches ----


@pytest.fixture
def cases(tmp_path):
    store, out = Store(tmp_path / "store"), []
    for n in range(3):
        image, label = scene((24 + 4 * n, 20, 16))
        store.add(f"c{n}", image, label, 3, (16, 16, 16), seed=n)
        out.append(store.open(f"c{n}"))
    return out


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_depends_on_its_step_alone(cases, dims):
    plan = small_plan(dims)
    stream = batches(plan, cases, seed=5, first=7, threads=3)
    for step in range(7, 12):
        x, y = next(stream)
        again = draw_batch(plan, [c.loaded() for c in cases], 5, step)
        assert torch.equal(x, again[0]) and torch.equal(y, again[1])
        assert x.shape == (2, 1, *plan.patch[:dims]) and y.shape == (2, *plan.patch[:dims])
    stream.close()


def test_foreground_is_drawn_as_often_as_asked(cases):
    plan = small_plan(
        foreground=1.0,
        patch=(8, 8, 8),
        network=small_network(strides=((2, 2, 2), (2, 2, 2))),
        augmentation=Augmentation(rotation_p=0, scale_p=0),
    )
    hit = sum(bool(y.any()) for step in range(20) for y in draw_batch(plan, cases, 0, step)[1])
    assert hit == 40


def test_an_error_names_its_case(cases):
    class Broken:
        shape = cases[0].label.shape
        dtype = cases[0].label.dtype

        def __getitem__(self, _):
            raise OSError("gone")

    broken = type(cases[0])("c_broken", cases[0].image, Broken(), cases[0].points)
    stream = batches(small_plan(), [broken], seed=0, first=0)
    with pytest.raises(TrainingError, match="case c_broken"):
        next(stream)


# ---- schedule ----


def test_the_rate_rises_then_falls_to_zero():
    for kind in ("cosine", "poly"):
        schedule = Schedule(kind=kind, epochs=10)
        rates = [rate(schedule, p) for p in np.linspace(0, 1, 101)]
        assert max(rates) == pytest.approx(1, abs=0.05) and rates[-1] == pytest.approx(0, abs=1e-6)
        assert all(a >= b for a, b in itertools.pairwise(rates[5:]))


def test_the_clock_counts_earlier_runs():
    clock = Clock(Schedule(budget_s=100), spent_s=60)
    assert 0.6 <= clock.progress(0) < 0.62
    assert Clock(Schedule(epochs=4, steps_per_epoch=5)).progress(10) == 0.5


# ---- the loop ----


def job(folder: Path, cases, **changes) -> TrainingJob:
    plan = small_plan(schedule=changes.pop("schedule", Schedule(epochs=6, steps_per_epoch=4)))
    return TrainingJob(plan, cases[:2], cases[2:], folder, torch.device("cpu"), seed=3, **changes)


def test_training_learns_and_leaves_its_files(tmp_path, cases):
    lines = []
    best = []
    fit(
        job(
            tmp_path / "run",
            cases,
            schedule=Schedule(epochs=12, steps_per_epoch=10, ema=0.9),
            listener=lines.append,
            on_best=lambda w, line: best.append(line),
        )
    )
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["val_dice_mean"] > 0.6 and best
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "last.safetensors",
        "last_before.safetensors",
        "best.safetensors",
        "best_before.safetensors",
        "log.jsonl",
    }
    assert [
        json.loads(text)["step"] for text in (tmp_path / "run/log.jsonl").read_text().splitlines()
    ] == [line["step"] for line in lines]


def test_a_deadline_is_kept_and_ends_annealed(tmp_path, cases):
    lines = []
    began = time.monotonic()
    fit(
        job(
            tmp_path / "run",
            cases,
            schedule=Schedule(budget_s=1000, steps_per_epoch=5),
            deadline=time.monotonic() + 4,
            listener=lines.append,
        )
    )
    assert time.monotonic() - began < 12
    assert lines[-1]["progress"] == 1 and "val_dice_mean" in lines[-1]


def test_nothing_to_learn_is_said(tmp_path):
    store = Store(tmp_path / "store")
    store.add("empty", np.zeros((1, 16, 16, 16)), np.zeros((16, 16, 16), np.uint8), 3, (16, 16, 16))
    with pytest.raises(TrainingError, match="nothing to learn"):
        fit(job(tmp_path / "run", [store.open("empty")]))


@pytest.mark.rounds
def test_killed_three_times_it_ends_bit_for_bit_the_same(tmp_path, cases):
    script = textwrap.dedent("""
        import sys, torch
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from delineate.core.plan import Schedule
        from delineate.core.store import Store, StoredCase
        from delineate.training.loop import TrainingJob, fit
        from tests.plans import small_plan
        torch.set_num_threads(2)
        store = Store(sys.argv[2])
        cases = [store.open(f"c{n}").loaded() for n in range(3)]
        plan = small_plan(schedule=Schedule(epochs=30, steps_per_epoch=8))
        fit(TrainingJob(plan, cases[:2], cases[2:], Path(sys.argv[3]), torch.device("cpu"), seed=3))
    """)
    command = [
        sys.executable,
        "-c",
        script,
        str(Path(__file__).parents[2]),
        str(tmp_path / "store"),
    ]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    rng = np.random.default_rng()
    for _ in range(3):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        waited = time.monotonic()
        while (
            not (tmp_path / "killed/last.safetensors").exists() and time.monotonic() - waited < 60
        ):
            time.sleep(0.05)
        time.sleep(float(rng.uniform(0.1, 2.0)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    for name in ("best.safetensors",):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    logs = [
        [
            {k: v for k, v in line.items() if k not in ("seconds", "epoch_s")}
            for line in read_json_lines(tmp_path / r / "log.jsonl")
        ]
        for r in ("whole", "killed")
    ]
    assert logs[0] == logs[1]


# ---- postprocessing ----


class Noisy(torch.nn.Module):
    """Finds class 1 where the image says so, and where it says 9: a stray island far away."""

    def forward(self, x):
        one = ((x > 1) & (x < 3)) | (x > 8)
        two = (x > 3) & (x < 8)
        return torch.cat([torch.zeros_like(x), one * 10.0, two * 10.0], 1)


def test_stray_pieces_are_dropped_where_validation_says_so(tmp_path):
    from delineate.training import postprocessing as postprocess

    store = Store(tmp_path)
    for n in range(3):
        image, label = scene()
        image[0, 20:23, 1:3, 1:3] = 9  # an island that is no structure
        label[2:4, 17:19, 12:14] = 2  # a second true piece of the other structure
        image[0, 2:4, 17:19, 12:14] = 4
        store.add(f"c{n}", image, label, 3, (16, 16, 16))
    cases = [store.open(f"c{n}") for n in range(3)]
    engine = infer.Engine(small_plan(), ((Noisy(), 1.0),), torch.device("cpu"), torch.float32)
    assert postprocess.choose(engine, cases, 60) == ("left part",)
    assert postprocess.choose(engine, cases[:1], 60) == ()


def test_a_prepared_case_with_more_classes_than_the_plan_is_named():
    plan = small_plan(3)
    label = np.full((20, 20, 20), 3, np.uint8)
    case = StoredCase(
        "odd",
        np.zeros((1, 20, 20, 20), np.int16),
        label,
        {1: np.array([[10, 10, 10]], np.int32)},
        (1.0, 1.0, 1.0),
        (1.0,),
    )
    with pytest.raises(
        TrainingError, match="odd: the preprocessed case has class 3, the plan has 0 to 2"
    ):
        draw_batch(plan, [case], 0, 0)

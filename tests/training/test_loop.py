from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.plans import small_network, small_plan

from delineate.core.errors import TrainingError
from delineate.core.inputs import read_json_lines
from delineate.core.plan import Augmentation, Loss, Optimiser, Schedule
from delineate.core.store import Store, StoredCase
from delineate.networks.build import build, load_weights
from delineate.training import loop, losses
from delineate.training import validation as scoring
from delineate.training.loop import TrainingJob, fit
from delineate.training.optimisers import make_optimiser
from delineate.training.patches import draw_batch
from delineate.training.schedule import Clock

OPTIMISERS = {
    "adam": Optimiser(kind="adam", weight_decay=1e-2),
    "adam_amsgrad": Optimiser(kind="adam", amsgrad=True),
    "adamw": Optimiser(kind="adamw"),
    "adamw_amsgrad": Optimiser(kind="adamw", amsgrad=True),
    "sgd": Optimiser(kind="sgd", learning_rate=0.02, momentum=0.9, nesterov=False),
    "sgd_nesterov": Optimiser(kind="sgd", learning_rate=0.02, momentum=0.9),
    "sgd_alone": Optimiser(kind="sgd", learning_rate=0.02, momentum=0.0),
    "muon": Optimiser(kind="muon"),
}
# One with a second moment and one with momentum in every run of the tests; `make rounds` has all.
OFTEN = ("adamw_amsgrad", "sgd_nesterov")


class KilledError(Exception):
    pass


@pytest.fixture
def cases(tmp_path) -> list[StoredCase]:
    store, out = Store(tmp_path / "store"), []
    for n in range(3):
        rng, label = np.random.default_rng(n), np.zeros((24 + 2 * n, 20, 6), np.uint8)
        label[4:12, 5:15, 1:4] = 1
        label[13:20, 6:14, 2:5] = 2
        store.add(
            f"c{n}",
            (label * 2.0 + rng.normal(0, 0.3, label.shape))[None],
            label,
            3,
            (16, 16, 1),
            seed=n,
            spacing_mm=(1.0, 1.3, 4.0),
        )
        out.append(store.open(f"c{n}").loaded())
    return out


def job(
    folder: Path,
    cases: list[StoredCase],
    die_at: int | None = None,
    lines: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> TrainingJob:
    """A small 2-D training; its listener raises at step ``die_at``, before that epoch's checkpoint,
    as a kill might.
    """

    def listen(line: dict[str, Any]) -> None:
        if lines is not None:
            lines.append(line)
        if line["step"] == die_at:
            raise KilledError

    plan = small_plan(2, **{"schedule": Schedule(epochs=6, steps_per_epoch=2), **changes})
    return TrainingJob(
        plan, cases[:2], cases[2:], folder, torch.device("cpu"), seed=3, listener=listen
    )


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = read_json_lines(folder / "log.jsonl")
    return [{k: v for k, v in line.items() if k not in ("seconds", "epoch_s")} for line in lines]


def same(a: Path, b: Path) -> bool:
    mine, theirs = load_file(a), load_file(b)
    return list(mine) == list(theirs) and all(np.array_equal(mine[k], theirs[k]) for k in mine)


# ---- optimisers ----


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.rounds) for name in OPTIMISERS],
)
def test_a_killed_run_ends_bit_for_bit_as_it_would_have(tmp_path, cases, name):
    changes = {
        "optimiser": OPTIMISERS[name],
        "network": small_network(2, norm="batch", dropout=0.2),
    }
    fit(job(tmp_path / "whole", cases, **changes))
    for die_at in (6, 10):
        with pytest.raises(KilledError):
            fit(job(tmp_path / "killed", cases, die_at=die_at, **changes))
    fit(job(tmp_path / "killed", cases, **changes))
    for file in ("best.safetensors", "last.safetensors"):
        assert same(tmp_path / "whole" / file, tmp_path / "killed" / file)
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")
    kept = load_file(tmp_path / "whole/last.safetensors")
    assert any(".max_exp_avg_sq" in k for k in kept) == ("amsgrad" in name)
    assert any(".momentum_buffer" in k for k in kept) == (name in ("sgd", "sgd_nesterov"))


@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.rounds)])
def test_a_run_in_bfloat16_learns_and_resumes_bit_for_bit(tmp_path, cases, monkeypatch, dims):
    """As on a processor with matrix units for it, with what the rules train: instance norm,
    Muon.
    """
    monkeypatch.setattr(loop.infer, "fast_dtype", lambda device: torch.bfloat16)
    patch = (16, 16, 1) if dims == 2 else (16, 16, 4)
    net, muon = (
        small_network(dims, strides=((2, 2, 1),) * 2),
        Optimiser(kind="muon", learning_rate=0.01),
    )
    changes = {
        "network": net,
        "patch": patch,
        "optimiser": muon,
        "schedule": Schedule(epochs=6, steps_per_epoch=4),
    }
    lines: list[dict[str, Any]] = []
    fit(job(tmp_path / "whole", cases, lines=lines, **changes))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    with pytest.raises(KilledError):
        fit(job(tmp_path / "killed", cases, die_at=12, **changes))
    fit(job(tmp_path / "killed", cases, **changes))
    assert same(tmp_path / "whole/last.safetensors", tmp_path / "killed/last.safetensors")


# ---- what the host looks at ----


LOSSES = {
    "usual": Loss(),
    "weighted": Loss(class_weights=(1.0, 2.0, 3.0), boundary=2.0),
    "all": Loss(generalised_dice=1, tversky=1, binary_cross_entropy=1, focal=1, squared=True),
    "of each sample": Loss(tversky=1, batch_dice=False),
}


@pytest.mark.parametrize("kind", ["muon", "adamw", "sgd"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_never_waits_for_its_device(loss, kind):
    """The meta device has no values: whatever asks for one raises, and so does what mixes it with
    the CPU. A GPU would stand idle there.
    """
    plan = small_plan(3, optimiser=Optimiser(kind=kind), loss=LOSSES[loss])
    module, average = (build(plan.network, 0).to("meta") for _ in range(2))
    optimiser = make_optimiser(module, plan.optimiser, torch.bfloat16)
    image, label = (
        torch.zeros(2, 1, *plan.patch, device="meta"),
        torch.zeros(2, *plan.patch, dtype=torch.int64, device="meta"),
    )
    for _ in range(2):
        outputs = module(image)
        value = losses.deeply_supervised(outputs, label, plan.loss)
        value.backward()
        torch.nn.utils.clip_grad_norm_(
            module.parameters(), plan.optimiser.clip_norm, error_if_nonfinite=False
        )
        optimiser.step()
        loop._update_ema(average, module, 0.9)
        figures = loop._step_stats(value, outputs, label, False)
    assert [f.device.type for f in figures] == ["meta", "meta"] and figures[1].shape == (
        3,
        plan.network.classes,
    )


@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_batch_whose_gradients_are_not_finite_is_left_out(
    tmp_path, cases, monkeypatch, value, by_sample
):
    """The weights and the statistics of batch norm stay finite, and the training goes on."""
    real, seen, said, lines = loop.losses.deeply_supervised, [], [], []

    def cost(outputs, *given):
        seen.append(len(seen))
        bad = value if seen[-1] == 4 else 1.0
        return real([one * bad for one in outputs], *given)

    monkeypatch.setattr(loop.losses, "deeply_supervised", cost)
    training = job(
        tmp_path,
        cases,
        lines=lines,
        schedule=Schedule(epochs=10, steps_per_epoch=3),
        network=small_network(2, norm="batch", deep_supervision=True),
    )
    fit(replace(training, say=said.append, by_sample=by_sample))
    kept = load_file(tmp_path / "last.safetensors")
    assert not [name for name, one in kept.items() if not np.isfinite(one).all()]
    assert [line.get("left_out", 0) for line in lines][-1] == 1
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert len(said) == 1 and "were not finite; their batches are left out (1 in all)" in said[0]


def test_nothing_is_read_from_a_gpu_to_leave_a_batch_out():
    norm, gradient, mean, before, loss = (torch.ones(n, device="meta") for n in ((), 2, 2, 2, ()))
    figures = loss, torch.ones(3, 3, device="meta")
    found = loop._without_infinite(norm, [gradient], [mean], [before], figures)
    assert [one.device.type for one in found] == ["meta", "meta"]


def test_a_loss_that_stays_infinite_ends_the_training_whatever_an_epoch_is(tmp_path, cases):
    """After 20 steps, over ten epochs of two; a checkpoint has counted the steps before it."""
    broken = [
        replace(case, image=np.full(case.image.shape, np.nan, np.float32), step=(1.0,))
        for case in cases
    ]
    with pytest.raises(TrainingError, match=r"not been finite for 20 steps \(step 20\)"):
        fit(job(tmp_path, broken, schedule=Schedule(epochs=30, steps_per_epoch=2)))


# ---- the averaged network ----


def test_the_statistics_of_batch_norm_are_averaged_as_the_weights_are():
    module, average = (build(small_network(2, norm="batch"), seed=n) for n in (0, 1))
    average.register_buffer("constant", torch.tensor([0.1, 0.7]))
    module.register_buffer("constant", torch.tensor([0.1, 0.7]))
    expected = {k: v.double() for k, v in average.state_dict().items()}
    for step in range(5):
        module(
            torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(step)) * (1 + step)
        )
        loop._update_ema(average, module, 0.9)
        expected = {k: 0.9 * v + 0.1 * module.state_dict()[k].double() for k, v in expected.items()}
    found, other = average.state_dict(), module.state_dict()
    moved = [k for k in found if "running" in k]
    assert moved and all(not torch.equal(found[k], other[k]) for k in moved)
    assert all(
        torch.allclose(found[k].double(), expected[k], atol=1e-6)
        for k in found
        if found[k].is_floating_point()
    )
    assert all(int(found[k]) == 5 for k in found if "num_batches" in k)
    assert torch.equal(found["constant"], other["constant"])


def test_without_an_average_the_trained_network_itself_is_kept(tmp_path, cases):
    fit(
        job(
            tmp_path,
            cases,
            schedule=Schedule(epochs=2, steps_per_epoch=3, ema=0.0),
            network=small_network(2, norm="batch"),
        )
    )
    last = load_file(tmp_path / "last.safetensors")
    trained = {k.removeprefix("model."): v for k, v in last.items() if k.startswith("model.")}
    assert any("running_var" in k for k in trained)
    assert all(
        np.array_equal(last["ema." + k], v)
        for k, v in trained.items()
        if "running" not in k and "tracked" not in k
    )


# ---- what each epoch tells ----


def test_training_dice_is_that_of_the_epoch_s_patches(tmp_path, cases, monkeypatch):
    """With a learning rate too small to change a weight, the epoch's Dice can be counted again from
    its batches.
    """
    # As they are counted again.
    monkeypatch.setattr(loop.infer, "fast_dtype", lambda device: torch.float32)
    lines: list[dict[str, Any]] = []
    still = Optimiser(learning_rate=1e-30, weight_decay=0.0)
    training = job(
        tmp_path,
        cases,
        lines=lines,
        optimiser=still,
        schedule=Schedule(epochs=10, steps_per_epoch=2),
    )
    fit(training)
    module = build(training.plan.network, seed=3).train()
    for epoch, line in enumerate(lines[:2]):
        truth, predicted = [], []
        for step in range(2 * epoch, 2 * epoch + 2):
            x, y = draw_batch(training.plan, cases[:2], 3, step)
            truth.append(y.numpy())
            predicted.append(module(x)[0].detach().numpy().argmax(1))
        t, p = np.stack(truth), np.stack(predicted)
        for index, name in ((1, "left part"), (2, "right part")):
            expected = (
                2 * ((t == index) & (p == index)).sum() / ((t == index).sum() + (p == index).sum())
            )
            assert 0.02 < expected < 1 and line["train_dice"][name] == pytest.approx(
                expected, abs=1e-9
            )
        assert line["train_dice_mean"] == pytest.approx(np.mean(list(line["train_dice"].values())))
    assert lines[0]["train_dice"] != lines[1]["train_dice"]


def test_each_epoch_has_its_line_and_is_validated_when_asked(tmp_path, cases):
    lines: list[dict[str, Any]] = []
    fit(
        job(
            tmp_path,
            cases,
            lines=lines,
            schedule=Schedule(epochs=7, steps_per_epoch=2, validate_every=3),
        )
    )
    # Half epochs too, so that every curve has ten points; and the last epoch is validated.
    assert [line["epoch"] for line in lines] == [n / 2 for n in range(1, 15)]
    assert [line["epoch"] for line in lines if "val_loss" in line] == [3, 6, 7]
    assert sum("patch_loss" in line for line in lines) >= 10
    for line in lines:
        assert line["epoch_s"] > 0 and {
            "learning_rate",
            "loss",
            "train_dice",
            "train_dice_mean",
            "progress",
        } <= set(line)
    assert sum(line["epoch_s"] for line in lines) / 2 < lines[-1]["seconds"]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 11), (3, 4), (9, 2), (10, 1)])
def test_every_curve_has_ten_points_however_few_the_epochs(tmp_path, cases, epochs, steps):
    lines: list[dict[str, Any]] = []
    schedule = Schedule(epochs=epochs, steps_per_epoch=steps)
    fit(job(tmp_path, cases, lines=lines, schedule=schedule))
    assert [line["step"] for line in lines if "val_loss" in line][-1] == steps * epochs
    for key in ("loss", "train_dice_mean"):
        assert sum(np.isfinite(line[key]) for line in lines) >= 10
    for kind in ("loss", "dice_mean"):
        validated = sum(f"val_{kind}" in line for line in lines)
        assert max(validated, sum(f"patch_{kind}" in line for line in lines)) >= 10
    # Long runs have whole cases alone.
    assert any("patch_loss" in line for line in lines) == (epochs < 10)


def test_validation_patches_draw_a_curve_where_whole_cases_take_too_long(
    tmp_path, cases, monkeypatch
):
    monkeypatch.setattr(loop, "VALIDATION_SHARE", 0.0)
    lines: list[dict[str, Any]] = []
    schedule = Schedule(budget_s=300.0, steps=60, steps_per_epoch=30)
    fit(job(tmp_path, cases, lines=lines, schedule=schedule))
    patches = [line for line in lines if "patch_dice_mean" in line]
    assert len(patches) >= 10 and len(lines) < 30
    assert sum("val_loss" in line for line in lines) <= 2
    # The network learns, and the curve shows it.
    assert patches[-1]["patch_loss"] < patches[0]["patch_loss"]


def test_validation_patches_choose_nothing(tmp_path, cases, monkeypatch):
    network = small_network(2, norm="batch")
    schedule = Schedule(epochs=3, steps_per_epoch=6)
    with_points, without = tmp_path / "with", tmp_path / "without"
    fit(job(with_points, cases, schedule=schedule, network=network))
    monkeypatch.setattr(loop, "_draws_points", lambda *given: False)
    fit(job(without, cases, schedule=schedule, network=network))
    weights = [(f / "best.safetensors").read_bytes() for f in (with_points, without)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(epochs=24, steps_per_epoch=10), [2, 4, 6, 8, 10, 12]),
        (Schedule(epochs=24, steps_per_epoch=10, validate_every=5), [5, 10]),
        (Schedule(budget_s=100, steps_per_epoch=10, validate_every=5), [5, 10]),
    ],
)
def test_when_a_validation_is_due(schedule, expected):
    due = []
    for epoch in range(1, 13):
        state, clock = loop.TrainingState(step=10 * epoch), Clock(schedule, spent_s=30)
        if loop._validation_is_due(state, clock, epoch / 24):
            due.append(epoch)
    assert due == expected


def test_every_run_has_ten_validations():
    """Also if its lines do not end together with the parts of the run."""
    for epochs in (12, 30, 31, 47, 100):
        state, clock, count = loop.TrainingState(), Clock(Schedule(budget_s=100), spent_s=50), 0
        for epoch in range(1, epochs):
            state.step = epoch * 100
            if loop._validation_is_due(state, clock, epoch / epochs):
                state.validated_at, count = epoch / epochs, count + 1
        assert count + 1 >= 10  # and one at the end


def test_by_the_clock_validation_keeps_to_its_share_of_the_time():
    asked = Schedule(budget_s=100, steps_per_epoch=10, validate_every=1)
    assert loop._validation_is_due(
        loop.TrainingState(step=10, validation_s=2), Clock(asked, spent_s=30), 0.3
    )
    assert not loop._validation_is_due(
        loop.TrainingState(step=10, validation_s=4), Clock(asked, spent_s=30), 0.3
    )
    in_epochs = Schedule(epochs=5, steps_per_epoch=10, validate_every=1)
    assert loop._validation_is_due(
        loop.TrainingState(step=10, validation_s=4), Clock(in_epochs, spent_s=5), 0.3
    )


def test_no_validation_is_begun_that_would_last_to_the_end():
    asked = Schedule(budget_s=100, steps_per_epoch=10, validate_every=1)
    state = loop.TrainingState(step=10, validation_s=6, validations=2)  # three seconds each
    assert loop._validation_is_due(state, Clock(asked, spent_s=96), 0.96)
    assert not loop._validation_is_due(state, Clock(asked, spent_s=98), 0.98)


# ---- which network is kept ----


@pytest.mark.parametrize("best_by", ["dice", "loss"])
def test_the_network_that_did_best_is_kept(tmp_path, cases, best_by):
    """A rate far too high makes the figures jump about, so that the best is not the last."""
    lines: list[dict[str, Any]] = []
    training = job(
        tmp_path,
        cases,
        lines=lines,
        schedule=Schedule(
            kind="constant",
            epochs=14,
            steps_per_epoch=2,
            warmup=0,
            ema=0.0,
            best_by=best_by,
            validate_every=1,
            keep_every=1,
        ),
        optimiser=Optimiser(kind="adam", learning_rate=0.4),
    )
    fit(training)
    scores = [line["val_dice_mean"] if best_by == "dice" else -line["val_loss"] for line in lines]
    best = max(range(len(scores)), key=lambda n: (scores[n], n))
    assert len(set(scores)) > 6 and best < len(scores) - 1
    assert same(tmp_path / "best.safetensors", tmp_path / f"epoch_{best + 1:05d}.safetensors")
    module = build(training.plan.network).eval()
    load_weights(module, load_file(tmp_path / "best.safetensors"))
    found = scoring.evaluate(training.plan, module, cases[2:], torch.device("cpu"))
    assert found["val_loss"] == pytest.approx(lines[best]["val_loss"]) and found[
        "val_dice"
    ] == pytest.approx(lines[best]["val_dice"], nan_ok=True)


def test_dice_and_loss_may_choose_differently_and_an_undefined_figure_never_wins():
    sure, unsure = (
        {"val_cases": 2, "val_dice_mean": d, "val_loss": v} for d, v in ((0.8, 1.9), (0.7, 0.4))
    )
    lost = {"val_cases": 2, "val_dice_mean": float("nan"), "val_loss": float("nan")}
    by_dice, by_loss = (Schedule(epochs=1, best_by=b) for b in ("dice", "loss"))
    assert (
        loop._score(by_dice, sure, 0.5)
        > loop._score(by_dice, unsure, 0.5)
        > loop._score(by_dice, lost, 0.9)
    )
    assert (
        loop._score(by_loss, unsure, 0.5)
        > loop._score(by_loss, sure, 0.5)
        > loop._score(by_loss, lost, 0.9)
    )
    nobody = {"val_cases": 0, "val_dice_mean": float("nan"), "val_loss": 0.0}
    assert loop._score(by_loss, nobody, 0.9) > loop._score(by_loss, nobody, 0.5)  # the latest


def test_without_validation_cases_the_latest_is_kept(tmp_path, cases):
    training = job(
        tmp_path,
        cases,
        schedule=Schedule(epochs=3, steps_per_epoch=2, ema=0.5, best_by="loss", keep_every=3),
    )
    training.validate = []
    fit(training)
    assert same(tmp_path / "best.safetensors", tmp_path / "epoch_00003.safetensors")


# ---- weights kept on the way ----


def test_weights_are_kept_every_so_many_epochs_also_by_a_killed_run(tmp_path, cases):
    schedule = Schedule(epochs=7, steps_per_epoch=2, keep_every=2, ema=0.6)
    fit(job(tmp_path / "whole", cases, schedule=schedule))
    names = [f"epoch_{n:05d}.safetensors" for n in (2, 4, 6)]
    assert sorted(p.name for p in (tmp_path / "whole").glob("epoch_*")) == names
    with pytest.raises(KilledError):
        fit(job(tmp_path / "killed", cases, die_at=6, schedule=schedule))
    # As epochs after the last checkpoint might have left them.
    for lost in (
        "epoch_00004.safetensors",
        "epoch_00006.safetensors",
    ):
        (tmp_path / "killed" / lost).write_bytes(b"of a branch that was cut")
    with pytest.raises(KilledError):
        fit(job(tmp_path / "killed", cases, die_at=8, schedule=schedule))
    assert [p.name for p in (tmp_path / "killed").glob("epoch_*")] == names[:1]
    fit(job(tmp_path / "killed", cases, schedule=schedule))
    assert all(
        (tmp_path / "whole" / n).read_bytes() == (tmp_path / "killed" / n).read_bytes()
        for n in names
    )
    assert len({(tmp_path / "whole" / n).read_bytes() for n in names}) == 3
    # As strictly as any model's.
    load_weights(build(small_network(2)), load_file(tmp_path / "whole" / names[0]))


# ---- the schedule as the loop follows it ----


def test_the_rate_is_divided_on_time(tmp_path, cases):
    lines: list[dict[str, Any]] = []
    schedule = Schedule(
        kind="step", epochs=6, steps_per_epoch=2, warmup=0.0, drop_every=1 / 3, drop_to=0.1
    )
    fit(
        job(
            tmp_path,
            cases,
            lines=lines,
            schedule=schedule,
            augmentation=Augmentation.none(),
            optimiser=Optimiser(learning_rate=0.01),
        )
    )
    ends = [line["learning_rate"] for line in lines if line["epoch"] % 1 == 0]
    assert ends == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


# ---- scoring ----


def test_counts_add_up_to_the_dice_of_masks():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, (2, 3, 5, 7)), rng.integers(0, 4, (2, 3, 5, 7))
    truth[truth == 3] = 0
    predicted[predicted == 3] = 1
    masks = torch.from_numpy(truth), torch.from_numpy(predicted)
    found = scoring.counts(*masks, 4)
    assert torch.equal(scoring._class_after_class(*masks, 4), found)  # as on a GPU
    named, mean = scoring.dice(found.numpy(), small_plan(names={1: "a", 2: "b", 3: "c"}).structures)
    for value, name in ((1, "a"), (2, "b")):
        both = ((truth == value) & (predicted == value)).sum()
        assert named[name] == pytest.approx(
            2 * both / ((truth == value).sum() + (predicted == value).sum())
        )
    assert np.isnan(named["c"]) and mean == pytest.approx((named["a"] + named["b"]) / 2)


class Tells(torch.nn.Module):
    """Class probabilities that follow from the image, so that the loss of a case can be written
    down.
    """

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), (x - 1) * 2, x - 2.5], 1)


@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        Loss(dice=0, cross_entropy=0, binary_cross_entropy=2),
        Loss(dice=0.5, tversky=1, cross_entropy=0),
    ],
)
def test_validation_loss_weighs_its_two_parts_as_the_plan_does(cases, loss):
    found = scoring.evaluate(small_plan(2, loss=loss), Tells().eval(), cases, torch.device("cpu"))
    x = [torch.from_numpy(c.values())[None] for c in cases]
    nats = [
        torch.nn.functional.cross_entropy(
            Tells()(v), torch.from_numpy(c.label.astype(np.int64))[None], reduction="sum"
        )
        for v, c in zip(x, cases, strict=True)
    ]
    entropy = float(sum(nats)) / sum(c.label.size for c in cases)
    by_voxel, by_region = loss.cross_entropy + loss.binary_cross_entropy, loss.dice + loss.tversky
    assert found["val_loss"] == pytest.approx(
        by_voxel * entropy + by_region * (1 - found["val_dice_mean"]), rel=1e-4
    )
    assert found["val_cases"] == 3 and 0.2 < found["val_dice_mean"] < 1


def test_an_undefined_dice_leaves_the_loss_finite():
    empty = StoredCase(
        "a", np.zeros((1, 16, 16, 3), np.float16), np.zeros((16, 16, 3), np.uint8), {}
    )
    found = scoring.evaluate(small_plan(2), Tells().eval(), [empty], torch.device("cpu"))
    assert np.isnan(found["val_dice_mean"]) and 0 < found["val_loss"] < 1


# ---- more time ----


def test_an_extension_goes_on_with_half_the_rate_and_ends_annealed(tmp_path, cases):
    lines: list[dict[str, Any]] = []
    schedule = Schedule(epochs=None, budget_s=60, steps_per_epoch=2, warmup=0)
    optimiser = Optimiser(kind="adamw", learning_rate=0.02)

    def train(extension: int) -> dict[str, Any]:
        lines.clear()
        fit(
            replace(
                job(tmp_path, cases, lines=lines, schedule=schedule, optimiser=optimiser),
                deadline=time.monotonic() + 3,
                extension=extension,
            )
        )
        return load_file(tmp_path / "best.safetensors")

    for step in range(4):
        # What is compiled on first use is compiled.
        draw_batch(job(tmp_path, cases).plan, cases, 0, step)
    train(0)
    last, rates = lines[-1], [line["learning_rate"] for line in lines]
    assert max(rates) > 0.015 and rates[-1] < 0.004 and last["progress"] > 0.95
    train(0)
    assert not lines  # it has ended
    train(1)
    rates = [line["learning_rate"] for line in lines]
    assert (
        lines[0]["step"] > last["step"]
        and lines[0]["progress"] < 0.5
        and lines[-1]["progress"] > 0.95
    )
    assert 0.006 < max(rates) <= 0.01 and rates[-1] < 0.002
    assert lines[-1]["seconds"] > last["seconds"] + 2
    train(1)
    assert len(rates) == len(lines) or not lines

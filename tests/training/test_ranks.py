"""One, two and four ranks make the same training: batches, losses, gradients, and resumed runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.plans import small_network, small_plan
from tests.training.test_loop import same

from delineate.core.inputs import read_json_lines
from delineate.core.plan import Augmentation, Loss, Optimiser, Plan, Schedule
from delineate.core.store import Store, StoredCase
from delineate.execution import launch
from delineate.inference.engine import fast_dtype
from delineate.networks.blocks import BatchNorm
from delineate.networks.build import build
from delineate.training import loop, losses, overlapping, validation
from delineate.training.by_sample import BySample
from delineate.training.losses import Share
from delineate.training.patches import draw_batch
from delineate.training.ranks import ALONE, Ranks, joined

CPU = torch.device("cpu")
CLOSE = 1e-4  # largest relative difference of a loss that is allowed
LOSSES = {
    "fused": Loss(),
    "fused, sample by sample": Loss(batch_dice=False, background=True),
    "general": Loss(dice=1, focal=1, tversky=1, generalised_dice=1, boundary=1, squared=True),
    "weighted": Loss(class_weights=(0.5, 1, 2)),
}


class Parts:
    """Parts of a batch one after the other: ``add`` gives the sums of the whole."""

    def __init__(self, cuts: list[slice], batch: int):
        self.cuts, self.batch = cuts, batch

    def losses(self, cost: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The sum of the losses of the parts, by the sums that a first round records."""
        recorded: list[list[torch.Tensor]] = []
        for cut in self.cuts:
            own: list[torch.Tensor] = []
            recorded.append(own)
            cost(
                *self.part(cut, logits, target),
                self.share(cut, lambda x, own=own: own.append(x) or x),
            )
        totals = [sum(sums) for sums in zip(*recorded, strict=True)]
        found = logits.new_zeros(())
        for cut in self.cuts:
            left = iter(totals)
            share = self.share(cut, lambda x, left=left: next(left))
            found = found + cost(*self.part(cut, logits, target), share)
        return found

    def share(self, cut: slice, add: Any) -> Share:
        return Share(max(0, cut.stop - cut.start), self.batch, add)

    @staticmethod
    def part(cut: slice, *tensors: torch.Tensor) -> list[torch.Tensor]:
        # An empty part computes the first sample.
        return [one[cut] if cut.stop > cut.start else one[:1] for one in tensors]


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_losses_of_parts_add_up(loss, ignore):
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 3, 6, 5, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3 + ignore, (3, 6, 5, 4), generator=draw)
    loss = Loss(**loss.model_dump() | {"ignore": ignore})

    def cost(x, y, share=losses.WHOLE):
        return losses.deeply_supervised([x, x[..., ::2, :, :]], y, loss, None, share)

    parts = Parts([slice(0, 1), slice(1, 3), slice(3, 3)], 3)
    whole, summed = cost(logits, target), parts.losses(cost, logits, target)
    assert summed.item() == pytest.approx(whole.item(), rel=1e-12)
    grads = [torch.autograd.grad(one, logits)[0] for one in (whole, summed)]
    assert torch.allclose(*grads, atol=1e-12)


def test_the_losses_of_parts_of_overlapping_structures_add_up():
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 2, 6, 5, 4, generator=draw, dtype=torch.float64)
    target = torch.randint(0, 5, (3, 6, 5, 4), generator=draw)  # 4 is ignored
    for batch in (False, True):
        loss = Loss(cross_entropy=0, binary_cross_entropy=1, ignore=True, batch_dice=batch)

        def cost(x, y, share=losses.WHOLE, loss=loss):
            return overlapping.combined(x, y, loss, share)

        summed = Parts([slice(0, 2), slice(2, 3), slice(3, 3)], 3).losses(cost, logits, target)
        assert float(summed) == pytest.approx(float(cost(logits, target)), rel=1e-12)


def stored(folder: Path) -> list[StoredCase]:
    store, out = Store(folder), []
    for n in range(3):
        if not store.has(f"c{n}"):
            rng, label = np.random.default_rng(n), np.zeros((24 + 2 * n, 20, 16), np.uint8)
            label[4:12, 5:15, 1:4] = 1
            label[13:20, 6:14, 2:15] = 2
            image = (label * 2.0 + rng.normal(0, 0.3, label.shape))[None]
            store.add(f"c{n}", image, label, 3, (16,) * 3, seed=n, spacing_mm=(1.0, 1.3, 4.0))
        out.append(store.open(f"c{n}").loaded())
    return out


def plan_of(steps: int = 3, **changes: Any) -> Plan:
    every = {f"{name}_p": 0.5 for name in ("noise", "blur", "gamma", "low_resolution", "contrast")}
    base = {
        "batch": 3,
        "augmentation": Augmentation(mirror=(0,), rotation_p=0.5, elastic_p=0.5, **every),
        "network": small_network(3, norm="batch", deep_supervision=True),
        "optimiser": Optimiser(kind="muon"),
        "schedule": Schedule(epochs=2, steps_per_epoch=steps),
    }
    return small_plan(3, **{**base, **changes})


def test_a_rank_draws_its_samples_of_the_same_batch(tmp_path):
    cases, plan = stored(tmp_path), plan_of()
    for step in range(4):
        whole = draw_batch(plan, cases, 1, step)
        for size in (2, 3, 5):
            parts = [Ranks(rank, size).part(plan.batch) for rank in range(size)]
            counted = [Ranks(rank, size).share(plan.batch).samples for rank in range(size)]
            assert sum(counted) == plan.batch and max(counted) - min(counted) <= 1
            for part in parts:
                own = draw_batch(plan, cases, 1, step, part)
                assert all(torch.equal(a, b[part]) for a, b in zip(own, whole, strict=True))


@dataclass(frozen=True)
class Asked:
    """A training in ``folder / name``; it dies at the step ``die_at``, if that is not 0, before the
    checkpoint.
    """

    folder: Path
    name: str
    plan: Plan
    die_at: int = 0
    by_sample: bool = False

    def fit(self, ranks: Ranks) -> None:
        cases = stored(self.folder / "store")

        def listen(line: dict[str, Any]) -> None:
            if line["step"] == self.die_at:
                raise KeyError("killed")

        job = loop.TrainingJob(
            self.plan, cases[:2], cases[2:], self.folder / self.name, CPU, 3, listener=listen
        )
        loop.fit(replace(job, ranks=ranks, by_sample=self.by_sample))

    def losses(self) -> np.ndarray:
        """By step, of the lines of the log."""
        lines = read_json_lines(self.folder / self.name / "log.jsonl")
        return np.array([[line["step"], line["loss"], line.get("val_loss", 0)] for line in lines])


def train(work: tuple[Sequence[Asked], int], restarts: int, say: Any, progress: Any) -> None:
    """Trainings, by one of the ranks if there are several."""
    asked, size = work
    torch.set_num_threads(1)
    with nullcontext(ALONE) if size == 1 else joined(CPU, size, 1, own=True) as ranks:
        for one in asked:
            one.fit(ranks)


def all_trained(size: int, *asked: Asked) -> list[np.ndarray]:
    """The losses of each training."""
    try:
        if size == 1:
            train((asked, size), 0, None, None)
        else:
            launch.run(launch.Work(train, (asked, size), size))
    except (KeyError, RuntimeError):
        assert any(one.die_at for one in asked)
    return [one.losses() for one in asked]


def trained(folder: Path, name: str, plan: Plan, size: int, **how: Any) -> np.ndarray:
    return all_trained(size, Asked(folder, name, plan, **how))[0]


def refuse_different(one: np.ndarray, other: np.ndarray) -> None:
    """Check that steps and losses are equal; the score of hard predictions jumps with a voxel."""
    assert np.allclose(one[:, :2], other[:, :2], rtol=CLOSE)
    assert np.allclose(one[:, 2], other[:, 2], rtol=1e-2)


def test_ranks_divide_matrices_and_validation_cases(monkeypatch):
    """Each is done by one of them, and all have the same result."""
    monkeypatch.setattr(Ranks, "sum", lambda ranks, x: x)
    monkeypatch.setattr(Ranks, "agreeing", lambda ranks: nullcontext())
    matrices = [torch.ones(rows, 2) for rows in (5, 1, 4, 3, 3)]
    found = [Ranks(rank, 3).divided(matrices, lambda x: 2 * x) for rank in range(3)]
    for parts, whole in zip(zip(*found, strict=True), matrices, strict=True):
        assert torch.equal(sum(parts), 2 * whole) and sum(bool(one.any()) for one in parts) == 1
    loads = [sum(len(one) for one in parts if one.any()) for parts in found]
    assert sorted(loads) == [5, 5, 6]
    seen: list[str] = []

    def counted(engine: Any, cases: list[str], limit_s: Any) -> list[torch.Tensor]:
        seen.extend(cases)
        return [torch.ones(3, 3, dtype=torch.int64), *torch.ones(3)]

    monkeypatch.setattr(validation, "_case_sums", counted)
    plan = plan_of()
    module = build(plan.network, 0)
    for rank in range(3):
        validation.evaluate(plan, module, list("abcde"), CPU, None, Ranks(rank, 3))
    assert seen == ["a", "d", "b", "e", "c"]


def test_two_ranks_train_as_one(tmp_path):
    """To rounding; and to the bit if each sample is computed by itself, also with batch norm, whose
    statistics are those of the batch, and with dropout.
    """
    schedule = Schedule(epochs=1, steps_per_epoch=3)
    plan = plan_of(schedule=schedule)
    network = small_network(3, norm="batch", deep_supervision=True, dropout=0.2)
    exact = plan_of(schedule=schedule, network=network)
    (one, one_exact), (two, two_exact) = (
        all_trained(
            size,
            Asked(tmp_path, f"of {size}", plan),
            Asked(tmp_path, f"exact of {size}", exact, by_sample=True),
        )
        for size in (1, 2)
    )
    # Where the processor has units for bfloat16, sums are rounded to its seven digits.
    rtol = 1e-5 if fast_dtype(CPU) == torch.float32 else 2**-8
    assert len(one) == len(one_exact) == 3 and np.allclose(one, two, rtol=rtol)
    assert np.array_equal(one_exact, two_exact)
    assert same(*(tmp_path / f"exact of {n}" / "last.safetensors" for n in (1, 2)))


@pytest.mark.rounds
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_by_sample_a_run_continues_on_other_ranks_to_the_bit(tmp_path, loss):
    plan = plan_of(steps=10, loss=loss)
    one = trained(tmp_path, "one", plan, 1, by_sample=True)
    trained(tmp_path, "continued", plan, 2, die_at=14, by_sample=True)
    assert np.array_equal(one, trained(tmp_path, "continued", plan, 4, by_sample=True))


def test_by_sample_gradients_are_those_of_the_batch(tmp_path):
    """And a sample whose loss fails ends the others, which wait for it."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), BatchNorm(3))
    image = torch.randn(3, 1, 6, 5, 4)
    target = torch.randint(0, 3, (3, 6, 5, 4))

    def cost(n, share):
        x, y = image[n : n + 1], target[n : n + 1]
        return losses.deeply_supervised(module(x), y, Loss(), None, share), n

    whole = losses.deeply_supervised(module(image), target, Loss())
    expected = torch.autograd.grad(whole, list(module.parameters()))
    tracked = module[1].running_mean.clone()
    module[1].reset_running_stats()
    with closing(BySample(module, ALONE, 3, CPU)) as samples:
        assert samples.gradients(cost, (1, 2, 3)) == [0, 1, 2]
        for one, other in zip(module.parameters(), expected, strict=True):
            assert torch.allclose(one.grad, other, atol=1e-6)
        assert torch.allclose(module[1].running_mean, tracked, atol=1e-6)

        def failing(n, share):
            if n == 1:
                raise MemoryError("of sample 1")
            return cost(n, share)

        with pytest.raises(MemoryError, match="of sample 1"):
            samples.gradients(failing, (1, 2, 3))


@pytest.mark.rounds
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_many_steps_of_several_ranks(tmp_path, size, loss):
    plan = plan_of(steps=20, batch=2, loss=loss)
    one, more = (trained(tmp_path, f"of {n}", plan, n) for n in (1, size))
    refuse_different(one, more)


@pytest.mark.rounds
@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (3, 2)])
def test_a_run_continues_on_another_number_of_ranks(tmp_path, sizes):
    plan = plan_of(steps=10)
    one = trained(tmp_path, "one", plan, 1)
    trained(tmp_path, "continued", plan, sizes[0], die_at=14)
    refuse_different(one, trained(tmp_path, "continued", plan, sizes[1]))


@pytest.mark.filterwarnings("error")
def test_one_process_is_alone_in_a_job_of_slurm_too(monkeypatch):
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert ALONE.fabric_for(CPU).world_size == 1

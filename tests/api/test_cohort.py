"""Cohorts in Python: cases, splits, and patches for PyTorch."""

from __future__ import annotations

import pickle
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import delineate as dl
from delineate.core.errors import LayoutError, UsageError
from delineate.core.manifest import Case, Source

GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1"


def cohort(visits: list[int]) -> dl.Cohort:
    cases = [
        Case(f"p{p}_{v}", f"p{p}", (Source(f"/p{p}_{v}.nii"),))
        for p, count in enumerate(visits)
        for v in range(count)
    ]
    return dl.Cohort(tuple(cases), ("CT",))


def sizes(found: dl.Cohort, what: str) -> dict[str, int]:
    if what == "case":
        return dict(Counter(str(case.split) for case in found))
    return {s: len(found.where(s).patients) for s in ("train", "val", "test") if found.where(s)}


def test_a_split_by_patient_counts_patients_exactly():
    for count, expected in ((10, (8, 1, 1)), (20, (16, 2, 2)), (30, (24, 3, 3)), (7, (5, 1, 1))):
        found = cohort([1 + n % 3 for n in range(count)]).split(0.8, 0.1, 0.1)
        assert type(found) is dl.Cohort and len(found) == sum(1 + n % 3 for n in range(count))
        assert sizes(found, "patient") == dict(zip(("train", "val", "test"), expected, strict=True))


def test_a_split_by_case_keeps_patients_whole():
    found = cohort([1] * 10 + [5, 5]).split(0.5, 0.25, 0.25, by="case", seed=3)
    assert sizes(found, "case") == {"train": 10, "val": 5, "test": 5}
    sides = {(case.patient, case.split) for case in found}
    assert len(sides) == len(found.patients)
    # A side without a share stays empty, also where whole patients overfill the others.
    found = cohort([3, 3, 3]).split(0.6, 0.4, 0, by="case")
    assert set(sizes(found, "case")) == {"train", "val"}


def test_a_split_depends_on_the_seed_alone():
    one = cohort([1, 2] * 8)
    shuffled = one.only(one.cases[::-1])
    split = {c.id: c.split for c in one.split(0.6, 0.2, 0.2, seed=5)}
    assert split == {c.id: c.split for c in shuffled.split(0.6, 0.2, 0.2, seed=5)}
    assert split != {c.id: c.split for c in one.split(0.6, 0.2, 0.2, seed=6)}


@pytest.mark.parametrize(
    "fractions", [(0.8, 0.1, 0.2), (0.8, 0.1, 0), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(UsageError, match="add up to 1"):
        cohort([1] * 10).split(*fractions)


def test_too_few_patients_are_refused():
    for by in ("patient", "case"):
        with pytest.raises(LayoutError, match="are too few for the fractions"):
            cohort([4, 1]).split(0.6, 0.2, 0.2, by=by)
    with pytest.raises(UsageError, match="by patient or by case"):
        cohort([1] * 10).split(0.8, 0.1, 0.1, by="slice")
    assert sizes(cohort([1, 1]).split(0.5, 0.5, 0), "patient") == {"train": 1, "val": 1}


@pytest.fixture(scope="module")
def found():
    return dl.Cohort.find(GOLDEN / "cohort")


def test_a_cohort_reads_its_cases(found, tmp_path):
    for case in found:
        scan, mask = found.read(case)
        assert mask is not None and scan.grid == mask.grid and scan.channels == 1
        assert np.array_equal(mask.numpy(), dl.read(case.label[0].path).numpy())
    found.save(tmp_path / "c.jsonl")
    assert dl.Cohort.load(tmp_path / "c.jsonl") == found
    assert dl.Manifest is dl.Cohort


def test_patches_are_the_same_in_every_worker_and_order(found, tmp_path):
    data = found.to_torch((8, 12, 6), seed=2, store=tmp_path / "store")
    assert len(data) == 5
    items = [data[n] for n in range(5)]
    for image, label in items:
        assert image.shape == (1, 8, 12, 6) and image.dtype == torch.float32
        assert label.shape == (8, 12, 6) and label.dtype == torch.int64 and label.max() <= 2
    assert any(label.any() for _, label in items)
    # A loader with workers leaves a handler of SIGCHLD behind, with which later children of this
    # process crashed the interpreter (Python 3.11.7, PyTorch 2.13).
    kept = signal.getsignal(signal.SIGCHLD)
    images, labels = next(iter(DataLoader(data, batch_size=5, num_workers=1)))
    signal.signal(signal.SIGCHLD, kept)
    for n, (image, label) in enumerate(items):
        assert torch.equal(images[n], image) and torch.equal(labels[n], label)
    again = found.to_torch((8, 12, 6), seed=2, store=tmp_path / "store")[3]
    assert torch.equal(again[0], items[3][0])
    data.set_epoch(1)
    assert not torch.equal(data[3][0], items[3][0])
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied[3][0], data[3][0])
    with pytest.raises(IndexError):
        data[5]
    assert len(list(data)) == 5


def test_validation_uses_the_plan_of_training_without_augmentation(found, tmp_path):
    train = found.to_torch((8, 8, 8), store=tmp_path / "store")
    plain = found.to_torch((8, 8, 8), plan=train.plan, augment=False, store=tmp_path / "store")
    whole = dl.Cohort.of(found.only(found.cases[:1]))
    image, label = whole.to_torch((40, 40, 40), plan=train.plan, augment=False)[0]
    # A patch larger than the scan holds all of it.
    assert set(label.unique().tolist()) == {0, 1, 2} and image.shape == (1, 40, 40, 40)
    assert plain.plan == train.plan
    with pytest.raises(UsageError, match="by another plan"):
        found.to_torch(
            plan=train.plan.replace(spacing_mm=(2.0, 2.0, 2.0)), store=tmp_path / "store"
        )
    with pytest.raises(UsageError, match="three positive numbers"):
        found.to_torch((8, 8, 0))

from __future__ import annotations

import collections

import pytest

from delineate.core.errors import InputError, LayoutError
from delineate.core.labels import LabelSet
from delineate.core.manifest import Case, Manifest, Source


def cohort(patients=6, scans=2) -> Manifest:
    cases = tuple(
        Case(f"p{p}_{s}", f"p{p}", (Source(f"/x/p{p}_{s}.nii.gz"),), (Source("/y"),))
        for p in range(patients)
        for s in range(scans)
    )
    return Manifest(cases, ("CT",), LabelSet.from_names({1: "liver"}), layout="test", root="/x")


def test_folds_never_divide_a_patient():
    for seed in range(20):
        manifest = cohort().with_folds(3, seed)
        folds = collections.defaultdict(set)
        for case in manifest:
            folds[case.patient].add(case.fold)
        assert all(len(f) == 1 for f in folds.values())
        assert sorted(collections.Counter(c.fold for c in manifest).values()) == [4, 4, 4]


def test_test_cases_get_no_fold():
    manifest = (
        cohort().with_split({"p0": "test", **{f"p{n}": "train" for n in range(1, 6)}}).with_folds(5)
    )
    assert all((c.fold is None) == (c.split == "test") for c in manifest)


def test_a_patient_on_both_sides_is_refused():
    with pytest.raises(LayoutError, match="patient p0"):
        cohort().with_split({"p0_0": "train", "p0_1": "test"})


def test_split_by_unknown_name_is_refused():
    with pytest.raises(LayoutError, match="nobody"):
        cohort().with_split({"nobody": "train"})


def test_more_folds_than_patients_are_refused():
    with pytest.raises(LayoutError, match="at least 7"):
        cohort().with_folds(7)


@pytest.mark.parametrize("name", ["", " a", "a/b", ".."])
def test_ids_name_files(name):
    with pytest.raises(LayoutError):
        Case(name, "p", (Source("x"),))


def test_round_trip_on_disk(tmp_path):
    manifest = cohort().with_folds(3)
    path = tmp_path / "manifest.jsonl"
    path.write_text(manifest.to_jsonl())
    assert Manifest.load(path) == manifest
    path.write_text(manifest.to_jsonl()[:-20])
    with pytest.raises(InputError, match="line 13"):
        Manifest.load(path)

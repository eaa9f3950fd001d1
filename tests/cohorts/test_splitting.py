"""Splits: ratios of percent and of patients, groups, lists in files, and what is refused."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from delineate.cohorts.splitting import lines, lists_of, read_split
from delineate.core.errors import InputError, LayoutError, LeakError, UsageError
from delineate.core.manifest import Case, Manifest, Source


def cohort(patients: int, visits: int = 2, grades=("high", "low"), bare: int = 0) -> Manifest:
    """Patients with ``visits`` cases, of alternating grade, and ``bare`` without truth."""
    cases = [
        Case(
            f"p{p:03}_{v}",
            f"p{p:03}",
            (Source(f"{p}_{v}.nii"),),
            (Source("mask.nii"),) if p < patients else (),
            group=grades[p % len(grades)],
        )
        for p in range(patients + bare)
        for v in range(visits)
    ]
    return Manifest(tuple(cases), ("CT",))


def patients_by_side(manifest: Manifest) -> dict[str, int]:
    sides = {case.patient: str(case.split) for case in manifest}
    return dict(Counter(sides.values()))


@pytest.mark.parametrize(
    ("text", "patients", "expected"),
    [
        ("80/10/10", 20, {"train": 16, "val": 2, "test": 2}),
        ("16/4", 20, {"train": 16, "test": 4}),
        ("13/7", 20, {"train": 13, "test": 7}),
        ("14/4/2", 20, {"train": 14, "val": 4, "test": 2}),
        ("60/40", 100, {"train": 60, "test": 40}),  # percent and patients agree
        ("80/20", 7, {"train": 6, "test": 1}),
        ("62.5/37.5", 8, {"train": 5, "test": 3}),
        ("16/4/0", 20, {"train": 16, "val": 4}),
    ],
)
def test_a_ratio_counts_patients(text, patients, expected):
    manifest = cohort(patients, bare=3)
    for seed in range(3):
        divided = read_split(text).divide(manifest, seed)
        assert patients_by_side(divided) == expected
        assert len(divided) == 2 * patients  # both visits; none without truth
    first, again, other = (read_split(text).divide(manifest, seed) for seed in (0, 0, 1))
    assert first == again and first != other


def test_groups_are_spread_evenly():
    divided = read_split("50/25/25").divide(cohort(40, 1))
    assert Counter((case.split, case.group) for case in divided) == {
        (side, grade): n
        for side, n in (("train", 10), ("val", 5), ("test", 5))
        for grade in ("high", "low")
    }
    shown = lines(divided)
    assert shown[0] == "train: 20 patients, 20 cases (high 10, low 10)"
    assert shown[2].startswith("test: 10 patients, 10 cases (high 5, low 5): p0")


@pytest.mark.parametrize("text", ["16/4", "80/10", "0.8/0.2", "33/33/33", "60/41"])
def test_a_ratio_that_fits_neither_rule_is_refused(text):
    with pytest.raises(
        UsageError, match=r"18 patients with truth; write numbers that add up to 18"
    ):
        read_split(text).divide(cohort(18))


def test_a_side_without_patients_is_refused():
    with pytest.raises(LayoutError, match="none for val and test"):
        read_split("98/1/1").divide(cohort(5))
    for text in ("80:20", "80", "80/10/10/0", "-1/5"):
        with pytest.raises(UsageError, match=f"--split {text} is neither a file nor a ratio"):
            read_split(text)
    with pytest.raises(UsageError, match="no patients for training"):
        read_split("0/20")


def sides_and_folds(manifest: Manifest) -> set[tuple]:
    sides = {"train": None} if any(c.fold is not None for c in manifest) else {}
    return {(c.id, sides.get(c.split, c.split), c.fold) for c in manifest}


@pytest.mark.parametrize("fold", [None, 0])
@pytest.mark.parametrize("rule", ["ratio", "folds"])
def test_what_is_written_gives_the_same_sides(tmp_path, rule, fold):
    manifest = cohort(20)
    divided = read_split("70/20/10").divide(manifest)
    if rule == "folds":
        divided = read_split("80/20").divide(manifest).with_folds(4, seed=3)
    elif fold is not None:
        pytest.skip("no folds")
    path = tmp_path / "split.json"
    path.write_text(json.dumps(lists_of(divided, fold, "70/20/10, seed 0")))
    again = read_split(str(path)).divide(manifest)
    if fold is None:
        assert sides_and_folds(again) == sides_and_folds(divided)
    else:
        validating = {c.id for c in divided if c.fold == fold}
        assert {c.id for c in again if c.split == "val"} == validating
        assert all(c.fold is None for c in again)


def nnunet_file(folder, folds) -> str:
    path = folder / "splits_final.json"
    path.write_text(json.dumps([{"train": train, "val": val} for train, val in folds]))
    return str(path)


def test_nnunet_splits_are_folds(tmp_path):
    manifest = cohort(6, 1)
    ids = [c.id for c in manifest]
    groups = [ids[:2], ids[2:4], ids[4:5]]  # the last case is for testing
    folds = [([i for g in groups if g is not val for i in g], val) for val in groups]
    tested = manifest.with_split({**dict.fromkeys(ids, "train"), ids[5]: "test"})
    found = read_split(nnunet_file(tmp_path, folds)).divide(tested)
    assert {c.id: c.fold for c in found} == {
        **{i: n for n, group in enumerate(groups) for i in group},
        ids[5]: None,
    }
    assert found.named(ids[5]).split == "test"


def test_nnunet_lists_that_are_no_folds_are_used_one_by_one(tmp_path):
    ids = [c.id for c in cohort(4, 1)]
    path = nnunet_file(tmp_path, [(ids[:3], ids[3:]), (ids[1:], ids[3:][:0] + ids[:1])])
    for fold, val in ((None, ids[3]), (1, ids[0])):
        found = read_split(path, fold).divide(cohort(4, 1))
        assert [c.id for c in found if c.split == "val"] == [val]
    with pytest.raises(UsageError, match="--fold must be 0 to 1"):
        read_split(path, 2)


def test_visits_of_one_patient_on_two_sides_are_refused(tmp_path):
    path = nnunet_file(tmp_path, [(["p000_0", "p001_0"], ["p000_1", "p001_1"])])
    with pytest.raises(LeakError, match="patient p000"):
        read_split(path).divide(cohort(2))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "{}",
        '{"tain": []}',
        '{"train": "c0"}',
        '{"train": ["a"], "test": ["a"]}',
        '{"folds": ["a"]}',
        '{"folds": [["a"], ["a"]]}',
        '{"folds": [["a"], ["b"]], "val": ["c"]}',
        '[{"train": ["a"]}]',
        '[{"train": ["a"], "val": ["a"]}]',
        '{"about": "nothing"}',
    ],
)
def test_wrong_files_are_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError):
        read_split(str(tmp_path / "s.json"))

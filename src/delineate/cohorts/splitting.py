"""Which patients train, validate and test: by a ratio such as 80/10/10, or by lists in a file.

A ratio has two numbers (training, testing) or three (training, validation, testing). If they add up
to 100 they are percent of the patients, otherwise numbers of patients, which must add up to those
of the cohort. A cohort of 100 patients is divided in the same way by both rules. Files are those
that ``lists_of`` makes, and the splits_final.json of nnU-Net. Nothing here reads an image.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import InputError, UsageError
from ..core.inputs import read_json
from ..core.manifest import SPLITS, Manifest, Split

_RATIO = re.compile(r"\d+(\.\d+)?(/\d+(\.\d+)?){1,2}")
FOLDS, ABOUT = "folds", "about"
SHOWN = 12  # patients of a side that are named


def is_ratio(text: str) -> bool:
    """Whether ``text`` is a ratio, not the path of a file.

    >>> is_ratio("80/10/10"), is_ratio("split.json")
    (True, False)
    """
    return bool(_RATIO.fullmatch(text))


@dataclass(frozen=True)
class SplitRule:
    """A division of the patients, by ``shares`` or by lists.

    Args:
        text: as the user wrote it.
        shares: the numbers for training, validation and testing, or () for lists.
        sides: case id or patient -> side.
        folds: case id or patient -> the fold that it validates; of the others none.
        by_fold: the lists are those of one of several folds, chosen by its number.
        keeps_test: the lists name no test cases, and those of the layout stay.
    """

    text: str
    shares: tuple[float, ...] = ()
    sides: Mapping[str, Split] = field(default_factory=dict)
    folds: Mapping[str, int] = field(default_factory=dict)
    by_fold: bool = False
    keeps_test: bool = False

    @property
    def has_validation(self) -> bool:
        """Whether it names validation cases, so that there is nothing left to be divided into
        folds.
        """
        return self.shares[1:2] > (0,) or "val" in self.sides.values()

    def divide(self, manifest: Manifest, seed: int = 0) -> Manifest:
        """The cases that it covers, with their sides and folds. A ratio divides the patients with
        truth, evenly over their groups; a side that the layout states is replaced.

        Raises:
            UsageError: the numbers do not fit the number of patients.
            LayoutError: a name that is no case and no patient, or a side without patients.
            LeakError: a patient on two sides.
        """
        if self.shares:
            cohort = manifest.with_truth()
            return cohort.split(*self._fractions(len(cohort.patients)), seed=seed)
        kept: dict[str, Split] = {}
        if self.keeps_test:
            kept = {c.id: "test" for c in manifest if c.split == "test"}
        divided = manifest.with_split({**kept, **self.sides})
        fold = {c.id: self.folds.get(c.id, self.folds.get(c.patient)) for c in divided}
        return divided.only(replace(c, fold=fold[c.id]) for c in divided)

    def _fractions(self, patients: int) -> tuple[float, float, float]:
        whole = sum(self.shares)
        if not (math.isclose(whole, 100) or whole == patients):
            raise UsageError(
                f"--split {self.text} adds up to {whole:g}, but there are {patients} patients with "
                f"truth; write numbers that add up to {patients}, or percent that add up to 100"
            )
        train, val, test = (share / whole for share in self.shares)
        return train, val, test


def read_split(text: str, fold: int | None = None) -> SplitRule:
    """The rule of ``--split``: a ratio or the path of a file.

    Args:
        text: see the module.
        fold: of a splits_final.json whose folds do not divide the cases, the one to use; None uses
            the first.

    Raises:
        UsageError: neither a ratio nor a file, a ratio without training cases, or a fold that the
            file lacks.
        InputError: the file cannot be read, has another form, or a name in two lists.
    """
    if is_ratio(text):
        numbers = [float(number) for number in text.split("/")]
        shares = (numbers[0], 0.0, numbers[1]) if len(numbers) == 2 else tuple(numbers)
        if not shares[0]:
            raise UsageError(f"--split {text} leaves no patients for training")
        return SplitRule(text, shares)
    data = _lists_in(text)
    if isinstance(data, list):
        return _of_nnunet(data, text, fold or 0)
    lists = data if isinstance(data, dict) else {}
    folds, sides = lists.get(FOLDS, []), {side: lists.get(str(side), []) for side in SPLITS}
    if not _are_lists([*sides.values()]) or not _is_known(lists):
        raise InputError(
            'a split file has the form {"train": [ids], "val": [ids], "test": [ids]}, each may be '
            'missing, or {"folds": [[ids], ...], "test": [ids]}, or it is the splits_final.json of '
            "nnU-Net",
            path=text,
        )
    named: dict[str, str] = {}
    for side, names in [
        *((str(side), names) for side, names in sides.items()),
        *((f"fold {n}", names) for n, names in enumerate(folds)),
    ]:
        for name in map(str, names):
            if named.setdefault(name, side) != side:
                raise InputError(f"{name} is in {named[name]} and in {side}", path=text)
    fold_of = {str(name): n for n, names in enumerate(folds) for name in names}
    side_of = {str(name): side for side, names in sides.items() for name in names}
    return SplitRule(text, sides={**dict.fromkeys(fold_of), **side_of}, folds=fold_of)


def _lists_in(text: str) -> Any:
    """The content of the file ``text``, which is no ratio."""
    if not Path(text).exists():
        raise UsageError(
            f"--split {text} is neither a file nor a ratio, such as 80/20, 80/10/10 or 16/4"
        )
    return read_json(text)


def _is_known(lists: Mapping[str, Any]) -> bool:
    """Whether the keys are those of a split file: sides, or folds (lists) and test cases."""
    folds = lists.get(FOLDS, [])
    if not isinstance(folds, list) or not _are_lists(folds):
        return False
    keys = {key for key in lists if key != ABOUT}
    return bool(keys) and keys <= ({FOLDS, "test"} if FOLDS in keys else set(map(str, SPLITS)))


def _are_lists(values: list[Any]) -> bool:
    return all(isinstance(value, list) for value in values)


def _of_nnunet(data: list[Any], path: str, fold: int) -> SplitRule:
    """The rule of a splits_final.json: a list with training and validation cases of each fold.

    Every case usually validates one fold; any other lists are used for the one fold that is asked
    for.
    """
    if not data or not all(
        isinstance(one, dict) and _are_lists([one.get("train"), one.get("val")]) for one in data
    ):
        raise InputError(
            'a splits_final.json has the form [{"train": [ids], "val": [ids]}, ...]', path=path
        )
    pairs = [(set(map(str, one["train"])), set(map(str, one["val"]))) for one in data]
    for number, (train, val) in enumerate(pairs):
        if both := sorted(train & val):
            raise InputError(f"{both[0]} is in train and in val of fold {number}", path=path)
    fold_of = {name: number for number, (_, val) in enumerate(pairs) for name in val}
    if len(pairs) > 1 and all(
        train == {name for name in fold_of if fold_of[name] != number} and len(val)
        for number, (train, val) in enumerate(pairs)
    ):
        return SplitRule(path, sides=dict.fromkeys(fold_of), folds=fold_of, keeps_test=True)
    if not 0 <= fold < len(pairs):
        raise UsageError(f"--fold must be 0 to {len(pairs) - 1}, found {fold}")
    train, val = pairs[fold]
    sides: dict[str, Split] = {**dict.fromkeys(train, "train"), **dict.fromkeys(val, "val")}
    return SplitRule(path, sides=sides, by_fold=True, keeps_test=True)


def lists_of(manifest: Manifest, fold: int | None = None, about: str = "") -> dict[str, Any]:
    """The content of a split file that gives these cases the same sides again.

    Args:
        manifest: cases with sides or folds.
        fold: the one that validates, if only one is used; None keeps all folds.
        about: where the split comes from, for people.
    """
    tested = [c.id for c in manifest if c.split == "test"]
    others = [c for c in manifest if c.split != "test"]
    found: dict[str, Any] = {ABOUT: about} if about else {}
    if fold is None and any(c.fold is not None for c in others):
        count = 1 + max(c.fold for c in others if c.fold is not None)
        folds = [[c.id for c in others if c.fold == n] for n in range(count)]
        return {**found, FOLDS: folds, "test": tested}
    val = [c.id for c in others if (c.split == "val" if fold is None else c.fold == fold)]
    train = [c.id for c in others if c.id not in set(val)]
    return {**found, "train": train, "val": val, "test": tested}


def lines(manifest: Manifest) -> list[str]:
    """The sides of a divided cohort for a terminal: numbers of patients and cases, by group if
    there are several, and the names of those who do not train.
    """
    found = []
    groups = manifest.groups
    for side in SPLITS:
        patients = manifest.only(
            c for c in manifest if (c.split or "train") == side and c.fold is None
        ).patients
        cases = sum(c.patient in set(patients) for c in manifest)
        if not patients:
            continue
        of_group = Counter(groups[p] for p in patients)
        more = ", ".join(f"{name or 'no group'} {n}" for name, n in sorted(of_group.items()))
        names = ", ".join(patients[:SHOWN]) + (" ..." if len(patients) > SHOWN else "")
        found.append(
            f"{side}: {len(patients)} patients, {cases} cases"
            + (f" ({more})" if len(set(groups.values())) > 1 else "")
            + (f": {names}" if side != "train" else "")
        )
    if folds := Counter(c.fold for c in manifest if c.fold is not None):
        sizes = ", ".join(str(folds[n]) for n in sorted(folds))
        found.insert(0, f"{len(folds)} folds of {sizes} cases")
    return found

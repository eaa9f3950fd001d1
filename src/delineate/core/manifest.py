"""Manifest: the files and the patient of each case, and the fold of each patient.

Case discovery returns a ``Manifest``, and all other work starts from it. On disk it is JSON Lines,
one header line and one line per case, so a person can read it and ``grep`` works. Folds are always
grouped by patient. This module opens no image.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from .. import __version__
from . import atomic
from .errors import DelineateError, InputError, LayoutError, LeakError, UsageError
from .inputs import json_text, parse_json, read_text
from .labels import LabelMapping, LabelSet
from .schema import SCHEMAS, migrate
from .volume import ReadAs

Split = Literal["train", "val", "test", None]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """One file or folder that a reader turns into a volume.

    Args:
        path: a file, or a folder (a DICOM series, or a stack of 2-D slices).
        series: the SeriesInstanceUID if the folder holds more than one series, else "".
        like: path of the image that gives the geometry of a stack of plain slices (PNG masks of a
            DICOM series); slices correspond in natural order of their file names.
        spacing_mm: the spacing of a file that states none, or ().
        glob: pattern of the file names of a stack in the folder, "" for all.
        channel: the channel to read from a file with several, from 0; None reads all of them.
        structure: the structure whose mask this is, if each has a file; "" stands for the stem of
            the file's name. Several files of one structure are united.
        item: the picture whose outlines are read from an annotation file with several pictures, or
            the array to read from a file with several, or the segment (its number, name or code)
            to read from a DICOM segmentation.
        axes: the directions of the axes of a file that states none (see ``formats.arrays``); of
            run lengths "columns" or "rows", along which pixels are numbered.
        register_by: "position" accepts DICOM labels in another frame of reference than ``like``.
        unit: "suv" for a PET series of DICOM that is read as SUV by body weight, else "".
        fix_series: how a DICOM series with uneven gaps (that of ``like`` for a label) becomes even:
            "run", "fill" or "split"; "" refuses it.
    """

    path: str
    series: str = ""
    like: str = ""
    spacing_mm: tuple[float, ...] = ()
    glob: str = ""
    channel: int | None = None
    structure: str = ""
    item: str = ""
    axes: str = ""
    register_by: Literal["frame", "position"] = "frame"
    unit: ReadAs = ""
    fix_series: str = ""

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"path": self.path}
        for key in ("series", "like", "glob", "structure", "item", "axes", "unit", "fix_series"):
            if getattr(self, key):
                data[key] = getattr(self, key)
        if self.spacing_mm:
            data["spacing_mm"] = list(self.spacing_mm)
        if self.channel is not None:
            data["channel"] = self.channel
        if self.register_by != "frame":
            data["register_by"] = self.register_by
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        return cls(
            data["path"],
            data.get("series", ""),
            data.get("like", ""),
            tuple(float(v) for v in data.get("spacing_mm", ())),
            data.get("glob", ""),
            data.get("channel"),
            data.get("structure", ""),
            data.get("item", ""),
            data.get("axes", ""),
            data.get("register_by", "frame"),
            data.get("unit", ""),
            data.get("fix_series", ""),
        )


# The source of a channel that a case lacks and others have; only prediction accepts it.
ABSENT = Source("")


@dataclass(frozen=True)
class Case:
    """One scan: its channels, its reference segmentation and its patient.

    Args:
        id: unique in the manifest. Output files are named after it, so it contains no "/" and has
            no white space at its ends.
        patient: the id of the patient; all cases of a patient are on one side of a split.
        images: one source per channel, in the channel order of the manifest (``ABSENT`` for a
            missing one); or a single source with all channels (a 4-D NIfTI file, a colour image).
        label: the sources of the reference segmentation: one file, or one per structure; empty if
            there is none.
        split: "train", "val" or "test" if the layout states it; None leaves it to the folds.
        fold: set by ``Manifest.with_folds``.
        group: a class, grade, site or the like, over which the patients are spread evenly when they
            are divided; "" if the layout states none.
        modality: "CT", "MR", "PT" ... of cohorts that may have several; else "".

    Raises:
        LayoutError: an id that cannot be a file name, or no image.
    """

    id: str
    patient: str
    images: tuple[Source, ...]
    label: tuple[Source, ...] = ()
    split: Split = None
    fold: int | None = None
    group: str = ""
    modality: str = ""

    def __post_init__(self) -> None:
        # The id becomes the stem of output files, on all systems.
        if (
            not isinstance(self.id, str)
            or not self.id
            or self.id != self.id.strip()
            or "/" in self.id
            or "\\" in self.id
            or self.id in (".", "..")
        ):
            raise LayoutError(f"a case id must be usable as a file name, {self.id!r} is not")
        if not self.images or all(s == ABSENT for s in self.images):
            raise LayoutError("a case needs at least one image", case=self.id)

    @property
    def path(self) -> str:
        """The path of its first image, for messages."""
        return next(s.path for s in self.images if s != ABSENT)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "patient": self.patient,
            "images": [s.to_json() for s in self.images],
            "label": [s.to_json() for s in self.label],
            "split": self.split,
            "fold": self.fold,
            **({"group": self.group} if self.group else {}),
            **({"modality": self.modality} if self.modality else {}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Case:
        return cls(
            data["id"],
            data["patient"],
            tuple(map(Source.from_json, data["images"])),
            tuple(map(Source.from_json, data.get("label", ()))),
            data.get("split"),
            data.get("fold"),
            data.get("group", ""),
            data.get("modality", ""),
        )


def shares_of(count: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers in the proportion of ``fractions`` that add up to ``count``: each is rounded
    down, and what is left goes to the largest remainders, of equal ones to the first.

    Raises:
        UsageError: a fraction below 0, or a sum other than 1.

    >>> shares_of(10, (0.8, 0.1, 0.1)), shares_of(7, (0.8, 0.1, 0.1))
    ([8, 1, 1], [5, 1, 1])
    """
    if not all(f >= 0 for f in fractions) or not math.isclose(sum(fractions), 1, abs_tol=1e-9):
        words = ", ".join(f"{f:g}" for f in fractions)
        raise UsageError(f"fractions must be at least 0 and add up to 1, found {words}")
    # 0.1 * 30 is a little more than 3: rounding removes such errors of the last digit.
    exact = [round(f * count, 9) for f in fractions]
    shares = [int(e) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: shares[k] - exact[k])
    for k in by_remainder[: count - sum(shares)]:
        shares[k] += 1
    return shares


def _spread(order: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """The patients in an order in which every part has about the same share of each group; within a
    group the order is kept.

    >>> _spread(["a", "b", "c", "d", "e", "f"], dict(zip("abcdef", "xxxxyy")))
    ['a', 'e', 'b', 'c', 'f', 'd']
    """
    size, seen = Counter(groups[p] for p in order), Counter[str]()
    place = {}
    for patient in order:
        group = groups[patient]
        place[patient] = (seen[group] + 0.5) / size[group]
        seen[group] += 1
    return sorted(order, key=lambda patient: place[patient])


def _by_patient(order: Sequence[str], wanted: dict[Split, int]) -> dict[str, Split]:
    """Patient -> side; the sides are filled one after the other."""
    sides = [side for side, count in wanted.items() for _ in range(count)]
    return dict(zip(order, sides, strict=True))


def _by_case(
    order: Sequence[str], wanted: dict[Split, int], sizes: dict[str, int]
) -> dict[str, Split]:
    """Patient -> side; the patients with most cases first, each to the side that lacks most."""
    left, side_of = dict(wanted), {}
    for patient in sorted(order, key=lambda p: -sizes[p]):
        side = side_of[patient] = max(left, key=lambda side: left[side])
        left[side] -= sizes[patient]
    return side_of


@dataclass(frozen=True)
class Manifest:
    """The cohort.

    Args:
        cases: unique ids, each with one source per channel, or one source with all of them.
        channels: name of each channel ("CT", "Flair" ...).
        labels: the structures; empty if no case has a reference segmentation.
        mapping: how the values of the label sources become the values of the structures.
        layout: name of the recognised layout.
        root: the folder of the data set.
        modality: "CT", "MR", "PT", "EM", "photo" ... or "" if unknown; it decides the plan's
            normalisation.
        files: the account of every file below the root (``cohorts.discovery.account``), as plain
            data; () if none was made.

    Raises:
        LayoutError: ids repeat, channel counts or units of a channel differ, or a patient is on
            both sides of a split or in two folds.
    """

    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: LabelSet = field(default_factory=lambda: LabelSet(()))
    mapping: LabelMapping = field(default_factory=LabelMapping)
    layout: str = ""
    root: str = ""
    modality: str = ""
    files: tuple[dict[str, Any], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for case in self.cases:
            if case.id in seen:
                raise LayoutError("two cases have the same id", case=case.id)
            seen.add(case.id)
            if len(case.images) not in (1, len(self.channels)):
                raise LayoutError(
                    f"found {len(case.images)} channel(s), the cohort has {len(self.channels)} "
                    f"({', '.join(self.channels)})",
                    case=case.id,
                )
        for name, units in zip(self.channels, self._units(), strict=True):
            if len(units) > 1:
                raise LayoutError(f"channel {name} is SUV in some cases and not in others")
        self._refuse_leaks()

    def _units(self) -> list[set[ReadAs]]:
        """The units of the sources of each channel."""
        found: list[set[ReadAs]] = [set() for _ in self.channels]
        for case in self.cases:
            for n, units in enumerate(found):
                source = case.images[n if len(case.images) > 1 else 0]
                if source.path:
                    units.add(source.unit)
        return found

    def _refuse_leaks(self) -> None:
        """Raise if a patient is in two splits or in two folds."""
        for what in ("split", "fold"):
            sides: dict[str, tuple[Any, str]] = {}
            for case in self.cases:
                side = getattr(case, what)
                if side is None:
                    continue
                # The patient's first case decides the side; all others must agree.
                other, first = sides.setdefault(case.patient, (side, case.id))
                if other != side:
                    raise LeakError(
                        f"patient {case.patient} is in {what} {other} (case {first}) and in "
                        f"{what} {side}; "
                        "all cases of a patient must be on one side",
                        case=case.id,
                    )

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @property
    def units(self) -> tuple[ReadAs, ...]:
        """What each channel is converted to when it is read: "suv", or "" for values as stored."""
        return tuple(next(iter(units), "") for units in self._units())

    def in_units(self, units: Sequence[ReadAs]) -> Self:
        """The same cohort, each channel read in the unit at its place in ``units``."""
        if not any(units):
            return self

        def stated(case: Case) -> Case:
            pairs = zip(case.images, units, strict=len(case.images) > 1)
            images = (replace(s, unit=u) if s != ABSENT else s for s, u in pairs)
            return replace(case, images=tuple(images))

        return self.only(map(stated, self.cases))

    @property
    def patients(self) -> list[str]:
        return sorted({case.patient for case in self.cases})

    @property
    def groups(self) -> dict[str, str]:
        """Patient -> group, that of the patient's first case."""
        return {case.patient: case.group for case in reversed(self.cases)}

    def named(self, case_id: str) -> Case:
        """The case with this id.

        Raises:
            LayoutError: there is none.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise LayoutError("the manifest has no such case", case=case_id)

    def only(self, cases: Iterable[Case]) -> Self:
        """The same cohort with only these cases."""
        return replace(self, cases=tuple(cases))

    def where(self, split: Split) -> Self:
        """Only the cases of ``split``."""
        return self.only(c for c in self.cases if c.split == split)

    def with_truth(self) -> Self:
        """Only the cases with a reference segmentation."""
        return self.only(c for c in self.cases if c.label)

    def to_learn_from(self) -> Self:
        """Only the cases with a reference segmentation that are not test cases: no test case may
        influence the plan.
        """
        return self.only(c for c in self.with_truth() if c.split != "test")

    def with_folds(self, folds: int, seed: int = 0) -> Self:
        """The same cohort with a fold 0..folds-1 for each case that is not test.

        Folds are grouped by patient. Their sizes, and the number of cases of each group in them,
        are as even as the patients allow.

        Raises:
            LayoutError: fewer patients than folds.
        """
        # Number of cases per patient; sorted ids make the folds independent of the case order.
        free = [c for c in self.cases if c.split != "test"]
        sizes = {p: sum(c.patient == p for c in free) for p in sorted({c.patient for c in free})}
        if len(sizes) < folds:
            raise LayoutError(
                f"{folds} folds need at least {folds} patients, found {len(sizes)}",
                path=self.root or None,
            )
        # Patients in random order, then (stably) the ones with most cases first; each goes to the
        # fold with fewest cases of its group so far, of these to the smallest one.
        shuffled = [list(sizes)[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
        shuffled.sort(key=lambda p: -sizes[p])
        groups, counts, fold_of = self.groups, Counter[tuple[str, int]](), {}
        total = [0] * folds
        for patient in shuffled:
            group = groups[patient]
            fold = min(range(folds), key=lambda f: (counts[group, f], total[f]))
            fold_of[patient] = fold
            counts[group, fold] += sizes[patient]
            total[fold] += sizes[patient]
        return replace(
            self, cases=tuple(replace(c, fold=fold_of.get(c.patient)) for c in self.cases)
        )

    def with_split(self, split_of: dict[str, Split]) -> Self:
        """Only the cases named in ``split_of`` (case id or patient -> split), with that split and
        no fold.

        Raises:
            LayoutError: a name that is neither a case nor a patient.
        """
        # A split may name cases or patients; the entry of a case comes before that of its patient.
        known = {c.id for c in self.cases} | {c.patient for c in self.cases}
        unknown = sorted(set(split_of) - known)
        if unknown:
            raise LayoutError(
                f"the split names {', '.join(unknown[:5])}, which is neither a case nor a "
                "patient of this cohort",
                path=self.root or None,
            )
        chosen = [
            (c, split_of.get(c.id, split_of.get(c.patient)))
            for c in self.cases
            if c.id in split_of or c.patient in split_of
        ]
        return replace(self, cases=tuple(replace(c, split=s, fold=None) for c, s in chosen))

    def like(self, other: Manifest) -> Self:
        """Only the cases that ``other`` has too (by id), with its sides and folds."""
        found = {c.id: c for c in other}
        return self.only(
            replace(c, split=found[c.id].split, fold=found[c.id].fold)
            for c in self
            if c.id in found
        )

    def split(
        self,
        train: float,
        val: float,
        test: float,
        *,
        by: Literal["patient", "case"] = "patient",
        seed: int = 0,
    ) -> Self:
        """The same cohort, every case with a new split and no fold. All cases of a patient get the
        same split, and groups are spread evenly over the splits.

        The numbers are those of ``shares_of``, of patients or of cases. By patient, the patients in
        random order are cut into three groups of these numbers. By case, the patients in random
        order, those with most cases first, each go to the side that lacks most cases; where
        patients have several cases, the numbers are met as nearly as whole patients allow.

        Args:
            train, val, test: fractions, which add up to 1.
            by: what the fractions count.
            seed: of the order of the patients, who are sorted by id before.

        Raises:
            UsageError: fractions that are negative or do not add up to 1, or an unknown ``by``.
            LayoutError: too few patients, so that a side with a fraction above 0 would be empty.

        >>> ids = [(f"{p}_{visit}", p) for p in "abcde" for visit in (1, 2)]
        >>> cases = [Case(id, patient, (Source(f"{id}.nii"),)) for id, patient in ids]
        >>> cohort = Manifest(tuple(cases), ("CT",))
        >>> [(side, len(cohort.split(0.6, 0.2, 0.2).where(side))) for side in SPLITS]
        [('train', 6), ('val', 2), ('test', 2)]
        """
        fractions = (train, val, test)
        if by not in ("patient", "case"):
            raise UsageError(f"a cohort is split by patient or by case, not by {by!r}")
        sizes = {p: sum(c.patient == p for c in self.cases) for p in self.patients}
        wanted = shares_of(len(sizes) if by == "patient" else len(self.cases), fractions)
        # Patients in random order; of groups of equal size any order is as random.
        order = [list(sizes)[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
        order = _spread(order, self.groups)
        left = {side: n for side, n, f in zip(SPLITS, wanted, fractions, strict=True) if f > 0}
        side_of = _by_patient(order, left) if by == "patient" else _by_case(order, left, sizes)
        if empty := [str(side) for side in left if side not in side_of.values()]:
            raise LayoutError(
                f"{len(sizes)} patient(s) with {len(self)} case(s) are too few for the fractions "
                f"{train:g}, {val:g}, {test:g}: there would be none for {' and '.join(empty)}",
                path=self.root or None,
            )
        return replace(
            self,
            cases=tuple(replace(c, split=side_of[c.patient], fold=None) for c in self.cases),
        )

    # ---- JSON Lines ----

    def to_jsonl(self) -> str:
        """The text of ``manifest.jsonl``: a header line, then one line per case."""
        return "".join(json.dumps(line) + "\n" for line in self._lines())

    def save_record(self, path: str | Path) -> None:
        """Write ``manifest.jsonl`` in one step, with the number of cases and a checksum in each
        line: the form of a record that nobody edits.

        Raises:
            OutputError: it cannot be written.
        """
        head, *cases = self._lines()
        lines = [head | {"cases": len(cases)}, *cases]
        atomic.write_text(path, "".join(json_text(line) + "\n" for line in lines))

    def _lines(self) -> list[dict[str, Any]]:
        header = {
            "delineate_manifest": SCHEMAS["delineate_manifest"],
            "delineate": __version__,
            "channels": list(self.channels),
            "labels": self.labels.to_json(),
            **({"overlapping": True} if self.labels.overlapping else {}),
            "mapping": self.mapping.to_json(),
            "layout": self.layout,
            "root": self.root,
            "modality": self.modality,
            **({"files": list(self.files)} if self.files else {}),
        }
        return [header, *(c.to_json() for c in self.cases)]

    @classmethod
    def from_jsonl(cls, text: str, path: str = "") -> Self:
        """The inverse of ``to_jsonl``.

        Raises:
            InputError: not a manifest, of a newer schema, or a damaged line (named by its number).
        """
        lines = text.splitlines()
        number = 0
        try:
            head = parse_json(lines[0])
            if "delineate_manifest" not in head:
                raise KeyError("delineate_manifest")
            head = migrate("delineate_manifest", head, path=path)
            cases = []
            # The error message below uses ``number``.
            for number, line in enumerate(lines[1:], start=1):  # noqa: B007
                if line.strip():
                    cases.append(Case.from_json(parse_json(line)))
            if head.get("cases", len(cases)) != len(cases):
                raise InputError(
                    f"has {len(cases)} cases, and its first line states {head['cases']}: it was "
                    "changed or damaged since it was written; restore it",
                    path=path,
                )
            return cls(
                tuple(cases),
                tuple(head["channels"]),
                LabelSet.from_json(head["labels"], head.get("overlapping", False)),
                LabelMapping.from_json(head["mapping"]),
                head.get("layout", ""),
                head.get("root", ""),
                head.get("modality", ""),
                tuple(head.get("files", ())),
            )
        except DelineateError as error:
            error.path = error.path or path or None
            raise
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise InputError(
                f"line {number + 1} is not valid in a delineate manifest ({type(error).__name__}: "
                f"{error})",
                path=path,
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read ``manifest.jsonl``.

        Raises:
            InputError: it cannot be read, or as ``from_jsonl``.
        """
        return cls.from_jsonl(read_text(path), str(path))

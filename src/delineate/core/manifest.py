"""Which files make a case, who the patient is, and which fold the patient belongs to.

A ``Manifest`` is what finding cases ends with and everything else starts from: JSON Lines on disk,
one header line and one line a case, so that a person can read it and ``grep`` works. Folds are
grouped by patient, always. It opens no image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import __version__
from .errors import InputError, LayoutError
from .labels import LabelMapping, LabelSet
from .schema import SCHEMAS, migrate

Split = Literal["train", "val", "test", None]


@dataclass(frozen=True)
class Source:
    """One thing on disk that a reader turns into a volume.

    Args:
        path: a file, or a folder (a DICOM series, or a stack of 2-D slices).
        series: the SeriesInstanceUID where the folder holds more than one series, else "".
        like: path of the image whose geometry a stack of bare slices (PNG masks of a DICOM series)
            takes; the slices correspond in natural order of the file names.
        spacing_mm: stated spacing of a file that has none, or ().
        glob: pattern of the files of a stack inside the folder, "" for all.
        channel: the one channel to take of a file that holds several, from 0; None takes all of
            them.
    """

    path: str
    series: str = ""
    like: str = ""
    spacing_mm: tuple[float, ...] = ()
    glob: str = ""
    channel: int | None = None

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"path": self.path}
        for key in ("series", "like", "glob"):
            if getattr(self, key):
                data[key] = getattr(self, key)
        if self.spacing_mm:
            data["spacing_mm"] = list(self.spacing_mm)
        if self.channel is not None:
            data["channel"] = self.channel
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
        )


# Stands where a case lacks a channel that the others have; only predicting can do without.
ABSENT = Source("")


@dataclass(frozen=True)
class Case:
    """One scan: its channels, its truth and its patient.

    Args:
        id: unique in the manifest; also the name of output files, so free of "/" and white space at
            its ends.
        patient: whose scan it is; cases of one patient never stand on both sides of a split.
        images: one source a channel, in the manifest's channel order (``ABSENT`` for one that the
            case lacks); or a single source that holds all channels (a 4-D NIfTI file, a colour
            image).
        label: the sources of the truth; one, or one a structure; empty where there is no truth.
        split: "train", "val" or "test" where the layout says so; None leaves it to the folds.
        fold: set by ``Manifest.with_folds``.
    """

    id: str
    patient: str
    images: tuple[Source, ...]
    label: tuple[Source, ...] = ()
    split: Split = None
    fold: int | None = None

    def __post_init__(self) -> None:
        if (
            not self.id
            or self.id != self.id.strip()
            or "/" in self.id
            or "\\" in self.id
            or self.id in (".", "..")
        ):
            raise LayoutError(f"a case id names a file, {self.id!r} cannot")
        if not self.images or all(s == ABSENT for s in self.images):
            raise LayoutError("a case has at least one image", case=self.id)

    @property
    def path(self) -> str:
        """Where its first image is: what a message names."""
        return next(s.path for s in self.images if s != ABSENT)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "patient": self.patient,
            "images": [s.to_json() for s in self.images],
            "label": [s.to_json() for s in self.label],
            "split": self.split,
            "fold": self.fold,
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
        )


@dataclass(frozen=True)
class Manifest:
    """The cohort.

    Args:
        cases: unique ids, each with one source a channel, or one source that holds them all.
        channels: name of each channel ("CT", "Flair" ...).
        labels: the structures; empty where no case has truth.
        mapping: how the label sources' values become the structures' values.
        layout: name of the layout that was recognised.
        root: the folder it was found in.
        modality: "CT", "MR", "PT", "EM", "photo" ... or "" where unknown; what a plan's
            normalisation asks.

    Raises:
        LayoutError: ids repeat, channel counts differ, or one patient stands on both sides of a
            split or in two folds.
    """

    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: LabelSet = field(default_factory=lambda: LabelSet(()))
    mapping: LabelMapping = field(default_factory=LabelMapping)
    layout: str = ""
    root: str = ""
    modality: str = ""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for case in self.cases:
            if case.id in seen:
                raise LayoutError("two cases have this id", case=case.id)
            seen.add(case.id)
            if len(case.images) not in (1, len(self.channels)):
                raise LayoutError(
                    f"found {len(case.images)} channel(s), the cohort has {len(self.channels)} "
                    f"({', '.join(self.channels)})",
                    case=case.id,
                )
        self._refuse_leaks()

    def _refuse_leaks(self) -> None:
        for what in ("split", "fold"):
            sides: dict[str, tuple[Any, str]] = {}
            for case in self.cases:
                side = getattr(case, what)
                if side is None:
                    continue
                other, first = sides.setdefault(case.patient, (side, case.id))
                if other != side:
                    raise LayoutError(
                        f"patient {case.patient} stands in {what} {other} (case {first}) and "
                        f"{what} {side}; "
                        "all cases of a patient belong on one side",
                        case=case.id,
                    )

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @property
    def patients(self) -> list[str]:
        return sorted({case.patient for case in self.cases})

    def named(self, case_id: str) -> Case:
        for case in self.cases:
            if case.id == case_id:
                return case
        raise LayoutError("no such case in the manifest", case=case_id)

    def only(self, cases: Iterable[Case]) -> Manifest:
        """The same cohort with these cases alone."""
        return replace(self, cases=tuple(cases))

    def where(self, split: Split) -> Manifest:
        """Only the cases of ``split``."""
        return self.only(c for c in self.cases if c.split == split)

    def with_truth(self) -> Manifest:
        """Only the cases that have truth."""
        return self.only(c for c in self.cases if c.label)

    def with_folds(self, folds: int, seed: int = 0) -> Manifest:
        """Every case that is not test gets a fold 0..folds-1, grouped by patient, sizes as even as
        patients allow.

        Raises:
            LayoutError: fewer patients than folds.
        """
        free = [c for c in self.cases if c.split != "test"]
        sizes = {p: sum(c.patient == p for c in free) for p in sorted({c.patient for c in free})}
        if len(sizes) < folds:
            raise LayoutError(
                f"{folds} folds need at least {folds} patients, found {len(sizes)}",
                path=self.root or None,
            )
        shuffled = [list(sizes)[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
        shuffled.sort(key=lambda p: -sizes[p])  # large patients first, so that the folds even out
        counts, fold_of = [0] * folds, {}
        for patient in shuffled:
            fold_of[patient] = int(np.argmin(counts))
            counts[fold_of[patient]] += sizes[patient]
        return replace(
            self, cases=tuple(replace(c, fold=fold_of.get(c.patient)) for c in self.cases)
        )

    def with_split(self, split_of: dict[str, Split]) -> Manifest:
        """The cases named in ``split_of`` (case id or patient -> split), with their split; the
        others are left out.

        Raises:
            LayoutError: a name that is neither a case nor a patient.
        """
        known = {c.id for c in self.cases} | {c.patient for c in self.cases}
        unknown = sorted(set(split_of) - known)
        if unknown:
            raise LayoutError(
                f"the split names {', '.join(unknown[:5])}, which is neither a case nor a "
                "patient here",
                path=self.root or None,
            )
        chosen = [
            (c, split_of.get(c.id, split_of.get(c.patient)))
            for c in self.cases
            if c.id in split_of or c.patient in split_of
        ]
        return replace(self, cases=tuple(replace(c, split=s, fold=None) for c, s in chosen))

    # ---- on disk ----

    def to_jsonl(self) -> str:
        """The text of ``manifest.jsonl``: a header line, then a line a case."""
        header = {
            "delineate_manifest": SCHEMAS["delineate_manifest"],
            "delineate": __version__,
            "channels": list(self.channels),
            "labels": self.labels.to_json(),
            "mapping": self.mapping.to_json(),
            "layout": self.layout,
            "root": self.root,
            "modality": self.modality,
        }
        return "".join(
            json.dumps(line) + "\n" for line in [header, *(c.to_json() for c in self.cases)]
        )

    @classmethod
    def from_jsonl(cls, text: str, path: str = "") -> Manifest:
        """The inverse of ``to_jsonl``.

        Raises:
            InputError: not a manifest, or a damaged line (named by its number).
        """
        lines = text.splitlines()
        number = 0
        try:
            head = json.loads(lines[0])
            if "delineate_manifest" not in head:
                raise KeyError("delineate_manifest")
            head = migrate("delineate_manifest", head, path=path)
            cases = []
            # The error below names the line by ``number``.
            for number, line in enumerate(lines[1:], start=1):  # noqa: B007
                if line.strip():
                    cases.append(Case.from_json(json.loads(line)))
            return cls(
                tuple(cases),
                tuple(head["channels"]),
                LabelSet.from_json(head["labels"]),
                LabelMapping.from_json(head["mapping"]),
                head.get("layout", ""),
                head.get("root", ""),
                head.get("modality", ""),
            )
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"line {number + 1} is not one of a delineate manifest ({type(error).__name__}: "
                f"{error})",
                path=path,
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read ``manifest.jsonl``."""
        try:
            return cls.from_jsonl(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", path=path) from error

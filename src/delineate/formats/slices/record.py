"""The tree of exported slices, its record and its index.

    OUT/slices.json                            the record: geometry, intensities and codes of masks
    OUT/index.csv                              a line for each slice
    OUT/VIEW/images/CASE_VIEW_0000.png         of several channels a folder for each
    OUT/VIEW/masks/CASE_VIEW_0000.png

Slices are planes of voxels, never resampled: of an oblique scan those nearest to the anatomical
planes. Rows and columns are in the radiological convention: an axial slice is seen from the feet, a
coronal one from the front, a sagittal one with the front on the left. Slices are counted towards
the head, the front and the right.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from ... import __version__
from ...core.errors import InputError
from ...core.grid import AxisMap, Grid
from ...core.inputs import read_json
from ...core.labels import LabelSet
from ...core.manifest import Case, Split
from ...core.schema import SCHEMAS, migrate
from .pixels import MaskCodes, Scale

RECORD, INDEX = "slices.json", "index.csv"
KIND = "delineate_slices"
# View -> directions of columns, rows and slices.
VIEWS = {"axial": "LPS", "coronal": "LIA", "sagittal": "PIR"}
ENDINGS = {"png": ".png", "npy": ".npy", "tiff": ".tif"}
MASKS_FOLDER = "masks"


def views_of(grid: Grid, asked: tuple[str, ...]) -> tuple[str, ...]:
    """The views in which a scan is cut: those that are asked for, or of a single slice its own."""
    if 1 not in grid.shape:
        return asked
    return tuple(view for view in VIEWS if grid.reorient(VIEWS[view])[0].shape[2] == 1)[:1]


def seen(grid: Grid, view: str) -> tuple[Grid, AxisMap]:
    """The grid (columns, rows, slices) of a view, and the map that moves arrays there."""
    return grid.reorient(VIEWS[view])


def positions_mm(grid: Grid) -> list[float]:
    """Of each slice of a grid (columns, rows, slices), its distance from the origin along the
    normal of its plane, which points in the direction of the slices.
    """
    columns, rows, slices = grid.affine[:3, :3].T
    normal = np.cross(columns, rows)
    normal *= np.sign(normal @ slices) / np.linalg.norm(normal)
    return [float(grid.to_mm((0, 0, k)) @ normal) for k in range(grid.shape[2])]


@dataclass(frozen=True)
class ExportedCase:
    """One case of an export.

    Args:
        patient, group, split: those of the cohort.
        grid, unit: of its volume.
        scales: of the intensities of each channel.
        views: those in which it is cut.
        has_mask: whether there are masks.
        max_error, clipped: see ``Scale.loss``; the largest of all channels.
    """

    id: str
    patient: str
    group: str
    split: Split
    grid: Grid
    unit: str
    scales: tuple[Scale, ...]
    views: tuple[str, ...]
    has_mask: bool
    max_error: float = 0.0
    clipped: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether every voxel is the same again."""
        return not (self.max_error or self.clipped)

    def to_json(self) -> dict[str, Any]:
        data = {**vars(self), "grid": self.grid.to_json()}
        return data | {"scales": [s.to_json() for s in self.scales], "views": list(self.views)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        more = {
            "grid": Grid.from_json(data["grid"]),
            "scales": tuple(Scale(**one) for one in data["scales"]),
            "views": tuple(data["views"]),
        }
        return cls(**{**data, **more})


@dataclass(frozen=True)
class SliceSet:
    """An export: what is the same for all its cases, and the cases.

    Args:
        form: "png", "npy" or "tiff".
        bits: 8 or 16, or 0 for arrays with the values as they are.
        window: lowest and highest intensity, or None.
        channels: channel -> name of its folder.
        labels, codes: the structures and how masks show them.
        options: of the command, for people.
        cases: by id.
        writing: ids of the cases that are being written.
    """

    form: str
    bits: int
    window: tuple[float, float] | None
    channels: Mapping[str, str]
    labels: LabelSet
    codes: MaskCodes
    options: Mapping[str, Any] = field(default_factory=dict)
    cases: Mapping[str, ExportedCase] = field(default_factory=dict)
    writing: tuple[str, ...] = ()

    @property
    def views(self) -> tuple[str, ...]:
        """Those of at least one case."""
        return tuple(v for v in VIEWS if any(v in case.views for case in self.cases.values()))

    def name(self, case: str, view: str, k: int) -> str:
        """The name of a slice's files."""
        return f"{case}_{view}_{k:04d}{ENDINGS[self.form]}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row of the index for each slice; files are relative to the record."""
        for case in self.cases.values():
            for view in case.views:
                for k, position in enumerate(positions_mm(seen(case.grid, view)[0])):
                    name = self.name(case.id, view, k)
                    files = {f: f"{view}/{f}/{name}" for f in self.channels.values()}
                    names = {"image": next(iter(files.values()))} if len(files) == 1 else files
                    yield {
                        "case": case.id,
                        "patient": case.patient,
                        "group": case.group,
                        "split": case.split or "",
                        "view": view,
                        "slice": k,
                        "position_mm": round(position, 4),
                        **names,
                        "mask": f"{view}/{MASKS_FOLDER}/{name}" if case.has_mask else "",
                    }

    def index(self) -> str:
        """The text of ``index.csv``."""
        text, rows = io.StringIO(), list(self.rows())
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["case"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def files_in(self, folder: Path) -> Iterator[Path]:
        """The files of this export that are in ``folder``, also those of a call that was killed."""
        ids = "|".join(map(re.escape, {*self.cases, *self.writing}))
        pattern = re.compile(rf"(?:{ids})_(?:{'|'.join(VIEWS)})_\d{{4,}}{ENDINGS[self.form]}")
        for view in VIEWS:
            for inner in (*self.channels.values(), MASKS_FOLDER):
                if (place := folder / view / inner).is_dir():
                    yield from (p for p in place.iterdir() if pattern.fullmatch(p.name))
        yield from (p for p in (folder / INDEX, folder / RECORD) if p.is_file())

    def to_json(self) -> dict[str, Any]:
        return {
            KIND: SCHEMAS[KIND],
            "delineate": __version__,
            **vars(self),
            "channels": dict(self.channels),
            "labels": self.labels.to_json(),
            "codes": self.codes.to_json(),
            "cases": [case.to_json() for case in self.cases.values()],
        }

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The record in ``folder``.

        Raises:
            InputError: there is none, or it is damaged or newer.
        """
        path = Path(folder) / RECORD
        if not path.exists():
            raise InputError(f"has no {RECORD}, so export-slices did not write it", path=folder)
        data = read_json(path)
        try:
            if KIND not in data:
                raise KeyError(KIND)
            data = migrate(KIND, data, path=str(path))
            cases = map(ExportedCase.from_json, data["cases"])
            return cls(
                data["form"],
                data["bits"],
                tuple(data["window"]) if data["window"] else None,
                data["channels"],
                LabelSet.from_json(data["labels"]),
                MaskCodes.from_json(data["codes"]),
                data["options"],
                {case.id: case for case in cases},
                tuple(data["writing"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"is not a record of exported slices ({type(error).__name__}: {error})", path=path
            ) from error


def folders_of(channels: tuple[str, ...]) -> dict[str, str]:
    """Channel -> name of its folder: "images" for a single one.

    >>> folders_of(("T1 post", "FLAIR"))
    {'T1 post': 'T1_post', 'FLAIR': 'FLAIR'}
    """
    if len(channels) == 1:
        return {channels[0]: "images"}
    found: dict[str, str] = {}
    for channel in channels:
        name = re.sub(r"[^\w-]+", "_", channel).strip("_") or "channel"
        while name.lower() in {MASKS_FOLDER, *map(str.lower, found.values())}:
            name += "_"
        found[channel] = name
    return found


def exported(case: Case, **facts: Any) -> ExportedCase:
    """The entry of a cohort's case; ``facts`` are the other fields."""
    return ExportedCase(case.id, case.patient, case.group, case.split, **facts)

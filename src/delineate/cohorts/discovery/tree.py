"""Looking at folders: what lies in them, which names belong together, and who the patient is.

A ``Tree`` lists each folder once, so that a thousand cases are looked through in one pass over the
disk. Names starting with "." are not seen, nor the data halves of two-file formats (.raw of
MetaImage, .hdr of Analyze). What is neither a file nor a folder (a named pipe, a socket, a device)
is never opened, and is noted. Only ``is_dicom`` opens files, and reads 132 bytes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...core.errors import InputError
from ...core.inputs import special_kind
from ...core.manifest import Source
from ...formats.files import is_image, natural_key, stem

IMAGE_ENDINGS = (
    ".nii.gz",
    ".nii",
    ".img",
    ".img.gz",
    ".mgh",
    ".mgz",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".png",
    ".tif",
    ".tiff",
    ".jpg",
    ".jpeg",
    ".bmp",
)
RASTERS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
NO_IMAGE = (
    ".txt",
    ".md",
    ".json",
    ".csv",
    ".yaml",
    ".yml",
    ".xml",
    ".pdf",
    ".zip",
    ".log",
    ".py",
    ".html",
    ".jsonl",
)


class Tree:
    """The folders under a root, each listed once."""

    def __init__(self) -> None:
        self.skipped: dict[
            str, str
        ] = {}  # path -> what it is, of whatever is neither a file nor a folder
        self._seen: dict[str, tuple[list[str], list[str]]] = {}
        self._dicom: dict[str, bool] = {}

    def _list(self, folder: Path) -> tuple[list[str], list[str]]:
        key = os.fspath(folder)
        if key not in self._seen:
            files: list[str] = []
            folders: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if _is(entry.is_dir):
                            folders.append(entry.name)
                        elif not _is(entry.is_file) and (kind := special_kind(entry.path)):
                            self.skipped[entry.path] = kind
                        else:  # a link to nothing stays: it fails under its own name
                            files.append(entry.name)
            except OSError as error:
                raise InputError(
                    f"the folder cannot be read ({error.strerror})", path=folder
                ) from error
            self._seen[key] = (sorted(files, key=natural_key), sorted(folders, key=natural_key))
        return self._seen[key]

    def folders(self, folder: Path) -> list[Path]:
        """Folders directly inside, in natural order."""
        return [folder / name for name in self._list(folder)[1]]

    def files(self, folder: Path) -> list[Path]:
        """Files directly inside, in natural order."""
        return [folder / name for name in self._list(folder)[0]]

    def images(self, folder: Path) -> list[Path]:
        """Image files directly inside, told by their ending; DICOM files are not among them."""
        return [
            folder / name for name in self._list(folder)[0] if name.lower().endswith(IMAGE_ENDINGS)
        ]

    def folder(self, parent: Path, *names: str) -> Path | None:
        """The folder inside ``parent`` with one of ``names``, whatever the case of its letters."""
        wanted = {name.lower() for name in names}
        return next((f for f in self.folders(parent) if f.name.lower() in wanted), None)

    def is_dicom(self, folder: Path) -> bool:
        """Whether DICOM files lie directly inside; looks at the first three that could be."""
        key = os.fspath(folder)
        if key not in self._dicom:
            names = [
                n
                for n in self._list(folder)[0]
                if not n.lower().endswith((*IMAGE_ENDINGS, *NO_IMAGE)) and n.upper() != "DICOMDIR"
            ]
            self._dicom[key] = any(has_dicom_mark(folder / name) for name in names[:3])
        return self._dicom[key]


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link that leads round to itself
        return False


def has_dicom_mark(path: Path) -> bool:
    """Whether the file has the letters DICM at byte 128 (part 10 of the standard, 7.1), or at least
    ends in .dcm.
    """
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" or path.suffix.lower() == ".dcm"
    except OSError:
        return False


def source(path: Path, *, like: Path | str = "", spacing_mm: tuple[float, ...] = ()) -> Source:
    """A source with an absolute path."""
    return Source(
        os.path.abspath(path), like=os.path.abspath(like) if like else "", spacing_mm=spacing_mm
    )


def most(tree: Tree, root: Path, folders: list[Path]) -> bool:
    """Whether these are at least half of the root's folders: one such folder among many others is
    no cohort.
    """
    return bool(folders) and 2 * len(folders) >= len(tree.folders(root))


def is_raster(path: Path) -> bool:
    """Whether the name ends as a 2-D picture's does."""
    return path.name.lower().endswith(RASTERS)


def may_be_image(path: Path) -> bool:
    """Whether the name or the content is that of an image; one that is empty or damaged stays in
    sight, to fail under its own name.
    """
    return path.name.lower().endswith(IMAGE_ENDINGS) or is_image(path)


# ---- names that belong together ----

CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_ENDINGS = re.compile(
    r"(?i)([_.-](0000|seg|segmentation|mask|masks|labels?|gt|truth|ground_?truth|manual|annotation|image|img|orig|scan|volume|data))+$"
)


def match_names(images: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Which label name belongs to which image name.

    Tried in order, each only where it leaves every key unique: equal names; equal without endings
    such as ``_0000``, ``_image``, ``_seg``; equal without the part that all names of a side begin
    and end with; equal numbers. The first that pairs the whole smaller side wins, else the one that
    pairs most.
    """
    best: dict[str, str] = {}
    for key in (lambda names: list(names), _without_endings, _without_common, _numbers):
        left, right = key(images), key(labels)
        if len(set(left)) < len(left) or len(set(right)) < len(right):
            continue
        by_key = dict(zip(right, labels, strict=True))
        found = {name: by_key[k] for name, k in zip(images, left, strict=True) if k and k in by_key}
        if len(found) == min(len(images), len(labels)):
            return found
        best = max(best, found, key=len)
    return best


def _without_endings(names: Sequence[str]) -> list[str]:
    return [_ENDINGS.sub("", name) for name in names]


def _without_common(names: Sequence[str]) -> list[str]:
    if len(names) < 2:
        return list(names)
    head = re.sub(r"\d+$", "", shared_start(names))
    tail = re.sub(r"^\d+", "", shared_start([n[::-1] for n in names])[::-1])
    return [name[len(head) : len(name) - len(tail)] for name in names]


def shared_start(names: Sequence[str]) -> str:
    """What all the names begin with; there is at least one."""
    first, last = min(names), max(names)
    return first[
        : next(
            (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
            min(len(first), len(last)),
        )
    ]


def _numbers(names: Sequence[str]) -> list[str]:
    return ["-".join(str(int(n)) for n in re.findall(r"\d+", name)) for name in names]


def group_channels(files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Files named ``CASE_0000``, ``CASE_0001`` ... as case -> channel number -> file; empty where
    one is named otherwise.
    """
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        found = CHANNEL.match(stem(path))
        if found is None:
            return {}
        groups.setdefault(found["case"], {})[found["channel"]] = path
    return groups


def case_ids(names: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """The names as ids: where one occurs twice, its prefix (the split or folder it comes from) goes
    before it.
    """
    count = Counter(names)
    return [
        f"{prefix}_{name}" if count[name] > 1 and prefix else name
        for name, prefix in zip(names, prefixes, strict=True)
    ]


# ---- patients ----

# brats_2013_pat0003_1, patient001_frame01
PATIENTS = (
    re.compile(r"^(OAS\d_\d+)"),  # OASIS: OAS1_0001_MR1 and _MR2 are one person
    re.compile(r"^(sub-[A-Za-z0-9]+)"),  # BIDS
    re.compile(r"^(TCGA-\w{2}-\w{4})"),
    re.compile(r"^(STS_\d+)"),
    re.compile(r"(?i)^(.*?(?:patient|pat)[_-]?\d+)(?:[_-].+)"),
    re.compile(r"^([Pp]\d+)[_-].+"),  # P13_T1_00028
    re.compile(r"(?i)^(.+?)[_-](?:ses|session|visit|scan|frame|slice|series)[_-]?\d+$"),
)


def patient_from_id(case: str) -> str:
    """The patient that a case id of a common form names, "" where it has none of these forms."""
    return next((found.group(1) for pattern in PATIENTS if (found := pattern.match(case))), "")

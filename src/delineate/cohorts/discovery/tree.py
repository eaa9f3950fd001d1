"""Read folders: list their content, match names that belong together, and find the patient.

A ``Tree`` lists each folder once, so that a thousand cases need one pass over the disk. Names that
start with "." are ignored, and so are the second files of two-file formats (.raw of MetaImage, .hdr
of Analyze). An entry that is neither a file nor a folder (a named pipe, a socket, a device) is
never opened; it is recorded in ``skipped``. ``is_dicom`` reads 132 bytes of files, and
``dicom_objects`` their headers; nothing else opens a file.
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
from ...core.terms import read
from ...core.volume import ReadAs
from ...formats import dicom
from ...formats.disk import added_endings
from ...formats.files import is_folder, is_image, natural_key, stem
from .splits import split_in

# Extensions of 2-D images without geometry.
RASTERS = (
    *(".png", ".tif", ".tiff", ".jpg", ".jpeg", ".gif", ".bmp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".ppm.gz", ".pgm.gz", ".pbm.gz"),
)
# File extensions of images. DICOM files often have none, so they are recognised by content.
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
    *RASTERS,
)
DICOM_ENDINGS = (".dcm", ".dcm.gz")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")  # that may hold DICOM files
# Extensions that are never opened to look for DICOM.
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
    """The folders under a root; each is read from the disk once, and so is the header of each DICOM
    file. For ``fix_series`` see ``formats.dicom.fix``.
    """

    def __init__(self, fix_series: str = "") -> None:
        self.fix_series = fix_series
        self._headers = dicom.Headers()
        # Path -> kind, for entries that are neither a file nor a folder.
        self.skipped: dict[str, str] = {}
        self.folders_named_as_images: list[str] = []
        self._seen: dict[str, tuple[list[str], list[str]]] = {}
        self._dicom: dict[str, bool] = {}

    def _list(self, folder: Path) -> tuple[list[str], list[str]]:
        # Each folder is read once and sorted in natural order ("case2" before "case10").
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
                            if has_image_ending(entry.name):
                                self.folders_named_as_images.append(entry.path)
                        # Opening a pipe or a device could block, so it is only recorded.
                        elif not _is(entry.is_file) and (kind := special_kind(entry.path)):
                            self.skipped[entry.path] = kind
                        else:  # a broken link is kept, so that it is reported by name
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
        """Image files directly inside, by file extension, in natural order; without DICOM files."""
        return [folder / name for name in self._list(folder)[0] if has_image_ending(name)]

    def folder(self, parent: Path, *names: str) -> Path | None:
        """The first folder in ``parent`` with one of ``names``, ignoring case; None if none."""
        wanted = {name.lower() for name in names}
        return next((f for f in self.folders(parent) if f.name.lower() in wanted), None)

    def is_dicom(self, folder: Path) -> bool:
        """Whether DICOM files are directly inside; reads the first three candidates."""
        key = os.fspath(folder)
        if key not in self._dicom:
            self._dicom[key] = any(map(has_dicom_mark, self.may_be_dicom(folder)[:3]))
        return self._dicom[key]

    def dicom_files(self, folder: Path) -> list[Path]:
        """The DICOM files directly inside, in natural order; reads the start of each candidate."""
        return [path for path in self.may_be_dicom(folder) if has_dicom_mark(path)]

    def dicom_archives(self, folder: Path) -> list[Path]:
        """The archives of DICOM files directly inside, in natural order."""
        names = (n for n in self._list(folder)[0] if n.lower().endswith(ARCHIVES))
        return [path for name in names if is_folder(path := folder / name)]

    def dicom_objects(self, folder: Path) -> tuple[list[dicom.Series], list[tuple[Path, str]]]:
        """All series in a folder or archive and below, and other DICOM objects with their kinds."""
        return dicom.find(folder, fix_series=self.fix_series, headers=self._headers)

    def series(self, folder: Path) -> list[dicom.Series]:
        """All series in a folder and below."""
        return self.dicom_objects(folder)[0]

    def may_be_dicom(self, folder: Path) -> list[Path]:
        """Files without a known extension; DICOMDIR is an index, not an image."""
        return [
            folder / n
            for n in self._list(folder)[0]
            if not has_image_ending(n)
            and not n.lower().endswith(NO_IMAGE)
            and n.upper() != "DICOMDIR"
        ]


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link that points to itself
        return False


def has_dicom_mark(path: Path) -> bool:
    """Whether the file has the letters DICM at byte 128 (DICOM PS3.10, section 7.1) or the
    extension .dcm or .dcm.gz; False if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" or path.name.lower().endswith(DICOM_ENDINGS)
    except OSError:
        return False


def source(
    path: Path,
    *,
    like: Path | str = "",
    spacing_mm: tuple[float, ...] = (),
    structure: str = "",
    item: str = "",
    axes: str = "",
    unit: ReadAs = "",
) -> Source:
    """A ``Source`` with absolute paths."""
    return Source(
        os.path.abspath(path),
        like=os.path.abspath(like) if like else "",
        spacing_mm=spacing_mm,
        structure=structure,
        item=item,
        axes=axes,
        unit=unit,
    )


def most(tree: Tree, root: Path, folders: list[Path]) -> bool:
    """Whether ``folders`` are at least half of the folders in ``root``.

    A single matching folder among many others is not a cohort.
    """
    return bool(folders) and 2 * len(folders) >= len(tree.folders(root))


def is_raster(path: Path) -> bool:
    """Whether the file extension is that of a 2-D image (PNG, TIFF, JPEG, PNM ...)."""
    return path.name.lower().endswith(RASTERS)


def has_image_ending(name: str) -> bool:
    """Whether a file name ends like an image of a known or registered format; not of DICOM."""
    return name.lower().endswith((*IMAGE_ENDINGS, *added_endings()))


def may_be_image(path: Path) -> bool:
    """Whether the file extension or the content is that of an image.

    An empty or damaged file with an image extension counts, so that it is reported by name.
    """
    return has_image_ending(path.name) or is_image(path)


# ---- names that belong together ----

CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
# Words at the end of a name that mark its role, possibly several ("_0000", "_img_gt").
_ENDINGS = re.compile(
    r"(?i)([_.-](0000|seg|segmentation|mask|masks|labels?|gt|truth|ground_?truth|manual|annotation"
    r"|image|img|orig|scan|volume|data))+$"
)


def match_names(images: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Match label names to image names: image name -> label name.

    Four comparisons are tried in this order: equal names; equal names without endings such as
    ``_0000``, ``_image``, ``_seg``; equal names without the prefix and suffix that all names of one
    side share; equal numbers. A comparison is used only if all keys on each side are unique. The
    first one that matches every name of the smaller side wins; otherwise the one with most matches.
    """
    # Each key function turns the names of one side into comparable keys.
    best: dict[str, str] = {}
    for key in (lambda names: list(names), _without_endings, _without_common, _numbers):
        left, right = key(images), key(labels)
        # A key that occurs twice on one side is ambiguous.
        if len(set(left)) < len(left) or len(set(right)) < len(right):
            continue
        by_key = dict(zip(right, labels, strict=True))
        found = {name: by_key[k] for name, k in zip(images, left, strict=True) if k and k in by_key}
        # Every name of the smaller side has a partner: no weaker comparison is needed.
        if len(found) == min(len(images), len(labels)):
            return found
        best = max(best, found, key=len)
    return best


def _without_endings(names: Sequence[str]) -> list[str]:
    return [_ENDINGS.sub("", name) for name in names]


def _without_common(names: Sequence[str]) -> list[str]:
    if len(names) < 2:
        return list(names)
    # Digits at the edge of the shared text belong to the case number, as in "case10", "case12".
    head = re.sub(r"\d+$", "", shared_start(names))
    # The suffix is found by reversing the names.
    tail = re.sub(r"^\d+", "", shared_start([n[::-1] for n in names])[::-1])
    return [name[len(head) : len(name) - len(tail)] for name in names]


def shared_start(names: Sequence[str]) -> str:
    """The longest common prefix of ``names``, which must not be empty."""
    # Only the smallest and the largest name in sort order need to be compared.
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
    """Files named ``CASE_0000``, ``CASE_0001`` ... as case -> channel number -> file; empty if
    any file has another form of name.
    """
    groups: dict[str, dict[str, Path]] = {}
    for path in files:
        found = CHANNEL.match(stem(path))
        # One other name shows that the numbers do not count channels.
        if found is None:
            return {}
        groups.setdefault(found["case"], {})[found["channel"]] = path
    return groups


def case_ids(names: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """Case ids from names: a name that occurs more than once gets its prefix (the split or folder
    it comes from).
    """
    count = Counter(names)
    return [
        f"{prefix}_{name}" if count[name] > 1 and prefix else name
        for name, prefix in zip(names, prefixes, strict=True)
    ]


# ---- patients ----

# Forms of case ids whose group is the patient; the first match counts.
PATIENTS = (
    re.compile(r"^(OAS\d_\d+)"),  # OASIS: _MR1 and _MR2 are one person
    re.compile(r"^(sub-[A-Za-z0-9]+)"),  # BIDS
    re.compile(r"^(TCGA-\w{2}-\w{4})"),
    re.compile(r"^(STS_\d+)"),
    # brats_2013_pat0003_1, patient001_frame01
    re.compile(r"(?i)^(.*?(?:patient|pat)[_-]?\d+)(?:[_-].+)"),
    re.compile(r"^([Pp]\d+)[_-].+"),  # P13_T1_00028
    re.compile(r"(?i)^(BraTS-[A-Za-z-]+-\d+)-\d+$"),  # from 2021 on; the last number is the visit
    re.compile(r"(?i)^((?:ADNI[_-])?\d{3}_S_\d{4,5})(?:[_-].*)?$"),
    # A word and a number after a name without a number, such as ct_scan_01, is no visit.
    re.compile(
        r"(?i)^(.*?\d.*?)[_-](?:ses|session|visit|v|scan|exam|study|acq|run|rep|frame|slice|series)"
        r"[_-]?\d+$"
    ),
    re.compile(
        r"(?i)^(.*?\d.*?)[_-](?:time[_-]?point|time|tp|day|week|month|year|wk|d|w|m|y)"
        r"[_-]?\d+[dwmy]?$"
    ),
    re.compile(r"(?i)^(.+?)[_-](?:baseline|bl|follow[_-]?up|fu|pre|post)[_-]?\d*[dwmy]?$"),
    # A date, such as 20190131 or 2019-01-31, with or without more behind it.
    re.compile(
        r"^(.*?\d.*?)[_-](?:19|20)\d\d([_-]?)(?:0[1-9]|1[0-2])\2(?:0[1-9]|[12]\d|3[01])(?:[_-].*)?$"
    ),
    # Both eyes, knees or breasts of one person.
    re.compile(r"(?i)^(.+?)[_-](?:left|right|od|os)$"),
    re.compile(r"^(.+?\d)(?:_?[LR]|[_-][lr])$"),
)
# Numbers of the form NAME_A_B in which A is no patient.
_GROUPS = re.compile(r"(?i)(?:site|cent(?:re|er)|hospital|clinic|fold|batch|set|group)[_-]?$")
_YEAR = re.compile(r"(?:19|20)\d\d$")
_COUNTED = re.compile(r"^(.*?[^\W_])[_-](\d+)$")
_MODALITY_WORD = re.compile(r"(?i)(?<![a-z])(ct|mri?|pet)(?![a-z0-9])")
MOST_SCANS = 10  # volumes of one patient in one folder
MOST_PARTS = 32  # of one patient, if their numbers have gaps or names have no number


def patient_from_id(case: str) -> str:
    """The patient in a case id of one of the forms ``PATIENTS``; "" if no form matches. An id may
    have several forms, such as a visit and a side.
    """
    patient = ""
    while found := next((m for p in PATIENTS if (m := p.match(patient or case))), None):
        if found.group(1) == patient:
            break
        patient = found.group(1)
    return patient


def patients_of_channels(cases: Sequence[str]) -> dict[str, str]:
    """Case id -> patient, of ids that differ in a sequence or modality alone (``7_t1`` and
    ``7_t2``, ``A_ct_003`` and ``A_mr_003``); {} if no two ids do.
    """
    found: dict[str, str] = {}
    held: dict[str, set[str]] = {}
    for case in cases:
        one = read(case, in_file_name=True)
        identity, before, after = one.identity, one.before, one.after
        if not identity and (word := _MODALITY_WORD.search(case)):  # MR alone is no evidence else
            identity, before, after = word[1].upper(), case[: word.start()], case[word.end() :]
        before, after = before.strip("_.- "), after.strip("_.- ")
        # Words after the number of a patient belong to the sequence (7_t2_SPACE).
        name = before if any(map(str.isdigit, before)) else "_".join(filter(None, (before, after)))
        if identity and name:
            found[case] = name
            held.setdefault(name, set()).add(identity)
    if 2 * len(found) <= len(cases) or max(map(len, held.values()), default=0) < 2:
        return {}
    return found


def patients_of_parts(cases: Sequence[str]) -> dict[str, str]:
    """Case id -> patient, if all ids are NAME_B and B counts the parts or visits of NAME
    (``liver_1_0``, ``liver_1_1``, ``liver_2_0``); {} if they have another form.

    Without this, parts of one patient would be on both sides of a split. NAME is a patient if it
    ends with a number that is not the same everywhere and no year (``BraTS2021_00001``), and B
    counts from 0 or 1, with gaps if it is small; without such a number if there are at least as
    many names as parts of one, so that classes (``benign_1`` to ``benign_400``) are no patients.
    """
    parts: dict[str, list[int]] = {}
    patients = {}
    for case in cases:
        found = _COUNTED.match(case)
        if found is None or _GROUPS.search(re.sub(r"\d+$", "", found[1])):
            return {}
        patients[case] = found[1]
        parts.setdefault(found[1], []).append(int(found[2]))
    if not 1 < len(parts) < len(cases):
        return {}
    # Parts without a structure may have been removed.
    starts = sum(min(numbers) in (0, 1) for numbers in parts.values())
    few = 2 * starts >= len(parts) and max(map(max, parts.values())) < MOST_PARTS
    counted = all(
        min(numbers) in (0, 1) and sorted(numbers) == [*range(min(numbers), max(numbers) + 1)]
        for numbers in parts.values()
    )
    if all(name[-1].isdigit() for name in parts):
        years = all(_YEAR.search(name) for name in parts)
        return patients if (counted or few) and not years else {}
    # Two names are more often classes than patients, and "train" is none.
    most = max(map(len, parts.values()))
    is_enough = len(parts) >= max(3, most) and not any(map(split_in, parts))
    return patients if few and is_enough else {}

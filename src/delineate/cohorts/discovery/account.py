"""An account of every file of a cohort's folder: used as what, or not used and why.

Files are grouped by their folder (numbered folders count as one) and ending, so that a tree of a
million files gives a few lines. Only one JSON file of each group is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...core.manifest import Manifest, Source
from ...formats import dicom
from ...formats.files import companions, is_image
from .tree import has_image_ending

MOST_GROUPS = 40  # of files that are not used; the rest is counted in one line
SNIFFED_BYTES = 1 << 16
_DOCUMENTS = (".txt", ".md", ".pdf", ".rst", ".docx", ".html", ".htm", ".rtf", ".log", ".bib")
_TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods")
_SETTINGS = (".json", ".yaml", ".yml", ".xml", ".toml", ".ini", ".jsonl")
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
_PROGRAMS = (".py", ".ipynb", ".m", ".sh", ".r", ".js")
_ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pt", ".pth")
_DOCUMENT = re.compile(r"(?i)(readme|licen[cs]e|changes|citation|authors|version|contributors)$")
# Folders of a FreeSurfer subject.
_SURFER = {
    "surf": "surfaces",
    "label": "labels of surfaces",
    "stats": "statistics",
    "scripts": "records",
    "touch": "records",
    "tmp": "records",
    "trash": "records",
    "transforms": "transforms",
}
_VOXELS = (".raw", ".zraw")
# Keys of files with outlines, and what they are.
_OUTLINES = (
    (r'"annotations"\s*:', "polygons (COCO) that belong to no case"),
    (r'"shapes"\s*:', "polygons (labelme) that belong to no case"),
    (r"<annotations>|<polygon", "polygons that belong to no case"),
)


@dataclass(frozen=True)
class FileGroup:
    """Files of one kind in one folder, or in folders whose names differ only in numbers.

    Args:
        place: folder below the root; a run of digits is written as *.
        ending: of the files, such as ".nii.gz"; "" without one.
        count: number of files.
        use: "image", "label", "settings", or "" if they are not used.
        why: what they seem to be, if they are not used.
        example: one of the files, below the root.
    """

    place: str
    ending: str
    count: int
    use: str
    why: str
    example: str

    def to_json(self) -> dict[str, str | int]:
        return dict(vars(self))

    def __str__(self) -> str:
        files = f"{self.count} {self.ending or 'files without an ending'}"
        where = f" in {self.place}" if self.place != "." else ""
        if self.use:
            return f"{files}{where}: used as {self.use}"
        return f"{files}{where}: not used, {self.why} (such as {self.example})"


def account_for(manifest: Manifest, settings: Iterable[str | Path] = ()) -> list[FileGroup]:
    """Every file below the cohort's root, in groups: those that are used first.

    Args:
        manifest: all cases that were found.
        settings: further files that were read, such as a description.

    Returns:
        [] if the root is no folder, such as for a single file.
    """
    root = Path(manifest.root)
    if not root.is_dir():
        return []
    used = _uses(manifest, settings)
    groups: dict[tuple[str, str, str], list[str]] = {}
    for path in _files_below(root):
        use = used.get(path) or _use_of_folder(path, used)
        relative = os.path.relpath(path, root)
        place = re.sub(r"\d+", "*", os.path.dirname(relative)) or "."
        groups.setdefault((use, place, _ending(path)), []).append(relative)
    found = [
        FileGroup(place, ending, len(files), use, "" if use else _why(root, files[0]), files[0])
        for (use, place, ending), files in groups.items()
    ]
    order = ("image", "label", "settings", "")
    return sorted(found, key=lambda one: (order.index(one.use), -one.count, one.place, one.ending))


def lines(groups: list[FileGroup]) -> list[str]:
    """A line for each group; small groups of unused files beyond ``MOST_GROUPS`` are counted."""
    rest = groups[MOST_GROUPS:]
    out = [str(one) for one in groups[:MOST_GROUPS]]
    if rest:
        out.append(f"{sum(one.count for one in rest)} more files of {len(rest)} kinds: not used")
    return out


def _uses(manifest: Manifest, settings: Iterable[str | Path]) -> dict[str, str]:
    """Absolute path of a file or folder -> its use."""
    used = {os.path.abspath(path): "settings" for path in settings}
    series: dict[str, list[dicom.Series]] = {}
    for case in manifest:
        for use, sources in (("image", case.images), ("label", case.label)):
            for source in sources:
                for path in _paths(source, series):
                    used.setdefault(os.path.abspath(path), use)
    root = manifest.root
    for name in ("dataset.json", *(f"labels.{e}" for e in ("csv", "tsv", "yaml", "yml", "json"))):
        if os.path.isfile(os.path.join(root, name)):
            used.setdefault(os.path.join(os.path.abspath(root), name), "settings")
    return used


def _paths(source: Source, series: dict[str, list[dicom.Series]]) -> Iterator[str]:
    """The files and folders of a source; ``series`` keeps folder -> its series."""
    if source.series and os.path.isdir(source.path):
        if source.path not in series:
            series[source.path] = dicom.find_series(source.path, source.fix_series)
        for one in series[source.path]:
            if one.is_chosen_by(source.series):
                yield from map(str, one.files)
        return
    yield source.path
    if source.path.lower().endswith((".mhd", ".nhdr", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        yield from map(str, companions(source.path))


def _use_of_folder(path: str, used: dict[str, str]) -> str:
    """The use of the nearest folder above that is a case's scan or mask."""
    parent = os.path.dirname(path)
    while parent != os.path.dirname(parent):
        if parent in used:
            return used[parent]
        parent = os.path.dirname(parent)
    return ""


def _files_below(root: Path) -> Iterator[str]:
    """All files, with the targets of links to folders once; hidden files are left out."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(os.path.abspath(root), followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(folder, n) for n in sorted(names) if not n.startswith("."))


def _ending(path: str) -> str:
    name = os.path.basename(path).lower()
    stem, ending = os.path.splitext(name)
    return f"{os.path.splitext(stem)[1]}{ending}" if ending == ".gz" else ending


def _why(root: Path, relative: str) -> str:
    """What an unused file seems to be, from its name, and from the content of a JSON file."""
    path = root / relative
    ending = _ending(relative)
    if ending in (".json", ".xml"):
        return _outline(path) or "settings or metadata"
    for endings, words in (
        (_DOCUMENTS, "documents"),
        (_TABLES, "tables"),
        (_SETTINGS, "settings or metadata"),
        (_ARCHIVES, "archives, which are not opened"),
        (_PROGRAMS, "programs"),
        (_ARRAYS, "arrays, which need a description with spacing and axes"),
        (_VOXELS, "voxels of a header that belongs to no case"),
    ):
        if ending.endswith(endings):
            return words
    if _DOCUMENT.match(path.name):
        return "documents"
    if path.parent.name in _SURFER:
        return f"{_SURFER[path.parent.name]} of FreeSurfer, which are not read"
    if has_image_ending(path.name):
        # "masked" names images without a skull.
        words = r"(?i)mask(?!ed)|seg|label|manual|truth|(?<![a-z])gt(?![a-z])"
        is_mask = re.search(words, relative)
        return "masks that belong to no case" if is_mask else "images that belong to no case"
    if dicom.kind_of(path):
        return "DICOM objects with labels that belong to no case"
    return "DICOM files that belong to no case" if is_image(path) else "an unknown kind"


def _outline(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(SNIFFED_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    return next((words for pattern, words in _OUTLINES if re.search(pattern, text)), "")

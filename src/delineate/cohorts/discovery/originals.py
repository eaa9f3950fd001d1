"""Which files a command reads that works on a cohort, so that none of its outputs takes the place
of one (``core.outputs``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.manifest import ABSENT, Manifest, Source
from ...core.outputs import Originals
from ...formats.files import companions, is_image, is_slice_of, place_of

# Files beside the scans that layouts read: names of structures, lists of cases, splits.
MANIFEST = "manifest.jsonl"
_BESIDE = (
    MANIFEST,
    "dataset.json",
    "meta.csv",
    "labels.csv",
    "labels.tsv",
    "labels.yaml",
    "labels.yml",
    "labels.json",
)


def originals(manifests: Iterable[Manifest], more: Iterable[str | Path | None] = ()) -> Originals:
    """All files of the cases, truth included, what lies beside them in their cohorts' folders, and
    ``more`` that the command was given.
    """
    paths: set[str] = set()
    for manifest in manifests:
        paths |= files_of(manifest)
    return Originals([*paths, *(path for path in more if path)], is_slice_of)


def originals_in(data: str | Path, more: Iterable[str | Path | None] = ()) -> Originals:
    """All scans, masks and lists of cases in a folder whose layout is not known yet, or the one
    file; and ``more``.
    """
    return Originals(
        [data, *(path for path in more if path)],
        lambda path, folder: path.name.lower() in _BESIDE or is_image(path),
    )


def files_of(manifest: Manifest) -> set[str]:
    """The files and folders of a cohort: its images and masks with what they are read with, and
    the lists of cases and names beside them.
    """
    sources = {
        source for case in manifest for source in (*case.images, *case.label) if source != ABSENT
    }
    found = {path for source in sources for path in _of_source(source)}
    # A cohort may be reached by a manifest or by one of its folders; what its layout reads then
    # stands beside the scans or one folder above them.
    near = {folder for path in found for folder in list(Path(path).parents)[:2]}
    found |= {str(folder / name) for folder in near for name in _BESIDE if name != MANIFEST}
    if manifest.root:
        root = Path(manifest.root)
        found |= {str(root / name) for name in _BESIDE} if root.is_dir() else {manifest.root}
    return found


def _of_source(source: Source) -> Iterator[str]:
    place = place_of(source.path)
    yield str(place)
    yield from map(str, companions(place))
    if source.like:
        yield str(place_of(source.like))

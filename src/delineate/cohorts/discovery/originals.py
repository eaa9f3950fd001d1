"""List the files that a command on a cohort reads, so that no output overwrites one of them.

The check itself is in ``core.outputs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.manifest import ABSENT, Manifest, Source
from ...core.outputs import Originals
from ...formats.files import companions, is_image, is_slice_of, place_of

# Files next to the scans that layouts read: names of structures, lists of cases, splits.
MANIFEST = "manifest.jsonl"
_LISTS = (
    MANIFEST,
    "dataset.json",
    "meta.csv",
    "labels.csv",
    "labels.tsv",
    "labels.yaml",
    "labels.yml",
    "labels.json",
    "labels.txt",
)


def originals(manifests: Iterable[Manifest], more: Iterable[str | Path | None] = ()) -> Originals:
    """All files of the cases (images and ground truth), the lists of names and cases next to them,
    and the files in ``more``.

    Args:
        manifests: the cohorts that the command reads.
        more: further input files of the command; None is ignored.
    """
    paths: set[str] = set()
    for manifest in manifests:
        paths |= files_of(manifest)
    return Originals([*paths, *(path for path in more if path)], is_slice_of)


def originals_in(data: str | Path, more: Iterable[str | Path | None] = ()) -> Originals:
    """All scans, masks and lists of cases in a folder whose layout is not known yet.

    Args:
        data: the folder, or a single file.
        more: further input files of the command; None is ignored.
    """
    return Originals(
        [data, *(path for path in more if path)],
        lambda path, folder: path.name.lower() in _LISTS or is_image(path),
    )


def files_of(manifest: Manifest) -> set[str]:
    """The files and folders of a cohort: images and masks with their companion files, and the
    lists of cases and names next to them.
    """
    sources = {
        source for case in manifest for source in (*case.images, *case.label) if source != ABSENT
    }
    # Scans and masks, with the second file of two-file formats.
    found = {path for source in sources for path in _of_source(source)}
    # The input may be a manifest or one of the cohort's folders. The files that the layout reads
    # are then next to the scans or one folder above them.
    near = {folder for path in found for folder in list(Path(path).parents)[:2]}
    found |= {str(folder / name) for folder in near for name in _LISTS if name != MANIFEST}
    if manifest.root:
        root = Path(manifest.root)
        found |= {str(root / name) for name in _LISTS} if root.is_dir() else {manifest.root}
    return found


def _of_source(source: Source) -> Iterator[str]:
    # A path may name one series of a folder; the folder is what must be kept.
    place = place_of(source.path)
    yield str(place)
    yield from map(str, companions(place))
    if source.like:
        yield str(place_of(source.like))

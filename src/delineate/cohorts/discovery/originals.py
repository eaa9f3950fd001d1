"""Which files a command reads that works on a cohort, so that none of its outputs takes the place
of one (``core.outputs``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.manifest import ABSENT, Manifest, Source
from ...core.outputs import Originals
from ...formats.files import companions, is_image, is_slice

# Files beside the scans that layouts read: names of structures, lists of cases, splits.
_BESIDE = (
    "manifest.jsonl",
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
        paths |= set(_of_cohort(manifest))
    return Originals([*paths, *(path for path in more if path)], is_slice)


def originals_in(data: str | Path, more: Iterable[str | Path | None] = ()) -> Originals:
    """All scans, masks and lists of cases in a folder whose layout is not known yet, or the one
    file; and ``more``.
    """
    return Originals(
        [data, *(path for path in more if path)],
        lambda path: path.name.lower() in _BESIDE or is_image(path),
    )


def _of_cohort(manifest: Manifest) -> Iterator[str]:
    if manifest.root:
        root = Path(manifest.root)
        yield from (str(root / name) for name in _BESIDE) if root.is_dir() else (manifest.root,)
    for case in manifest:
        for source in (*case.images, *case.label):
            if source != ABSENT:
                yield from _of_source(source)


def _of_source(source: Source) -> Iterator[str]:
    place = source.path
    if "#" in place and not Path(place).exists():
        place = place.rpartition("#")[0]
    yield place
    yield from map(str, companions(place))
    if source.like:
        yield (
            source.like.rpartition("#")[0]
            if "#" in source.like and not Path(source.like).exists()
            else source.like
        )

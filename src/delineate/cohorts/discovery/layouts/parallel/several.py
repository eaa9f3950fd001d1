"""Several masks of one image below a folder of labels: a folder for each structure with a mask of
each image (``masks/lung/P1.png``), or a folder for each image with a mask of each structure or
instance (``masks/P1/lung.png``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from .....core.errors import LayoutError
from .....core.labels import FOREGROUND, side_of
from .....core.manifest import Source
from .....core.terms import is_known_structure
from .....formats.files import stem
from ...drafts.content import overlap_of
from ...splits import words_of
from ...tree import Tree, is_raster, match_names, source
from .roles import LABEL_WORD, VIEWS

SHARE = 0.5  # of the smaller side that must have a partner
Masks = dict[str, dict[str, list[Path]]]  # image -> structure -> its masks


def several_masks(
    tree: Tree, folder: Path, images: Mapping[str, list[Path]]
) -> tuple[dict[str, tuple[Source, ...]], list[str]] | None:
    """Image -> its masks, and the structures in the order in which they are drawn, larger ones
    first; None if the folder is arranged in another way.

    Raises:
        LayoutError: masks of one image overlap and are no structures, such as of two observers.
    """
    return None if tree.images(folder) else masks_in(tree, tree.folders(folder), images)


def masks_in(
    tree: Tree, folders: Sequence[Path], images: Mapping[str, list[Path]]
) -> tuple[dict[str, tuple[Source, ...]], list[str]] | None:
    """As ``several_masks``, of the folders themselves."""
    if any(path.is_dir() for paths in images.values() for path in paths):
        return None
    inner = {one.name: {stem(path): path for path in tree.images(one)} for one in folders}
    inner = {name: files for name, files in inner.items() if files}
    if not inner or {name.lower() for name in inner} & {*VIEWS}:
        return None
    found = _by_image(inner, images) or _by_structure(inner, list(images))
    if found is None:
        return None
    structures = _in_order(found)
    sources = {
        image: tuple(
            source(path, structure=name) for name, paths in of_one.items() for path in paths
        )
        for image, of_one in found.items()
    }
    return sources, structures


def _by_structure(inner: Mapping[str, Mapping[str, Path]], images: Sequence[str]) -> Masks | None:
    """The masks of folders that each have masks of most images."""
    found: Masks = {}
    for name, files in inner.items():
        match = match_names(images, list(files))
        if len(match) < SHARE * min(len(images), len(files)):
            return None
        for image, mask in match.items():
            found.setdefault(image, {})[_plain(name)] = [files[mask]]
    return found or None


def _by_image(
    inner: Mapping[str, Mapping[str, Path]], images: Mapping[str, list[Path]]
) -> Masks | None:
    """The masks of folders that are called after the images: structures, if the same names occur in
    most folders, else instances. Pictures of a volume are its slices.
    """
    match = match_names(list(images), list(inner))
    if len(match) < SHARE * min(len(images), len(inner)):
        return None
    pairs = [
        (images[image][0], path) for image, name in match.items() for path in inner[name].values()
    ]
    if any(is_raster(mask) and not is_raster(image) for image, mask in pairs):
        return None
    held = Counter(name for one in match.values() for name in inner[one])
    are_structures = all(
        2 * count >= len(match) and not name.isdigit() for name, count in held.items()
    )
    found: Masks = {}
    for image, one in match.items():
        for name, path in inner[one].items():
            structure = _plain(name) if are_structures else FOREGROUND  # of instances
            found.setdefault(image, {}).setdefault(structure, []).append(path)
    return found


def _plain(name: str) -> str:
    """A name without words for masks: "lung_masks" is the lung."""
    kept = [word for word in words_of(name) if not LABEL_WORD.match(word)]
    return (
        re.sub(r"[_\s-]+", " ", name).strip()
        if len(kept) == len(words_of(name))
        else " ".join(kept)
    )


def _in_order(found: Masks) -> list[str]:
    """The structures, larger ones first, so that smaller ones are drawn over them.

    Raises:
        LayoutError: two overlap, neither is inside the other, and their names are no structures.
    """
    names = sorted({name for of_one in found.values() for name in of_one})
    sizes = dict.fromkeys(names, 0.0)
    for one, other in combinations(names, 2):
        overlap = overlap_of(_common(found, one, other))
        sizes[one], sizes[other] = sizes[one] + overlap.first, sizes[other] + overlap.second
        if overlap.is_unclear and not all(is_known_structure(side_of(n)[1]) for n in (one, other)):
            raise LayoutError(
                f"the masks in {one} and {other} overlap ({overlap.covered:.0%} of the smaller "
                "one): they may be two observers or two versions; name one of them in a "
                "description (check --draft)"
            )
    return sorted(names, key=lambda name: -sizes[name])


def _common(found: Masks, one: str, other: str) -> Iterable[tuple[Path, Path]]:
    return (
        (of_one[one][0], of_one[other][0])
        for of_one in found.values()
        if one in of_one and other in of_one
    )

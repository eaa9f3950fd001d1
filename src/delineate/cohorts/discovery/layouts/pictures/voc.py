"""The layout of Pascal VOC, which annotation programs also write: pictures, masks with a palette or
in colours, lists of the parts, and a table of classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .....core.errors import DelineateError
from .....core.manifest import Case, Split
from .....extend.findings import Draft
from .....extend.registering import layout
from .....formats.files import stem
from .....formats.label_files import is_coloured, read_label_file
from ...splits import split_in, with_free_training
from ...tree import Tree, source

BORDER, BORDER_COLOUR = 255, 0xE0E0C0  # the band around each object, whose truth is not stated
EXAMINED = 10  # masks that are read to see whether 255 is the band or the structure
_NO_CLASS = ("background", "_background_", "__ignore__", "ignore", "void")


@layout("pascal-voc", definition="JPEGImages/ID.jpg, SegmentationClass/ID.png", tier="challenge")
def pascal_voc(tree: Tree, root: Path) -> Draft | None:
    """Pascal VOC: ``JPEGImages`` with ``SegmentationClass`` (or ``SegmentationClassPNG``), and the
    lists in ``ImageSets/Segmentation``.

    Pictures without a mask that no list names are left out. The band around objects (255) is
    ignored. Classes are named by ``labelmap.txt`` (name:r,g,b) or ``class_names.txt``.
    """
    images = tree.folder(root, "JPEGImages")
    labels = tree.folder(root, "SegmentationClassPNG") or tree.folder(root, "SegmentationClass")
    if images is None or labels is None:
        return None
    draft = Draft("pascal-voc", [], modality="photo")
    masks = {stem(p): p for p in tree.images(labels)}
    splits = _splits(tree, root, draft)
    rest = 0
    for path in tree.images(images):
        name = stem(path)
        if name not in masks and name not in splits:
            rest += 1
            continue
        split = splits.get(name)
        if name not in masks and split != "test":
            draft.problem(name, "unpaired", f"no mask {name} in {labels.name}", "warning")
        label = (source(masks[name]),) if name in masks else ()
        draft.cases.append(Case(name, name, (source(path),), label, split))
    for name in sorted(set(masks) - {case.id for case in draft.cases}):
        draft.problem(
            name, "unpaired", f"mask {masks[name].name} has no image", path=str(masks[name])
        )
    if rest:
        draft.note("unused", f"{rest} pictures without a mask were not used")
    draft.cases = with_free_training(draft.cases)
    _name_classes(tree, root, draft)
    if _has_border(list(masks.values())[:EXAMINED]):
        draft.ignore = (BORDER, BORDER_COLOUR)
    return draft if any(case.label for case in draft.cases) else None


def _splits(tree: Tree, root: Path, draft: Draft) -> dict[str, Split]:
    """Case -> split from the lists train, val and test; a case in several has the first one."""
    sets = tree.folder(root, "ImageSets")
    place = tree.folder(sets, "Segmentation") if sets else None
    found: dict[str, Split] = {}
    for path in tree.files(place) if place else []:
        split = split_in(path.stem)
        if path.suffix == ".txt":
            draft.settings.append(path)
        if path.suffix != ".txt" or split is None or path.stem.lower() == "trainval":
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if words := line.split():
                found.setdefault(words[0], split)
    return found


def _name_classes(tree: Tree, root: Path, draft: Draft) -> None:
    """Set the names of values and of colours from the table next to the folders."""
    for path in tree.files(root):
        lines = (
            path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            if path.name.lower() in ("labelmap.txt", "class_names.txt")
            else []
        )
        rows = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        # The first class without a structure is 0; "__ignore__" before it has no value.
        rows = rows[1:] if rows and rows[0].lower() == "__ignore__" else rows
        for value, row in enumerate(rows):
            name, _, rest = row.partition(":")
            if name.lower() in _NO_CLASS:
                continue
            draft.names[value] = name
            colour = rest.split(":")[0].split(",")
            if len(colour) == 3 and all(part.strip().isdigit() for part in colour):
                red, green, blue = (int(part) for part in colour)
                draft.colours[red << 16 | green << 8 | blue] = name
        if rows:
            draft.settings.append(path)
            draft.note("names", f"structure names are read from {path.name}", path=str(path))


def _has_border(masks: list[Path]) -> bool:
    """Whether 255, or its colour, is the band around objects: some mask has another value too."""
    for path in masks:
        try:
            volume = read_label_file(path)
        except DelineateError:
            continue  # reported with its case
        if is_coloured(volume):
            red, green, blue = (channel.astype(np.int64) for channel in volume.array[:3])
            codes = red << 16 | green << 8 | blue
            if (codes == BORDER_COLOUR).any() and ((codes != BORDER_COLOUR) & (codes > 0)).any():
                return True
        elif (volume.array == BORDER).any() and (
            (volume.array != BORDER) & (volume.array > 0)
        ).any():
            return True
    return False

"""Arrays that hold many cases along their first axis: ``imgs_train.npy`` with
``imgs_mask_train.npy``, ``images.npy`` with ``labels.npy``, or both in one .npz file. And files of
one slice each with the arrays of its image and its mask (.npz, HDF5).

Such arrays state neither spacing nor axes nor patients. Slices are read as pictures, volumes in the
order of their axes, and both are warnings. Neighbouring slices are probably of one patient, so that
a stack of slices is cut into few blocks where the slices change most, and no block is divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ....core.errors import DelineateError
from ....core.manifest import Case, Source, Split
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats import arrays
from ....formats.disk import head_of
from ..splits import SPLITS, split_in, with_free_training, words_of
from ..tree import Tree, source

_LABEL = re.compile(r"(?:labels?|masks?|y|gt|segs?|segmentations?|targets?|truths?|annotations?)$")
_IMAGE = re.compile(r"(?:images?|imgs?|x|data|volumes?|scans?|inputs?|slices?)$")
# Arrays about the cases, such as imgs_id_train.npy.
_OTHER = re.compile(r"(?:ids?|names?|weights?|index|indices|patients?|pred|preds|predictions?)$")
MOST_BLOCKS, SLICES_PER_BLOCK = 10, 8
_ARCHIVES = (".npz", ".h5", ".hdf5")
COLOURS = 3
FEWEST_FILES = 2  # of one case each
PIXEL_STEP = 7  # pixels of a slice that are compared
# Axes of a picture: rows from front to back, columns from right to left; of a volume (x, y, z).
SLICE_AXES, VOLUME_AXES = "PL", "RAS"


@dataclass(frozen=True)
class _Stack:
    """An array of many cases.

    Args:
        path, item: where it is; ``item`` is the name in an archive.
        shape: of the whole array.
        is_label: whether it holds labels.
        split: as its name or that of its folder states.
    """

    path: Path
    item: str
    shape: tuple[int, ...]
    is_label: bool
    split: Split

    def entry(self, index: int, axes: str) -> Source:
        return source(self.path, item=f"{self.item}[{index}]", axes=axes)


@layout("array-stacks", definition="images.npy, labels.npy", tier="pairs")
def array_stacks(tree: Tree, root: Path) -> Draft | None:
    """``imgs_train.npy`` with ``imgs_mask_train.npy``; ``images.npy`` with ``labels.npy``, in one
    folder, in folders train, val and test, or in folders for images and for labels; .npz files with
    such names inside.
    """
    stacks = [*_stacks_in(tree, root, None)]
    for folder in tree.folders(root):
        if folder.name.lower() in SPLITS:
            stacks += _stacks_in(tree, folder, SPLITS[folder.name.lower()])
        elif _role_of(folder.name):
            # Archives may add a folder.
            for place in (folder, *tree.folders(folder)):
                stacks += _stacks_in(tree, place, split_in(folder.name))
    images, labels = ({s.split: s for s in stacks if s.is_label is side} for side in (False, True))
    # Two arrays of one split may be anything.
    if len(images) + len(labels) < len(stacks):
        return None
    found = (_axes(one, labels[split]) for split, one in images.items() if split in labels)
    axes = next((one for one in found if one is not None), None)
    if axes is None:
        return None
    draft = Draft("array-stacks", [], counted=True)
    # The cases to learn from come first.
    for split in sorted(images, key=lambda split: split == "test"):
        _add_cases(draft, images[split], labels.get(split), axes)
    draft.cases = with_free_training(draft.cases)
    draft.channels = _channels(next(iter(images.values())).shape[1:], axes[0])
    _warn(draft, axes[0])
    return draft if draft.cases else None


@layout("array-files", definition="ID.npz or ID.h5 with image and label", tier="pairs")
def array_files(tree: Tree, root: Path) -> Draft | None:
    """Files of one slice each, such as ``case0005_slice000.npz``, with an array of the image and
    one of the mask; or one such file in each folder.
    """
    files = {_case_of(path): path for path in tree.files(root) if _is_archive(path)}
    for folder in tree.folders(root) if not files else ():
        inner = [path for path in tree.files(folder) if _is_archive(path)]
        files |= {folder.name: inner[0]} if len(inner) == 1 else {}
    paths = list(files.values())
    if len(paths) < FEWEST_FILES:
        return None
    # All files have the form of the first, the middle and the last.
    forms = {_form(path) for path in (paths[0], paths[len(paths) // 2], paths[-1])}
    form = forms.pop()
    if form is None or forms:
        return None
    (image, label), axes, channels = form
    draft = Draft("array-files", [])
    for case, path in files.items():
        one, other = (
            source(path, item=f"{name}[]", axes=letters)
            for name, letters in zip((image, label), axes, strict=True)
        )
        draft.cases.append(Case(case, "", (one,), (other,)))
    draft.channels = channels
    return draft


_Form = tuple[tuple[str, str], tuple[str, str], tuple[str, ...]]


def _form(path: Path) -> _Form | None:
    """The names of the arrays of image and label, their axes, and the channels; None if the file
    has no such arrays, or several.
    """
    stacks = list(_stacks_of(path, None))
    images, labels = ([s for s in stacks if s.is_label is side] for side in (False, True))
    if len(images) != 1 or len(labels) != 1:
        return None
    axes = _axes_of(images[0].shape, labels[0].shape)
    # Volumes need a description with spacing and axes.
    if axes is None or len(axes[0].replace(arrays.CHANNELS, "")) == 3:
        return None
    names = images[0].item, labels[0].item
    return names, axes, _channels(images[0].shape, axes[0])


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(_ARCHIVES)


def _case_of(path: Path) -> str:
    """The name without endings ("case0001.npy.h5" has two)."""
    return re.sub(r"(?i)(\.(npy|npz|h5|hdf5|nii|gz))+$", "", path.name)


def _role_of(name: str) -> bool:
    return any(one.match(word) for word in words_of(name) for one in (_LABEL, _IMAGE))


def _stacks_in(tree: Tree, folder: Path, split: Split) -> Iterator[_Stack]:
    """The arrays directly in a folder whose names state a role."""
    for path in tree.files(folder):
        if path.name.lower().endswith((".npy", ".npz")):
            yield from _stacks_of(path, split)


def _stacks_of(path: Path, split: Split) -> Iterator[_Stack]:
    """The arrays of one file whose names state a role."""
    try:
        kind = arrays.kind_of(head_of(path), path)
        for item in arrays.names_in(path, kind) if kind else []:
            words = words_of(item or path.stem)
            is_label, is_image = (any(map(one.match, words)) for one in (_LABEL, _IMAGE))
            if any(map(_OTHER.match, words)) or not (is_label or is_image):
                continue
            shape = arrays.load(path, kind, item).shape
            stated = split_in("_".join(words)) or split_in(path.stem) or split
            yield _Stack(path, item, shape, is_label, stated)
    except DelineateError:
        return  # reported in the account of files


def _axes(image: _Stack, label: _Stack) -> tuple[str, str] | None:
    """The axes of an image and of its label without the first, which counts cases; None if the
    shapes do not fit.
    """
    if image.shape[:1] != label.shape[:1]:
        return None
    return _axes_of(image.shape[1:], label.shape[1:])


def _axes_of(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[str, str] | None:
    """The axes of an image and of its label from their shapes; None if these do not fit."""
    if not one or not other:
        return None
    channels = _channel_axes(one, other)
    if channels is None:
        return None
    ranks = [
        len(shape) - (at is not None) for shape, at in zip((one, other), channels, strict=True)
    ]
    letters = {2: SLICE_AXES, 3: VOLUME_AXES}.get(ranks[0])
    if letters is None or ranks[0] != ranks[1]:
        return None
    return _with_channels(letters, channels[0]), _with_channels(letters, channels[1])


def _channel_axes(
    one: tuple[int, ...], other: tuple[int, ...]
) -> tuple[int | None, int | None] | None:
    """The axis of channels of an image and of its label, the last or the first; None for a shape
    without one, and as a whole if the shapes do not fit.
    """
    last, first = (one[:-1], other[:-1]), (one[1:], other[1:])
    if one == other:
        # An axis of size 1 is one of channels, as some libraries need it; three at the end are
        # colours; of four axes the shorter end has the channels, and the classes of a mask.
        at = len(one) - 1 if one[-1] in (1, COLOURS) else 0 if one[0] == 1 else None
        if at is None and len(one) == 4:
            at = 0 if one[0] < one[-1] else 3
        return (at, at) if len(one) > 2 else (None, None)
    if len(one) == len(other) and len(one) > 2:
        if last[0] == last[1]:
            return len(one) - 1, len(other) - 1
        return (0, 0) if first[0] == first[1] else None
    if last[0] == other or first[0] == other:
        return (len(one) - 1 if last[0] == other else 0), None
    if last[1] == one or first[1] == one:
        return None, (len(other) - 1 if last[1] == one else 0)
    return None


def _with_channels(letters: str, axis: int | None) -> str:
    if axis is None:
        return letters
    return letters + arrays.CHANNELS if axis else arrays.CHANNELS + letters


def _add_cases(draft: Draft, image: _Stack, label: _Stack | None, axes: tuple[str, str]) -> None:
    """One case for each entry of the stack."""
    count = image.shape[0]
    if label is not None and _axes(image, label) != axes:
        draft.problem(
            "",
            "unpaired",
            f"{label.path.name} {label.shape} does not fit {image.path.name} {image.shape}",
            path=str(label.path),
        )
        return
    name = image.split or image.item or image.path.stem
    blocks = _blocks(image) if len(axes[0].replace(arrays.CHANNELS, "")) == 2 else None
    for index in range(count):
        case = f"{name}_{index:0{len(str(count - 1))}d}"
        draft.cases.append(
            Case(
                case,
                case if blocks is None else f"{name}_block_{blocks[index]}",
                (image.entry(index, axes[0]),),
                () if label is None else (label.entry(index, axes[1]),),
                image.split,
            )
        )


def _blocks(stack: _Stack) -> list[int]:
    """The block of each slice: the stack is cut where neighbouring slices are least correlated."""
    kind = arrays.kind_of(head_of(stack.path), stack.path)
    slices = arrays.load(stack.path, kind, stack.item)
    count = len(slices)
    wanted = min(count, MOST_BLOCKS, max(2, count // SLICES_PER_BLOCK))
    # The correlation of each slice with the next one, from some of their pixels.
    flat = [np.asarray(one, dtype=np.float32).ravel()[::PIXEL_STEP] for one in slices]
    units = [(one - one.mean()) / (np.linalg.norm(one - one.mean()) or 1.0) for one in flat]
    alike = [float(one @ other) for one, other in pairwise(units)]
    cuts = sorted(np.argsort(alike, kind="stable")[: wanted - 1] + 1)
    return [int(n) for n in np.searchsorted(cuts, np.arange(count), side="right")]


def _channels(shape: tuple[int, ...], axes: str) -> tuple[str, ...]:
    place = axes.find(arrays.CHANNELS)
    count = 1 if place < 0 else shape[place]
    return tuple(f"channel {n}" for n in range(count)) if count > 1 else ("image",)


def _warn(draft: Draft, axes: str) -> None:
    """State what the arrays do not."""
    if len(axes.replace(arrays.CHANNELS, "")) == 2:
        blocks = len({case.patient for case in draft.cases})
        words = (
            "the arrays do not state whose slices they hold; they were cut into "
            f"{blocks} blocks where neighbouring slices differ most, and each block is treated as "
            "one patient; scores may be too good if a patient is in two blocks (state patients "
            "with --patient)"
        )
        draft.problem("", "patient", words, "warning")
        return
    words = (
        f"the arrays state no axes; their volumes are read as {axes} (C: channels), so that left "
        "and right are not known; describe the folder to state axes and spacing_mm"
    )
    draft.problem("", "geometry", words, "warning")

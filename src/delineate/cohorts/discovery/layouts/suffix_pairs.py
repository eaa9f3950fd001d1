"""Image and label in one folder, with names that differ by a word or by their ending."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....core.errors import DelineateError
from ....core.manifest import Case
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats import dicom
from ....formats.files import natural_key, stem
from ..drafts.content import content_of
from ..tree import Tree, match_names, shared_start, source
from .modalities import modality_of
from .parallel.entries import named_channels

SAMPLED = 4  # files of each ending that are opened
FEWEST = 2  # pairs, where only the rest of names shows them
EXAMINED = 20  # files without a label that may be other masks

# Words that mark a file as a label or an image, if both are in one folder. They must be separate
# words: "gt" does not count in "length".
_LABEL_WORD = re.compile(
    r"(?i)(?<![a-z])(seg|segs|segmentation|mask|masks|label|labels|gt|truth|ground_?truth"
    r"|annotation)(?![a-z])"
)
_IMAGE_WORD = re.compile(r"(?i)(?<![a-z])(orig|image|img|volume|scan)(?![a-z])")


@layout("suffix-pairs", definition="ID.*, ID_mask.*", tier="pairs")
def suffix_pairs(tree: Tree, root: Path) -> Draft | None:
    """Image and label in one folder, marked by a word in the name: ``*orig*`` and ``*liver*``, or
    ``X`` and ``X_seg``, ``X_mask``, ``X_label``; or a file for each channel, ``X_t1``, ``X_t2``.
    """
    images, labels = _images_and_labels(_pictures(tree, root))
    if not labels or not images:
        return None
    if several := _of_several_channels(root, images, labels):
        return several
    # The key is the name without the words that mark image or label.
    keyed = {_bare(p): p for p in images}
    truth = {_bare(p): p for p in labels}
    # Two files with the same key are ambiguous, so this is another layout.
    if len(keyed) < len(images) or len(truth) < len(labels):
        return None
    if len(images) == len(labels) == 1:  # a single image and a single label belong together
        truth = {next(iter(keyed)): labels[0]}
    if not set(keyed) & set(truth):
        # The images may have a word of their own (X_im, X_mask).
        keyed, truth = _by_rest(images, labels)
    # Without a single pair the names have another meaning.
    if not set(keyed) & set(truth):
        return None
    draft = Draft("suffix-pairs", [])
    keyed = _without_versions(draft, _without_masks(draft, keyed, truth), truth)
    # An image without a label remains a case; a label without an image is an error.
    for key, path in keyed.items():
        if key not in truth:
            draft.problem(
                key or stem(path), "unpaired", f"no label belongs to {path.name}", "warning"
            )
        draft.cases.append(
            Case(
                key or stem(path),
                "",
                (source(path),),
                (source(truth[key]),) if key in truth else (),
            )
        )
    for key in _without_further(draft, keyed, truth):
        draft.problem(
            key, "unpaired", f"label {truth[key].name} has no image", path=str(truth[key])
        )
    return draft


def _of_several_channels(
    root: Path, images: Sequence[Path], labels: Sequence[Path]
) -> Draft | None:
    """Cases with a file for each channel (``X_t1``, ``X_t2``, ``X_seg``); None if the names state
    no channels, or one.
    """
    truth = {_bare(p): p for p in labels}
    found = named_channels(root, {stem(p): p for p in images}, {stem(p): p for p in labels})
    if len(found.channels) < 2 or not set(found.files) & set(truth):
        return None
    draft = Draft("suffix-pairs", [], found.channels, modality=modality_of(found.channels))
    for case, lacking in found.incomplete.items():
        draft.problem(case, "missing", f"channel {', '.join(lacking)} is missing")
    for case, paths in found.files.items():
        if case not in truth:
            draft.problem(case, "unpaired", f"no label belongs to {paths[0].name}", "warning")
        label = (source(truth[case]),) if case in truth else ()
        draft.cases.append(Case(case, "", tuple(map(source, paths)), label))
    for case in sorted(set(truth) - set(found.files) - set(found.incomplete)):
        words = f"label {truth[case].name} has no image"
        draft.problem(case, "unpaired", words, path=str(truth[case]))
    return draft


def _without_further(
    draft: Draft, keyed: Mapping[str, Path], truth: Mapping[str, Path]
) -> list[str]:
    """The keys of labels without an image, but not those of further masks that half of the images
    have (``X_color_mask`` next to ``X_mask``), which a note reports.
    """
    alone = sorted(set(truth) - set(keyed))
    rests = {key: key[len(one) :] for key in alone for one in keyed if key.startswith(one + "_")}
    count = Counter(rests.values())
    further = {rest for rest, number in count.items() if 2 * number >= len(keyed)}
    if further:
        shown = ", ".join(sorted(rest.strip("_") for rest in further))
        draft.note("unused", f"further masks of the same images were not used: {shown}")
    return [key for key in alone if rests.get(key) not in further]


def _by_rest(
    images: Sequence[Path], labels: Sequence[Path]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """The images and labels by the part of their names that tells those of one side apart, if all
    of the smaller side pair.
    """
    match = match_names([stem(p) for p in images], [stem(p) for p in labels])
    if len(match) < min(len(images), len(labels)) or len(match) < FEWEST:
        return {}, {}
    names = {
        label: shared_start((image, label)).rstrip("_.- ") or image
        for image, label in match.items()
    }
    if len(set(names.values())) < len(names):
        names = {label: image for image, label in match.items()}
    keyed = {names.get(match.get(stem(p), ""), stem(p)): p for p in images}
    return keyed, {names.get(stem(p), stem(p)): p for p in labels}


def _without_masks(
    draft: Draft, images: Mapping[str, Path], truth: Mapping[str, Path]
) -> dict[str, Path]:
    """The images, without those that have no label and are masks by their content."""
    alone = [path for key, path in images.items() if key not in truth]
    masks = [path for path in alone[:EXAMINED] if content_of(path).kind == "mask"]
    if masks:
        names = ", ".join(path.name for path in masks[:4])
        draft.note("unused", f"{len(masks)} masks without an image were not used, such as {names}")
    return {key: path for key, path in images.items() if path not in masks}


def _without_versions(
    draft: Draft, images: Mapping[str, Path], truth: Mapping[str, Path]
) -> dict[str, Path]:
    """The images, without versions of those that have a label: files without one that are named
    after them with one more word (``X_ana`` and ``X_ana_strip``), in half of the cases or more.
    """
    labelled = [key for key in images if key in truth]
    rests: dict[str, str] = {}
    for key in (key for key in images if key not in truth):
        found = [key[len(one) :] for one in labelled if key.startswith(one)]
        rest = min(found, key=len, default="")
        if re.match(r"[_-][A-Za-z]+$", rest):
            rests[key] = rest
    count = Counter(rests.values())
    versions = {rest for rest, number in count.items() if 2 * number >= len(labelled)}
    if versions:
        shown = ", ".join(sorted(rest.strip("_-") for rest in versions))
        draft.note("unused", f"further versions of the same images were not used: {shown}")
    return {key: path for key, path in images.items() if rests.get(key) not in versions}


@layout("ending-pairs", definition="ID.jpg, ID.png", tier="pairs")
def ending_pairs(tree: Tree, root: Path) -> Draft | None:
    """Image and label in one folder, with equal names and different endings (``1.jpg``, ``1.png``);
    the content of some files shows which are the masks.
    """
    sides: dict[str, dict[str, Path]] = {}
    for path in _pictures(tree, root):
        sides.setdefault(path.name[len(stem(path)) :].lower(), {})[stem(path)] = path
    if len(sides) != 2 or 2 * len(set.intersection(*map(set, sides.values()))) < max(
        map(len, sides.values())
    ):
        return None
    by_kind = {_kind_of(list(files.values())): files for files in sides.values()}
    if set(by_kind) != {"image", "mask"}:
        return None
    draft = Draft("ending-pairs", [])
    images, masks = by_kind["image"], by_kind["mask"]
    for name, path in images.items():
        if name not in masks:
            draft.problem(name, "unpaired", f"no label belongs to {path.name}", "warning")
        truth = (source(masks[name]),) if name in masks else ()
        draft.cases.append(Case(name, "", (source(path),), truth))
    for name in set(masks) - set(images):
        words = f"label {masks[name].name} has no image"
        draft.problem(name, "unpaired", words, path=str(masks[name]))
    return draft


def _pictures(tree: Tree, root: Path) -> list[Path]:
    """The image files in a folder, with its DICOM files if these are 2-D images and no slices."""
    found = tree.images(root)
    # Without other images, names tell masks apart: most folders of DICOM are series without any.
    if not (found or any(map(is_label, tree.files(root)))) or not tree.is_dicom(root):
        return found
    others = tree.dicom_files(root)
    try:
        are_flat = all(dicom.is_flat_image(path) for path in others[:SAMPLED])
    except DelineateError:  # reported where the file is read
        return found
    return sorted([*found, *others], key=natural_key) if are_flat else found


def _kind_of(files: Sequence[Path]) -> str:
    """What the first files are that show it: "image" or "mask"; "" if none does, or some differ."""
    kinds = {content_of(path).kind for path in files[:SAMPLED]} - {""}
    return kinds.pop() if len(kinds) == 1 else ""


def _images_and_labels(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide the files of one folder into images and labels by the words in their names.

    If any name contains "orig", the images are exactly the files with "orig", and "liver" also
    marks a label. Files that are neither are left out.
    """
    by_orig = any(_has(p, "orig") for p in paths)
    if by_orig:
        images = [p for p in paths if _has(p, "orig")]
        labels = [p for p in paths if not _has(p, "orig") and (is_label(p) or _has(p, "liver"))]
    else:
        # Without "orig", every file that is not a label is an image.
        labels = [p for p in paths if is_label(p)]
        images = [p for p in paths if p not in labels]
    return images, labels


def is_label(path: Path) -> bool:
    """Whether the name marks a label: by a word, or the ending of 3D Slicer's segmentations."""
    return path.name.lower().endswith(".seg.nrrd") or bool(_LABEL_WORD.search(stem(path)))


def _has(path: Path, word: str) -> bool:
    """Whether the file's stem contains ``word``, ignoring case."""
    return word in stem(path).lower()


def _bare(path: Path) -> str:
    """The name without the words that mark an image or a label, so that a pair has one key."""
    # Each marking word becomes a separator, and then repeated separators become one.
    name = re.sub(r"(?i)orig", "_", stem(path)) if "orig" in stem(path).lower() else stem(path)
    name = _IMAGE_WORD.sub("_", _LABEL_WORD.sub("_", name))
    name = re.sub(r"(?i)liver", "_", name)
    return re.sub(r"[_.-]{2,}", "_", name).strip("_.- ")

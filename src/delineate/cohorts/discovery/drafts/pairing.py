"""Which roles are the images and the masks of one cohort: by content, and by names over the whole
tree. What stays ambiguous is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....core.errors import LayoutError
from ....core.labels import side_of
from ....core.terms import is_known_channel, names_structure, read
from .content import APART, COMPARED, foreground, intensities, overlap_of
from .paths import Role
from .patterns import Template, template_of

PAIRED = 0.5  # share of the smaller role that must have a partner
MOST_STRUCTURES = 16  # more values with the same foreground are instances
ALIKE = 0.2  # by how much images of one case must be more correlated than those of two
VERSIONS = 0.5  # of the smaller of two masks of an image, that parts of one structure do not share
LARGE, EQUAL = 0.3, 0.9  # share of the picture and of each other, of masks of the field of view
# Words of pictures made from others, of masks that are no outlines of structures, and of observers.
_PREVIEW = re.compile(
    r"(?i)(?<![a-z])(overlays?|previews?|thumb(nail)?s?|super ?pixels?|heat ?maps?|montages?"
    r"|visuali[sz]ations?|vis|skeletons?|edges?|boundar(y|ies)|contours? drawn|weights?"
    r"|prob(abilit(y|ies))?|uncertainty|distance)(?![a-z])"
)
_FIELD = re.compile(r"(?i)(?<![a-z])(fov|field|valid|brain ?mask|skull|body ?mask)(?![a-z])")
_PREDICTED = re.compile(
    r"(?i)(?<![a-z])(pred(iction|icted|s)?|auto(matic)?|output|outputs|results?)(?![a-z])"
)
_OBSERVER = re.compile(
    r"(?i)(raters?|observers?|readers?|experts?|annotators?|radiologists?|doctors?|operators?"
    r"|graders?|reviewers?|physicians?|clinicians?|surgeons?|(?<![a-z])rads?"
    r"|annot|manual|1st|2nd|first|second|[ao]bs?)(?![a-z])"
)
_GENERIC = re.compile(
    r"(?i)(masks?|seg(mentation)?s?|labels?|gt|ground ?truth|truth|annotations?)$"
)


def is_other_mask(words: str) -> bool:
    """Whether the words of a path are those of a field of view, a prediction or a preview."""
    return any(one.search(words) for one in (_PREVIEW, _FIELD, _PREDICTED))


@dataclass(frozen=True)
class Chosen:
    """The roles of a cohort.

    Args:
        channels: name -> the templates of its files.
        labels: the structure, or "" for a label with all of them -> the templates of its files.
        numbers: whether ids are compared by their numbers.
        cases: number of pairs that the names give.
        left_out: each role that is not used, with the reason.
    """

    channels: dict[str, list[Template]]
    labels: dict[str, list[Template]]
    numbers: bool
    cases: int
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pair:
    """A role of images and a role of masks with the keys of their cases."""

    image: Template
    mask: Template
    numbers: bool
    keys: frozenset[tuple[str, ...]]


def choose(roles: Sequence[Role]) -> Chosen:
    """The images and masks among the roles.

    Raises:
        LayoutError: there are none, or it is not clear which they are.
    """
    left: dict[str, str] = {}
    images, masks = _kinds(roles, left)
    if not images:
        raise LayoutError(
            f"all {sum(map(len, masks))} readable files look like masks ({_listed(masks)}), and "
            "none like an image"
            if masks
            else "no file with the content of an image was found"
        )
    if not masks:
        raise LayoutError(
            f"{sum(map(len, images))} images but no masks were found ({_listed(images)}); a "
            "description needs masks, and prediction needs none"
        )
    pairs = _pairs(images, masks)
    if not pairs:
        raise LayoutError(
            f"the names of the images ({_listed(images)}) and of the masks ({_listed(masks)}) do "
            "not pair: they share neither names nor numbers that occur once"
        )
    numbers = any(pair.numbers for pair in pairs)
    image_templates = _unique([pair.image for pair in pairs])
    mask_templates = _unique([pair.mask for pair in pairs])
    _refuse_most_alone(masks, mask_templates, pairs)
    for role in (*images, *masks):
        if not any(role is one.role for one in (*image_templates, *mask_templates)):
            left[_shown(role)] = f"{len(role)} {role.kind}s without a partner"
    labels = _labels(_without_other_masks(mask_templates, left), left)
    image_templates = _on_grid_of(next(iter(labels.values())), image_templates, left)
    channels = _channels(image_templates)
    _add_unlabelled(channels, images, left)
    used = {id(one.role) for ones in labels.values() for one in ones}
    cases = {key for pair in pairs if id(pair.mask.role) in used for key in pair.keys}
    return Chosen(channels, labels, numbers, len(cases), left)


def _refuse_most_alone(
    masks: Sequence[Role], templates: Sequence[Template], pairs: Sequence[_Pair]
) -> None:
    """Raise if more masks are left over than pair."""
    paired = sum(len(pair.keys) for pair in pairs)
    alone = [role for role in masks if not any(role is one.role for one in templates)]
    if sum(map(len, alone)) > paired:
        raise LayoutError(
            f"{sum(map(len, alone))} masks ({_listed(alone)}) pair with no image by name, more "
            f"than the {paired} that do"
        )


def _kinds(roles: Sequence[Role], left: dict[str, str]) -> tuple[list[Role], list[Role]]:
    """The roles of images and of masks; those of neither are left out."""
    images = [role for role in roles if role.kind == "image"]
    masks = [role for role in roles if role.kind == "mask"]
    for role in roles:
        if not role.kind:
            problems = [e.content.problem for e in role.entries if e.content and e.content.problem]
            left[_shown(role)] = (
                f"{len(role)} files that cannot be read"
                if problems
                else f"{len(role)} files whose content is constant or unclear"
            )
    for group in (images, masks):
        made = [role for role in group if _PREVIEW.search(role.words)]
        if len(made) < len(group):
            for role in made:
                group.remove(role)
                left[_shown(role)] = f"{len(role)} pictures made from others, by their names"
    return images, masks


def _pairs(images: Sequence[Role], masks: Sequence[Role]) -> list[_Pair]:
    """For each role of masks its pairs with roles of images."""
    found = []
    for mask in masks:
        options = [pair for image in images if (pair := _pair(image, mask))]
        most = max((len(pair.keys) for pair in options), default=0)
        found += [pair for pair in options if len(pair.keys) >= PAIRED * most]
    return found


def _pair(image: Role, mask: Role) -> _Pair | None:
    one = template_of(image)
    other = template_of(mask, one)
    if other is None:  # the images may have as one text what the masks have as two
        other = template_of(mask)
        one = template_of(image, other)
    if one is None or other is None:
        return None
    return _by_keys(one, other, numbers=False) or _by_keys(one, other, numbers=True)


def _by_keys(image: Template, mask: Template, numbers: bool) -> _Pair | None:
    """The pair, if most keys of the smaller side are on both sides, and each belongs to one image
    and, without {part}, to one mask.
    """
    shared = image.shared(mask)
    of_images = Counter(image.keys(shared, numbers))
    of_masks = Counter(mask.keys(shared, numbers))
    keys = frozenset(of_images) & frozenset(of_masks)
    are_clear = all(of_images[key] == 1 for key in keys) and (
        "part" in mask.named[0] or all(of_masks[key] == 1 for key in keys)
    )
    enough = len(keys) >= PAIRED * min(len(of_images), len(of_masks))
    is_pair = "id" in shared and are_clear and enough and not _are_astray(image, mask, numbers)
    return _Pair(image, mask, numbers, keys) if is_pair else None


def _are_astray(image: Template, mask: Template, numbers: bool) -> bool:
    """Whether masks pair with images of other folders although their own folder has images."""
    shared = image.shared(mask)
    folders: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for key, entry in zip(image.keys(shared, numbers), image.role.entries, strict=True):
        folders.setdefault(entry.parts[:-1], set()).add(key)
    known = set[tuple[str, ...]]().union(*folders.values())
    return any(
        key in known and key not in folders.get(entry.parts[:-1], known)
        for key, entry in zip(mask.keys(shared, numbers), mask.role.entries, strict=True)
    )


def _unique(templates: Sequence[Template]) -> list[Template]:
    found: list[Template] = []
    for one in templates:
        if not any(one.role is other.role for other in found):
            found.append(one)
    return found


def _shown(role: Role) -> str:
    template = template_of(role)
    return template.pattern if template else "/".join(role.entries[0].parts) + role.ending


def _listed(roles: Sequence[Role]) -> str:
    shown = [_shown(role) for role in roles[:4]]
    return ", ".join(shown) + (" ..." if len(roles) > 4 else "")


# ---- several roles of one kind ----


def _relation(one: Template, other: Template) -> float:
    """Share of the smaller role's cases that the other one has too."""
    shared = one.shared(other)
    mine, theirs = set(one.keys(shared, False)), set(other.keys(shared, False))
    return len(mine & theirs) / min(len(mine), len(theirs))


def _grouped(templates: Sequence[Template], what: str) -> list[list[Template]]:
    """Templates of different cases together (parts of the cohort), those of the same cases apart.

    Raises:
        LayoutError: they share some cases only.
    """
    groups: list[list[Template]] = []
    for one in templates:
        fits = [group for group in groups if all(_relation(one, other) == 0 for other in group)]
        named = [g for g in fits if _last_words(g[0].role) == _last_words(one.role)]
        if len(fits) > 1 and len(named) != 1:
            raise LayoutError(
                f"it is not clear which {what} belong together: "
                f"{', '.join(other.pattern for other in templates[:4])}"
            )
        if fits:
            (named or fits)[0].append(one)
        else:
            groups.append([one])
    return groups


def _last_words(role: Role) -> str:
    texts = [piece.text for piece in role.pieces[0][-1] if piece.sort == "text"]
    return re.sub(r"[\W_]+", " ", " ".join(texts)).strip().casefold()


def _channels(templates: Sequence[Template]) -> dict[str, list[Template]]:
    groups = _grouped(templates, "images")
    if len(groups) == 1:
        return {"image": groups[0]}
    names = _names_of(groups)
    first = groups[0][0]
    for name, group in zip(names[1:], groups[1:], strict=True):
        if why := _no_channels(
            first, group[0], is_known_channel(names[0]) and is_known_channel(name)
        ):
            raise LayoutError(
                f"{first.pattern} and {group[0].pattern} {why}; name one of them in a description"
            )
    return dict(zip(names, groups, strict=True))


def _on_grid_of(
    masks: Sequence[Template], images: Sequence[Template], left: dict[str, str]
) -> list[Template]:
    """The images whose files have the size of the masks; all if none has, or all have."""
    sizes = frozenset[tuple[int, ...]]().union(*map(_shapes, masks))
    fits = [one for one in images if not _shapes(one) or _shapes(one) & sizes]
    if fits:
        for one in images:
            if one not in fits:
                left[one.pattern] = f"{len(one.role)} images of another size than the masks"
    return fits or list(images)


def _no_channels(one: Template, other: Template, known: bool) -> str:
    """Why two roles of images are no channels of one case, as a clause; "" if they are.

    Args:
        known: whether their names are those of channels.
    """
    if one.pattern.removesuffix(one.role.ending) == other.pattern.removesuffix(other.role.ending):
        return "hold the same cases with different endings"
    contents = [e.content for t in (one, other) for e in t.role.entries if e.content]
    if any(content.channels > 1 for content in contents):
        return "could both be the images, and colour pictures cannot be channels of one case"
    if not _shapes(one) & _shapes(other):
        return "have the same cases, but different sizes, so they are no channels of one image"
    if not (known or _look_alike(one, other)):
        return (
            "could both be the images: their names are not those of channels, and their pictures "
            "of one case are not alike"
        )
    return ""


def _look_alike(one: Template, other: Template) -> bool:
    """Whether the images of one case are correlated, and more than those of two cases."""
    pairs = list(_common(one, other))[:COMPARED]
    arrays = [(intensities(a), intensities(b)) for a, b in pairs]
    same = [_correlation(a, b) for a, b in arrays]
    crossed = [_correlation(a, b) for (a, _), (_, b) in pairwise(arrays)]
    return bool(same) and float(np.mean(same)) > ALIKE + float(np.mean(crossed or [0]))


def _correlation(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> float:
    if one is None or other is None or one.shape != other.shape or not (one.std() and other.std()):
        return 0
    return abs(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]))


def _common(one: Template, other: Template) -> Iterator[tuple[Path, Path]]:
    """The files of the cases that both have."""
    shared = one.shared(other)
    second = dict(zip(other.keys(shared, False), other.role.entries, strict=True))
    for key, entry in zip(one.keys(shared, False), one.role.entries, strict=True):
        if key in second:
            yield entry.path, second[key].path


def _shapes(template: Template) -> set[tuple[int, ...]]:
    return {e.content.shape for e in template.role.entries if e.content and e.content.shape}


def _names_of(groups: Sequence[Sequence[Template]]) -> list[str]:
    """A name for each group: the words of its role that not all groups have."""
    words = [group[0].role.words.split() for group in groups]
    shared = set.intersection(*(set(map(str.casefold, one)) for one in words))
    names = [" ".join(w for w in one if w.casefold() not in shared) for one in words]
    return [
        name if name and names.count(name) == 1 else f"{name or 'part'} {n}".strip()
        for n, name in enumerate(names, start=1)
    ]


def _without_other_masks(templates: Sequence[Template], left: dict[str, str]) -> list[Template]:
    """The templates without fields of view and predictions, if others remain."""
    kept = list(templates)
    for is_other, reason in (
        (lambda one: bool(_FIELD.search(one.role.words)), "masks of the field of view, by name"),
        (lambda one: bool(_PREDICTED.search(one.role.words)), "results of a program, by name"),
        (_is_field, "masks of the field of view: large and alike in all cases, others are not"),
    ):
        others = [one for one in kept if not is_other(one)] if len(kept) > 1 else kept
        if is_other is _is_field and any(map(_are_alike, others)):
            others = kept
        if others:
            for one in kept:
                if one not in others:
                    left[one.pattern] = f"{len(one.role)} {reason}"
            kept = others
    return kept


def _is_field(template: Template) -> bool:
    """Whether the masks are nearly equal in all cases and large."""
    masks = _masks(template)
    return _are_alike(template) and bool(masks[0].mean() > LARGE)


def _are_alike(template: Template) -> bool:
    """Whether the masks of a few cases are nearly equal."""
    masks = _masks(template)
    if len(masks) < 2 or len({mask.shape for mask in masks}) > 1:
        return False
    return bool(np.all(masks, axis=0).sum() > EQUAL * np.any(masks, axis=0).sum())


def _masks(template: Template) -> list[NDArray[np.bool_]]:
    found = [foreground(entry.path) for entry in template.role.entries[:COMPARED]]
    return [mask for mask in found if mask is not None]


def _labels(templates: Sequence[Template], left: dict[str, str]) -> dict[str, list[Template]]:
    """The roles of the masks by structure.

    Raises:
        LayoutError: several roles could each be the label.
    """
    groups = _without_repeated(_grouped(templates, "masks"), left)
    for template in templates:
        _refuse_versions(template)
    if len(groups) == 1 and "part" not in groups[0][0].named[0]:
        return {"": groups[0]}
    _refuse_several_values(groups)
    if len(groups) == 1:
        return {"": groups[0]}
    names = _names_of(groups)
    sizes = [0.0] * len(groups)
    united = True
    for (m, one), (n, other) in combinations(enumerate(groups), 2):
        overlap = overlap_of(_common(one[0], other[0]))
        sizes[m], sizes[n] = sizes[m] + overlap.first, sizes[n] + overlap.second
        if overlap.covered > APART and not _are_structures(names[m], names[n], overlap.is_nested):
            raise LayoutError(
                f"{one[0].pattern} and {other[0].pattern} hold masks of the same images that "
                f"overlap ({overlap.covered:.0%} of the smaller one): they may be two observers or "
                "two versions; name one of them in a description"
            )
        united = united and _numbered(one[0].role) == _numbered(other[0].role)
    if united:
        # Masks that differ in a number are parts of one structure.
        return {"part": [one for group in groups for one in group]}
    order = sorted(range(len(groups)), key=lambda n: -sizes[n])
    return {names[n]: groups[n] for n in order}


def _refuse_versions(template: Template) -> None:
    """Raise if masks of one image that differ in {part} overlap, so that they are no parts."""
    if "part" not in template.named[0]:
        return
    fields = [field for field in template.fields if field != "part"]
    of_case: dict[tuple[str, ...], list[Path]] = {}
    for key, entry in zip(template.keys(fields, False), template.role.entries, strict=True):
        of_case.setdefault(key, []).append(entry.path)
    overlap = overlap_of((paths[0], paths[1]) for paths in of_case.values() if len(paths) > 1)
    if overlap.covered > VERSIONS and (overlap.first or overlap.second):
        raise LayoutError(
            f"{template.pattern} holds several masks of each image that overlap "
            f"({overlap.covered:.0%} of the smaller one): they may be observers or versions; name "
            "one of them in a description"
        )


def _without_repeated(
    groups: Sequence[list[Template]], left: dict[str, str]
) -> list[list[Template]]:
    """The groups without those that repeat another one: the same foreground, of which many values
    are instances and few are structures; or the parts of a mask with all structures.
    """
    kept = list(groups)
    for one, other in combinations(groups, 2):
        if one not in kept or other not in kept:
            continue
        if overlap_of(_common(one[0], other[0])).are_equal:
            rest = max((one, other), key=_rank)
            kept.remove(rest)
            left[rest[0].pattern] = f"{len(rest[0].role)} masks with the extent of the others"
    for whole in kept:
        parts = [group for group in kept if group is not whole]
        if parts and _values(whole) > max(2, *map(_values, parts)) and _is_union(whole[0], parts):
            for part in parts:
                words = f"{len(part[0].role)} masks of a part of {whole[0].pattern}"
                left[part[0].pattern] = words
            return [whole]
    return kept


def _rank(group: Sequence[Template]) -> tuple[bool, int, int]:
    values = _values(group)
    return values > MOST_STRUCTURES, -values, len(group[0].pattern)


def _values(group: Sequence[Template]) -> int:
    return max((e.content.values for e in group[0].role.entries if e.content), default=0)


def _is_union(whole: Template, parts: Sequence[Sequence[Template]]) -> bool:
    """Whether the masks of ``parts`` together are those of ``whole``, in a few cases."""
    of_case: dict[Path, list[Path]] = {}
    for part in parts:
        for one, other in _common(whole, part[0]):
            of_case.setdefault(one, []).append(other)
    complete = {one: others for one, others in of_case.items() if len(others) == len(parts)}
    for one, others in list(complete.items())[:COMPARED]:
        masks = [mask for path in others if (mask := foreground(path)) is not None]
        all_ = foreground(one)
        shapes = {mask.shape for mask in masks}
        if (
            all_ is None
            or shapes != {all_.shape}
            or not np.array_equal(all_, np.any(masks, axis=0))
        ):
            return False
    return bool(complete)


def _refuse_several_values(groups: Sequence[Sequence[Template]]) -> None:
    """Raise if masks that are united, or of one structure each, have several values."""
    for group in groups:
        if (values := _values(group)) > 2:
            raise LayoutError(
                f"{group[0].pattern} has {values} values and there are masks of the same images "
                "in other files; name one of them in a description"
            )


def _are_structures(one: str, other: str, is_nested: bool) -> bool:
    """Whether masks that overlap may be two structures, by their names: one inside the other, or
    left and right.
    """
    if not (may_name_structure(one) and may_name_structure(other)):
        return False
    sides = {side_of(one)[0], side_of(other)[0]}
    return is_nested or sides == {"left", "right"}


def may_name_structure(name: str) -> bool:
    """Whether a name may be that of a structure: not of an observer, nor a word for masks, previews
    or predictions.
    """
    others = (_OBSERVER, _GENERIC, _PREVIEW, _FIELD, _PREDICTED)
    return names_structure(name) and not any(one.search(name) for one in others)


def _numbered(role: Role) -> str:
    return re.sub(r"[\d\s]+", "", role.words.casefold())


def _sequence(role: Role) -> str:
    """The sequence or modality that the names state; "" if they state none."""
    return read(role.words, in_file_name=True).identity


def _add_unlabelled(
    channels: dict[str, list[Template]], images: Sequence[Role], left: dict[str, str]
) -> None:
    """Add images without masks whose paths name a split, such as a test set, if there is only one
    channel.
    """
    if len(channels) > 1:
        return
    (used,) = channels.values()
    for role in images:
        template = template_of(role)
        if (
            template
            and "{split}" in template.pattern
            and template.pattern in left
            and role.ending.lower() == used[0].role.ending.lower()
            and _sequence(role) in ("", _sequence(used[0].role))
            and all(_relation(template, other) == 0 for other in used)
        ):
            used.append(template)
            del left[template.pattern]

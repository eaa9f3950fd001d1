"""Write the description of the roles that were chosen, and prove it: read it back and find the
cases with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....core.errors import DelineateError, InputError, LayoutError
from ....core.inputs import parse_yaml
from ....core.manifest import Manifest
from ....formats import arrays
from .. import description
from ..channel_count import with_channels
from ..completion import complete
from ..dicom_rules import DicomRules
from ..patterns import glob_of
from ..tree import Tree, is_raster
from .pairing import Chosen, choose
from .paths import DEEPEST, Entry, entries_below, roles_of
from .patterns import Template

SHOWN = 12  # roles that are listed as left out
MOST_FOLDERS = 100  # of one folder that are searched for arrays
ARRAYS_NEED = (
    "arrays state neither, so they need spacing_mm and axes in a description (see "
    "docs/how-to/describe-a-folder.md)"
)
COMPARED = 10  # cases whose image and mask must have one size


@dataclass(frozen=True)
class DraftedDescription:
    """A description that was proved.

    Args:
        text: the YAML file.
        manifest: the cohort that it finds.
        left_out: a line for each group of files that it does not use.
    """

    text: str
    manifest: Manifest
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        with_truth = len(self.manifest.with_truth())
        sentence = f"it finds {len(self.manifest)} cases, {with_truth} of them with labels"
        return "; ".join([sentence, *(f"not used: {line}" for line in self.left_out)])


def draft(root: str | Path) -> DraftedDescription:
    """A description of a folder whose layout is not known.

    Files are images or masks by their content, and belong together by their names. The description
    is applied before it is returned: it finds every pair, and no mask is an image.

    Raises:
        InputError: ``root`` is not a folder.
        LayoutError: no description can be proved; one sentence says why.
    """
    base = Path(root)
    if not base.is_dir():
        raise InputError("is not a folder", path=base)
    entries = entries_below(base)
    if not entries:
        array = first_array(base)
        words = f"; {array.relative_to(base)} is an array: {ARRAYS_NEED}" if array else ""
        raise LayoutError(
            f"no image and no DICOM folder was found here or in a folder below{words}", path=base
        )
    try:
        chosen = choose(roles_of(entries))
    except LayoutError as error:
        raise LayoutError(f"no description was written: {error.message}", path=base) from error
    left = tuple(f"{pattern}: {why}" for pattern, why in list(chosen.left_out.items())[:SHOWN])
    lines = _settings(chosen, base)
    manifest = _proved("\n".join(lines), base, chosen, entries)
    found = DraftedDescription("", manifest, left)
    text = "\n".join([*head_of(base, found), *lines, *_further(entries)]) + "\n"
    return DraftedDescription(text, manifest, left)


def first_array(base: Path) -> Path | None:
    """The first .npy, .npz or HDF5 file in the folder or in those below; None without one."""
    level, tree = [base], Tree()
    for _ in range(DEEPEST):
        for folder in level:
            for path in tree.files(folder):
                if path.name.lower().endswith(arrays.ENDINGS):
                    return path
        level = [inner for folder in level for inner in tree.folders(folder)[:MOST_FOLDERS]]
    return None


def head_of(base: Path, found: DraftedDescription) -> list[str]:
    """The comments at the beginning of a description."""
    lines = [
        f"# Description of {base}",
        "# Written by `delineate check --draft`; it finds "
        f"{len(found.manifest)} cases, {len(found.manifest.with_truth())} with labels. Edit it, "
        "then run:",
        f"# delineate check {base} --description THIS_FILE",
    ]
    if found.left_out:
        lines += ["# Not used:", *(f"#   {line}" for line in found.left_out)]
    return lines


def _templates(chosen: Chosen) -> list[list[Template]]:
    return [*chosen.channels.values(), *chosen.labels.values()]


def _settings(chosen: Chosen, base: Path) -> list[str]:
    """The lines of the description that were derived from the files."""
    lines = ["channels:"]
    for name, templates in chosen.channels.items():
        lines.append(f"  {quoted(name)}: {_patterns(templates)}")
    if list(chosen.labels) in ([""], ["part"]):
        (templates,) = chosen.labels.values()
        lines.append(f"label: {_patterns(templates)}")
    else:
        lines.append("label:                     # in an overlap, the later structure wins")
        for name, templates in chosen.labels.items():
            lines.append(f"  {quoted(name)}: {_patterns(templates)}")
    if chosen.numbers:
        lines.append("match: numbers             # names with equal numbers are one case")
    if chosen.left_out:
        used = {e.path for ts in _templates(chosen) for one in ts for e in one.role.entries}
        # A pattern that finds files in use too is left to the rule of most text.
        globs = [glob_of(one) for one in chosen.left_out if "{" in one]
        patterns = ", ".join(quoted(one) for one in globs if not used & set(base.glob(one)))
        lines += [f"leave_out: [{patterns}]"] if patterns else []
    return lines


def _further(entries: Sequence[Entry]) -> list[str]:
    """Commented lines for what files cannot show."""
    spacing = (
        ["# spacing_mm: [1, 1, 1]      # for 2-D images, which store no spacing"]
        if any(is_raster(entry.path) for entry in entries)
        else []
    )
    return [
        '# patient: "^(P[0-9]+)"      # one group, searched in the id',
        "# modality: CT               # or MR",
        *spacing,
        "# labels:                    # structure: value, [values], range, colour or structure",
        "#   liver: 1",
        "#   kidneys: [2, 3]",
        "# rest: background           # or refuse: what happens to other values",
        "# ignore: 255                # values whose voxels are neither learnt from nor scored",
        "# overlapping: true          # a voxel may belong to several structures",
    ]


def quoted(text: str) -> str:
    """A text as YAML."""
    return json.dumps(text, ensure_ascii=False)


def _patterns(templates: Sequence[Template]) -> str:
    patterns = list(dict.fromkeys(one.pattern for one in templates))
    shown = ", ".join(map(quoted, patterns))
    return shown if len(patterns) == 1 else f"[{shown}]"


def _proved(text: str, base: Path, chosen: Chosen, entries: Sequence[Entry]) -> Manifest:
    """The cohort that the description finds.

    Raises:
        LayoutError: it does not find what the names gave, or images and masks differ in size.
    """
    try:
        applied = description.apply(description.parse(parse_yaml(text)), base)
        found = complete(with_channels(applied), base, None, None, (), True, DicomRules())
    except DelineateError as error:
        raise LayoutError(
            f"no description was written: the one that was derived fails ({error.message})",
            path=base,
        ) from error
    manifest = found.manifest
    images = {str(e.path.absolute()) for e in entries if e.kind != "mask"}
    shapes = {str(e.path.absolute()): e.content.shape for e in entries if e.content}
    labelled = manifest.with_truth().cases
    problem = ""
    if len(labelled) < chosen.cases:
        problem = f"it finds {len(labelled)} cases with labels, but the names give {chosen.cases}"
    elif any(one.path not in images for case in manifest for one in case.images):
        problem = "it would use a mask as an image"
    sizes = [
        (sorted(shapes[case.path]), sorted(shapes[case.label[0].path]))
        for case in labelled
        if shapes.get(case.path) and shapes.get(case.label[0].path)
    ][:COMPARED]
    if sizes and 2 * sum(one == other for one, other in sizes) <= len(sizes):
        problem = (
            "images and masks of equal names have different sizes, such as "
            f"{sizes[0][0]} and {sizes[0][1]}"
        )
    if problem:
        raise LayoutError(f"no description was written: {problem}", path=base)
    return manifest

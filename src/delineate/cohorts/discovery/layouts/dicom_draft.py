"""The description of a tree of DICOM series with labels in DICOM: its layout is known, so that the
structures are what is left to choose.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ....core.inputs import parse_yaml
from ....core.labels import MOST_OVERLAPPING
from .. import description
from ..channel_count import with_channels
from ..completion import complete
from ..dicom_rules import DicomRules
from ..drafts.writing import DraftedDescription, head_of, quoted
from ..structures import StructureSelection
from ..tree import Tree
from .dicom_labels import of_dicom_labels

FURTHER = (
    '# patient: "^(P[0-9]+)"      # one group, searched in the id',
    "# modality: CT               # use --modality to select the cases of one",
    "# fix_series: run            # series with uneven gaps: run, fill or split",
    "# register_by: position      # accept labels in another frame of reference",
)


def draft_of_labels(root: str | Path) -> DraftedDescription | None:
    """A description with every name of an ROI or segment and the number of series that have it;
    None if the folder is no such tree. Structures that are too many to overlap, and names that
    would be values in a description, are comments.

    Raises:
        InputError: ``root`` cannot be read.
    """
    base, tree = Path(root), Tree()
    found = of_dicom_labels(tree, base) if base.is_dir() else None
    if found is None:
        return None
    counts = next(Counter(one.data["counts"]) for one in found.findings if "counts" in one.data)
    structures: dict[str, list[str]] = {}
    for name, _ in counts.most_common():
        structures.setdefault(found.called[name], []).append(name)
    lines = [
        "layout: hospital",
        "labels:                      # structure: its name, or a list of names; remove what is "
        "not needed",
    ]
    for number, (structure, names) in enumerate(structures.items()):
        shown = ", ".join(f"{' '.join(name.split())} in {counts[name]} series" for name in names)
        # A name such as "55-70" would be a range of values.
        is_name = StructureSelection({structure: (structure,)}).needs_names()
        is_active = number < MOST_OVERLAPPING and is_name
        lines.append(
            f"{'  ' if is_active else '#  '}{quoted(structure)}: {quoted(structure)}  # {shown}"
        )
    described = description.parse(parse_yaml("\n".join(lines)))
    cohort = complete(with_channels(found), base, described.selection, None, (), True, DicomRules())
    drafted = DraftedDescription("", cohort.manifest, ())
    text = "\n".join([*head_of(base, drafted), *lines, *FURTHER]) + "\n"
    return DraftedDescription(text, cohort.manifest, ())

"""Tables of structures next to the folders of a cohort: ``labels.csv``, label descriptions of
ITK-SNAP, colour tables of FreeSurfer and 3D Slicer.
"""

from __future__ import annotations

from pathlib import Path

from ....core.errors import DelineateError
from ....extend.findings import Draft
from ..names import is_label_description, read_label_colours, read_label_names
from ..tree import Tree

_NAMES = ("labels.csv", "labels.tsv", "labels.yaml", "labels.yml", "labels.json")
_COLOURS = ("labels.csv", "class_dict.csv", "classes.csv")


def set_names_of_tables(tree: Tree, folder: Path, draft: Draft) -> None:
    """Set the names of values and of colours from the tables directly in ``folder``, if any."""
    for path in tree.files(folder):
        known = path.name.lower() in _NAMES
        if draft.names or not (known or is_label_description(path)):
            continue
        # A file that cannot be read is a warning; the next one may work.
        try:
            draft.names = {b.value: " ".join(b.name.split()) for b in read_label_names(path)}
        except DelineateError as error:
            if not (path.suffix == ".csv" and read_label_colours(path)):
                draft.problem("", "names", str(error), "warning")
            continue
        draft.settings.append(path)
        draft.note("names", f"structure names are read from {path.name}", path=str(path))
    for path in tree.files(folder):
        if draft.colours or path.name.lower() not in _COLOURS:
            continue
        try:
            if found := read_label_colours(path):
                draft.colours = found
                draft.settings.append(path)
                draft.note("names", f"colours of structures are read from {path.name}")
        except DelineateError as error:
            draft.problem("", "names", str(error), "warning")

"""Folders of consecutively numbered slices, each of one volume: ``kidney_1/images/0000.tif`` to
``kidney_1/images/2278.tif``, with ``kidney_1/labels``. Such a folder is a patient, since a split
between neighbouring slices would leak. Folders of pictures that are no slices must not look so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .....core.errors import DelineateError
from .....core.manifest import Source
from .....formats import files
from ...splits import without_split
from ...tree import is_raster
from ..siblings import meaning_of

FEWEST = 3  # slices of a volume
_NUMBERED = re.compile(r"^(.*?)(\d+)$")
# Names of data sets, of their parts, and of years are no patients.
_NO_PATIENT = re.compile(r"(?i)^(?:task|data[ _-]?set|data|version|v|release)[ _-]?\d+|^\d{4}$")


def volumes_of(images: Mapping[Path, Sequence[Source]]) -> dict[Path, str]:
    """Folder of images -> name of its volume; {} unless every folder holds the slices of one.

    They do if there are several, in folders whose names count patients, and the names of the
    pictures in each differ in a number alone, of equal length and without gaps; and if the first,
    the middle and the last picture of a folder have one size.

    Args:
        images: those of each folder, such as ``kidney_1/images``.
    """
    names = {folder: without_split(folder.parent.name) for folder in images}
    stated = set(names.values())
    if len(images) < 2 or "" in stated or any(map(_NO_PATIENT.match, stated)):
        return {}
    if len(stated) < 2 or meaning_of(stated) != "patient":
        return {}
    if not all(_are_slices(sources) for sources in images.values()):
        return {}
    if len(stated) == len(names):
        return names
    return {folder: "_".join(folder.parent.parts[-2:]) for folder in images}


def _are_slices(sources: Sequence[Source]) -> bool:
    paths = sorted((Path(one.path) for one in sources), key=lambda path: path.name)
    found = [_NUMBERED.match(path.name.split(".")[0]) for path in paths]
    if len(paths) < FEWEST or not all(map(is_raster, paths)) or None in found:
        return False
    forms = {(one[1], len(one[2])) for one in found if one}
    numbers = [int(one[2]) for one in found if one]
    if len(forms) > 1 or numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        return False
    few = {sources[0].path, sources[len(sources) // 2].path, sources[-1].path}
    try:
        sizes = {files.read_grid(one).shape for one in sources if one.path in few}
    except DelineateError:
        return False
    return len(sizes) == 1

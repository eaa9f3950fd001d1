"""Count the channels of images that have all of them in one file; few are opened."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ...core.errors import DelineateError
from ...core.manifest import Case, Source
from ...extend.findings import Draft
from ...formats import dicom, files
from ...formats.label_files import without_alpha
from ...formats.raster import COLOURS
from ..reading import is_grey
from .tree import Tree, is_raster


def with_channels(draft: Draft) -> Draft:
    """The draft with one channel name per channel of its single-file images.

    Up to four evenly spaced cases are opened to count the channels.
    """
    if not draft.cases or len(draft.channels) > 1:
        return draft
    # Cases may differ (grey and colour), so several are opened, not only the first.
    spread = draft.cases[:: max(1, len(draft.cases) // 4)][:4]
    counted = [names for case in spread if (names := _channels_of(case)) is not None]
    # None of them can be read (each is reported later), so the first readable case counts.
    if not counted:
        counted = list(
            islice((names for case in draft.cases if (names := _channels_of(case)) is not None), 1)
        )
    if not counted:
        return draft
    if is_raster(Path(draft.cases[0].images[0].path)) or list(COLOURS) in counted:
        # A grey image can be read as colour, but not the other way round.
        names = max(counted, key=len)
    else:
        names = max(counted, key=counted.count)
    if len(names) > 1:
        draft.channels = tuple(names)
    return draft


def _channels_of(case: Case) -> list[str] | None:
    """Names of the channels in a case's first file; [] for one channel, None if unreadable."""
    source = case.images[0]
    path = Path(source.path)
    if source.channel is not None:
        return []  # one frame of a time series
    try:
        if is_raster(path):
            return _colours(source)
        if Tree().is_dicom(path) if path.is_dir() else files.detect(path) == "DICOM":
            is_colour = dicom.choose(path, source.series).planes[0].is_colour
            return _colours(source) if is_colour else []
        if path.is_dir():
            return []
        # The header is enough: axes after the third are channels.
        shape = files.describe(path).get("disk_shape", [])
    except DelineateError:
        return None
    return [f"channel {n}" for n in range(int(max(shape[3:], default=1)))]


def _colours(source: Source) -> list[str]:
    """Names of the channels of a 2-D image; [] if it is grey, even if stored as RGB."""
    volume = without_alpha(files.read(source))
    return (
        []
        if volume.channels == 1 or is_grey(volume.array)
        else list(volume.meta.get("channels", []))
    )

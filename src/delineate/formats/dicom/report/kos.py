"""The slices that a person should look at, as a Key Object Selection (PS3.3 A.35.4, TID 2010),
written by highdicom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....core import atomic
from ..derived import by_highdicom, device_of, new_series, prove, with_dates_of
from ..header.file import open_dataset
from ..source import SourceSeries, to_unicode


def write_kos(
    reasons: Mapping[int, Sequence[str]],
    series: SourceSeries,
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_description: str = "Slices for review",
) -> None:
    """Write one selection of images (or frames) of a series, with the title Of Interest (DCM
    113000, CID 7010) and the reasons as its description.

    Args:
        reasons: number of a plane of ``series.planes`` -> why it should be seen; at least one.
        series: of the images.
        path: of the new file.
        algorithm_name, algorithm_version: of the algorithm that chose them.
        series_description: of the new series.

    Raises:
        FormatError: the series lacks attributes that the selection must repeat.
        OutputError: the file cannot be written.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = algorithm_name, algorithm_version
    chosen = sorted(reasons)
    headers = [series.headers[0 if series.of_frames else number] for number in chosen]
    to_unicode(headers[0])  # of which the patient and the study are repeated
    frames = [series.planes[number].frame for number in chosen]
    lines = [f"{_place(series, number)}: {'; '.join(reasons[number])}" for number in chosen]
    description = "\n".join(lines)
    uid = series.uid_with("KOS", str(chosen), description, *algorithm, series_description)
    once = headers[:1] if series.of_frames else headers
    with by_highdicom("key object selection", series):
        selection = hd.ko.KeyObjectSelection(
            document_title=codes.DCM.OfInterest,
            referenced_objects=once,
            observer_device_context=device_of(algorithm),
            description=description,
        )
        document: Any = hd.ko.KeyObjectSelectionDocument(
            evidence=once,
            content=selection,
            **new_series(series, "kos", uid, algorithm, series_description),
        )
    if series.of_frames:
        for item in _references(document):
            item.ReferencedFrameNumber = [frame + 1 for frame in frames if frame is not None]
    with_dates_of(series.headers[0], document)
    with atomic.replacing(path) as temporary:
        document.save_as(temporary)
        again = hd.ko.KeyObjectSelectionDocument.from_dataset(open_dataset(temporary))
        named = [item.ReferencedSOPInstanceUID for item in _references(again)]
        prove(named == [one.SOPInstanceUID for one in once], "references", path)


def _place(series: SourceSeries, number: int) -> str:
    """A slice by the numbers that a viewer shows."""
    frame = series.planes[number].frame
    own = series.headers[0 if series.of_frames else number].get("InstanceNumber")
    shown = f"instance number {own}" if frame is None else f"frame {frame + 1}"
    return f"slice {number + 1} of {len(series.planes)} ({shown})"


def _references(document: Any) -> list[Any]:
    """The references to images of its content."""
    return [
        item.ReferencedSOPSequence[0]
        for item in document.ContentSequence
        if item.ValueType == "IMAGE"
    ]

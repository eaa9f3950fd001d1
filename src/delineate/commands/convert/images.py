"""Image volumes as DICOM: the part of ``convert`` that writes a series, or one multi-frame file."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UsageError
from ...core.volume import Volume
from ...formats import dicom, files, label_files
from ...formats.dicom.images import WrittenImages, write_images
from ..options import ConvertOptions

ENDING = ".dcm"

__all__ = ["ENDING", "volume_to_dicom"]


def volume_to_dicom(volume: Volume, target: Path, options: ConvertOptions) -> WrittenImages:
    """Write a volume as DICOM images; see ``formats.dicom.images``.

    Raises:
        UsageError: the volume is labels, which other objects hold. InputError: ``like`` is no
            series.
    """
    if volume.unit == "label":
        raise UsageError(
            f"{volume.source or 'the input'} has labels, and {target} would be an image; "
            "NAME.seg.dcm and NAME.rtstruct.dcm hold labels"
        )
    like = None if options.like is None else dicom.choose(*files.place_and_series(options.like))
    return write_images(
        label_files.without_alpha(volume),
        target,
        like=like,
        modality=options.modality,
        orientation=options.orientation or "",
        overwrite=options.overwrite,
    )

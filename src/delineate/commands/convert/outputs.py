"""What an output of ``convert`` is, by its ending or ``--format``, and the options that apply to
it.
"""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UsageError
from ...formats.dicom.seg import SegEncoding
from ...formats.slices.record import VIEWS
from ..options import ConvertOptions
from . import images, structure_sets

__all__ = ["PICTURES", "form_of", "refuse_unfit"]

PICTURES = ("png", "tiff")
_FORMS = {images.ENDING: "dicom", ".png": "png", ".tif": "tiff", ".tiff": "tiff"}


def form_of(output: Path, options: ConvertOptions) -> str:
    """What an output is: "dicom", a folder or file of pictures ("png", "tiff"), or "" for a file of
    another format, or a folder whose content depends on the input.
    """
    return options.form or _FORMS.get(output.suffix.lower(), "")


def refuse_unfit(output: Path, options: ConvertOptions) -> None:
    """Refuse options that do not apply to what is written.

    Raises:
        UsageError: there is one.
    """
    if options.form and "." in output.name:
        raise UsageError(f"--format is for a folder; the ending of {output.name} is its format")
    if options.form not in ("", *_FORMS.values()):
        raise UsageError(f"--format is dicom, png or tiff, found {options.form}")
    form = form_of(output, options)
    if options.split_slices and (form == "dicom" or options.form):
        raise UsageError("--split-slices writes volumes; it excludes --format and DICOM")
    name = output.name.lower()
    if options.smallest_mm2 and not name.endswith(structure_sets.RTSTRUCT):
        raise UsageError("--smallest is for NAME.rtstruct.dcm")
    if options.seg_encoding != SegEncoding() and not name.endswith(structure_sets.SEG):
        raise UsageError("--seg-type and --seg-syntax are for NAME.seg.dcm")
    if options.modality and (form != "dicom" or name.endswith(structure_sets.ENDINGS)):
        raise UsageError("--modality is for images that are written as DICOM")
    _refuse_of_pictures(form in PICTURES or (not form and "." not in output.name), options)


def _refuse_of_pictures(is_picture: bool, options: ConvertOptions) -> None:
    """Refuse options that are for pictures alone, and a view that there is not."""
    if options.window is not None and (not is_picture or options.split_slices):
        raise UsageError(
            "--window is for PNG and TIFF; other formats keep the intensities as they are"
        )
    if options.view and not is_picture:
        raise UsageError("--view is for slices in PNG and TIFF; other formats keep all axes")
    if options.view and (options.view not in VIEWS or options.orientation):
        raise UsageError(
            f"--view is one of {', '.join(VIEWS)}, without --orientation; found {options.view}"
        )

"""What a user states about the DICOM objects of a cohort, and its mark on each source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from ...core.errors import UsageError
from ...core.manifest import ABSENT, Case, Source
from ...formats.dicom import FIXES, is_flat_image
from ...formats.label_files import dicom_labels_in
from .tree import has_dicom_mark, has_image_ending, is_raster

REGISTERED_BY = ("frame", "position")


@dataclass(frozen=True)
class DicomRules:
    """How series with uneven gaps become even ("" refuses them), and what puts labels in another
    frame of reference on their image; see ``core.manifest.Source``.
    """

    fix_series: str = ""
    register_by: Literal["frame", "position"] = "frame"

    @classmethod
    def of(cls, fix_series: str | None, register_by: str | None) -> Self:
        """The rules in the words of a user; None is not stated.

        Raises:
            UsageError: another word.
        """
        if fix_series not in (None, "", *FIXES):
            raise UsageError(f"--fix-series is {', '.join(FIXES)}, found {fix_series}")
        if register_by not in (None, *REGISTERED_BY):
            raise UsageError(f"--register-by is {', '.join(REGISTERED_BY)}, found {register_by}")
        return cls(fix_series or "", "position" if register_by == "position" else "frame")

    def with_images(self, case: Case) -> Case:
        """The case with the rules in the sources of its images alone."""
        return replace(case, images=self.of_images(case.images))

    def of_case(self, case: Case) -> Case:
        """The case with the rules in its sources; its labels get the grid of its first image if
        they are DICOM, or pictures without a spacing of an image that is a DICOM file.
        """
        case = self.with_images(case)
        image = next(one for one in case.images if one != ABSENT)
        like = f"{image.path}#{image.series}" if image.series else image.path
        labels = tuple(self._of_label(one, image, like) for one in case.label)
        return replace(case, label=labels)

    def of_images(self, sources: Iterable[Source]) -> tuple[Source, ...]:
        """The sources of images; the files of other formats, and what states a rule already, stay
        as they are.
        """
        return tuple(
            one
            if not self.fix_series or one == ABSENT or one.fix_series or has_image_ending(one.path)
            else replace(one, fix_series=self.fix_series)
            for one in sources
        )

    def _of_label(self, one: Source, image: Source, like: str) -> Source:
        path = Path(one.path)
        if is_raster(path) or (has_dicom_mark(path) and is_flat_image(path, without_spacing=True)):
            is_of_dicom = not has_image_ending(image.path) and has_dicom_mark(Path(image.path))
            return replace(one, like=like, spacing_mm=()) if is_of_dicom and not one.like else one
        if has_image_ending(one.path) or not dicom_labels_in(path):
            return one
        return replace(
            one,
            like=one.like or like,
            fix_series=one.fix_series or image.fix_series,
            register_by=self.register_by if one.register_by == "frame" else one.register_by,
        )

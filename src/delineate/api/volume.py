"""Volume: a scan or a mask for use in Python, with conversions to and from other libraries.

It is the core's ``Volume`` with methods that need other packages; each is imported by the method
that needs it. Axes are always (I, J, K) or (C, I, J, K) with an affine in RAS+ mm; conversions
change them to the conventions of the other library and back.
"""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Union, cast

import numpy as np
from numpy.typing import ArrayLike

from ..core import volume as core
from ..core.errors import UsageError, optional_package
from ..core.grid import Grid
from ..core.labels import LabelSet, unique_values
from ..core.prediction import Prediction
from ..formats import files

if TYPE_CHECKING:
    import nibabel
    import nibabel.filebasedimages
    import nibabel.spatialimages
    import SimpleITK
    from matplotlib.figure import Figure

# Everything that is accepted where a scan or a mask is expected: a path; a volume or a prediction;
# an image of nibabel or SimpleITK; or (array, affine).
ImageLike: TypeAlias = Union[
    str,
    os.PathLike[str],
    core.Volume,
    Prediction,
    tuple[ArrayLike, ArrayLike],
    "nibabel.filebasedimages.FileBasedImage",
    "SimpleITK.Image",
]


class Volume(core.Volume):
    """Voxel values on a grid; see ``core.volume.Volume`` for its fields.

    >>> import numpy as np
    >>> ct = Volume.from_numpy(np.zeros((4, 4, 2), np.int16), spacing_mm=(1, 1, 5), unit="HU")
    >>> ct
    Volume(4x4x2 int16 HU, 1x1x5 mm, RAS)
    >>> np.asarray(ct).shape
    (4, 4, 2)

    >>> ct.save("volume.nrrd")
    >>> ct.plot().savefig("volume.png")
    >>> Volume.from_nibabel(ct.to_nibabel(), unit="HU").grid.matches(ct.grid)
    True
    >>> Volume.from_sitk(ct.to_sitk()).spacing_mm
    (1.0, 1.0, 5.0)
    """

    @classmethod
    def of(cls, image: ImageLike) -> Self:
        """A volume from anything that holds one.

        Args:
            image: a path (see ``read``); a volume or a prediction; an image of nibabel or
                SimpleITK; or a pair (array, affine).

        Raises:
            UsageError: something else.
            InputError: a file that cannot be read.

        >>> Volume.of((np.zeros((4, 4, 2)), np.eye(4))).spacing_mm
        (1.0, 1.0, 1.0)
        """
        if isinstance(image, cls):
            return image
        if isinstance(image, core.Volume):
            return cls(image.array, image.grid, image.unit, image.source, image.meta)
        if isinstance(image, Prediction):
            return cls.of(image.labels)
        if isinstance(image, str | os.PathLike):
            return cls.of(files.read(Path(image)))
        if isinstance(image, tuple) and len(image) == 2:
            return cls.from_numpy(image[0], image[1])
        package = type(image).__module__.partition(".")[0]
        if package == "SimpleITK":
            return cls.from_sitk(cast("SimpleITK.Image", image))
        if hasattr(image, "dataobj") and hasattr(image, "affine"):
            return cls.from_nibabel(cast("nibabel.spatialimages.SpatialImage", image))
        raise UsageError(
            f"found {type(image).__name__}; allowed are a path, a Volume, an image of nibabel or "
            "SimpleITK, and a pair (array, affine)"
        )

    @classmethod
    def from_numpy(
        cls,
        array: ArrayLike,
        affine: ArrayLike | None = None,
        *,
        spacing_mm: tuple[float, float, float] | None = None,
        unit: str = "a.u.",
    ) -> Self:
        """A volume from an array.

        Args:
            array: (I, J, K) or (C, I, J, K), any real dtype; not copied.
            affine: (4, 4), voxel index to RAS+ mm at voxel centres; it may have shear.
            spacing_mm: instead of an affine, for an array whose axes point right, anterior and
                superior.
            unit: "HU", "a.u." or "label".

        Raises:
            UsageError: neither or both of ``affine`` and ``spacing_mm``.
            GeometryError: an impossible shape or affine.
        """
        if (affine is None) == (spacing_mm is None):
            raise UsageError("give either affine or spacing_mm")
        values = np.asarray(array)
        shape = cast(tuple[int, int, int], values.shape[-3:])
        grid = (
            Grid.from_spacing(shape, spacing_mm)
            if spacing_mm is not None
            else Grid(shape, np.asarray(affine, np.float64), allow_shear=True)
        )
        return cls(values, grid, unit)

    @classmethod
    def from_nibabel(cls, image: nibabel.spatialimages.SpatialImage, unit: str = "a.u.") -> Self:
        """A volume from an image of nibabel; a fourth axis becomes channels."""
        from ..formats import nifti

        return cls.of(nifti.from_image(image).with_unit(unit))

    @classmethod
    def from_sitk(cls, image: SimpleITK.Image, unit: str = "a.u.") -> Self:
        """A volume from an image of SimpleITK; components become channels."""
        from ..formats import itk

        return cls.of(itk.from_image(image).with_unit(unit))

    def to_nibabel(self) -> nibabel.nifti1.Nifti1Image:
        """The volume as a NIfTI image of nibabel; channels become the fourth axis.

        >>> Volume.of((np.zeros((4, 4, 2)), np.eye(4))).to_nibabel().shape
        (4, 4, 2)
        """
        from ..formats import nifti

        return cast("nibabel.nifti1.Nifti1Image", nifti.to_image(self))

    def to_sitk(self) -> SimpleITK.Image:
        """The volume as an image of SimpleITK (LPS); channels become components.

        >>> Volume.of((np.zeros((4, 4, 2)), np.eye(4))).to_sitk().GetSize()
        (4, 4, 2)
        """
        from ..formats import itk

        return cast("SimpleITK.Image", itk.to_image(self))

    def to_torchio(self) -> Any:
        """The volume as a ``torchio.ScalarImage``, or as a ``LabelMap`` if it is a mask.

        Raises:
            UsageError: torchio is not installed.
        """
        torchio = optional_package("torchio", "to_torchio")
        kind = torchio.LabelMap if self.unit == "label" else torchio.ScalarImage
        return kind(tensor=np.ascontiguousarray(self.channels_array), affine=self.affine)

    def to_monai(self) -> Any:
        """The volume as a ``monai.data.MetaTensor`` (C, I, J, K) with its affine in RAS+ mm.

        Raises:
            UsageError: monai is not installed.
        """
        monai = optional_package("monai.data", "to_monai")
        return monai.MetaTensor(np.ascontiguousarray(self.channels_array), affine=self.affine)

    def save(self, path: str | Path, labels: LabelSet | None = None) -> None:
        """Write a file; its ending names the format (.nii.gz, .nii, .nrrd, .mha, .mhd, .png).

        Args:
            labels: names and colours of a mask's values, stored if the format has a field for them.

        Raises:
            OutputError: an unknown ending, or the file cannot be written.
        """
        files.write(self, path, labels=labels)

    def plot(self, mask: core.Volume | None = None, labels: LabelSet | None = None) -> Figure:
        """Three planes as a Matplotlib figure.

        Args:
            mask: a label map on the same grid, drawn as contours; the planes show most of it.
            labels: the structures of the mask; by default all of its values.

        Raises:
            GeometryError: the mask is on another grid.
        """
        from ..reporting.pictures import montage_figure

        if mask is None:
            return montage_figure(self, {}, LabelSet(()))
        if labels is None:
            values = [value for value in unique_values(mask.array) if value]
            labels = LabelSet.from_names({value: f"value {value}" for value in values})
        return montage_figure(self, {"mask": mask}, labels)

    def _repr_html_(self) -> str:
        """Three planes for a notebook."""
        return captioned(self.plot(), repr(self))


def captioned(figure: Figure, caption: str) -> str:
    """HTML of a figure with a line above it."""
    from ..reporting.pictures import figure_png

    data = base64.b64encode(figure_png(figure)).decode("ascii")
    text = html.escape(caption)
    return f'<div>{text}</div><img src="data:image/png;base64,{data}" alt="{text}">'

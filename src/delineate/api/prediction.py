"""Prediction: a segmented scan for use in Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from ..core import prediction as core
from ..core.errors import UsageError, optional_package
from .keywords import LabelObjectKeywords
from .volume import Volume, captioned

if TYPE_CHECKING:
    import nibabel
    import pandas
    import SimpleITK
    from matplotlib.figure import Figure


class Prediction(core.Prediction):
    """The segmentation of one scan; see ``core.prediction.Prediction`` for its fields.

    ``prediction["liver"]`` is the mask of one structure, ``np.asarray(prediction)`` the label map.

    >>> from delineate import LabelSet
    >>> labels = Volume.from_numpy(np.ones((4, 4, 2), np.uint8), np.eye(4), unit="label")
    >>> prediction = Prediction(labels, LabelSet.from_names({1: "liver", 2: "spleen"}))
    >>> prediction["liver"].sum(), prediction.volumes_ml["spleen"]
    (np.int64(32), 0.0)

    >>> prediction.shape, prediction.spacing_mm, prediction.volume.unit, list(prediction)
    ((4, 4, 2), (1.0, 1.0, 1.0), 'label', ['liver', 'spleen'])
    >>> prediction.numpy().max(), prediction.affine.shape
    (np.uint8(1), (4, 4))
    >>> prediction.to_nibabel().shape, prediction.to_sitk().GetSize()
    ((4, 4, 2), (4, 4, 2))
    >>> prediction.save("prediction.nii.gz")
    >>> prediction.plot().savefig("prediction.png")
    >>> Prediction.of(prediction).structures.names
    ['liver', 'spleen']
    """

    @classmethod
    def of(cls, found: core.Prediction) -> Prediction:
        """The same prediction with the methods of this class."""
        return cls(
            Volume.of(found.labels),
            found.structures,
            found.bundle_id,
            found.timing,
            found.uncertainty,
            found.missing,
            found.probabilities,
            found.samples,
            found.maps,
        )

    @property
    def volume(self) -> Volume:
        """The label map with its grid."""
        return Volume.of(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the label map, (I, J, K): that of the scan."""
        return self.labels.shape

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): voxel index to RAS+ mm, as of the scan."""
        return self.labels.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along I, J and K."""
        return self.labels.spacing_mm

    def numpy(self) -> NDArray[Any]:
        """The label map, (I, J, K) whole numbers, without a copy."""
        return self.labels.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The label map for NumPy."""
        return self.labels.__array__(dtype, copy)

    def __getitem__(self, structure: str) -> NDArray[np.bool_]:
        """The mask of one structure, (I, J, K) bool; all False if it was not found.

        Raises:
            KeyError: no structure has this name.
        """
        if structure not in self.structures.names:
            raise KeyError(f"{structure!r}; the structures are {', '.join(self.structures.names)}")
        mask: NDArray[np.bool_] = self.structures.inside(
            self.labels.array, self.structures.named(structure)
        )
        return mask

    def __iter__(self) -> Iterator[str]:
        """The names of the structures."""
        return iter(self.structures.names)

    def __repr__(self) -> str:
        found = (f"{name} {ml:.4g} ml" for name, ml in self.volumes_ml.items())
        return f"Prediction({'x'.join(map(str, self.shape))}, {', '.join(found)})"

    def to_nibabel(self) -> nibabel.nifti1.Nifti1Image:
        """The label map as a NIfTI image of nibabel."""
        return self.volume.to_nibabel()

    def to_sitk(self) -> SimpleITK.Image:
        """The label map as an image of SimpleITK."""
        return self.volume.to_sitk()

    def to_torchio(self) -> Any:
        """The label map as a ``torchio.LabelMap``."""
        return self.volume.to_torchio()

    def to_monai(self) -> Any:
        """The label map as a ``monai.data.MetaTensor``."""
        return self.volume.to_monai()

    def to_frame(self) -> pandas.DataFrame:
        """One row per structure: value, name and volume in ml, with columns of its uncertainty if
        there are samples.

        Raises:
            UsageError: pandas is not installed.

        >>> from delineate import predict
        >>> predict("liver.model", "ct.nii.gz", device="cpu").to_frame()["structure"].tolist()
        ['left part', 'right part']
        """
        volumes = self.volumes_ml
        rows = [
            {
                "value": label.value,
                "structure": label.name,
                "volume_ml": volumes[label.name],
                **self.uncertainty.get(label.name, {}),
            }
            for label in self.structures
        ]
        return cast("pandas.DataFrame", optional_package("pandas", "to_frame").DataFrame(rows))

    def save(
        self,
        path: str | Path,
        *,
        like: str | Path | None = None,
        **options: Unpack[LabelObjectKeywords],
    ) -> None:
        """Write the label map, or a DICOM object of the prediction; the ending names the format
        (.nii.gz, .nii, .nrrd, .mha, .png) or the object:

        - .seg.dcm: the structures as segments; .rtstruct.dcm: as contours;
        - .sr.dcm: measurements of the segments of the .seg.dcm of the same name, which is written
          with it;
        - .pm.dcm: probabilities and maps of uncertainty, those that the prediction has;
        - .kos.dcm: slices for review; .sc.dcm: an overview page.

        Args:
            path: the file.
            like: of an object: the DICOM folder, or FOLDER#SERIES_UID, that was segmented. None if
                the prediction was made of a path to it.
            **options: ``seg_type`` and ``seg_syntax`` of a .seg.dcm file, and ``smallest_mm2`` of a
                .rtstruct.dcm file, as for ``predict``; see
                ``delineate.commands.options.LabelObjectOptions``.

        Raises:
            UsageError: ``like`` for a label map, or options of another object; highdicom is
                missing.
            InputError: the series is not known, or lacks attributes that the object must repeat.
            GeometryError: the labels are not on its slices.
            OutputError: an unknown ending, nothing to write, or the file cannot be written.

        >>> from delineate import predict
        >>> predict("liver.model", "ct.nii.gz", device="cpu").save("ct.seg.dcm")
        Traceback (most recent call last):
        ...
        delineate.core.errors.InputError: ...like=FOLDER...
        """
        from ..commands.options import LabelObjectOptions
        from ..commands.predict.objects import kind_of, save_object

        if kind := kind_of(path):
            save_object(self, kind, Path(path), like, LabelObjectOptions(**options))
        elif like is not None or options:
            given = "like" if like is not None else next(iter(options))
            raise UsageError(f"{given} is for DICOM objects, such as .seg.dcm, and {path} is none")
        else:
            self.volume.save(path, self.structures)

    def plot(self, scan: Volume | None = None) -> Figure:
        """Three planes as a Matplotlib figure: the scan with the structures as contours, or only
        the structures.

        Raises:
            GeometryError: ``scan`` is not the segmented scan, but one on another grid.
        """
        from ..reporting.pictures import montage_figure

        return montage_figure(scan, {"prediction": self.labels}, self.structures)

    def _repr_html_(self) -> str:
        """Three planes for a notebook."""
        return captioned(self.plot(), repr(self))

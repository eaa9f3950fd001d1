"""Reading and writing a compressed NIfTI of 512 x 512 x 300 int16: ours compared with nibabel and
SimpleITK.

    python benchmarks/volume_files.py [--runs 5]

The voxels are a smooth CT with noise of a few HU, so that the compressed file has a realistic size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK

from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import files
from measure import in_turns, keep


def ct() -> np.ndarray:
    """A synthetic CT, in the memory layout of NIfTI readers."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(40, 80, (64, 64, 60)).astype(np.float32)
    out = coarse.repeat(8, 0).repeat(8, 1).repeat(5, 2) + rng.normal(0, 12, (512, 512, 300)).astype(
        np.float32
    )
    return np.asfortranarray(out.astype(np.int16))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path, array = folder / "ct.nii.gz", ct()
        volume = Volume(array, Grid.from_spacing(array.shape, (0.8, 0.8, 1.0)), "HU")
        nib.save(nib.Nifti1Image(array, volume.grid.affine), path)
        image = SimpleITK.ReadImage(str(path))
        reading: dict[str, Callable[[], Any]] = {
            "delineate": lambda: files.read(path),
            "nibabel": lambda: np.asarray(nib.load(path).dataobj),
            "SimpleITK": lambda: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))),
        }
        writing: dict[str, Callable[[], Any]] = {
            "delineate": lambda: files.write(volume, folder / "ours.nii.gz"),
            "nibabel": lambda: nib.save(
                nib.Nifti1Image(array, volume.grid.affine), folder / "nib.nii.gz"
            ),
            "SimpleITK": lambda: SimpleITK.WriteImage(
                image, str(folder / "sitk.nii.gz"), useCompression=True
            ),
        }
        found = {"read": in_turns(reading, runs), "write": in_turns(writing, runs)}
        size = {
            name: round((folder / file).stat().st_size / 1e6, 1)
            for name, file in (("delineate", "ours.nii.gz"), ("nibabel", "nib.nii.gz"))
        }
        assert np.array_equal(files.read(folder / "ours.nii.gz").array, array)
    keep(
        "volume_files",
        {
            "file": f"{array.nbytes / 1e6:.0f} MB of voxels",
            "packed_mb": size,
            "runs": runs,
            **found,
        },
    )


if __name__ == "__main__":
    main()

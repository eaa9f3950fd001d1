"""Small real files for tests: an anisotropic, flipped grid and two asymmetric structures."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.diag([-1.0, 1.5, 2.0, 1])


def scan(
    path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE, seed: int = 0
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = np.random.default_rng(seed).normal(100, 20, (20, 18, 16)).astype(
            np.float32
        ) + 60 * mask(seed)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def mask(seed: int = 0) -> np.ndarray:
    out = np.zeros((20, 18, 16), np.uint8)
    out[4:10, 5:12, 3 + seed % 3 : 9] = 1
    out[11:16, 6:12, 4:12] = 2
    return out


def write_cohort(folder: Path, cases: int) -> Path:
    """Parallel folders images/ and labels/ of c0, c1 ..., in which the image tells the label."""
    for n in range(cases):
        scan(folder / "images" / f"c{n}.nii.gz", seed=n)
        scan(folder / "labels" / f"c{n}.nii.gz", mask(n))
    return folder


def rename_in_json(folder: Path, old: str | Path, new: Path) -> None:
    """Replace the path ``old`` by ``new`` in the JSON files below ``folder``."""
    for path in folder.rglob("*.json*"):
        path.write_text(path.read_text().replace(str(old), str(new)))

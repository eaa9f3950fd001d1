"""What other readers make of the damaged files.

    python -m benchmarks.faults.compare FOLDER

reads every file of the formats that a reader knows, each in a process of its own with 5 s of
computing and 4 GiB, and prints a table. Any exception counts as a refusal, whatever it says.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .every import FAULTS
from .made import Fault
from .reading import documented, place_of, read_by_delineate, run, warm_up

VERDICTS = (
    "right",
    "refused",
    "silently wrong",
    "wrongly refused",
    "crashed",
    "hangs",
    "too much memory",
)
VOLUMES = ("NIfTI", "NIfTI pair", "Analyze 7.5", "MGH")
PICTURES = ("PNG", "JPEG", "TIFF", "GIF", "BMP")


def _nibabel(path: Path, _: str) -> Any:
    import nibabel

    return np.asarray(nibabel.load(path).dataobj)


def _simpleitk(path: Path, reading: str) -> Any:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    return array.T[..., None] if reading == "picture" else array.T


def _pydicom(path: Path, _: str) -> Any:
    import pydicom

    found = [pydicom.dcmread(one) for one in sorted(path.iterdir())]
    found.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    return np.stack([one.pixel_array.T for one in found], axis=-1)


def _numpy(path: Path, _: str) -> Any:
    loaded = np.load(path)
    return loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]


def _pillow(path: Path, _: str) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("L")).T[..., None]


ALL = {one.form for one in FAULTS}
READERS: dict[str, tuple[Callable[[Path, str], Any], set[str]]] = {
    "delineate": (read_by_delineate, ALL),
    "nibabel": (_nibabel, {*VOLUMES}),
    "SimpleITK": (_simpleitk, {"NIfTI", "NIfTI pair", "NRRD", "MetaImage", "DICOM", *PICTURES}),
    "pydicom": (_pydicom, {"DICOM"}),
    "NumPy": (_numpy, {"NumPy"}),
    "Pillow": (_pillow, {*PICTURES}),
}


def compared(folder: Path) -> dict[str, dict[str, int]]:
    """Reader -> verdict -> number of files."""
    warm_up(FAULTS, folder)
    found = {}
    for name, (reader, forms) in READERS.items():
        chosen: list[Fault] = [one for one in FAULTS if one.form in forms]
        for one in chosen:
            place_of(one, folder)
        refusals = documented() if name == "delineate" else (Exception,)
        outcomes = run(chosen, folder, reader, refusals)
        count = Counter(one.verdict for one in outcomes.values())
        found[name] = {verdict: count[verdict] for verdict in VERDICTS}
    return found


if __name__ == "__main__":
    json.dump(compared(Path(sys.argv[1])), sys.stdout, indent=1)

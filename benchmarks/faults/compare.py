"""What other readers make of the damaged files.

    python -m benchmarks.faults.compare FOLDER [--reader nibabel]

reads every file of the formats that a reader knows, each in a copy of this process with 5 s of
computing and 5 GiB, prints a line for each reader and format, and writes
``benchmarks/results/damaged_files.json``, from which ``page.py`` makes a table. Any exception
counts as a refusal, whatever it says. A reader that is not installed is named and left out:

    pip install nibabel SimpleITK pydicom pillow monai pynrrd nnunetv2
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from delineate import __version__

from .every import FAULTS
from .made import BASE
from .reading import documented, place_of, read_by_delineate, run, warm_up

RESULTS = Path(__file__).parents[1] / "results" / "damaged_files.json"
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


def _monai(path: Path, reading: str) -> Any:
    from monai.transforms import LoadImage

    array = np.asarray(LoadImage(image_only=True, dtype=None)(path))
    return array[..., None] if reading == "picture" else array


def _nnunet(path: Path, reading: str) -> Any:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    kind = determine_reader_writer_from_file_ending(ending, verbose=False)
    array = np.squeeze(kind().read_images([str(path)])[0]).T
    return array[..., None] if reading == "picture" else array


ALL = {one.form for one in FAULTS}
OURS = "delineate"
# Reader -> its function, the package to import, the formats.
READERS: dict[str, tuple[Callable[[Path, str], Any], str, set[str]]] = {
    OURS: (read_by_delineate, "delineate.formats.files", ALL),
    "nnU-Net": (
        _nnunet,
        "nnunetv2.imageio.reader_writer_registry",
        {"NIfTI", "NRRD", "MetaImage", "PNG", "BMP", "TIFF"},
    ),
    "MONAI": (_monai, "monai.transforms", {"NIfTI", "NRRD", "NumPy", "PNG", "JPEG"}),
    "SimpleITK": (
        _simpleitk,
        "SimpleITK",
        {"NIfTI", "NIfTI pair", "NRRD", "MetaImage", "DICOM", *PICTURES},
    ),
    "nibabel": (_nibabel, "nibabel", {*VOLUMES}),
    "pydicom": (_pydicom, "pydicom", {"DICOM"}),
    "NumPy": (_numpy, "numpy", {"NumPy"}),
    "Pillow": (_pillow, "PIL.Image", {*PICTURES}),
}
DISTRIBUTIONS = {"nnU-Net": "nnunetv2"}  # where it has another name


def _in_our_axes(reader: Callable[[Path, str], Any]) -> Callable[[Path, str], Any]:
    """A reader's array, whichever order of axes it has: that is a convention, and no fault."""

    def read(path: Path, reading: str) -> Any:
        array = np.asarray(reader(path, reading))
        return array.T if array.shape == BASE.shape[::-1] else array

    return read


def compared(name: str, folder: Path) -> dict[str, dict[str, int]]:
    """Format -> verdict -> number of files, of one reader.

    Raises:
        ImportError: it is not installed.
    """
    reader, package, forms = READERS[name]
    # Before the copies are made; a filter of ITK would start threads, which they would lack.
    importlib.import_module(package)
    refusals: tuple[type[BaseException], ...] = (Exception,)
    if name == OURS:
        warm_up(FAULTS, folder)
        refusals = documented()
    else:
        reader = _in_our_axes(reader)
    found = {}
    for form in sorted(forms):
        chosen = [one for one in FAULTS if one.form == form]
        for one in chosen:
            place_of(one, folder)
        outcomes = run(chosen, folder, reader, refusals)
        count = Counter(one.verdict for one in outcomes.values())
        found[form] = {verdict: count[verdict] for verdict in VERDICTS}
        words = ", ".join(f"{n} {verdict}" for verdict, n in found[form].items() if n)
        print(f"{name}, {form}: {words}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reader", choices=READERS)
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in [given.reader] if given.reader else READERS:
        try:
            found = compared(name, given.folder)
        except ImportError as error:
            print(f"{name} is left out: it is not installed ({error})", flush=True)
            continue
        number = __version__ if name == OURS else version(DISTRIBUTIONS.get(name, name))
        results[name] = {"version": number, "formats": found}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

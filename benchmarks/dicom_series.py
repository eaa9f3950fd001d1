"""Real DICOM series, read by this package, dcm2niix, SimpleITK and highdicom; each slice is judged.

    python benchmarks/dicom_series.py [FOLDER ...] [--dcm2niix PROGRAM] [--out FOLDER]

Every reader converts each series to NIfTI, in a folder with copies of its files. The judge reads
the files with pydicom alone: each slice must be, pixel for pixel, where its own
ImagePositionPatient, ImageOrientationPatient and PixelSpacing put it (PS3.3 C.7.6.2), in one of the
volumes. The slices of a mosaic have no headers of their own; they must be equal to those in the
folder ``Ref`` of the set or, without one, be where the scanner's protocol in the file puts them.
The verdict of a series is

    ok        every slice is in place, with its values
    refused   no slice is in any volume
    wrong     some slices are missing, or misplaced, or have other values
    crashed   the reader ended by a signal or with a traceback
    unplaced  the headers give no place in space (2-D images, colour): not judged

Without FOLDER the sets are those of ``DELINEATE_DATA``/dicom.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray

from measure import DATA, keep

TOLERANCE_MM = 0.05
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
NOT_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG")
DESCRIBED = ("SeriesNumber", "SeriesDescription", "Modality")
POSITION = re.compile(rb"sSliceArray.asSlice\[(\d+)\].sPosition.d(Sag|Cor|Tra)\s*=\s*([-+.\deE]+)")
VERDICTS = ("ok", "refused", "wrong", "crashed", "unplaced")
Volumes = Sequence[tuple[NDArray[Any], NDArray[np.float64]]]
Reader = Callable[[Path, Path], str]  # a folder of DICOM files, a folder for NIfTI: what it prints


@dataclass(frozen=True)
class Slice:
    """Pixels (rows, columns) and the RAS+ mm of the corners (first row, last row) x (first column,
    last column): (4, 3).
    """

    pixels: NDArray[np.float64]
    corners: NDArray[np.float64]

    @classmethod
    def of(cls, pixels: NDArray[Any], position: Any, orientation: Any, spacing: Any) -> Slice:
        across = np.array(orientation[:3], float) * float(spacing[1]) * (pixels.shape[1] - 1)
        down = np.array(orientation[3:], float) * float(spacing[0]) * (pixels.shape[0] - 1)
        first = np.array(position, float)
        corners = np.stack([first, first + across, first + down, first + across + down])
        return cls(pixels.astype(np.float64), corners @ LPS_TO_RAS)

    def found_in(self, volumes: Volumes) -> str:
        """ "ok", or what is wrong with the nearest place: "absent", "misplaced" or "values"."""
        found = "absent"
        for array, affine in volumes:
            inverse = np.linalg.inv(affine)
            index = self.corners @ inverse[:3, :3].T + inverse[:3, 3]
            nearest = np.rint(index).astype(int)
            if (nearest < 0).any() or (nearest >= array.shape[:3]).any():
                continue
            if np.abs((nearest - index) @ affine[:3, :3].T).max() > TOLERANCE_MM:
                found = "misplaced" if found == "absent" else found
                continue
            values = _plane(array, nearest, self.pixels.shape)
            if values is None:
                found = "misplaced" if found == "absent" else found
                continue
            difference = np.abs(values - self.pixels[..., None]).max(axis=(0, 1)).min()
            if difference <= max(0.51, 1e-4 * np.abs(self.pixels).max()):
                return "ok"
            found = "values"
        return found


def _plane(
    array: NDArray[Any], corners: NDArray[np.int_], shape: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """(rows, columns, volumes) between the corners; None if the steps are not one voxel."""
    rows, columns = shape
    across = (corners[1] - corners[0]) / max(columns - 1, 1)
    down = (corners[2] - corners[0]) / max(rows - 1, 1)
    if any(np.abs(step).sum() != 1 for step, n in ((across, columns), (down, rows)) if n > 1):
        return None
    r, c = np.mgrid[:rows, :columns]
    where = tuple(
        (corners[0][axis] + c * across[axis] + r * down[axis]).astype(int) for axis in range(3)
    )
    return np.asarray(array[where], np.float64).reshape(rows, columns, -1)


@dataclass
class Truth:
    """The files and slices of one series; ``is_mosaic`` if the slices are tiles of images, without
    headers; ``described`` by the names that dcm2niix gives these attributes.
    """

    name: str
    described: dict[str, Any]
    files: list[Path] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    is_mosaic: bool = False


def truths(folder: Path) -> dict[str, Truth]:
    """Series UID -> its slices, by pydicom alone."""
    found: dict[str, Truth] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            dataset = pydicom.dcmread(path)
        except Exception:  # no DICOM, or damaged
            continue
        if "PixelData" not in dataset or dataset.get("Modality") in NOT_IMAGES:
            continue
        uid = str(dataset.get("SeriesInstanceUID", ""))
        words = (dataset.get("Modality", ""), dataset.get("SeriesNumber", ""))
        name = " ".join(map(str, (*words, dataset.get("SeriesDescription", ""))))
        described = {key: dataset.get(key) for key in DESCRIBED}
        one = found.setdefault(uid, Truth(name, described))
        one.files.append(path)
        kind = str(dataset.get("ImageType", ""))
        one.is_mosaic |= "MOSAIC" in kind or "VFRAME" in kind
        one.slices += _tiles(dataset) if one.is_mosaic else _slices(dataset)
    return found


def _tiles(dataset: Any) -> Iterator[Slice]:
    """The slices of a Siemens mosaic. The position of the image is that of an image of its size
    around the same centre; the heights of the slices are in the text of the protocol.
    """
    protocol = bytes(dataset.get((0x0029, 0x1020)).value) if (0x0029, 0x1020) in dataset else b""
    at: dict[int, dict[str, float]] = defaultdict(dict)
    for number, axis, value in POSITION.findall(protocol):
        at[int(number)][axis.decode()] = float(value)
    count = max(at, default=-1) + 1
    side = math.ceil(math.sqrt(count))
    if not count:
        return
    rows, columns = dataset.Rows // side, dataset.Columns // side
    across, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    normal, spacing = np.cross(across, down), [float(mm) for mm in dataset.PixelSpacing]
    first = np.array(dataset.ImagePositionPatient, float)
    first += across * (dataset.Columns - columns) / 2 * spacing[1]
    first += down * (dataset.Rows - rows) / 2 * spacing[0]
    pixels = dataset.pixel_array
    numbers = sorted(at, reverse=b"ucImageNumb" in protocol)
    for tile, number in enumerate(numbers):
        centre = np.array([at[number].get(axis, 0.0) for axis in ("Sag", "Cor", "Tra")])
        row, column = divmod(tile, side)
        inside = pixels[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        place = first + normal * ((centre - first) @ normal)
        yield Slice.of(inside, place, dataset.ImageOrientationPatient, spacing)


def _slices(dataset: Any) -> Iterator[Slice]:
    """The slices with a place in space of one object."""
    if dataset.get("SamplesPerPixel", 1) != 1:
        return
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        if {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"} <= set(
            dataset.dir()
        ):
            slope = float(dataset.get("RescaleSlope") or 1)
            pixels = dataset.pixel_array * slope + float(dataset.get("RescaleIntercept") or 0)
            if pixels.ndim == 2:
                place = dataset.ImagePositionPatient, dataset.ImageOrientationPatient
                yield Slice.of(pixels, *place, dataset.PixelSpacing)
        return
    shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]

    def of(group: Any, name: str) -> Any:
        found = group.get(name) or shared[0].get(name)
        return found[0] if found else None

    frames = dataset.pixel_array.reshape(len(groups), dataset.Rows, dataset.Columns)
    for frame, group in zip(frames, groups, strict=True):
        position, plane = of(group, "PlanePositionSequence"), of(group, "PlaneOrientationSequence")
        measures = of(group, "PixelMeasuresSequence")
        if not (position and plane and measures):
            return
        rescale = of(group, "PixelValueTransformationSequence")
        slope = float(rescale.RescaleSlope) if rescale else 1.0
        pixels = frame * slope + (float(rescale.RescaleIntercept) if rescale else 0.0)
        place = position.ImagePositionPatient, plane.ImageOrientationPatient
        yield Slice.of(pixels, *place, measures.PixelSpacing)


def slices_of(volumes: Volumes) -> list[Slice]:
    """All slices along the third axis of reference volumes."""
    found = []
    for array, affine in volumes:
        many = array.reshape(*array.shape[:3], -1)
        for k in range(many.shape[2]):
            ends = [(0, 0), (many.shape[0] - 1, 0), (0, many.shape[1] - 1)]
            ends.append((many.shape[0] - 1, many.shape[1] - 1))
            corners = np.array([(affine @ (i, j, k, 1))[:3] for i, j in ends])
            found += [
                Slice(many[:, :, k, n].T.astype(np.float64), corners) for n in range(many.shape[3])
            ]
    return found


# ---- readers: each writes NIfTI into a folder and returns what it printed ----


def _ours(folder: Path, out: Path) -> str:
    return _printed(Path(sys.executable).with_name("delineate"), "convert", folder, out)


def _dcm2niix(program: str) -> Reader:
    def convert(folder: Path, out: Path) -> str:
        # "-p n": the standard's rescale, not the private one of Philips.
        return _printed(program, "-f", "%s_%d_%j", "-p", "n", "-b", "n", "-o", out, folder)

    return convert


def _printed(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    printed = done.stdout + done.stderr
    if done.returncode < 0 or done.returncode == 70 or "Traceback" in printed:
        raise RuntimeError(printed[-300:])
    return printed


def _simpleitk(folder: Path, out: Path) -> str:
    import SimpleITK

    said = []
    for inner in sorted({p.parent for p in folder.rglob("*") if p.is_file()}):
        for uid in SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(inner)):
            names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(inner), uid)
            try:
                image = SimpleITK.ReadImage(names if len(names) > 1 else names[0])
                SimpleITK.WriteImage(image, str(out / f"{uid}_{len(said)}.nii"))
                said.append(f"read: {uid}")
            except RuntimeError as error:
                said.append(f"failed: {str(error).splitlines()[-1]}")
    return "\n".join(said)


def _highdicom(folder: Path, out: Path) -> str:
    import highdicom as hd

    series: dict[str, list[Path]] = defaultdict(list)
    said = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            series[str(header.SeriesInstanceUID)].append(path)
        except Exception:
            continue
    for uid, paths in series.items():
        try:
            datasets = [pydicom.dcmread(path) for path in paths]
            if len(datasets) == 1 and "NumberOfFrames" in datasets[0]:
                volume = hd.Image.from_dataset(datasets[0], copy=False).get_volume()
            else:
                volume = hd.image.get_volume_from_series(datasets)
            array = np.moveaxis(volume.array, 0, 2).astype(np.float32)
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine[:, [1, 2, 0, 3]]
            nib.save(nib.Nifti1Image(array, affine), out / f"{uid}.nii")
        except Exception as error:
            said.append(f"failed: {type(error).__name__}: {str(error)[:150]}")
    return "\n".join(said)


def volumes_in(folder: Path) -> Volumes:
    images = [nib.load(path) for path in sorted(folder.rglob("*.nii*"))]
    # The files go away with their folder.
    return [(np.array(image.dataobj), image.affine) for image in images]


def verdict(slices: Sequence[Slice], volumes: Volumes) -> str:
    found = Counter(one.found_in(volumes) for one in slices)
    if not found:
        return "unplaced"
    if set(found) == {"ok"}:
        return "ok"
    return "refused" if set(found) == {"absent"} else "wrong"


def judged(folder: Path, readers: dict[str, Reader]) -> dict[str, Any]:
    """Reader -> counts of verdicts, the series that are not ok, and what was printed of them."""
    found: dict[str, Any] = {name: {"series": {}, "printed": []} for name in readers}
    for uid, one in truths(folder).items():
        stated = slices_of(_references(folder.parent / "Ref", one)) if one.is_mosaic else []
        slices = stated or one.slices
        for name, convert in readers.items():
            answer, volumes, printed = _converted(convert, one.files)
            answer = answer or verdict(slices, volumes)
            row = found[name]
            row[answer] = row.get(answer, 0) + 1
            if answer != "ok":
                row["series"][f"{uid[-12:]} {one.name}"] = answer
                row["printed"].append(" ".join(printed.split())[:300])
    return found


def _references(folder: Path, series: Truth) -> Volumes:
    """The volumes of the series in a folder of NIfTI files with dcm2niix's descriptions."""
    found = []
    for path in sorted(folder.glob("*.json")):
        described = json.loads(path.read_text())
        if all(described.get(key) == series.described[key] for key in DESCRIBED):
            image = nib.load(path.with_suffix(".nii"))
            found.append((np.array(image.dataobj), image.affine))
    return found


def _converted(convert: Reader, files: Sequence[Path]) -> tuple[str, Volumes, str]:
    """ "crashed" or "", the volumes, and what was printed."""
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place, "in"), Path(place, "out")
        source.mkdir()
        out.mkdir()
        for number, path in enumerate(files):
            shutil.copyfile(path, source / f"{number:05d}_{path.name}")
        try:
            printed = convert(source, out)
        except RuntimeError as error:
            return "crashed", [], str(error)
        return "", volumes_in(out), printed


def sets_in(data: Path) -> list[Path]:
    """The folders of series: each ``In`` next to a ``Ref``, and each folder of a vendor."""
    return sorted(data.glob("*/In")) + [
        path for path in sorted((data / "vendors").glob("*")) if path.is_dir()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--dcm2niix", default=shutil.which("dcm2niix") or "")
    parser.add_argument("--only", default="", help="readers, separated by commas")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    readers = {"simpleitk": _simpleitk, "highdicom": _highdicom, "delineate": _ours}
    if args.dcm2niix:
        readers = {"dcm2niix": _dcm2niix(args.dcm2niix)} | readers
    else:
        print("dcm2niix was not found")
    if args.only:
        readers = {name: readers[name] for name in args.only.split(",")}
    rows, total = {}, {name: Counter() for name in readers}
    print(f"{'set':28}" + "".join(f"{name:>36}" for name in readers))
    for folder in args.folders or sets_in(DATA / "dicom"):
        label = "/".join(folder.parts[-2:])
        rows[label] = judged(folder, readers)
        cells = []
        for name in readers:
            counts = {key: rows[label][name].get(key, 0) for key in VERDICTS}
            total[name].update(counts)
            cells.append(" ".join(f"{value} {key}" for key, value in counts.items() if value))
        print(f"{label:28}" + "".join(f"{cell:>36}" for cell in cells), flush=True)
    print(json.dumps({name: dict(counts) for name, counts in total.items()}, indent=1))
    keep("dicom_series", {"sets": rows, "total": total}, args.out)


if __name__ == "__main__":
    main()

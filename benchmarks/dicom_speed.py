"""Reading a DICOM series of 512 x 512 x 300 CT slices: ours compared with SimpleITK's GDCM reader
and a loop of pydicom; compressed syntaxes on one core and on all; finding 10,000 files.

    python benchmarks/dicom_speed.py [--before CHECKOUT] [--runs 5] [--slices 300] [--files 10000]

Every reader has a process of its own, reads once before it is timed, and finds the files itself.
The peak is that of all its processes, counted from after the imports.
With ``--before`` an earlier checkout of this project reads the plain series too.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from measure import checkout, child, commit, keep

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = {
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "RLE": "1.2.840.10008.1.2.5",
}
COMPRESSED_SLICES = {"RLE": 150}  # others 60: codecs take longer
SERIES, SLICE = "77777777", "88888888"
IMPORTS = """
import json, os, statistics, sys, time
import numpy, psutil
folder, runs, cores = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if cores:
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:cores])
"""
READERS = {
    "delineate": """
from delineate.formats import files
def read():
    return files.read(folder).array
""",
    "SimpleITK (GDCM)": """
import SimpleITK
def read():
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(folder)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(names))
""",
    "pydicom": """
import pydicom
def read():
    slices = [pydicom.dcmread(entry.path) for entry in os.scandir(folder)]
    slices.sort(key=lambda one: one.ImagePositionPatient[2])
    return numpy.stack(
        [one.pixel_array * one.RescaleSlope + one.RescaleIntercept for one in slices]
    ).astype(numpy.int16)
""",
}
FIND = """
from delineate.formats import dicom
def read():
    found = dicom.find_series(folder)
    return numpy.zeros(len(found))
"""
# A process that has read nothing else shows the peak; its children (decoders) are added.
MEASURE = """
def peak_of(process):
    lines = open(f"/proc/{process.pid}/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3
open("/proc/self/clear_refs", "w").write("5")
array = read()
me = psutil.Process()
peak = sum(peak_of(one) for one in (me, *me.children(recursive=True)))
facts = {"sum": float(array.sum(dtype=float)), "volume_mb": array.nbytes / 1e6}
del array
times = []
for _ in range(runs):
    begun = time.perf_counter()
    read()
    times.append(time.perf_counter() - begun)
each = [round(one, 4) for one in times]
median = round(statistics.median(times), 3)
print(json.dumps({"median_s": median, "each_s": each, "peak_mb": round(peak), **facts}))
"""


def slice_of(pixels: np.ndarray) -> pydicom.Dataset:
    """A CT slice with a header of usual length, and placeholders for what differs."""
    one = pydicom.Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CT
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"1.2.{SERIES}.{SLICE}"
    one.ImageType, one.Modality, one.PatientID = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT", "P1"
    one.StudyInstanceUID = one.FrameOfReferenceUID = "1.2.3"
    one.SeriesInstanceUID, one.SeriesNumber = f"1.2.{SERIES}", 3
    one.InstanceNumber = SLICE
    one.SeriesDescription, one.Manufacturer, one.KVP = "Abdomen 1.0 B30f", "none", 120
    one.ImagePositionPatient, one.ImageOrientationPatient = [-200, -200, SLICE], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [0.78125, 0.78125], 1
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    # Private elements and a long comment, as scanners write them.
    block = one.private_block(0x0019, "BENCHMARK", create=True)
    for n in range(60):
        block.add_new(n, "LO", f"value {n}")
    one.PixelData = pixels.tobytes()
    return one


def write(folder: Path, slices: int, size: int, syntax: str = "", series: int = 1) -> None:
    """A series of smooth slices with noise of a few HU, of which ten differ."""
    folder.mkdir(parents=True)
    rng, forms = np.random.default_rng(0), []
    coarse = rng.normal(1064, 80, (size // 8, size // 8)).repeat(8, 0).repeat(8, 1)
    for _ in range(min(10, slices)):
        noisy = coarse + rng.normal(0, 12, coarse.shape)
        one = slice_of(noisy.clip(0, 4095).astype(np.uint16))
        if syntax:
            one.compress(syntax, generate_instance_uid=False)
        with io.BytesIO() as out:
            one.save_as(out, enforce_file_format=True)
            forms.append(out.getvalue().replace(SERIES.encode(), b"%d" % (10_000_000 + series)))
    for k in range(slices):
        data = forms[k % len(forms)].replace(SLICE.encode(), b"%d" % (10_000_000 + k))
        (folder / f"IM{k:05d}").write_bytes(data)


def measured(reader: str, folder: Path, runs: int, cores: int = 0) -> dict[str, Any]:
    return child(IMPORTS + reader + MEASURE, str(folder), str(runs), str(cores))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--files", type=int, default=10_000)
    asked = parser.parse_args()
    found: dict[str, Any] = {"runs": asked.runs, "slices": asked.slices}
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "plain"
        write(plain, asked.slices, 512)
        found["plain"] = {
            name: measured(reader, plain, asked.runs) for name, reader in READERS.items()
        }
        if asked.before:
            found["before"], words = commit(asked.before), (str(plain), str(asked.runs), "0")
            code = IMPORTS + READERS["delineate"] + MEASURE
            found["plain"]["before"] = child(code, *words, environment=checkout(asked.before))
        assert len({one["sum"] for one in found["plain"].values()}) == 1, "readers differ"
        for name, syntax in SYNTAXES.items():
            folder = Path(temporary) / name
            write(folder, min(COMPRESSED_SLICES.get(name, 60), asked.slices), 512, syntax)
            found[name] = {
                "one core": measured(READERS["delineate"], folder, asked.runs, cores=1),
                "all cores": measured(READERS["delineate"], folder, asked.runs),
                "SimpleITK (GDCM)": measured(READERS["SimpleITK (GDCM)"], folder, asked.runs),
            }
        tree = Path(temporary) / "tree"
        for n in range(asked.files // 100):
            write(tree / f"patient {n // 10}" / f"series {n}", 100, 32, series=n)
        found["finding"] = {"files": asked.files, **measured(FIND, tree, asked.runs)}
    keep("dicom_speed", found)


if __name__ == "__main__":
    main()

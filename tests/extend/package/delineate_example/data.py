"""A layout and a file format."""

import json
from pathlib import Path

import numpy as np

from delineate import Grid, extend
from delineate.core.volume import Volume


@extend.layout("example-wards", definition="WARD/PATIENT-scan.raw and WARD/PATIENT-outline.raw")
def wards(tree, folder):
    cases = []
    for ward in tree.folders(folder):
        for scan in tree.files(ward):
            if scan.name.endswith("-scan.raw"):
                name = scan.name.removesuffix("-scan.raw")
                outline = extend.Source(str(ward / f"{name}-outline.raw"))
                cases.append(
                    extend.Case(
                        f"{ward.name}-{name}", name, (extend.Source(str(scan)),), (outline,)
                    )
                )
    return extend.Draft("example-wards", cases, names={1: "liver"}) if cases else None


def read_raw(path):
    """One line of JSON (shape, affine, dtype), then the voxels."""
    head, _, voxels = Path(path).read_bytes().partition(b"\n")
    facts = json.loads(head.removeprefix(b"RAW "))
    array = np.frombuffer(voxels, facts["dtype"]).reshape(facts["shape"])
    return Volume(array, Grid(array.shape, np.array(facts["affine"])))


def write_raw(volume, path, labels):
    facts = {
        "shape": volume.array.shape,
        "affine": volume.affine.tolist(),
        "dtype": str(volume.array.dtype),
    }
    Path(path).write_bytes(b"RAW " + json.dumps(facts).encode() + b"\n" + volume.array.tobytes())


RAW = extend.Format(
    lambda head: head.startswith(b"RAW {"),
    read_raw,
    "Raw voxels after one line of JSON.",
    (".raw",),
    write_raw,
    (".raw",),
)

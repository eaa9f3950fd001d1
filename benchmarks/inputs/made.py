"""What one input of the comparison is, its right answer, and the writers that all makers share.

Every input is a folder of a few small cases with one difficulty. The scans are synthetic: noise
with two bright blocks, whose sizes differ between cases and whose places differ along every axis,
so that an exchanged axis, structure or case changes a count of voxels.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]
CASES = 6
SHAPE = (24, 20, 16)
AFFINE = np.array([[1.5, 0, 0, -18.0], [0, 1.5, 0, -15.0], [0, 0, 3.0, -24.0], [0, 0, 0, 1.0]])
PICTURE = (48, 40)  # rows and columns of a picture


@dataclass(frozen=True)
class Right:
    """The right answer for an input.

    Args:
        voxels: structure -> number of its voxels in all usable cases. A structure without a name is
            "1" for value 1, or "foreground" if it is the only one. None: not compared.
        bad: cases that cannot be used and must be named; the others must be usable.
        odd: cases that hold a difficulty and can be used; refusing them is clear, if less.
        refused: a text that must be in the message if nothing of the input can be used; "" if it
            can be used.
        cases, patients: numbers; patients are not compared if None.
        channels: names of the channels in their order; not compared if empty.
        said: texts that the list of files must contain (delineate only).
        refusable: whether a clear refusal is as right as the reading (the meaning is ambiguous).
    """

    voxels: Mapping[str, int] | None = None
    bad: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    refused: str = ""
    cases: int = CASES
    patients: int | None = None
    channels: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    refusable: bool = False


@dataclass(frozen=True)
class Input:
    """One input.

    Args:
        name: its folder's name.
        topic: labels, pictures, space, files, channels, names, patients or account.
        what: the difficulty, in words.
        make: writes it into a folder.
        right: the right answer.
        stated: structure -> value on disk, which a user of a reader without names states.
        peers: whether nnU-Net and MONAI have a feature for it. They read pairs of files that the
            user has matched: they find no layout, no patient and no channel by name.
    """

    name: str
    topic: str
    what: str
    make: Callable[[Path], None]
    right: Right
    stated: Mapping[str, int] = field(default_factory=lambda: {"1": 1, "2": 2})
    peers: bool = True


INPUTS: dict[str, Input] = {}


def add(
    topic: str,
    name: str,
    what: str,
    make: Callable[[Path], None],
    right: Right,
    stated: Mapping[str, int] | None = None,
    *,
    peers: bool = True,
) -> None:
    """Add an input; two of one name are an error."""
    if name in INPUTS:
        raise ValueError(f"two inputs are called {name}")
    more = {} if stated is None else {"stated": stated}
    INPUTS[name] = Input(name, topic, what, make, right, peers=peers, **more)


# ---- scenes ----


def ids(count: int = CASES) -> list[str]:
    return [f"c{n:02d}" for n in range(count)]


def scan(n: int) -> tuple[Array, Array]:
    """Image (float32) and label (uint8: 1, 2) of case ``n``."""
    label = np.zeros(SHAPE, np.uint8)
    label[3:8, 4 : 9 + n, 2:7] = 1
    label[12:20, 3:9, 8 : 10 + n % 4] = 2
    image = np.random.default_rng(n).normal(100, 10, SHAPE) + 80.0 * label
    return image.astype(np.float32), label


def picture(n: int) -> tuple[Array, Array]:
    """Grey picture (uint8) and label (uint8: 1, 2) of case ``n``, (rows, columns)."""
    label = np.zeros(PICTURE, np.uint8)
    label[4:20, 5 : 15 + n] = 1
    label[26 : 40 + n % 3, 20:33] = 2
    image = np.random.default_rng(n).integers(40, 80, PICTURE) + 60 * label
    return image.astype(np.uint8), label


def voxels(
    values: Mapping[str, int], without: Iterable[int] = (), of: Callable[[int], Any] = scan
) -> dict[str, int]:
    """Structure -> voxels in all cases but ``without``; ``values`` are those of the scene."""
    labels = [of(n)[1] for n in range(CASES) if n not in set(without)]
    return {
        name: sum(int((one == value).sum()) for one in labels) for name, value in values.items()
    }


BOTH = {"1": 1, "2": 2}
NAMED = {"liver": 1, "spleen": 2}
HALF = ("c01", "c03", "c05")  # the cases that differ where half of a cohort does


def foreground(without: Iterable[int] = (), of: Callable[[int], Any] = scan) -> dict[str, int]:
    return {"foreground": sum(voxels(BOTH, without, of).values())}


# ---- writers ----


def ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def nifti(path: Path, array: Array, affine: Array = AFFINE, *, codes: bool = True) -> None:
    """Write ``array`` in its own data type, in either byte order."""
    order = ">" if array.dtype.byteorder == ">" else "<"
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_xyzt_units("mm")
    made = nib.Nifti1Image(array, affine, header, dtype=array.dtype)
    if not codes:
        made.header.set_sform(None, 0)
        made.header.set_qform(None, 0)
    nib.save(made, ready(path))


def stored(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the unpacked bytes of a .nii.gz file."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(bytes(content)))


def png(path: Path, array: Array, **options: Any) -> None:
    Image.fromarray(array).save(ready(path), **options)


def palette(path: Path, index: Array, colours: Mapping[int, tuple[int, int, int]]) -> None:
    """Write a picture of indices with the palette ``colours``."""
    made = Image.fromarray(index)
    made = made.convert("L") if made.mode != "L" else made
    made.putpalette([part for k in range(256) for part in colours.get(k, (0, 0, 0))])
    made.save(ready(path))


def nrrd(
    path: Path, array: Array, affine: Array = AFFINE, segments: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Write a NRRD in LPS, (I, J, K) or (layer, I, J, K), with segments as 3D Slicer does."""
    import nrrd as pynrrd

    lps = np.diag([-1, -1, 1]) @ affine[:3]
    directions = lps[:, :3].T
    kinds = ["domain"] * 3
    if array.ndim == 4:
        directions = np.vstack([[np.nan] * 3, directions])
        kinds = ["list", *kinds]
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "space directions": directions,
        "space origin": lps[:, 3],
        "kinds": kinds,
        "encoding": "gzip",
    }
    for number, segment in enumerate(segments):
        fields = {"ID": f"Segment_{number + 1}", "Color": "0.5 0.2 0.1", "Layer": 0, **segment}
        header |= {f"Segment{number}_{key}": str(value) for key, value in fields.items()}
    pynrrd.write(str(ready(path)), array, header)


def itk(path: Path, array: Array, affine: Array = AFFINE) -> None:
    """Write any format of SimpleITK."""
    import SimpleITK

    made = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    lps = np.diag([-1, -1, 1]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    made.SetSpacing(spacing.tolist())
    made.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    made.SetOrigin(lps[:, 3].tolist())
    SimpleITK.WriteImage(made, str(ready(path)), True)


# ---- whole cohorts ----

Write = Callable[[Path, Array, int], None]


def pairs(
    label: Write | None = None,
    image: Write | None = None,
    *,
    ending: str = ".nii.gz",
    label_ending: str | None = None,
) -> Callable[[Path], None]:
    """A maker of ``images/ID`` and ``labels/ID``; ``label`` and ``image`` write one file each."""

    def make(root: Path) -> None:
        for n, case in enumerate(ids()):
            scene, truth = scan(n)
            (image or plain)(root / "images" / f"{case}{ending}", scene, n)
            (label or plain)(root / "labels" / f"{case}{label_ending or ending}", truth, n)

    return make


def plain(path: Path, array: Array, n: int) -> None:
    nifti(path, array)


def one_odd(write: Write, usual: Write = plain, odd: int = 2) -> Write:
    """Write case ``odd`` with ``write``, the others with ``usual``."""
    return lambda path, array, n: (write if n == odd else usual)(path, array, n)


def pictures(
    label: Write | None = None,
    image: Write | None = None,
    *,
    ending: str = ".png",
    label_ending: str = ".png",
    table: str = "",
) -> Callable[[Path], None]:
    """A maker of ``images/ID`` and ``masks/ID`` as pictures; ``table`` is a labels.csv."""

    def make(root: Path) -> None:
        for n, case in enumerate(ids()):
            scene, truth = picture(n)
            (image or grey)(root / "images" / f"{case}{ending}", scene, n)
            (label or grey)(root / "masks" / f"{case}{label_ending}", truth, n)
        if table:
            (root / "labels.csv").write_text(table)

    return make


def grey(path: Path, array: Array, n: int) -> None:
    png(path, array)

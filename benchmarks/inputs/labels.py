"""Inputs whose labels are volumes: data types, values, channels, segments, and damaged files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from .made import (
    AFFINE,
    BOTH,
    HALF,
    NAMED,
    Array,
    Right,
    Write,
    add,
    foreground,
    ids,
    itk,
    nifti,
    nrrd,
    one_odd,
    pairs,
    plain,
    ready,
    scan,
    stored,
    voxels,
)

ALL = Right(voxels(BOTH))
WITHOUT_ONE = Right(voxels(BOTH, [2]), bad=("c02",))
REFUSED = Right(refused="c00")
FOREGROUND = {"foreground": 1}


def as_type(dtype: str) -> None:
    kind = np.dtype(dtype)
    add(
        "labels",
        f"labels_{kind.name}{'_big_endian' if kind.byteorder == '>' else ''}",
        f"labels stored as {kind.name}{', big endian' if kind.byteorder == '>' else ''}",
        pairs(lambda path, label, n: nifti(path, label.astype(kind))),
        ALL,
    )


for dtype in ("float32", "float64", "int64", "uint64", "int8", ">u2", ">f4"):
    as_type(dtype)


def values(*of: float) -> Array:
    return np.array(of, np.float32)


add(
    "labels",
    "floats_below",
    "float labels a little below whole numbers (0.9999, 1.9998), as resampling leaves them",
    pairs(lambda path, label, n: nifti(path, values(0, 0.9999, 1.9998)[label])),
    ALL,
)
add(
    "labels",
    "floats_below_in_half",
    "three of six label files have floats a little below whole numbers, the others integers",
    pairs(lambda path, label, n: nifti(path, values(0, 0.9995, 1.9995)[label] if n % 2 else label)),
    Right(voxels(BOTH), odd=HALF),
)
add(
    "labels",
    "floats_far",
    "float labels 0.96 and 2.04: too far from whole numbers",
    pairs(lambda path, label, n: nifti(path, values(0, 0.96, 2.04)[label])),
    REFUSED,
)
add(
    "labels",
    "soft_mask",
    "a probability of 0.7 as a mask",
    pairs(lambda path, label, n: nifti(path, values(0, 0.7, 0.7)[label])),
    REFUSED,
    FOREGROUND,
)


def scaled(path: Path, label: Array, n: int) -> None:
    made = nib.Nifti1Image(label.astype(np.float64), AFFINE)
    made.set_data_dtype(np.int16)
    nib.save(made, ready(path))


add(
    "labels",
    "scaled_integers",
    "labels as scaled int16 (scl_slope 1/16383), as nibabel writes float data",
    pairs(scaled),
    ALL,
)


def slope(value: float, inter: float = 0.0) -> None:
    def write(path: Path, label: Array, n: int) -> None:
        nifti(path, label)

        def change(content: bytearray) -> None:
            content[112:120] = np.array([value, inter], np.float32).tobytes()

        stored(path, change)

    add(
        "labels",
        f"slope_{value}".replace(".", "_"),
        f"scl_slope {value}, scl_inter {inter:g} in the label's header: it means no scaling",
        pairs(write),
        ALL,
    )


slope(float("nan"))
slope(0.0, 7.0)

for extra, words in ((1, "four"), (2, "five")):
    add(
        "labels",
        f"{words}_dimensions",
        f"labels with {words} dimensions, the last of size 1",
        pairs(
            lambda path, label, n, extra=extra: nifti(
                path, label.reshape(label.shape + (1,) * extra)
            )
        ),
        ALL,
    )


def channels(*of: int) -> Write:
    """A writer with one channel per value of ``of``."""
    return lambda path, label, n: nifti(
        path, np.stack([label == value for value in of], -1).astype(np.uint8)
    )


CHANNELS = Right({"channel 0": voxels(BOTH)["1"], "channel 1": voxels(BOTH)["2"]})
STATED = {"channel 0": 1, "channel 1": 2, "channel 2": 3}
add("labels", "channel_each", "one channel per structure", pairs(channels(1, 2)), CHANNELS)
add(
    "labels",
    "channel_each_background_first",
    "one channel per structure, and the first is the background",
    pairs(channels(0, 1, 2)),
    Right({"channel 1": voxels(BOTH)["1"], "channel 2": voxels(BOTH)["2"]}),
)
add(
    "labels",
    "channel_each_background_last",
    "one channel per structure, and the last is the background",
    pairs(channels(1, 2, 0)),
    CHANNELS,
)
add(
    "labels",
    "channels_overlap",
    "three channels: both structures together, and each of them",
    pairs(
        lambda path, label, n: nifti(
            path, np.stack([label > 0, label == 1, label == 2], -1).astype(np.uint8)
        )
    ),
    Right(
        {
            "channel 0": sum(voxels(BOTH).values()),
            "channel 1": voxels(BOTH)["1"],
            "channel 2": voxels(BOTH)["2"],
        },
        refusable=True,
    ),
    STATED,
)
add(
    "labels",
    "channels_of_probabilities",
    "three channels of probabilities",
    pairs(
        lambda path, label, n: nifti(
            path, np.stack([(label == k) * 0.8 + 0.1 for k in range(3)], -1).astype(np.float32)
        )
    ),
    REFUSED,
)
add(
    "labels",
    "colour_typed_volume",
    "labels as a NIfTI of type RGB24: red is one structure, green the other",
    pairs(
        lambda path, label, n: nifti(
            path,
            np.array(
                [(0, 0, 0), (255, 0, 0), (0, 255, 0)], [("R", "u1"), ("G", "u1"), ("B", "u1")]
            )[label],
        )
    ),
    Right({"colour ff0000": voxels(BOTH)["1"], "colour 00ff00": voxels(BOTH)["2"]}),
)

# ---- values ----

add(
    "labels",
    "negative_background",
    "the background is -1 in all files, and nothing states it",
    pairs(lambda path, label, n: nifti(path, np.where(label == 0, -1, label.astype(np.int16)))),
    Right(voxels(BOTH)),
)
add(
    "labels",
    "negative_in_one",
    "one of six files has a block of -1",
    pairs(
        one_odd(
            lambda path, label, n: nifti(
                path, np.where(np.indices(label.shape)[0] < 2, -1, label.astype(np.int16))
            )
        )
    ),
    WITHOUT_ONE,
)


def with_value(value: int, count: int) -> Write:
    def write(path: Path, label: Array, n: int) -> None:
        changed = label.astype(np.uint16 if value > 255 else np.uint8)
        changed[0].flat[:count] = value
        nifti(path, changed)

    return write


add(
    "labels",
    "stray_voxel",
    "value 77 in one voxel of one file: a slip of the pen",
    pairs(one_odd(with_value(77, 1))),
    Right(voxels(BOTH), odd=("c02",)),
)
add(
    "labels",
    "stray_voxels_in_two",
    "value 77 in two voxels of one file, value 9 in one voxel of another",
    pairs(one_odd(with_value(77, 2), one_odd(with_value(9, 1), odd=4))),
    Right(voxels(BOTH), odd=("c02", "c04")),
)
add(
    "labels",
    "other_value_in_one",
    "five files have 1 and 2, one has a block of 9 too",
    pairs(one_odd(with_value(9, 150))),
    WITHOUT_ONE,
)
add(
    "labels",
    "other_scale_in_one",
    "five files have 1 and 2, one has 127 and 255 instead",
    pairs(one_odd(lambda path, label, n: nifti(path, np.array([0, 127, 255], np.uint8)[label]))),
    WITHOUT_ONE,
)
add(
    "labels",
    "mask_of_255",
    "one structure, stored as 255",
    pairs(lambda path, label, n: nifti(path, (label > 0).astype(np.uint8) * 255)),
    Right(foreground()),
    {"foreground": 255},
)
add(
    "labels",
    "mask_of_1_or_255",
    "one structure, stored as 1 in half of the files and as 255 in the others",
    pairs(lambda path, label, n: nifti(path, (label > 0).astype(np.uint8) * (255 if n % 2 else 1))),
    Right(foreground(), odd=HALF),
    FOREGROUND,
)
add(
    "labels",
    "boolean_as_minus_1",
    "one structure, stored as -1 (a boolean cast to int8 by some programs)",
    pairs(lambda path, label, n: nifti(path, (label > 0).astype(np.int8) * -1)),
    REFUSED,
    FOREGROUND,
)
add(
    "labels",
    "empty_in_one",
    "one label file of six is empty, as in a healthy patient",
    pairs(one_odd(lambda path, label, n: nifti(path, label * 0))),
    Right(voxels(BOTH, [2]), odd=("c02",)),
)
add(
    "labels",
    "values_above_255",
    "values 1035 and 2035 of a brain parcellation, as int32",
    pairs(lambda path, label, n: nifti(path, np.array([0, 1035, 2035], np.int32)[label])),
    Right({"1035": voxels(BOTH)["1"], "2035": voxels(BOTH)["2"]}),
    {"1035": 1035, "2035": 2035},
)
add(
    "labels",
    "values_above_65535",
    "values 100001 and 100002, which no label map of 16 bits holds",
    pairs(lambda path, label, n: nifti(path, np.array([0, 100001, 100002], np.int32)[label])),
    Right(voxels(BOTH)),
    {"1": 100001, "2": 100002},
)
add(
    "labels",
    "nan_in_one",
    "one of six float labels is NaN outside the structures",
    pairs(
        lambda path, label, n: nifti(
            path, np.where((label == 0) & (n == 2), np.nan, label).astype(np.float32)
        )
    ),
    Right(voxels(BOTH), odd=("c02",)),
)
add(
    "labels",
    "floats_in_one",
    "one of six labels was interpolated (values between the structures)",
    pairs(one_odd(lambda path, label, n: nifti(path, (label * 0.6).astype(np.float32)))),
    WITHOUT_ONE,
)
add(
    "labels",
    "channels_in_one",
    "five labels have one channel, one has two",
    pairs(one_odd(channels(1, 2))),
    WITHOUT_ONE,
)

# ---- damaged files ----


def damaged(name: str, words: str, content: bytes | None) -> None:
    def write(path: Path, label: Array, n: int) -> None:
        plain(path, label, n)
        path.write_bytes(path.read_bytes()[:150] if content is None else content)

    add("files", name, words, pairs(one_odd(write)), WITHOUT_ONE)


damaged("truncated_in_one", "one of six label files is truncated", None)
damaged("empty_file_in_one", "one of six label files has no bytes", b"")
damaged(
    "web_page_in_one", "one of six label files is a web page (error 404)", b"<!DOCTYPE html>404"
)
damaged(
    "pointer_in_one",
    "one of six label files is a pointer of Git LFS",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n",
)


def repacked(
    name: str,
    words: str,
    change: Callable[[bytes, int], bytes],
    right: Right,
    ending: str = ".nii.gz",
) -> None:
    """An input whose images are packed in another way."""

    def write(path: Path, image: Array, n: int) -> None:
        whole = path.with_name(f"{path.name}.nii.gz")
        nifti(whole, image)
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(change(content, n))

    add("files", name, words, pairs(None, write, ending=ending, label_ending=".nii.gz"), right)


def two_members(content: bytes, n: int) -> bytes:
    raw = gzip.decompress(content)
    return gzip.compress(raw[:3000]) + gzip.compress(raw[3000:])


repacked(
    "gz_unpacked", "images named .nii.gz that are not packed", lambda b, n: gzip.decompress(b), ALL
)
repacked("nii_packed", "images named .nii that are packed", lambda b, n: b, ALL, ".nii")
repacked("gz_two_members", "packed images of two gzip members", two_members, ALL)
repacked(
    "gz_zeros_after", "zeros after the end of the packed data", lambda b, n: b + bytes(512), ALL
)
repacked(
    "gz_checksum_in_one",
    "the checksum of one packed image is wrong",
    lambda b, n: b[:-8] + b"\1\2\3\4" + b[-4:] if n == 2 else b,
    WITHOUT_ONE,
)
repacked(
    "gz_truncated_in_one",
    "one packed image is truncated",
    lambda b, n: b[: len(b) * 2 // 3] if n == 2 else b,
    WITHOUT_ONE,
)

# ---- other formats ----

add(
    "labels",
    "metaimage_labels",
    "images as NIfTI, labels as MetaImage",
    pairs(lambda path, label, n: itk(path, label), label_ending=".mha"),
    ALL,
)
add(
    "labels",
    "nrrd_labels",
    "images as NIfTI, labels as NRRD without segments",
    pairs(lambda path, label, n: nrrd(path, label), label_ending=".nrrd"),
    ALL,
)
add(
    "labels",
    "metaimage_float_labels",
    "images and labels as MetaImage, labels as floats a little below whole numbers",
    pairs(
        lambda path, label, n: itk(path, values(0, 0.9999, 1.9998)[label]),
        lambda path, image, n: itk(path, image),
        ending=".mha",
    ),
    ALL,
)
add(
    "labels",
    "mgz_labels",
    "images and labels as MGZ of FreeSurfer",
    pairs(
        lambda path, label, n: nib.save(nib.MGHImage(label.astype(np.int32), AFFINE), ready(path)),
        lambda path, image, n: nib.save(nib.MGHImage(image, AFFINE), ready(path)),
        ending=".mgz",
    ),
    ALL,
)

# ---- 3D Slicer ----


def segment(name: str, value: int, layer: int = 0) -> dict[str, object]:
    return {"Name": name, "LabelValue": value, "Layer": layer, "Extent": "0 23 0 19 0 15"}


LIVER_SPLEEN = Right(voxels(NAMED))


def segmentations(name: str, words: str, write: Write, right: Right = LIVER_SPLEEN) -> None:
    add(
        "labels",
        name,
        words,
        pairs(
            write,
            lambda path, image, n: nrrd(path, image),
            ending=".nrrd",
            label_ending=".seg.nrrd",
        ),
        right,
        NAMED,
    )


segmentations(
    "segments",
    ".seg.nrrd of 3D Slicer with names",
    lambda path, label, n: nrrd(path, label, segments=[segment("liver", 1), segment("spleen", 2)]),
)
segmentations(
    "segments_other_values",
    ".seg.nrrd: in half of the files the same names have exchanged values",
    lambda path, label, n: nrrd(
        path,
        np.array([0, 2, 1], np.uint8)[label] if n % 2 else label,
        segments=[segment("liver", 1 + n % 2), segment("spleen", 2 - n % 2)],
    ),
)
segmentations(
    "segments_other_spelling",
    ".seg.nrrd: names spelt liver, Liver and LIVER, values exchanged in half of the files",
    lambda path, label, n: nrrd(
        path,
        np.array([0, 2, 1], np.uint8)[label] if n % 2 else label,
        segments=[
            segment(("liver", "Liver", "LIVER")[n % 3], 1 + n % 2),
            segment("spleen", 2 - n % 2),
        ],
    ),
)
segmentations(
    "segments_in_layers",
    ".seg.nrrd with two layers that do not overlap, both with value 1",
    lambda path, label, n: nrrd(
        path,
        np.stack([label == 1, label == 2]).astype(np.uint8),
        segments=[segment("liver", 1), segment("spleen", 1, 1)],
    ),
)
segmentations(
    "segments_without_one",
    ".seg.nrrd: one patient has no spleen, and its file does not list it",
    lambda path, label, n: nrrd(
        path,
        np.where(label == 1, 1, 0).astype(np.uint8) if n == 2 else label,
        segments=[segment("liver", 1)] + ([] if n == 2 else [segment("spleen", 2)]),
    ),
    Right({"liver": voxels(BOTH)["1"], "spleen": voxels(BOTH, [2])["2"]}),
)


def cropped(path: Path, label: Array, n: int) -> None:
    corner = np.argwhere(label).min(0)
    stop = np.argwhere(label).max(0) + 1
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [*corner, 1])[:3]
    part = label[tuple(slice(a, b) for a, b in zip(corner, stop, strict=True))]
    nrrd(path, part, affine, [segment("liver", 1), segment("spleen", 2)])


segmentations("segments_cropped", ".seg.nrrd that covers only the structures", cropped)


def beside(root: Path) -> None:
    for n, case in enumerate(ids()):
        image, label = scan(n)
        nrrd(root / f"{case}.nrrd", image)
        nrrd(
            root / f"{case}.seg.nrrd",
            label,
            segments=[segment("liver", 1), segment("spleen", 2)],
        )


add("labels", "segments_beside", "p.nrrd beside p.seg.nrrd", beside, LIVER_SPLEEN, NAMED)

# ---- place ----


def flipped(path: Path, label: Array, n: int) -> None:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = label.shape[0] - 1
    nifti(path, np.ascontiguousarray(label[::-1]), AFFINE @ flip)


add(
    "space",
    "label_flipped",
    "labels stored from right to left, on the same place",
    pairs(flipped),
    ALL,
)
add(
    "space",
    "label_other_axes",
    "labels with another order of axes, on the same place",
    pairs(
        lambda path, label, n: nifti(
            path, np.ascontiguousarray(label.transpose(2, 0, 1)), AFFINE[:, [2, 0, 1, 3]]
        )
    ),
    ALL,
)


def part(path: Path, label: Array, n: int) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [2, 2, 1, 1])[:3]
    nifti(path, np.ascontiguousarray(label[2:22, 2:18, 1:14]), affine)


add(
    "space",
    "label_part",
    "labels that cover a part of the image, with the right origin",
    pairs(part),
    ALL,
)
add(
    "space",
    "image_without_place",
    "images with sform and qform codes of 0, labels with a place",
    pairs(None, lambda path, image, n: nifti(path, image, codes=False)),
    ALL,
)
add(
    "space",
    "both_without_place",
    "images and labels with sform and qform codes of 0",
    pairs(
        lambda path, label, n: nifti(path, label, codes=False),
        lambda path, image, n: nifti(path, image, codes=False),
    ),
    ALL,
)


def moved(mm: float) -> Array:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


add(
    "space",
    "label_rounded",
    "the origin of the labels differs by 0.0004 mm: rounding",
    pairs(lambda path, label, n: nifti(path, label, moved(0.0004))),
    ALL,
)
add(
    "space",
    "label_elsewhere_in_one",
    "one label lies 12 mm beside its image, off the image's voxels",
    pairs(one_odd(lambda path, label, n: nifti(path, label, moved(12.7)))),
    WITHOUT_ONE,
)


def sheared(amount: float) -> Array:
    affine = AFFINE.copy()
    affine[0, 1] = amount
    return affine


add(
    "space",
    "slightly_sheared",
    "images and labels with a shear of 0.02, as a registration leaves it",
    pairs(
        lambda path, label, n: nifti(path, label, sheared(0.03)),
        lambda path, image, n: nifti(path, image, sheared(0.03)),
    ),
    ALL,
)


def with_nan(path: Path, image: Array, n: int) -> None:
    image = image.copy()
    image[:2] = np.nan
    nifti(path, image)


add("space", "nan_background", "images that are NaN outside the body", pairs(None, with_nan), ALL)


def in_metres(path: Path, array: Array, n: int) -> None:
    affine = AFFINE.copy()
    affine[:3] /= 1000
    made = nib.Nifti1Image(array, affine)
    made.header.set_xyzt_units("meter")
    nib.save(made, ready(path))


add(
    "space",
    "images_in_metres",
    "the images' headers give metres, the labels' millimetres",
    pairs(None, in_metres),
    ALL,
)
add(
    "space",
    "nifti2_images",
    "images as NIfTI-2",
    pairs(None, lambda path, image, n: nib.save(nib.Nifti2Image(image, AFFINE), ready(path))),
    ALL,
)
add(
    "space",
    "int64_images",
    "images stored as int64",
    pairs(None, lambda path, image, n: nifti(path, image.astype(np.int64))),
    ALL,
)

"""Inputs that are pictures: palettes, colours, transparency, compression, orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .made import (
    BOTH,
    CASES,
    HALF,
    NAMED,
    PICTURE,
    Array,
    Right,
    add,
    foreground,
    grey,
    ids,
    nifti,
    one_odd,
    palette,
    picture,
    pictures,
    png,
    ready,
    voxels,
)

ALL = Right(voxels(BOTH, of=picture))
ONE = Right(foreground(of=picture))
STATED_ONE = {"foreground": 1}
STATED_255 = {"foreground": 255}
RED, GREEN, WHITE = (128, 0, 0), (0, 128, 0), (255, 255, 255)


def mask(label: Array, value: int = 255) -> Array:
    return ((label > 0) * value).astype(np.uint8)


def coloured(image: Array) -> Array:
    """A picture that is not grey, (rows, columns, 3)."""
    return np.stack([image, (image * 0.8).astype(np.uint8), (image * 0.5).astype(np.uint8)], -1)


COLOURS = np.array([(0, 0, 0), (200, 30, 30), (30, 30, 200)], np.uint8)

add(
    "pictures",
    "palette",
    "PNG with a palette; the indices are the values, the colours are in another order",
    pictures(lambda path, label, n: palette(path, label, {1: (250, 250, 0), 2: (0, 0, 90)})),
    ALL,
)
add(
    "pictures",
    "palette_grey_colours",
    "PNG with a palette of greys that fall as the indices rise",
    pictures(
        lambda path, label, n: palette(path, label, {1: (200, 200, 200), 2: (90, 90, 90)}),
        table="value,name\n1,liver\n2,spleen\n",
    ),
    Right(voxels(NAMED, of=picture)),
    NAMED,
)
add(
    "pictures",
    "palette_of_each_file",
    "PNG whose palettes differ from file to file: only the colours have a meaning",
    pictures(
        lambda path, label, n: (
            palette(path, label, {1: RED, 2: GREEN})
            if n % 2
            else palette(path, np.array([0, 2, 1], np.uint8)[label], {1: GREEN, 2: RED})
        )
    ),
    Right(
        {
            "colour 800000": voxels(BOTH, of=picture)["1"],
            "colour 008000": voxels(BOTH, of=picture)["2"],
        }
    ),
    {"colour 800000": 1, "colour 008000": 2},
)
add(
    "pictures",
    "palette_with_border",
    "PNG with a palette in which two indices have one colour, and a table of names",
    pictures(
        lambda path, label, n: palette(
            path, np.where(np.indices(label.shape)[0] < 2, 255, label).astype(np.uint8), {1: RED}
        ),
        table="value,name\n1,liver\n2,spleen\n255,border\n",
    ),
    Right(voxels(NAMED, of=picture) | {"border": 2 * PICTURE[1] * CASES}),
    NAMED,
)
add(
    "pictures",
    "one_bit",
    "PNG of one bit",
    pictures(lambda p, a, n: png(p, a > 0)),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "masks_1_or_255",
    "masks stored as 1 in half of the files and as 255 in the others",
    pictures(lambda path, label, n: png(path, mask(label, 255 if n % 2 else 1))),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "masks_1_bit_or_255",
    "masks of one bit in half of the files, of 255 in the others",
    pictures(lambda path, label, n: png(path, mask(label) if n % 2 else label > 0)),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "jpeg_masks",
    "masks 0/255 as JPEG, whose edges have many values",
    pictures(
        lambda path, label, n: png(path, mask(label), quality=95),
        ending=".jpg",
        label_ending=".jpg",
    ),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "jpeg_masks_beside_png",
    "masks 0/255, as JPEG in half of the files and as PNG in the others",
    lambda root: [
        (
            png(root / "images" / f"{case}.png", picture(n)[0]),
            png(
                root / "masks" / f"{case}{('.png', '.jpg')[n % 2]}",
                mask(picture(n)[1]),
                **({"quality": 95} if n % 2 else {}),
            ),
        )
        for n, case in enumerate(ids())
    ],
    ONE,
    STATED_255,
    peers=False,
)
add(
    "pictures",
    "jpeg_of_two_structures",
    "two structures as grey levels 127 and 255 in JPEG: the edges of one have the other's value",
    pictures(
        lambda path, label, n: png(path, np.array([0, 127, 255], np.uint8)[label], quality=80),
        label_ending=".jpg",
    ),
    Right(refused="c0"),
    {"1": 127, "2": 255},
)
add(
    "pictures",
    "grey_as_rgb",
    "masks stored as RGB with three equal channels",
    pictures(lambda path, label, n: png(path, np.stack([mask(label)] * 3, -1))),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "grey_as_rgb_in_half",
    "masks as RGB with equal channels in half of the files, grey in the others",
    pictures(
        lambda path, label, n: png(path, np.stack([mask(label)] * 3, -1) if n % 2 else mask(label))
    ),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "two_levels_as_rgb",
    "labels 1 and 2 stored as RGB with three equal channels",
    pictures(lambda path, label, n: png(path, np.stack([label] * 3, -1))),
    ALL,
)
add(
    "pictures",
    "colours",
    "one colour for each structure, and no table",
    pictures(lambda path, label, n: png(path, COLOURS[label])),
    Right(
        {
            "colour c81e1e": voxels(BOTH, of=picture)["1"],
            "colour 1e1ec8": voxels(BOTH, of=picture)["2"],
        }
    ),
    {"colour c81e1e": 1, "colour 1e1ec8": 2},
)
add(
    "pictures",
    "colours_with_table",
    "one colour for each structure, and a labels.csv with name,r,g,b in another order",
    pictures(
        lambda path, label, n: png(path, COLOURS[label]),
        table="name,r,g,b\nspleen,30,30,200\nliver,200,30,30\n",
    ),
    Right(voxels(NAMED, of=picture)),
    NAMED,
)
add(
    "pictures",
    "colours_with_alpha",
    "colours and an opaque alpha channel, and a labels.csv with name,colour",
    pictures(
        lambda path, label, n: png(
            path, np.dstack([COLOURS[label], np.full(label.shape, 255, np.uint8)])
        ),
        table="name,colour\nliver,#c81e1e\nspleen,#1e1ec8\n",
    ),
    Right(voxels(NAMED, of=picture)),
    NAMED,
)
add(
    "pictures",
    "colours_in_jpeg",
    "colours in JPEG: hundreds of colours at the edges",
    pictures(lambda path, label, n: png(path, COLOURS[label], quality=60), label_ending=".jpg"),
    Right(refused="colour"),
    {"1": 1, "2": 2},
)
add(
    "pictures",
    "mask_with_alpha",
    "grey masks with an alpha channel",
    pictures(
        lambda path, label, n: png(
            path, np.dstack([mask(label), np.full(label.shape, 255, np.uint8)])
        )
    ),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "mask_in_alpha",
    "RGBA masks: white everywhere, and the mask is the alpha channel",
    pictures(
        lambda path, label, n: png(
            path, np.dstack([np.full((*label.shape, 3), 255, np.uint8), mask(label)])
        )
    ),
    Right(foreground(of=picture), refusable=True, refused=""),
    STATED_255,
)
add(
    "pictures",
    "transparent_image",
    "RGBA images, one of them partly transparent",
    pictures(
        lambda path, label, n: png(path, mask(label)),
        lambda path, image, n: png(
            path,
            np.dstack(
                [
                    coloured(image),
                    np.where((n == 2) & (np.indices(image.shape)[0] < 4), 0, 255).astype(np.uint8),
                ]
            ),
        ),
    ),
    Right(foreground(of=picture), channels=("red", "green", "blue")),
    STATED_255,
)
add(
    "pictures",
    "grey_and_coloured_images",
    "grey images and coloured ones in one cohort",
    pictures(
        lambda path, label, n: png(path, mask(label)),
        lambda path, image, n: png(path, coloured(image) if n % 2 else image),
    ),
    Right(foreground(of=picture), channels=("red", "green", "blue"), odd=HALF),
    STATED_255,
)
add(
    "pictures",
    "coloured_mask_in_one",
    "five masks are grey, one is drawn in two colours",
    pictures(
        one_odd(
            lambda path, label, n: png(path, COLOURS[label]),
            lambda path, label, n: png(path, label),
        )
    ),
    Right(voxels(BOTH, [2], picture), bad=("c02",)),
)


def turned(path: Path, array: Array, n: int) -> None:
    """A JPEG stored on its side with the EXIF orientation that shows it upright."""
    tags = Image.Exif()
    tags[0x0112] = 6  # rotate by 90 degrees clockwise to show it
    png(path, np.rot90(array), exif=tags, quality=95)


add(
    "pictures",
    "exif_images",
    "photographs stored on their side with an EXIF orientation, masks upright",
    pictures(lambda path, label, n: png(path, mask(label)), turned, ending=".jpg"),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "exif_both",
    "photographs and JPEG masks stored on their side with an EXIF orientation",
    pictures(
        lambda path, label, n: turned(path, mask(label), n),
        turned,
        ending=".jpg",
        label_ending=".jpg",
    ),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "exif_in_one",
    "one photograph of six is stored on its side, its mask upright",
    pictures(
        lambda path, label, n: png(path, mask(label)),
        one_odd(turned, lambda path, image, n: png(path, image, quality=95)),
        ending=".jpg",
    ),
    Right(foreground(of=picture), odd=("c02",)),
    STATED_255,
)
add(
    "pictures",
    "gif_masks",
    "masks as GIF",
    pictures(lambda path, label, n: png(path, mask(label)), label_ending=".gif"),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "gif_white_first",
    "masks as GIF whose palette begins with white (index 0 is white, 1 is black)",
    pictures(
        lambda path, label, n: palette(
            path, (label == 0).astype(np.uint8), {0: WHITE, 1: (0, 0, 0)}
        ),
        label_ending=".gif",
    ),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "bmp_masks",
    "masks as BMP",
    pictures(lambda path, label, n: png(path, mask(label)), label_ending=".bmp"),
    ONE,
    STATED_255,
)


add(
    "pictures",
    "tiff_of_one_bit",
    "masks as TIFF of one bit",
    pictures(lambda path, label, n: png(path, label > 0), label_ending=".tif"),
    ONE,
    STATED_255,
)
add(
    "pictures",
    "sixteen_bits",
    "masks of 16 bits with the values 0 and 1000",
    pictures(lambda path, label, n: png(path, ((label > 0) * 1000).astype(np.uint16))),
    ONE,
    {"foreground": 1000},
)
add(
    "pictures",
    "sixteen_bits_or_eight",
    "masks 0/255 of 8 bits in half of the files, 0/65535 of 16 bits in the others",
    pictures(
        lambda path, label, n: png(
            path, ((label > 0) * 65535).astype(np.uint16) if n % 2 else mask(label)
        )
    ),
    Right(foreground(of=picture), odd=HALF),
    STATED_255,
)
add(
    "pictures",
    "grey_levels",
    "grey levels 63 and 126, as in the masks of CHAOS, which this is not",
    pictures(lambda path, label, n: png(path, np.array([0, 63, 126], np.uint8)[label])),
    Right({"63": voxels(BOTH, of=picture)["1"], "126": voxels(BOTH, of=picture)["2"]}),
    {"63": 63, "126": 126},
)
add(
    "pictures",
    "smooth_edges",
    "masks 0/255 that were enlarged with interpolation",
    pictures(
        lambda path, label, n: (
            Image.fromarray(mask(label))
            .resize((2 * label.shape[1], 2 * label.shape[0]), Image.Resampling.BILINEAR)
            .save(ready(path))
        ),
        lambda path, image, n: png(path, image.repeat(2, 0).repeat(2, 1)),
    ),
    Right(None),
    STATED_255,
)
add(
    "pictures",
    "mask_half_size_in_one",
    "one mask of six has half the size of its image",
    pictures(
        one_odd(
            lambda path, label, n: png(path, mask(label)[::2, ::2]),
            lambda path, label, n: png(path, mask(label)),
        )
    ),
    Right(foreground([2], picture), bad=("c02",)),
    STATED_255,
)
add(
    "pictures",
    "mask_transposed_in_one",
    "one mask of six has rows and columns exchanged",
    pictures(
        one_odd(
            lambda path, label, n: png(path, mask(label).T),
            lambda path, label, n: png(path, mask(label)),
        )
    ),
    Right(foreground([2], picture), bad=("c02",)),
    STATED_255,
)
add(
    "pictures",
    "nifti_labels_of_pictures",
    "pictures with labels as NIfTI of one slice",
    pictures(
        lambda path, label, n: nifti(path, np.ascontiguousarray(label.T)[..., None], np.eye(4)),
        label_ending=".nii.gz",
    ),
    Right(voxels(BOTH, of=picture), refusable=True),
    peers=False,
)
add(
    "pictures",
    "upper_case_endings",
    "endings .PNG, .png and .Png in one folder",
    lambda root: [
        (
            grey(root / "images" / f"{case}{('.PNG', '.png', '.Png')[n % 3]}", picture(n)[0], n),
            grey(root / "masks" / f"{case}{('.png', '.PNG')[n % 2]}", picture(n)[1], n),
        )
        for n, case in enumerate(ids())
    ],
    ALL,
    peers=False,
)

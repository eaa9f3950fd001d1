"""Outlines of annotation programs as label maps."""

from __future__ import annotations

import base64
import io
import json
import resource
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Contour
from PIL import Image

from delineate.core.errors import FormatError, GeometryError, InputError, LabelError
from delineate.formats import outlines
from delineate.formats.label_files import read_label_file
from delineate.formats.polygons import inside_polygon

SQUARE = [2.0, 3.0, 7.0, 3.0, 7.0, 6.0, 2.0, 6.0]  # columns 2 to 6, rows 3 to 5


def coco(path: Path, annotations: list[dict], names=("liver", "cyst"), pictures=1) -> Path:
    data = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": 12, "height": 10} for n in range(pictures)
        ],
        "annotations": [
            {"id": n, "image_id": 0, "category_id": 1, "iscrowd": 0, **one}
            for n, one in enumerate(annotations)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
    }
    path.write_text(json.dumps(data))
    return path


def rows_of(volume) -> np.ndarray:
    """(rows, columns)."""
    return volume.array[..., 0].T


@pytest.mark.parametrize("seed", range(8))
def test_polygons_agree_with_an_independent_rasteriser(seed):
    random = np.random.default_rng(seed)
    corners = random.uniform(-4, 24, (3 + seed * 2, 2))  # also beyond the border
    if seed < 6:  # without crossing edges: even-odd and non-zero are the same
        angles = np.sort(random.uniform(0, 2 * np.pi, len(corners)))
        radii = random.uniform(3, 13, len(corners))
        corners = 10 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        rows, columns = np.mgrid[:18, :22] + 0.5
        expected = Contour(corners).contains_points(np.stack([columns.ravel(), rows.ravel()], 1))
        np.testing.assert_array_equal(inside_polygon(corners, 18, 22), expected.reshape(18, 22))
    else:
        found = inside_polygon(corners, 18, 22)
        for row in range(18):
            for column in range(22):
                crossings = 0
                for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
                    if (y1 <= row + 0.5) != (y2 <= row + 0.5):
                        x = x1 + (row + 0.5 - y1) * (x2 - x1) / (y2 - y1)
                        crossings += x <= column + 0.5
                assert found[row, column] == (crossings % 2 == 1)


def test_polygons_with_a_common_edge_share_no_pixel():
    left = np.array([[0, 0], [5.5, 0], [5.5, 8], [0, 8.0]])
    right = np.array([[5.5, 0], [11, 0], [11, 8], [5.5, 8.0]])
    one, other = inside_polygon(left, 8, 11), inside_polygon(right, 8, 11)
    assert not (one & other).any() and (one | other).all()
    # A sub-pixel shape that no centre is in has no pixel.
    assert not inside_polygon(np.array([[1.6, 1.6], [2.4, 1.6], [2.0, 2.4]]), 8, 11).any()


def test_coco_polygons_parts_and_runs(tmp_path):
    mask = np.zeros((10, 12), bool)
    mask[7:9, 8:11] = True
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    path = coco(
        tmp_path / "a.json",
        [
            {"segmentation": [SQUARE, [9, 0, 11, 0, 11, 2, 9, 2]]},
            {
                "segmentation": {"counts": runs, "size": [10, 12]},
                "category_id": 2,
                "iscrowd": 1,
            },
        ],
    )
    volume = read_label_file(path)
    found = rows_of(volume)
    assert volume.meta["names"] == {1: "cyst", 2: "liver"}
    assert (found[3:6, 2:7] == 2).all() and (found[0:2, 9:11] == 2).all()
    assert ((found == 1) == mask).all() and (found == 2).sum() == 19


def test_coco_compressed_runs(tmp_path):
    """The example of COCO's own program: a 3 x 4 mask in its letters."""
    runs = [5, 2, 1, 3, 37, 2, 70]
    letters = ""
    for n, run in enumerate(runs):
        number = run - (runs[n - 2] if n > 2 else 0)
        more = True
        while more:
            code, number = number & 0x1F, number >> 5
            more = number != -1 if code & 0x10 else number != 0
            letters += chr((code | 0x20 if more else code) + 48)
    segmentation = {"counts": letters, "size": [10, 12]}
    found = rows_of(read_label_file(coco(tmp_path / "a.json", [{"segmentation": segmentation}])))
    expected = np.repeat(np.arange(7) % 2, runs).reshape(12, 10).T
    np.testing.assert_array_equal(found, expected)


def test_the_smaller_shape_is_drawn_over_the_larger(tmp_path):
    small = {"segmentation": [[3, 4, 5, 4, 5, 5, 3, 5]], "category_id": 2}
    path = coco(tmp_path / "a.json", [small, {"segmentation": [SQUARE]}])
    found = rows_of(read_label_file(path))
    assert (found == 1).sum() == 2 and (found == 2).sum() == 13


def test_two_annotators_are_refused(tmp_path):
    both = [{"segmentation": [SQUARE], "attributes": {"annotator": name}} for name in "AB"]
    with pytest.raises(LabelError, match="A, B each drew"):
        read_label_file(coco(tmp_path / "a.json", both))


def test_only_boxes_and_damage_are_refused(tmp_path):
    with pytest.raises(FormatError, match="only boxes"):
        read_label_file(coco(tmp_path / "a.json", [{"segmentation": [], "bbox": [1, 1, 2, 2]}]))
    runs = {"counts": [3, 4], "size": [10, 12]}
    with pytest.raises(FormatError, match="runs of 7 pixels"):
        read_label_file(coco(tmp_path / "b.json", [{"segmentation": runs}]))
    with pytest.raises(FormatError, match="2 pictures"):
        read_label_file(coco(tmp_path / "c.json", [{"segmentation": [SQUARE]}], pictures=2))


def labelme(path: Path, shapes: list[dict], size=(12, 10)) -> Path:
    data = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{"group_id": None, "flags": {}, **one} for one in shapes],
        "imagePath": f"..\\raw\\{path.stem}.png",
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }
    path.write_text(json.dumps(data))
    return path


def test_labelme(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.ones((2, 2), bool)).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    points = np.array(SQUARE).reshape(-1, 2).tolist()
    path = labelme(
        tmp_path / "a.json",
        [
            {"label": "liver", "points": points, "shape_type": "polygon"},
            {"label": "cyst", "points": [[9, 7], [11, 9]], "shape_type": "rectangle"},
            {"label": "mark", "points": [[1, 1]], "shape_type": "point"},
            {"label": "stone", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": mask},
        ],
    )
    volume = read_label_file(path)
    found = rows_of(volume)
    assert volume.meta["names"] == {1: "cyst", 2: "liver", 3: "stone"}
    assert [(found == v).sum() for v in (1, 2, 3)] == [4, 15, 4]


def test_cvat(tmp_path):
    path = tmp_path / "annotations.xml"
    path.write_text(
        '<?xml version="1.0"?><annotations><version>1.1</version>'
        '<image id="0" name="a.png" width="12" height="10">'
        '<polygon label="liver" z_order="0" points="2.0,3.0;7.0,3.0;7.0,6.0;2.0,6.0"/>'
        '<box label="cyst" z_order="1" xtl="0" ytl="0" xbr="12" ybr="4"/>'
        '<mask label="stone" z_order="2" rle="1, 2, 1" left="10" top="8" width="2" height="2"/>'
        "</image></annotations>"
    )
    found = rows_of(read_label_file(path))
    # The box is larger, but above.
    assert (found[:4] == 1).all() and (found == 2).sum() == 10
    assert (found == 3).sum() == 2 and found[8, 11] == 3 and found[9, 10] == 3


def test_ellipses_and_circles_of_each_tool_have_their_area(tmp_path):
    size, (across, down) = (200, 150), (60.0, 40.0)
    ellipse = {"name": "ellipse", "cx": 100, "cy": 75, "rx": across, "ry": down}
    circle = {"name": "circle", "cx": 100, "cy": 75, "r": across}
    region = {"region_attributes": {"type": {"liver": True}}}
    data = {
        f"{n}.png1": {"filename": f"{n}.png", "regions": [{"shape_attributes": form, **region}]}
        for n, form in enumerate((ellipse, circle))
    }
    via, cvat = tmp_path / "via.json", tmp_path / "annotations.xml"
    via.write_text(json.dumps(data))
    cvat.write_text(
        '<annotations><image id="0" name="a.png" width="200" height="150">'
        '<ellipse label="liver" cx="100" cy="75" rx="60" ry="40"/></image></annotations>'
    )
    points = [[100, 75], [100, 75 + across]]
    shape = {"label": "liver", "points": points, "shape_type": "circle"}
    drawn = labelme(tmp_path / "a.json", [shape], size)
    found = [outlines.read(via, f"{n}.png", size) for n in (0, 1)]
    found += [read_label_file(cvat), read_label_file(drawn)]
    radii = [(across, down), (across, across), (across, down), (across, across)]
    for volume, (a, b) in zip(found, radii, strict=True):
        assert volume.meta["names"] == {1: "liver"}
        assert abs((rows_of(volume) == 1).sum() - np.pi * a * b) < 0.01 * np.pi * a * b


def test_regions_with_several_attributes_are_refused(tmp_path):
    form = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    region = {"shape_attributes": form, "region_attributes": {"colour": "red", "grade": "2"}}
    path = tmp_path / "via.json"
    path.write_text(json.dumps({"a.png1": {"filename": "a.png", "size": 1, "regions": [region]}}))
    with pytest.raises(FormatError, match="several attributes: colour, grade"):
        outlines.read(path, "a.png", (12, 10))


@pytest.mark.parametrize("numbers", ["1,2;nan,4;5,6", "1,2;3"])
def test_coordinates_that_are_none_are_refused(tmp_path, numbers):
    path = tmp_path / "annotations.xml"
    path.write_text(
        '<annotations><image id="0" name="a.png" width="12" height="10">'
        f'<polygon label="liver" points="{numbers}"/></image></annotations>'
    )
    with pytest.raises(FormatError):
        read_label_file(path)


BOMB = 40_000  # pixels along each side of a mask that a small file states


def png_bomb(size: int) -> str:
    """A PNG in base 64 whose header states a square of pixels; they are never read."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", size, size)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("what", ["COCO", "many of COCO", "labelme", "CVAT", "video", "size"])
def test_small_files_that_need_much_memory_are_refused_before_it_is_taken(tmp_path, what):
    path = tmp_path / "a.json"
    area, side = BOMB * BOMB, 5_000
    whole = {"counts": [0, area], "size": [BOMB, BOMB]}
    part = {"counts": [0, side * side], "size": [side, side]}
    xml = f'<annotations><image id="0" name="a.png" width="{BOMB}" height="{BOMB}">'
    if what == "COCO":
        coco(path, [{"segmentation": whole}])
    elif what == "many of COCO":
        coco(path, [{"segmentation": part} for _ in range(40)])
    elif what == "labelme":
        mask = {"shape_type": "mask", "points": [[0, 0], [9, 9]], "mask": png_bomb(BOMB)}
        labelme(path, [{"label": "liver", **mask}])
    elif what == "size":
        labelme(path, [{"label": "liver", "points": [[1, 1], [4, 1], [4, 4]]}], (BOMB, BOMB))
    else:
        path = tmp_path / "a.xml"
        video = (
            "<annotations><meta><stop_frame>99999999999</stop_frame><original_size><width>9</width>"
            '<height>9</height></original_size></meta><track label="x"/></annotations>'
        )
        mask = f'left="0" top="0" width="{BOMB}" height="{BOMB}" rle="0,{area}"'
        path.write_text(
            video if what == "video" else f'{xml}<mask label="x" {mask}/></image></annotations>'
        )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"a\.(json|xml).*GiB"):
        outlines.read(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown << 10 < 1 << 30


def test_many_large_shapes_need_the_memory_of_few(tmp_path):
    square = [0, 0, 4000, 0, 4000, 4000, 0, 4000]
    shapes = [outlines.Shape("liver", (np.reshape(square, (4, 2)).astype(float),))] * 12
    tracemalloc.start()
    drawn = outlines.draw(shapes, (4000, 4000), {"liver": 1})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.all()
    assert peak < 12 * 4000 * 4000  # if all 12 were kept: 18


def test_an_empty_run_is_an_empty_mask(tmp_path):
    empty = outlines.with_mask(outlines.Shape("liver", runs="5 0"), (4, 3), "columns")
    square = outlines.Shape("cyst", (np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]]),))
    drawn = outlines.draw([empty, square], (4, 3), {"liver": 1, "cyst": 2})
    assert drawn.sum() == 8 and (drawn != 1).all()


def test_cvat_of_a_video_and_entities_are_refused(tmp_path):
    path = tmp_path / "annotations.xml"
    path.write_text('<annotations><track id="0" label="x"/></annotations>')
    with pytest.raises(FormatError, match="no size of the video"):
        read_label_file(path)
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotations></annotations>')
    with pytest.raises(FormatError, match="document type"):
        read_label_file(path)


def test_via_needs_the_size_of_the_picture(tmp_path):
    region = {
        "shape_attributes": {
            "name": "polygon",
            "all_points_x": SQUARE[::2],
            "all_points_y": SQUARE[1::2],
        },
        "region_attributes": {"label": "liver"},
    }
    data = {"a.png123": {"filename": "a.png", "size": 123, "regions": [region]}}
    path = tmp_path / "via.json"
    for content in (data, {"_via_img_metadata": data, "_via_settings": {}}):
        path.write_text(json.dumps(content))
        assert (rows_of(outlines.read(path, "a.png", (12, 10))) == 1).sum() == 15
    with pytest.raises(GeometryError, match="no size"):
        read_label_file(path)


def test_another_size_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="12 x 10"):
        outlines.read(coco(tmp_path / "a.json", [{"segmentation": [SQUARE]}]), "", (10, 12))

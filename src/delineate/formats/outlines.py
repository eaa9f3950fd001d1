"""Read outlines of annotation programs as label maps: COCO, labelme, VIA (JSON), CVAT and Aperio
ImageScope (XML), and tables of run lengths (CSV, ``run_lengths.py``).

Coordinates are those of these programs: x is the column, y the row, and (0, 0) is the upper left
corner of the first pixel, whose centre is (0.5, 0.5). A pixel belongs to a polygon if its centre is
inside by the even-odd rule; a centre on an edge belongs to one side only, so that polygons with a
common edge share no pixel and leave none out. Parts of one annotation are united. Where structures
overlap, the smaller shape is drawn over the larger one; CVAT's ``z_order`` comes before that.
Points and lines have no area and are left out. What lies outside the picture is cut off.

``read`` gives the label map of one picture with ``meta["names"]`` (value -> name). The values are
the places of the names in the sorted names of the whole file.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import FormatError, GeometryError, LabelError
from ..core.inputs import MOST_BYTES, expecting, read_json, refuse_large
from ..core.labels import FOREGROUND
from ..core.volume import Volume
from . import run_lengths
from .polygons import Points, inside_polygon
from .raster import grid_of, mask_in_png

if TYPE_CHECKING:
    from xml.etree import ElementTree

ENDINGS = (".json", ".xml")
RUN_LENGTHS = "run lengths"
SNIFFED_BYTES = 1 << 16
_MARKS = re.compile(
    r'"(categories|shapes|imagePath|_via_img_metadata|shape_attributes|annotations|images|regions)"'
    r"|<annotations>|<Annotations\b"
)
MASK_BYTES = 10  # of a pixel while a shape is drawn, about
KEPT_BYTES = 1 << 26  # of drawn shapes; those beyond it are drawn twice
XML_BYTES = 1_000  # of an element in memory, about
FRAME_BYTES = 300  # of a frame of a video
CIRCLE_CORNERS = 360  # of the polygon that stands for a circle or an ellipse
_ANNOTATORS = ("annotator", "annotator_id", "annotatorid", "rater", "reader", "observer", "user")


@dataclass(frozen=True)
class Shape:
    """One annotated region: polygons, or a mask at a place, of one structure.

    Args:
        name: of the structure.
        polygons: (corners, 2) each; their union is the region.
        mask: (rows, columns) bool, or None.
        at: column and row of the first pixel of ``mask``.
        z_order: shapes with a higher one are drawn later.
        annotator: who drew it, or "".
        runs: the mask of the whole picture as run lengths, or "".
        relative: whether their starts are distances.
    """

    name: str
    polygons: tuple[Points, ...] = ()
    mask: NDArray[np.bool_] | None = None
    at: tuple[int, int] = (0, 0)
    z_order: int = 0
    annotator: str = ""
    runs: str = ""
    relative: bool = False


@dataclass(frozen=True)
class Picture:
    """The regions of one picture.

    Args:
        name: its file name as the annotation file states it, maybe with folders.
        size: columns and rows, or None if the file does not state them.
        shapes: its regions, in the order of the file.
    """

    name: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Outlines:
    """The content of an annotation file.

    Args:
        kind: "COCO", "labelme", "VIA", "CVAT", "Aperio" or ``RUN_LENGTHS``.
        pictures: one for each picture that the file lists.
        names: all structures, sorted.
    """

    kind: str
    pictures: tuple[Picture, ...]
    names: tuple[str, ...]


def may_hold(path: Path) -> bool:
    """Whether a file may hold outlines, from its ending and its beginning."""
    if not path.name.lower().endswith(ENDINGS):
        return run_lengths.may_hold(path)
    try:
        with path.open("rb") as file:
            return bool(_MARKS.search(file.read(SNIFFED_BYTES).decode("utf-8", "replace")))
    except OSError:
        return False


def load(path: str | Path) -> Outlines:
    """The outlines in a file.

    Raises:
        FormatError: it is damaged, or holds no outlines.
        InputError: it needs more memory than is allowed (``core.inputs.refuse_large``).
    """
    found = Path(path).stat()
    return _load(str(path), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=8)
def _load(path: str, _time: int, size: int) -> Outlines:
    """The outlines; a file with many pictures is read once."""
    with expecting("a file of outlines", path, FormatError):
        if path.lower().endswith(".csv"):
            return _of_runs_table(path)
        masks = _Masks(path, size)
        if path.lower().endswith(".xml"):
            return _of_xml(Path(path), masks)
        data = read_json(path, error=FormatError)
        if isinstance(data, dict) and isinstance(data.get("shapes"), list):
            return _labelme(Path(path), data, masks)
        if isinstance(data, dict) and {"images", "annotations", "categories"} <= set(data):
            return _coco(data, masks)
        if isinstance(data, dict) and (found := _via(data)):
            return found
    raise FormatError("holds no outlines of COCO, labelme, VIA, CVAT or Aperio", path=path)


def read(
    path: str | Path,
    item: str = "",
    size: tuple[int, int] | None = None,
    numbering: run_lengths.Numbering = "columns",
) -> Volume:
    """The label map (I, J, 1) of one picture; unit "a.u.", spacing 1 mm.

    Args:
        path: the annotation file.
        item: name of the picture as the file states it; "" if it has only one.
        size: columns and rows of the picture itself, if known.
        numbering: of the pixels of run lengths.

    Raises:
        FormatError: as ``load``; no such picture, or several and none is named.
        GeometryError: the size is not known, or differs from that of the picture.
        LabelError: several annotators drew in this picture.
    """
    outlines = load(path)
    chosen = [one for one in outlines.pictures if not item or one.name == item]
    if len(chosen) != 1:
        what = f"{len(outlines.pictures)} pictures" if not item else f"no single picture {item}"
        raise FormatError(f"has {what}; a folder of pictures with it can be read", path=path)
    picture = chosen[0]
    if picture.size and size and picture.size != size:
        raise GeometryError(
            f"states {picture.size[0]} x {picture.size[1]} pixels for {picture.name}, but the "
            f"picture has {size[0]} x {size[1]}",
            path=path,
        )
    shape = picture.size or size
    if shape is None:
        raise GeometryError("states no size of the picture, which is not known", path=path)
    drawn_by = sorted({one.annotator for one in picture.shapes if one.annotator})
    if len(drawn_by) > 1:
        raise LabelError(
            f"{', '.join(drawn_by)} each drew in {picture.name}; keep the outlines of one",
            path=path,
        )
    if min(shape) < 1:
        raise GeometryError(f"states a picture of {shape[0]} x {shape[1]} pixels", path=path)
    with expecting("a file of outlines", path, FormatError):
        # A size that only the file states is trusted as little as that of any compressed file.
        refuse_large(MASK_BYTES * shape[0] * shape[1], None if size else Path(path).stat().st_size)
    try:
        shapes = [with_mask(one, shape, numbering) for one in picture.shapes]
    except ValueError as error:
        raise FormatError(f"damaged outlines of {picture.name} ({error})", path=path) from error
    with expecting("a file of outlines", path, FormatError):
        array = draw(shapes, shape, {n: v for v, n in enumerate(outlines.names, start=1)})
    names = dict(enumerate(outlines.names, start=1))
    meta = {
        "modality": "",
        "patient": "",
        "spacing_known": False,
        "place_known": False,
        "names": names,
    }
    return Volume(array, grid_of(array.shape, None), source=str(path), meta=meta)


# ---- drawing ----


def with_mask(shape: Shape, size: tuple[int, int], numbering: run_lengths.Numbering) -> Shape:
    """The shape with its run lengths, if any, as a mask.

    Raises:
        ValueError: a run is outside the picture.
    """
    if not shape.runs:
        return shape
    mask = run_lengths.mask_of(shape.runs, size, numbering, shape.relative)
    # Only the part that has the shape is kept: a picture may have hundreds.
    part, at = _part(mask)
    return replace(shape, mask=part, at=at, runs="")


def _part(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """A copy of the smallest part of a mask with all its pixels, and the column and row where it
    begins; an empty part of an empty mask.
    """
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(down):
        return np.zeros((0, 0), bool), (0, 0)
    part = mask[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
    return part.copy(), (int(across[0]), int(down[0]))


def draw(
    shapes: Sequence[Shape], size: tuple[int, int], value_of: Mapping[str, int]
) -> NDArray[np.uint16]:
    """The shapes as one label map (I, J, 1); the larger ones of a ``z_order`` first.

    >>> square = np.array([[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0]])
    >>> draw([Shape("cell", (square,))], (4, 3), {"cell": 1})[..., 0].T
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]], dtype=uint16)
    """
    columns, rows = size
    out = np.zeros((rows, columns), np.uint16)
    areas: list[int] = []
    kept: dict[int, tuple[tuple[slice, slice], NDArray[np.bool_]]] = {}
    held = 0
    for number, shape in enumerate(shapes):
        place, inside = _region(shape, rows, columns)
        areas.append(int(inside.sum()))
        if held + inside.nbytes <= KEPT_BYTES:
            kept[number] = place, inside
            held += inside.nbytes
    for number in sorted(range(len(shapes)), key=lambda n: (shapes[n].z_order, -areas[n])):
        found = kept.pop(number) if number in kept else _region(shapes[number], rows, columns)
        place, inside = found
        out[place][inside] = value_of[shapes[number].name]
    return np.ascontiguousarray(out.T)[..., None]


def _region(shape: Shape, rows: int, columns: int) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """The part of the picture around a shape, and the shape in it."""
    corners = [*shape.polygons]
    if shape.mask is not None:
        (column, row), (height, width) = shape.at, shape.mask.shape
        corners.append(np.array([[column, row], [column + width, row + height]], np.float64))
    limits = np.array([columns, rows])
    low = np.clip(np.floor(np.min([c.min(axis=0) for c in corners], axis=0)), 0, limits)
    high = np.clip(np.ceil(np.max([c.max(axis=0) for c in corners], axis=0)), low, limits)
    (left, top), (right, bottom) = low.astype(int), high.astype(int)
    inside = np.zeros((bottom - top, right - left), bool)
    for polygon in shape.polygons:
        inside |= inside_polygon(polygon - (left, top), *inside.shape)
    if shape.mask is not None:
        inside |= shape.mask[top - row : bottom - row, left - column : right - column]
    return (slice(top, bottom), slice(left, right)), inside


# ---- masks ----


class _Masks:
    """Unpacks the masks of one file, which together may need as much memory as
    ``core.inputs.refuse_large`` allows a compressed file of its size.
    """

    def __init__(self, path: str, file_bytes: int):
        self._path, self._file_bytes, self._held = path, file_bytes, 0

    def need(self, nbytes: int) -> None:
        """Refuse what would need too much memory, together with what is held.

        Raises:
            InputError: as ``core.inputs.refuse_large``.
        """
        refuse_large(self._held + nbytes, self._file_bytes)

    def of_runs(
        self, runs: Sequence[int], lines: int, length: int
    ) -> tuple[NDArray[np.bool_], tuple[int, int]]:
        """The part of a mask (lines, length) with all its pixels, and the place in its line and the
        line where it begins, from the lengths of runs of 0 and 1 in turn.

        Raises:
            ValueError: the runs have another length.
            InputError: it would need too much memory.
        """
        if min(lines, length, *runs) < 0 or sum(runs) != lines * length:
            raise ValueError(f"runs of {sum(runs)} pixels in a picture of {lines * length}")
        bounds = np.cumsum(np.asarray(runs, np.int64))[: len(runs) // 2 * 2]
        starts, stops = bounds[::2], bounds[1::2]
        if not (stops > starts).any():
            return np.zeros((0, 0), bool), (0, 0)
        # The lines that have the mask.
        first = int(starts[stops > starts][0]) // length
        last = (int(stops[-1]) - 1) // length
        pixels = (last - first + 1) * length
        self.need(pixels)
        inside = np.clip(bounds - first * length, 0, pixels)
        lengths = np.diff(inside, prepend=0, append=pixels)
        values = np.arange(len(lengths)) % 2 == 1
        part, (across, down) = _part(np.repeat(values, lengths).reshape(-1, length))
        self._held += part.nbytes
        return part, (across, first + down)

    def of_png(self, text: str) -> NDArray[np.bool_]:
        """The mask in a PNG in base 64: all pixels above 0.

        Raises:
            ValueError, FormatError: it is none.
            InputError: it would need too much memory.
        """
        mask = mask_in_png(base64.b64decode(text), self._path, self.need)
        self._held += mask.nbytes
        return mask


# ---- COCO ----


def _coco(data: Mapping[str, Any], masks: _Masks) -> Outlines:
    names = {one["id"]: str(one["name"]) for one in data["categories"]}
    shapes: dict[Any, list[Shape]] = {one["id"]: [] for one in data["images"]}
    sizes = {one["id"]: _size(one) for one in data["images"]}
    for one in data["annotations"]:
        if one.get("segmentation") and one["image_id"] in shapes:
            shape = _coco_shape(one, names[one["category_id"]], masks)
            shapes[one["image_id"]].append(shape)
    used = {shape.name for found in shapes.values() for shape in found}
    if not used:
        raise FormatError("has no outlines, maybe only boxes")
    pictures = tuple(
        Picture(str(one["file_name"]), sizes[one["id"]], tuple(shapes[one["id"]]))
        for one in data["images"]
    )
    return Outlines("COCO", pictures, tuple(sorted(set(names.values()) & used)))


def _coco_shape(one: Mapping[str, Any], name: str, masks: _Masks) -> Shape:
    outline, by = one["segmentation"], _annotator(one)
    if isinstance(outline, dict):
        rows, columns = (int(n) for n in outline["size"])
        counts = outline["counts"]
        runs = _decoded(counts) if isinstance(counts, str) else [int(n) for n in counts]
        # Runs of 0 and 1 in turn, down the columns.
        mask, (row, column) = masks.of_runs(runs, columns, rows)
        return Shape(name, mask=mask.T, at=(column, row), annotator=by)
    return Shape(name, tuple(_points(part) for part in outline if part), annotator=by)


def _annotator(one: Mapping[str, Any]) -> str:
    fields = {**one, **(one["attributes"] if isinstance(one.get("attributes"), dict) else {})}
    return next((str(v) for k, v in fields.items() if str(k).lower() in _ANNOTATORS and v), "")


def _decoded(text: str) -> list[int]:
    """The run lengths of COCO's compressed form: numbers of 5 bits a letter, from the third one as
    the difference to the number before the last.
    """
    runs: list[int] = []
    place = 0
    while place < len(text):
        number, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - 48
            number |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            place, shift = place + 1, shift + 5
            if not more and code & 0x10:
                number |= -1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _points(numbers: Sequence[Any]) -> Points:
    """(corners, 2) from x, y, x, y ... or from pairs.

    Raises:
        ValueError: an odd number of coordinates, or one that is not finite.
    """
    found = np.asarray(numbers, np.float64).reshape(-1, 2)
    if not np.isfinite(found).all():
        raise ValueError("a coordinate is not finite")
    return found


def _size(one: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = one.get("width"), one.get("height")
    return (int(width), int(height)) if width and height else None


# ---- run lengths ----


def _of_runs_table(path: str) -> Outlines:
    rows, relative = run_lengths.load(path)
    pictures: dict[str, Picture] = {}
    for one in rows:
        known = pictures.setdefault(one.picture, Picture(one.picture, one.size, ()))
        if one.text:
            name = one.structure or FOREGROUND
            shape = Shape(name, runs=one.text, relative=relative)
            pictures[one.picture] = replace(known, shapes=(*known.shapes, shape))
    names = {shape.name for picture in pictures.values() for shape in picture.shapes}
    if not names:
        raise FormatError("has no outlines, only empty masks")
    return Outlines(RUN_LENGTHS, tuple(pictures.values()), tuple(sorted(names)))


# ---- labelme ----


def _labelme(path: Path, data: Mapping[str, Any], masks: _Masks) -> Outlines:
    width, height = data.get("imageWidth"), data.get("imageHeight")
    shapes = tuple(shape for one in data["shapes"] if (shape := _labelme_shape(one, masks)))
    size = (int(width), int(height)) if width and height else None
    # The path may come from another system.
    name = re.split(r"[\\/]", str(data.get("imagePath") or path.stem))[-1]
    names = tuple(sorted({shape.name for shape in shapes}))
    return Outlines("labelme", (Picture(name, size, shapes),), names)


def _labelme_shape(one: Mapping[str, Any], masks: _Masks) -> Shape | None:
    kind, name = one.get("shape_type") or "polygon", str(one["label"])
    points = _points(one["points"])
    if kind == "mask":
        (x, y), _ = points
        return Shape(name, mask=masks.of_png(one["mask"]), at=(round(x), round(y)))
    if kind == "rectangle":
        return Shape(name, (_box(*points[0], *points[1]),))
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        return Shape(name, (_ellipse(points[0, 0], points[0, 1], radius, radius),))
    return Shape(name, (points,)) if kind == "polygon" else None


def _box(x1: float, y1: float, x2: float, y2: float) -> Points:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)


def _ellipse(x: float, y: float, across: float, down: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS, endpoint=False)
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


# ---- VGG Image Annotator ----


def _via(data: Mapping[str, Any]) -> Outlines | None:
    """The outlines of a VIA project or of its export; None if it is neither."""
    entries = data.get("_via_img_metadata", data)
    rows = list(entries.values()) if isinstance(entries, dict) else []
    if not rows or not all(isinstance(one, dict) and "filename" in one for one in rows):
        return None
    pictures = []
    for one in rows:
        regions = one.get("regions") or []
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        shapes = tuple(shape for region in regions if (shape := _via_shape(region)))
        pictures.append(Picture(str(one["filename"]), None, shapes))
    names = sorted({shape.name for picture in pictures for shape in picture.shapes})
    return Outlines("VIA", tuple(pictures), tuple(names))


def _via_shape(region: Mapping[str, Any]) -> Shape | None:
    form, name = region["shape_attributes"], _via_name(region.get("region_attributes") or {})
    kind = form["name"]
    if kind == "polygon":
        points = np.stack([form["all_points_x"], form["all_points_y"]], axis=1)
        return Shape(name, (_points(points.ravel().tolist()),))
    if kind == "rect":
        x, y = float(form["x"]), float(form["y"])
        return Shape(name, (_box(x, y, x + float(form["width"]), y + float(form["height"])),))
    if kind in ("circle", "ellipse"):
        across = float(form.get("rx", form.get("r", 0)))
        down = float(form.get("ry", form.get("r", 0)))
        return Shape(name, (_ellipse(float(form["cx"]), float(form["cy"]), across, down),))
    return None


def _via_name(attributes: Mapping[str, Any]) -> str:
    """The structure: the attribute that is called so, or the only one.

    Raises:
        ValueError: several attributes could be the structure.
    """
    filled = {str(k).lower(): v for k, v in attributes.items() if v}
    wanted = [k for k in ("label", "class", "name", "structure", "type", "category") if k in filled]
    if not wanted and len(filled) > 1:
        raise ValueError(f"the regions have several attributes: {', '.join(filled)}")
    value = filled[wanted[0]] if wanted else next(iter(filled.values()), FOREGROUND)
    # A check box gives {"liver": true}.
    return str(next(iter(value), FOREGROUND)) if isinstance(value, dict) else str(value)


# ---- CVAT ----


def _of_xml(path: Path, masks: _Masks) -> Outlines:
    """Raises ValueError for a document with entities, InputError for one that needs too much
    memory.
    """
    from xml.etree import ElementTree  # few outlines are XML

    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"has {size / 1e6:.0f} MB; up to {MOST_BYTES / 1e6:.0f} MB are read")
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("a document type is stated, which annotations need not have")
    refuse_large(size + XML_BYTES * text.count(b"<"))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"is not XML: {error}") from error
    if root.tag == "Annotations":
        return _aperio(path, root)
    pictures = _frames(root, masks) if root.find("track") is not None else _images(root, masks)
    if not pictures:
        raise ValueError("lists no image")
    names = sorted({shape.name for picture in pictures for shape in picture.shapes})
    return Outlines("CVAT", tuple(pictures), tuple(names))


def _images(root: ElementTree.Element, masks: _Masks) -> list[Picture]:
    return [
        Picture(
            one.attrib["name"],
            (int(one.attrib["width"]), int(one.attrib["height"])),
            tuple(_cvat_shapes(one, masks)),
        )
        for one in root.iter("image")
    ]


def _frames(root: ElementTree.Element, masks: _Masks) -> list[Picture]:
    """The frames of a video with tracks: a picture for each, called as CVAT stores it."""
    size = root.find(".//original_size")
    if size is None:
        raise ValueError("states no size of the video")
    shape = int(size.findtext("width", "0")), int(size.findtext("height", "0"))
    shapes: dict[int, list[Shape]] = {}
    for track in root.iter("track"):
        for one in track:
            found = shapes.setdefault(int(one.attrib["frame"]), [])
            # A shape is outside from the frame on in which its structure is no longer seen.
            if one.attrib.get("outside") != "1":
                found += _cvat_shapes([one], masks, track.attrib.get("label", FOREGROUND))
    last = int(root.findtext(".//stop_frame") or max(shapes, default=0))
    first = int(root.findtext(".//start_frame") or 0)
    end = max([last, *shapes]) + 1
    masks.need(FRAME_BYTES * (end - first))
    return [Picture(f"frame_{n:06d}", shape, tuple(shapes.get(n, ()))) for n in range(first, end)]


def _cvat_shapes(
    image: Iterable[ElementTree.Element], masks: _Masks, label: str = FOREGROUND
) -> Iterator[Shape]:
    for one in image:
        facts, name = one.attrib, one.attrib.get("label", label)
        order = int(facts.get("z_order", 0))
        if one.tag == "polygon":
            numbers = [float(n) for n in re.split(r"[;,]", facts["points"])]
            yield Shape(name, (_points(numbers),), z_order=order)
        elif one.tag == "box":
            corners = [float(facts[key]) for key in ("xtl", "ytl", "xbr", "ybr")]
            yield Shape(name, (_box(*corners),), z_order=order)
        elif one.tag == "ellipse":
            x, y, across, down = (float(facts[key]) for key in ("cx", "cy", "rx", "ry"))
            yield Shape(name, (_ellipse(x, y, across, down),), z_order=order)
        elif one.tag == "mask":
            runs = [int(n) for n in facts["rle"].split(",")]
            rows, columns = int(facts["height"]), int(facts["width"])
            mask, (column, row) = masks.of_runs(runs, rows, columns)
            at = (int(facts["left"]) + column, int(facts["top"]) + row)
            yield Shape(name, mask=mask, at=at, z_order=order)


# ---- Aperio ImageScope ----


def _aperio(path: Path, root: ElementTree.Element) -> Outlines:
    """The regions of one picture, which has the name of the file (MoNuSeg, MoNuSAC)."""
    shapes = []
    for layer in root.iter("Annotation"):
        stated = [one.attrib.get("Name", "") for one in layer.iterfind("Attributes/Attribute")]
        name = next((one for one in stated if one and one != "Description"), FOREGROUND)
        for region in layer.iter("Region"):
            corners = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
            # Lines and points have fewer corners.
            if len(corners) > 2:
                shapes.append(Shape(name, (_points(corners),)))
    if not shapes:
        raise FormatError("has no outlines")
    names = tuple(sorted({shape.name for shape in shapes}))
    return Outlines("Aperio", (Picture(path.stem, None, tuple(shapes)),), names)

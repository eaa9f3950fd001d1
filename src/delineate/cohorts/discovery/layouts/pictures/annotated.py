"""Pictures with the outlines of an annotation program (COCO, labelme, VIA, CVAT and Aperio), or
with a table of run lengths.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from .....core.errors import DelineateError, LayoutError
from .....core.labels import LabelMapping, LabelSet
from .....core.manifest import Case
from .....extend.findings import Draft
from .....extend.registering import layout
from .....formats import outlines
from .....formats.files import stem
from .....formats.outlines import RUN_LENGTHS, Outlines, Picture
from .....formats.run_lengths import Numbering
from ...splits import split_in, with_free_training
from ...tree import Tree, case_ids, is_raster, source
from .numbering import numbering_in

DEEPEST = 5  # folders below the root
MOST_FOLDERS = 2000
_MASKS = re.compile(r"(?i)(label|mask|ground_?truth|gt|seg|segmentation)s?(_?png)?$")

_FRAME = re.compile(r"frame_\d+")
# Size and spacing at the end of a name, which a table leaves out.
_SIZE = re.compile(r"(_\d+){2}(_\d+(\.\d+)?){0,2}$")


@layout(
    "annotated", definition="pictures and annotations.json, ID.json, .xml or .csv", tier="challenge"
)
def annotated(tree: Tree, root: Path) -> Draft | None:
    """Pictures with COCO, labelme, VIA, CVAT or Aperio outlines in one file, or in one for each;
    or pictures and DICOM files with a table of run lengths.

    A picture is found by its path below the annotation file or the root, else by its name. A
    picture that an annotation file lists without outlines is all background; a picture that none
    lists is left out.
    """
    pictures, files = _pictures_and_files(tree, root)
    if not pictures:
        return None
    draft = Draft("annotated", [], modality="photo")
    loaded = {path: one for path in files if (one := _loaded(path, draft))}
    if not loaded:
        return None
    entries = _without_repeated(loaded)
    found = _pictures_of(entries, pictures, root)
    numbered = {
        path: numbering_in(path, entries, found, draft)
        for path, one in loaded.items()
        if one.kind == RUN_LENGTHS
    }
    _add_cases(draft, root, entries, found, numbered)
    if not draft.cases:
        return None
    used = {os.path.abspath(path) for path in found.values()}
    if rest := sum(os.path.abspath(path) not in used for path in pictures):
        draft.note("unused", f"{rest} pictures that no annotation file lists were not used")
    names = sorted({name for one in loaded.values() for name in one.names})
    draft.labels = LabelSet.from_names(dict(enumerate(names, start=1)))
    # Files may number the structures differently, so names count.
    draft.mapping = LabelMapping(segments=tuple((n, v) for v, n in enumerate(names, start=1)))
    draft.note(
        "values",
        "pixels whose centre is inside an outline (even-odd rule) belong to it; where structures "
        "overlap, the smaller outline is drawn over the larger one",
    )
    return draft


def _pictures_and_files(tree: Tree, root: Path) -> tuple[list[Path], list[Path]]:
    """The pictures, and the files that may hold their outlines; DICOM files are pictures for a
    table of run lengths. No pictures if the masks are pictures, which is another layout.
    """
    folders = _folders(tree, root)
    pictures = [p for folder in folders for p in tree.images(folder) if is_raster(p)]
    if any(_MASKS.match(path.parent.name) for path in pictures):
        return [], []
    files = [p for f in folders for p in tree.files(f) if outlines.may_hold(p)]
    if any(path.suffix.lower() == ".csv" for path in files):
        pictures += [path for folder in folders for path in tree.dicom_files(folder)]
    return pictures, files


def _folders(tree: Tree, root: Path) -> list[Path]:
    folders, level = [root], [root]
    for _ in range(DEEPEST):
        level = [inner for folder in level for inner in tree.folders(folder)][:MOST_FOLDERS]
        folders += level
    return folders


def _loaded(path: Path, draft: Draft) -> Outlines | None:
    """The outlines of a file; None if it holds none. One that cannot be read is an error."""
    try:
        return outlines.load(path)
    except DelineateError as error:
        if "no outlines" not in error.message:
            draft.problem(path.stem, "unreadable", str(error), path=str(path))
        return None


def _without_repeated(loaded: Mapping[Path, Outlines]) -> list[tuple[Path, Picture]]:
    """The pictures of all files. Of COCO's files on the same pictures, that of instances counts.

    Raises:
        LayoutError: two files have outlines of one picture.
    """
    entries = [(path, picture) for path, one in loaded.items() for picture in one.pictures]
    by_name: dict[tuple[str, str | None], list[tuple[Path, Picture]]] = defaultdict(list)
    for path, picture in entries:
        # labelme has a file next to each picture; equal names elsewhere are other pictures. So are
        # frames of other videos.
        is_local = loaded[path].kind in ("labelme", "Aperio") or _FRAME.fullmatch(picture.name)
        place = str(path.parent) if is_local else split_in(path.stem)
        place = place or split_in(path.parent.name)
        by_name[(picture.name, place)].append((path, picture))
    kept = []
    for same in by_name.values():
        instances = [one for one in same if one[0].name.startswith("instances")]
        chosen = instances if len(instances) == 1 else same
        if len(chosen) > 1:
            names = " and ".join(str(path) for path, _ in chosen[:2])
            raise LayoutError(
                f"{names} both have outlines of {chosen[0][1].name}, maybe of two annotators; "
                "keep one of them"
            )
        kept += chosen
    return kept


def _pictures_of(
    entries: Sequence[tuple[Path, Picture]], pictures: Sequence[Path], root: Path
) -> dict[int, Path]:
    """Number of an entry -> its picture on disk."""
    known = {os.path.abspath(path): path for path in pictures}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in pictures:
        # Frames of a video and some programs are named without an ending.
        for name in {path.name.lower(), stem(path).lower()}:
            by_name[name].append(path)
    composed = _composed(pictures)
    found = {}
    for number, (file, picture) in enumerate(entries):
        name = picture.name.replace("\\", "/")
        places = [file.parent, file.parent.parent / "images", root, root / "images"]
        exact = [p for place in places if (p := known.get(os.path.abspath(place / name)))]
        last = name.rsplit("/", 1)[-1].lower()
        options = by_name.get(last) or composed.get(last, [])
        # Of equal names, the one in the folder of the same split.
        split = split_in(file.stem) or split_in(file.parent.name)
        same = [p for p in options if split and split_in(p.parent.name) == split]
        below = [p for p in options if file.parent in p.parents]
        chosen = exact[:1] or (options if len(options) == 1 else same or below)
        if len(chosen) == 1:
            found[number] = chosen[0]
    return found


def _composed(pictures: Sequence[Path]) -> dict[str, list[Path]]:
    """Names made of a folder and of the picture's name, also without size and spacing:
    ``case1_day2/scans/slice_0001_266_266_1.50_1.50.png`` is case1_day2_slice_0001.
    """
    names: dict[str, list[Path]] = defaultdict(list)
    for path in pictures:
        for name in {stem(path), _SIZE.sub("", stem(path))}:
            for folder in path.parts[-1 - DEEPEST : -1]:
                names[f"{folder}_{name}".lower()].append(path)
    return names


def _add_cases(
    draft: Draft,
    root: Path,
    entries: Sequence[tuple[Path, Picture]],
    found: Mapping[int, Path],
    numbered: Mapping[Path, Numbering],
) -> None:
    splits = {
        number: split_in(entries[number][0].stem)
        or next((s for part in _parts(path, root) if (s := split_in(part))), None)
        for number, path in found.items()
    }
    ids = case_ids(
        [
            stem(entries[number][1].name if entries[number][0] in numbered else path)
            for number, path in found.items()
        ],
        [_video_of(*entries[n]) or splits[n] or path.parent.name for n, path in found.items()],
    )
    repeated = Counter(ids)
    for case, (number, path) in zip(ids, found.items(), strict=True):
        file, picture = entries[number]
        if repeated[case] > 1:
            draft.problem(case, "unpaired", f"{path} has the name of another picture")
            continue
        label = source(file, like=path, item=picture.name, axes=numbered.get(file, ""))
        # The frames of a video show one patient.
        patient = _video_of(file, picture)
        draft.cases.append(Case(case, patient, (source(path),), (label,), splits[number]))
    for number, (file, picture) in enumerate(entries):
        if number not in found:
            draft.problem(
                stem(Path(picture.name)),
                "unpaired",
                f"{file.name} lists {picture.name}, which was not found",
                "warning",
            )
    draft.cases = with_free_training(draft.cases)


def _video_of(file: Path, picture: Picture) -> str:
    """The folder of the outlines of a video's frame; "" for any other picture."""
    return file.parent.name if _FRAME.fullmatch(picture.name) else ""


def _parts(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts[:-1]

"""Masks in every form that people store: by index, colour, channel and segment, with slips."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image
from tests.cohorts.imitate import AFFINE, SHAPE, box, nifti, noise, png

from delineate.cohorts.checks.doctor import examine
from delineate.cohorts.discovery.account import account_for
from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.discovery.masks.colour_scales import scale_of
from delineate.cohorts.reading import read_image, read_label
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions
from delineate.core.errors import DelineateError, LabelError
from delineate.core.labels import LabelMapping, LabelSet
from delineate.core.manifest import Manifest
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.formats.label_files import names_in


def cohort(root, masks):
    """Images and one mask per case, written by ``masks``: (case number, path without ending)."""
    for n in range(6):
        nifti(root / "images" / f"c{n}.nii.gz", noise(n))
        masks(n, root / "labels" / f"c{n}")
    return discover(root)


def pictures(root, masks, image=None):
    for n in range(6):
        png(
            root / "images" / f"c{n}.png",
            noise(n, (12, 10), np.uint8) if image is None else image(n),
        )
        (root / "labels").mkdir(exist_ok=True)
        masks(n, root / "labels" / f"c{n}")
    return discover(root)


def truths(found) -> list[np.ndarray]:
    return [read_label(case, found.manifest).array for case in found.manifest]


def errors(found) -> dict[str, str]:
    """Case -> message of the errors and warnings, of the layout and of each case's check."""
    told = {f.case: f.message for f in found.findings if f.severity != "note"}
    rest = Manifest((), found.manifest.channels, found.manifest.labels, found.manifest.mapping)
    for case in found.manifest:
        for finding in examine((case, rest)).findings:
            if finding.severity != "note":
                told.setdefault(case.id, finding.message)
    return told


FLAT = np.zeros((12, 10), np.uint8)
FLAT[2:6, 3:7], FLAT[7:9, 1:4] = 1, 2


def with_palette(colours):
    def write(n, path):
        picture = Image.fromarray(FLAT.T)
        picture.putpalette([0, 0, 0, *colours, *[0] * (765 - len(colours))], "RGB")
        picture.save(f"{path}.png")

    return write


def test_the_index_of_a_palette_is_the_value_and_names_are_used(tmp_path):
    (tmp_path / "labels.csv").write_text("value,name\n1,liver\n2,spleen\n")
    found = pictures(tmp_path, with_palette([128, 0, 0, 0, 128, 0]))
    assert found.manifest.labels.names == ["liver", "spleen"]
    assert all(np.array_equal(truth[..., 0], FLAT) for truth in truths(found))
    # The same file is a coloured picture for everyone who does not read a mask.
    assert files.read(tmp_path / "labels" / "c0.png").channels == 3


def test_palettes_of_their_own_in_each_file_are_colours(tmp_path):
    """A program that reduces colours numbers them anew in each file."""
    colours = [(200, 0, 0), (0, 200, 0)]

    def write(n, path):
        swap = n % 2 == 1
        index = np.where(FLAT > 0, 3 - FLAT, 0).astype(np.uint8) if swap else FLAT
        picture = Image.fromarray(index.T)
        picture.putpalette([0, 0, 0, *(colours[swap]), *(colours[not swap])], "RGB")
        picture.save(f"{path}.png")

    found = pictures(tmp_path, write)
    first, *others = truths(found)
    assert len(found.manifest.labels) == 2
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("header", ["name,r,g,b", "name,red,green,blue", "name,color"])
def test_colours_are_named_by_a_table(tmp_path, header):
    rows = {"spleen": (0, 200, 0), "liver": (200, 0, 0), "void": (0, 0, 0)}
    lines = [
        f"{n}," + (f"#{bytes(c).hex()}" if "color" in header else ",".join(map(str, c)))
        for n, c in rows.items()
    ]
    name = "labels.csv" if "red" in header else "class_dict.csv"
    (tmp_path / name).write_text("\n".join([header, *lines]))
    colour = np.zeros((3, 12, 10), np.uint8)
    colour[0][FLAT == 1], colour[1][FLAT == 2] = 200, 200
    found = pictures(tmp_path, lambda n, path: png(path.with_suffix(".png"), colour))
    assert found.manifest.labels.names == ["spleen", "liver"]
    assert not [f for f in found.findings if f.severity != "note"]
    liver = found.manifest.labels.named("liver").value
    assert all(np.array_equal(truth[..., 0] == liver, FLAT == 1) for truth in truths(found))


def test_gif_and_one_bit_masks_are_read(tmp_path):
    found = pictures(tmp_path, lambda n, path: Image.fromarray((FLAT > 0).T).save(f"{path}.gif"))
    assert found.manifest.labels.names == ["foreground"]
    assert all(np.array_equal(truth[..., 0] > 0, FLAT > 0) for truth in truths(found))


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_one_structure(tmp_path):
    def write(n, path):
        png(path.with_suffix(".png"), ((FLAT > 0) * (255 if n % 2 else 1)).astype(np.uint8))

    found = pictures(tmp_path, write)
    assert found.manifest.labels.names == ["foreground"]
    assert all(np.array_equal(truth[..., 0], FLAT > 0) for truth in truths(found))


def test_transparency_is_dropped_and_grey_pictures_become_colours(tmp_path):
    def image(n):
        colours = noise(n, (3, 12, 10), np.uint8)
        alpha = np.full((1, 12, 10), 255, np.uint8)
        alpha[0, :4] = 0 if n == 2 else 255
        return noise(n, (12, 10), np.uint8) if n == 4 else np.concatenate([colours, alpha])

    found = pictures(tmp_path, lambda n, path: png(path.with_suffix(".png"), FLAT), image)
    assert found.manifest.channels == ("red", "green", "blue")
    read = [read_image(case, found.manifest) for case in found.manifest]
    assert [volume.channels for volume in read] == [3] * 6
    assert np.array_equal(read[2].array[..., 0], image(2)[:3])
    assert np.array_equal(read[4].array[0, ..., 0], image(4))
    assert not errors(found)
    told = {
        c.id: [f.message for f in examine((c, found.manifest)).findings] for c in found.manifest
    }
    assert {c for c, notes in told.items() if any("transparent" in n for n in notes)} == {"c2"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_recorded_orientation_turns_image_and_mask_alike(tmp_path, orientation):
    from PIL import ImageOps

    exif, picture = Image.Exif(), Image.fromarray((FLAT * 100).T)
    exif[274] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    picture.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    with Image.open(tmp_path / "a.png") as stored:
        upright = np.array(ImageOps.exif_transpose(stored)).T
    for path in (tmp_path / "a.png", tmp_path / "a.tif"):
        assert np.array_equal(files.read(path).array[..., 0], upright)
        assert files.read_grid(path).shape[:2] == upright.shape


def one_hot(*masks):
    return np.stack([np.asarray(m, np.uint8) for m in masks], axis=-1)


LEFT, RIGHT = box(), box(at=(7, 5, 2))


@pytest.mark.parametrize("background", ["none", "first", "last"])
def test_channels_are_structures_and_a_background_is_recognised(tmp_path, background):
    rest = ~((LEFT > 0) | (RIGHT > 0))
    masks = {"none": [LEFT, RIGHT], "first": [rest, LEFT, RIGHT], "last": [LEFT, RIGHT, rest]}
    found = cohort(
        tmp_path, lambda n, path: nifti(path.with_suffix(".nii.gz"), one_hot(*masks[background]))
    )
    assert len(found.manifest.labels) == 2
    assert all(np.array_equal(truth, LEFT + 2 * RIGHT) for truth in truths(found))
    assert LabelMapping.from_json(found.manifest.mapping.to_json()) == found.manifest.mapping


@pytest.mark.parametrize("background", [False, True])
def test_channels_that_overlap_are_structures_that_overlap(tmp_path, background):
    whole = LEFT | RIGHT
    masks = [whole == 0, LEFT, whole] if background else [LEFT, whole]
    found = cohort(tmp_path, lambda n, path: nifti(path.with_suffix(".nii.gz"), one_hot(*masks)))
    labels = found.manifest.labels
    assert labels.overlapping and len(labels) == 2 and not errors(found)
    assert all(np.array_equal(truth, LEFT + 2 * whole) for truth in truths(found))
    assert Manifest.from_jsonl(found.manifest.to_jsonl()).labels == labels


def test_one_mask_that_overlaps_where_all_were_read_without():
    """A manifest of structures that exclude each other refuses it and says what to do."""
    labels = LabelSet.from_names({1: "a", 2: "b"})
    mapping = LabelMapping(channels=((0, 1), (1, 2)))
    with pytest.raises(LabelError, match=r"channel 1 overlaps .* in 27 voxels.*overlapping: true"):
        mapping.apply(np.moveaxis(one_hot(LEFT, LEFT | RIGHT), -1, 0), labels)


def test_structures_that_name_the_same_value_overlap(tmp_path):
    mask = LEFT + 2 * RIGHT
    cohort(tmp_path, lambda n, path: nifti(path.with_suffix(".nii.gz"), mask))
    (tmp_path / "own.yaml").write_text("whole: [1, 2]\ncore: 2\n")
    found = discover(tmp_path, labels=tmp_path / "own.yaml")
    assert found.manifest.labels.overlapping
    assert all(np.array_equal(truth, (mask > 0) + 2 * RIGHT) for truth in truths(found))


def test_files_overlap_where_stated(tmp_path):
    for n in range(2):
        nifti(tmp_path / "images" / f"c{n}.nii.gz", noise(n))
        for name, mask in (("part", LEFT), ("whole", LEFT | RIGHT)):
            nifti(tmp_path / "masks" / f"c{n}_{name}.nii.gz", mask)
    text = "channels:\n  MR: images/{id}.nii.gz\nlabel: masks/{id}_{structure}.nii.gz\n"
    (tmp_path / "own.yaml").write_text(text)
    plain = discover(tmp_path, description=tmp_path / "own.yaml")
    assert not plain.manifest.labels.overlapping
    (tmp_path / "own.yaml").write_text(text + "overlapping: true\n")
    found = discover(tmp_path, description=tmp_path / "own.yaml")
    assert found.manifest.labels.names == ["part", "whole"] and found.manifest.labels.overlapping
    assert all(np.array_equal(truth, LEFT + 2 * (LEFT | RIGHT)) for truth in truths(found))


def test_the_one_mask_of_another_form_is_the_finding(tmp_path):
    def write(n, path):
        two = one_hot(LEFT, RIGHT)
        nifti(path.with_suffix(".nii.gz"), two if n == 3 else LEFT + 2 * RIGHT)

    found = cohort(tmp_path, write)
    assert found.manifest.labels.values == [1, 2]
    assert errors(found) == {"c3": "the mask has 2 channels, but 5 of 6 have one channel"}


def test_a_stray_voxel_of_one_case_is_a_warning_and_no_structure(tmp_path):
    def write(n, path):
        mask = LEFT + 2 * RIGHT
        mask[0, 0, 0] = 77 if n == 2 else 0
        nifti(path.with_suffix(".nii.gz"), mask)

    found = cohort(tmp_path, write)
    assert found.manifest.labels.values == [1, 2]
    assert "value 77 is in 1 voxel(s) of this case alone" in errors(found)["c2"]
    assert all(np.array_equal(truth, LEFT + 2 * RIGHT) for truth in truths(found))


def test_a_value_that_only_one_case_has_is_refused_there(tmp_path):
    def write(n, path):
        mask = LEFT + 2 * RIGHT
        nifti(path.with_suffix(".nii.gz"), np.where(mask == 2, 9, mask) if n == 5 else mask)

    found = cohort(tmp_path, write)
    assert found.manifest.labels.values == [1, 2]
    assert set(errors(found)) == {"c5"}
    with pytest.raises(LabelError, match="undeclared label values 9"):
        read_label(found.manifest.cases[5], found.manifest)


def test_a_rare_structure_stays_one(tmp_path):
    """The next number in one case of six is a rare finding, not a slip."""

    def write(n, path):
        nifti(path.with_suffix(".nii.gz"), LEFT + (2 * RIGHT if n == 1 else 0 * RIGHT))

    assert cohort(tmp_path, write).manifest.labels.values == [1, 2]


def test_a_negative_value_is_blamed_on_the_file_that_has_it(tmp_path):
    def write(n, path):
        mask = (LEFT + 2 * RIGHT).astype(np.int16)
        mask[0, 0, 0] = -1 if n == 4 else 0
        nifti(path.with_suffix(".nii.gz"), mask)

    found = cohort(tmp_path, write)
    assert found.manifest.labels.values == [1, 2]
    assert set(errors(found)) == {"c4"} and "-1" in errors(found)["c4"]
    for n in range(6):
        write(4, tmp_path / "labels" / f"c{n}")
    with pytest.raises(LabelError, match=r"c0\.nii\.gz: label values must be in 0\.\.65535"):
        discover(tmp_path)


# ---- segmentations of 3D Slicer ----


def seg_nrrd(path, layers, segments, origin=(0, 0, 0)):
    """``layers`` (L, I, J, K) or (I, J, K); ``segments``: name, value, layer."""
    many = layers.ndim == 4
    lines = [
        "NRRD0004",
        "type: uint8",
        f"dimension: {layers.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, layers.shape))}",
        f"space directions: {'none ' * many}(-1,0,0) (0,-1,0) (0,0,1)",
        f"kinds: {'list ' * many}domain domain domain",
        "encoding: raw",
        f"space origin: ({-origin[0]},{-origin[1]},{origin[2]})",
    ]
    for n, (name, value, layer) in enumerate(segments):
        lines += [f"Segment{n}_Name:={name}", f"Segment{n}_LabelValue:={value}"]
        lines += [f"Segment{n}_Layer:={layer}", f"Segment{n}_ID:=Segment_{n + 1}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "\n".join(lines) + "\n\n"
    path.write_bytes(head.encode() + layers.astype(np.uint8).tobytes(order="F"))


def slicer(root, write):
    for n in range(6):
        nifti(root / "images" / f"c{n}.nii.gz", noise(n), np.eye(4))
        write(n, root / "labels" / f"c{n}.seg.nrrd")
    return discover(root)


def test_names_of_segments_are_structures_and_values_may_differ(tmp_path):
    def write(n, path):
        swap = n % 2
        mask = LEFT * (2 if swap else 1) + RIGHT * (1 if swap else 2)
        names = [("anterior", 2 if swap else 1, 0), ("Posterior", 1 if swap else 2, 0)]
        seg_nrrd(path, mask, names)

    found = slicer(tmp_path, write)
    assert found.manifest.labels.names == ["anterior", "Posterior"]
    assert all(np.array_equal(truth, LEFT + 2 * RIGHT) for truth in truths(found))
    assert not errors(found)


def test_layers_without_overlap_become_one_map(tmp_path):
    segments = [("anterior", 1, 0), ("posterior", 1, 1)]
    found = slicer(tmp_path, lambda n, path: seg_nrrd(path, np.stack([LEFT, RIGHT]), segments))
    assert all(np.array_equal(truth, LEFT + 2 * RIGHT) for truth in truths(found))


def test_layers_that_overlap_are_structures_that_overlap(tmp_path):
    """Also where a file has no overlap, and names its segments in another order."""
    whole = LEFT | RIGHT

    def write(n, path):
        if n == 3:
            seg_nrrd(path, np.stack([RIGHT, LEFT]), [("part", 1, 1), ("whole", 1, 0)])
        else:
            seg_nrrd(path, np.stack([whole, LEFT]), [("whole", 1, 0), ("part", 1, 1)])

    found = slicer(tmp_path, write)
    assert found.manifest.labels.names == ["whole", "part"] and found.manifest.labels.overlapping
    expected = [RIGHT + 2 * LEFT if n == 3 else whole + 2 * LEFT for n in range(6)]
    assert all(np.array_equal(a, b) for a, b in zip(truths(found), expected, strict=True))
    examined = examine((found.manifest.cases[0], found.manifest))
    assert examined.voxels == {1: int(whole.sum()), 2: int(LEFT.sum())} and not errors(found)


def test_a_cropped_segmentation_is_placed_by_its_geometry(tmp_path):
    low = np.array([1, 2, 0])

    def write(n, path):
        part = (LEFT + 2 * RIGHT)[1:11, 2:9, 0:6]
        seg_nrrd(path, part, [("anterior", 1, 0), ("posterior", 2, 0)], origin=low)

    found = slicer(tmp_path, write)
    grids = [files.read_grid(case.images[0]) for case in found.manifest]
    placed = [read_label(c, found.manifest, g) for c, g in zip(found.manifest, grids, strict=True)]
    assert all(np.array_equal(one.array, LEFT + 2 * RIGHT) for one in placed)
    assert not errors(found)


def test_scan_and_segmentation_in_one_folder_are_a_pair(tmp_path):
    for n in range(3):
        seg_nrrd(tmp_path / f"p{n}.nrrd", noise(n, SHAPE, np.uint8), [])
        seg_nrrd(tmp_path / f"p{n}.seg.nrrd", LEFT, [("liver", 1, 0)])
    manifest = discover(tmp_path).manifest
    assert [case.id for case in manifest] == ["p0", "p1", "p2"]
    assert all(case.label[0].path.endswith(".seg.nrrd") for case in manifest)
    assert manifest.labels.names == ["liver"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_names_travel_within_the_mask(tmp_path, ending):
    """A mask that was copied away from its folder still names its structures."""
    labels = LabelSet.from_names({1: "liver", 4: "left kidney"})
    grid = files.read_grid(nifti(tmp_path / "grid.nii.gz", noise(0)))
    for n in range(3):
        mask = Volume(LEFT + 4 * RIGHT, grid, "label")
        for side in ("masks", "other"):
            (tmp_path / side).mkdir(exist_ok=True)
            files.write(mask, tmp_path / side / f"c{n}{ending}", labels=labels)
        nifti(tmp_path / "scans" / "images" / f"c{n}.nii.gz", noise(n))
    assert names_in(tmp_path / "masks" / f"c0{ending}") == {1: "liver", 4: "left kidney"}
    found = evaluate(tmp_path / "masks", tmp_path / "other", None, EvaluateOptions(workers=1))
    assert found.scores.labels == ["liver", "left kidney"]
    (tmp_path / "masks").rename(tmp_path / "scans" / "labels")
    assert discover(tmp_path / "scans").manifest.labels.names == ["liver", "left kidney"]
    # The user's own table comes first.
    (tmp_path / "scans" / "labels.csv").write_text("1,Leber\n4,Niere\n")
    assert discover(tmp_path / "scans").manifest.labels.names == ["Leber", "Niere"]


def test_names_in_the_masks_alone_pair_structures_or_are_refused(tmp_path):
    grid = files.read_grid(nifti(tmp_path / "grid.nii.gz", noise(0)))

    def write(side: str, mask: np.ndarray, names: dict[int, str]) -> None:
        (tmp_path / side).mkdir(exist_ok=True)
        volume = Volume(mask, grid, "label")
        files.write(volume, tmp_path / side / "a.nii.gz", labels=LabelSet.from_names(names))

    write("p", LEFT + 2 * RIGHT, {1: "oedema", 2: "core"})
    write("t", 2 * LEFT + RIGHT, {1: "core", 2: "edema"})
    found = evaluate(tmp_path / "p", tmp_path / "t", None, EvaluateOptions(workers=1))
    assert found.scores.mean("dice") == 1.0
    write("t", 2 * LEFT + RIGHT, {1: "core", 2: "cyst"})
    with pytest.raises(LabelError, match="names of predictions and truth contradict"):
        evaluate(tmp_path / "p", tmp_path / "t", None, EvaluateOptions(workers=1))


# ---- place ----


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_label_with_other_axes_is_moved_without_resampling(tmp_path, axes, flips):
    def write(n, path):
        mask, affine = (LEFT + 2 * RIGHT), AFFINE.copy()
        for axis in flips:
            mask = np.flip(mask, axis)
            affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
            affine[:3, axis] *= -1
        turned = affine.copy()
        turned[:3, :3] = affine[:3, list(axes)]
        nifti(path.with_suffix(".nii.gz"), mask.transpose(axes), turned)

    found = cohort(tmp_path, write)
    case = found.manifest.cases[0]
    label = read_label(case, found.manifest, files.read_grid(case.images[0]))
    assert np.array_equal(label.array, LEFT + 2 * RIGHT) and not errors(found)


def test_a_header_shifted_by_whole_voxels_is_no_part(tmp_path):
    shifted = AFFINE.copy()
    shifted[:3, 3] += AFFINE[:3, 0]
    found = cohort(tmp_path, lambda n, path: nifti(path.with_suffix(".nii.gz"), LEFT, shifted))
    assert len(errors(found)) == 6
    with pytest.raises(DelineateError, match="geometry differ"):
        read_label(
            found.manifest.cases[0],
            found.manifest,
            files.read_grid(found.manifest.cases[0].images[0]),
        )


def test_a_scan_without_a_place_gets_that_of_its_label(tmp_path):
    import nibabel as nib

    for n in range(3):
        image = nib.Nifti1Image(noise(n), None)
        image.header.set_zooms((0.8, 1.1, 2.5))
        path = tmp_path / "images" / f"c{n}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(image, path)
        nifti(tmp_path / "labels" / f"c{n}.nii.gz", LEFT)
    found = discover(tmp_path)
    volume = read_image(found.manifest.cases[0], found.manifest)
    assert np.allclose(volume.affine, AFFINE) and np.array_equal(volume.array[0], noise(0))
    notes = [f.message for f in examine((found.manifest.cases[0], found.manifest)).findings]
    assert any("states no position; it has that of its label" in note for note in notes)
    assert not errors(found)


def test_the_field_of_view_is_no_truth_where_a_manual_outline_is_there(tmp_path):
    for n in range(3):
        for folder, array in (
            ("images", noise(n, (3, 12, 10), np.uint8)),
            ("mask", np.full((12, 10), 255, np.uint8)),
            ("1st_manual", ((FLAT > 0) * 255).astype(np.uint8)),
        ):
            suffix = {"images": "training", "mask": "training_mask", "1st_manual": "manual1"}
            png(tmp_path / "training" / folder / f"2{n}_{suffix[folder]}.png", array)
    found = discover(tmp_path)
    assert {case.label[0].path.split("/")[-2] for case in found.manifest} == {"1st_manual"}
    unused = [str(group) for group in account_for(found.manifest) if not group.use]
    assert unused == [next(line for line in unused if "training/mask: not used" in line)]


def said(found) -> str:
    return " ".join(f.message for f in found.findings if f.severity == "warning")


@pytest.mark.parametrize(
    "table",
    [
        "value;name\n1;liver\n2;spleen\n",
        "name,value\nliver,1\nspleen,2\n",
        "id,label,name\n7,1,liver\n8,2,spleen\n",
        "id,label\n1,liver\n2,spleen\n",
        "liver,1\nspleen,2\n",
    ],
)
def test_the_columns_of_a_table_are_found_by_their_headings(tmp_path, table):
    (tmp_path / "labels.csv").write_text(table)
    found = pictures(tmp_path, lambda n, path: png(path.with_suffix(".png"), FLAT))
    assert {b.value: b.name for b in found.manifest.labels} == {1: "liver", 2: "spleen"}
    assert not said(found)


SNAP = """################
# ITK-SnAP Label Description File
################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "liver"
    2     0  255    0        0.5  1  1    "right kidney"
"""
LUT = "#No. Label Name: R G B A\n0 Unknown 0 0 0 0\n1 liver 9 9 9 0\n2 right_kidney 8 8 8 0\n"


@pytest.mark.parametrize(
    ("table", "text"), [("labels.txt", SNAP), ("my.label", SNAP), ("c.ctbl", LUT)]
)
@pytest.mark.parametrize("pair", ["images/{}.png labels/{}.png", "{}.png {}_seg.png"])
def test_label_descriptions_of_other_programs(tmp_path, pair, table, text):
    image, label = pair.split()
    for n in range(3):
        png(tmp_path / image.format(n), noise(n, (12, 10), np.uint8))
        png(tmp_path / label.format(n), FLAT)
    (tmp_path / table).write_text(text)
    (tmp_path / "readme.txt").write_text("12 cases of liver 1 2 3\n")
    found = discover(tmp_path)
    named = {b.value: b.name.replace("_", " ") for b in found.manifest.labels}
    assert named == {1: "liver", 2: "right kidney"} and not said(found)


def test_a_mask_without_background_is_a_warning(tmp_path):
    found = pictures(tmp_path, lambda n, path: png(path.with_suffix(".png"), FLAT + 1))
    assert "all corners of every mask have the value 1" in said(found)


def test_a_structure_that_a_table_calls_void_is_a_warning(tmp_path):
    (tmp_path / "labels.csv").write_text("value,name\n1,liver\n2,void\n")
    found = pictures(tmp_path, lambda n, path: png(path.with_suffix(".png"), FLAT))
    assert "--ignore 2" in said(found)


def test_images_in_place_of_masks_are_refused(tmp_path):
    with pytest.raises(LabelError, match=r"c\d\.nii.*is no mask"):
        cohort(
            tmp_path,
            lambda n, path: nifti(path.with_suffix(".nii"), noise(n, SHAPE).astype(np.int16)),
        )


def test_a_cohort_in_centimetres_is_a_warning(tmp_path):
    from delineate.cohorts.checks.across_cases import check_extent

    affine = AFFINE.copy()
    affine[:3] /= 10
    for n in range(2):
        nifti(tmp_path / "images" / f"c{n}.nii.gz", noise(n), affine)
        nifti(tmp_path / "labels" / f"c{n}.nii.gz", box(), affine)
    found = discover(tmp_path).manifest
    all_of = [examine((case, found)) for case in found]
    assert [f.kind for f in check_extent(all_of)] == ["size"]


def test_masks_with_one_file_each_that_overlap_are_counted(tmp_path):
    """A tumour in its organ is noted; two organs in one place are a warning, with what is lost."""
    for n in range(3):
        folder = tmp_path / f"s{n}"
        nifti(folder / "ct.nii.gz", noise(n))
        nifti(folder / "segmentations" / "liver.nii.gz", box(size=4))
        nifti(folder / "segmentations" / "liver_tumour.nii.gz", box(size=2))
        spleen = box(at=(5, 6, 1), size=3) if n == 1 else box(at=(8, 6, 1), size=3)
        nifti(folder / "segmentations" / "spleen.nii.gz", spleen)
    manifest = discover(tmp_path).manifest
    found = [f for case in manifest for f in examine((case, manifest)).findings]
    overlaps = [f for f in found if f.kind == "overlap"]
    noted = [f for f in overlaps if f.severity == "note"]
    assert {(f.case, f.data["voxels"]) for f in noted} == {(f"s{n}", 8) for n in range(3)}
    (odd,) = [f for f in overlaps if f.severity == "warning"]
    shared = int((box(size=4) & box(at=(5, 6, 1), size=3)).sum())
    assert odd.case == "s1" and odd.data == {"structures": ["liver", "spleen"], "voxels": shared}
    assert f"liver keeps {64 - 8 - shared} voxels" in odd.message


def drawn(*places: int) -> frozenset[int]:
    """The codes of a file with these places of viridis."""
    scale = colormaps["viridis"](np.arange(256), bytes=True)[:, :3].astype(int)
    return frozenset(red << 16 | green << 8 | blue for red, green, blue in scale[list(places)])


@pytest.mark.parametrize(
    ("others", "unclear"),
    [
        ((), (2,)),  # the single class may be any
        (((0, 85),), ()),  # all files have one scale: this one lacks the highest colour
        (((0, 128, 255),), (2, 3)),  # this one has a scale of its own
        (((0,),), (2,)),  # an empty slice shows nothing
    ],
)
def test_one_class_in_the_highest_colour_is_unclear_unless_files_share_a_scale(others, unclear):
    files = [drawn(0, 85, 170, 255)] * 2 + [drawn(0, 255)] + [drawn(*one) for one in others]
    found = scale_of(files, grey=False)
    assert found is not None and found.unclear == unclear

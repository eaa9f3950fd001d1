"""Layouts of 2-D collections, imitated: names, formats, values and files next to them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cohorts.test_layouts_volumes import found_in, names, rows, says

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_label
from delineate.core.errors import LayoutError

SIDE = 16


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def photo(path: Path, seed: int) -> Path:
    shape = (SIDE, SIDE, 3)
    return save(np.random.default_rng(seed).integers(0, 250, shape).astype(np.uint8), path)


def film(path: Path, seed: int) -> Path:
    shape = (SIDE, SIDE)
    return save(np.random.default_rng(seed).integers(0, 250, shape).astype(np.uint8), path)


def mask(path: Path, *boxes: tuple[int, int], value: int = 255, back: int = 0) -> Path:
    """A mask with a 3 x 3 box at each (row, column)."""
    array = np.full((SIDE, SIDE), back, np.uint8)
    for row, column in boxes or ((4, 4),):
        array[row : row + 3, column : column + 3] = value
    return save(array, path)


def sizes(found, case: str) -> dict[str, int]:
    """Structure -> pixels of one case."""
    manifest = found.manifest
    array = read_label(manifest.named(case), manifest).array
    return {one.name: int((array == one.value).sum()) for one in manifest.labels}


def test_isic_2017(tmp_path):
    for split, first in (("Training", 0), ("Validation", 5), ("Test_v2", 8)):
        place = tmp_path / f"ISIC-2017_{split}_Data"
        for n in range(first, first + 2):
            photo(place / f"ISIC_{n:07d}.jpg", n)
            film(place / f"ISIC_{n:07d}_superpixels.png", n)
            mask(tmp_path / f"ISIC-2017_{split}_Part1_GroundTruth/ISIC_{n:07d}_segmentation.png")
        (place / f"ISIC-2017_{split}_Data_metadata.csv").write_text("image_id,age\n")
    found = found_in(tmp_path, "isic")
    assert [row[3] for row in rows(found)] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert names(found) == {1: "skin lesion"} and says(found, "unused", "superpixels")


def test_isic_2018(tmp_path):
    for n in range(2):
        photo(tmp_path / f"ISIC2018_Task1-2_Training_Input/ISIC_{n:07d}.jpg", n)
        mask(tmp_path / f"ISIC2018_Task1_Training_GroundTruth/ISIC_{n:07d}_segmentation.png")
        mask(
            tmp_path / f"ISIC2018_Task2_Training_GroundTruth_v3/ISIC_{n:07d}_attribute_globules.png"
        )
        photo(tmp_path / f"ISIC2018_Task1-2_Test_Input/ISIC_{n + 9:07d}.jpg", n + 9)
    found = found_in(tmp_path, "isic")
    assert rows(found) == [
        ("ISIC_0000000", "ISIC_0000000", "", None, 1),
        ("ISIC_0000001", "ISIC_0000001", "", None, 1),
        ("ISIC_0000009", "ISIC_0000009", "", "test", 0),
        ("ISIC_0000010", "ISIC_0000010", "", "test", 0),
    ]


def test_isic_2016(tmp_path):
    for n in range(2):
        photo(tmp_path / f"ISBI2016_ISIC_Part1_Training_Data/ISIC_{n:07d}.jpg", n)
        mask(tmp_path / f"ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_{n:07d}_Segmentation.png")
    assert len(found_in(tmp_path, "isic").manifest.with_truth()) == 2


def test_ph2(tmp_path):
    for n in ("002", "003"):
        place = tmp_path / "PH2 Dataset images" / f"IMD{n}"
        photo(place / f"IMD{n}_Dermoscopic_Image/IMD{n}.bmp", int(n))
        mask(place / f"IMD{n}_lesion/IMD{n}_lesion.bmp")
        mask(place / f"IMD{n}_roi/IMD{n}_R1_Label3.bmp")
    assert len(found_in(tmp_path, "ph2").manifest.with_truth()) == 2


@pytest.mark.parametrize(
    ("layout", "image", "label"),
    [
        ("cvc-clinicdb", "Original/{n}.tif", "Ground Truth/{n}.tif"),
        ("etis-larib", "ETIS-LaribPolypDB/{n}.tif", "Ground Truth/p{n}.tif"),
        ("cvc-300", "bbdd/{n}.bmp", "gtpolyp/{n}.tif"),
    ],
)
def test_polyps(tmp_path, layout, image, label):
    for n in range(1, 4):
        photo(tmp_path / image.format(n=n), n)
        mask(tmp_path / label.format(n=n), (n, 2))
        if layout == "cvc-300":
            mask(tmp_path / f"gtlumen/{n}.tif")
    found = found_in(tmp_path, layout)
    assert len(found.manifest.with_truth()) == 3 and names(found) == {1: "polyp"}
    for case in found.manifest:
        assert case.images[0].path == str(tmp_path / image.format(n=case.id))
        assert case.label[0].path == str(tmp_path / label.format(n=case.id))


def test_equal_folders_of_another_collection_have_no_names(tmp_path):
    for n in range(2):
        film(tmp_path / f"Original/{n}.png", n)
        mask(tmp_path / f"Ground Truth/{n}.png")
    # No folder may have the word in its name.
    root = tmp_path.rename(tmp_path.parent / "thyroid")
    assert names(found_in(root, "cvc-clinicdb")) == {1: "foreground"}


def test_montgomery(tmp_path):
    for n, kind in ((1, 0), (2, 1), (3, 0)):
        name = f"MCUCXR_{n:04d}_{kind}"
        film(tmp_path / f"CXR_png/{name}.png", n)
        mask(tmp_path / f"ManualMask/leftMask/{name}.png", (4, 9))
        mask(tmp_path / f"ManualMask/rightMask/{name}.png", (4, 1), (8, 1))
        (tmp_path / "ClinicalReadings").mkdir(exist_ok=True)
        (tmp_path / f"ClinicalReadings/{name}.txt").write_text("F 24Y\nnormal\n")
    found = found_in(tmp_path, "montgomery")
    assert [row[2] for row in rows(found)] == ["normal", "tuberculosis", "normal"]
    assert sizes(found, "MCUCXR_0002_1") == {"left lung": 9, "right lung": 18}


def test_shenzhen(tmp_path):
    for n in range(1, 4):
        film(tmp_path / f"CXR_png/CHNCXR_{n:04d}_{n % 2}.png", n)
        if n < 3:  # some films have no mask
            mask(tmp_path / f"mask/CHNCXR_{n:04d}_{n % 2}_mask.png")
    found = found_in(tmp_path, "shenzhen")
    assert [row[4] for row in rows(found)] == [1, 1, 0] and names(found) == {1: "lungs"}


def test_jsrt(tmp_path):
    places = {"left lung": (2, 9), "right lung": (2, 2), "heart": (9, 6), "left clavicle": (2, 10)}
    for n, fold in (("JPCLN001", 1), ("JPCNN002", 2)):
        film(tmp_path / f"images/{n}.png", fold)
        for structure, place in places.items():
            mask(tmp_path / f"scratch/fold{fold}/masks/{structure}/{n}.gif", place)
    found = found_in(tmp_path, "jsrt")
    # The clavicle is drawn over the lung.
    assert sizes(found, "JPCLN001") == {
        "left lung": 3,
        "right lung": 9,
        "heart": 9,
        "left clavicle": 9,
    }


def test_busi(tmp_path):
    for n, kind in enumerate(("benign", "malignant", "normal")):
        for k in range(1, 3):
            photo(tmp_path / f"Dataset_BUSI_with_GT/{kind}/{kind} ({k}).png", 10 * n + k)
            at = tmp_path / f"Dataset_BUSI_with_GT/{kind}/{kind} ({k})_mask.png"
            save(np.zeros((SIDE, SIDE), np.uint8), at) if kind == "normal" else mask(at)
    mask(tmp_path / "Dataset_BUSI_with_GT/benign/benign (2)_mask_1.png", (10, 10))
    from delineate.cohorts.discovery.layouts import discover

    found = discover(tmp_path)
    assert found.manifest.layout == "busi" and len(found.manifest) == 6
    assert sorted({row[2] for row in rows(found)}) == ["benign", "malignant", "normal"]
    assert sizes(found, "benign (2)") == {"breast lesion": 18}
    assert sizes(found, "normal (1)") == {"breast lesion": 0}


def test_dsb2018(tmp_path):
    for n in range(2):
        case = f"{n}" * 64
        photo(tmp_path / f"stage1_train/{case}/images/{case}.png", n)
        for k in range(n + 2):
            mask(tmp_path / f"stage1_train/{case}/masks/{chr(97 + k) * 64}.png", (1 + 4 * k, 3))
        photo(tmp_path / f"stage1_test/{chr(99 + n) * 64}/images/{chr(99 + n) * 64}.png", n + 7)
    (tmp_path / "stage1_train_labels.csv").write_text("ImageId,EncodedPixels\n")
    found = found_in(tmp_path, "dsb2018")
    assert [row[3:] for row in rows(found)] == [(None, 2), (None, 3), ("test", 0), ("test", 0)]
    assert sizes(found, "1" * 64) == {"nucleus": 27}
    found = found_in(tmp_path / "stage1_train", "dsb2018")
    assert len(found.manifest) == 2 and names(found) == {1: "nucleus"}


def test_glas(tmp_path):
    for name in ("train_1", "train_2", "testA_1", "testB_1"):
        photo(tmp_path / f"{name}.bmp", sum(map(ord, name)))
        array = np.zeros((SIDE, SIDE), np.uint8)
        array[1:4, 1:4], array[8:11, 8:11] = 1, 2
        save(array, tmp_path / f"{name}_anno.bmp")
    (tmp_path / "Grade.csv").write_text(
        "name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"
        "train_1, 5, benign, adenomatous\ntrain_2, 5, malignant, poor\ntestA_1, 7, benign, x\n"
    )
    found = found_in(tmp_path, "glas")
    assert [row[:4] for row in rows(found)] == [
        ("train_1", "5", "benign", None),
        ("train_2", "5", "malignant", None),
        ("testA_1", "7", "benign", "test"),
        ("testB_1", "testB_1", "", "test"),
    ]
    assert sizes(found, "train_1") == {"gland": 18}


# ---- eyes ----


def test_drive(tmp_path):
    for split, first in (("training", 21), ("test", 1)):
        for n in range(first, first + 2):
            photo(tmp_path / f"{split}/images/{n:02d}_{split}.tif", n)
            mask(tmp_path / f"{split}/1st_manual/{n:02d}_manual1.gif", (3, 3))
            mask(tmp_path / f"{split}/mask/{n:02d}_{split}_mask.gif", *[(2, 2), (5, 5)])
            if split == "test":
                mask(tmp_path / f"test/2nd_manual/{n:02d}_manual2.gif", (3, 4))
    found = found_in(tmp_path, "drive")
    assert [row[:1] + row[3:] for row in rows(found)] == [
        ("21", None, 1),
        ("22", None, 1),
        ("01", "test", 1),
        ("02", "test", 1),
    ]
    assert {Path(c.label[0].path).parent.name for c in found.manifest} == {"1st_manual"}
    assert says(found, "unused", "field of view") and names(found) == {1: "vessels"}


def test_chase_db1(tmp_path):
    for name in ("01L", "01R", "02L"):
        photo(tmp_path / f"Image_{name}.jpg", sum(map(ord, name)))
        mask(tmp_path / f"Image_{name}_1stHO.png", (3, 3))
        mask(tmp_path / f"Image_{name}_2ndHO.png", (3, 4))
    found = found_in(tmp_path, "chase-db1")
    assert [row[:2] for row in rows(found)] == [
        ("Image_01L", "01"),
        ("Image_01R", "01"),
        ("Image_02L", "02"),
    ]
    assert all(Path(c.label[0].path).stem.endswith("1stHO") for c in found.manifest)


@pytest.mark.parametrize("ending", ["png", "ppm", "ppm.gz"])
def test_stare(tmp_path, ending):
    for n in (1, 2):
        photo(tmp_path / f"stare-images/im{n:04d}.png", n)
        mask(tmp_path / f"labels-ah/im{n:04d}.ah.png")
        mask(tmp_path / f"labels-vk/im{n:04d}.vk.png")
    for path in [*tmp_path.rglob("*.png")] if ending != "png" else []:
        Image.open(path).save(path.with_suffix(".ppm"))
        if ending == "ppm.gz":
            plain = path.with_suffix(".ppm")
            plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
        path.unlink()
    found = found_in(tmp_path, "stare")
    assert {Path(c.label[0].path).parent.name for c in found.manifest} == {"labels-ah"}


def test_hrf(tmp_path):
    for name in ("01_dr", "01_g", "01_h"):
        photo(tmp_path / f"images/{name}.JPG", sum(map(ord, name)))
        mask(tmp_path / f"manual1/{name}.tif")
        mask(tmp_path / f"mask/{name}_mask.tif")
    found = found_in(tmp_path, "hrf")
    assert [row[1:3] for row in rows(found)] == [
        ("01_dr", "diabetic retinopathy"),
        ("01_g", "glaucoma"),
        ("01_h", "healthy"),
    ]


def test_refuge(tmp_path):
    for kind, name in (("Glaucoma", "g0001"), ("Non-Glaucoma", "n0001")):
        photo(tmp_path / f"REFUGE-Training400/Training400/{kind}/{name}.jpg", len(kind))
        array = np.full((SIDE, SIDE), 255, np.uint8)
        array[2:10, 2:10], array[4:6, 4:6] = 128, 0
        save(array, tmp_path / f"Annotation-Training400/Disc_Cup_Masks/{kind}/{name}.bmp")
    found = found_in(tmp_path, "refuge")
    assert sizes(found, "g0001") == {"optic disc": 60, "optic cup": 4}
    assert [row[2] for row in rows(found)] == ["Glaucoma", "Non-Glaucoma"]


def test_idrid(tmp_path):
    for split, n in (("a. Training Set", 1), ("b. Testing Set", 55)):
        photo(tmp_path / f"1. Original Images/{split}/IDRiD_{n:02d}.jpg", n)
        place = tmp_path / "2. All Segmentation Groundtruths" / split
        mask(place / f"1. Microaneurysms/IDRiD_{n:02d}_MA.tif", (3, 3))
        mask(place / f"5. Optic Disc/IDRiD_{n:02d}_OD.tif", (9, 9))
    found = found_in(tmp_path, "idrid")
    assert sizes(found, "IDRiD_01") == {"optic disc": 9, "microaneurysms": 9}
    assert [row[3] for row in rows(found)] == [None, "test"]


# ---- Pascal VOC ----


def palette_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values, "P")
    colours = [0] * 768
    colours[3:9], colours[765:] = [128, 0, 0, 0, 128, 0], [224, 224, 192]
    image.putpalette(colours)
    image.save(path)


def test_pascal_voc(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    for n in range(5):
        photo(root / f"JPEGImages/2007_{n:06d}.jpg", n)
        values = np.zeros((SIDE, SIDE), np.uint8)
        values[2:8, 2:8], values[3:7, 3:7] = 255, 1 + n % 2
        if n < 4:
            palette_mask(root / f"SegmentationClass/2007_{n:06d}.png", values)
            palette_mask(root / f"SegmentationObject/2007_{n:06d}.png", values)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000000\n2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n2007_000003\n")
    (lists / "trainval.txt").write_text("2007_000000\n")
    found = found_in(tmp_path, "pascal-voc")
    assert [row[3] for row in rows(found)] == ["train", "train", "val", "val"]
    assert found.manifest.labels.names == ["label 1", "label 2"]
    array = read_label(found.manifest.cases[0], found.manifest).array
    assert (array == 1).sum() == 16 and (array > 2).sum() == 20  # the border is ignored
    assert says(found, "unused", "1 pictures without a mask")


def test_pascal_voc_of_an_annotation_program(tmp_path):
    for n in range(3):
        photo(tmp_path / f"JPEGImages/scan_{n}.png", n)
        array = np.zeros((SIDE, SIDE, 3), np.uint8)
        array[2:6, 2:6] = (128, 0, 0)
        array[8:10, 8:10] = (0, 128, 0)
        save(array, tmp_path / f"SegmentationClass/scan_{n}.png")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nliver:128,0,0::\nspleen:0,128,0::\n"
    )
    found = found_in(tmp_path, "pascal-voc")
    assert sizes(found, "scan_0") == {"liver": 16, "spleen": 4}


# ---- outlines of annotation programs ----

CORNERS = [2, 3, 7, 3, 7, 6, 2, 6]


def coco(path: Path, names_: list[str], start: int = 0, label: int = 1) -> None:
    """Outlines of one structure in all pictures but the last one."""
    data = {
        "images": [
            {"id": start + n, "file_name": name, "width": SIDE, "height": SIDE}
            for n, name in enumerate(names_)
        ],
        "annotations": [
            {"id": n, "image_id": start + n, "category_id": label, "segmentation": [CORNERS]}
            for n in range(len(names_) - 1)
        ],
        "categories": [{"id": 1, "name": "liver"}, {"id": 7, "name": "cyst"}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def test_coco_with_parts(tmp_path):
    for part, label in (("train", 1), ("val", 7)):
        files = [f"{part}_{n}.jpg" for n in range(3)]
        for n, name in enumerate(files):
            photo(tmp_path / f"{part}2017" / name, n + 10 * label)
        coco(tmp_path / f"annotations/instances_{part}2017.json", files, label=label)
        (tmp_path / f"annotations/captions_{part}2017.json").write_text('{"annotations": []}')
    found = found_in_pictures(tmp_path, 6)
    assert [row[3] for row in rows(found)] == ["train"] * 3 + ["val"] * 3
    assert sizes(found, "train_0") == {"cyst": 0, "liver": 15}
    assert sizes(found, "val_0") == {"cyst": 15, "liver": 0}
    assert sizes(found, "train_2") == {"cyst": 0, "liver": 0}


def found_in_pictures(root: Path, cases: int):
    from delineate.cohorts.checks.doctor import examine
    from delineate.cohorts.discovery.layouts import discover

    found = discover(root)
    assert found.manifest.layout == "annotated" and len(found.manifest) == cases
    header = found.manifest.only(())
    for case in found.manifest:
        errors = [f for f in examine((case, header)).findings if f.severity == "error"]
        assert not errors, errors
    return found


def test_coco_next_to_the_pictures_of_each_part(tmp_path):
    for part in ("train", "valid"):
        for n in range(2):
            photo(tmp_path / part / f"scan_{n}.png", n + len(part))
        coco(tmp_path / part / "_annotations.coco.json", ["scan_0.png", "scan_1.png"])
    found = found_in_pictures(tmp_path, 4)
    for case in found.manifest:
        assert Path(case.images[0].path).parent == Path(case.label[0].path).parent


def test_a_picture_that_is_listed_but_missing_is_said(tmp_path):
    photo(tmp_path / "images/0.png", 0)
    photo(tmp_path / "images/9.png", 9)
    coco(tmp_path / "annotations/instances_default.json", ["0.png", "1.png"])
    found = found_in_pictures(tmp_path, 1)
    assert says(found, "unpaired", "lists 1.png") and says(found, "unused", "1 pictures")


def test_two_files_for_one_picture_are_refused(tmp_path):
    photo(tmp_path / "images/0.png", 0)
    photo(tmp_path / "images/1.png", 1)
    for name in ("reader_a.json", "reader_b.json"):
        coco(tmp_path / name, ["0.png", "1.png"])
    with pytest.raises(LayoutError, match="two annotators"):
        found_in_pictures(tmp_path, 2)


def test_labelme_files_with_different_structures(tmp_path):
    for n in range(3):
        film(tmp_path / f"{n}.png", n)
        points = np.array(CORNERS, float).reshape(-1, 2).tolist()
        shapes = [{"label": ("liver", "cyst")[n], "points": points}] if n < 2 else []
        data = {"shapes": shapes, "imagePath": f"{n}.png", "imageHeight": SIDE, "imageWidth": SIDE}
        (tmp_path / f"{n}.json").write_text(json.dumps(data))
    found = found_in_pictures(tmp_path, 3)
    assert sizes(found, "0") == {"cyst": 0, "liver": 15}
    assert sizes(found, "1") == {"cyst": 15, "liver": 0}
    assert sizes(found, "2") == {"cyst": 0, "liver": 0}


def test_cvat_tracks_of_videos(tmp_path):
    """Frames are named by their number; a track ends where it is outside; a video is a patient."""
    points = "2,3;7,3;7,6;2,6"
    shapes = "".join(
        f'<polygon frame="{n}" outside="{int(n == 3)}" points="{points}"/>' for n in (1, 2, 3)
    )
    text = (
        f"<annotations><meta><task><start_frame>0</start_frame><stop_frame>4</stop_frame>"
        f"<original_size><width>{SIDE}</width><height>{SIDE}</height></original_size></task></meta>"
        f'<track id="0" label="polyp">{shapes}</track></annotations>'
    )
    for video in ("a", "b"):
        for n in range(5):
            film(tmp_path / video / "images" / f"frame_{n:06d}.PNG", n)
        (tmp_path / video / "annotations.xml").write_text(text)
    found = discover(tmp_path)
    assert found.manifest.layout == "annotated" and sorted(found.manifest.patients) == ["a", "b"]
    drawn = [int(read_label(c, found.manifest).array.sum()) for c in found.manifest]
    assert drawn == [0, 15, 15, 0, 0] * 2


def test_aperio_outlines_of_monuseg(tmp_path):
    region = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((2, 3), (7, 3), (7, 6), (2, 6)))
    text = (
        '<Annotations MicronsPerPixel="0.252"><Annotation Id="1"><Attributes>'
        '<Attribute Name="Description" Value=""/></Attributes><Regions><Region Id="1"><Vertices>'
        f"{region}</Vertices></Region></Regions></Annotation></Annotations>"
    )
    for n in range(3):
        film(tmp_path / "Tissue Images" / f"TCGA-A7-A13{n}-01Z.tif", n)
        path = tmp_path / "Annotations" / f"TCGA-A7-A13{n}-01Z.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = found_in(tmp_path, "annotated")
    assert len(found.manifest.patients) == 3
    assert int(read_label(found.manifest.cases[2], found.manifest).array.sum()) == 15


def test_cvat_and_via(tmp_path):
    for place in ("cvat", "via"):
        for n in range(2):
            film(tmp_path / place / f"images/{n}.png", n)
    images = "".join(
        f'<image id="{n}" name="{n}.png" width="{SIDE}" height="{SIDE}">'
        '<polygon label="liver" points="2,3;7,3;7,6;2,6"/></image>'
        for n in range(2)
    )
    (tmp_path / "cvat/annotations.xml").write_text(f"<annotations>{images}</annotations>")
    form = {"name": "polygon", "all_points_x": CORNERS[::2], "all_points_y": CORNERS[1::2]}
    region = {"shape_attributes": form, "region_attributes": {"organ": "liver"}}
    project = {f"{n}.png7": {"filename": f"{n}.png", "regions": [region]} for n in range(2)}
    (tmp_path / "via/via_project.json").write_text(json.dumps({"_via_img_metadata": project}))
    for place in ("cvat", "via"):
        assert sizes(found_in_pictures(tmp_path / place, 2), "1") == {"liver": 15}

"""Drafts of descriptions for folders of no known layout: each is proved on an invented tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cohorts.imitate import nifti, noise, png

from delineate.cohorts.discovery.drafts import draft
from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_label
from delineate.core.errors import DelineateError, LayoutError

SIDE = (16, 14)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, SIDE).astype(np.uint8)


def blob(value: int = 255, at: int = 3, size: int = 6) -> np.ndarray:
    out = np.zeros(SIDE, np.uint8)
    out[at : at + size, at : at + size] = value
    return out


def colours(array: np.ndarray) -> np.ndarray:
    return np.stack([array, array // 2, array // 3])


def scan(path: Path, seed: int) -> None:
    nifti(path, noise(seed, (*SIDE, 4)))


def outline(path: Path, value: int = 1, at: int = 3) -> None:
    nifti(path, np.repeat(blob(value, at)[..., None], 4, axis=2))


def found(root: Path, tmp_path: Path):
    """The cohort of the draft, as a person would use it."""
    text = draft(root).text
    path = tmp_path / "draft.yaml"
    path.write_text(text, encoding="utf-8")
    return discover(root, description=path).manifest, text


def pairs(manifest) -> list[tuple[str, list[str], list[str]]]:
    return [
        (case.id, [Path(s.path).name for s in case.images], [Path(s.path).name for s in case.label])
        for case in manifest
    ]


# Tree -> (files of images, files of masks, pairs that must be found). Images have text A, masks B.
TREES = {
    "nested by patient": ("P{n}/scan.nii.gz", "P{n}/tumour.nii.gz"),
    "nested twice, name repeated": ("pat{n}/pre/pat{n}_mr.nii.gz", "pat{n}/pre/pat{n}_rois.nii.gz"),
    "suffix pairs": ("all/{n}.png", "all/{n}-sol.png"),
    "prefix pairs": ("img_{n}.png", "msk_{n}.png"),
    "word in the middle": ("k{n}-raw-ax.png", "k{n}-bin-ax.png"),
    "different depth": ("a/b/c/{n}.png", "solution/{n}.png"),
    "sibling of another name": ("xray_batch/{n}.png", "xray_batch_truthmaps/{n}.png"),
    "other endings": ("pics/{n}.bmp", "outlined/{n}.tif"),
    "volumes of two formats": ("vols/{n}.nii.gz", "ann/{n}.nii"),
    "padded numbers": ("in/case{n}.png", "out/case_00{n}.png"),
    "localised names": ("Bild_{n}.png", "Maske_{n}.png"),
    "localised folders": ("imágenes/{n}.png", "etiqueta/{n}_et.png"),
    "words, not numbers": ("photos/{w}.png", "traced/{w}.png"),
    "two levels, masks flat": ("P{n}/v1.png", "traced/P{n}_v1.png"),
    "spaces and brackets": ("set A/x [{n}] (1).png", "set B/x [{n}] (1).png"),
    "mixed case": ("Input/S{n}.PNG", "Target/S{n}.png"),
    "bids without a standard": (
        "sub-{n}/anat/sub-{n}_T1w.nii.gz",
        "derivatives/hand/sub-{n}/anat/sub-{n}_desc-lesion_mask.nii.gz",
    ),
}
WORDS = ["anna", "bela", "carl", "dora", "emil"]


def write(path: Path, mask: bool, seed: int) -> None:
    if path.name.endswith((".nii", ".nii.gz")):
        (outline(path) if mask else scan(path, seed))
    else:
        png(path, blob(at=2 + seed % 4) if mask else picture(seed))


@pytest.mark.parametrize("name", TREES)
def test_an_unknown_tree_pairs(tmp_path, name):
    image, mask = TREES[name]
    root = tmp_path / "data"
    for n in range(1, 6):
        write(root / image.format(n=n, w=WORDS[n - 1]), False, n)
        write(root / mask.format(n=n, w=WORDS[n - 1]), True, n)
    manifest, text = found(root, tmp_path)
    assert len(manifest) == len(manifest.with_truth()) == 5, text
    for n in range(1, 6):
        path = str(root / image.format(n=n, w=WORDS[n - 1]))
        case = next(c for c in manifest if c.images[0].path == path)
        assert case.label[0].path == str(root / mask.format(n=n, w=WORDS[n - 1])), text


def test_pairs_do_not_follow_the_order_of_files(tmp_path):
    """Masks 2 to 6 for images 1 to 5: paired by name, with one left on each side."""
    for n in range(1, 6):
        png(tmp_path / "data/x" / f"{n}.png", picture(n))
        png(tmp_path / "data/y" / f"{n + 1}.png", blob())
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert all(c.id == Path(c.label[0].path).stem for c in manifest.with_truth())
    assert len(manifest.with_truth()) == 4


def test_only_some_files_of_a_large_tree_are_read(tmp_path, monkeypatch):
    """Ids of letters and digits, few of which are examined: no id becomes a word of a role."""
    monkeypatch.setattr("delineate.cohorts.discovery.drafts.paths.MOST_READ", 30)
    root = tmp_path / "data"
    for n in range(40):
        case = f"n{n * 7919 % 65521:05x}"
        for k in range(2):
            png(root / case / f"{k}.png", picture(2 * n + k))
            png(root / case / f"{k}_m.png", blob(at=1 + n % 5))
    manifest, text = found(root, tmp_path)
    assert len(manifest.with_truth()) == 80 and len(manifest.patients) == 40, text


def test_masks_with_colours_are_masks(tmp_path):
    for n in range(4):
        png(tmp_path / "data/aa" / f"{n}.png", colours(picture(n)))
        mask = np.stack([blob(200), blob(0), blob(100, at=5)])
        png(tmp_path / "data/bb" / f"{n}.png", mask)
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert {Path(c.label[0].path).parent.name for c in manifest} == {"bb"}
    assert len(manifest.labels) > 1


def test_channels_of_a_case(tmp_path):
    for n in range(4):
        for k, channel in enumerate(("t1", "t2", "flair")):
            scan(tmp_path / "data" / f"s{n}" / f"{channel}.nii.gz", 10 * n + k)
        outline(tmp_path / "data" / f"s{n}" / "drawn.nii.gz")
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert sorted(manifest.channels) == ["flair", "t1", "t2"] and len(manifest) == 4


def test_a_mask_for_each_structure(tmp_path):
    for n in range(4):
        png(tmp_path / "data/xr" / f"{n}.png", picture(n))
        png(tmp_path / "data/lung" / f"{n}.png", blob(at=1, size=4))
        png(tmp_path / "data/heart" / f"{n}.png", blob(at=8, size=5))
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert sorted(manifest.labels.names) == ["heart", "lung"]
    label = read_label(manifest.cases[0], manifest)
    sizes = {label_.name: int((label.array == label_.value).sum()) for label_ in manifest.labels}
    assert sizes == {"lung": 16, "heart": 25}


def test_the_smaller_of_two_nested_structures_stays(tmp_path):
    for n in range(4):
        png(tmp_path / "data/eye" / f"{n}.png", colours(picture(n)))
        png(tmp_path / "data/optic_disc" / f"{n}.png", blob(at=2, size=9))
        png(tmp_path / "data/cup" / f"{n}.png", blob(at=4, size=3))
    manifest, _ = found(tmp_path / "data", tmp_path)
    label = read_label(manifest.cases[0], manifest)
    sizes = {one.name: int((label.array == one.value).sum()) for one in manifest.labels}
    assert sizes == {"optic disc": 72, "cup": 9}


def test_several_masks_of_an_image_are_united(tmp_path):
    for n in range(4):
        png(tmp_path / "data" / f"c{n}" / "photo.png", picture(n))
        for k in range(2 + n % 2):
            name = f"{(7919 * (10 * n + k + 1)) % 65521:04x}"
            png(tmp_path / "data" / f"c{n}" / "objects" / f"{name}.png", blob(at=5 * k, size=3))
    manifest, text = found(tmp_path / "data", tmp_path)
    assert [len(case.label) for case in manifest] == [2, 3, 2, 3], text
    assert [int(read_label(c, manifest).array.sum()) for c in manifest][:2] == [18, 27]


def test_the_folder_of_an_image_states_the_case(tmp_path):
    """Numbers of further masks in it are those of parts, although other cases have them too."""
    for n in range(1, 5):
        png(tmp_path / f"data/case{n:02d}/photo.png", picture(n))
        for k in range(1, 4):
            png(tmp_path / f"data/case{n:02d}/task01_seg{k:02d}.png", blob(at=4 * k - 3, size=3))
    manifest, _ = found(tmp_path / "data", tmp_path)
    rows = [(case, source) for case in manifest for source in case.label]
    assert len(manifest) == 4 and len(rows) == 12
    assert all(Path(case.path).parent == Path(source.path).parent for case, source in rows)


@pytest.mark.parametrize(
    ("scans_of", "masks_of"),
    [
        ("TrainBatch{b}/imagesTr/ATM_{n}_0000", "TrainBatch{b}/labelsTr/ATM_{n}_0000"),
        ("scans-{b}/Part{b}/Rib{n}-image", "drawn-{b}/Part{b}/Rib{n}-label"),
        ("organ{w}/tissue/organ{w}_{m}", "organ{w}/drawn/organ{w}_{m}"),
    ],
)
def test_batches_and_organs_are_no_patients(tmp_path, scans_of, masks_of):
    for n in range(9):
        of = {"b": 1 + n // 3, "n": 100 + n, "m": 1 + n % 3, "w": "abc"[n // 3]}
        png(tmp_path / "data" / f"{scans_of.format(**of)}.png", picture(n))
        png(tmp_path / "data" / f"{masks_of.format(**of)}.png", blob())
    manifest, text = found(tmp_path / "data", tmp_path)
    assert len(manifest) == len(manifest.patients) == 9, text
    assert len({case.group for case in manifest}) == 3


@pytest.mark.parametrize("labelled", [True, False])
def test_train_and_test_parts(tmp_path, labelled):
    for part, count in (("training", 4), ("testing", 3)):
        for n in range(count):
            png(tmp_path / "data" / part / "in" / f"{n}.png", picture(n + count))
            if part == "training" or labelled:
                png(tmp_path / "data" / part / "out" / f"{n}.png", blob())
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert len(manifest.where("test")) == 3 and len(manifest) == 7
    assert len(manifest.with_truth()) == (7 if labelled else 4)


def test_a_test_part_of_another_form(tmp_path):
    for n in range(4):
        png(tmp_path / "data/train/in" / f"{n}.png", picture(n))
        png(tmp_path / "data/train/out" / f"{n}.png", blob())
        png(tmp_path / "data/test" / f"{n + 9}.png", picture(n + 9))
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert len(manifest.where("test")) == 4 and len(manifest.with_truth()) == 4


def test_empty_masks_are_masks(tmp_path):
    for n in range(6):
        png(tmp_path / "data" / f"{n}.png", picture(n))
        png(tmp_path / "data" / f"{n}_drawn.png", blob() * (n > 2))
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert len(manifest) == len(manifest.with_truth()) == 6


def test_classes_are_groups(tmp_path):
    for kind in ("benign", "malignant"):
        for n in range(4):
            png(tmp_path / "data" / kind / "us" / f"{n}.png", picture(n))
            png(tmp_path / "data" / kind / "drawn" / f"{n}.png", blob())
    manifest, _ = found(tmp_path / "data", tmp_path)
    assert sorted({case.group for case in manifest}) == ["benign", "malignant"]
    assert len(manifest.with_truth()) == 8


def test_what_is_left_out_is_said(tmp_path):
    for n in range(4):
        png(tmp_path / "data/pic" / f"{n}.png", picture(n))
        png(tmp_path / "data/drawn" / f"{n}.png", blob())
        png(tmp_path / "data/overlay" / f"{n}.png", picture(n + 50))
        png(tmp_path / "data/fov" / f"{n}.png", blob(at=1, size=12))
    drafted = draft(tmp_path / "data")
    assert "overlay/{id}.png" in str(drafted) and "fov/{id}.png" in str(drafted)
    assert len(drafted.manifest.with_truth()) == 4


def two_raters(root):
    for n in range(4):
        png(root / "pic" / f"{n}.png", picture(n))
        png(root / "drawn_A" / f"{n}.png", blob(at=3))
        png(root / "drawn_B" / f"{n}.png", blob(at=4))


def several_versions(root):
    for n in range(1, 5):
        png(root / f"case{n:02d}" / "photo.png", picture(n))
        for k in range(1, 4):
            png(root / f"case{n:02d}" / f"task01_seg{k:02d}.png", blob(at=3 + k // 3))


def one_radiologist_within_the_other(root):
    for n in range(4):
        png(root / "pic" / f"{n}.png", picture(n))
        png(root / "drawn_rad1" / f"{n}.png", blob(at=3, size=8))
        png(root / "drawn_rad2" / f"{n}.png", blob(at=4, size=6))


def nothing_in_common(root):
    for n in range(4):
        png(root / "pic" / f"{WORDS[n]}.png", picture(n))
        png(root / "drawn" / f"{'qrst'[n]}.png", blob())


def only_masks(root):
    for n in range(4):
        png(root / "one" / f"{n}.png", blob())
        png(root / "two" / f"{n}.png", blob(at=5))


def only_images(root):
    for n in range(4):
        png(root / "one" / f"{n}.png", picture(n))


def repeated_names(root):
    """Images of two hospitals with equal names, and one folder of masks."""
    for n in range(4):
        png(root / "north/pic" / f"{n}.png", picture(n))
        png(root / "south/pic" / f"{n}.png", picture(n + 9))
        png(root / "drawn" / f"{n}.png", blob())


def other_sizes(root):
    for n in range(4):
        png(root / "pic" / f"{n}.png", picture(n))
        png(root / "drawn" / f"{n}.png", blob()[:9])


def two_kinds_of_photos(root):
    for n in range(4):
        png(root / "pic" / f"{n}.png", colours(picture(n)))
        png(root / "enhanced" / f"{n}.png", colours(picture(n + 9)))
        png(root / "drawn" / f"{n}.png", blob())


def unlike_scans(root):
    for n in range(4):
        png(root / "pic" / f"{n}.png", picture(n))
        png(root / "other" / f"{n}.png", picture(n + 9))
        png(root / "drawn" / f"{n}.png", blob())


def nothing_there(root):
    root.mkdir()
    (root / "readme.txt").write_text("nothing")


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        (two_raters, "drawn_A.*drawn_B.*two observers"),
        (several_versions, "several masks of each image that overlap"),
        (one_radiologist_within_the_other, "drawn_rad1.*drawn_rad2.*two observers"),
        (nothing_in_common, "do not pair"),
        (only_masks, "look like masks"),
        (only_images, "no masks were found"),
        (repeated_names, "not alike"),
        (other_sizes, "different sizes"),
        (nothing_there, "no image"),
        (unlike_scans, "not alike"),
        (two_kinds_of_photos, "could both be the images"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, tree, told):
    tree(tmp_path / "data")
    with pytest.raises(LayoutError, match=told):
        draft(tmp_path / "data")


def test_nothing_is_written_without_a_proof(tmp_path):
    from typer.testing import CliRunner

    from delineate.cli.command_line import app

    two_raters(tmp_path / "data")
    out = tmp_path / "draft.yaml"
    result = CliRunner().invoke(app, ["check", str(tmp_path / "data"), "--draft", str(out)])
    assert isinstance(result.exception, DelineateError) or result.exit_code == 2
    assert not out.exists()

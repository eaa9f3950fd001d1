"""Inputs about what a tree means: channels, names of structures and files, patients, and files that
are used for nothing. Readers of single files have no feature for most of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .made import (
    BOTH,
    NAMED,
    Array,
    Right,
    add,
    foreground,
    ids,
    nifti,
    picture,
    png,
    scan,
    voxels,
)

ALL = Right(voxels(BOTH))


# ---- channels ----


def brats(
    modalities: Sequence[str] | Callable[[int], Sequence[str]],
    name: str = "BraTS-GLI-{:05d}-000",
    sep: str = "-",
) -> Callable[[Path], None]:
    """A maker of ``CASE/CASE-MODALITY.nii.gz`` and ``CASE/CASE-seg.nii.gz``."""

    def make(root: Path) -> None:
        for n in range(6):
            case = name.format(n + 1)
            image, label = scan(n)
            given = modalities(n) if callable(modalities) else modalities
            for modality in given:
                nifti(root / case / f"{case}{sep}{modality}.nii.gz", image)
            nifti(root / case / f"{case}{sep}seg.nii.gz", label)

    return make


# Structures of BraTS until 2021; the sums hold for every year.
def four_channels(name: str, words: str, maker: Callable[[Path], None], *names: str) -> None:
    add(
        "channels",
        name,
        words,
        maker,
        Right(cases=6, patients=6, channels=names),
        peers=False,
    )


four_channels(
    "brats_2020",
    "four sequences a case under the names of BraTS 2020",
    brats(["flair", "t1", "t1ce", "t2"], "BraTS20_Training_{:03d}", "_"),
    "FLAIR",
    "T1",
    "T1 post-contrast",
    "T2",
)
four_channels(
    "brats_2023",
    "four sequences a case under the names of BraTS 2023",
    brats(["t1c", "t1n", "t2f", "t2w"]),
    "T1 post-contrast",
    "T1",
    "FLAIR",
    "T2",
)
four_channels(
    "brats_2021",
    "case numbers without a visit, as in BraTS 2021: six patients",
    brats(["flair", "t1", "t1ce", "t2"], "BraTS2021_{:05d}", "_"),
    "FLAIR",
    "T1",
    "T1 post-contrast",
    "T2",
)
four_channels(
    "channel_names_mixed",
    "three cases name the contrast T1 t1ce, the others t1c: one sequence",
    brats(lambda n: ["flair", "t1", "t1ce" if n % 2 else "t1c", "t2"], "case{:02d}", "_"),
    "FLAIR",
    "T1",
    "T1 post-contrast",
    "T2",
)
add(
    "channels",
    "channel_missing_in_one",
    "one case lacks the FLAIR",
    brats(lambda n: ["t1", "t2", *(["flair"] if n != 2 else [])], "case{:02d}", "_"),
    Right(voxels(BOTH, [2]), bad=("case03",), cases=5),
    peers=False,
)


def numbered(
    root: Path,
    channels: Mapping[str, str],
    labels: Mapping[str, object],
    *,
    names: Callable[[int], str] = lambda n: f"TST_{n:03d}",
    label: Callable[[Array], Array] = lambda label: label,
    more: Mapping[str, object] | None = None,
    key: str = "channel_names",
) -> None:
    """A raw data set of nnU-Net."""
    for n in range(6):
        image, truth = scan(n)
        for k in range(len(channels)):
            nifti(root / "imagesTr" / f"{names(n)}_{k:04d}.nii.gz", image + k)
        nifti(root / "labelsTr" / f"{names(n)}.nii.gz", label(truth).astype(np.uint8))
    described = {"numTraining": 6, "file_ending": ".nii.gz", key: channels, "labels": labels}
    (root / "dataset.json").write_text(json.dumps(described | dict(more or {})))


add(
    "channels",
    "nnunet_channels",
    "nnU-Net's numbered channel files with names in dataset.json",
    lambda root: numbered(root, {"0": "T2", "1": "ADC"}, {"background": 0} | NAMED),
    Right(voxels(NAMED), channels=("T2", "ADC")),
    NAMED,
    peers=False,
)


def four_dimensional(root: Path) -> None:
    for n, case in enumerate(ids()):
        image, truth = scan(n)
        nifti(root / "imagesTr" / f"{case}.nii.gz", np.stack([image, image + 9], -1))
        nifti(root / "labelsTr" / f"{case}.nii.gz", truth)
    files = [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in ids()]
    described = {
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "numTraining": 6,
        "training": files,
    }
    (root / "dataset.json").write_text(json.dumps(described))


add(
    "channels",
    "decathlon_4d",
    "the Decathlon's 4-D images with two sequences, and dataset.json",
    four_dimensional,
    Right(voxels(NAMED), channels=("T2", "ADC")),
    NAMED,
    peers=False,
)


# ---- names of structures and files ----


def named_labels(name: str, words: str, labels: Mapping[str, object]) -> None:
    add(
        "names",
        name,
        words,
        lambda root: numbered(root, {"0": "CT"}, labels),
        Right(voxels(NAMED)),
        NAMED,
        peers=False,
    )


named_labels(
    "names_by_value",
    "dataset.json gives names as of nnU-Net 1 (value: name)",
    {"0": "background", "1": "liver", "2": "spleen"},
)
named_labels(
    "names_to_value",
    "dataset.json gives names as of nnU-Net 2 (name: value), not in the order of the values",
    {"spleen": 2, "background": 0, "liver": 1},
)


def with_table(file: str, content: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for n, case in enumerate(ids()):
            image, truth = scan(n)
            nifti(root / "images" / f"{case}.nii.gz", image)
            nifti(root / "labels" / f"{case}.nii.gz", truth)
        (root / file).write_text(content)

    return make


for file, content, words in (
    ("labels.csv", "value,name\n2,spleen\n1,liver\n", "a labels.csv, not in the order of values"),
    ("labels.tsv", "index\tname\n1\tliver\n2\tspleen\n", "a labels.tsv"),
    ("labels.json", '{"1": "liver", "2": "spleen"}', "a labels.json of value: name"),
    ("labels.yaml", "liver: 1\nspleen: 2\n", "a labels.yaml of name: value"),
):
    add(
        "names",
        f"names_in_{file.replace('.', '_')}",
        f"names of structures in {words}",
        with_table(file, content),
        Right(voxels(NAMED)),
        NAMED,
        peers=False,
    )


def file_names(
    name: str,
    words: str,
    image: Callable[[int], str],
    label: Callable[[int], str],
    right: Right = ALL,
) -> None:
    def make(root: Path) -> None:
        for n in range(6):
            scene, truth = scan(n)
            nifti(root / f"{image(n)}.nii.gz", scene)
            nifti(root / f"{label(n)}.nii.gz", truth)

    add("names", name, words, make, right, peers=False)


file_names(
    "names_numbers",
    "img8 … img13 beside label8 … label13, which sort otherwise as text",
    lambda n: f"images/img{n + 8}",
    lambda n: f"labels/label{n + 8}",
)
file_names(
    "names_dots",
    "ids with dots and version numbers",
    lambda n: f"images/TCGA.12.{n}.v1.0",
    lambda n: f"labels/TCGA.12.{n}.v1.0",
)
file_names(
    "names_unicode",
    "ids with spaces, brackets and letters outside ASCII",
    lambda n: f"images/Müller  {n} (links)",
    lambda n: f"labels/Müller  {n} (links)",
)
file_names(
    "names_prefixes",
    "ids of which one begins with another (c1, c1_b)",
    lambda n: f"images/c1{'_b' * n}",
    lambda n: f"labels/c1{'_b' * n}_seg",
)
file_names(
    "names_suffix",
    "ID_image beside ID_mask in one folder",
    lambda n: f"P{n}_image",
    lambda n: f"P{n}_mask",
)
file_names(
    "label_of_other_case",
    "one label belongs to no image, and one image has no label",
    lambda n: f"images/a{n}",
    lambda n: f"labels/a{n if n != 2 else 9}",
    Right(voxels(BOTH, [2]), bad=("a9",), cases=6),
)

# ---- patients ----


def visits(
    name: str,
    words: str,
    case: Callable[[int], str],
    patients: int,
    names: Mapping[str, int] = BOTH,
) -> None:
    """``names``: the structures, if a published data set has names of this form."""
    file_names(
        name,
        words,
        lambda n: f"images/{case(n)}",
        lambda n: f"labels/{case(n)}",
        Right(voxels(names), patients=patients),
    )


visits(
    "visits_brats",
    "BraTS-GLI-00002-000 and -001",
    lambda n: f"BraTS-GLI-{n // 2:05d}-00{n % 2}",
    3,
    {"necrosis": 1, "oedema": 2},
)
visits(
    "visits_parts",
    "liver_1_0 and liver_1_1",
    lambda n: f"liver_{n // 2 + 1}_{n % 2}",
    3,
    {"liver": 1, "liver tumour": 2},
)
visits(
    "visits_follow_up",
    "ID_baseline and ID_followup",
    lambda n: f"P{n // 2:02d}_{('baseline', 'followup')[n % 2]}",
    3,
)
visits(
    "visits_sessions", "sub-01_ses-1 and _ses-2", lambda n: f"sub-{n // 2:02d}_ses-{n % 2 + 1}", 3
)
visits("visits_months", "ID_m00 and ID_m12", lambda n: f"S{n // 2:03d}_m{12 * (n % 2):02d}", 3)
visits(
    "visits_adni", "ADNI's subject and scan", lambda n: f"002_S_0{n // 2 + 413}_I{n + 1181:05d}", 3
)
visits("visits_dates", "ID and a date", lambda n: f"pat{n // 2:03d}_2019010{n + 1}", 3)
visits("visits_v", "ID_v1 and ID_v2", lambda n: f"case{n // 2:02d}_v{n % 2 + 1}", 3)
visits(
    "visits_days",
    "ID_FU003d and ID_FU120d",
    lambda n: f"X-{n // 2:04d}_FU{n % 2 * 117 + 3:03d}d",
    3,
)
visits("visits_dates_only", "a number and a date", lambda n: f"{n // 2:03d}-2019-01-0{n + 1}", 3)
visits("visits_two_forms", "a session and a run", lambda n: f"A{n // 2}_ses{n % 2 + 1}_run1", 3)
visits(
    "patients_sides",
    "left and right eyes",
    lambda n: f"{n // 2 + 10}_{('left', 'right')[n % 2]}",
    3,
)
visits("patients_scans", "ct_scan_1 to ct_scan_6: six patients", lambda n: f"ct_scan_{n + 1}", 6)
visits(
    "patients_years",
    "study2019_1 and study2020_1: six patients",
    lambda n: f"study{2019 + n % 2}_{n // 2 + 1}",
    6,
)
visits(
    "visits_pre_post", "ID-pre and ID-post", lambda n: f"K{n // 2:02d}-{('pre', 'post')[n % 2]}", 3
)
visits("patients_plain", "case_00000 to case_00005: six patients", lambda n: f"case_{n:05d}", 6)
visits("patients_oasis", "OASIS: _MR1 and _MR2", lambda n: f"OAS1_{n // 2:04d}_MR{n % 2 + 1}", 3)
visits("patients_tcga", "TCGA barcodes", lambda n: f"TCGA-CS-{n // 2 + 4941}_{n % 2}", 3)
visits(
    "patients_sites",
    "site_A_01 … of two sites: six patients",
    lambda n: f"site{'AB'[n % 2]}_{n:02d}",
    6,
)
visits(
    "patients_numbers", "ID of two numbers that count nothing", lambda n: f"x_{n * 7}_{50 - n}", 6
)

# ---- files that are used for nothing ----


def with_more(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for n, case in enumerate(ids()):
            image, truth = scan(n)
            nifti(root / "images" / f"{case}.nii.gz", image)
            nifti(root / "labels" / f"{case}.nii.gz", truth)
        write(root)

    return make


def account(name: str, words: str, write: Callable[[Path], None], *said: str) -> None:
    add(
        "account",
        name,
        words,
        with_more(write),
        Right(voxels(BOTH), said=said),
        peers=False,
    )


def documents(root: Path) -> None:
    (root / "README.md").write_text("notes")
    (root / "licence.pdf").write_bytes(b"%PDF-1.4")
    (root / "clinical.xlsx").write_bytes(b"PK")


account("unused_documents", "documents and a table beside the folders", documents, ".md", ".xlsx")


def outlines(root: Path) -> None:
    for case in ids():
        place = root / "annotations"
        place.mkdir(exist_ok=True)
        (place / f"{case}.json").write_text('{"shapes": [{"label": "liver", "points": []}]}')


account("unused_polygons", "a folder of polygons beside images and labels", outlines, "polygons")


def inside(root: Path) -> None:
    for case in ids():
        (root / "images" / f"{case}.txt").write_text("voxel sizes")
    (root / "labels" / "old.zip").write_bytes(b"PK")


account(
    "unused_inside",
    "text files among the images, an archive among the labels",
    inside,
    ".txt",
    ".zip",
)


def second_labels(root: Path) -> None:
    for n, case in enumerate(ids()):
        nifti(root / "labels_reader2" / f"{case}.nii.gz", np.roll(scan(n)[1], 1, 0))


account(
    "unused_reader",
    "a second reader's labels in a folder of their own",
    second_labels,
    "labels_reader2",
)


def hidden(root: Path) -> None:
    for case in ids():
        (root / "images" / f"._{case}.nii.gz").write_bytes(b"\0\5\x16\7" * 40)
    (root / "labels" / ".DS_Store").write_bytes(b"x")
    (root / "images" / "Thumbs.db").write_bytes(b"x")


account(
    "hidden_files",
    "files that macOS and Windows leave (._c00.nii.gz, Thumbs.db)",
    hidden,
    "Thumbs.db",
)


def vessels(root: Path) -> None:
    for n in range(6):
        image, truth = picture(n)
        number = f"{21 + n}_training"
        png(root / "training" / "images" / f"{number}.png", image)
        png(
            root / "training" / "1st_manual" / f"{21 + n}_manual1.png",
            ((truth > 0) * 255).astype("u1"),
        )
        field = np.zeros_like(image)
        field[2:-2, 2:-2] = 255
        png(root / "training" / "mask" / f"{number}_mask.png", field)


add(
    "account",
    "field_of_view",
    "vessels in 1st_manual/, the field of view in mask/, all as PNG",
    vessels,
    Right({"vessels": foreground(of=picture)["foreground"]}, said=("mask",)),
    peers=False,
)

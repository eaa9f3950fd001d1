"""Cohorts of any other layout, described by YAML."""

from __future__ import annotations

import pytest
from tests.cohorts.imitate import box, dicom_series, nifti, noise, png, slices

from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.reading import read_image, read_label
from delineate.core.errors import InputError, LabelError, LayoutError, UsageError


def odd(root):
    for n in range(1, 4):
        nifti(root / "in" / f"pat{n}" / f"v{n}_a.nii.gz", noise(n))
        nifti(root / "in" / f"pat{n}" / f"v{n}_b.nii.gz", noise(n + 10))
        nifti(
            root / "out" / f"of_pat{n}.nii.gz", box(1) + box(2, at=(8, 3, 1)) + box(3, at=(8, 6, 1))
        )


def described(tmp_path, text):
    path = tmp_path / "d.yaml"
    path.write_text(text)
    return path


TEXT = """
channels: {A: "in/{id}/*_a.nii.gz", B: "in/{id}/*_b.nii.gz"}
label: "out/of_{id}.nii.gz"
patient: "^pat([0-9])"
modality: MR
labels:
  body: [1, 2]
"""


def test_channels_label_patient_and_merging(tmp_path):
    odd(tmp_path / "data")
    manifest = find(tmp_path / "data", description=described(tmp_path, TEXT))
    assert (manifest.layout, manifest.channels, manifest.patients, manifest.modality) == (
        "description",
        ("A", "B"),
        ["1", "2", "3"],
        "MR",
    )
    image = read_image(manifest.cases[0], manifest)
    assert image.array.shape[0] == 2
    assert int(read_label(manifest.cases[0], manifest, image.grid).array.sum()) == 54


def test_missing_and_unpaired(tmp_path):
    odd(tmp_path / "data")
    (tmp_path / "data/in/pat1/v1_b.nii.gz").unlink()
    (tmp_path / "data/out/of_pat2.nii.gz").unlink()
    nifti(tmp_path / "data/out/of_pat9.nii.gz", box())
    found = discover(tmp_path / "data", description=described(tmp_path, TEXT))
    told = {(f.case, f.kind, f.severity) for f in found.findings if f.severity != "note"}
    assert told == {
        ("pat1", "missing", "error"),
        ("pat2", "unpaired", "warning"),
        ("pat9", "unpaired", "error"),
    }
    assert [c.id for c in found.manifest] == ["pat2", "pat3"]


def test_structures_in_files_of_their_own(tmp_path):
    for n in range(2):
        nifti(tmp_path / "data" / f"s{n}" / "scan.nii.gz", noise(n))
        nifti(tmp_path / "data" / f"s{n}" / "roi" / f"s{n}_liver.nii.gz", box(1))
        nifti(
            tmp_path / "data" / f"s{n}" / "roi" / f"s{n}_left_kidney.nii.gz", box(1, at=(8, 3, 1))
        )
    text = 'channels: {CT: "{id}/scan.nii.gz"}\nlabel: "{id}/roi/{id}_{structure}.nii.gz"\n'
    manifest = find(tmp_path / "data", description=described(tmp_path, text))
    assert manifest.labels.names == ["left_kidney", "liver"]
    assert sorted(set(read_label(manifest.cases[1], manifest).array.ravel())) == [0, 1, 2]
    chosen = find(
        tmp_path / "data",
        description=described(tmp_path, text + "labels: {organ: [liver, left_kidney]}\n"),
    )
    assert int(read_label(chosen.cases[1], chosen).array.sum()) == 54


def test_splits_and_pictures_with_spacing(tmp_path):
    for split in ("train", "test"):
        for n in range(2):
            png(tmp_path / "data" / split / f"x{n}.png", noise(n, (8, 6), "uint8"))
            png(
                tmp_path / "data" / f"{split}_masks" / f"x{n}.png",
                box(255, (8, 6, 1), (1, 1, 0))[..., 0],
            )
    text = (
        'channels: {photo: "{split}/{id}.png"}\nlabel: "{split}_masks/{id}.png"\nspacing_mm: '
        '[0.5, 0.25]\nlabels: {spot: 128-255}\npatient: "(.+)"\n'
    )
    manifest = find(tmp_path / "data", description=described(tmp_path, text))
    assert sorted((c.id, c.split) for c in manifest) == [
        ("test_x0", "test"),
        ("test_x1", "test"),
        ("train_x0", None),
        ("train_x1", None),
    ]
    image = read_image(manifest.cases[0], manifest)
    assert image.grid.spacing_mm[:2] == (0.5, 0.25)
    assert int(read_label(manifest.cases[0], manifest, image.grid).array.sum()) == 9


def test_dicom_with_a_stack_of_masks(tmp_path):
    for n in range(2):
        dicom_series(tmp_path / "data" / "scan" / f"k{n}", noise(n))
        slices(tmp_path / "data" / "ms" / f"k{n}", box(200))
    text = 'channels: {CT: "scan/{id}"}\nlabel: "ms/{id}"\nlabels: {liver: 200}\n'
    manifest = find(tmp_path / "data", description=described(tmp_path, text))
    image = read_image(manifest.cases[0], manifest)
    assert int(read_label(manifest.cases[0], manifest, image.grid).array.sum()) == 27


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("channels: {A: 'x/{id}.png'}\nchanels: 1\n", InputError, "chanels.*keys are channels"),
        ("label: x\n", InputError, "channels: field required"),
        ("[1, 2\n", InputError, "is not YAML"),
        ("channels: {A: 'x/*.nii.gz'}\n", LayoutError, "has no {id}"),
        ("channels: {A: 'x/{id}.nii.gz'}\n", LayoutError, "no file matches"),
        ("channels: {A: '../{id}.nii.gz'}\n", LayoutError, "outside the cohort"),
        ("channels: {A: 'in/{id}/*.nii.gz'}\n", LayoutError, "case pat1: 2 files match A"),
        ("channels: {A: 'in/{id}/{what}.nii.gz'}\n", LayoutError, "unknown placeholder {what}"),
        ("channels: {A: 'in/{id}/*_a.nii.gz'}\nignore: none\n", LabelError, "d.yaml: ignore: exp"),
        (
            "channels: {A: 'in/{id}/*_a.nii.gz'}\nlabels: {liver: [one]}\n",
            LabelError,
            "d.yaml: the cohort has no structure called 'one'",
        ),
    ],
)
def test_bad_descriptions_teach(tmp_path, text, kind, told):
    odd(tmp_path / "data")
    with pytest.raises(kind, match=told):
        find(tmp_path / "data", description=described(tmp_path, text))


def test_layout_and_description_exclude_each_other(tmp_path):
    odd(tmp_path / "data")
    with pytest.raises(UsageError, match="exclude"):
        find(tmp_path / "data", description=described(tmp_path, TEXT), layout="decathlon")


def test_forms_of_placeholders_and_folders_that_may_be_missing(tmp_path):
    """The notation of layouts: {id:REGEX} and [folder/]; brackets in names stay brackets."""
    for n, place in enumerate(("train/P1", "train/P2", "P3", "train/old")):
        nifti(tmp_path / f"{place}_ct.nii.gz", noise(n))
        nifti(tmp_path / f"{place}_[seg].nii.gz", box())
    path = tmp_path / "d.yaml"
    path.write_text(
        "channels:\n  CT: '[{split}/]{id:P[0-9]+}_ct.nii.gz'\n"
        "label: '[{split}/]{id:P[0-9]+}_[seg].nii.gz'\n"
    )
    found = find(tmp_path, description=path)
    assert sorted(case.id for case in found) == ["P1", "P2", "P3"]
    assert all(len(case.label) == 1 for case in found)
    path.write_text("channels:\n  CT: '{id:[}_ct.nii.gz'\n")
    with pytest.raises(LayoutError, match="no regular expression"):
        find(tmp_path, description=path)

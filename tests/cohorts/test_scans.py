"""Which scans a model is given: channels by what they are, and one unusable file that costs no
other scan.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cohorts import imitate
from tests.scans import scan

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.discovery.scans import collect
from delineate.core.errors import DelineateError, InputError, UsageError
from delineate.core.labels import LabelSet
from delineate.core.manifest import ABSENT
from delineate.formats import files

LABELS = LabelSet.from_names({1: "x"})
MODEL = ("flair", "t1", "t1ce", "t2")
SCHEMES = {
    "2013": ("Flair", "T1", "T1c", "T2"),
    "2021": ("flair", "t1", "t1ce", "t2"),
    "2023": ("t2f", "t1n", "t1c", "t2w"),
    "Decathlon": ("FLAIR", "T1w", "t1gd", "T2w"),
    "BIDS": ("FLAIR", "T1w", "ce-gd_T1w", "T2w"),
}


def found(inputs, wanted=MODEL, **how):
    return collect([inputs] if isinstance(inputs, str | Path) else inputs, wanted, LABELS, **how)


def names_of(scans) -> dict[str, list[str]]:
    return {case.id: [Path(image.path).name for image in case.images] for case in scans.manifest}


def tree(root: Path, names, form: str, truth: bool = True) -> Path:
    """Two cases of four files each, in an order of names that is not the model's."""
    for n in range(2):
        for name in names:
            scan(root / form.format(case=f"Case{n:03d}", channel=name))
        if truth:
            scan(root / form.format(case=f"Case{n:03d}", channel="seg"))
    return root


# ---- channels ----


@pytest.mark.parametrize(
    "form",
    ["{case}/{case}_{channel}.nii.gz", "{case}/{case}-{channel}.nii.gz", "{case}_{channel}.nii.gz"],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_channels_come_in_the_models_order_under_every_scheme(tmp_path, scheme, form):
    given = SCHEMES[scheme]
    scans = found(tree(tmp_path / "in", given, form))
    assert len(scans.manifest) == 2 and not scans.failures
    for case, names in names_of(scans).items():
        assert [
            any(name == f"{case}{sep}{channel}.nii.gz" for sep in "_-")
            for name, channel in zip(names, given, strict=True)
        ] == [True] * 4
    back = found(tmp_path / "in", given)  # and the other way round
    assert names_of(back) == names_of(scans)


def test_names_that_tell_nothing_are_refused_with_both_sides(tmp_path):
    with pytest.raises(InputError, match=r"adc, dwi, pd, swi.*flair, t1, t1ce, t2.*--channels"):
        found(
            tree(tmp_path / "other", ("adc", "dwi", "pd", "swi"), "{case}/{case}_{channel}.nii.gz")
        )
    numbers = tree(
        tmp_path / "numbers",
        ("0000", "0001", "0002", "0003"),
        "{case}_{channel}.nii.gz",
        truth=False,
    )
    with pytest.raises(InputError, match=r"channel 0, channel 1.*flair, t1, t1ce, t2.*--channels"):
        found(numbers)
    assert names_of(found(numbers, numbered="files"))["Case000"] == [
        f"Case000_{n:04d}.nii.gz" for n in range(4)
    ]
    with pytest.raises(InputError, match="--channels"):
        found(numbers, numbered="one file")
    whole = scan(tmp_path / "whole.nii.gz", np.zeros((6, 5, 4, 4), np.float32))
    with pytest.raises(InputError, match="--channels"):
        found(whole, numbered="files")
    assert len(found(whole, numbered="one file").manifest) == 1


def test_one_channel_may_have_a_vaguer_name_but_not_another(tmp_path):
    tree(tmp_path / "in", ("t1n", "t2w"), "{case}/{case}_{channel}.nii.gz")
    assert names_of(found(tmp_path / "in", ("T1",)))["Case000"] == ["Case000_t1n.nii.gz"]
    with pytest.raises(InputError, match=r"t1n, t2w.*FLAIR"):
        found(tmp_path / "in", ("FLAIR",))
    assert found(scan(tmp_path / "a.nii.gz"), ("T1",)).manifest.cases[0].id == "a"


def test_channels_of_one_file_are_taken_by_their_names(tmp_path):
    """A Decathlon cohort names the channels of its 4-D files; here not in the model's order."""
    root, given = tmp_path / "msd", ("T1w", "FLAIR", "T2w", "t1gd")
    array = np.stack([np.full((6, 5, 4), n, np.float32) for n in range(4)], axis=-1)
    for n in range(2):
        scan(root / "imagesTr" / f"p{n}.nii.gz", array)
        scan(root / "labelsTr" / f"p{n}.nii.gz", np.ones((6, 5, 4), np.uint8))
    listed = [
        {"image": f"./imagesTr/p{n}.nii.gz", "label": f"./labelsTr/p{n}.nii.gz"} for n in range(2)
    ]
    data = {
        "modality": {str(k): v for k, v in enumerate(given)},
        "labels": {"0": "background", "1": "x"},
        "training": listed,
    }
    (root / "dataset.json").write_text(json.dumps(data))
    case = found(root).manifest.cases[0]
    assert [float(files.read(image).array.max()) for image in case.images] == [1, 0, 3, 2]


def test_a_user_states_the_channels(tmp_path):
    odd = tree(
        tmp_path / "odd",
        ("aaa", "bbb", "ccc", "ddd"),
        "{case}/{case}_{channel}.nii.gz",
        truth=False,
    )
    said = {"t2w": "aaa", "FLAIR": "bbb", "t1gd": "ccc", "T1": "ddd"}
    for name in ("Case000", "Case001"):
        assert names_of(found(odd, stated=said))[name] == [
            f"{name}_{c}.nii.gz" for c in ("bbb", "ddd", "ccc", "aaa")
        ]
    numbers = tree(
        tmp_path / "numbers",
        ("0000", "0001", "0002", "0003"),
        "{case}_{channel}.nii.gz",
        truth=False,
    )
    scans = found(numbers, stated={"t1": "0", "flair": "1", "t1ce": "3", "t2": "2"})
    assert names_of(scans)["Case000"] == [f"Case000_{n:04d}.nii.gz" for n in (1, 0, 3, 2)]
    one = collect(
        [],
        MODEL,
        LABELS,
        stated={
            "flair": str(odd / "Case000/Case000_aaa.nii.gz"),
            "t2": str(odd / "Case000/Case000_bbb.nii.gz"),
        },
    )
    assert (
        names_of(one) == {"Case000": ["Case000_aaa.nii.gz", "", "", "Case000_bbb.nii.gz"]}
        and one.manifest.cases[0].images[1] == ABSENT
    )
    for stated, why in (
        ({"pet": "aaa"}, "is not a channel"),
        ({"flair": "aaa", "t2f": "bbb"}, "twice"),
        ({}, "nothing to segment"),
    ):
        with pytest.raises(UsageError, match=why):
            collect([] if not stated else [odd], MODEL, LABELS, stated=stated)
    with pytest.raises(UsageError, match="neither a file nor a channel"):
        found(
            tree(tmp_path / "named", MODEL, "{case}/{case}_{channel}.nii.gz"),
            stated={"flair": "zzz"},
        )
    with pytest.raises(UsageError, match="give no other input"):
        found(odd, stated={"flair": str(odd / "Case000/Case000_aaa.nii.gz")})
    with pytest.raises(InputError, match="does not exist"):
        collect([], MODEL, LABELS, stated={"flair": str(odd / "gone.nii.gz")})


def test_real_tumours_under_other_names(tmp_path, real_data):
    """The same files, as 2013 and as 2023 called them, in any order."""
    source = real_data / "brats2013"
    for name, called in (("t2f", "Flair_subtrMeanDivStd"), ("t1c", "T1c_subtrMeanDivStd")):
        for case in sorted(p for p in source.iterdir() if p.is_dir()):
            (tmp_path / "2023" / case.name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "2023" / case.name / f"{case.name}-{name}.nii.gz").symlink_to(
                case / f"{called}.nii.gz"
            )
    for wanted in (("T1c", "Flair"), ("Flair", "T1c")):
        one, other = found(source, wanted), found(tmp_path / "2023", wanted)
        assert [c.id for c in one.manifest] == [c.id for c in other.manifest] and len(
            one.manifest
        ) == 4
        paths = [
            [[Path(i.path).resolve() for i in c.images] for c in scans.manifest]
            for scans in (one, other)
        ]
        assert paths[0] == paths[1]


# ---- one bad file ----


def spoil(folder: Path, name: str, ending: str) -> list[str]:
    """Files that cannot be used, and others that may not be opened, called ``name`` ...; the names
    that must fail.
    """
    (folder / f"{name}_empty{ending}").write_bytes(b"")
    (folder / f"{name}_text{ending}").write_text("no image at all " * 40)
    (folder / f"{name}_gone{ending}").symlink_to(folder / "nowhere")
    os.mkfifo(folder / f"{name}_pipe{ending}")
    (folder / f"{name}_device{ending}").symlink_to("/dev/zero")
    return [f"{name}_{what}" for what in ("empty", "text", "gone", "pipe", "device")]


@pytest.mark.parametrize("name", ["aaa", "zzz"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".png"])
def test_one_bad_file_costs_no_other(tmp_path, ending, name):
    """First or last in order: discovery goes on, pipes and devices are failures that are never
    opened, the others fail when they are read.
    """
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(4):
        if ending == ".png":
            Image.fromarray(np.random.default_rng(n).integers(0, 255, (9, 8, 3), np.uint8)).save(
                folder / f"good{n}.png"
            )
        else:
            files.write(files.read(scan(tmp_path / f"s{n}.nii.gz")), folder / f"good{n}{ending}")
    bad = spoil(folder, name, ending)
    wanted = ("red", "green", "blue") if ending == ".png" else ("MR",)
    for inputs in ([folder], sorted(folder.iterdir())):
        scans = collect(inputs, wanted, LABELS)
        usable = []
        for case in scans.manifest:
            with contextlib.suppress(DelineateError):
                assert files.read(case.images[0]).channels == len(wanted)
                usable.append(case.id)
        assert usable == [f"good{n}" for n in range(4)]
        assert {case.id for case in scans.manifest} - set(usable) | {
            Path(n).name.split(".")[0] for n in scans.failures
        } == set(bad)
        assert sum("only regular files" in str(one) for one in scans.failures.values()) == 2


def test_a_patient_whose_series_cannot_be_read_is_named(tmp_path, real_data):
    good = real_data / "hippocampus_dicom"
    for name in ("p1", "p2", "p3"):
        shutil.copytree(good, tmp_path / "in" / name)
    for path in list((tmp_path / "in" / "p2").iterdir())[::3]:
        path.unlink()  # gaps
    for path in (tmp_path / "in" / "p3").iterdir():
        path.write_bytes(b"")
    scans = collect([tmp_path / "in"], ("MR",), LABELS)
    assert [c.id for c in scans.manifest] == ["p1"] and set(scans.failures) == {"p2", "p3"}
    assert "gap" in str(scans.failures["p2"]) and "p3" in str(scans.failures["p3"])


def test_what_is_not_there_is_one_failure_among_others(tmp_path):
    path = scan(tmp_path / "a.nii.gz")
    scans = collect([path, tmp_path / "b.nii.gz"], ("MR",), LABELS)
    assert [c.id for c in scans.manifest] == ["a"] and "does not exist" in str(scans.failures["b"])
    with pytest.raises(InputError, match="does not exist"):
        collect([tmp_path / "b.nii.gz"], ("MR",), LABELS)


def test_discovery_names_what_it_skips(tmp_path):
    for n in range(3):
        scan(tmp_path / "images" / f"c{n}.nii.gz", seed=n)
        scan(tmp_path / "labels" / f"c{n}.nii.gz", np.ones((20, 18, 16), np.uint8))
    os.mkfifo(tmp_path / "images" / "c3.nii.gz")
    notes = [f for f in discover(tmp_path).findings if f.kind == "skipped"]
    assert (
        len(notes) == 1
        and "c3.nii.gz is a named pipe" in notes[0].message
        and len(discover(tmp_path).manifest) == 3
    )
    with pytest.raises(InputError, match="named pipe"):
        discover(tmp_path / "images" / "c3.nii.gz")


# ---- grey values of CHAOS ----


@pytest.mark.parametrize(
    "values",
    [(128, 255), (64, 128, 192, 255), (63, 126, 189, 252), (85, 170, 255), (60, 120, 180, 250)],
)
def test_grey_values_alone_are_no_organs(tmp_path, values):
    """Ranges belong to a CHAOS tree: elsewhere each value is a structure of its own, without sides
    that flips could exchange.
    """
    rng = np.random.default_rng(0)
    for n in range(4):
        image, label = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
        image[:] = rng.integers(0, 255, (32, 32))
        for k, value in enumerate(values):
            label[6 * k : 6 * k + 4 + n % 2, 3:20] = value
        for place, array in (("images", image), ("masks", label)):
            (tmp_path / place).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / place / f"eye{n}.png")
    manifest = discover(tmp_path).manifest
    assert manifest.labels.values == list(values) and manifest.labels.names == [
        f"label {v}" for v in values
    ]
    assert not manifest.mapping.ranges and not manifest.labels.is_sided


def test_a_chaos_tree_keeps_its_ranges(tmp_path):
    for n in (1, 2):
        base = tmp_path / str(n)
        imitate.dicom_series(base / "DICOM_anon", imitate.noise(n), name="IMG-{n:04d}.dcm")
        mask = imitate.box(63)
        mask[8:10, 7:9, 1:3] = 252
        for k in range(mask.shape[2]):
            imitate.png(base / "Ground" / f"{k:03d}.png", mask[:, :, k])
    manifest = discover(tmp_path).manifest
    assert manifest.layout == "chaos" and manifest.labels.names == [
        "liver",
        "right kidney",
        "left kidney",
        "spleen",
    ]


def test_contrast_words_elsewhere_in_a_name_count(tmp_path):
    for name in ("p1_T1_axial_gd", "p1_T1_axial", "p1_T2_axial", "p1_FLAIR_axial"):
        scan(tmp_path / "in" / "p1" / f"{name}.nii.gz")
    told = next(iter(names_of(found(tmp_path / "in")).values()))
    assert told == [
        f"p1_{name}.nii.gz" for name in ("FLAIR_axial", "T1_axial", "T1_axial_gd", "T2_axial")
    ]


def test_two_files_for_one_channel_cost_that_scan_alone(tmp_path):
    for name in ("a_t1", "a_t2", "a_flair", "a_t1ce", "b_t1", "b_t1w", "b_t2", "b_t1ce"):
        scan(tmp_path / "in" / f"{name}.nii.gz")
    scans = found(tmp_path / "in")
    assert [case.id for case in scans.manifest] == ["a"]
    assert "could both be" in str(scans.failures["b"])


def test_a_name_that_tells_another_sequence_is_refused(tmp_path):
    for name in ("a_T1", "b_T2", "c"):
        scan(tmp_path / "in" / f"{name}.nii.gz")
    scans = found(tmp_path / "in", wanted=("T1",))
    assert {case.id for case in scans.manifest} == {"a_T1", "c"}
    assert "suggests T2, but the model needs T1" in str(scans.failures["b_T2"])


def test_a_channel_too_many_under_numbers_is_refused(tmp_path):
    for number in range(3):
        scan(tmp_path / "in" / f"a_{number:04d}.nii.gz")
    with pytest.raises(InputError, match="the names do not match"):
        found(tmp_path / "in", wanted=("channel 0", "channel 1"), numbered="files")


def test_a_link_that_leads_to_itself_costs_no_other_scan(tmp_path):
    scan(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").symlink_to(tmp_path / "in" / "b.nii.gz")
    assert [case.id for case in found(tmp_path / "in", wanted=("image",)).manifest][:1] == ["a"]


def test_a_folder_named_as_an_image_is_a_failure(tmp_path):
    scan(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").mkdir()
    scans = found(tmp_path / "in", wanted=("image",))
    assert [case.id for case in scans.manifest] == ["a"]
    assert "is a folder" in str(scans.failures["b"])


def test_an_unclear_scan_costs_none_of_its_name_in_another_folder(tmp_path):
    for folder, names in (("x", ("a_t1", "a_t1w", "a_t2")), ("y", ("a_t1", "a_t2", "a_flair"))):
        for name in names:
            scan(tmp_path / folder / f"{name}.nii.gz")
    scans = found([tmp_path / "x", tmp_path / "y"])
    assert "could both be" in str(scans.failures["a"])
    assert [Path(case.images[0].path).parent.name for case in scans.manifest] == ["y"]

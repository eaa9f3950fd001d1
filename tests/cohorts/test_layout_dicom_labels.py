"""Series of DICOM images with structure sets, wherever in a tree they lie."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from tests.cohorts.imitate import box as imitated_box
from tests.cohorts.imitate import dicom_series, nifti, noise
from tests.cohorts.test_layouts_volumes import found_in, names, rows, says
from tests.structure_sets import CLOSED, polygon_on, write_structure_set

from delineate.cohorts.checks.doctor import examine
from delineate.cohorts.discovery.account import account_for
from delineate.cohorts.discovery.layouts import discover, find
from delineate.cohorts.discovery.structures import StructureSelection
from delineate.cohorts.reading import map_label, read_image, read_label, read_raw_label
from delineate.commands.check import write_draft
from delineate.commands.evaluate import evaluate
from delineate.commands.options import EvaluateOptions, TrainOptions
from delineate.commands.train.request import request_of
from delineate.core.errors import GeometryError, InputError, LabelError, LayoutError, UsageError
from delineate.core.manifest import Manifest, Source
from delineate.core.volume import Volume
from delineate.formats import dicom, files, label_files
from delineate.formats.label_files import read_label_file

SHAPE = (12, 10, 5)


def series(folder, patient, modality="CT", uid="", frame="1.2.3", shape=SHAPE):
    return dicom_series(
        folder, noise(1, shape), modality=modality, patient=patient, uid=uid, frame=frame
    )


def box(image, low, high, ks=(1, 2)):
    """Contours of the voxels ``low`` to ``high`` (columns and rows, excluded) of a series."""
    grid = files.read_grid(image)
    (a, b), (c, d) = np.array(low) - 0.5, np.array(high) - 0.5
    return [(polygon_on(grid, [(a, b), (c, b), (c, d), (a, d)], k), CLOSED) for k in ks]


def test_one_examination_with_three_modalities_is_three_cases(tmp_path):
    for n, patient in enumerate(("P1", "P2")):
        for m, (modality, word) in enumerate((("CT", "CT"), ("MR", "MR_T1"), ("PT", "PET"))):
            # All series are in one frame of reference, and no folder tells what is what.
            uid = f"1.2.{n + 1}.{m + 1}"
            image = series(tmp_path / f"x{n}" / uid, patient, modality, uid)
            path = tmp_path / "sets" / f"{n}{m}.dcm"
            rois = {f"GTV_{word}": box(image, (2, 3), (5, 6)), "Cord": box(image, (7, 3), (9, 5))}
            write_structure_set(path, rois, series=uid)
    found = found_in(tmp_path, "hospital")
    assert [r[:2] for r in rows(found)] == [
        *(("P1_CT", "P1"), ("P1_MR", "P1"), ("P1_PT", "P1")),
        *(("P2_CT", "P2"), ("P2_MR", "P2"), ("P2_PT", "P2")),
    ]
    assert names(found) == {1: "GTV", 2: "Cord"}
    assert (
        says(found, "modality", "(2 CT, 2 MR, 2 PT)")
        and says(found, "names", "are GTV")
        and says(found, "names", "Cord 6")
    )
    for case in found.manifest:
        label = read_label(case, found.manifest)
        assert np.bincount(label.array.ravel()).tolist() == [600 - 26, 18, 8]
    chosen = find(tmp_path, modality="PET")
    assert [c.id for c in chosen] == ["P1_PT", "P2_PT"] and chosen.modality == "PT"
    assert chosen.labels.names == ["GTV", "Cord"]
    uses = {(g.use, g.count) for g in account_for(found.manifest)}
    assert uses == {("image", 30), ("label", 6)}


def test_a_training_finds_the_cases_of_its_modality(tmp_path):
    chosen = request_of(tmp_path, TrainOptions(modality="CT", budget_s=60.0))
    assert chosen.check_options.modality == "CT"
    every = request_of(tmp_path, TrainOptions(budget_s=60.0))
    assert every.check_options.modality is None


def test_everything_in_one_folder(tmp_path):
    for n in range(3):
        uid = f"1.2.{n + 1}"
        image = series(tmp_path / "in", f"P{n}", uid=uid)
        for path in image.iterdir():
            path.rename(tmp_path / f"{n}_{path.name}")
    for n in range(2):
        image = f"{tmp_path}#1.2.{n + 1}"
        rois = {"GTV": box(image, (2, 3), (5, 6))}
        write_structure_set(tmp_path / f"rs{n}.dcm", rois, series=f"1.2.{n + 1}")
    (tmp_path / "in").rmdir()
    found = found_in(tmp_path, "hospital")
    assert [(c.id, len(c.label)) for c in found.manifest] == [("P0", 1), ("P1", 1), ("P2", 0)]
    assert found.manifest.cases[1].images[0].series == "1.2.2"
    assert says(found, "unpaired", "no label for CT")
    assert (read_label(found.manifest.cases[1], found.manifest).array == 1).sum() == 18
    uses = {(g.use, g.count) for g in account_for(found.manifest)}
    assert uses == {("image", 15), ("label", 2)}


def test_instances_come_before_series_before_the_frame_of_reference(tmp_path):
    first = series(tmp_path / "A" / "ct", "A", uid="1.1", frame="1.9")
    series(tmp_path / "A" / "ct2", "A", uid="1.2", frame="1.9")
    instance = dicom.find_series(first)[0].planes[0].instance
    rois = {"GTV": box(first, (2, 3), (5, 6))}
    write_structure_set(tmp_path / "A" / "rs1", rois, series="1.2", instances=[instance])
    by_frame = series(tmp_path / "B" / "ct", "B", uid="2.1", frame="2.9")
    write_structure_set(tmp_path / "B" / "rs", rois, frame="2.9", series="2.0")
    series(tmp_path / "C" / "ct", "C", uid="3.1", frame="3.9")
    write_structure_set(tmp_path / "C" / "rs", rois, frame="3.8", series="3.0")
    write_structure_set(tmp_path / "A" / "rs2", rois, frame="1.9", series="1.0")
    found = found_in(tmp_path, "hospital")
    assert [(c.id, c.images[0].path, len(c.label)) for c in found.manifest] == [
        ("A", str(first), 1),
        ("B", str(by_frame), 1),
        ("C", str(tmp_path / "C" / "ct"), 0),
    ]
    assert says(found, "unpaired", "C/rs (RTSTRUCT) belongs to no series here")
    assert says(found, "unpaired", "rs2 (RTSTRUCT) could belong to 2 series")
    assert says(found, "unused", "A: 1 series have no label: CT 1 (5 files, 1.2)")
    (rest,) = (g for g in account_for(found.manifest) if not g.use and "C" in g.place)
    assert rest.why == "DICOM objects with labels that belong to no case"


def test_structures_of_several_sets_and_sets_that_contradict(tmp_path):
    for patient in ("A", "B"):
        image = series(tmp_path / patient / "ct", patient, uid=f"1.{ord(patient)}")
        for name, low in (("GTV", (2, 3)), ("Cord", (7, 3))):
            rois = {name: box(image, low, (low[0] + 2, 6))}
            path = tmp_path / patient / f"{name}.dcm"
            write_structure_set(path, rois, series=f"1.{ord(patient)}")
    found = found_in(tmp_path, "hospital")
    assert sorted(names(found).values()) == ["Cord", "GTV"]
    case = found.manifest.cases[0]
    assert len(case.label) == 2
    assert np.bincount(read_label(case, found.manifest).array.ravel()).tolist() == [576, 12, 12]
    # A second version of the same structure: which one is right cannot be known.
    shutil.copy(tmp_path / "A" / "GTV.dcm", tmp_path / "A" / "GTV_v2.dcm")
    found = discover(tmp_path)
    assert says(found, "unpaired", "GTV.dcm and GTV_v2.dcm both have gtv")
    assert [len(c.label) for c in found.manifest] == [0, 2]


def test_overlapping_structures_and_a_selection(tmp_path):
    image = series(tmp_path / "A" / "ct", "A", uid="1.1")
    rois = {"GTV_1": box(image, (2, 3), (5, 6)), "GTV_2": box(image, (4, 3), (6, 6))}
    rois |= {"PTV": box(image, (1, 2), (7, 8)), "couch": box(image, (8, 2), (9, 3))}
    write_structure_set(tmp_path / "A" / "rs.dcm", rois, series="1.1")
    found = found_in(tmp_path, "hospital")
    assert found.manifest.labels.overlapping
    codes = read_label(found.manifest.cases[0], found.manifest).array
    assert [int((codes >> n & 1).sum()) for n in range(4)] == [18, 12, 72, 2]
    # Names by pattern; parts of one structure may overlap.
    selection = StructureSelection({"mass": ("gtv_*",)})
    chosen = find(tmp_path, labels=selection)
    label = read_label(chosen.cases[0], chosen)
    assert chosen.labels.names == ["mass"] and (label.array == 1).sum() == 24
    raw = read_raw_label(chosen.cases[0], chosen)
    assert raw[0][1].meta["names"] == {1: "GTV_1", 2: "GTV_2"}  # the others are not drawn
    assert map_label(raw, chosen).array.shape == SHAPE
    with pytest.raises(LabelError, match="no structure called 'ctv\\*'"):
        find(tmp_path, labels=StructureSelection({"mass": ("ctv*",)}))


def test_what_the_contours_lose_is_found_by_the_check(tmp_path):
    image = series(tmp_path / "A" / "ct", "A", uid="1.1")
    rois = {"GTV": box(image, (2, 3), (5, 6), (0, 2, 4, 7))}
    write_structure_set(tmp_path / "A" / "rs.dcm", rois, series="1.1")
    manifest = find(tmp_path)
    found = examine((manifest.cases[0], manifest)).findings
    assert [f.message for f in found if f.kind == "contours"] == [
        "GTV: 1 contour(s) are above or below the slices and are left out (up to 9.00 mm)",
        "GTV: 2 slice(s) between its first and last one have no contour and stay empty",
        "GTV: 0.1312 ml by its contours, but 0.0656 ml by its voxels",
    ]


def test_more_structures_than_may_overlap_need_a_selection(tmp_path):
    image = series(tmp_path / "A" / "ct", "A", uid="1.1")
    rois = {f"organ {n}": box(image, (2, 2), (3 + n // 4, 6)) for n in range(20)}
    write_structure_set(tmp_path / "A" / "rs.dcm", rois, series="1.1")
    with pytest.raises(LayoutError, match="20 structures that overlap, and at most 15 may"):
        find(tmp_path)
    chosen = find(tmp_path, labels=StructureSelection({"first": ("organ 0",)}))
    assert (read_label(chosen.cases[0], chosen).array == 1).sum() == 8


def test_patients_without_an_id_are_their_folders(tmp_path):
    for folder in ("one", "two"):
        uid = f"1.{len(folder)}.{ord(folder[0])}"
        image = series(tmp_path / folder / "ct", "Anonymous", uid=uid)
        rois = {"GTV": box(image, (2, 3), (5, 6))}
        write_structure_set(tmp_path / folder / "rs.dcm", rois, series=uid)
    assert [r[:2] for r in rows(found_in(tmp_path, "hospital"))] == [("one", "one"), ("two", "two")]


def test_the_sarcoma_collection_as_it_lies(real_data):
    found = discover(real_data / "sarcoma" / "dicom")
    patients = [f"STS_{n}" for n in ("008", "019", "025", "042")]
    expected = [(f"{p}_{m}", p, m) for p in patients for m in ("CT", "MR", "PT")]
    assert [(c.id, c.patient, c.modality) for c in found.manifest] == expected
    assert found.manifest.labels.names == ["GTV_Mass"]
    folds = found.manifest.with_folds(4)
    assert all(len({c.fold for c in folds if c.patient == p}) == 1 for p in patients)


@pytest.mark.parametrize("name", ["PET", "PT", "pt"])
def test_a_description_of_a_layout_states_modality_and_unit(tmp_path, name):
    for n, modality in enumerate(("CT", "PT"), start=1):
        image = series(tmp_path / "all" / modality, "A", modality, f"1.{n}", f"1.2.{n}")
        path = tmp_path / "all" / f"rs{n}.dcm"
        rois = {"GTV": box(image, (2, 3), (5, 6))}
        write_structure_set(path, rois, series=f"1.{n}", frame=f"1.2.{n}")
    described = tmp_path / "described.yaml"
    words = f"layout: hospital\nmodality: PT\nunit: {{{name}: suv}}\n"
    described.write_text(words)
    found = find(tmp_path / "all", description=described)
    assert [case.modality for case in found] == ["PT"]
    assert [one.unit for case in found for one in case.images] == ["suv"]
    described.write_text(words.replace(f"{{{name}", "{FDG"))
    with pytest.raises(LayoutError, match="unit names FDG, which is no channel; the layout has PT"):
        find(tmp_path / "all", description=described)


# ---- series with several volumes, several references, archives, descriptions ----


def echoes(folder, patient, uid):
    """Two echoes of one series in one folder."""
    for n in (1, 2):
        series(folder, patient, "MR", uid)
        for path in sorted(folder.glob("i*.dcm")):
            dataset = pydicom.dcmread(path)
            dataset.EchoNumbers, dataset.EchoTime = n, 10.0 * n
            dataset.SOPInstanceUID = f"{uid}.{n}.{dataset.InstanceNumber}"
            path.unlink()
            dataset.save_as(folder / f"e{n}_{path.name}")
    return folder


@pytest.mark.parametrize("kind", ["contours", "nifti"])
def test_two_echoes_of_one_series_are_channels(tmp_path, kind):
    for n, patient in enumerate(("A", "B")):
        folder = echoes(tmp_path / patient / "study" / "MR", patient, f"1.2.{n + 1}")
        grid = files.read_grid(f"{folder}#1.2.{n + 1}/echo1")
        if kind == "nifti":
            nifti(folder.parent / "liver_mask.nii.gz", imitated_box(1, SHAPE), grid.affine)
        else:
            corners = [(1.5, 2.5), (4.5, 2.5), (4.5, 5.5), (1.5, 5.5)]
            rois = {"GTV": [(polygon_on(grid, corners, 2), CLOSED)]}
            path = tmp_path / patient / "rs.dcm"
            write_structure_set(path, rois, series=f"1.2.{n + 1}", instances=[f"1.2.{n + 1}.1.2"])
    found = found_in(tmp_path, "hospital")
    assert found.manifest.channels == ("echo1", "echo2")
    again = Manifest.from_jsonl(found.manifest.to_jsonl())
    for case in again:
        assert [one.series.rpartition("/")[2] for one in case.images] == ["echo1", "echo2"]
        volume = read_image(case, again)
        assert volume.array.shape == (2, *SHAPE)
        label = read_label(case, again, volume.grid)
        assert (label.array == 1).sum() == (27 if kind == "nifti" else 9)
    uses = {(g.use, g.count) for g in account_for(found.manifest)}
    assert uses == {("image", 10), ("label", 1)}


def test_a_structure_set_of_two_series_draws_each_roi_on_its_own(tmp_path):
    """Contours on a CT and on a PET with frames of reference of their own."""
    ct = series(tmp_path / "ct", "A", uid="1.1", frame="1.8")
    pet = series(tmp_path / "pet", "A", "PT", uid="1.2", frame="1.9")
    path = write_structure_set(
        tmp_path / "rs.dcm",
        {"on CT": box(ct, (2, 3), (5, 6)), "on PET": box(pet, (6, 3), (9, 6))},
        series="1.1",
    )
    dataset = pydicom.dcmread(path)
    for roi, frame in zip(dataset.StructureSetROISequence, ("1.8", "1.9"), strict=True):
        roi.ReferencedFrameOfReferenceUID = frame
    dataset.save_as(path)
    for folder, name in ((ct, "on CT"), (pet, "on PET")):
        volume = read_label_file(Source(str(path), like=str(folder)))
        assert volume.meta["names"] == {1: name} and (volume.array == 1).sum() == 18
        assert "is in another frame of reference and is left out" in volume.meta["notes"][0]


def test_contours_name_their_series_before_the_list_of_the_object(tmp_path):
    series(tmp_path / "ct", "A", uid="1.1", frame="1.9")
    pet = series(tmp_path / "pet", "A", "PT", uid="1.2", frame="1.9")
    planes = dicom.find_series(tmp_path / "ct")[0].planes
    path = tmp_path / "rs.dcm"
    rois = {"GTV": box(pet, (2, 3), (5, 6))}
    write_structure_set(path, rois, series="1.1", instances=[p.instance for p in planes])
    assert dicom.series_of_label(path).uid == "1.1"
    dataset = pydicom.dcmread(path)
    item = pydicom.Dataset()
    item.ReferencedSOPInstanceUID = dicom.find_series(pet)[0].planes[0].instance
    dataset.ROIContourSequence[0].ContourSequence[0].ContourImageSequence = [item]
    dataset.save_as(path)
    assert dicom.series_of_label(path).uid == "1.2"


def test_a_series_and_its_structure_set_in_an_archive(tmp_path):
    image = series(tmp_path / "in" / "ct", "A", uid="1.1")
    rois = {"GTV": box(image, (2, 3), (5, 6))}
    write_structure_set(tmp_path / "in" / "rs.dcm", rois, series="1.1")
    shutil.make_archive(str(tmp_path / "cohort" / "scans"), "zip", tmp_path / "in")
    member = tmp_path / "cohort" / "scans.zip" / "rs.dcm"
    assert label_files.names_in(member) == {1: "GTV"}
    assert (read_label_file(member).array == 1).sum() == 18
    assert label_files.series_near(member) == f"{tmp_path}/cohort/scans.zip#1.1"


@pytest.mark.parametrize("packed", ["all", "each", "files"])
def test_archives_are_cohorts_with_their_labels(tmp_path, packed):
    """One archive with all patients, a folder with one for each, or files that are packed alone."""
    folder = tmp_path / "in"
    for n, patient in enumerate("AB", start=1):
        image = series(folder / patient / "ct", patient, uid=f"1.{n}", frame=f"1.2.{n}")
        rois = {"GTV": box(image, (2, 3), (5, 6))}
        path = folder / patient / "rs.dcm"
        write_structure_set(path, rois, series=f"1.{n}", frame=f"1.2.{n}")
    place = tmp_path / "cohort" / "all.zip"
    if packed == "all":
        shutil.make_archive(str(place.with_suffix("")), "zip", folder)
    elif packed == "files":
        place = folder
        for path in list(folder.rglob("*.dcm")):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    else:
        place = place.parent
        for patient in "AB":
            shutil.make_archive(str(place / patient), "gztar", folder / patient)
    found = found_in(place, "hospital")
    assert [r[:2] for r in rows(found)] == [("A", "A"), ("B", "B")]
    assert names(found) == {1: "GTV"}
    for case in found.manifest:
        label = read_label(case, found.manifest, read_image(case, found.manifest).grid)
        assert (label.array == 1).sum() == 18
    # The rule that labels have the frame of reference of their image holds in archives.
    strange = replace(found.manifest.cases[0].label[0], like=found.manifest.cases[1].label[0].like)
    with pytest.raises(InputError, match="frame of reference"):
        read_label_file(strange)


def test_labels_that_an_archive_has_and_no_case_uses_are_counted(tmp_path):
    image = series(tmp_path / "in" / "ct", "A", uid="1.1", frame="1.2")
    series(tmp_path / "in" / "ct2", "B", uid="1.3", frame="1.4")
    series(tmp_path / "in" / "ct3", "C", uid="1.5", frame="1.6")
    rois = {"GTV": box(image, (2, 3), (5, 6))}
    write_structure_set(tmp_path / "in" / "rs.dcm", rois, series="1.1", frame="1.2")
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "in")
    found = discover(tmp_path / "all.zip")
    assert len(found.manifest) == 3
    assert says(found, "unused", "1 DICOM objects with labels are not used")


def test_labels_in_another_frame_of_reference(tmp_path):
    image = series(tmp_path / "images" / "A", "A", uid="1.1", frame="1.9")
    rois = {"GTV": box(image, (2, 3), (5, 6))}
    (tmp_path / "labels").mkdir()
    write_structure_set(tmp_path / "labels" / "A.dcm", rois, frame="1.8", series="1.0")
    text = "channels: {CT: 'images/{id}'}\nlabel: 'labels/{id}.dcm'\n"
    described = tmp_path / "d.yaml"
    described.write_text(text)
    with pytest.raises((LayoutError, GeometryError), match="another frame of reference"):
        discover(tmp_path, description=described)
    described.write_text(text + "register_by: position\n")
    for options in ({}, {"register_by": "position"}):
        manifest = find(tmp_path, description=described, **options)
        assert manifest.cases[0].label[0].register_by == "position"
        again = Manifest.from_jsonl(manifest.to_jsonl())
        assert (read_label(again.cases[0], again).array == 1).sum() == 18


def test_evaluate_reads_dicom_truths_by_stated_rules(tmp_path):
    image = series(tmp_path / "in" / "images" / "A", "A", uid="1.1", frame="1.9")
    (tmp_path / "in" / "labels").mkdir()
    rois, grid = {"GTV": box(image, (2, 3), (5, 6))}, files.read_grid(image)
    write_structure_set(tmp_path / "in" / "labels" / "A.dcm", rois, frame="1.8", series="1.0")
    mask = np.zeros(grid.shape, np.uint8)
    mask[2:5, 3:6, 1:3] = 1
    (tmp_path / "pred").mkdir()
    files.write(Volume(mask, grid, "label"), tmp_path / "pred" / "A.nii.gz")

    def dice(**rules):
        options = EvaluateOptions(surface="none", **rules)
        found = evaluate(tmp_path / "pred", tmp_path / "in", options=options)
        return found.means()["dice_mean_per_case"]

    with pytest.raises(LayoutError, match="another frame of reference"):
        dice()
    assert dice(register_by="position") == 1
    with pytest.raises(UsageError, match="--fix-series is run, fill, split, found none"):
        dice(fix_series="none")
    # A slice that is missing is interpolated, as the scan was for the prediction.
    by_height = {float(pydicom.dcmread(p).ImagePositionPatient[2]): p for p in image.iterdir()}
    by_height[sorted(by_height)[3]].unlink()
    with pytest.raises((LayoutError, InputError), match="uneven gaps"):
        dice(register_by="position")
    assert dice(register_by="position", fix_series="fill") == 1


def test_a_draft_lists_every_name_with_its_number(tmp_path):
    for n, patient in enumerate(("A", "B")):
        image = series(tmp_path / "in" / patient / "ct", patient, uid=f"1.{n + 1}")
        rois = {"GTV": box(image, (2, 3), (5, 6)), f"cord {n}": box(image, (7, 3), (9, 5))}
        path = tmp_path / "in" / patient / "rs.dcm"
        write_structure_set(path, rois, series=f"1.{n + 1}")
    drafted = write_draft(tmp_path / "in", tmp_path / "d.yaml")
    lines = drafted.text.splitlines()
    assert '  "GTV": "GTV"  # GTV in 2 series' in lines
    assert '  "cord 0": "cord 0"  # cord 0 in 1 series' in lines
    assert len(drafted.manifest.with_truth()) == 2
    text = drafted.text.replace('  "cord 1"', '#  "cord 1"').replace(
        '"cord 0": "cord 0"', 'cord: "cord*"'
    )
    (tmp_path / "d.yaml").write_text(text)
    found = find(tmp_path / "in", description=tmp_path / "d.yaml")
    assert found.labels.names == ["GTV", "cord"]
    assert np.bincount(read_label(found.cases[1], found).array.ravel()).tolist() == [574, 18, 8]

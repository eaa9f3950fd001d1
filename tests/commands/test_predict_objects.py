"""The DICOM objects of a prediction: what other readers find in them, and when they are equal."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from tests import segmentations
from tests.formats.dicom import objects
from tests.plans import small_plan

from delineate.api.prediction import Prediction
from delineate.commands.options import PredictOptions
from delineate.commands.predict.objects import (
    KINDS,
    NO_SERIES,
    Result,
    series_of,
    slices_for_review,
)
from delineate.commands.predict.refusals import refuse_unfit
from delineate.core.errors import FormatError, InputError, OutputError, UsageError
from delineate.core.labels import Label, LabelSet
from delineate.core.manifest import Case, Source
from delineate.core.volume import Volume
from delineate.evaluation.pairing import OBJECT_ENDINGS
from delineate.formats import dicom, files
from delineate.formats.dicom.report import pm, write_sc
from delineate.formats.dicom.seg import write_seg
from delineate.formats.dicom.source import OBJECTS, SourceSeries, source_of
from delineate.metrics.diameters import diameters

LABELS = LabelSet(
    (
        Label(1, "liver", (221, 130, 101)),
        Label(2, "left kidney", (0, 114, 178), side="left"),
        Label(3, "spleen", (0, 158, 115)),
    )
)
ALGORITHM = {"algorithm_name": "test network", "algorithm_version": "1.0"}
FLAGS = (
    {
        "kind": "volume",
        "words": "volume of liver: 0.1 ml, in training 900 to 2000 ml",
        "structures": ["liver"],
    },
)


def predicted(folder: Path) -> Prediction:
    """A liver of 10 columns, 5 rows and 2 slices, a kidney of one voxel, no spleen; the first
    channel of the probabilities is that of the background.
    """
    scan = files.read(folder)
    array = np.zeros(scan.shape, np.uint8)
    array[5:15, 4:9, 1:3] = 1
    array[20, 20, 4] = 2
    shares = np.arange(4 * array.size, dtype=np.uint32).reshape(4, *array.shape) * 3 % 65536
    entropy = np.linspace(0, 0.9, array.size, dtype=np.float32).reshape(array.shape)
    return Prediction(
        Volume(array, scan.grid, "label", scan.source, scan.meta),
        LABELS,
        "0123abcd",
        probabilities=shares.astype(np.uint16),
        maps={"entropy": entropy},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("ct") / "ct"
    segmentations.series(place)
    return place


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory) -> dict[str, Path]:
    """Kind -> its file."""
    out, prediction = tmp_path_factory.mktemp("out"), predicted(folder)
    for kind in KINDS:
        prediction.save(out / f"p.{kind}.dcm")
    return {kind: out / f"p.{kind}.dcm" for kind in KINDS}


def test_one_list_of_kinds():
    assert tuple(KINDS) == OBJECTS
    assert set(OBJECT_ENDINGS) == {f".{kind}.dcm" for kind in KINDS}
    assert all(files.stem(f"a.b.{kind}.dcm") == "a.b" for kind in KINDS)


def test_all_are_new_series_of_the_study(folder, written):
    source = pydicom.dcmread(folder / "000.dcm")
    numbers = {}
    for kind, path in written.items():
        one = pydicom.dcmread(path)
        for name in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "StudyID"):
            assert one[name].value == source[name].value, (kind, name)
        assert one.SeriesInstanceUID != source.SeriesInstanceUID
        # The scan states no other date than that of its study.
        dates = {one.get(name, "20240101") for name in ("ContentDate", "SeriesDate")}
        assert dates == {"20240101"} == {one.get("InstanceCreationDate", "20240101")}
        numbers[kind] = int(one.SeriesNumber)
    assert numbers == {"seg": 290, "rtstruct": 291, "sr": 292, "pm": 293, "kos": 294, "sc": 295}
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in written.values()}) == 6


@pytest.mark.parametrize("number", [None, 0, 30_000_000])
def test_a_series_without_a_number_that_can_be_used(tmp_path, number):
    plane = np.zeros((4, 4), np.int16)
    more = {"FrameOfReferenceUID": "1.2.9"} | ({} if number is None else {"SeriesNumber": number})
    paths = objects.write(tmp_path, *(objects.ct(plane, k, **more) for k in range(3)))
    assert source_of(paths).number_of("seg") == 990


@pytest.mark.parametrize(
    ("age", "kept", "notes"),
    [
        ("045Y", "045Y", ()),
        ("0Y", "000Y", ("PatientAge 0Y is written as 000Y",)),
        ("45", None, ("PatientAge 45 is no age and is left out",)),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_an_age_that_breaks_its_form(tmp_path, age, kept, notes):
    plane, more = np.zeros((4, 4), np.int16), {"FrameOfReferenceUID": "1.2.9", "PatientAge": age}
    source = source_of(objects.write(tmp_path, *(objects.ct(plane, k, **more) for k in range(3))))
    assert source.headers[0].get("PatientAge") == kept and source.notes == notes


def test_the_report_has_the_measurements_of_each_segment(written):
    import highdicom as hd

    seg = pydicom.dcmread(written["seg"])
    groups = hd.sr.srread(written["sr"]).content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["liver", "left kidney"]
    found = [[(one.value, one.unit.value) for one in group.get_measurements()] for group in groups]
    # 100 voxels of 0.8 x 0.6 x 2.5 mm, with the values 33 row + column + slice. The ends of the
    # long axis are 10 columns and 4 rows apart, those of one pixel one row.
    assert found[0] == [
        (0.12, "ml"),
        (209.0, "[hnsf'U]"),
        (46.76, "[hnsf'U]"),
        (6.8, "mm"),
        (6.07059, "mm"),
    ]
    assert found[1] == [
        (0.0012, "ml"),
        (684, "[hnsf'U]"),
        (0, "[hnsf'U]"),
        (0.8, "mm"),
        (0.6, "mm"),
    ]
    for group, segment in zip(groups, seg.SegmentSequence, strict=True):
        (named,) = group.referenced_segment[0].ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert named.ReferencedSegmentNumber == segment.SegmentNumber
        assert group.tracking_uid == segment.TrackingUID
        assert group.finding_type.value == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
    assert groups[1].finding_sites[0].laterality.meaning == "Left"


def test_the_maps_have_the_values_of_the_prediction(folder, written):
    import highdicom as hd

    prediction, image = predicted(folder), hd.imread(written["pm"])
    assert image.Rows, image.NumberOfFrames == (37, 4 * 6)
    frames = image.get_frames(apply_real_world_transform=True)
    wanted = [*(prediction.probabilities[1:] / 65535), prediction.maps["entropy"]]
    steps = [1e-9] * 3 + [0.9 / 65535]
    places = {
        tuple(pydicom.dcmread(path).ImagePositionPatient): k
        for k, path in enumerate(sorted(folder.iterdir()))
    }
    names = []
    for group, frame in zip(image.PerFrameFunctionalGroupsSequence, frames, strict=True):
        mapping = group.RealWorldValueMappingSequence[0]
        n = int(mapping.LUTLabel.split()[0]) - 1
        k = places[tuple(group.PlanePositionSequence[0].ImagePositionPatient)]
        assert np.abs(frame.T - wanted[n][:, :, k]).max() <= steps[n]
        names.append(mapping.LUTLabel)
    assert set(names) == {"1 liver", "2 left kidney", "3 spleen", "4 entropy"}
    # Our own reader puts them on the grid of the scan.
    volumes = dicom.find_series(written["pm"])
    assert [int(dicom.read_series(one).array.max()) for one in volumes[:2]] == [43953, 65535]
    assert {one.position for one in volumes[0].planes} == {
        one.position for one in dicom.find_series(folder)[0].planes
    }


def test_the_selection_names_slices_that_exist(folder, written):
    import highdicom as hd

    document = hd.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(written["kos"]))
    named = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.content.get_references()
    ]
    slices = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(folder.iterdir())]
    # The entropy grows slowly from slice to slice.
    assert named == slices[3:]
    assert document.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    text = next(
        one.TextValue
        for one in document.ContentSequence
        if one.ConceptNameCodeSequence[0].CodeValue == "113012"
    )
    assert text.splitlines()[0] == "slice 4 of 6 (instance number 4): high entropy of the samples"


def test_a_segmentation_is_saved_as_asked_for(folder, tmp_path):
    prediction = predicted(folder)
    path = tmp_path / "p.seg.dcm"
    prediction.save(path, seg_type="FRACTIONAL", seg_syntax="rle")
    made = pydicom.dcmread(path)
    assert (made.SegmentationType, made.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert made.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    prediction.save(path, seg_type="LABELMAP")
    assert pydicom.dcmread(path).SegmentationType == "LABELMAP"
    for name, given in (
        ("p.kos.dcm", {"seg_type": "LABELMAP"}),
        ("p.seg.dcm", {"smallest_mm2": 2.0}),
        ("p.nii.gz", {"seg_syntax": "deflated"}),
        ("p.seg.dcm", {"seg_syntax": "rle"}),
    ):
        with pytest.raises(UsageError):
            prediction.save(tmp_path / name, **given)


def test_slices_for_review(folder):
    prediction = predicted(folder)
    source = source_of(sorted(folder.iterdir()))
    plain = replace(prediction, maps={})

    def reasons(flags=()):
        return slices_for_review(Result(plain, source, lambda: files.read(folder), flags))

    assert reasons() == {
        1: ["largest cross-section of liver"],
        4: ["largest cross-section of left kidney"],
    }
    assert reasons(FLAGS) == {1: [FLAGS[0]["words"]]}
    missing = ({"kind": "missing", "words": "spleen is missing", "structures": ["spleen"]},)
    assert reasons(missing) == {1: ["spleen is missing"]}
    empty = replace(plain, labels=plain.labels.with_array(np.zeros_like(plain.labels.array)))
    assert slices_for_review(Result(empty, source, lambda: None, missing)) == {
        3: ["spleen is missing"]
    }
    assert slices_for_review(Result(empty, source, lambda: None)) == {}


def test_the_page_is_a_picture_without_the_name_of_the_case(written):
    page = pydicom.dcmread(written["sc"])
    pixels = page.pixel_array
    assert pixels.shape[2] == 3 and page.BurnedInAnnotation == "NO" and page.Modality == "OT"
    # The liver is outlined in its own colour.
    assert (np.abs(pixels.astype(int) - (221, 130, 101)).max(axis=2) < 12).any()


def test_the_uid_follows_from_the_content(folder, written, tmp_path):
    prediction = predicted(folder)
    labels = prediction.labels.array.copy()
    labels[5, 4, 1] = 0
    other = replace(prediction, labels=prediction.labels.with_array(labels))
    for kind, path in written.items():
        prediction.save(tmp_path / f"same.{kind}.dcm")
        assert (tmp_path / f"same.{kind}.dcm").read_bytes() == path.read_bytes(), kind
        if kind not in ("pm", "kos", "sc"):  # these do not depend on this voxel
            other.save(tmp_path / f"other.{kind}.dcm")
            read = pydicom.dcmread(tmp_path / f"other.{kind}.dcm")
            assert read.SOPInstanceUID != pydicom.dcmread(path).SOPInstanceUID, kind
    shares = prediction.probabilities.copy()
    shares[1, 0, 0, 0] += 1
    replace(prediction, probabilities=shares).save(tmp_path / "other.pm.dcm")
    replace(prediction, maps={}).save(tmp_path / "other.kos.dcm")
    source, page = source_of(sorted(folder.iterdir())), np.zeros((4, 5, 3), np.uint8)
    write_sc(page, source, tmp_path / "other.sc.dcm", **ALGORITHM)
    for kind in ("pm", "kos", "sc"):
        read = pydicom.dcmread(tmp_path / f"other.{kind}.dcm")
        assert read.SOPInstanceUID != pydicom.dcmread(written[kind]).SOPInstanceUID


def test_they_fit_the_standard(written):
    if (validator := shutil.which("dciodvfy")) is None:
        pytest.skip("dciodvfy is not installed")
    for path in written.values():
        done = subprocess.run([validator, path], capture_output=True, text=True)
        assert "Error" not in done.stdout + done.stderr, path


def test_dcmtk_reads_the_same(folder, written, tmp_path):
    """Programs that share no code with what wrote the objects."""
    if shutil.which("dsrdump") is None or shutil.which("dcm2pnm") is None:
        pytest.skip("dcmtk is not installed")

    def run(*command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    report = run("dsrdump", "--print-long-values", "--print-instance-uid", written["sr"])
    measured = [float(one) for one in re.findall(r'<contains NUM:.*="([^"]+)" \(', report)]
    assert measured == [0.12, 209, 46.76, 6.8, 6.07059, 0.0012, 684, 0, 0.8, 0.6]
    assert pydicom.dcmread(written["seg"]).SOPInstanceUID in report
    selection = run("dsrdump", "--print-long-values", "--print-instance-uid", written["kos"])
    slices = [pydicom.dcmread(path).SOPInstanceUID for path in sorted(folder.iterdir())]
    assert [uid in selection for uid in slices] == [False] * 3 + [True] * 3
    run("dcm2pnm", "--write-raw-pnm", written["sc"], tmp_path / "page.ppm")
    with Image.open(tmp_path / "page.ppm") as page:
        assert np.array_equal(np.asarray(page), pydicom.dcmread(written["sc"]).pixel_array)
    image = pydicom.dcmread(written["pm"])
    run("dcm2pnm", "--write-16-bit-pnm", "--frame", "8", written["pm"], tmp_path / "map.pgm")
    words = (tmp_path / "map.pgm").read_text().split()
    shown = np.array(words[4:], int).reshape(image.Rows, image.Columns)
    assert np.array_equal(shown, image.pixel_array[7])


def test_flags_are_in_the_report_of_the_structures_that_they_name(folder, tmp_path):
    import highdicom as hd

    scan = {"kind": "mirrored", "words": "the scan looks mirrored, " + "x" * 80, "structures": []}
    prediction = predicted(folder)
    series = source_of(sorted(folder.iterdir()))
    result = Result(prediction, series, lambda: files.read(folder), (*FLAGS, scan))
    for kind in ("seg", "sr"):
        KINDS[kind].write(result, tmp_path / f"p.{kind}.dcm")
    groups = hd.sr.srread(tmp_path / "p.sr.dcm").content.get_volumetric_roi_measurement_groups()
    name = hd.sr.CodedConcept("flag", "99DELINEATE", "Flag")
    found = [
        [(one.value.value, one.value.meaning) for one in g.get_qualitative_evaluations(name=name)]
        for g in groups
    ]
    about_scan = ("mirrored", scan["words"][:64])
    assert found == [[("volume", FLAGS[0]["words"]), about_scan], [about_scan]]


def test_frames_of_an_enhanced_object_are_named_by_their_numbers(tmp_path):
    import highdicom as hd

    pixels = np.arange(5 * 8 * 6, dtype=np.uint16).reshape(5, 8, 6)
    one = objects.enhanced(
        pixels,
        # In another order than in space.
        [objects.at(0, 0, 3 * z) | objects.rescale(1, -100, "HU") for z in (4, 2, 0, 1, 3)],
        Modality="CT",
        FrameOfReferenceUID="1.2.9",
        SeriesNumber=7,
    )
    objects.write(tmp_path / "ct", one)
    scan = files.read(tmp_path / "ct")
    array = np.zeros(scan.shape, np.uint8)
    array[1:3, 2:5, 3] = 1
    labels = Volume(array, scan.grid, "label", scan.source, scan.meta)
    shares = np.stack([np.zeros(array.shape, np.uint16), scan.array.astype(np.uint16)])
    tumour = LabelSet((Label(1, "liver tumour", (221, 130, 101)),))
    prediction = Prediction(labels, tumour, probabilities=shares)
    for kind in ("rtstruct", "sr", "pm", "kos"):
        prediction.save(tmp_path / f"p.{kind}.dcm")
    selection = pydicom.dcmread(tmp_path / "p.kos.dcm")
    (named,) = [item for item in selection.ContentSequence if item.ValueType == "IMAGE"]
    reference = named.ReferencedSOPSequence[0]
    # Slice 3 is the frame at 9 mm, the fifth one.
    assert reference.ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert reference.ReferencedFrameNumber == 5
    report = hd.sr.srread(tmp_path / "p.sr.dcm").content
    (group,) = report.get_volumetric_roi_measurement_groups()
    assert (group.finding_type.meaning, group.finding_sites[0].value.meaning) == (
        "Neoplasm",
        "Liver",
    )
    values = scan.array[array > 0]
    assert group.get_measurements()[1].value == pytest.approx(values.mean(), rel=1e-5)
    maps = pydicom.dcmread(tmp_path / "p.pm.dcm")
    frames = {
        float(group.PlanePositionSequence[0].ImagePositionPatient[2]): frame
        for group, frame in zip(
            maps.PerFrameFunctionalGroupsSequence, maps.pixel_array, strict=True
        )
    }
    for k in range(5):
        assert np.array_equal(frames[3.0 * k].T, shares[1, :, :, k])


def test_names_in_any_script(folder, tmp_path):
    prediction = predicted(folder)
    names = LabelSet.from_names({1: "肝臓", 2: "Größe", 3: "spleen"})
    prediction = replace(prediction, structures=names, maps={})
    for kind in ("rtstruct", "sr", "pm", "kos"):
        prediction.save(tmp_path / f"p.{kind}.dcm")
    seg, contours, report, maps, selection = (
        pydicom.dcmread(tmp_path / f"p.{kind}.dcm")
        for kind in ("seg", "rtstruct", "sr", "pm", "kos")
    )
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["肝臓", "Größe"]
    assert [one.ROIName for one in contours.StructureSetROISequence] == ["肝臓", "Größe"]
    assert all(name in str(report.ContentSequence[-1].to_json_dict()) for name in ("肝臓", "Größe"))
    frames = maps.PerFrameFunctionalGroupsSequence
    labels = {one.RealWorldValueMappingSequence[0].LUTLabel for one in frames}
    assert labels == {"1 肝臓", "2 Größe", "3 spleen"}
    text = selection.ContentSequence[-3].TextValue
    assert text.endswith("slice 5 of 6 (instance number 5): largest cross-section of Größe")


NAMED = (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう")
NOT_STATED = (None, "王^小东".encode("gbk"))


@pytest.mark.parametrize(("characters", "name"), [NAMED, NOT_STATED])
def test_the_name_of_a_patient_in_any_character_set(tmp_path, characters, name):
    plane = np.zeros((4, 4), np.int16)
    slices = [objects.ct(plane, k, FrameOfReferenceUID="1.2.9") for k in range(3)]
    for one in slices:
        one.SpecificCharacterSet, one.PatientName = characters, name
    paths = objects.write(tmp_path / "ct", *slices)
    scan = files.read(tmp_path / "ct")
    array = np.zeros(scan.shape, np.uint8)
    array[1, 1, 1] = 1
    labels = Volume(array, scan.grid, "label", scan.source, scan.meta)
    for kind in ("seg", "rtstruct", "kos"):
        Prediction(labels, LabelSet(LABELS.labels[:1])).save(tmp_path / f"p.{kind}.dcm")
        written = pydicom.dcmread(tmp_path / f"p.{kind}.dcm")
        assert written.PatientName == pydicom.dcmread(paths[0]).PatientName
        kept = "山田^太郎".encode() if characters else name
        assert kept in (tmp_path / f"p.{kind}.dcm").read_bytes()


def test_maps_of_more_than_4_gib_are_compressed(folder, written, tmp_path, monkeypatch):
    monkeypatch.setattr(pm, "MOST_BYTES", 0)
    predicted(folder).save(tmp_path / "p.pm.dcm")
    packed, plain = (pydicom.dcmread(path) for path in (tmp_path / "p.pm.dcm", written["pm"]))
    assert packed.file_meta.TransferSyntaxUID.name == "JPEG-LS Lossless Image Compression"
    assert np.array_equal(packed.pixel_array, plain.pixel_array)


def test_a_prediction_is_saved_only_with_its_series(folder, tmp_path):
    prediction = predicted(folder)
    elsewhere = replace(prediction, labels=replace(prediction.labels, source="", meta={}))
    with pytest.raises(InputError, match="state it with like=FOLDER"):
        elsewhere.save(tmp_path / "p.seg.dcm")
    elsewhere.save(tmp_path / "p.seg.dcm", like=folder)
    uid = pydicom.dcmread(folder / "000.dcm").SeriesInstanceUID
    elsewhere.save(tmp_path / "q.seg.dcm", like=f"{folder.parent}/./{folder.name}/#{uid}")
    assert (tmp_path / "p.seg.dcm").read_bytes() == (tmp_path / "q.seg.dcm").read_bytes()
    with pytest.raises(UsageError, match="like is for DICOM objects"):
        prediction.save(tmp_path / "p.nii.gz", like=folder)
    with pytest.raises(InputError, match=NO_SERIES):
        prediction.save(tmp_path / "r.seg.dcm", like=__file__)
    bare = replace(prediction, probabilities=None, maps={})
    with pytest.raises(OutputError, match="there is no map"):
        bare.save(tmp_path / "p.pm.dcm")


def test_what_highdicom_refuses_costs_no_structure_set(tmp_path):
    plane = np.zeros((4, 4), np.int16)
    more = {"FrameOfReferenceUID": "1.2.9", "PatientSex": "X"}
    objects.write(tmp_path / "ct", *(objects.ct(plane, k, **more) for k in range(3)))
    case = Case("p1", "p1", (Source(str(tmp_path / "ct")),))
    found = series_of(case, "0123abcd", LABELS, ("seg", "rtstruct", "kos"))
    assert found["seg"] is found["kos"] and "PatientSex" in str(found["seg"])
    assert isinstance(found["rtstruct"], SourceSeries)


@pytest.mark.parametrize("frames", [1, 2])
def test_an_image_without_a_place_has_no_map(tmp_path, frames):
    """An ultrasound image has a SEG, a frame of a clip not even that."""
    pixels = np.ones((frames, 6, 8), np.uint8)
    kind = "3.1" if frames > 1 else "6.1"
    one = objects.image(
        pixels if frames > 1 else pixels[0],
        sop_class=f"1.2.840.10008.5.1.4.1.1.{kind}",
        modality="US",
    )
    objects.write(tmp_path / "us", one)
    (found, *_) = dicom.find_series(tmp_path / "us")
    source, grid = source_of(found), dicom.read_series(found).grid
    array = np.zeros(grid.shape, np.uint8)
    array[2:4] = 1
    labels = LabelSet.from_names({1: "lesion"})
    mask = Volume(array, grid, "label", "", {})
    chance = pm.ParametricMap.of("lesion", "Probability", replace(mask, unit="a.u."), 1.0)
    with pytest.raises(FormatError, match="without a place in space"):
        pm.write_pm([chance], source, tmp_path / "m.pm.dcm", **ALGORITHM)
    if frames > 1:
        with pytest.raises(FormatError, match="frame without a place in space"):
            write_seg(mask, labels, source, tmp_path / "m.seg.dcm", **ALGORITHM)


def test_words_of_the_format_option():
    both = PredictOptions(form="sr,nrrd", dicom_seg=True)
    assert both.mask_form == "nrrd" and both.objects == ("seg", "sr")
    assert PredictOptions(form="kos,pm").mask_form == "nii.gz"
    assert PredictOptions(form="pm").needs_probabilities
    with pytest.raises(UsageError, match=r"found 'seg\.dcm'"):
        refuse_unfit(PredictOptions(form="nii.gz,seg.dcm"), small_plan())
    with pytest.raises(UsageError, match=r"one format of the masks, found nii\.gz, nrrd"):
        refuse_unfit(PredictOptions(form="nii.gz,nrrd,seg"), small_plan())
    with pytest.raises(UsageError, match=r"--format pm,.* and --ram exclude each other"):
        refuse_unfit(PredictOptions(form="pm", ram_bytes=1 << 30), small_plan())


def test_diameters_of_a_disc():
    i, j = np.mgrid[:101, :61]
    disc = ((i - 50) / 40) ** 2 + ((j - 30) / 20) ** 2 <= 1
    mask = np.stack([disc & (i < 50), disc, np.zeros_like(disc)], axis=-1)
    found = diameters(mask, (0.5, 1.0, 3.0))
    assert (found.long_mm, found.short_mm, found.slice) == (41.0, 40.5, 1)
    assert np.isnan(diameters(mask[:, :, 2:], (1, 1)).long_mm)

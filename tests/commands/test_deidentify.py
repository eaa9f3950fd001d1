"""De-identification: a name planted in every kind of place is found in nothing that is written."""

from __future__ import annotations

import csv
import io
import shutil
import stat
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, RLELossless
from tests import leaks as search
from tests.calls import call, run
from tests.formats.dicom.objects import image, item, pet, write
from tests.plans import small_plan
from tests.segmentations import COLUMNS, ROWS, SLICES, saved, segmentation, series
from tests.structure_sets import CLOSED, circle_on, write_structure_set

from delineate.core.bundle import Bundle, Member
from delineate.core.manifest import Source
from delineate.core.plan import Channel, Normalisation
from delineate.formats import dicom, files
from delineate.formats.dicom.deidentify import without_rest
from delineate.formats.label_files import names_in, read_label_file

pytest.importorskip("highdicom")
FAMILY, GIVEN, ID = "Zaphodius", "Quirrelmann", "MRN-77Q4X91"
WORDS = (FAMILY, GIVEN, ID, "Beeblegrund", "77q4x91", "1.2.826.77491")
# Text of one kind of value or another, wherever people and programs write names.
PLANTED = {
    "PatientName": f"{FAMILY}^{GIVEN}",
    "PatientID": ID,
    "OtherPatientIDs": [ID, "other"],
    "OtherPatientNames": f"{FAMILY}^x",
    "PatientBirthName": "Beeblegrund",
    "PatientComments": f"{FAMILY} was here",
    "PatientAddress": f"{FAMILY} street 5",
    "AdditionalPatientHistory": f"son of {GIVEN}",
    "ReferringPhysicianName": f"{GIVEN}^Doc",
    "OperatorsName": GIVEN,
    "PerformingPhysicianName": GIVEN,
    "PhysiciansOfRecord": GIVEN,
    "RequestingPhysician": GIVEN,
    "InstitutionName": f"{FAMILY} clinic",
    "InstitutionAddress": f"{FAMILY} road",
    "InstitutionalDepartmentName": FAMILY,
    "StationName": FAMILY,
    "StudyDescription": f"CT {FAMILY} abdomen",
    "SeriesDescription": f"portal {FAMILY.upper()}",
    "ProtocolName": f"Liver_{FAMILY}",
    "ImageComments": FAMILY,
    "DerivationDescription": FAMILY,
    "AccessionNumber": ID,
    "StudyID": ID,
    "RequestedProcedureDescription": FAMILY,
    "PerformedProcedureStepDescription": FAMILY,
    "PerformedProcedureStepID": ID,
    "AdmittingDiagnosesDescription": FAMILY,
    "ContrastBolusAgent": FAMILY,
    "DeviceSerialNumber": FAMILY,
    "DeviceUID": f"1.2.{int.from_bytes(FAMILY.encode(), 'big')}",
    "LossyImageCompressionMethod": FAMILY.upper(),
    "ICCProfile": FAMILY.encode() + b"\0",
    "DataSetTrailingPadding": FAMILY.encode() + b"\0",
    "IconImageSequence": [item(Rows=1, Columns=1, BitsAllocated=8, PixelData=FAMILY.encode())],
    "OriginalAttributesSequence": [item(SourceOfPreviousValues=FAMILY)],
    # Places that the table of the standard does not name.
    "BodyPartExamined": FAMILY.upper(),
    "SequenceName": FAMILY,
    "SoftwareVersions": [FAMILY, "1.0"],
    "RetrieveURL": f"https://{FAMILY}",
    "TextValue": FAMILY,
    "MetaboliteMapDescription": FAMILY,
    "ImageType": ["ORIGINAL", "PRIMARY", FAMILY.upper()],
}


def plant(one: Dataset) -> Dataset:
    """The object with names everywhere."""
    for name, value in PLANTED.items():
        setattr(one, name, value)
    one.StudyDate, one.SeriesDate, one.PatientBirthDate = "20240131", "20240131", "19700102"
    one.OtherPatientIDsSequence = [item(PatientID=ID)]
    one.RequestAttributesSequence = [item(ScheduledProcedureStepDescription=FAMILY)]
    code = item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning=f"liver of {FAMILY}")
    one.AnatomicRegionSequence = [code]
    one.add_new(0x00091001, "LO", FAMILY)
    one.add_new(0x00091002, "UN", FAMILY.encode())
    one.add_new(0x00091003, "SQ", [item(PatientName=FAMILY, StudyDate="20240131")])
    one.add_new(0x60000010, "US", 1)
    one.add_new(0x60003000, "OW", f"{FAMILY} ".encode() * 2)
    one.add_new(0x60004000, "LT", FAMILY)
    one.add_new(0x50003000, "OW", f"{FAMILY} ".encode())
    one.add_new(0x00100999, "LO", FAMILY)  # unknown
    one.add_new(0xFFFCFFFC, "OB", FAMILY.encode() + b"\0")
    nested = item(PatientName=FAMILY)
    nested.add_new(0x00111001, "SQ", [item(PatientID=ID)])
    one.add_new(0x00111002, "SQ", [nested])
    one.add_new(0x50102500, "LO", FAMILY)
    if "PixelData" in one:
        one.PixelData += FAMILY.encode() + b"\0"
    one.file_meta.SourceApplicationEntityTitle = FAMILY
    one.file_meta.SendingApplicationEntityTitle = FAMILY
    one.file_meta.PrivateInformationCreatorUID = "1.2.3"
    one.file_meta.PrivateInformation = FAMILY.encode() + b"\0"
    one.preamble = FAMILY.encode().ljust(128, b"\0")
    return one


def index() -> Dataset:
    """A DICOMDIR with the name."""
    one = Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    one.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    one.DirectoryRecordSequence = [item(DirectoryRecordType="PATIENT", PatientName=FAMILY)]
    return one


def report(kind: str, source: Dataset) -> Dataset:
    """A report object that shows a slice, and names people."""
    one = image(np.zeros((1, 1), np.uint8), sop_class=kind, modality="SR")
    del one.PixelData, one.Rows, one.Columns
    shown = item(
        ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID
    )
    one.ContentSequence = [
        item(ValueType="TEXT", TextValue=f"{FAMILY} has a lesion"),
        item(ValueType="PNAME", PersonName=GIVEN),
        item(ValueType="DATE", Date="20240131"),
        item(ValueType="IMAGE", ReferencedSOPSequence=shown),
    ]
    one.VerifyingObserverSequence = [item(VerifyingObserverName=GIVEN, VerifyingOrganization="x")]
    return one


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A CT with names everywhere, and a segmentation, a structure set and two reports of it."""
    folder = tmp_path_factory.mktemp("d") / FAMILY / "CT"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = series()
        write(folder, *map(plant, source))
        for path in list(folder.iterdir()):
            path.rename(path.with_name(f"{FAMILY}_{path.name}"))
        labels = folder.with_name("labels")
        pixels = np.zeros((SLICES, ROWS, COLUMNS), np.uint8)
        pixels[1, 3:20, 4:30], pixels[3, 5:9, 6:11] = 1, 2
        saved(segmentation(source, pixels, names=["liver", f"tumour {GIVEN}"]), labels / "seg.dcm")
        grid = files.read_grid(folder)
        drawn = [[(circle_on(grid, (12, 12), 4, k), CLOSED)] for k in (1, 2, 3)]
        write_structure_set(
            labels / f"{FAMILY}.dcm",
            dict(zip(("Left Kidney", f"{GIVEN} lesion", "GTV-1"), drawn, strict=True)),
            patient=ID,
            frame=source[0].FrameOfReferenceUID,
            series=source[0].SeriesInstanceUID,
            instances=[one.SOPInstanceUID for one in source],
        )
        for n, kind in enumerate(("88.33", "88.59")):
            one = plant(report(f"1.2.840.10008.5.1.4.1.1.{kind}", source[0]))
            one.save_as(labels / f"report{n}.dcm", enforce_file_format=True)
        index().save_as(folder.with_name("DICOMDIR"), enforce_file_format=True)
    folder.with_name(f"{FAMILY}.txt").write_text("not DICOM")
    folder.with_name("damaged").mkdir()
    (folder.with_name("damaged") / f"{GIVEN}.dcm").write_bytes(
        bytes(128) + b"DICM" + FAMILY.encode()
    )
    return folder.parent


@pytest.fixture(scope="module")
def cleaned(made, tmp_path_factory) -> tuple[Path, str]:
    """The same without names, and all that was printed and logged."""
    out, log = tmp_path_factory.mktemp("o") / "clean", tmp_path_factory.mktemp("l") / "log.txt"
    done = call("-v", "--log", log, "convert", made, out, "--deidentify", "basic")
    assert done.returncode == 1, done.stderr
    return out, done.stdout + done.stderr + log.read_text()


def objects(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def ct_of(folder: Path) -> Path:
    return next(p for p in folder.glob("*/*/*") if len(list(p.iterdir())) == SLICES)


def test_the_name_is_nowhere(made, cleaned):
    out, text = cleaned
    assert len(objects(out)) == SLICES + 4
    assert search.leaks([out, text], WORDS) == []
    # The search itself finds the planted names.
    assert len(search.leaks([made], [FAMILY])) > SLICES


def test_a_file_that_fails_is_named_without_the_name(cleaned):
    _, text = cleaned
    assert "damaged/* (file 7 of 12)" in text
    assert "1 other files are no DICOM objects" in text and "1 DICOMDIR files" in text


def test_voxels_and_places_are_kept(made, cleaned):
    before, after = dicom.find_series(made), dicom.find_series(cleaned[0])
    assert len(before) == len(after) == 1
    one, other = dicom.read_series(before[0]), dicom.read_series(after[0])
    assert np.array_equal(one.array, other.array) and one.grid.matches(other.grid, 1e-6)
    nbytes = 2 * ROWS * COLUMNS  # a name follows
    stored = {bytes(pydicom.dcmread(path).PixelData)[:nbytes] for path in (made / "CT").iterdir()}
    assert {bytes(d.PixelData) for d in objects(ct_of(cleaned[0]))} == stored


def test_what_was_done_is_stated(cleaned):
    for one in objects(cleaned[0]):
        assert one.PatientIdentityRemoved == "YES"
        assert one.LongitudinalTemporalInformationModified == "REMOVED"
        codes = [code.CodeValue for code in one.DeidentificationMethodCodeSequence]
        assert codes == ["113100"] + ["113104"] * ("ContentSequence" in one)
        assert one.PatientName == one.PatientID != ""
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        assert one.preamble == bytes(128)
    assert len({one.PatientID for one in objects(cleaned[0])}) == 1


def test_texts_in_compressed_pixels_are_removed_and_no_pixel(tmp_path):
    grey = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30))
    exif = Image.Exif()
    exif[270] = FAMILY
    for syntax, kind, more in (
        (JPEGBaseline8Bit, "JPEG", {"comment": FAMILY.encode(), "exif": exif}),
        (JPEG2000, "JPEG2000", {"no_jp2": True, "comment": FAMILY, "irreversible": True}),
    ):
        file = io.BytesIO()
        grey.save(file, kind, **more)
        frame = file.getvalue()
        assert FAMILY.encode() in frame
        one = image(np.zeros((20, 30), np.uint8))
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = encapsulate([frame + FAMILY.encode() * 2])
        one["PixelData"].is_undefined_length = True
        without_rest(one)
        assert FAMILY.encode() not in one.PixelData
        found = next(generate_frames(one.PixelData, number_of_frames=1))
        shown = Image.open(io.BytesIO(found))
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(file)))


def test_bytes_between_and_behind_segments_of_rle_are_removed_and_no_pixel():
    pixels = np.repeat(np.arange(600, dtype=np.uint16).reshape(20, 30) * 300, 3, axis=1)
    one = image(np.stack([pixels, pixels[::-1]]))
    one.compress(RLELossless, generate_instance_uid=False)
    frames = []
    for frame in generate_frames(one.PixelData, number_of_frames=2):
        second = int.from_bytes(frame[8:12], "little") + len(FAMILY)
        head = frame[:8] + second.to_bytes(4, "little") + FAMILY.encode().ljust(52, b"!")
        begin = second - len(FAMILY)
        frames.append(head + frame[64:begin] + FAMILY.encode() + frame[begin:] + FAMILY.encode())
    one.PixelData = encapsulate(frames)
    without_rest(one)
    assert FAMILY.encode() not in one.PixelData
    np.testing.assert_array_equal(one.pixel_array, np.stack([pixels, pixels[::-1]]))


def test_values_that_an_object_must_have_are_not_emptied(tmp_path):
    one = image(np.zeros((4, 4), np.uint8), PatientName=FAMILY, Manufacturer=f"{FAMILY} works")
    one.AnatomicRegionSequence = [item(CodeValue="1", CodeMeaning=FAMILY)]
    one.ContentDescription = FAMILY
    write(tmp_path / "in", one)
    assert run("convert", tmp_path / "in", tmp_path / "out", "--deidentify", "basic")[0] == 0
    (made,) = objects(tmp_path / "out")
    assert (made.Manufacturer, made.ContentDescription) == ("REMOVED", "")
    assert made.AnatomicRegionSequence[0].CodeMeaning == "REMOVED"


def test_labels_still_belong_to_their_series(made, cleaned):
    out, _ = cleaned
    place = made / "labels" / f"{FAMILY}.dcm"
    before = read_label_file(Source(str(place), like=str(made / "CT")))
    kinds = {one.Modality: one for one in objects(out)}
    place = next(p for p in out.rglob("*.dcm") if p.stem == kinds["RTSTRUCT"].SOPInstanceUID)
    after = read_label_file(Source(str(place), like=str(ct_of(out))))
    assert np.array_equal(before.array, after.array)
    names = [roi.ROIName for roi in kinds["RTSTRUCT"].StructureSetROISequence]
    assert names[0] == "left kidney" and names[2] == "GTV-1"
    assert names[1].startswith("structure ")
    segments = [one.SegmentLabel for one in kinds["SEG"].SegmentSequence]
    assert segments[0] == "liver" and segments[1].startswith("structure ")
    slices = {one.SOPInstanceUID for one in objects(ct_of(out))}
    shown = kinds["SR"].ContentSequence[3].ReferencedSOPSequence[0]
    assert shown.ReferencedSOPInstanceUID in slices
    assert shown.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"


def test_the_same_key_gives_the_same_bytes(made, cleaned, tmp_path):
    key = tmp_path / "key"
    first = run("convert", made / "CT", tmp_path / "a", "--deidentify", "basic", "--key", key)[1]
    assert f"made the key {key}" in first and FAMILY not in first
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for name in ("b", "a"):  # again to another place, and to the same one
        code, text = run(
            "convert", made / "CT", tmp_path / name, "--deidentify", "basic", "--key", key
        )
        assert code == 0, text
    one, other = (sorted((tmp_path / n).rglob("*.dcm")) for n in "ab")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]
    assert not {p.name for p in one} & {p.name for p in cleaned[0].rglob("*.dcm")}


def test_each_file_is_opened_once(made, tmp_path, monkeypatch):
    opened, counts = Path.open, Counter()

    def counted(path, *words, **options):
        counts[path.name] += path.parent == made / "CT"
        return opened(path, *words, **options)

    monkeypatch.setattr(Path, "open", counted)
    run("convert", made / "CT", tmp_path / "o", "--deidentify", "basic")
    assert sorted((+counts).values()) == [1] * SLICES


def test_options(made, tmp_path, monkeypatch):
    monkeypatch.setenv("DELINEATE_DEIDENTIFY_KEY", "a secret of this test")
    table = tmp_path / "ids.csv"
    with table.open("w") as file:
        csv.writer(file).writerows([("id", "new"), (ID, "case-1")])
    source = tmp_path / "one"
    source.mkdir()
    shutil.copy(next((made / "CT").iterdir()), source / "a.dcm")
    words = "basic,dates,device,descriptors,patient"
    code, text = run(
        *("convert", source, tmp_path / "out", "--deidentify", words, "--pseudonyms", table)
    )
    assert code == 0, text
    (one,) = objects(tmp_path / "out" / "case-1")
    assert one.PatientID == "case-1" and one.PatientBirthDate == ""
    assert one.StudyDate == one.SeriesDate < "20240101" and one.StudyTime == "101010"
    assert one.LongitudinalTemporalInformationModified == "MODIFIED"
    assert one.SeriesDescription == "portal" and one.StudyDescription == "CT abdomen"
    assert one.ProtocolName == "Liver" and one.StationName == ""
    codes = {code.CodeValue for code in one.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113105", "113107", "113108", "113109"}
    assert search.leaks([tmp_path / "out"], WORDS) == []


def test_uptake_values_need_dates_and_weight(tmp_path):
    write(tmp_path / "in", *(pet(k) for k in range(3)))
    before = files.read(tmp_path / "in", unit="suv")
    for words, fits in (("basic", False), ("basic,dates,patient", True)):
        out = tmp_path / words.replace(",", "-")
        assert run("convert", tmp_path / "in", out, "--deidentify", words)[0] == 0
        code, text = run("convert", ct_like(out), tmp_path / f"{fits}.nii.gz", "--unit", "suv")
        assert (code == 0) == fits, text
    after = files.read(tmp_path / "True.nii.gz")
    assert np.allclose(before.array, after.array)


def ct_like(folder: Path) -> Path:
    return next(folder.glob("*/*/*"))


def ultrasound(**fields) -> Dataset:
    pixels = np.full((20, 30, 3), 200, np.uint8)
    kind = "1.2.840.10008.5.1.4.1.1.6.1"
    return image(pixels, sop_class=kind, modality="US", PatientID=ID, **fields)


def test_pixels_with_text_are_refused_or_black(tmp_path):
    region = {
        "RegionLocationMinX0": 5,
        "RegionLocationMinY0": 4,
        "RegionLocationMaxX1": 24,
        "RegionLocationMaxY1": 15,
    }
    stated = ultrasound(SequenceOfUltrasoundRegions=[item(**region)])
    write(
        tmp_path / "in",
        stated,
        ultrasound(),
        image(np.ones((4, 4), np.uint8), BurnedInAnnotation="YES"),
    )
    code, text = run("convert", tmp_path / "in", tmp_path / "none", "--deidentify", "basic")
    assert code == 2 and "none of 3 DICOM files" in text and not (tmp_path / "none").exists()
    code, text = run("convert", tmp_path / "in", tmp_path / "one", "--deidentify", "basic,pixels")
    assert code == 1 and "--blacken LEFT,TOP,RIGHT,BOTTOM" in text
    (one,) = objects(tmp_path / "one")
    wanted = np.zeros((20, 30, 3), np.uint8)
    wanted[4:16, 5:25] = 200
    assert np.array_equal(one.pixel_array, wanted) and one.BurnedInAnnotation == "NO"
    code, text = run(
        *("convert", tmp_path / "in", tmp_path / "all", "--deidentify", "basic,pixels"),
        *("--blacken", "0,0,3,2"),
    )
    assert code == 0, text
    dark = {d.Modality: [] for d in objects(tmp_path / "all")}
    for one in objects(tmp_path / "all"):
        dark[one.Modality].append(int((one.pixel_array == 0).sum()))
    assert dark["CT"] == [6] and sorted(dark["US"]) == [18, 3 * (600 - 240)]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--deidentify", "safe"], "--deidentify is basic, and after it some of dates"),
        (["--deidentify", "basic", "--spacing", "1,1,1"], "takes no other options"),
        (["--key", "k"], "are for --deidentify"),
        (["--deidentify", "basic", "--blacken", "0,0,1,1"], "is for --deidentify basic,pixels"),
        (["--deidentify", "basic,pixels", "--blacken", "3,0,1,1"], "LEFT,TOP,RIGHT,BOTTOM"),
        (["--deidentify", "basic", "--key", "OUT/key"], "must not be in the output folder"),
    ],
)
def test_wrong_options(made, tmp_path, words, reason):
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    code, text = run("convert", made / "CT", tmp_path / "out", *words)
    assert code == 2 and reason in " ".join(text.replace("│", " ").split()), text
    assert not (tmp_path / "out").exists()


def test_a_file_made_of_them_has_no_name(made, tmp_path):
    target = tmp_path / "structures.nii.gz"
    code, text = run(
        *("convert", made / "labels" / f"{FAMILY}.dcm", target, "--like", made / "CT"),
        *("--deidentify", "basic"),
    )
    assert code == 0, text
    assert search.leaks([target, text], WORDS) == []
    assert names_in(target)[1] == "left kidney"


def test_everything_made_of_them_has_no_name(cleaned, deep_path):
    from delineate.networks.build import build, weights_of

    out, log = cleaned[0], deep_path / "log.txt"
    channels = (Channel(name="CT", normalise=Normalisation(kind="none")),)
    plan = small_plan(names={1: "liver", 2: "spleen"}, channels=channels)
    model = deep_path / "m.model"
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(model)
    results = deep_path / "results"
    said = [
        call("-v", "--log", log, *words)
        for words in (
            ("check", out, "-o", deep_path / "checked"),
            (
                "predict",
                model,
                ct_of(out),
                "-o",
                results,
                "--device",
                "cpu",
                "--dicom-seg",
                "--rtstruct",
            ),
            ("convert", ct_of(out), deep_path / "ct.nii.gz"),
            ("info", ct_of(out)),
            ("evaluate", results, results, "-o", deep_path / "scores"),
            ("report", deep_path / "scores"),
        )
    ]
    assert [done.returncode for done in said[1:4]] == [0, 0, 0], said[1].stderr
    assert list(results.rglob("*.seg.dcm"))
    printed = "".join(done.stdout + done.stderr for done in said)
    assert search.leaks([deep_path, printed], WORDS) == []

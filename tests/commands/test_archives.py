"""``predict`` on scans in an archive: the same masks as on a disk, results sent once, and no
credential anywhere.
"""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from tests.archives import Store, listening, serving
from tests.calls import run
from tests.commands.test_predict_series import model, planted
from tests.plans import small_network, small_plan

from delineate.commands.options import PredictOptions
from delineate.commands.predict import archives, session
from delineate.core.manifest import Case, Source
from delineate.core.plan import Channel
from delineate.core.progress import silent, unsaid
from delineate.formats import apart, files
from delineate.formats.dicom.remote import archive

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")
assert model  # a fixture
STUDY, SERIES = "1.2.4", "1.2.3"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(archive, "WAIT_S", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pacs") / "ct"
    planted(folder)
    return folder


@pytest.fixture
def web(folder):
    with serving(Store(*folder.iterdir())) as store:
        store.study = f"{store.url}/studies/{STUDY}"
        yield store


def predict(model, source, out, *words):
    code, text = run("predict", model, source, "-o", out, "--device", "cpu", *words)
    path = out / "predictions.json"
    record = json.loads(path.read_text()) if path.is_file() else {"cases": {}}
    return code, text, record["cases"]


def with_modality(store, folder, modality, uid):
    """Another series of the study."""
    one = pydicom.dcmread(next(folder.iterdir()))
    one.Modality, one.SeriesInstanceUID, one.SOPInstanceUID = modality, uid, f"{uid}.1"
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.save_as(path := folder.parent / f"{modality}.dcm")
    store.add(path.read_bytes())


def test_a_study_is_fetched_segmented_and_sent_back_once(model, folder, web, tmp_path, monkeypatch):
    with_modality(web, folder, "MR", "1.2.18")
    with_modality(web, folder, "SR", "1.2.19")
    untrusted = []
    monkeypatch.setattr(
        session,
        "read_scan",
        lambda *a, was=session.read_scan: untrusted.append(apart.is_untrusted()) or was(*a),
    )
    code, text, cases = predict(model, web.study, tmp_path / "out", "--send", "--rtstruct")
    assert code == 0, text
    assert "MR (1.2.18) is left out: the model needs CT" in text and "SR (1.2.19)" in text
    (entry,) = cases.values()
    assert list(cases) == [SERIES] and not apart.is_untrusted()
    # The mask is that of the scan on a disk.
    assert predict(model, folder, tmp_path / "local")[0] == 0
    mask = files.read(tmp_path / "local" / "ct.nii.gz")
    assert np.array_equal(files.read(tmp_path / "out" / entry["file"]).array, mask.array)
    # Only what was asked for is sent, here no SEG.
    (sent,) = entry["sent"]
    assert sent == {
        "file": f"{SERIES}.rtstruct.dcm",
        "to": web.url,
        "sop_instance_uid": pydicom.dcmread(tmp_path / "out" / entry["rtstruct"]).SOPInstanceUID,
        "status": "stored",
    }
    assert sent["sop_instance_uid"] in web.files and len(web.files) == 11
    # A second call has nothing to do; from another folder the archive still has one object.
    web.seen.clear()
    assert predict(model, web.study, tmp_path / "out", "--send", "--rtstruct")[0] == 0
    assert [how for how, _ in web.seen] == ["GET"] * len(web.seen)
    code, _, cases = predict(model, web.study, tmp_path / "other", "--send", "--rtstruct")
    assert code == 0 and len(web.files) == 11
    assert [row["status"] for row in cases[SERIES]["sent"]] == ["already there"]


def test_what_was_not_sent_is_sent_by_the_next_call(model, web, tmp_path):
    source, words = f"{web.study}/series/{SERIES}", ("--send", "--rtstruct", "--dicom-seg")
    web.faults = ["", "", "403"]  # retrieval, the first object, the second one
    code, text, cases = predict(model, source, tmp_path / "out", *words)
    assert code == 1 and f"{SERIES}.rtstruct.dcm was not sent: the archive answered 403" in text
    states = [row["status"] for row in cases[SERIES]["sent"]]
    assert states[0] == "stored" and "403 Forbidden" in states[1]
    web.seen.clear()
    code, text, cases = predict(model, source, tmp_path / "out", *words)
    assert code == 0 and [how for how, _ in web.seen].count("POST") == 1
    assert [row["status"] for row in cases[SERIES]["sent"]] == ["stored", "stored"]


def test_an_incomplete_series_fails_and_others_are_segmented(model, folder, web, tmp_path):
    web.stated = 9
    code, text = run("predict", model, web.study, folder, "-o", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]
    assert code == 1 and "8 of 9 instances" in record[SERIES]["error"] and "file" in record["ct"]
    code, text, _ = predict(model, web.study, tmp_path / "alone")
    assert code == 2 and "8 of 9 instances (NumberOfSeriesRelatedInstances) were received" in text


def test_series_are_channels_only_if_all_are_complete(folder, web, tmp_path):
    with_modality(web, folder, "MR", "1.2.18")
    channels = tuple(Channel(name=name) for name in ("MR", "CT"))
    plan = small_plan(channels=channels, network=small_network(channels=2))

    def fetched(*addresses):
        return archives.fetched(addresses, tmp_path / "o", plan, PredictOptions(), unsaid, silent)

    study = tmp_path / "o" / "fetched" / STUDY
    both = fetched(f"{web.study}/series/{SERIES}", f"{web.study}/series/1.2.18")
    assert both.inputs == (study,) and not both.failures
    (alone,) = fetched(f"{web.study}/series/{SERIES}").failures.values()
    assert "not complete: 1.2.18" in str(alone)
    web.stated = 8
    halved = fetched(web.study)
    assert not halved.inputs and set(halved.failures) == {"1.2.18", STUDY}


def test_one_study_of_two_archives_is_kept_apart(folder, web, tmp_path):
    plan = small_plan(channels=(Channel(name="CT"),))
    with serving(Store(*folder.iterdir())) as other:
        addresses = (web.study, f"{other.url}/studies/{STUDY}")
        found = archives.fetched(addresses, tmp_path / "o", plan, PredictOptions(), unsaid, silent)
        assert len(found.inputs) == len({*found.inputs}) == 2 and not found.failures
        cases = (Case(f"c{n}", "p", (Source(str(one)),)) for n, one in enumerate(found.inputs))
        assert [str(found.origin_of(case)) for case in cases] == [web.url, other.url]


def test_a_series_goes_both_ways_by_dimse(model, folder, tmp_path):
    with listening(Store(*folder.iterdir())) as store:
        source = f"{store.url}/{STUDY}/{SERIES}"
        code, text, cases = predict(model, source, tmp_path / "out", "--send")
        assert code == 0, text
        (sent,) = cases[SERIES]["sent"]
        assert sent["status"] == "stored" and sent["to"] == store.url
        assert sent["file"] == f"{SERIES}.seg.dcm" and sent["sop_instance_uid"] in store.files


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["CT", "--send"], "came from none; --send-to names one"),
        (["dicomweb:http://h/studies/1.2", "--send", "--send-to", "dimse:A@h:1"], "exclude"),
        (["CT", "--send-to", "dimse:A@h:1/1.2"], "--send-to names an archive"),
        (["dicomweb:http://h/dicom-web"], "names no study"),
        (["dicomweb:http://h/studies/1.2", "--dry-run"], "fetches nothing"),
    ],
)
def test_usage_that_makes_no_sense_is_one_sentence(model, tmp_path, words, expected):
    code, text = run("predict", model, *words, "-o", tmp_path / "out")
    assert code == 2 and expected in text


CREDENTIALS = (
    {"DELINEATE_DICOMWEB_TOKEN": "canary-7f3a"},
    {"DELINEATE_DICOMWEB_USER": "canary-7f3a", "DELINEATE_DICOMWEB_PASSWORD": "canary-7f3a"},
)


@pytest.mark.parametrize("given", CREDENTIALS, ids=["token", "password"])
@pytest.mark.parametrize("fault", ["", "401", "403", "503", "reset", "page", "crash"])
def test_credentials_reach_the_archive_and_nothing_else(
    model, web, tmp_path, monkeypatch, given, fault
):
    """The archive repeats what it was sent in its body and its phrase."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    web.faults = [fault] * 9 if fault else []
    if fault == "crash":  # an error that nobody foresaw writes its traceback

        def crash(*_):
            raise RuntimeError("unforeseen")

        monkeypatch.setattr("delineate.formats.dicom.remote.dicomweb._page", crash)
    out, log = tmp_path / "out", tmp_path / "log.txt"
    words = ("predict", model, web.study, "-o", out, "--send")
    code, text = run(*([] if fault == "crash" else ["-v"]), "--log", log, *words)
    assert code == {"": 0, "crash": 70}.get(fault, 2), text
    if fault != "crash":
        assert all(one.startswith(("Bearer canary", "Basic ")) for one in web.credentials)
        assert web.credentials
    secrets = ("canary", web.credentials[0].split()[1] if web.credentials else "canary")
    seen = [text.encode(), *(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())]
    assert not [one for one in seen for secret in secrets if secret.encode() in one]
    assert not {name for name in apart._without_credentials() if "DICOMWEB" in name}


def test_a_list_of_series_is_fetched_case_by_case_and_resumed(model, folder, web, tmp_path):
    at = {"image": f"{web.study}/series/{SERIES}"}
    lines = [
        {"id": "a", **at},
        {"id": "b", "image": web.study, "series": SERIES},
        {"id": "c", "image": web.study},
        {"id": "d", "image": f"{web.study}/series/1.9"},
        {"id": "e", "image": "dicomweb:http://me:secret@h/studies/1.2/series/1.3"},
        {"id": "f", "bytes": 5, **at},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    code, text, _ = predict(model, tmp_path / "list.jsonl", out)
    assert code == 1 and "2 of 6 cases" in text, text
    said = ("names no series of the archive", "the archive has no such", "no user, password")
    assert all(words in text for words in said) and "secret" not in text, text
    assert predict(model, folder, tmp_path / "local")[0] == 0
    mask = files.read(tmp_path / "local" / "ct.nii.gz").array
    assert all(np.array_equal(files.read(out / f"{n}.nii.gz").array, mask) for n in "ab")
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == []
    journal = (out / "predictions.jsonl").read_text()
    assert web.url in journal and "scan 0" not in journal
    # What is done is not fetched again, unless the series has other objects.
    web.seen.clear()
    assert predict(model, tmp_path / "list.jsonl", out)[0] == 1
    assert not any("/series/1.2.3" in path and "instances" not in path for _, path in web.seen)
    web.files.pop(next(iter(web.files)))
    _, text, _ = predict(model, tmp_path / "list.jsonl", out)
    assert "already" not in text, text

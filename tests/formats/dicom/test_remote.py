"""Archives: what is fetched is whole and of the series that was asked for, what fails is tried
again, and no credential is repeated.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from io import BytesIO
from itertools import pairwise

import pydicom
import pytest
from tests.archives import Store, listening, serving
from tests.commands.test_predict_series import planted

from delineate.core.errors import InputError, OutputError, UsageError
from delineate.formats.dicom import remote
from delineate.formats.dicom.remote import Access, Address, archive
from delineate.formats.dicom.remote.multipart import parts

pytest.importorskip("pynetdicom")
STUDY, SERIES = "1.2.4", "1.2.3"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(archive, "WAIT_S", 0.01)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series") / "ct"
    planted(folder)
    return sorted(folder.iterdir())


@pytest.fixture
def web(files):
    with serving(Store(*files)) as store:
        yield store


@pytest.fixture
def peer(files):
    with listening(Store(*files)) as store:
        yield store


def client(store, **more):
    return remote.connect(Address.of(store.url), Access(), **more)


def series_at(store):
    place = {True: f"/studies/{STUDY}/series/{SERIES}", False: f"/{STUDY}/{SERIES}"}
    return Address.of(store.url + place[store.url.startswith("dicomweb")])


def fetched(store, folder, **more):
    found = remote.fetch(client(store, **more), series_at(store), folder)
    return {path.stem: path.read_bytes() for path in found.iterdir()}


# ---- addresses and credentials ----


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb:https://pacs/a/dicom-web/studies/1.2/series/1.2.3",
        "dicomweb:http://[::1]:8042/studies/1.2",
        "dimse:MY PACS@10.0.0.5:104/1.2/1.3",
        "dimse:A@[::1]:104",
    ],
)
def test_an_address_is_read_as_it_is_written(text):
    assert str(Address.of(text)) == text and remote.is_remote(text)


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb:https://me:canary@pacs/dicom-web/studies/1.2",
        "dicomweb:https://pacs/dicom-web/studies/1.2?token=canary",
        "dicomweb:ftp://pacs/studies/1.2",
        "dicomweb:https://pacs/studies/../canary",
        "dicomweb:https://pacs/studies/1.2/series/canary",
        "dicomweb:https://pacs:99999/",
        f"dicomweb:https://pacs/studies/{'1' * 65}",
        "dimse:canary:104",
        "dimse:A@host:0",
        "dimse:SEVENTEENLETTERSX@host:104",
    ],
)
def test_another_address_is_refused_and_not_repeated(text):
    with pytest.raises(UsageError) as error:
        Address.of(text)
    assert "canary" not in str(error.value) and "dimse:AE@host:port" in str(error.value)


def test_credentials_are_cleaned_checked_and_never_shown(tmp_path):
    access = Access.of_environment({"DELINEATE_DICOMWEB_TOKEN": " canary\n"})
    assert access.token == "canary" and "canary" not in repr(access)
    named = {"DELINEATE_DICOMWEB_USER": "me", "DELINEATE_DICOMWEB_PASSWORD": "canary"}
    assert "canary" not in repr(Access.of_environment(named))
    for wrong in (
        {"DELINEATE_DICOMWEB_TOKEN": "canary\r\nX: 1"},
        {"DELINEATE_DICOMWEB_TOKEN": "canary\u2019"},
        {"DELINEATE_DICOMWEB_TOKEN": "canary", **named},
        {"DELINEATE_CA_FILE": str(tmp_path / "none.pem")},
    ):
        with pytest.raises(UsageError) as error:
            Access.of_environment(wrong)
        assert "canary" not in str(error.value)
    assert Access.of_environment({"DELINEATE_DIMSE_TLS": "1"}).dimse_tls
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(UsageError, match="DELINEATE_CA_FILE"):
        Access.of_environment({"DELINEATE_CA_FILE": str(tmp_path / "ca.pem")}).tls()


# ---- multipart ----


def test_parts_are_whole_wherever_the_chunks_end():
    first, last = b"--b\r\nA: 1\r\n\r\none\r\n--\r\n", b"--b \r\nB: 2\r\n\r\n\r\n-\r\n--b--\r\n"
    body = b"preamble\r\n" + first + b"--b\r\n\r\n\r\n" + last
    for size in range(1, len(body) + 1):
        ends = [*range(0, len(body), size), len(body)]
        chunks = [body[a:b] for a, b in pairwise(ends)]
        assert [b"".join(part) for part in parts(chunks, "b")] == [b"one\r\n--", b"", b"\r\n-"]


def test_a_part_that_is_not_read_is_passed():
    body = [b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--"]
    assert len(list(parts(body, "b"))) == 2


@pytest.mark.parametrize("kept", range(3, 19))
def test_a_body_that_ends_early_is_found(kept):
    body = b"--b\r\n\r\nfirst\r\n--b--"[:kept]
    with pytest.raises(archive.UnreachableError):
        [b"".join(part) for part in parts([body], "b")]


# ---- fetching ----


def test_instances_have_the_bytes_of_the_archive(web, tmp_path):
    assert fetched(web, tmp_path / "s") == web.files
    place = f"/dicom-web/studies/{STUDY}/series/{SERIES}"
    assert web.asked().count(place) == 1 and not web.asked("/instances/")
    # They are not fetched again.
    web.seen.clear()
    assert fetched(web, tmp_path / "s") == web.files
    assert place not in web.asked() and not web.asked("/instances/")


@pytest.mark.parametrize(("fault", "left"), [("cut 3", 5), ("cut 8", 0), ("short 3", 0)])
def test_a_transfer_that_was_cut_continues(web, tmp_path, fault, left):
    """Of a length that was stated and not kept, requests gives nothing of so short an answer."""
    web.faults = [fault]
    assert fetched(web, tmp_path / "s") == web.files
    again = web.asked(f"/series/{SERIES}/instances/")
    assert len(again) == len(set(again)) == left


@pytest.mark.parametrize("fault", ["503", "500", "429", "reset", "cut 0"])
def test_what_may_succeed_later_is_tried_again(web, tmp_path, fault):
    web.faults = [fault, fault]
    assert fetched(web, tmp_path / "s") == web.files


@pytest.mark.parametrize(
    ("fault", "words"),
    [("401", "DELINEATE_DICOMWEB_TOKEN"), ("400", "400 Bad Request"), ("page", "text/html")],
)
def test_what_is_refused_is_not_tried_again(web, tmp_path, fault, words):
    web.faults = [fault] * 9
    with pytest.raises(InputError, match=words):
        fetched(web, tmp_path / "s")
    assert len(web.faults) == 8


def test_an_archive_that_never_answers_is_given_up(web, tmp_path):
    web.faults = ["503"] * 99
    with pytest.raises(InputError, match=r"0 of 8 instances .* 503 Service Unavailable"):
        fetched(web, tmp_path / "s")
    assert len(web.faults) == 95
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"dicomweb:http://127.0.0.1:{free.getsockname()[1]}/studies/1.2"
    address = Address.of(url)
    with pytest.raises(InputError, match="cannot be reached"):
        remote.find(remote.connect(address, Access()), address)


def test_an_instance_without_a_frame_is_accepted(web, tmp_path):
    remote.fetch(client(web), series_at(web), tmp_path / "s")
    (first, *_) = (tmp_path / "s").iterdir()
    first.unlink()
    web.faults = ["frame"]
    assert fetched(web, tmp_path / "s") == web.files


@pytest.mark.parametrize("kind", ["web", "peer"])
def test_a_series_with_fewer_instances_than_stated_is_refused(kind, tmp_path, request):
    store = request.getfixturevalue(kind)
    store.stated = 11
    with pytest.raises(InputError, match="8 of 11 instances"):
        fetched(store, tmp_path / "s")


def test_a_damaged_file_is_fetched_again_and_a_deleted_instance_is_removed(web, tmp_path):
    fetched(web, tmp_path / "s")
    cut, gone = sorted((tmp_path / "s").iterdir())[:2]
    cut.write_bytes(cut.read_bytes()[:-20])
    del web.files[gone.stem]
    web.seen.clear()
    assert fetched(web, tmp_path / "s") == web.files
    assert [p.rpartition("/")[2] for p in web.asked("/instances/")] == [cut.stem]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("SeriesInstanceUID", "1.2.99", "another series"),
        ("StudyInstanceUID", "1.2.99", "another series"),
        ("SOPInstanceUID", "../../../evil", "valid SOPInstanceUID"),
    ],
)
def test_an_instance_that_was_not_asked_for_is_not_kept(web, tmp_path, key, value, words):
    uid = next(iter(web.files))
    other = web.of(STUDY, SERIES)[uid]
    setattr(other, key, value)
    other.save_as(tmp_path / "other.dcm")
    listed = web.of(STUDY, SERIES)
    web.files[uid] = (tmp_path / "other.dcm").read_bytes()
    web.of = lambda study, series="": listed
    with pytest.raises(InputError, match=rf"7 of 8 instances .* {words}"):
        fetched(web, tmp_path / "a" / "s")
    assert sorted(p.stem for p in (tmp_path / "a").rglob("*.dcm")) == sorted(set(listed) - {uid})
    assert not list(tmp_path.rglob("*evil*")) and not list(tmp_path.rglob("*.tmp.*"))


def test_all_pages_of_a_query_are_read(web, tmp_path):
    web.most = 3
    assert fetched(web, tmp_path / "s") == web.files
    web.most, web.ignores_offset = 1000, True
    assert client(web).instances(STUDY, SERIES) == set(web.files)


def test_a_study_that_is_not_there_is_one_sentence(web, peer):
    for store in (web, peer):
        place = "/studies/9.9" if store is web else "/9.9"
        address = Address.of(store.url + place)
        with pytest.raises(InputError, match="no such study"):
            remote.find(client(store), address)


# ---- DIMSE ----


def datasets(raw):
    return {uid: pydicom.dcmread(BytesIO(one)) for uid, one in raw.items()}


def test_a_series_is_fetched_by_c_get_and_continues(peer, tmp_path):
    peer.faults = ["3"]
    assert datasets(fetched(peer, tmp_path / "s")) == datasets(peer.files)
    gets = [what for name, what in peer.seen if name == "EVT_C_GET"]
    assert gets == ["SERIES 0", "IMAGE 5"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_series_is_fetched_by_c_move_to_a_port(peer, tmp_path):
    port = free_port()
    address, own = series_at(peer), client(peer, receive_port=port)
    peer.url = f"{peer.url} {port}"
    remote.fetch(own, address, tmp_path / "s")
    found = {path.stem: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    assert datasets(found) == datasets(peer.files)
    assert ("EVT_C_MOVE", "SERIES 0") in peer.seen


def test_a_peer_without_c_get_is_one_sentence(files, tmp_path):
    with (
        listening(Store(*files), gives=False) as store,
        pytest.raises(InputError, match="--receive-port"),
    ):
        fetched(store, tmp_path / "s")


def test_a_peer_that_rejects_or_does_not_answer_is_one_sentence(peer):
    wrong = Address.of(peer.url.replace("STORE", "OTHER") + f"/{STUDY}")
    with pytest.raises(InputError, match="rejects an association with DELINEATE"):
        remote.find(remote.connect(wrong, Access()), wrong)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = Address.of(f"dimse:A@127.0.0.1:{free.getsockname()[1]}/1.2")
    with pytest.raises(InputError, match="cannot be reached"):
        remote.find(remote.connect(gone, Access()), gone)


# ---- encryption ----


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that is its own authority, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    names = ("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509")
    made = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    subprocess.run(["openssl", "req", *curve, *names, *made], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("service", [serving, listening])
def test_encrypted_archives_need_a_trusted_certificate(
    service, files, certificate, tmp_path, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().cafile or "")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    with service(Store(*files), tls=tls) as store:
        place = series_at(store)
        trusting = Access(ca_file=str(certificate[0]), dimse_tls=True)
        found = remote.fetch(remote.connect(place, trusting), place, tmp_path / "s")
        assert len(list(found.iterdir())) == 8
        with pytest.raises(InputError, match=r"certificate|association"):
            remote.find(remote.connect(place, Access(dimse_tls=True)), place)


def of_both(certificate) -> tuple[ssl.SSLContext, Access]:
    """A service that wants a certificate of its clients, and a client that has it."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate[0])
    tls.load_cert_chain(*certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    cert, key = map(str, certificate)
    given = {"CA": cert, "CERT": cert, "KEY": key}
    stated = {f"DELINEATE_{name}_FILE": path for name, path in given.items()}
    return tls, Access.of_environment({**stated, "DELINEATE_DIMSE_TLS": "1"})


@pytest.mark.parametrize("service", [serving, listening])
def test_archives_may_want_a_certificate_of_this_program(
    service, files, certificate, result, tmp_path
):
    tls, own = of_both(certificate)
    with service(Store(*files), tls=tls) as store:
        place = series_at(store)
        found = remote.fetch(remote.connect(place, own), place, tmp_path / "s")
        assert len(list(found.iterdir())) == 8
        remote.send(remote.connect(place, own), result)
        assert "2.25.7" in store.files
        without = Access(ca_file=own.ca_file, dimse_tls=True)
        with pytest.raises(InputError):
            remote.find(remote.connect(place, without), place)


def test_c_move_is_encrypted_on_both_ways(files, certificate, tmp_path):
    tls, own = of_both(certificate)
    with listening(Store(*files), tls=tls, moves_by=own.tls()) as store:
        place, port = series_at(store), free_port()
        archive = remote.connect(place, own, receive_port=port)
        store.url = f"{store.url} {port}"
        remote.fetch(archive, place, tmp_path / "s")
        assert len(list((tmp_path / "s").iterdir())) == 8


# ---- sending ----


@pytest.fixture
def result(files, tmp_path):
    dataset = pydicom.dcmread(files[0])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.7"
    dataset.SeriesInstanceUID = "2.25.8"
    dataset.save_as(tmp_path / "result.dcm")
    return tmp_path / "result.dcm"


def test_an_object_that_is_sent_twice_is_one_object(web, result):
    assert remote.send(client(web), result) == "stored"
    # This service answers 409 to what it has.
    assert remote.send(client(web), result) == "already there"
    assert len(web.files) == 9 and datasets(web.files)["2.25.7"] == pydicom.dcmread(result)


@pytest.mark.parametrize(
    ("fault", "words"), [("409", "409 Conflict"), ("reason A900", "0xA900"), ("403", "403")]
)
def test_an_object_that_is_not_accepted_is_an_error(web, result, fault, words):
    web.faults = [fault]
    with pytest.raises(OutputError, match=words):
        remote.send(client(web), result)
    web.faults = ["503", "500"]
    assert remote.send(client(web), result) == "stored"


def test_objects_are_sent_by_c_store(files, result):
    with listening(Store(*files), statuses=(0xA700, 0x0000)) as store:
        # Out of resources is tried again; this service then loses what it accepts.
        assert remote.send(client(store), result) == "accepted"
        assert remote.send(client(store), result) == "stored"
        assert remote.send(client(store), result) == "stored" and len(store.files) == 9
    with listening(store, statuses=(0x0111,)):
        assert remote.send(client(store), result) == "already there"
    with (
        listening(Store(*files), statuses=(0xA900,)) as other,
        pytest.raises(OutputError, match="0xA900"),
    ):
        remote.send(client(other), result)

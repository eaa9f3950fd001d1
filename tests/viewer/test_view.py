"""The viewer: who may ask it, what it serves, which cases it finds, and what is really drawn
where.
"""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.browser import FLAGS, installed
from tests.scans import mask, scan

from delineate.core.errors import GeometryError, InputError, LabelError, LayoutError, UsageError
from delineate.core.grid import Grid
from delineate.core.labels import Label, LabelSet
from delineate.core.manifest import Manifest
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.viewer import page
from delineate.viewer.scenes import MOST_INDEX, Mask, Scene, described, shown_array
from delineate.viewer.server import Server
from delineate.viewer.sources import find, scored_cases
from delineate.viewer.voxels import channel, coarser, cropped, stepped

LABELS = LabelSet.from_names({1: "liver", 2: "spleen"})


@contextlib.contextmanager
def serving(*paths: Path, labels: Path | None = None) -> Iterator[Server]:
    with Server(find(paths, labels)) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer; ``path`` is below the token, or a whole one where it
    begins with /.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request(
            method, path if path.startswith("/") else f"/{server.token}/{path}", headers=headers
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


def told(server: Server, case: int = 0) -> dict:
    status, body, _ = ask(server, f"case/{case}.json")
    assert status == 200, body
    return json.loads(body)


def volume_of(body: bytes, folder: Path) -> Volume:
    (folder / "served.nii.gz").write_bytes(body)
    return files.read(folder / "served.nii.gz")


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    return scan(tmp_path / "scan.nii.gz"), scan(tmp_path / "mask.nii.gz", mask())


def write_run(folder: Path, cases: int = 3) -> Path:
    """A run as a training leaves it: case c1 is predicted worst."""
    manifest = []
    for n in range(cases):
        image, label = (
            scan(folder.parent / "data" / f"c{n}.nii.gz", seed=n),
            scan(folder.parent / "data" / f"l{n}.nii.gz", mask(n)),
        )
        scan(folder / "test" / "predictions" / f"c{n}.nii.gz", np.roll(mask(n), n == 1, axis=0))
        manifest.append(
            {
                "id": f"c{n}",
                "patient": f"p{n}",
                "images": [{"path": str(image)}],
                "label": [{"path": str(label)}],
                "split": "test",
            }
        )
    head = {"delineate_manifest": 1, "channels": ["MR"], "labels": LABELS.to_json(), "mapping": {}}
    (folder / "manifest.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [head, *manifest])
    )
    dice = {"c0": (0.9, 0.9), "c1": (0.7, None), "c2": (0.8, 0.84)}
    rows = [
        {"case": c, "label": name, "metric": "dice", "value": v, "unit": ""}
        for c, vs in dice.items()
        for name, v in zip(LABELS.names, vs, strict=True)
    ]
    (folder / "test" / "scores.json").write_text(
        json.dumps({"rows": rows, "cases": [], "labels": []})
    )
    return folder


# ---- who may ask ----


def test_only_the_token_on_the_own_host_is_answered(pair):
    with serving(*pair) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert ask(server, "")[0] == 200
        own = f"127.0.0.1:{server.server_port}"
        for path in (
            "/",
            "/wrong/",
            f"/{server.token}",
            f"/{server.token[:-1]}/",
            "/favicon.ico",
            "/viewer.js",
            "/case/0.json",
        ):
            assert ask(server, path)[0] == 403, path
        for host in (
            "evil.example",
            f"evil.example:{server.server_port}",
            "127.0.0.1",
            "127.0.0.1:1",
        ):
            assert ask(server, "", Host=host)[0] == 403, host
        assert ask(server, "", Host=f"localhost:{server.server_port}")[0] == 200
        assert ask(server, "case/0.json", Origin="http://evil.example")[0] == 403
        assert ask(server, "case/0.json", Origin=f"http://{own}")[0] == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask(server, "", method)[0] == 403, method


def test_each_server_has_another_token(pair):
    with serving(*pair) as one, serving(*pair) as other:
        assert one.token != other.token
        assert len(one.token) >= 32


def test_nothing_outside_what_is_shown_is_served(pair):
    with serving(*pair) as server:
        others = (
            "../cli.py",
            "static/viewer.js",
            "viewer.html.jinja",
            "NIIVUE-LICENSE.txt",
            "%2e%2e/",
            "case/1.json",
            "case/-1.json",
            "case/0/mask/1.nii.gz",
            "case/0/image/1.nii.gz",
            "case/0/image/0.nii.gz/..",
        )
        for path in others:
            assert ask(server, path)[0] == 403, path


def test_the_page_may_load_nothing_from_elsewhere(pair):
    with serving(*pair) as server:
        _, body, headers = ask(server, "")
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert (
            headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        )
        assert not re.search(rb"(src|href)=\"(https?:)?//", body)
        for name in re.findall(rb'src="([^"]+)"', body) + re.findall(
            rb'stylesheet" href="([^"]+)"', body
        ):
            assert ask(server, name.decode())[0] == 200
        assert ask(server, "", "HEAD")[:2] == (200, b"")


# ---- what is served ----


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
def test_voxels_and_geometry_arrive_as_they_are(codes, grid, asymmetric, tmp_path):
    volume = Volume(asymmetric, grid).reorient(codes)
    drawn = volume.with_array((volume.array % 3).astype(np.uint8), "label")
    files.write(volume, tmp_path / "scan.nii.gz")
    files.write(drawn, tmp_path / "mask.nii.gz")
    with serving(tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz") as server:
        for path, wanted in (("case/0/image/0.nii.gz", volume), ("case/0/mask/0.nii.gz", drawn)):
            status, body, headers = ask(server, path)
            assert (
                status == 200
                and headers["content-type"] == "application/gzip"
                and body[:2] == b"\x1f\x8b"
            )
            served = volume_of(body, tmp_path)
            np.testing.assert_array_equal(served.array, wanted.array)
            assert served.array.dtype == wanted.array.dtype
            assert served.grid.matches(volume.grid, 1e-3)


def test_names_colours_and_volumes_are_told(pair, tmp_path):
    (tmp_path / "names.csv").write_text("value,name\n1,liver\n2,spleen\n")
    with serving(*pair, labels=tmp_path / "names.csv") as server:
        facts = told(server)
        rows = facts["masks"][0]["structures"]
        assert facts["masks"][0]["name"] == "mask" and facts["id"] == "scan"
        assert [(r["value"], r["name"], tuple(r["colour"])) for r in rows] == [
            (b.value, b.name, b.colour) for b in LABELS
        ]
        voxel_ml = 1.0 * 1.5 * 2.0 / 1000
        assert [r["ml"] for r in rows] == pytest.approx(
            [(mask() == v).sum() * voxel_ml for v in (1, 2)], abs=1e-4
        )


def test_names_come_from_predictions_json_beside_and_unnamed_values_are_numbered(pair, tmp_path):
    out = tmp_path / "out"
    drawn = scan(out / "scan.nii.gz", mask())
    with serving(pair[0], drawn) as server:
        assert [r["name"] for r in told(server)["masks"][0]["structures"]] == ["value 1", "value 2"]
    (out / "predictions.json").write_text(
        json.dumps({"labels": [{"value": 2, "name": "spleen", "colour": [1, 2, 3]}]})
    )
    with serving(pair[0], drawn) as server:
        rows = told(server)["masks"][0]["structures"]
        assert [(r["value"], r["name"]) for r in rows] == [(1, "value 1"), (2, "spleen")]
        assert rows[1]["colour"] == [90, 91, 91]  # lighter: too dark for its casing


def test_lone_structures_that_nothing_names_are_one(pair, tmp_path):
    masks = [
        scan(tmp_path / f"{v}.nii.gz", (mask() == 1).astype(np.uint8) * v) for v in (1, 63, 255)
    ]
    scene = find([pair[0], *masks]).entries[0].load()
    assert [m.labels.names for m in scene.masks] == [["structure"]] * 3
    assert [m.labels.values for m in scene.masks] == [[1], [63], [255]]
    scene = find([pair[0], masks[1], pair[1]]).entries[0].load()
    assert [m.labels.names for m in scene.masks] == [["value 63"], ["value 1", "value 2"]]


def test_windows_of_ct_are_offered_only_in_hu(pair, tmp_path):
    grid = Grid.from_spacing((6, 5, 4), (1, 1, 2))
    ct = Scene("ct", Volume(np.zeros(grid.shape, np.int16), grid, "HU"))
    names = [w["name"] for w in described(ct)["channels"][0]["windows"]]
    assert names[:5] == ["soft tissue", "lung", "bone", "brain", "liver"]
    with serving(*pair) as server:
        facts = told(server)
        assert facts["unit"] == "" and [w["name"] for w in facts["channels"][0]["windows"]] == [
            "1–99 %",
            "full range",
        ]


def test_a_dicom_series_is_shown_with_bare_slices_that_take_its_geometry(real_data, tmp_path):
    chaos = real_data / "chaos_ct"
    with serving(chaos / "DICOM_anon", chaos / "Ground", chaos / "Segmentation") as server:
        facts = told(server)
        assert facts["unit"] == "HU" and facts["shape"][2] == 78
        assert [m["name"] for m in facts["masks"]] == ["Ground", "Segmentation"]
        served = volume_of(ask(server, "case/0/mask/0.nii.gz")[1], tmp_path)
        assert served.grid.matches(files.read_grid(chaos / "DICOM_anon"), 1e-3)
        assert facts["masks"][0]["structures"][0]["ml"] == pytest.approx(
            (served.array > 0).sum() * served.grid.voxel_ml, rel=1e-4
        )


def test_a_picture_has_pixels_and_no_place(tmp_path):
    Image.fromarray(np.full((30, 40, 3), (200, 10, 90), np.uint8)).save(tmp_path / "photo.png")
    drawn = np.zeros((30, 40), np.uint8)
    drawn[5:10, 20:30] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    (tmp_path / "names.json").write_text('{"lesion": 1}')
    with serving(
        tmp_path / "photo.png", tmp_path / "mask.png", labels=tmp_path / "names.json"
    ) as server:
        facts = told(server)
        assert not facts["placed"] and facts["shape"] == [40, 30, 1] and len(facts["channels"]) == 3
        (row,) = facts["masks"][0]["structures"]
        assert (row["name"], row["voxels"], row["ml"]) == ("lesion", 50, None)


def test_several_channels_and_what_a_device_does_not_know(tmp_path):
    grid = Grid.from_spacing((5, 4, 3), (1, 1, 1))
    wild = np.arange(60, dtype=np.float64).reshape(grid.shape)
    wild[0, 0, 0], wild[1, 1, 1] = np.nan, np.inf
    assert channel(Volume(wild, grid), 0).array.dtype == np.float32
    assert np.isfinite(channel(Volume(wild, grid), 0).array).all()
    for dtype, low, kept in (
        (np.int32, -5, np.int16),
        (np.int64, 0, np.uint8),
        (np.uint32, 70000, np.float32),
        (np.bool_, 0, np.uint8),
    ):
        array = np.full((2, *grid.shape), low).astype(dtype)
        assert channel(Volume(array, grid), 1).array.dtype == kept
    described(Scene("x", Volume(np.full(grid.shape, np.nan), grid)))


def test_high_label_values_get_an_index_and_keep_their_value(tmp_path):
    grid = Grid.from_spacing((4, 3, 2), (1, 1, 1))
    array = np.zeros(grid.shape, np.int32)
    array[0], array[1] = 12_000, 41
    scene = Scene(
        "x",
        Volume(np.zeros(grid.shape, np.int16), grid),
        (Mask("m", Volume(array, grid, "label")),),
    )
    rows = described(scene)["masks"][0]["structures"]
    assert [(r["value"], r["index"]) for r in rows] == [(41, 1), (12_000, 2)]
    assert np.unique(shown_array(scene.masks[0])).tolist() == [0, 1, 2]
    assert MOST_INDEX < 2048


# ---- several cases ----


def test_folders_are_paired_by_name(tmp_path):
    for n in (2, 10):
        scan(tmp_path / "images" / f"s{n}_0000.nii.gz", seed=n)
        scan(tmp_path / "labels" / f"s{n}.nii.gz", mask(n))
    scan(tmp_path / "images" / "alone_0000.nii.gz")
    shelf = find([tmp_path / "images", tmp_path / "labels"])
    assert [e.id for e in shelf.entries] == ["s2_0000", "s10_0000"]
    with serving(tmp_path / "images", tmp_path / "labels") as server:
        for n, seed in enumerate((2, 10)):
            assert told(server, n)["masks"][0]["name"] == "labels"
            np.testing.assert_array_equal(
                volume_of(ask(server, f"case/{n}/mask/0.nii.gz")[1], tmp_path).array, mask(seed)
            )
    assert len(find([tmp_path / "images"]).entries) == 3


def test_a_run_shows_the_worst_case_first_with_truth_and_prediction(tmp_path):
    run = write_run(tmp_path / "m.model.run")
    with serving(run) as server:
        body = ask(server, "")[1].decode()
        boot = json.loads(re.search(r'id="boot">(.*?)</script>', body)[1])
        assert [(c["id"], c["note"]) for c in boot["cases"]] == [
            ("c1", "Dice 0.700"),
            ("c2", "Dice 0.820"),
            ("c0", "Dice 0.900"),
        ]
        facts = told(server)
        assert [m["name"] for m in facts["masks"]] == ["truth", "prediction"]
        assert [r["dice"] for r in facts["masks"][1]["structures"]] == [0.7, None]
        assert [r["name"] for r in facts["masks"][0]["structures"]] == LABELS.names
        np.testing.assert_array_equal(
            volume_of(ask(server, "case/0/mask/0.nii.gz")[1], tmp_path).array, mask(1)
        )
        np.testing.assert_array_equal(
            volume_of(ask(server, "case/0/mask/1.nii.gz")[1], tmp_path).array,
            np.roll(mask(1), 1, axis=0),
        )


def test_a_case_that_cannot_be_read_says_why_and_the_others_are_shown(tmp_path):
    run = write_run(tmp_path / "m.model.run")
    (tmp_path / "data" / "c2.nii.gz").unlink()
    with serving(run) as server:
        status, body, _ = ask(server, "case/1.json")
        assert (
            status == 422
            and "c2" in json.loads(body)["error"]
            and "no such file" in json.loads(body)["error"]
        )
        assert told(server, 2)["id"] == "c0"
    (run / "test" / "predictions" / "c1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"c1.*its prediction is not in the run"):
        scored_cases(run).entries[0].load()


def test_only_the_last_cases_are_kept(tmp_path):
    with serving(write_run(tmp_path / "m.model.run")) as server:
        for n in (0, 1, 2, 0):
            told(server, n)
        assert list(server.cases._kept) == [2, 0]


def test_a_ct_of_a_manifest_is_in_hu(tmp_path):
    run = write_run(tmp_path / "m.model.run")
    manifest = Manifest.load(run / "manifest.jsonl")
    head, *rest = (run / "manifest.jsonl").read_text().splitlines()
    (tmp_path / "ct.jsonl").write_text(
        "\n".join([json.dumps({**json.loads(head), "modality": "CT"}), *rest]) + "\n"
    )
    assert described(find([tmp_path / "ct.jsonl"]).entries[0].load())["unit"] == "HU"
    assert described(find([run / "manifest.jsonl"]).entries[0].load())["unit"] == ""
    assert len(find([run / "manifest.jsonl"]).entries) == len(manifest)
    shutil.rmtree(run / "test")  # what a check leaves
    assert len(find([run]).entries) == len(manifest)


# ---- what is wrong ----


def test_what_cannot_be_shown_is_refused(pair, tmp_path):
    image, drawn = pair
    moved = np.diag([-1.0, 1.5, 2.0, 1])
    moved[0, 3] = 3
    for wrong, kind, words in (
        (scan(tmp_path / "moved.nii.gz", mask(), moved), GeometryError, r"3\.00 mm away"),
        (scan(tmp_path / "small.nii.gz", mask()[:-1]), GeometryError, "shape"),
        (scan(tmp_path / "half.nii.gz", mask() * np.float32(0.5)), LabelError, "whole numbers"),
        (scan(tmp_path / "minus.nii.gz", -mask().astype(np.int16)), LabelError, r"0\.\.65535"),
    ):
        with pytest.raises(kind, match=words):
            find([image, wrong]).entries[0].load()
    run = write_run(tmp_path / "m.model.run")
    (tmp_path / "empty").mkdir()
    for paths, kind, words in (
        ([tmp_path / "absent.nii.gz"], InputError, "does not exist"),
        ([image, tmp_path / "absent.nii.gz"], InputError, "does not exist"),
        ([run, drawn], UsageError, "already names its masks"),
        ([tmp_path / "data", drawn], UsageError, "masks must be a folder too"),
        ([tmp_path / "data", tmp_path / "empty"], LayoutError, "no mask has the name"),
    ):
        with pytest.raises(kind, match=words):
            find(paths)
    for text in ("[]", "{", '{"rows": 3}', '{"rows": []}'):
        (run / "test" / "scores.json").write_text(text)
        with pytest.raises(InputError, match=r"scores\.json"):
            find([run])
    shutil.rmtree(run / "test")
    (run / "request.json").write_text("{}")
    with pytest.raises(InputError, match="holds no scores yet"):
        find([run])


def test_a_port_that_is_taken_is_refused(pair):
    with serving(*pair) as server, pytest.raises(UsageError, match="cannot be used"):
        Server(find(pair), server.server_port)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "delineate.cli", "view", *map(str, words), "--no-browser"]


def test_the_command_prints_the_address_and_ends_well_on_ctrl_c(pair):
    # Whoever starts tests in the background has them ignore it.
    running = subprocess.Popen(
        command(*pair),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = running.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w-]{32,}/)", line)
        assert address, line
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=30)
        connection.request("GET", address[2] + "case/0.json")
        assert json.loads(connection.getresponse().read())["id"] == "scan"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        assert (running.returncode, err) == (0, "") and "stopped" in out
    finally:
        running.kill()


@pytest.mark.parametrize("wrong", ["absent", "damaged", "elsewhere"])
def test_the_command_refuses_bad_input_in_one_sentence(wrong, pair, tmp_path):
    image = pair[0]
    if wrong == "absent":
        words, hint = (tmp_path / "no.nii.gz",), "does not exist"
    elif wrong == "damaged":
        image.write_bytes(image.read_bytes()[:-200])
        words, hint = pair, "truncated"
    else:
        words, hint = (
            (image, scan(tmp_path / "small.nii.gz", mask()[:-1])),
            "is not on the image's grid",
        )
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=60)
    assert (
        done.returncode == 2
        and hint in done.stderr
        and "Traceback" not in done.stderr
        and not done.stdout
    )


def test_import_loads_no_viewer():
    code = (
        "import delineate, sys; assert not [m for m in sys.modules if 'delineate.viewer' in m "
        "or m == 'http.server']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- one file ----


def ball(grid: Grid, centre, radius) -> np.ndarray:
    where = np.stack(np.indices(grid.shape), axis=-1) - np.array(centre)
    return (np.linalg.norm(where, axis=-1) <= radius).astype(np.uint8)


def test_a_scene_is_cropped_and_made_coarser_without_moving(tmp_path):
    grid = Grid((90, 80, 20), np.diag([-1.0, 1.0, 5.0, 1]))
    drawn = ball(grid, (50, 40, 10), 8)
    scene = Scene(
        "x",
        Volume(np.where(drawn, 100, 0).astype(np.int16), grid),
        (Mask("m", Volume(drawn, grid, "label")),),
    )
    centre = grid.to_mm(np.argwhere(drawn).mean(axis=0))
    part = cropped(scene, 10.0)
    assert part.image.grid.shape == (37, 37, 20)
    small = coarser(part, 5000)
    assert np.prod(small.image.grid.shape) <= 5000 and small.image.array.dtype == np.int16
    for one in (part, small):
        held = one.masks[0].volume.array
        assert np.abs(one.image.grid.to_mm(np.argwhere(held).mean(axis=0)) - centre).max() < 0.5
        assert held.sum() * one.image.grid.voxel_ml == pytest.approx(
            drawn.sum() * grid.voxel_ml, rel=0.1
        )
    assert coarser(scene, 10**9) is scene


def test_floats_survive_as_steps():
    grid = Grid.from_spacing((6, 5, 4), (1, 1, 1))
    array = np.random.default_rng(0).normal(3, 1e4, grid.shape).astype(np.float32)
    for values in (array, np.zeros_like(array)):
        volume, slope, intercept = stepped(Volume(values, grid))
        assert volume.array.dtype == np.int16
        assert (
            np.abs(volume.array * slope + intercept - values).max()
            <= np.ptp(values) / 65534 * 0.51 + 1e-9
        )


def loaded_by(text: str) -> list[str]:
    """Every address that an element of the page names."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(
                value or "" for name, value in attrs if name in ("src", "href", "data", "action")
            )

    Reader().feed(text)
    return found


def test_the_file_holds_everything_and_no_word_of_it_ends_a_script(tmp_path):
    run = write_run(tmp_path / "m.model.run")
    text = page.run_page(run)
    assert f'content="{html.escape(page.ALONE)}"'.replace("&#x27;", "&#39;") in text and loaded_by(
        text
    ) == ["data:,"]
    assert re.findall(r'id="(case-\d+)"', text) == ["case-0", "case-1", "case-2"]
    facts = json.loads(re.search(r'id="case-0">(.*?)</script>', text)[1])
    assert facts["id"] == "c1" and len(facts["files"]["masks"]) == 2
    grid = Grid.from_spacing((3, 3, 3), (1, 1, 1))
    nasty = "</script><script>alert(1)</script><!-- <b>"
    scene = Scene(
        nasty,
        Volume(np.zeros(grid.shape, np.int16), grid),
        (Mask(nasty, Volume(np.ones(grid.shape, np.uint8), grid, "label")),),
    )
    whole = page.interactive_page([scene], LabelSet.from_names({1: nasty}), nasty)
    assert (
        whole.count("</script>") == text.count("</script>") - 2
        and "<!--" not in whole
        and "<b>" not in whole
    )
    assert (
        json.loads(re.search(r'id="case-0">(.*?)</script>', whole)[1])["masks"][0]["structures"][0][
            "name"
        ]
        == nasty
    )
    assert (
        page.script_safe('a = "</SCRIPT>" + "<!--"; b<c') == 'a = "\\x3c/SCRIPT>" + "\\x3c!--"; b<c'
    )


def test_the_worst_cases_are_written_and_gaps_are_stepped_over(tmp_path):
    run = write_run(tmp_path / "m.model.run")
    (run / "test" / "predictions" / "c1.nii.gz").unlink()
    text = page.run_page(run)
    assert [
        c["id"] for c in json.loads(re.search(r'id="boot">(.*?)</script>', text)[1])["cases"]
    ] == ["c2", "c0"]
    shutil.rmtree(run / "test" / "predictions")
    with pytest.raises(InputError, match="no scored case can be shown"):
        page.run_page(run)


def test_niivue_is_the_file_that_its_licence_speaks_of():
    import hashlib

    text = (page.STATIC / "NIIVUE-LICENSE.txt").read_text()
    assert "BSD 2-Clause" in text and "NiiVue 0." in text
    assert hashlib.sha256((page.STATIC / "niivue.umd.js").read_bytes()).hexdigest() in text


# ---- pixels ----

WIDTH, HEIGHT, PANEL = 1120, 800, 320
SIDES = LabelSet(
    (
        Label(1, "right", (255, 0, 0)),
        Label(2, "left", (0, 255, 0)),
        Label(3, "front", (0, 0, 255)),
        Label(4, "back", (255, 255, 0)),
        Label(5, "top", (255, 0, 255)),
        Label(6, "bottom", (0, 255, 255)),
    )
)


@pytest.fixture(scope="session")
def browser() -> str:
    return installed()


def screenshot(browser: str, address: str, folder: Path) -> np.ndarray:
    """(rows, columns, 3) of what the browser shows."""
    out = folder / "screen.png"
    words = [
        browser,
        *FLAGS,
        "--virtual-time-budget=60000",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={WIDTH},{HEIGHT}",
        f"--screenshot={out}",
        address,
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=240, env={**os.environ, "HOME": str(folder)}
    )
    if not out.is_file():
        pytest.fail(f"the browser drew nothing: {done.stderr[-2000:]}")
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


DRIVER = """<script>
addEventListener("load", async () => {
  const wait = (go) => setTimeout(go, 50);
  const until = async (holds) => { while (!holds()) await new Promise(wait); };
  const root = document.documentElement, seen = {};
  const at = (id) => document.getElementById(id).textContent;
  const where = () => at("where").split("\\n")[0];
  const event = (key) => new KeyboardEvent("keydown", { key, bubbles: true });
  const press = (key) => document.body.dispatchEvent(event(key));
  const state = (one) => [one.querySelector("input").checked, one.querySelector(".on").textContent];
  const states = () => [...document.querySelectorAll(".mask")].map(state);
  const chosen = (id) => document.querySelector(`#${id} .on`).textContent;
  await until(() => root.dataset.ready === "0");
  seen.first = [at("name"), chosen("views"), chosen("windows"), states()];
  press("n");
  await until(() => root.dataset.ready === "1");
  seen.next = at("name");
  const keys = [
    ["one", "1", states], ["all", "o", states], ["again", "o", states], ["swapped", "f", states],
    ["window", "w", () => chosen("windows")], ["view", "v", () => chosen("views")],
    ["up", "ArrowUp", where], ["down", "ArrowDown", where],
  ];
  for (const [name, key, read] of keys) {
    press(key);
    seen[name] = read();
  }
  document.querySelector("td button").click();
  seen.hidden = [...document.querySelectorAll("tr.off")].length;
  press("ArrowLeft");
  await until(() => root.dataset.ready === "0");
  seen.back = [at("name"), states()];
  document.title = JSON.stringify(seen);
});
</script>"""


def done_by(browser: str, address: str, folder: Path) -> dict:
    """What the page's ``DRIVER`` has seen."""
    words = [
        browser,
        *FLAGS,
        "--virtual-time-budget=60000",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={WIDTH},{HEIGHT}",
        "--dump-dom",
        address,
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=240, env={**os.environ, "HOME": str(folder)}
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title and title[1].startswith("{"), f"{title and title[1]}\n{done.stderr[-2000:]}"
    return json.loads(html.unescape(title[1]))


def pixels_like(image: np.ndarray, colour) -> np.ndarray:
    """(n, 2) row and column of pixels whose hue is that of a bright ``colour``, however dark they
    are drawn.
    """
    high = np.array(colour) > 127
    on, off = image[..., high].min(axis=-1), image[..., ~high].max(axis=-1)
    return np.argwhere((on > 60) & (off < 0.42 * on))


def sides(codes: str) -> Scene:
    """Six blocks away from the centre along each axis; a grid of three spacings, its voxels stored
    in the order ``codes``.
    """
    grid = Grid(
        (60, 48, 30), np.array([[1.0, 0, 0, -30], [0, 1.5, 0, -36], [0, 0, 2.0, -30], [0, 0, 0, 1]])
    )
    drawn = np.zeros(grid.shape, np.uint8)
    for value, (i, j, k) in enumerate(
        [(50, 24, 15), (10, 24, 15), (30, 40, 15), (30, 8, 15), (30, 24, 25), (30, 24, 5)], start=1
    ):
        drawn[i - 5 : i + 5, j - 4 : j + 4, k - 3 : k + 3] = value
    image = Volume(np.zeros(grid.shape, np.int16), grid).reorient(codes)
    return Scene("sides", image, (Mask("m", Volume(drawn, grid, "label").reorient(codes), SIDES),))


def check_sides(image: np.ndarray) -> None:
    """Radiological planes: right on the left, front above in the axial one, front on the left in
    the sagittal one.
    """
    stage = image[:, : WIDTH - PANEL]
    rows, columns = stage.shape[0] // 2, stage.shape[1] // 2
    colour = {label.name: label.colour for label in SIDES}

    def middle(tile: np.ndarray, name: str) -> np.ndarray:
        found = pixels_like(tile, colour[name])
        assert len(found) > 200, name
        return found.mean(axis=0) / tile.shape[:2]

    axial, coronal, sagittal = (
        stage[:rows, :columns],
        stage[:rows, columns:],
        stage[rows:, :columns],
    )
    for tile, (west, east, north, south) in (
        (axial, ("right", "left", "front", "back")),
        (coronal, ("right", "left", "top", "bottom")),
        (sagittal, ("front", "back", "top", "bottom")),
    ):
        assert middle(tile, west)[1] < 0.4 < 0.6 < middle(tile, east)[1]
        assert middle(tile, north)[0] < 0.4 < 0.6 < middle(tile, south)[0]
    for tile, hidden in (
        (axial, ("top", "bottom")),
        (coronal, ("front", "back")),
        (sagittal, ("right", "left")),
    ):
        assert all(len(pixels_like(tile, colour[name])) < 30 for name in hidden)
    # 3-D shows most of them.
    assert sum(len(pixels_like(stage[rows:, columns:], colour[name])) > 30 for name in colour) >= 4


@pytest.mark.slow
# Axes in another order show every slip that RAS shows, and more.
@pytest.mark.parametrize("codes", [pytest.param("RAS", marks=pytest.mark.rounds), "SLP"])
def test_every_side_is_where_it_belongs(codes, browser, tmp_path):
    scene = sides(codes)
    files.write(scene.image, tmp_path / "scan.nii.gz")
    files.write(scene.masks[0].volume, tmp_path / "mask.nii.gz")
    (tmp_path / "names.json").write_text(json.dumps({"labels": SIDES.to_json()}))
    with serving(
        tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", labels=tmp_path / "names.json"
    ) as server:
        image = screenshot(browser, server.address, tmp_path)
    check_sides(image)
    assert len(pixels_like(image[:, WIDTH - PANEL :], (255, 0, 0))) > 50  # the legend's chip


@pytest.mark.slow
def test_the_file_alone_is_drawn_too(browser, tmp_path):
    (tmp_path / "view.html").write_text(page.interactive_page([sides("LPS")], SIDES, "sides"))
    check_sides(screenshot(browser, (tmp_path / "view.html").as_uri(), tmp_path))


@pytest.mark.slow
def test_truth_is_an_outline_on_the_masks_edge_and_the_prediction_a_fill(browser, tmp_path):
    grid = Grid((40, 20, 6), np.diag([-1.0, 2.0, 4.0, 1]))
    truth, prediction = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    truth[10:30, 5:15], prediction[15:25, 8:12] = 1, 2
    scene = Scene(
        "x",
        Volume(np.full(grid.shape, 60, np.int16), grid, "HU"),
        (
            Mask("truth", Volume(truth, grid, "label"), SIDES),
            Mask("prediction", Volume(prediction, grid, "label"), SIDES),
        ),
    )
    (tmp_path / "view.html").write_text(page.interactive_page([scene], SIDES, "lines"))
    stage = screenshot(browser, (tmp_path / "view.html").as_uri() + "#view=axial", tmp_path)[
        :, : WIDTH - PANEL
    ]
    grey = np.ptp(stage, axis=-1) < 12
    lit = grey & (np.abs(stage[..., 0] - 255 * 220 / 400) < 8)
    rows, columns = np.flatnonzero(lit.mean(axis=1) > 0.3), np.flatnonzero(lit.mean(axis=0) > 0.3)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    assert (bottom - top) / (right - left) == pytest.approx(1.0, abs=0.02)  # 40 mm by 40 mm
    line, fill = pixels_like(stage, (255, 0, 0)), pixels_like(stage, (0, 255, 0))
    for axis, (low, high) in enumerate(((top, bottom), (left, right))):
        size = high - low
        assert line[:, axis].min() == pytest.approx(low + size / 4, abs=3)
        assert line[:, axis].max() == pytest.approx(high - size / 4, abs=3)
        margin = (3 / 8, 2 / 5)[1 - axis]
        assert fill[:, axis].min() == pytest.approx(low + margin * size, abs=3)
    assert len(line) < 0.05 * (bottom - top) * (right - left)  # a line, not an area


@pytest.mark.slow
def test_keys_do_what_they_say(browser, tmp_path):
    text = page.run_page(write_run(tmp_path / "m.model.run"))
    (tmp_path / "view.html").write_text(text)
    head, _, tail = text.rpartition("</body>")
    (tmp_path / "driven.html").write_text(f"{head}{DRIVER}</body>{tail}")
    seen = done_by(browser, (tmp_path / "driven.html").as_uri(), tmp_path)
    assert seen["first"] == ["c1", "all", "1–99 %", [[True, "outline"], [True, "fill"]]]
    assert seen["next"] == "c2"
    assert seen["one"] == [[False, "outline"], [True, "fill"]]
    assert [on for on, _ in seen["all"]] == [False, False] and [on for on, _ in seen["again"]] == [
        True,
        True,
    ]
    assert [style for _, style in seen["swapped"]] == ["fill", "outline"]
    assert (seen["window"], seen["view"], seen["hidden"]) == ("full range", "axial", 1)
    up, down = (float(re.search(r"[SI] ([\d.]+) mm", seen[key])[1]) for key in ("up", "down"))
    assert up - down == pytest.approx(2.0)  # the slices' distance, towards the head
    # What was chosen goes along to other cases.
    assert seen["back"] == [
        "c1",
        [[True, "fill"], [True, "outline"]],
    ]

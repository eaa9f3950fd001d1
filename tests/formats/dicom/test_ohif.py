"""The objects that are written, in OHIF: as a person sees them who opens the study of an archive.

The built viewer is the folder ``dist`` of the npm package ``@ohif/app``, named by DELINEATE_OHIF.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from tests import orthanc
from tests.browser import Page, opened

from delineate.cohorts.phantom import cohort
from delineate.core.volume import Volume
from delineate.formats.dicom.rtstruct.write import write_rtstruct
from delineate.formats.dicom.seg.encoding import SegEncoding
from delineate.formats.dicom.seg.write import write_seg
from delineate.formats.dicom.source import source_of

pytestmark = pytest.mark.rounds

SIZE = 160, 40  # matrix and slices of the phantom
WINDOW = 1280, 760
# No question before a segmentation is shown, no guided tour, no notice; one archive.
SETTINGS = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "disableConfirmationPrompts": True,
    "investigationalUseDialog": {"option": "never"},
    "customizationService": {"ohif.tours": {"$set": []}},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "archive",
                "name": "archive",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}
# Masks are opaque and contours filled, so that each pixel has the colour of its structure.
OPAQUE = """
for (const type of ["Labelmap", "Contour"])
  services.segmentationService.setStyle({type}, {fillAlpha: 1, renderFill: true});
cornerstone.getRenderingEngines().forEach(one => one.render());
"""
SHOWN = "cornerstone.getEnabledElements()[0].viewport"
LOADED = "window.services?.segmentationService?.getSegmentations?.().length"


class Site(http.server.SimpleHTTPRequestHandler):
    """The built viewer and its settings; what it asks of ``/dicom-web`` is asked of the archive."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *words, archive: orthanc.Archive, **options):
        self.archive = archive
        super().__init__(*words, **options)

    def do_GET(self):
        if self.path.startswith("/dicom-web/"):
            self._forward()
        elif self.path == "/app-config.js":
            text = f"window.config = {json.dumps(SETTINGS)}; window.config.httpErrorHandler = "
            self._answer(200, "text/javascript", (text + "console.warn;").encode())
        else:
            # The pages of the viewer are made by its script.
            if not Path(self.translate_path(self.path)).is_file():
                self.path = "/index.html"
            super().do_GET()

    def _forward(self):
        connection = http.client.HTTPConnection(self.archive.host, self.archive.http_port)
        wanted = {name: self.headers[name] for name in ("Accept", "Host")}
        connection.request("GET", self.path, headers=wanted)
        answer = connection.getresponse()
        self._answer(answer.status, answer.headers["Content-Type"], answer.read())
        connection.close()

    def _answer(self, status: int, kind: str, body: bytes):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """The browser may close a connection early."""


@dataclass(frozen=True)
class Desk:
    """A CT with four structures in an archive, and a browser that can open it in OHIF."""

    files: Sequence[Path]
    labels: Volume
    archive: orthanc.Archive
    address: str
    page: Page


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    built = os.environ.get("DELINEATE_OHIF", "")
    if not (Path(built) / "app-config.js").is_file():
        pytest.skip("no OHIF: DELINEATE_OHIF is not the folder dist of the package @ohif/app")
    folder = tmp_path_factory.mktemp("desk")
    cohort.make_cohort(folder / "phantom", patients=1, size=SIZE)
    files = sorted(folder.glob("phantom/*/DICOM_anon/*.dcm"))
    with orthanc.running(folder / "archive") as archive:
        assert {archive.store(file) for file in files} == {"Success"}
        site = partial(Site, directory=built, archive=archive)
        with Server(("127.0.0.1", 0), site) as server, opened(folder, *WINDOW) as page:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            yield Desk(files, cohort.make_scan(0, size=SIZE).label, archive, address, page)
            server.shutdown()


SEGS = {
    "seg": SegEncoding(),
    "deflated": SegEncoding("BINARY", "deflated"),
    "labelmap": SegEncoding("LABELMAP"),
    "labelmap-rle": SegEncoding("LABELMAP", "rle"),
    "fractional": SegEncoding("FRACTIONAL"),
}
WRITERS = {name: partial(write_seg, encoding=one) for name, one in SEGS.items()}
WRITERS["rtstruct"] = write_rtstruct


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_structure_has_its_colour_and_its_side(desk, write, tmp_path):
    path = tmp_path / "object.dcm"
    write(
        desk.labels,
        cohort.LABELS,
        desk.files,
        path,
        algorithm_name="phantom",
        algorithm_version="1",
    )
    assert desk.archive.store(path) == "Success"
    k = richest_slice(desk.labels)
    as_opened, opaque = pictures(desk, pydicom.dcmread(path, stop_before_pixels=True), k)
    Image.fromarray(as_opened).save(tmp_path / "as_opened.png")
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    words = desk.page.value("document.body.innerText").split("\n")
    assert {label.name for label in cohort.LABELS} <= set(words)
    shown, truth = opaque_and_truth(desk, opaque, k)
    middle = truth.shape[1] // 2
    for label in cohort.LABELS:
        seen = (abs(shown - label.colour) <= 3).all(axis=-1)
        wanted = truth == label.value
        # The edges of masks are blended with the image.
        assert (seen & wanted).sum() > 0.93 * (seen | wanted).sum(), label.name
        # The patient's right is on the left of the screen.
        if label.name in ("right kidney", "left kidney", "spleen"):
            other = seen[:, middle:] if label.name == "right kidney" else seen[:, :middle]
            assert seen.sum() > 4000 and not other.any(), label.name
    own = desk.address, "data:", "blob:"
    assert [one for one in desk.page.requested if not one.startswith(own)] == []


def richest_slice(labels: Volume) -> int:
    """The slice in which the smallest structure is largest."""
    areas = [(labels.array == one.value).sum(axis=(0, 1)) for one in cohort.LABELS]
    return int(np.min(areas, axis=0).argmax())


def pictures(desk: Desk, written: pydicom.Dataset, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What OHIF shows of slice k with an object: as it is opened, and with opaque masks."""
    page, plane = desk.page, source_of(desk.files).planes[k]
    ct, own = pydicom.dcmread(plane.path, stop_before_pixels=True), written.SeriesInstanceUID
    page.call(
        "Page.navigate",
        url=f"{desk.address}/viewer?StudyInstanceUIDs={ct.StudyInstanceUID}"
        f"&SeriesInstanceUIDs={ct.SeriesInstanceUID},{own}&initialSeriesInstanceUID={own}",
    )
    page.until(LOADED)
    page.value("document.querySelector('[data-cy=panelSegmentation-btn]').click()")
    # OHIF goes to the first structure once it has loaded the object, maybe after this.
    at_slice = f"{SHOWN}.getCurrentImageId()?.includes('{plane.instance}')"
    as_opened = page.settled()
    while not page.value(at_slice):
        found = f"{SHOWN}.getImageIds().findIndex(id => id.includes('{plane.instance}'))"
        page.value(f"{SHOWN}.setImageIdIndex({found}).then(() => 0)")
        as_opened = page.settled()
    page.value(OPAQUE)
    return as_opened, page.settled(unlike=as_opened)


def opaque_and_truth(desk: Desk, opaque: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The (rows, columns, 3) of the image in the picture, and the values of the labels there: the
    image fills the height, rows run to the back and columns to the patient's left.
    """
    box = f"{SHOWN}.canvas.getBoundingClientRect()"
    left, top, width, height = desk.page.value(
        f"(b => [b.x, b.y, b.width, b.height].map(Math.round))({box})"
    )
    start = left + (width - height) // 2
    index = (np.arange(height) + 0.5) * SIZE[0] // height
    rows_columns = np.ix_(index.astype(int), index.astype(int))
    truth = desk.labels.reorient("LPS").array[:, :, k].T[rows_columns]
    return opaque[top : top + height, start : start + height].astype(int), truth

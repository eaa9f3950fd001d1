"""Draw pages as a browser shows them: reports to be looked at, and the pictures of the docs.

    python tools/pictures.py looks PAGE.html ... -o FOLDER     three widths, light and dark, PDF
    python tools/pictures.py docs [--phantom DEMO] [--hippocampus RUN] [--ohif DIST]

``looks`` writes PAGE_WIDTH_light.png, PAGE_WIDTH_dark.png and PAGE.pdf. ``docs`` renews
``docs/images`` from the folder of a demo (``delineate demo --out DEMO``), from the run of a
training on the hippocampus (``delineate train hippocampus -o RUN.model --budget 20m``), and from
the test that opens a SEG in OHIF (the folder ``dist`` of the npm package ``@ohif/app``); pictures
whose source is not given stay as they are. Chromium and the project are needed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DELINEATE = (sys.executable, "-m", "delineate.cli")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
FLAT = ("--disable-gpu",)
# The viewer draws with WebGL, and needs time for it.
IN_3D = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--virtual-time-budget=60000",
)
WIDTHS = (390, 768, 1280)
TALLEST = 12000  # pixels of a page; what follows its end is cut
SCHEMES = {"light": 1, "dark": 0}  # numbers of Chromium's preferred colour scheme
PAGE_WIDTH = 816  # of the pictures of reports in the docs: a page of paper


def browse(page: Path | str, *words: str) -> None:
    """Run the browser once on a page or an address, with a profile of its own."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        raise SystemExit(f"no browser is installed: none of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as home:
        address = page if isinstance(page, str) else page.resolve().as_uri()
        line = [found, *FLAGS, f"--user-data-dir={home}/profile", *words, address]
        done = subprocess.run(line, capture_output=True, env={**os.environ, "HOME": home})
    if done.returncode:
        raise SystemExit(f"the browser failed on {page}: {done.stderr.decode()[-500:]}")


def picture(
    page: Path | str,
    out: Path,
    width: int,
    height: int = TALLEST,
    scheme: str = "light",
    drawing: tuple[str, ...] = FLAT,
) -> None:
    """A picture of the first ``height`` pixels of a page, without what is empty at its end."""
    scheme_word = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    browse(page, *drawing, scheme_word, f"--window-size={width},{height}", f"--screenshot={out}")
    with Image.open(out) as shown:
        pixels = np.asarray(shown.convert("RGB"))
    used = np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))
    Image.fromarray(pixels[: int(used[-1]) + 12 if len(used) else 1]).save(out, optimize=True)


def looks(pages: list[Path], out: Path) -> None:
    """Every page at three widths, light and dark, and as PDF."""
    out.mkdir(parents=True, exist_ok=True)
    for page in pages:
        name = page.stem if page.stem != "report" else page.resolve().parent.name
        for width in WIDTHS:
            for scheme in SCHEMES:
                picture(page, out / f"{name}_{width}_{scheme}.png", width, scheme=scheme)
        browse(page, *FLAT, "--no-pdf-header-footer", f"--print-to-pdf={out.resolve() / name}.pdf")


def report_of(run: Path, out: Path, *words: str) -> Path:
    """A new report of a run."""
    subprocess.run([*DELINEATE, "report", str(run), "-o", str(out), *words], check=True)
    return out


@contextlib.contextmanager
def viewer_of(run: Path) -> Iterator[str]:
    """The address of a viewer of a run, which stays open meanwhile."""
    line = [*DELINEATE, "view", "--no-browser", str(run)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        yield next(word for word in viewer.stdout.readline().split() if word.startswith("http"))
        viewer.terminate()


def docs(demo: Path | None, hippocampus: Path | None, ohif: Path | None, work: Path) -> None:
    """Renew the pictures of the docs whose source is given."""
    if demo is not None:
        run = demo / "phantom.model.run"
        shutil.copyfile(run / "test" / "montages" / "median.png", IMAGES / "phantom.png")
        with viewer_of(run) as address:
            picture(address, IMAGES / "viewer.png", 1280, 900, drawing=IN_3D)
    if hippocampus is not None:
        page = report_of(hippocampus, work / "hippocampus.html")
        picture(page, IMAGES / "report-hippocampus.png", PAGE_WIDTH, 1900)
        page = report_of(hippocampus, work / "interactive.html", "--interactive")
        picture(page, work / "whole.png", 1010, 4000, drawing=IN_3D)
        with Image.open(work / "whole.png") as shown:
            shown.crop(frame_in(shown)).save(IMAGES / "report-interactive.png", optimize=True)
    if ohif is not None:
        with Image.open(opened_in_ohif(ohif, work / "ohif")) as shown:
            shown.quantize(256).save(IMAGES / "ohif.png", optimize=True)


def opened_in_ohif(dist: Path, work: Path) -> Path:
    """The picture that the test of OHIF makes of a SEG."""
    test = "tests/formats/dicom/test_ohif.py::test_every_structure_has_its_colour_and_its_side[seg]"
    line = [sys.executable, "-m", "pytest", "-m", "rounds", f"--basetemp={work}", test]
    environment = {**os.environ, "DELINEATE_OHIF": str(dist.resolve())}
    subprocess.run(line, env=environment, cwd=IMAGES.parents[1], check=True)
    found = next(work.glob("*/as_opened.png"), None)
    if found is None:
        raise SystemExit("the test of OHIF was skipped; pytest -rs prints the reason")
    return found


def frame_in(shown: Image.Image) -> tuple[int, int, int, int]:
    """The box of the viewer in a picture of an interactive report: the largest black area."""
    black = (np.asarray(shown.convert("RGB")) < 8).all(axis=2).mean(axis=1) > 0.3
    edges = np.flatnonzero(np.diff(np.concatenate([[0], black, [0]])))
    top, bottom = max(edges.reshape(-1, 2), key=lambda pair: pair[1] - pair[0])
    return 0, int(top), shown.width, int(bottom)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("looks")
    one.add_argument("pages", nargs="+", type=Path)
    one.add_argument("-o", "--out", type=Path, required=True)
    other = commands.add_parser("docs")
    other.add_argument("--phantom", type=Path)
    other.add_argument("--hippocampus", type=Path)
    other.add_argument("--ohif", type=Path)
    a = parser.parse_args()
    if a.command == "looks":
        looks(a.pages, a.out)
        return
    with tempfile.TemporaryDirectory() as work:
        docs(a.phantom, a.hippocampus, a.ohif, Path(work))


if __name__ == "__main__":
    main()

"""The viewer's HTML page: either for a server that delivers its parts, or as one self-contained
file that opens without a server.

Content of a script element cannot end that element: data is JSON without "<", and "</script" in
code is escaped. The content security policy of the self-contained page forbids all network
requests. The module knows no server.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import DelineateError, InputError
from ..core.labels import LabelSet
from .scenes import ONLY, Scene, described, shown_array
from .sources import scored_cases
from .voxels import channel, coarser, cropped, packed, stepped, straightened

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("niivue.umd.js", "viewer.js")
STYLE = "viewer.css"
WORST = 3  # cases in a self-contained file
MARGIN_MM = 25.0  # around the structures; the rest of the scan is cropped in such a file
FILE_VOXELS = 1_500_000  # maximum per case in such a file
ALONE = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src "
    "data: blob:; connect-src data: blob:"
)


def served_page(title: str, entries: Sequence[tuple[str, str]]) -> str:
    """The page for a server, which delivers style, scripts and cases at addresses next to it.

    ``entries`` are (id, note) of each case.
    """
    boot = {"title": title, "cases": [{"id": name, "note": note} for name, note in entries]}
    return _rendered(title, [_json_element("boot", boot)], policy=None)


def interactive_page(cases: Sequence[Scene], labels: LabelSet, title: str) -> str:
    """One self-contained HTML file with NiiVue and ``cases``; it needs no network and no server.

    Args:
        cases: the cases to show, in this order. Each is cropped to its masks with a margin and
            resampled to a coarser grid if it is large, so that the file stays small.
        labels: names of the structures, for masks without names of their own.
        title: title of the page.
    """
    named = [
        replace(
            c, masks=tuple(m if _is_named(m.labels) else replace(m, labels=labels) for m in c.masks)
        )
        for c in cases
    ]
    boot = {"title": title, "cases": [{"id": c.id, "note": c.note} for c in named]}
    data = [_json_element(f"case-{n}", _inlined(scene)) for n, scene in enumerate(named)]
    return _rendered(title, [_json_element("boot", boot), *data], policy=ALONE)


def run_page(run_folder: str | Path) -> str:
    """The self-contained page of a run's worst scored cases: scan, truth and prediction.

    Cases whose files are missing are left out; the next worst case takes their place.

    Raises:
        InputError: the folder is not a run, the run has no scores, or none of its worst cases can
            be read (with the first reason).
    """
    # Give up after WORST unreadable cases: the data has probably been moved.
    shelf, scenes, gaps = scored_cases(run_folder), [], []
    for entry in shelf.entries:
        try:
            scenes.append(entry.load())
        except DelineateError as error:
            gaps.append(str(error))
        if len(scenes) == WORST or len(gaps) == WORST:
            break
    if not scenes:
        raise InputError(f"no scored case can be shown; first: {gaps[0]}", path=run_folder)
    return interactive_page(scenes, LabelSet(()), f"{shelf.title}, lowest Dice first")


def script_safe(code: str) -> str:
    """Code that can neither end its script element nor start an HTML comment in it.

    "<" is escaped, so strings in the code keep their value.
    """
    return re.sub(r"<(?=!--|/script)", r"\\x3c", code, flags=re.IGNORECASE)


def json_safe(data: Any) -> str:
    """JSON for a script element, without any character that could be read as markup."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _is_named(labels: LabelSet) -> bool:
    """Whether any structure has a name other than the automatic ones."""
    return any(label.name not in (f"value {label.value}", ONLY) for label in labels)


def _inlined(scene: Scene) -> dict[str, Any]:
    """The data of one case for the page, including its voxels.

    Volumes in ml are those of the original mask, not of the cropped and coarser one.
    """
    small = coarser(cropped(straightened(scene), MARGIN_MM), FILE_VOXELS)
    images = [packed(*stepped(channel(small.image, n))) for n in range(small.image.channels)]
    masks = [packed(m.volume.with_array(shown_array(m))) for m in small.masks]
    return {
        **described(small),
        "masks": described(scene)["masks"],
        "reduced": small.image.grid != scene.image.grid,
        "files": {"images": [_base64(b) for b in images], "masks": [_base64(b) for b in masks]},
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json_element(name: str, data: Any) -> str:
    return f'<script type="application/json" id="{name}">{json_safe(data)}</script>'


def _rendered(title: str, data: Sequence[str], policy: str | None) -> str:
    """The filled template; with a ``policy``, style and scripts are inline."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    template = Environment(
        loader=FileSystemLoader(STATIC), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("viewer.html.jinja")
    alone = policy is not None
    return template.render(
        title=title,
        policy=policy,
        data=[Markup(part) for part in data],
        scripts=SCRIPTS,
        style=STYLE,
        inline_style=Markup((STATIC / STYLE).read_text(encoding="utf-8")) if alone else None,
        inline_scripts=[
            Markup(script_safe((STATIC / name).read_text(encoding="utf-8"))) for name in SCRIPTS
        ]
        if alone
        else [],
    )

"""What the core types refuse, and the sentence of each refusal."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.plans import small_network, small_plan

from delineate.core import inputs, outputs, schema
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import (
    BundleError,
    DelineateError,
    InputError,
    LabelError,
    LayoutError,
    OutputError,
    UsageError,
    optional_package,
)
from delineate.core.labels import LabelMapping, LabelSet, marked
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.plan import View

TWO = LabelSet.from_names({1: "liver", 2: "spleen"})
SCAN = (Source("/x/a.nii"),)
VIEWS = (View(axis=2, patch=(16, 16, 1)),)
FLAT = {"views": VIEWS, "patch": (16, 16, 1)}
WEIGHTS = {"w": np.zeros(2, np.float32)}
TWO_CHANNELS = np.ones((2, 2, 2, 1), np.uint8)
RED = np.zeros((3, 1, 1, 1), np.uint8) + np.array([255, 0, 0], np.uint8)[:, None, None, None]


def bundle(*members: Member) -> Bundle:
    return Bundle(small_plan(3), members)


def mapped(array: np.ndarray, own: dict[int, str] | None = None, /, **kind: Any) -> np.ndarray:
    return LabelMapping(**kind).apply(array, TWO, own)


@pytest.mark.parametrize(
    ("error", "said", "make"),
    [
        (
            LayoutError,
            "must be usable as a file name, 'a/b' is not",
            lambda: Case("a/b", "p", SCAN),
        ),
        (LayoutError, "at least one image", lambda: Case("a", "p", ())),
        (
            LayoutError,
            "two cases have the same id",
            lambda: Manifest((Case("a", "p", SCAN),) * 2, ("CT",), TWO, layout="x", root="/x"),
        ),
        (BundleError, "unique names, found \\[\\]", bundle),
        (BundleError, "unique names", lambda: bundle(*[Member("f", WEIGHTS)] * 2)),
        (
            BundleError,
            "unknown views \\['axial'\\]",
            lambda: bundle(Member("f", WEIGHTS, view="axial")),
        ),
        (
            BundleError,
            "no first-stage members",
            lambda: bundle(Member("f", WEIGHTS, first_stage=True)),
        ),
        (ValueError, "one voxel along the last axis", lambda: small_plan(2, patch=(16, 16, 4))),
        (ValueError, "views need a 2-D plan", lambda: small_plan(3, views=VIEWS)),
        (
            ValueError,
            "views average their probabilities, not logits",
            lambda: small_plan(2, inference={"average": "logits"}, **FLAT),
        ),
        (
            ValueError,
            "so they need an orientation",
            lambda: small_plan(2, orientation="kji", **FLAT),
        ),
        (
            ValueError,
            "the network has 5 classes, .* need 3",
            lambda: small_plan(network=small_network(classes=5)),
        ),
        (
            LabelError,
            "at most .* structures may overlap, found 20",
            lambda: LabelSet.from_names(dict.fromkeys(range(1, 21), ""), True),
        ),
        (
            LabelError,
            "no structure is called 'lung'; known are liver, spleen",
            lambda: TWO.named("lung"),
        ),
        (
            LabelError,
            "only one kind, found values and channels",
            lambda: LabelMapping(values=((1, 1),), channels=((0, 1),)),
        ),
        (
            LabelError,
            "found 2 channels, but the cohort's masks have one",
            lambda: mapped(TWO_CHANNELS),
        ),
        (
            LabelError,
            "found 1 channel\\(s\\), .* at least 2",
            lambda: mapped(TWO_CHANNELS[0], channels=((1, 2),)),
        ),
        (
            LabelError,
            "channel 1 overlaps with an earlier one in 4 voxels",
            lambda: mapped(TWO_CHANNELS, channels=((0, 1), (1, 2))),
        ),
        (
            LabelError,
            "undeclared segments lung; declared are liver",
            lambda: mapped(TWO_CHANNELS[0], {1: "lung"}, segments=(("liver", 1),)),
        ),
        (LabelError, "undeclared colours #ff0000", lambda: mapped(RED, rgb=(((0, 255, 0), 1),))),
        (
            LabelError,
            "needs an image with 3 or 4 channels",
            lambda: mapped(TWO_CHANNELS[0], rgb=(((0, 255, 0), 1),)),
        ),
        (
            LabelError,
            "65535 marks ignored voxels",
            lambda: marked(np.full((1, 1, 1), 65535, np.uint16), np.zeros((1, 1, 1), bool)),
        ),
        (
            InputError,
            "was written by delineate 9 \\(schema 99\\)",
            lambda: schema.migrate("delineate_store", {"delineate_store": 99, "delineate": "9"}),
        ),
        (
            InputError,
            "by a newer version \\(schema 99\\); this version reads up to 2",
            lambda: schema.migrate("delineate_store", {"delineate_store": 99}),
        ),
        (
            InputError,
            "has the schema 'x', expected a number from 1",
            lambda: schema.migrate("delineate_store", {"delineate_store": "x"}),
        ),
        (
            UsageError,
            "needs the package no_such, which is not installed; .* pip install no_such",
            lambda: optional_package("no_such.part", "this"),
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_it_is_refused_in_its_sentence(
    error: type[Exception], said: str, make: Callable[[], object]
):
    with pytest.raises(error, match=said):
        make()


def test_channels_and_segments_that_fit_are_mapped():
    apart = np.array([[[1, 0]], [[0, 7]]], np.uint8)[..., None]
    assert mapped(apart, channels=((0, 1), (1, 2))).ravel().tolist() == [1, 2]
    one = np.array([5, 3, 0], np.uint8).reshape(3, 1, 1)
    named = {"segments": (("liver", 1), ("spleen", 2))}
    assert mapped(one, {5: "Spleen", 3: "liver"}, **named).ravel().tolist() == [2, 1, 0]
    layers = mapped(apart, {1: "spleen", 2: "liver"}, **named)
    assert layers.ravel().tolist() == [2, 1]
    ignored = LabelMapping(rgb=(((0, 255, 0), 1),), ignore=(0xFF0000,)).apply(RED, TWO)
    assert ignored.ravel().tolist() == [65535]


def test_a_damaged_record_of_outputs_is_named(tmp_path):
    (tmp_path / outputs.RECORD).write_text(json.dumps({outputs.KIND: 1, "files": []}))
    with pytest.raises(OutputError, match=r"\.delineate\.json: is not a record of the files"):
        outputs.own_files(tmp_path)


def test_text_with_bytes_of_zero_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    with pytest.raises(InputError, match=r"a\.txt: is not text \(it has bytes of zero\)"):
        inputs.read_text(tmp_path / "a.txt")
    assert inputs.sha256_of(tmp_path / "none") == ""


def test_a_zip_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "m.model"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", "{}")
    with pytest.raises(DelineateError, match=r"m\.model: "):
        Bundle.load(path)
    assert not Bundle.is_bundle(tmp_path / "none") and not Bundle.is_bundle(tmp_path)

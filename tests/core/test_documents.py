"""JSON and YAML: faults are refused in one sentence, before they cost memory or a meaning."""

from __future__ import annotations

import json

import pytest

from delineate.core import inputs
from delineate.core.errors import BundleError, InputError
from delineate.core.inputs import ChecksumError, json_text, parse_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"liver": 1, "liver": 2}', "the key 'liver' stands twice"),
        ("[" * 200_000, "nested too deeply"),
        ('{"liver": ', "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_json_that_is_refused(text, words, tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as found:
        inputs.read_json(path)
    assert str(path) in str(found.value)
    with pytest.raises(BundleError):
        inputs.read_json(path, error=BundleError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("liver: 1\nliver: 2", "the key 'liver' stands twice"),
        ("a: {1: liver, 1: spleen}", "the key '1' stands twice"),
        ("!!python/object/apply:os.system [echo]", "is not YAML"),
        ("a: &a [x]\nb: [" + "*a, " * 200 + "]", "200 aliases"),
        ("a: [", "is not YAML"),
    ],
)
def test_yaml_that_is_refused(text, words, tmp_path):
    path = tmp_path / "description.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        inputs.read_yaml(path)


def test_yaml_that_is_read(tmp_path):
    path = tmp_path / "description.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert inputs.read_yaml(path) == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_BYTES", 10)
    path = tmp_path / "dataset.json"
    path.write_text("[1, 2, 3, 4, 5]")
    with pytest.raises(InputError, match="are read up to"):
        inputs.read_json(path)


def test_a_byte_order_mark_is_dropped_and_other_encodings_are_refused(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text('{"é": 1}', encoding="utf-8-sig")
    assert inputs.read_json(path) == {"é": 1}
    path.write_text('{"é": 1}', encoding="latin-1")
    with pytest.raises(InputError, match="not UTF-8"):
        inputs.read_json(path)


def test_a_missing_file_is_none_only_where_it_may_be_missing(tmp_path):
    assert inputs.read_json_if_any(tmp_path / "none.json") is None
    with pytest.raises(InputError, match="cannot be read"):
        inputs.read_json(tmp_path / "none.json")


def test_lines_that_are_no_objects_are_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("step 1\nstep 2\nstep 3\n")
    with pytest.raises(InputError, match="3 of its lines"):
        inputs.read_json_lines(path)


def test_a_checksum_does_not_depend_on_layout_and_order():
    data = {"b": {"liver": 1.5, "a": (2, 3)}, "a": {"x": {1: None}}}
    text = json_text(data)
    assert text.endswith('"delineate_checksum": "crc32:c0790698"}')
    kept = json.loads(text)
    turned = json.dumps({key: kept[key] for key in reversed(kept)}, indent=3)
    found = {"b": {"liver": 1.5, "a": [2, 3]}, "a": {"x": {"1": None}}}
    assert parse_json(text) == parse_json(turned) == found
    with pytest.raises(ChecksumError):
        parse_json(text.replace("1.5", "1.25"))

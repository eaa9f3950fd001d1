"""Licences: inherited from the data, stated by the user, and printed if they restrict the use."""

from __future__ import annotations

import json

import pytest
from tests.plans import small_plan

from delineate.cohorts.licence import is_restricted, licence_of_data, stated_licences
from delineate.cohorts.public.catalogue import DATA_SETS
from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import InputError
from delineate.networks.build import build, weights_of


@pytest.mark.parametrize("field", ["licence", "license"])
def test_the_licence_of_a_dataset_json(tmp_path, field):
    assert licence_of_data(tmp_path) == licence_of_data(tmp_path / "missing") == ""
    (tmp_path / "dataset.json").write_text(json.dumps({field: " CC-BY-SA\n 4.0 "}))
    assert licence_of_data(tmp_path) == "CC-BY-SA 4.0"
    (tmp_path / "dataset.json").write_text("not JSON")
    assert licence_of_data(tmp_path) == ""


def test_the_licence_of_a_download(tmp_path):
    known = DATA_SETS["decathlon-hippocampus"]
    facts = {known.files[0].name: {"unpacked": "Task04_Hippocampus"}, "other.zip": {}}
    (tmp_path / "checksums.json").write_text(json.dumps(facts))
    assert licence_of_data(tmp_path) == licence_of_data(tmp_path / "Task04_Hippocampus")
    assert licence_of_data(tmp_path) == known.licence
    assert licence_of_data(tmp_path / "other") == ""


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        ("CC BY-NC-SA 4.0", True),
        ("CC-BY-NC-4.0", True),
        ("CC BY-ND 4.0", True),
        ("Non-commercial research use", True),
        ("for research use only", True),
        ("CC BY-SA 4.0", False),
        ("Apache-2.0", False),
        (stated_licences("", ""), False),
        (stated_licences("", "CC BY-NC 4.0"), True),
        (stated_licences("CC-BY-4.0", ""), False),
    ],
)
def test_licences_that_restrict_the_use(licence, restricted):
    assert is_restricted(licence) == restricted


def test_weights_inherit_the_licence_of_the_data():
    assert stated_licences("", "MIT") == "of the weights: MIT, as of the data; of the data: MIT"
    assert stated_licences("CC0", "") == "of the weights: CC0; of the data: see its source"


@pytest.mark.parametrize("licence", ["CC BY-NC 4.0", "CC0-1.0"])
def test_predict_prints_a_restriction_once(tmp_path, licence):
    plan = small_plan()
    member = Member("fold_0", weights_of(build(plan.network, 0)))
    model = Bundle(plan, (member,), {"licence": stated_licences("", licence)})
    said: list[str] = []
    with pytest.raises(InputError):
        predict(model, [tmp_path / "missing"], tmp_path / "out", PredictOptions(), say=said.append)
    assert [line for line in said if licence in line] == said
    assert len(said) == ("NC" in licence)

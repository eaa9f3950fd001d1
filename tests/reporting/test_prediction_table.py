"""The table that predict prints."""

from __future__ import annotations

from delineate.reporting.prediction_table import MOST_VOLUMES, table


def test_each_case_has_its_volumes_and_flags():
    flag = {"kind": "mirrored", "words": "the scan looks mirrored"}
    text = table(
        {
            "a": {"volumes_ml": {"liver": 1500.25, "spleen": 0.0}, "flags": []},
            "b": {
                "volumes_ml": {"liver": 7.5, "spleen": 90.0},
                "flags": [flag],
                "notes": ["InstanceNumber begins at 2: slices may be missing at an end"],
            },
        }
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["a", "1500", "0", "–"] in lines and ["b", "7.5", "90", "mirrored"] in lines
    assert "b: mirrored: the scan looks mirrored" in text
    assert "b: note: InstanceNumber begins at 2: slices may be missing at an end" in text


def test_many_structures_are_counted():
    names = [f"region {n}" for n in range(MOST_VOLUMES + 1)]
    volumes = dict.fromkeys(names, 1.0) | {names[0]: 0.0}
    text = table({"a": {"volumes_ml": volumes}})
    assert f"{MOST_VOLUMES} of {MOST_VOLUMES + 1}" in text and "region" not in text


def test_long_and_wide_names_keep_their_columns():
    volumes = {"liver": 1500.25}
    text = table(
        {"病例一": {"volumes_ml": volumes}, "case " + "x" * 40: {"volumes_ml": volumes}}, 60
    )
    assert text.splitlines() == [
        "                                liver,",
        "case                                ml  flags",
        "─────────────────────────────────────────────",
        "病例一                            1500  –",
        "case                              1500  –",
        "x" * 30,
        "x" * 10,
    ]


def test_words_are_broken_to_the_width():
    note = "one " * 30
    text = table({"a": {"notes": [note]}}, 40)
    assert max(map(len, text.splitlines())) <= 40 and text.split().count("one") == 30

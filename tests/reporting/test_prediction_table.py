"""The table that predict prints."""

from __future__ import annotations

from rich.console import Console

from delineate.reporting.prediction_table import MOST_VOLUMES, table


def shown(cases: dict[str, dict]) -> str:
    console = Console(width=100)
    with console.capture() as printed:
        console.print(table(cases))
    return printed.get()


def test_each_case_has_its_volumes_and_flags():
    flag = {"kind": "mirrored", "words": "the scan looks mirrored"}
    text = shown(
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
    text = shown({"a": {"volumes_ml": volumes}})
    assert f"{MOST_VOLUMES} of {MOST_VOLUMES + 1}" in text and "region" not in text

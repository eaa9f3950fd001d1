"""Writes ``docs/reference/cost.md``: what a CT costs, times a million, and a model of scaling with
the measured constants.

    python benchmarks/cost_page.py

It reads the records of ``cost.py``, ``engines.py`` and ``eight_bits.py``, and that of
``many_cases.py`` if there is one.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
EIGHT_BITS = "amd-epyc-bf16-avx-512-2-cores/eight_bits_hippocampus"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cost.md"
MILLION = 1_000_000
CORES = 8  # of a node, in the model
NODES = (1, 10, 100, 1000)
READ_MB = 512 * 512 * 300 * 2 / 1e6  # the voxels of a scan, not compressed
WRITTEN_MB = 0.5  # a compressed mask and its entry, about

HEAD = """# What a million CTs cost

For those who plan an archive. At the end you know the time and the storage that it needs, and what
limits the number of machines. Written by `python benchmarks/cost_page.py`; do not edit it by hand.

## One CT

`predict` on {scan}, with a U-Net of 16 base channels, on {cores} cores of {processor}
({command}):

{table}

The seconds are those of a whole command, with its start; CPU seconds are those of all threads.
The network dominates. A scan has {read:.0f} MB of voxels before compression,
and a mask about {written:.1f} MB.
{choices}
## A million of them

With {labels} structures:

| | |
|---|---|
| CPU | {hours:,.0f} core hours: {days:,.0f} days of a node of {node} cores |
| read | at most {tb:.0f} TB |
| written | {tb_out:.1f} TB |

What saves most:

- An overlap of windows that is no larger than needed: `--overlap`; training measures it.
- {int8}
- A coarse pass (`--coarse`), where training found it as accurate: of hippocampi in whole brains it
  left 14 of 108 windows, see
  [decision 96](../decisions/0096-a-small-network-finds-where-windows-are-needed.md). It is the
  default of such a model.
- No mirror images, the default unless the plan says so: with three mirrored axes each window is
  computed 8 times.
- `--skip-air`, where much of a scan is air. A scan whose windows all touch the body gains nothing.

"""

MODEL = """## A model of scaling

With `--engine ray`, a call of C scans on N nodes takes about

```text
T(N) = s + max(C c / N, C d) + c
```

| Constant | Value | From |
|---|---|---|
| c, a scan on a node of {cores} cores | {c:.1f} s | the CPU seconds above, divided by {cores} |
| d, of the process that was called, for each scan | {d:.2f} ms | {measured} |
| s, before the first case | {s:.1f} s | start of Ray's workers, which load the program |

d and s are those of {engine_command} on {engine_cores} cores of {engine_processor}.
{many}
{rows}

More than c / d = {most:,.0f} nodes are of no use for one call: the process that was called is then
the limit. Shards (`--shard`) have no such process; a call on the engine for each of several shards
moves the limit by their number.

Assumptions, none of which was measured on many machines:

- A worker uses all {cores} cores of its node as well as the measured machine uses its own.
- The disk that all nodes see gives {bandwidth:,.0f} MB/s to 1,000 nodes together.
- The time of the process that was called does not grow with the number of workers. It was measured
  with two, and part of it is waiting, so that it is an upper bound.
- Scans need about equal time. The last one ends up to one scan after the others.
- A node that is lost costs half a scan and a start, {lost:.0f} s: with one loss a day and node,
  {share:.2f} % of all.

{overhead}
"""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _made_by(record: dict[str, Any]) -> dict[str, Any]:
    """The machine of a record, and its command with the commit."""
    commit = f", commit {record['commit']}" if record.get("commit") else ""
    machine = {name: record["machine"][name] for name in ("cores", "processor")}
    return {**machine, "command": f"`{record['command']}`{commit}"}


def one_ct(rows: dict[str, Any]) -> Iterator[str]:
    """The table of a scan by number of structures."""
    yield "| Structures | seconds | CPU seconds | peak memory |"
    yield "|---|---|---|---|"
    for labels, row in rows.items():
        numbers = f"{row['seconds']:.0f} | {row['cpu_s']:.0f} | {row['peak_mb'] / 1e3:.1f} GB"
        yield f"| {labels} | {numbers} |"


def by_choice(cost: dict[str, Any]) -> str:
    """What each choice of ``predict`` saves."""
    rows = cost["choices"]
    default = rows["default"]["cpu_s"]
    table = [
        "| Choice | CPU seconds | of the default | read | written | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        table.append(
            f"| {name if name == 'default' else f'`{name}`'} | {row['cpu_s']:.1f} | "
            f"{100 * row['cpu_s'] / default:.0f} % | {row['read_bytes'] / 1e6:.0f} MB | "
            f"{row['written_bytes'] / 1e6:.2f} MB | {row['peak_mb'] / 1e3:.1f} GB |"
        )
    words = f"By choice, a scan of {cost['scan']} without the start ({_made_by(cost)['command']}):"
    return "\n".join(["", words, "", *table, ""])


def int8() -> str:
    """What INT8 saves on the processor where it was measured."""
    record = read(EIGHT_BITS)
    floats, rounded = record["seconds"]
    words = (
        f"INT8, the default where training found it equal: {100 * rounded / floats:.0f} % of the "
        f"time of {record['precision_beside']} on {record['machine']['processor']}. Processors "
        "without VNNI or AMX round more, and use it only with `--precision int8`."
    )
    return textwrap.fill(words, 98, subsequent_indent="  ")


def page() -> str:
    cost, engines = read("cost"), read("engines")
    labels, row = next(iter(cost["whole"].items()))
    cpu_s = row["cpu_s"]
    calls, c = engines["calls"], cpu_s / CORES
    idle = engines["calls without work"]["ray, 2"]["a case_s"]
    line = engines["a line of the journal_ms"] / 1e3
    start = calls["ray, 2"]["until the first case_s"] - calls["ray, 2"]["in workers, a case_s"]
    head = HEAD.format(
        **_made_by(cost),
        scan=cost["whole scan"],
        table="\n".join(one_ct(cost["whole"])),
        choices=by_choice(cost),
        int8=int8(),
        read=READ_MB,
        written=WRITTEN_MB,
        labels=labels,
        hours=MILLION * cpu_s / 3600,
        days=MILLION * cpu_s / 3600 / CORES / 24,
        node=CORES,
        tb=READ_MB,
        tb_out=WRITTEN_MB,
    )
    return head + MODEL.format(
        cores=CORES,
        c=c,
        d=1e3 * (idle + line),
        measured=f"a case without work on Ray ({1e3 * idle:.2f} ms), and its line in the journal "
        f"({1e3 * line:.2f} ms)",
        s=start,
        engine_cores=engines["machine"]["cores"],
        engine_processor=engines["machine"]["processor"],
        engine_command=_made_by(engines)["command"],
        many=many_cases(),
        rows="\n".join(scaled(c, idle + line, start)),
        most=c / (idle + line),
        bandwidth=1000 * READ_MB / c,
        lost=c / 2 + start,
        share=100 * (c / 2 + start) / 86400,
        overhead=overhead(engines),
    )


def many_cases() -> str:
    """What a million lines of a list cost the process that was called, if it was measured."""
    if not (RESULTS / "many_cases.json").is_file():
        return ""
    found = read("many_cases")
    fresh, kept = found["fresh"], found["kept"]
    return (
        f"With a work list of {found['cases']:,} lines and cases without work, that process needs "
        f"{fresh['ms_a_case']:.2f} ms a\ncase on its own processes, and {kept['seconds']:.0f} s "
        f"with {kept['peak_memory_mb']:.0f} MB of memory to find that all are done\n"
        "(`python benchmarks/many_cases.py`). Every shard reads the list, and looks at its own "
        "cases only.\n"
    )


def overhead(engines: dict[str, Any]) -> str:
    """Ratios of whole calls, which a busy machine cannot give."""
    if note := engines.get("note"):
        return (
            f"{note} So the constants d and s are upper bounds, and the overhead of Ray against "
            "processes\nof one machine, and one worker against two, are still to be measured."
        )
    case_s = engines["calls"]["local, 2"]["in workers, a case_s"]
    steady, whole = (
        100 * (engines[f"ray against local, {name}"] - 1) for name in ("without starts", "in all")
    )
    return (
        f"Overhead of Ray with two workers and cases of {case_s:.1f} s (a CT of 78 slices, examined"
        f" as by `check`):\n{steady:+.1f} % without starts, {whole:+.1f} % in all of "
        f"{engines['cases']} cases. From one worker to two, Ray is\n"
        f"{engines['1 to 2 workers, ray']:.2f} times as fast, processes of the machine "
        f"{engines['1 to 2 workers, local']:.2f} times." + _cpu(engines)
    )


def _cpu(engines: dict[str, Any]) -> str:
    """What Ray needs of the CPU, once a call and for each case; "" where it was not measured."""
    if "start of a cluster" not in engines:
        return ""
    start, ray = engines["start of a cluster"], engines["calls"]["ray, 2"]
    once = sum(value for name, value in start.items() if name.startswith("CPU"))
    own = sum(ray[f"CPU of {kind}, a case_s"] for kind in ("the call", "Ray's own processes"))
    ratio = 100 * (engines["ray against local, CPU a case"] - 1)
    return (
        f"\n\nIn CPU seconds: once a call {once:.1f} s for a cluster that it starts (none for "
        f"one\nthat runs), and {own:.2f} s a case outside of the workers. With the workers a case "
        f"needs {ratio:+.1f} % on Ray."
    )


def scaled(c: float, d: float, start: float) -> Iterator[str]:
    """The table of the model, for a million scans."""
    yield "| Nodes | a million scans | share of the nodes' time that is used |"
    yield "|---|---|---|"
    for nodes in NODES:
        seconds = start + max(MILLION * c / nodes, MILLION * d) + c
        used = MILLION * c / nodes / seconds
        yield f"| {nodes:,} | {seconds / 3600:,.1f} h | {100 * used:.1f} % |"


if __name__ == "__main__":
    PAGE.write_text(page().rstrip() + "\n", encoding="utf-8")
    print(f"written: {PAGE}")

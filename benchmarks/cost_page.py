"""Writes ``docs/reference/cost.md`` from ``results/cost.json`` and ``results/engines.json``: what a
CT costs, times a million, and a model of scaling with the measured constants.

    python benchmarks/cost_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cost.md"
MILLION = 1_000_000
CORES = 8  # of a node, in the model
NODES = (1, 10, 100, 1000)

HEAD = """# What a million CTs cost

For those who plan an archive. At the end you know the time, the storage and the machines that it
needs, and what limits more machines. Written by `python benchmarks/cost_page.py`; do not edit it by
hand.

Measured on {processor} with {cores} cores, by `python benchmarks/cost.py` and
`python benchmarks/engines.py`. The scan is {scan} (78 slices of 512x512), the model {model}. A CT
of 300 slices costs about four times as much. Measure your own scan and model with `--scan` and
`--model`.

## One CT
"""

MODEL = """## A model of scaling

With `--engine ray`, a call of C scans on N nodes takes about

```text
T(N) = s + max(C c / N, C d) + c
```

| Constant | Value | Measured as |
|---|---|---|
| c, a scan on a node of {cores} cores | {c:.1f} s | CPU seconds of a scan / {cores} |
| d, of the process that was called, for each scan | {d:.1f} ms | {measured} |
| s, before the first case | {s:.1f} s | start of Ray's workers, which load the program |

{rows}

More than c / d = {most:,.0f} nodes are of no use for one call: the process that was called is then
the limit. Shards (`--shard`) have no such process; a call on the engine for each of several shards
moves the limit by their number.

Assumptions, none of which was measured on many machines:

- A worker uses all {cores} cores of its node as well as the measured machine uses its own.
- The disk that all nodes see gives {bandwidth:,.0f} MB/s to 1,000 nodes together; each reads
  {read:.1f} MB a scan.
- The time of the process that was called does not grow with the number of workers. It was measured
  with two, and most of it is waiting, so that it is an upper bound.
- Scans need about equal time. The last one ends up to one scan after the others.
- A node that is lost costs half a scan and a start, {lost:.0f} s: with one loss a day and node,
  {share:.3f} % of all.

Overhead of Ray on the measured machine, on two cores and with cases of {case:.1f} s:
{steady:+.1f} % without starts, {total:+.1f} % in all. From one worker to two, Ray is {scaling:.2f}
times as fast, processes of the machine {local:.2f} times.
"""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def choices(cost: dict[str, Any]) -> Iterator[str]:
    """The table of what a CT costs."""
    rows = cost["choices"]
    default = rows["default"]["cpu_s"]
    yield "| Choice of `predict` | CPU seconds | of the default | peak memory | read | written |"
    yield "|---|---|---|---|---|---|"
    for name, row in rows.items():
        yield (
            f"| {name if name == 'default' else f'`{name}`'} | {row['cpu_s']:.1f} | "
            f"{100 * row['cpu_s'] / default:.0f} % | {row['peak_mb'] / 1e3:.1f} GB | "
            f"{cost['read_bytes'] / 1e6:.1f} MB | {row['written_bytes'] / 1e6:.2f} MB |"
        )


def page() -> str:
    cost, engines = read("cost"), read("engines")
    default = cost["choices"]["default"]
    per_million = MILLION * default["cpu_s"]
    idle = engines["calls without work"]["ray, 2"]["a case_s"]
    line = engines["a line of the journal_ms"] / 1e3
    calls = engines["calls"]
    start = calls["ray, 2"]["until the first case_s"] - calls["ray, 2"]["in workers, a case_s"]
    c, d = default["cpu_s"] / CORES, idle + line
    parts = [
        HEAD.format(**cost["machine"], scan=f"`{cost['scan']}`", model=cost["model"]),
        "\n".join(choices(cost)),
        (
            f"\nA call itself takes {default['call_cpu_s']:.0f} CPU seconds more, once. "
            "The network dominates.\n\n## A million of them"
            f"\n\n| | |\n|---|---|\n| CPU | {per_million / 3600:,.0f} core hours, "
            f"{per_million / 3600 / CORES / 24:,.0f} days of one node of {CORES} cores |\n"
            f"| read | {MILLION * cost['read_bytes'] / 1e12:.1f} TB |\n"
            f"| written | {MILLION * default['written_bytes'] / 1e12:.2f} TB |\n"
        ),
        MODEL.format(
            cores=CORES,
            c=c,
            d=1e3 * d,
            measured=f"a case without work on Ray ({1e3 * idle:.1f} ms), and its line in the "
            f"journal ({1e3 * line:.1f} ms)",
            s=start,
            rows="\n".join(scaled(c, d, start)),
            most=c / d,
            bandwidth=1000 * cost["read_bytes"] / c / 1e6,
            read=cost["read_bytes"] / 1e6,
            lost=c / 2 + start,
            share=100 * (c / 2 + start) / 86400,
            case=calls["local, 2"]["in workers, a case_s"],
            steady=100 * (engines["ray against local, without starts"] - 1),
            total=100 * (engines["ray against local, in all"] - 1),
            scaling=engines["1 to 2 workers, ray"],
            local=engines["1 to 2 workers, local"],
        ),
    ]
    return "\n".join(parts)


def scaled(c: float, d: float, start: float) -> Iterator[str]:
    """The table of the model, for a million scans."""
    yield "| Nodes | a million scans | share of the nodes' time that is used |"
    yield "|---|---|---|"
    for nodes in NODES:
        seconds = start + max(MILLION * c / nodes, MILLION * d) + c
        used = MILLION * c / nodes / seconds
        yield f"| {nodes:,} | {seconds / 3600:,.1f} h | {100 * used:.1f} % |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")

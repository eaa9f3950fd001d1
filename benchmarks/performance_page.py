"""Writes one page per machine, ``performance/MACHINE.md``, from the records in
``results/MACHINE/``: for each line our figure, the peer's and their ratio; for each section the
command.

    python benchmarks/performance_page.py

A page has figures of one machine only; docs/reference/performance.md links to all pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGES = Path(__file__).parents[1] / "docs" / "performance"
Line = tuple[str, str, str, str]  # what, ours, the peer's, ratio

HEAD = """# Performance on {processor}, {cores} cores

Written by `python benchmarks/performance_page.py` from `benchmarks/results/{folder}/`. Do not edit
it by hand. How it is measured: [performance](../reference/performance.md).

Python {python}{versions}.
"""
TITLES = {
    "forward": "Forward pass",
    "start_up": "Start-up",
    "predict_memory": "Memory of a prediction",
    "restore_memory": "Memory of resampling back",
    "preparing": "Preprocessing of a scan",
    "prepare_cohort": "Preprocessing of a cohort",
    "eight_bits_hippocampus": "INT8 inference, nnU-Net's hippocampus model",
    "eight_bits_own": "INT8 inference, our hippocampus model",
}


def forward(r: dict[str, Any]) -> Iterator[Line]:
    """One line per backend, with the share of voxels of the same class as torch in float32."""
    ways = r["ways"]
    peer = ways["torch float32, as nnU-Net"]
    for name, way in ways.items():
        if way is not peer:
            what = (
                f"one {'x'.join(map(str, r['patch']))} window, nnU-Net's plain 3-D U-Net: "
                f"{name}; same class in {100 * way['voxels of the same class']:.3f} % of voxels"
            )
            yield (
                what,
                f"{way['seconds']:.2f} s",
                f"torch float32, as nnU-Net: {peer['seconds']:.2f} s",
                _ratio(way["times as fast"]),
            )


def eight_bits(r: dict[str, Any]) -> Iterator[Line]:
    plain, rounded = r["seconds"]
    dice = [sum(pair[n] for pair in r["dice"].values()) / len(r["dice"]) for n in range(2)]
    agree = sum(r["agreement"].values()) / len(r["agreement"])
    whose = (
        "nnU-Net's trained hippocampus fold"
        if r["name"] == "hippocampus"
        else "our model, trained for 20 minutes on the hippocampus cases (held-out scans)"
    )
    what = (
        f"{whose}, INT8, {r['measured_on']} scans: mean Dice {agree:.4f} between INT8 and "
        f"{r['precision_beside']} masks; Dice with the truth {dice[1]:.4f} "
        f"({r['precision_beside']}: {dice[0]:.4f})"
    )
    yield (
        what,
        f"{rounded:.2f} s per scan",
        f"ours in {r['precision_beside']}: {plain:.2f} s",
        _ratio(plain / rounded),
    )


def wait_policy(r: dict[str, Any]) -> Iterator[Line]:
    ways = dict(r["ways"])
    ours = ways.pop("as OpenMP does")
    what = f"training steps in {60 * r['minutes']:.0f} s, hippocampus, OpenMP's default wait policy"
    for name, way in ways.items():
        yield (
            what,
            f"{ours['median']:.0f}",
            f"ours with {name}: {way['median']:.0f}",
            _ratio(ours["median"] / way["median"]),
        )


def start_up(r: dict[str, Any]) -> Iterator[Line]:
    """Ours with and without a kept graph, against nnU-Net as installed and tuned."""
    ours = {"graph kept": "graph kept", "first use": "first use of the model"}
    peers = {"as installed": "nnUNetv2_predict as installed", "tuned": "with -npp 1 -nps 1"}
    for what, ways in r.items():
        if isinstance(ways, dict) and "graph kept" in ways:
            for mine, title in ours.items():
                for way, name in peers.items():
                    peer = ways.get(way)
                    yield (
                        f"predict, whole process, hippocampus: {what}; {title}",
                        _spread(ways[mine]),
                        f"{name}: {_spread(peer)}" if peer else "not installed",
                        _ratio(peer and peer["seconds"] / ways[mine]["seconds"]),
                    )


def _spread(way: dict[str, Any]) -> str:
    low, high = way["quartiles"]
    return f"{way['seconds']:.1f} s ({low:.1f} to {high:.1f}), {way['mb'] / 1e3:.2f} GB"


def restore_memory(r: dict[str, Any]) -> Iterator[Line]:
    for labels, row in r["labels"].items():
        peer = r.get("peer") if labels == next(iter(r["labels"])) else None
        yield (
            f"class scores of {labels} classes resampled back to {r['scan']}: seconds, memory in "
            f"addition to the result, of which one slab {row['slab_mb'] / 1e3:.2f} GB",
            f"{row['restore_s']:.1f} s, {row['beyond_input_mb'] / 1e3:.2f} GB",
            f"{peer['name']}: {peer['restore_s']:.1f} s, {peer['beyond_input_mb'] / 1e3:.1f} GB"
            if peer
            else "–",
            _ratio(peer and peer["restore_s"] / row["restore_s"]),
        )


def preparing(r: dict[str, Any]) -> Iterator[Line]:
    """The same voxels on both sides, then ours as it runs, with its crop."""
    for mine in ("delineate", "delineate, with its crop"):
        ours = r["ways"][mine]
        for name, way in r["ways"].items():
            if not name.startswith("delineate"):
                error = (
                    f"; relative error {ours['error']:.3f} against {way['error']:.3f}"
                    if "error" in way and "error" in ours
                    else ""
                )
                same = "same voxels" if mine == "delineate" else "ours crops to the body"
                yield (
                    f"a CT of 512x512x300 resampled to 1.5 mm, {same}{error}",
                    f"{ours['work_s']:.2f} s, {ours['beyond_input_mb'] / 1e3:.2f} GB",
                    f"{name}: {way['work_s']:.2f} s, {way['beyond_input_mb'] / 1e3:.2f} GB",
                    _ratio(way["work_s"] / ours["work_s"]),
                )
    dice = ", ".join(
        f"{name} {value:.3f}" for name, value in r["labels there and back, Dice"].items()
    )
    yield f"labels resampled to 1.5 mm and back, Dice: {dice}", "–", "–", "–"


def volume_files(r: dict[str, Any]) -> Iterator[Line]:
    for what in ("read", "write"):
        for peer in ("nibabel", "SimpleITK"):
            work = "reading" if what == "read" else "writing"
            yield (
                f"{work} a .nii.gz of {r['file']}",
                f"{r[what]['delineate']:.2f} s",
                f"{peer}: {r[what][peer]:.2f} s",
                _ratio(r[what][f"times as fast as {peer}"]),
            )


def augmentation(r: dict[str, Any]) -> Iterator[Line]:
    for how in ("default", "every effect"):
        for name, row in r[how].items():
            if name != "delineate":
                what = (
                    "augmented patches of 128x128x128 per second, two cores, "
                    f"{'default probabilities' if how == 'default' else 'all probabilities 1'}"
                )
                yield (
                    what,
                    f"{r[how]['delineate']['patches_a_second']:.1f}",
                    f"{name}: {row['patches_a_second']:.1f}",
                    _ratio(row["ours_times_as_fast"]),
                )


def augmentation_effects(r: dict[str, Any]) -> Iterator[Line]:
    """For each effect the measure that changes most: median, 10th and 90th percentile."""
    changes_most = {
        "rotation": "deviation",
        "scale": "structures",
        "noise": "sharpness",
        "blur": "sharpness",
        "contrast": "deviation",
        "gamma": "sharpness",
        "low_resolution": "sharpness",
    }
    names = {"deviation": "standard deviation", "structures": "share of structure voxels"}
    for effect, measure in changes_most.items():
        found = {name: row[measure] for name, row in r["effects"][effect].items()}
        shown = {
            name: f"{middle:.2f} ({low:.2f} to {high:.2f})"
            for name, (low, middle, high) in found.items()
        }
        what = (
            f"{effect.replace('_', ' ')} alone: {names.get(measure, measure)} relative to the "
            f"unchanged patch, {r['draws']} draws"
        )
        yield what, shown["delineate"], f"nnU-Net: {shown['nnU-Net']}", "–"


def patch_reads(r: dict[str, Any]) -> Iterator[Line]:
    for row in r["reads"]:
        yield (
            f"reading a random patch of {row['patch']} from the store",
            f"{row['ours_ms']:.1f} ms",
            f"nnU-Net's blosc2 store: {row['peer_ms']:.1f} ms",
            _ratio(row["ratio"]),
        )


def prepare_cohort(r: dict[str, Any]) -> Iterator[Line]:
    peer = f"nnU-Net's preprocessing: {r['peer_s']:.1f} s" if "peer_s" in r else "–"
    yield (
        f"preprocessing of {r['cases']} hippocampus cases, whole process",
        f"{r['ours_s']:.1f} s",
        peer,
        _ratio(r.get("ratio")),
    )


def step_time(r: dict[str, Any]) -> Iterator[Line]:
    for row in r["steps"]:
        ours = row["ours"]
        for way in ("as installed", "tuned"):
            peer = row.get(way)
            how = (
                f"bfloat16, channels last{', compiled' * bool(peer.get('compiled'))}"
                if peer and way == "tuned"
                else "float32"
            )
            yield (
                f"step of the training loop, nnU-Net's 3-D network, patch {row['patch']}, batch "
                f"{row['batch']}",
                f"{ours['work_s']:.2f} s",
                f"nnU-Net's step {way} ({how}): {peer['work_s']:.2f} s"
                if peer
                else "not installed",
                _ratio(peer and peer["work_s"] / ours["work_s"]),
            )


def loss_speed(r: dict[str, Any]) -> Iterator[Line]:
    for row in r["losses"]:
        for peer, name in (("nnunet_s", "nnU-Net"), ("monai_s", "MONAI")):
            if peer in row:
                yield (
                    f"Dice and cross-entropy loss with its gradient, logits {row['scores']}",
                    f"{1e3 * row['ours_s']:.0f} ms",
                    f"{name}: {1e3 * row[peer]:.0f} ms",
                    _ratio(row[peer] / row["ours_s"]),
                )


def surface_distances(r: dict[str, Any]) -> Iterator[Line]:
    for pair in ("liver", "scattered"):
        for name, row in r[pair].items():
            if "ours_times_as_fast" in row:
                ours = r[pair][
                    "delineate, surfels" if name == "surface-distance" else "delineate, voxels"
                ]
                what = (
                    f"HD95, ASSD and surface Dice of two masks of {r['shape']} ({pair}), same "
                    f"definitions; largest difference {row['largest_difference']:g}"
                )
                mine, theirs = (f"{w['beyond_input_mb'] / 1e3:.2f} GB" for w in (ours, row))
                yield (
                    what,
                    f"{ours['work_s']:.2f} s, {mine}",
                    f"{name}: {row['work_s']:.1f} s, {theirs}",
                    _ratio(row["ours_times_as_fast"]),
                )


def metric_speed(r: dict[str, Any]) -> Iterator[Line]:
    def line(what: str, ours: dict[str, Any], name: str, peer: dict[str, Any]) -> Line:
        mine, theirs = (
            f"{w['work_s']:.2f} s, {w['beyond_input_mb'] / 1e3:.2f} GB" for w in (ours, peer)
        )
        return what, mine, f"{name}: {theirs}", _ratio(peer["work_s"] / ours["work_s"])

    for count in ("3 structures", "41 structures"):
        for name in ("SimpleITK", "numpy.bincount"):
            if f"overlap, {name}" in r[count]:
                yield line(
                    f"Dice of {count}, {r['shape']}, computed as in `evaluate`",
                    r[count]["confusion, delineate"],
                    name,
                    r[count][f"overlap, {name}"],
                )
    for mask in ("liver", "vessels"):
        distance = "boundary IoU, 2 mm, SciPy's distance transform in the same box"
        yield line(
            f"boundary IoU of {mask}",
            r[mask]["boundary IoU, 2 mm, delineate"],
            "SciPy's distance transform",
            r[mask][distance],
        )
        yield line(
            f"clDice of {mask}",
            r[mask]["clDice, delineate"],
            "scikit-image's skeleton",
            r[mask]["clDice, scikit-image in the box"],
        )


def predict_memory(r: dict[str, Any]) -> Iterator[Line]:
    for name, row in r["labels"].items():
        yield (
            f"predict, 512x512x300, {name} labels, whole process",
            f"{row['seconds']:.0f} s, {row['peak_mb'] / 1e3:.2f} GB",
            "–",
            "–",
        )


def accuracy(folder: Path) -> str:
    """The section on Dice of held-out cases after a given training time."""
    rows = [
        "| cohort and time | mean Dice per case | compared with | command |",
        "|---|---|---|---|",
    ]
    for path in sorted(folder.glob("train_*.json")):
        what = path.stem.split("_")[1]
        if what == "nnunet":
            continue
        r = json.loads(path.read_text(encoding="utf-8"))
        of = (
            f"{r['folds']} folds, {r['cases']} cases"
            if "folds" in r
            else f"{r['cases']} {_unit(what)}{'s' * (r['cases'] != 1)}"
        )
        dice = _dice(r, what == "chaos")
        if "mirrored" in r:
            dice += f" plain, {_dice(r['mirrored'], what == 'chaos')} mirrored"
        if r.get("validation_by_minutes"):
            dice += "; validation " + ", ".join(
                f"{value:.3f} after {minutes:.0f} min"
                for minutes, value in _few(r["validation_by_minutes"], 5)
            )
        rows.append(
            f"| {what}, {r['budget']}, {of} | {dice} | {_nnunet(folder, what, r['budget'])} | "
            f"`{r['command']}` |"
        )
    return "## Accuracy after a given training time\n\n" + "\n".join(rows) + "\n"


def _unit(what: str) -> str:
    return "slice" if what == "chaos" else "held-out case"


def _nnunet(folder: Path, what: str, budget: str) -> str:
    """nnU-Net's Dice after the same time, as it plans for itself and tuned; "–" if not measured."""
    found = []
    for suffix, how in (("", "with its own plan"), ("_tuned", "tuned")):
        path = folder / f"train_nnunet_{what}_{budget}{suffix}.json"
        if path.is_file():
            r = json.loads(path.read_text(encoding="utf-8"))
            ways = ", ".join(
                f"{r[way]['means']['dice_mean_per_case']:.3f} {way}"
                for way in ("plain", "mirrored")
                if way in r
            )
            found.append(
                f"nnU-Net {how}, {r['plain']['cases']} held-out cases: {ways} ({r['steps']} steps "
                f"of {r['training_s'] / r['steps']:.1f} s, batch {r['batch']}, patch "
                f"{'x'.join(map(str, r['patch']))})"
            )
    return "; ".join(found) or "–"


def _dice(scores: dict[str, Any], by_slice: bool) -> str:
    """The mean Dice over folds or cases; for slices, the mean per slice and the pooled Dice."""
    if "mean" in scores:
        return f"{scores['mean']:.3f}"
    means = scores["means"]
    if not by_slice:
        return f"{means['dice_mean_per_case']:.3f}"
    pooled = next(value for key, value in means.items() if key.startswith("dice_pooled"))
    return f"{means['dice_mean_per_slice']:.3f}, pooled {pooled:.3f}"


def _few(points: list[Any], count: int) -> list[Any]:
    """At most ``count`` of the points, evenly spaced and including the last one."""
    return points[:: -max(1, -(-len(points) // count))][::-1]


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"**{value:.1f}**"


# Record -> the function that yields its lines; sections follow this order.
LINES: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
    one.__name__: one
    for one in (
        forward,
        start_up,
        predict_memory,
        restore_memory,
        preparing,
        volume_files,
        patch_reads,
        augmentation,
        augmentation_effects,
        prepare_cohort,
        step_time,
        wait_policy,
        loss_speed,
        surface_distances,
        metric_speed,
    )
} | dict.fromkeys(("eight_bits_hippocampus", "eight_bits_own"), eight_bits)


def page(folder: Path) -> str:
    """The page of one machine; records that are not in ``folder`` have no section."""
    parts, machine = [], {}
    for name, lines in LINES.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        machine = {**machine, **record["machine"]}
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        rows = [
            f"## {title}\n\n`{record['command']}`\n",
            "| what | delineate | compared with | ratio |",
            "|---|---|---|---|",
            *(f"| {' | '.join(line)} |" for line in lines(record)),
        ]
        parts.append("\n".join(rows) + "\n")
    if any(folder.glob("train_*.json")):
        parts.append(accuracy(folder))
        trained = next(folder.glob("train_*.json"))
        machine = {**json.loads(trained.read_text(encoding="utf-8"))["machine"], **machine}
    versions = "".join(f", {n} {v}" for n, v in machine.get("versions", {}).items())
    head = HEAD.format(**machine | {"folder": folder.name, "versions": versions})
    return "\n".join([head, *parts])


def main() -> None:
    """Write the page of every machine with records."""
    PAGES.mkdir(exist_ok=True)
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        target = PAGES / f"{folder.name}.md"
        target.write_text(page(folder), encoding="utf-8")
        print(f"{target} written")


if __name__ == "__main__":
    main()

"""Writes one page per machine, ``performance/MACHINE.md``, from the records in
``results/MACHINE/``: for each line our figure, the peer's and their ratio; for each section the
command and the commit.

    python benchmarks/performance_page.py

Figures are medians; behind them are the quartiles of all runs, and behind a ratio those of the
ratios of runs of the same turn. Packages that were not installed are named, and so are comparisons
without a record. A page has figures of one machine only; docs/reference/performance.md links to all
pages.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGES = Path(__file__).parents[1] / "docs" / "performance"
# The comparisons of `make benchmarks-all`; those without a record are named on a page.
ROWS = (
    *("start_up", "forward", "step_time", "metric_speed", "restore_memory", "preparing"),
    *("dicom_speed", "volume_files", "loss_speed", "augmentation", "busy_training"),
    *("whole_ct", "trained_ct", "predict_memory", "prepare_cohort", "patch_reads"),
    "surface_distances",
)
Line = tuple[str, str, str, str]  # what, ours, the peer's, ratio

HEAD = """# Performance on {processor}, {cores} cores

Written by `python benchmarks/performance_page.py` from `benchmarks/results/{folder}/`. Do not edit
it by hand. How it is measured: [performance](../reference/performance.md).

Python {python}{versions}.

Medians, with the quartiles of all runs in brackets; a ratio above 1 means that delineate is faster.
Memory is in addition to the input, or that of all processes where a whole process is measured.
"""
TITLES = {
    "forward": "Forward pass",
    "start_up": "Start-up",
    "predict_memory": "Memory of a prediction",
    "restore_memory": "Memory of resampling back",
    "preparing": "Preprocessing of a scan",
    "prepare_cohort": "Preprocessing of a cohort",
    "whole_ct": "A whole CT",
    "trained_ct": "A whole CT, trained model",
    "dicom_speed": "Reading DICOM",
    "busy_training": "Training next to other processes",
    "eight_bits_hippocampus": "INT8 inference, nnU-Net's hippocampus model",
    "eight_bits_own": "INT8 inference, our hippocampus model",
}


def forward(r: dict[str, Any]) -> Iterator[Line]:
    """Ours in its default precision against torch and OpenVINO, then our other precisions."""
    for size, ways in r["windows"].items():
        for name in ways:
            if name == "delineate":
                continue
            mine = "delineate, int8" if name.startswith("delineate, int8") else "delineate"
            other = "torch float32, as nnU-Net" if name.startswith("delineate") else name
            ours, peer = ways[name if name.startswith("delineate") else mine], ways[other]
            agree = (
                f"; same class in {100 * ours['voxels of the same class']:.3f} % of voxels"
                if "voxels of the same class" in ours
                else ""
            )
            kind = "int8" if mine.endswith("int8") else ours.get("precision", "")
            what = f"one {size} window, nnU-Net's plain U-Net, {kind}{agree}"
            title = f"{other}, {peer['precision']}" if other == "torch tuned" else other
            yield _line(what, ours, _before(r) if other == "before" else title, peer)


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
    peers = {
        "as installed": "nnUNetv2_predict as installed",
        "tuned": "nnUNetv2_predict with -npp 1 -nps 1",
        "before": _before(r),
    }
    for what, ways in r.items():
        if isinstance(ways, dict) and "graph kept" in ways:
            for mine, title in ours.items():
                for way, name in peers.items():
                    if way in ways and (way != "before" or mine == "graph kept"):
                        yield _line(
                            f"predict, whole process, hippocampus: {what}; {title}",
                            ways[mine],
                            name,
                            ways[way],
                        )
                if not set(peers) & set(ways):
                    yield (
                        f"predict, whole process, hippocampus: {what}; {title}",
                        _cell(ways[mine]),
                        "–",
                        "–",
                    )


def whole_ct(r: dict[str, Any]) -> Iterator[Line]:
    """The imported model against nnU-Net, OpenVINO alone and before; our own by overlap."""
    rows, alone = r["rows"], r["OpenVINO alone, one window"]
    count = r["windows"]["overlap 0.5"]
    limit = {"seconds": 1.25 * count * alone["work_s"] + 4}
    names = {"nnU-Net tuned": "nnUNetv2_predict with -npp 1 -nps 1", "imported, before": _before(r)}
    for mine in ("imported, graph kept", "imported, first use"):
        if mine not in rows:
            continue
        what = f"CT of {r['scan']}, {count} windows, {mine.replace('imported', 'imported nnU-Net')}"
        for way, name in names.items():
            if way in rows:
                yield _line(what, rows[mine], name, rows[way])
        title = f"1.25 x {count} windows x {alone['work_s']:.2f} s of OpenVINO alone + 4 s"
        yield _line(what, rows[mine], title, limit)
    for mine, ours in rows.items():
        if mine.startswith("own, overlap"):
            windows = r["windows"][mine.removeprefix("own, ")]
            what = f"CT of {r['scan']}, {mine.replace('own', 'own model')}, {windows} windows"
            if "own, before" in rows:
                yield _line(what, ours, f"{_before(r)}, overlap 0.5", rows["own, before"])
            else:
                yield what, _cell(ours), "–", "–"


def trained_ct(r: dict[str, Any]) -> Iterator[Line]:
    """A trained model as `train` chose and in INT8, against its full grid and before."""
    names = {"full grid": "the same model, overlap 0.5 and all windows"}
    names |= {"before": f"{_before(r)}, overlap 0.5, same weights"} if "before" in r else {}
    for mine in ("as chosen", "as chosen, INT8", "overlap 0.25, INT8"):
        count = r["windows"][mine]
        run = f"{count['run']} of {count['all']} windows" if count else "all windows"
        equal, truth = r["dice with full grid"][mine], r["dice"]
        what = (
            f"CT of {r['scan']}, liver of deformed copies, {mine}, {run}: Dice {truth[mine]:.4f} "
            f"(full grid {truth['full grid']:.4f}), and {equal:.4f} between both masks"
        )
        for way, name in names.items():
            yield _line(what, r["rows"][mine], name, r["rows"][way])


def restore_memory(r: dict[str, Any]) -> Iterator[Line]:
    for labels, row in r["labels"].items():
        what = (
            f"class scores of {labels} classes resampled back to {r['scan']}; memory in addition "
            f"to the result, of which one slab {row['slab_mb'] / 1e3:.2f} GB"
        )
        peers = {}
        if labels == next(iter(r["labels"])) and "peer" in r:
            peers[r["peer"]["name"]] = r["peer"]
        if labels in r.get("labels before", {}):
            peers[_before(r)] = r["labels before"][labels]
        for name, peer in peers.items():
            yield _line(what, row, name, peer)
        if not peers:
            yield what, _cell(row), "–", "–"


def preparing(r: dict[str, Any]) -> Iterator[Line]:
    """The same voxels on both sides, then ours as it runs, with its crop."""
    for mine in ("delineate", "delineate, with its crop"):
        ours = r["ways"][mine]
        for name, way in r["ways"].items():
            if name.startswith("delineate") or (name == "before" and mine != "delineate"):
                continue
            error = (
                f"; relative error {ours['error']:.3f} against {way['error']:.3f}"
                if "error" in way and "error" in ours
                else ""
            )
            same = "same voxels" if mine == "delineate" else "ours crops to the body"
            yield _line(
                f"a CT of 512x512x300 resampled to 1.5 mm, {same}{error}",
                ours,
                _before(r) if name == "before" else name,
                way,
            )
    dice = ", ".join(
        f"{name} {value:.3f}" for name, value in r["labels there and back, Dice"].items()
    )
    yield f"labels resampled to 1.5 mm and back, Dice: {dice}", "–", "–", "–"


def volume_files(r: dict[str, Any]) -> Iterator[Line]:
    for what, ways in (("reading", r["read"]), ("writing", r["write"])):
        for peer in ("nibabel", "SimpleITK"):
            yield _line(f"{what} a .nii.gz of {r['file']}", ways["delineate"], peer, ways[peer])


def dicom_speed(r: dict[str, Any]) -> Iterator[Line]:
    for name, ours, syntax in (
        ("plain", "delineate", "not compressed"),
        *((one, "all cores", one) for one in ("JPEG 2000", "JPEG-LS", "RLE")),
    ):
        for peer, way in r[name].items():
            if peer not in (ours, "one core"):
                yield _line(
                    f"reading a DICOM series of 512x512, {r[name][ours]['volume_mb']:.0f} MB of "
                    f"voxels, {syntax}; peak memory",
                    r[name][ours],
                    _before(r) if peer == "before" else peer,
                    way,
                )
    found = r["finding"]
    yield f"finding the series in {found['files']} DICOM files", _cell(found), "–", "–"


def busy_training(r: dict[str, Any]) -> Iterator[Line]:
    """Steps a minute, and the share of the idle machine's; not seconds."""
    for name, row in r["rows"].items():
        cells = []
        for side in (row, row.get("nnU-Net")):
            if side:
                steps = statistics.median(side["steps a minute"])
                share = f"{100 * side['share of idle']:.0f} % of the idle machine's"
                cells.append(f"{steps:.0f} steps a minute, {share} (runs: {_runs(side)})")
        peer = f"nnU-Net: {cells[1]}" if len(cells) > 1 else "–"
        busy = (
            "no busy process" if name == "0 busy" else f"{name} process{'es' * (name > '1 busy')}"
        )
        yield f"training of {r['data']}, {busy}", cells[0], peer, "–"


def _runs(side: dict[str, Any]) -> str:
    return ", ".join(f"{one:.0f}" for one in side["steps a minute"])


def augmentation(r: dict[str, Any]) -> Iterator[Line]:
    for how in ("default", "every effect"):
        ours = r[how]["delineate"]
        for name, row in r[how].items():
            if name != "delineate":
                what = (
                    "augmented patches of 128x128x128 per second, all cores, "
                    f"{'default probabilities' if how == 'default' else 'all probabilities 1'}"
                )
                rate = ours["patches_a_second"] / row["patches_a_second"]
                pairs = [
                    a / b for a, b in zip(ours.get("each", ()), row.get("each", ()), strict=False)
                ]
                yield (
                    what,
                    f"{ours['patches_a_second']:.1f}{_quartiles(ours.get('each', ()))}",
                    f"{_before(r) if name == 'before' else name}: "
                    f"{row['patches_a_second']:.1f}{_quartiles(row.get('each', ()))}",
                    f"**{rate:.1f}**{_quartiles(pairs)}",
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
    what = f"preprocessing of {r['cases']} hippocampus cases, whole process"
    if "nnU-Net" in r:
        yield _line(what, r["delineate"], "nnU-Net's preprocessing", r["nnU-Net"])
    else:
        yield what, _cell(r["delineate"]), "–", "–"


def step_time(r: dict[str, Any]) -> Iterator[Line]:
    for row in r["steps"]:
        what = (
            f"step of the training loop, nnU-Net's 3-D network, patch {row['patch']}, batch "
            f"{row['batch']}"
        )
        peers = {}
        for way in ("as installed", "tuned"):
            if way in row:
                compiled = ", compiled" * bool(row[way].get("compiled"))
                kind = row[way].get("precision", "float32")
                how = kind if way == "as installed" else f"{kind}, channels last{compiled}"
                peers[f"nnU-Net's step {way} ({how})"] = row[way]
        if "before" in row:
            peers[_before(r)] = row["before"]
        for name, peer in peers.items():
            yield _line(what, row["ours"], name, peer)
        if not peers:
            yield what, _cell(row["ours"]), "–", "–"


def loss_speed(r: dict[str, Any]) -> Iterator[Line]:
    for row in r["losses"]:
        for name in ("nnU-Net", "MONAI"):
            if name in row:
                what = f"Dice and cross-entropy loss with its gradient, logits {row['scores']}"
                yield _line(what, row["delineate"], name, row[name])


def surface_distances(r: dict[str, Any]) -> Iterator[Line]:
    for pair in ("liver", "scattered"):
        for name, row in r[pair].items():
            if "ours_times_as_fast" in row:
                ours = r[pair][
                    "delineate, surfels" if name == "surface-distance" else "delineate, voxels"
                ]
                yield _line(
                    f"HD95, ASSD and surface Dice of two masks of {r['shape']} ({pair}), same "
                    f"definitions; largest difference {row['largest_difference']:g}",
                    ours,
                    name,
                    row,
                )


def metric_speed(r: dict[str, Any]) -> Iterator[Line]:
    for count in ("3 structures", "41 structures"):
        for name in ("SimpleITK", "numpy.bincount", "MONAI"):
            if f"overlap, {name}" in r[count]:
                yield _line(
                    f"Dice of {count}, {r['shape']}, computed as in `evaluate`",
                    r[count]["confusion, delineate"],
                    name,
                    r[count][f"overlap, {name}"],
                )
    distance = "boundary IoU, 2 mm, SciPy's distance transform in the same box"
    for mask in ("liver", "vessels"):
        for what, ours, name, peer in (
            (
                "boundary IoU",
                "boundary IoU, 2 mm, delineate",
                "SciPy's distance transform",
                distance,
            ),
            (
                "clDice",
                "clDice, delineate",
                "scikit-image's skeleton",
                "clDice, scikit-image in the box",
            ),
        ):
            if ours in r[mask] and peer in r[mask]:
                yield _line(f"{what} of {mask}", r[mask][ours], name, r[mask][peer])


def predict_memory(r: dict[str, Any]) -> Iterator[Line]:
    for name, row in r["labels"].items():
        yield (
            f"predict, 512x512x300, {name} labels, whole process",
            f"{_clock(row['seconds'])}, {row['peak_mb'] / 1e3:.2f} GB",
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


# ---- figures of a record ----


def _line(what: str, ours: dict[str, Any], name: str, peer: dict[str, Any]) -> Line:
    """Two figures and their ratio: median and quartiles over pairs of runs, where each was kept,
    else that of the medians.
    """
    pairs = [b / a for a, b in zip(_each(ours), _each(peer), strict=False)]
    ratio = statistics.median(pairs) if pairs else _median(peer) / _median(ours)
    return what, _cell(ours), f"{name}: {_cell(peer)}", f"**{ratio:.2f}**{_quartiles(pairs)}"


def _median(way: dict[str, Any]) -> float:
    """Seconds: of the work itself, or of a whole process."""
    kinds = ("restore_s", "median_s", "work_s", "seconds")
    return float(next(way[kind] for kind in kinds if kind in way))


def _each(way: dict[str, Any]) -> list[float]:
    return list(way.get("each_s", ()))


def _cell(way: dict[str, Any]) -> str:
    each = _each(way)
    spread = f" ({_clock(_ends(each)[0])} to {_clock(_ends(each)[1])})" if len(each) > 1 else ""
    kinds = ("mb", "beyond_input_mb") if "median_s" not in way else ("peak_mb",)
    memory = next((f", {way[kind] / 1e3:.2f} GB" for kind in kinds if kind in way), "")
    return f"{_clock(_median(way))}{spread}{memory}"


def _quartiles(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    low, high = _ends(values)
    return f" ({low:.2f} to {high:.2f})"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    low, _, high = statistics.quantiles(values, method="inclusive")
    return low, high


def _clock(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1e3 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"
    return f"{seconds:.{2 if seconds < 10 else 1 if seconds < 100 else 0}f} s"


def _before(r: dict[str, Any]) -> str:
    return f"delineate at {r.get('before', 'an earlier commit')}"


# Record -> the function that yields its lines; sections follow this order.
LINES: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
    one.__name__: one
    for one in (
        forward,
        start_up,
        whole_ct,
        trained_ct,
        predict_memory,
        restore_memory,
        preparing,
        volume_files,
        dicom_speed,
        patch_reads,
        augmentation,
        augmentation_effects,
        prepare_cohort,
        step_time,
        busy_training,
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
        command = f"`{record['command']}`"
        if record.get("commit"):
            command += f", commit {record['commit']}"
        rows = [
            f"## {title}\n\n{command}\n",
            "| what | delineate | compared with | ratio |",
            "|---|---|---|---|",
            *(f"| {' | '.join(line)} |" for line in lines(record)),
            *(f"| – | – | {one}: not installed | – |" for one in record.get("absent", ())),
        ]
        parts.append("\n".join(rows) + "\n")
    if any(folder.glob("train_*.json")):
        parts.append(accuracy(folder))
        trained = next(folder.glob("train_*.json"))
        machine = {**json.loads(trained.read_text(encoding="utf-8"))["machine"], **machine}
    lacking = [f"`{name}.py`" for name in ROWS if not (folder / f"{name}.json").is_file()]
    if lacking:
        parts.append(f"## Not measured on this machine\n\n{', '.join(lacking)}\n")
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

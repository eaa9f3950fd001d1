"""The laws of the package: import order, cost of a start, size of functions, length of lines."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "delineate"
# From the ground up: a package may import only what stands before it. The order is that of
# docs/concepts/architecture.md.
LAYERS = (
    "core",
    "extras",
    "extend",
    "preprocessing",
    "formats",
    "execution",
    "cohorts",
    "metrics",
    "networks",
    "trust",
    "inference",
    "planning",
    "training",
    "evaluation",
    "reporting",
    "viewer",
    "interop",
    "commands",
    "cli",
    "api",
)
MODULES = {
    ".".join(p.relative_to(SOURCE).with_suffix("").parts): p for p in sorted(SOURCE.rglob("*.py"))
}


def imports(name: str, text: str) -> Iterator[str]:
    """Modules of delineate that the text of module ``name`` imports: inside functions and under
    TYPE_CHECKING too.
    """
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif (node.module or "").split(".")[0] == "delineate":
                base = []
            else:
                continue
            inner = (
                (node.module or "").split(".") if node.level else (node.module or "").split(".")[1:]
            )
            for alias in node.names:
                places = (
                    [*base, *inner, alias.name],
                    [*base, *inner, alias.name, "__init__"],
                    [*base, *inner],
                    [*base, *inner, "__init__"],
                )
                yield next(
                    (
                        ".".join(filter(None, place))
                        for place in places
                        if ".".join(filter(None, place)) in MODULES
                    ),
                    "__init__",
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                inner = alias.name.split(".")
                if inner[0] == "delineate" and len(inner) > 1:
                    yield (
                        ".".join(inner[1:])
                        if ".".join(inner[1:]) in MODULES
                        else ".".join([*inner[1:], "__init__"])
                    )


def upward(name: str, text: str) -> set[str]:
    """What the module imports that stands above it."""
    mine = name.split(".")[0]
    if mine not in LAYERS:
        return set()
    return {
        other
        for other in imports(name, text)
        if other.split(".")[0] in LAYERS and LAYERS.index(other.split(".")[0]) > LAYERS.index(mine)
    }


def test_every_package_has_its_place():
    assert {name.split(".")[0] for name in MODULES} - {"__init__", "__main__"} <= set(LAYERS)
    crowded = {
        folder: n
        for folder in {p.parent for p in MODULES.values()}
        if (n := len(list(folder.glob("*.py")))) > 18
    }
    assert not crowded, crowded


def test_no_two_test_modules_have_one_name():
    # pytest imports a test module by its file's name alone, unless its folder is a package.
    tests = Path(__file__).parent
    names = Counter(p.name for p in tests.rglob("test_*.py") if p.parent != tests)
    assert not [name for name, n in names.items() if n > 1]


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_run_down_the_list(name):
    assert not upward(name, MODULES[name].read_text()), "imports what stands above it"


@pytest.mark.parametrize(
    "layer",
    [layer for layer in LAYERS[:-1] if any(name.startswith(f"{layer}.") for name in MODULES)],
)
@pytest.mark.parametrize(
    "how",
    [
        "from ..api.model import load",
        "def f():\n    from ..api import model",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..api.model import Model",
        "import delineate.api.model",
        "from delineate.api import model",
    ],
)
def test_an_import_upwards_is_found_wherever_it_is_planted(layer, how):
    name = next(name for name in MODULES if name.startswith(f"{layer}.") and name.count(".") == 1)
    assert upward(name, f"{MODULES[name].read_text()}\n{how}\n") == {"api.model"}


def test_no_module_reaches_itself():
    graph = {
        name: set(imports(name, path.read_text())) - {name}
        for name, path in MODULES.items()
        if name != "__init__"
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_only_the_training_command_and_the_patches_for_torch_import_training():
    users = {
        name
        for name, path in MODULES.items()
        if any(other.startswith("training.") for other in imports(name, path.read_text()))
    }
    others = {name for name in users if not name.startswith("training.")}
    assert others == {"commands.train.train", "api.patches"}


def test_import_is_quick_and_loads_no_torch():
    code = (
        "import delineate, sys; delineate.Volume; delineate.Grid; assert 'torch' not in "
        "sys.modules and 'matplotlib' not in sys.modules"
    )
    seconds = []
    for _ in range(3):
        began = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        ended = os.times()
        # Processor time, which hardly depends on what else the machine does.
        seconds.append(
            ended.children_user
            - began.children_user
            + ended.children_system
            - began.children_system
        )
    assert min(seconds) < 3  # generous; benchmarks measure it


def test_plans_and_bundles_name_no_code():
    for name in ("plan", "bundle"):
        text = (SOURCE / "core" / f"{name}.py").read_text()
        assert "importlib" not in text and "eval(" not in text and "pickle." not in text


def test_no_pickle_is_loaded_anywhere():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        # NnU-Net's checkpoints are pickles: of them, only data is read.
        if path.name == "nnunet.py":
            assert text.count("torch.load(") == text.count("weights_only=True") == 1
            text = text.replace("torch.load(", "")
        assert (
            "import pickle" not in text
            and "torch.load(" not in text
            and "allow_pickle=True" not in text
        ), path


# ---- size ----

ROOT = SOURCE.parents[1]
WRITTEN = [
    path
    for folder in ("src", "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not any(part.startswith("schema_") for part in path.parts)  # scripts for older versions
]
MOST_LINES = 60
MOST_BRANCHES = 20
# A network is one thing, read from top to bottom; so is the training loop.
LONG_BY_NATURE = ("networks.", "training.loop")
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert)


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def complexity(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """1, and 1 for each branch, each further operand of "and" and "or", and each comprehension."""
    count = 1
    for node in ast.walk(function):
        count += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        elif isinstance(node, ast.match_case):
            count += 1
    return count


def test_functions_are_short_and_simple():
    found = [
        f"{name}.{one.name}: {length(one)} lines, complexity {complexity(one)}"
        for name, path in MODULES.items()
        for one in functions(path.read_text())
        if (length(one) > MOST_LINES and not name.startswith(LONG_BY_NATURE))
        or complexity(one) > MOST_BRANCHES
    ]
    assert not found, "\n".join(found)


def test_a_long_and_a_winding_function_are_found():
    long = "def f():\n" + "    g()\n" * MOST_LINES
    winding = "def f(a):\n" + "    if a and a:\n        g()\n" * 10
    (first,), (second,) = functions(long), functions(winding)
    assert (length(first), complexity(first)) == (MOST_LINES + 1, 1)
    assert (length(second), complexity(second)) == (21, 21)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_at_most_100_characters_and_no_formatter_is_switched_off(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [number for number, line in enumerate(lines, 1) if len(line) > 100]
    switched_off = re.compile(r"#\s*(fmt:\s*(skip|off)|ruff:\s*noqa|yapf)")
    assert not [number for number, line in enumerate(lines, 1) if switched_off.search(line)]


POWERS = {2**n for n in range(64)}  # sizes of blocks
# Published systems state their own figures, even where two agree.
STATE_THEIR_OWN = "planning.recipes."


def telling(node: ast.expr) -> str:
    """The value of a constant that two modules do not state alike by chance."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ""
    if isinstance(value, int | float):
        digits = re.sub(r"e.*|\D", "", repr(value)).strip("0")
        return str(value) if len(digits) > 2 and value not in POWERS else ""
    return repr(value) if value else ""


def constants(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of the telling constants of a module; texts and tables have no name, since
    another name does not make them another constant.
    """
    for node in ast.parse(text).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        is_named = isinstance(target, ast.Name) and target.id.isupper() and node.value is not None
        if is_named and (value := telling(node.value)):
            yield "" if value[0] in "'{" else target.id, value


def test_one_constant_stands_in_one_place():
    found = defaultdict(list)
    for name, path in MODULES.items():
        if not name.startswith(STATE_THEIR_OWN):
            for constant in constants(path.read_text()):
                found[constant].append(name)
    assert not {one: names for one, names in found.items() if len(names) > 1}
    assert len(found) > 200


@pytest.mark.parametrize("value", ["'foreground'", "{1: 'liver'}", "1.4826", "(0.95, 0.5)"])
def test_a_telling_constant_is_found(value):
    [(name, found)] = constants(f"A: Any = {value}\nB = 64\nC = 0.05\n_d = 'small'\n")
    assert (name, found) == ("" if value[0] in "'{" else "A", value)


# Modules that write files by themselves, and why they may.
WRITERS = {
    "core.atomic": "is the one writer",
    "execution.claims": "a claim is a file that only one process can make",
    "cohorts.public.download": "a transfer that is continued where it stopped",
    "formats.dicom.remote.spool": "a file is named after its content, when it is whole",
    "formats.disk": "writes to the temporary name of the one writer",
    "formats.nrrd": "writes to the temporary name of the one writer",
    "inference.planes": "class scores in a temporary folder, mapped into memory",
    "reporting.pictures": "writes to the temporary name of the one writer",
}
_WRITING_MODE = re.compile(r"[rbt]*[wax+][rbt+]*")


def writes(text: str) -> Iterator[str]:
    """Calls that write, move or rename a file."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        writer = name.endswith((".write_text", ".write_bytes")) and not name.startswith("atomic.")
        if writer or name in ("os.replace", "os.rename", "shutil.move", "os.link"):
            yield name
        elif name == "open" or name.endswith(".open"):
            given = [*node.args[:2], *(k.value for k in node.keywords if k.arg == "mode")]
            modes = [a.value for a in given if isinstance(a, ast.Constant)]
            if any(isinstance(m, str) and _WRITING_MODE.fullmatch(m) for m in modes):
                yield name


def test_one_module_writes_files():
    found = {name: calls for name in MODULES if (calls := set(writes(MODULES[name].read_text())))}
    assert set(found) == set(WRITERS), found


@pytest.mark.parametrize(
    "call",
    ["path.write_text('a')", "open(path, 'w')", "path.open('ab')", "os.replace(a, b)"],
)
def test_a_write_is_found_wherever_it_is_planted(call):
    assert list(writes(f"def f():\n    with g():\n        {call}\n"))


def test_one_module_parses_json_and_yaml():
    parsing = re.compile(r"\b(json\.loads?|yaml\.\w*load\w*)\(")
    found = [name for name in MODULES if parsing.search(MODULES[name].read_text())]
    assert found == ["core.inputs"]

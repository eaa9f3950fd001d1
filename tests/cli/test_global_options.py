"""Global options, defaults from a file, exit codes and completion."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from delineate.cli import command_line, configuration
from delineate.cli.command_line import main
from delineate.commands import recipes, trial_data
from delineate.core.errors import BundleError

GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1" / "finished" / "m.model"


@pytest.fixture
def called(monkeypatch, capsys, tmp_path):
    """Calls the command line in an empty folder; gives the exit code and both outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["delineate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def small_phantoms(monkeypatch):
    """Phantoms here serve as work that reports its progress."""
    small = partial(trial_data.make_cohort, size=(16, 4))
    monkeypatch.setattr(trial_data, "make_cohort", small)


# ---- quiet, verbose, log ----


def test_quiet_prints_only_results_and_errors(called):
    code, out, err = called("phantom", "c", "--patients", "1", "--format", "nifti")
    assert code == 0 and "phantom: 100 %" in err
    code, out, err = called("-q", "phantom", "d", "--patients", "1", "--format", "nifti")
    assert (code, err) == (0, "")
    code, out, err = called("-q", "recipes")
    assert "brats-vnet" in out and not err
    code, out, err = called("-q", "info", "nothing.nii.gz")
    assert (code, out) == (2, "") and err.startswith("error: nothing.nii.gz: ")
    code, _, err = called("-q", "-v", "recipes")
    assert code == 2 and "exclude each other" in err


def test_the_log_has_everything_with_times(called):
    words = ("--log", "logs/run.log")
    assert called(*words, "-q", "phantom", "c", "--patients", "1", "--format", "nifti")[0] == 0
    assert called(*words, "recipes")[0] == 0
    assert called(*words, "info", "nothing")[0] == 2
    lines = Path("logs/run.log").read_text().splitlines()
    times = [line for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line)]
    said = "\n".join(times)
    assert "INFO phantom: 100 %" in said and "ERROR error: nothing: " in said
    assert any("brats-vnet" in line for line in lines)
    Path("file").touch()
    code, _, err = called("--log", "file/x.log", "recipes")
    assert code == 2 and "file/x.log: cannot be written" in err


def test_a_log_in_json_has_an_event_for_every_case(called):
    words = ("--log-format", "json")
    called("-q", "phantom", "c", "--patients", "2", "--format", "nifti")
    image = sorted(Path("c").rglob("*.nii.gz"))[0]
    image.write_bytes(b"no image")
    called(*words, "--log", "a.log", "check", "c", "-o", "k")
    lines = [json.loads(line) for line in Path("a.log").read_text().splitlines()]
    assert all(line.keys() >= {"time", "level", "event", "message"} for line in lines)
    cases = [line for line in lines if line["event"] == "case"]
    assert {line["case"] for line in cases} == {one.name[:-7] for one in Path("c/images").iterdir()}
    assert all(line["state"] == "done" and line["seconds"] >= 0 for line in cases)
    assert {"debug", "progress"} <= {line["event"] for line in lines}
    # Without a file, these lines are all that is printed on standard error.
    code, out, err = called(*words, "info", "nothing")
    (line,) = map(json.loads, err.splitlines())
    assert (code, out, line["level"], line["event"]) == (2, "", "error", "error")
    assert line["message"].startswith("error: nothing: ")
    code, out, err = called(*words, "-q", "recipes")
    assert "brats-vnet" in out and not err
    assert called("--log-format", "xml", "recipes")[0] == 2


def test_verbose_prints_debug_lines(called):
    Path("delineate.toml").write_text('[all]\ndevice = "cpu"\n')
    assert "debug: " not in called("recipes")[2]
    assert "debug: default from" in called("-v", "benchmark", "--device", "tpu")[2]
    called("-q", "phantom", "c", "--patients", "2", "--format", "nifti")
    err = called("-v", "check", "c", "-o", "k")[2]
    for said in ("debug: layout ", "debug: read ", "debug: wrote k/manifest.jsonl"):
        assert said in err
    code, _, err = called("benchmark", "--device", "tpu")
    assert code == 2 and "debug" not in err


def test_colours_follow_the_environment(monkeypatch, capsys):
    for name, value, coloured in (("FORCE_COLOR", "1", True), ("NO_COLOR", "1", False)):
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["delineate", "recipes"])
        with pytest.raises(SystemExit):
            main()
        assert ("\x1b[" in capsys.readouterr().out) is coloured
    command = [sys.executable, "-m", "delineate.cli", "--help"]
    for name, coloured in (("FORCE_COLOR", True), ("NO_COLOR", False)):
        environment = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR")}
        done = subprocess.run(command, env=environment | {name: "1"}, capture_output=True)
        assert (b"\x1b[" in done.stdout) is coloured, name


# ---- delineate.toml ----


def test_defaults_come_from_the_nearest_file(called, tmp_path, monkeypatch):
    Path("delineate.toml").write_text('[phantom]\npatients = 1\norgans = ["liver", "spleen"]\n')
    (tmp_path / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/er")
    code, _, err = called("-v", "phantom", "c", "--format", "nifti")
    assert code == 0 and "phantom: 100 %" in err and "patients = 1" in err
    # the command line wins
    assert "2 of 2" in called("phantom", "d", "--format", "nifti", "--patients", "2")[2]
    # other files, and none
    Path("other.toml").write_text('[all]\nformat = "nifti"\npatients = 3\n')
    assert "3 of 3" in called("--config", "other.toml", "phantom", "e")[2]
    code, _, err = called("--no-config", "phantom", "f", "--patients", "0")
    assert "default from" not in err
    assert called("--no-config", "--config", "other.toml", "recipes")[0] == 2


def test_the_users_folder_is_searched_last(called, tmp_path, monkeypatch):
    place = tmp_path / "user" / "delineate"
    place.mkdir(parents=True)
    (place / "delineate.toml").write_text("[phantom]\npatients = 1\n")
    monkeypatch.setattr(configuration.typer, "get_app_dir", lambda name: str(place))
    assert configuration.find() == place / "delineate.toml"
    Path("delineate.toml").touch()
    assert configuration.find() == Path.cwd() / "delineate.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]\nbudget = 1\n", "unknown [trian]; the nearest is train"),
        ("[train]\nbugdet = 1\n", "unknown bugdet in [train]; the nearest is budget"),
        ("[all]\ndevise = 1\n", "unknown devise in [all]; the nearest is device"),
        ("[train]\noverwrite = true\n", "unknown overwrite in [train]; the nearest is "),
        ("budget = 1\n", "unknown [budget]; the nearest is "),
        ("train = 1\n", "train must be in the section of a command"),
        ('[train]\nepochs = "many"\n', "epochs in [train]: "),
        ("[train]\nepochs = true\n", "epochs in [train] must be text, a number"),
        ("[predict]\nmirror = 1\n", "mirror in [predict] must be true or false, found 1"),
        ("[train\n", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(called, text, message):
    Path("delineate.toml").write_text(text)
    code, out, err = called("recipes")
    assert code == 2 and not out and len(err.splitlines()) == 1
    assert "delineate.toml: " in err and message in err


def test_a_value_that_the_option_refuses_names_the_file(called):
    Path("delineate.toml").write_text('[train]\nbudget = "soon"\n')
    code, _, err = called("train", ".", "-o", "m.model")
    assert code == 2 and "delineate.toml: --budget: a time is written like" in err
    code, _, err = called("train", ".", "-o", "m.model", "--budget", "later")
    assert code == 2 and err.startswith("error: --budget: a time is written like")


# ---- how a call ends ----


def test_an_unforeseen_error_is_one_sentence_and_a_file(called, monkeypatch):
    def broken() -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr(recipes, "table", broken)
    code, out, err = called("recipes")
    assert (code, out) == (70, "") and len(err.splitlines()) == 1
    assert "unforeseen ZeroDivisionError: by design; this is a fault of delineate" in err
    kept = Path(err.rstrip().rpartition(" ")[2])
    assert "in broken" in kept.read_text()
    kept.unlink()
    code, _, err = called("-v", "recipes")
    assert code == 70 and "in broken" in err and err.rstrip().endswith("its traceback is above")
    code, _, err = called("--log", "a.log", "recipes")
    assert code == 70 and err.rstrip().endswith(str(Path("a.log").resolve()))
    assert "in broken" in Path("a.log").read_text()


def test_a_model_that_cannot_be_used_has_its_own_code(called):
    Path("m.model").write_bytes(GOLDEN.read_bytes()[:-70] + b"x" * 70)
    code, _, err = called("info", "m.model")
    assert code == 3 and "changed or damaged" in err


@pytest.mark.parametrize(("error", "code"), [(BundleError("x"), 3), (KeyboardInterrupt(), 130)])
def test_exit_codes(called, monkeypatch, error, code):
    def ended() -> None:
        raise error

    monkeypatch.setattr(recipes, "table", ended)
    found, out, err = called("recipes")
    assert (found, out) == (code, "")
    assert err == {130: "stopped; finished work is kept\n", 3: "error: x\n"}[code]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_reader_that_ends_early_is_no_error():
    command = [sys.executable, "-m", "delineate", "recipes"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    assert running.wait(timeout=20) == 141 and not running.stderr.read()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_signals_end_the_work_and_give_their_code(tmp_path, name):
    code = (
        "import sys, time, delineate.cli.command_line as c; "
        "from delineate.commands import recipes; "
        "recipes.table = lambda: (print('ready', flush=True), time.sleep(60)); "
        "sys.argv = ['delineate', 'recipes']; c.main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout.readline() == "ready\n"
    running.send_signal(getattr(signal, name))
    _, err = running.communicate(timeout=20)
    assert running.returncode == 128 + getattr(signal, name)
    assert err == "stopped; finished work is kept\n"


# ---- completion ----


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("delineate train --recipe brats", {"brats-vnet", "brats-vnet-light"}),
        ("delineate check --layout nn", {"nnunet-raw"}),
        ("delineate predict --format n", {"nii.gz", "nii", "npz", "nrrd"}),
        ("delineate download decathlon-hi", {"decathlon-hippocampus"}),
        ("delineate evaluate --also l", {"lesions"}),
        ("delineate quan", {"quantise"}),
    ],
)
def test_shells_complete_names(monkeypatch, capsys, words, expected):
    monkeypatch.setenv("_DELINEATE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        command_line.app(prog_name="delineate")
    assert set(capsys.readouterr().out.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shell_has_a_script(shell):
    from typer.completion import get_completion_script

    text = get_completion_script(
        prog_name="delineate", complete_var="_DELINEATE_COMPLETE", shell=shell
    )
    assert "delineate" in text


def test_help_is_quick():
    code = (
        "import sys\nbefore = set(sys.modules)\nsys.argv = ['delineate', '--help']\n"
        "from delineate.cli.command_line import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'scipy', 'numpy', 'tomllib'} & (set(sys.modules) - before)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "[]\n" and "Usage" in done.stdout

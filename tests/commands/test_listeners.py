"""Listeners receive every line of the log; one that fails never stops a training."""

from __future__ import annotations

import pytest
from tests.plans import small_plan

from delineate.commands.train.listeners import Recorders, find_listeners
from delineate.core.errors import PartError, UsageError
from delineate.extend import FollowedRun, Listener

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

LINES = [
    {"step": 10, "epoch": 1.0, "loss": 0.5, "val_dice": {"liver": 0.25, "spleen": float("nan")}},
    {"step": 20, "epoch": 2.0, "loss": 0.25, "val_dice": {"liver": 0.75, "spleen": 0.5}},
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "liver.model.run" / "fold_0"
    folder.mkdir(parents=True)
    return FollowedRun(folder, "fold_0", tmp_path / "liver.model", small_plan())


def test_mlflow_keeps_settings_and_figures_and_continues_its_run(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the listener needs mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for line in LINES:  # the training is stopped after the first line
        recorders = Recorders(find_listeners(["mlflow"]), run, pytest.fail)
        recorders.add(line)
        recorders.close()
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_experiment_by_name("liver").experiment_id])
    assert len(found) == 1 and found[0].info.status == "FINISHED"
    history = client.get_metric_history(found[0].info.run_id, "val_dice/liver")
    assert [(one.step, one.value) for one in history] == [(10, 0.25), (20, 0.75)]
    assert len(client.get_metric_history(found[0].info.run_id, "val_dice/spleen")) == 1
    assert found[0].data.params["network.widths"] == "[8, 16, 16]"


def test_weights_and_biases_offline(run, monkeypatch):
    pytest.importorskip("wandb", reason="the listener needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    recorders = Recorders(find_listeners(["wandb"]), run, pytest.fail)
    recorders.add(LINES[0])
    recorders.close()
    assert list(run.folder.glob("wandb/offline-run-*/*.wandb"))


def test_a_listener_that_fails_is_dropped_with_one_message(run):
    class Broken:
        def __init__(self, run): ...

        def add(self, line):
            raise OSError("no connection")

        def close(self):
            pytest.fail("it was dropped")

    heard, messages = [], []

    class Good:
        def __init__(self, run): ...

        def add(self, line):
            heard.append(line["step"])

        def close(self):
            heard.append("closed")

    listeners = {"broken": Listener(Broken, "x"), "good": Listener(Good, "x")}
    recorders = Recorders(listeners, run, messages.append)
    for line in LINES:
        recorders.add(line)
    recorders.close()
    assert heard == [10, 20, "closed"]
    assert len(messages) == 1 and "broken failed" in messages[0] and "no connection" in messages[0]


def test_unknown_and_uninstalled_listeners_are_refused_before_a_training(run):
    with pytest.raises(PartError, match="did you mean tensorboard"):
        find_listeners(["tensorbord"])

    class Local:
        """A class that is given itself."""

    assert next(iter(find_listeners([Local]))).endswith("Local")
    from delineate.extend import listener

    listener("needs-it", definition="x", needs="not_there_at_all")(lambda run: None)
    with pytest.raises(UsageError, match="listener needs-it needs the package not_there_at_all"):
        find_listeners(["needs-it"])

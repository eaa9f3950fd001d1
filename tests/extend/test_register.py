"""Registers refuse incomplete parts, double names and failing code, each in one sentence."""

from __future__ import annotations

import pytest
from tests.plans import small_network, small_plan
from torch import nn

from delineate import extend
from delineate.commands.options import TrainOptions
from delineate.commands.train.planned import refuse_unfit_parts, with_loss
from delineate.commands.train.request import request_of
from delineate.core.errors import PartError, PlanError, UsageError
from delineate.core.plan import Network, Plan
from delineate.extend.registers import running


def test_a_part_cannot_be_forgotten():
    with pytest.raises(TypeError, match="definition"):
        extend.metric("m", unit="", better=extend.LOWER)
    with pytest.raises(TypeError, match="positional argument"):
        extend.Format(bool)
    with pytest.raises(TypeError, match="a layout is a Layout"):
        extend.LAYOUTS.add("l", print)
    with pytest.raises(TypeError, match="needs a writer and the endings"):
        extend.Format(bool, print, "x", (".x",), writes=(".x",))
    with pytest.raises(TypeError, match="a tier is one of"):
        extend.Layout(print, "x", "everywhere")


def test_a_name_is_not_used_twice():
    with pytest.raises(extend.PartError, match=r"there is a metric lesions already, from .*delin"):
        extend.metric("lesions", unit="", better=extend.LOWER, definition="x")(lambda *_: 0.0)


def test_a_name_with_another_meaning_is_refused():
    def names():
        return extend.Names(channels={"FLAIR": ["t1ce"]})

    with pytest.raises(extend.PartError, match="'t1ce' means T1 post-contrast already, not FLAIR"):
        extend.TERMS.add("wrong", extend.Terms(names, "x"))
    assert "wrong" not in extend.TERMS
    spleen = extend.Names(structures={"spleen": ["Leber"]})
    with pytest.raises(extend.PartError, match="'Leber' means liver already"):
        extend.TERMS.add("wrong", extend.Terms(lambda: spleen, "x"))


def test_failing_code_of_a_part_is_one_sentence(tmp_path):
    def broken(tree, folder):
        raise ValueError("no idea")

    extend.LAYOUTS.add("broken", extend.Layout(broken, "x", "on request"))
    with (
        pytest.raises(
            extend.PartError, match=r"layout broken from .* failed \(ValueError: no idea"
        ),
        running(extend.LAYOUTS, "broken"),
    ):
        extend.LAYOUTS["broken"].find(None, tmp_path)


def test_every_part_of_the_package_is_registered():
    for register in extend.REGISTERS:
        own = [name for name in register if register.is_own(name)]
        assert len(own) >= 3, register.noun
    assert set(Network.OWN_KINDS) <= set(extend.NETWORKS.names())


def test_a_function_or_class_is_named_in_the_request(tmp_path):
    """The first line of its text is its definition."""

    class Plain(nn.Module):
        """A plain network."""

    request = request_of(tmp_path, TrainOptions(network=Plain, loss="dice=2"))
    assert request.network.endswith("Plain") and request.loss == "dice=2"
    assert extend.NETWORKS[request.network].build is Plain
    assert extend.NETWORKS[request.network].definition == "A plain network."
    again = request_of(tmp_path, TrainOptions(network=Plain))
    assert again.network == request.network


def test_network_and_recipe_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="they exclude --network"):
        request_of(tmp_path, TrainOptions(network="unet", recipe="liver-ct-unet3d"))


def test_a_loss_term_is_added_with_its_weight():
    assert with_loss(small_plan(), "") == small_plan()
    assert with_loss(small_plan(), "focal").loss.custom == {"focal": 1.0}
    assert with_loss(small_plan(), "focal=0.5").loss.custom == {"focal": 0.5}
    for text in ("focal=much", "focal=-1"):
        with pytest.raises(UsageError, match=f"--loss is NAME or NAME=WEIGHT .* found '{text}'"):
            with_loss(small_plan(), text)


def test_a_plan_with_an_unknown_part_is_refused_by_name():
    with pytest.raises(PartError, match=r"unknown loss term 'dyce' \(did you mean dice\?\)"):
        refuse_unfit_parts(with_loss(small_plan(), "dyce"))
    wrong = small_plan(network=small_network(kind="unett"))
    with pytest.raises(PartError, match=r"unknown network 'unett' \(did you mean unet\?\)"):
        refuse_unfit_parts(wrong)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda net: nn.Conv3d(1, net.classes, 3), r"gives the shape \(1, 3, 14, 14, 14\)"),
        (lambda net: nn.Conv3d(2, net.classes, 3), r"fails on a patch .* \(RuntimeError: "),
        (lambda net: net.unknown, r"fails on a patch .* \(AttributeError: "),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_the_training(build, message):
    extend.NETWORKS.add("odd", extend.NetworkKind(build, "x"))
    with pytest.raises(PlanError, match=f"the network odd {message}"):
        refuse_unfit_parts(small_plan(network=small_network(kind="odd")))


def test_settings_belong_to_registered_kinds():
    with pytest.raises(ValueError, match="a unet has no settings"):
        small_network(settings={"a": 1})
    kept = small_plan(network=small_network(kind="odd", settings={"rates": [1, 2]}))
    assert Plan.from_json(kept.to_json()) == kept


def test_two_metrics_of_one_name_are_refused():
    from delineate.metrics.selection import MetricSelection

    extend.metric("dice", unit="", better=extend.HIGHER, definition="x")(lambda *_: 1.0)
    with pytest.raises(UsageError, match="two metrics are called dice"):
        MetricSelection.of(None, ["dice"])

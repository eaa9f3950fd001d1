from __future__ import annotations

import importlib.util
import math
import sys

import pytest
import torch
from torch.nn import functional

from delineate.core.plan import Loss
from delineate.extend import LOSSES
from delineate.training import losses

# Each term as a function of logits; every option that changes what is computed has a line of its
# own.
TERMS = {
    "dice": lambda x, t: losses.soft_dice(x.softmax(1), t),
    "dice of each sample": lambda x, t: losses.soft_dice(x.softmax(1), t, batch=False),
    "dice squared": lambda x, t: losses.soft_dice(x.softmax(1), t, squared=True),
    "dice with background": lambda x, t: losses.soft_dice(
        x.softmax(1), t, squared=True, batch=False, background=True
    ),
    "generalised dice": lambda x, t: losses.generalised_dice(x.softmax(1), t),
    "generalised dice of each sample": lambda x, t: losses.generalised_dice(
        x.softmax(1), t, batch=False, background=True
    ),
    "tversky": lambda x, t: losses.tversky(x.softmax(1), t),
    "tversky of each sample": lambda x, t: losses.tversky(
        x.softmax(1), t, 0.9, 0.2, batch=False, background=True
    ),
    "cross-entropy": losses.cross_entropy,
    "weighted logistic": lambda x, t: losses.cross_entropy(x, t, weights_for(x), boundary=2.0),
    "binary cross-entropy": losses.binary_cross_entropy,
    "binary cross-entropy weighted": lambda x, t: losses.binary_cross_entropy(
        x, t, weights_for(x), boundary=0.5
    ),
    "focal": losses.focal,
    "focal weighted": lambda x, t: losses.focal(x, t, 0.5, weights_for(x), boundary=1.5),
    "dice + cross-entropy": lambda x, t: losses.combined(x, t, Loss()),
    "dice + binary cross-entropy": lambda x, t: losses.combined(
        x, t, Loss(cross_entropy=0, binary_cross_entropy=0.5)
    ),
    "all": lambda x, t: losses.combined(x, t, everything(x)),
}
OVERLAPS = {
    name: term
    for name, term in TERMS.items()
    if name.split()[0] in ("dice", "generalised", "tversky") and "+" not in name
}
SHAPES = [(2, 3, 4, 3), (1, 4, 3, 2, 4), (2, 3, 2, 4, 3)]


def weights_for(x: torch.Tensor) -> tuple[float, ...]:
    return tuple(0.25 + n for n in range(x.shape[1]))


def everything(x: torch.Tensor) -> Loss:
    return Loss(
        dice=0.5,
        generalised_dice=0.7,
        tversky=0.3,
        cross_entropy=0.9,
        binary_cross_entropy=1.1,
        focal=1.3,
        squared=True,
        background=True,
        class_weights=weights_for(x),
        boundary=0.6,
    )


def scene(shape: tuple[int, ...], absent: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, L, *space) in double, and a truth in which every class occurs, or all but the
    last.
    """
    generator = torch.Generator().manual_seed(sum(shape))
    classes = shape[1] - absent
    target = torch.randint(0, classes, (shape[0], *shape[2:]), generator=generator)
    target.view(-1)[:classes] = torch.arange(classes)
    assert (target == shape[1] - 1).any() != absent
    return torch.randn(shape, dtype=torch.float64, generator=generator) * 2, target


def one_hot(target: torch.Tensor, classes: int) -> torch.Tensor:
    return functional.one_hot(target, classes).movedim(-1, 1)


# ---- gradients ----


def differences(term, x: torch.Tensor, target: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """The gradient by central differences, one logit at a time."""
    gradient, flat = torch.zeros_like(x), x.flatten()
    for n in range(len(flat)):
        moved = [flat.clone(), flat.clone()]
        moved[0][n] += step
        moved[1][n] -= step
        up, down = (float(term(m.view_as(x), target)) for m in moved)
        gradient.view(-1)[n] = (up - down) / (2 * step)
    return gradient


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TERMS)
def test_every_gradient_is_that_of_finite_differences(name, shape, absent):
    x, target = scene(shape, absent)
    x.requires_grad_()
    value = TERMS[name](x, target)
    assert value.dtype == torch.float64 and value.ndim == 0
    value.backward()
    assert x.grad.abs().max() > 1e-4
    assert torch.allclose(
        x.grad, differences(TERMS[name], x.detach(), target), rtol=1e-6, atol=1e-9
    )


def test_the_gradient_of_deep_supervision_is_that_of_finite_differences():
    fine, target = scene((2, 3, 6, 4))
    coarse = scene((2, 3, 3, 2))[0]

    def value(x, target):
        return losses.deeply_supervised([x[:, :, :, :4], x[:, :, :3, 4:]], target, everything(fine))

    x = torch.cat([fine, functional.pad(coarse, (0, 0, 0, 3))], 3).requires_grad_()
    value(x, target).backward()
    assert torch.allclose(x.grad, differences(value, x.detach(), target), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", TERMS)
def test_a_step_against_the_gradient_lowers_the_loss(name):
    x, target = scene((2, 3, 4, 3))
    x.requires_grad_()
    value = TERMS[name](x, target)
    value.backward()
    assert TERMS[name](x.detach() - 1e-2 * x.grad, target) < value


@pytest.mark.parametrize("name", TERMS)
def test_sums_are_the_same_as_on_a_gpu(name, monkeypatch):
    x, target = scene((2, 3, 4, 5), absent=True)
    values = []
    for way in (losses._counted, losses.class_after_class):
        monkeypatch.setattr(losses, "_counted", way)
        mine = x.clone().requires_grad_()
        value = TERMS[name](mine, target)
        value.backward()
        values.append((value.detach(), mine.grad))
    assert torch.allclose(values[0][0], values[1][0], rtol=1e-12) and torch.allclose(
        values[0][1], values[1][1], rtol=1e-9, atol=1e-12
    )


# ---- what a target may be ----


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64]
)
@pytest.mark.parametrize("name", TERMS)
def test_one_hot_and_indices_are_one_truth(name, dtype):
    x, target = scene((2, 4, 3, 2, 5), absent=True)
    assert torch.equal(TERMS[name](x, one_hot(target, 4).to(dtype)), TERMS[name](x, target))


def wrong_targets() -> dict[str, tuple[torch.Tensor, str]]:
    """For logits (2, 3, 4, 5): what is refused, and what the error must say was found."""
    target = torch.arange(40).view(2, 4, 5) % 3
    hot = one_hot(target, 3).float()
    twice = hot.clone()
    twice[0, :2, 0, 0] = 1
    return {
        "soft masks": (hot * 0.8 + 0.1, "0.1, 0.9"),
        "0 and 255": (hot * 255, "255"),
        "negative one-hot": (-hot, "-1"),
        "undefined": (hot * float("nan"), "nan"),
        "no class": (torch.zeros(2, 3, 4, 5, dtype=torch.int64), "0..0"),
        "two classes": (twice, "1..2"),
        "float indices": (target.float(), "torch.float32"),
        "byte indices": (target.to(torch.uint8), "torch.uint8"),
        "index 3": (target + 1, "1..3"),
        "index -1": (target - 1, "-1..1"),
        "an axis for the channel": (target[:, None], r"\(2, 1, 4, 5\)"),
        "another size": (target[:, :3], r"\(2, 3, 5\)"),
        "another batch": (target[:1], r"\(1, 4, 5\)"),
        "one-hot with another number of classes": (one_hot(target, 4), r"\(2, 4, 4, 5\)"),
        "classes last": (functional.one_hot(target, 3), r"\(2, 4, 5, 3\)"),
    }


@pytest.mark.parametrize("kind", wrong_targets())
@pytest.mark.parametrize("name", TERMS)
def test_what_is_neither_one_hot_nor_indices_is_refused(name, kind):
    target, found = wrong_targets()[kind]
    with pytest.raises(ValueError, match=rf"(class indices|one-hot).* found .*{found}"):
        TERMS[name](torch.zeros(2, 3, 4, 5), target)


@pytest.mark.parametrize("kind", wrong_targets())
def test_deep_supervision_refuses_them_too(kind):
    target, found = wrong_targets()[kind]
    with pytest.raises(ValueError, match=found):
        losses.deeply_supervised([torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 2, 5)], target, Loss())


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 1, 4, 5),
        torch.zeros(2, 3, 4),
        torch.zeros(0, 3, 4, 5),
        torch.zeros(2, 3, 4, 5).long(),
    ],
)
def test_what_are_no_logits_is_refused(wrong):
    with pytest.raises(ValueError, match="logits must be"):
        losses.cross_entropy(wrong, torch.zeros(wrong[:, 0].shape, dtype=torch.int64))


@pytest.mark.parametrize("term", [losses.cross_entropy, losses.binary_cross_entropy, losses.focal])
def test_class_weights_are_one_a_class(term):
    x, target = scene((2, 3, 4, 3))
    with pytest.raises(ValueError, match=r"3 classes .* found 2"):
        term(x, target, class_weights=(1.0, 2.0))


def test_a_tversky_loss_that_counts_nothing_is_refused():
    with pytest.raises(ValueError, match="found 0 for both"):
        Loss(tversky=1, tversky_false_positives=0, tversky_false_negatives=0)


# ---- known values ----


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("name", TERMS)
def test_a_perfect_answer_costs_nothing(name, absent):
    _, target = scene((2, 4, 3, 2, 5), absent)
    assert float(TERMS[name](one_hot(target, 4).float() * 100, target)) == pytest.approx(
        0, abs=1e-5
    )


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlaps_of_disjoint_structures_cost_one(name):
    target = torch.tensor([[[0, 1, 2], [1, 2, 0]]] * 2)
    logits = one_hot((target + 1) % 3, 3).float() * 100
    assert float(OVERLAPS[name](logits, target)) == pytest.approx(1, abs=1e-4)


def quarter() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (1, 3, 2, 4) and truth with 4, 3 and 1 voxels of the classes, for values by
    hand.
    """
    target = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 2]]])
    p = torch.tensor(
        [[0.5, 0.25, 0.25]] * 4 + [[0.2, 0.8, 0.0]] * 3 + [[0.0, 0.4, 0.6]], dtype=torch.float64
    )
    return p.T.reshape(1, 3, 2, 4), target


def test_values_by_hand():
    """Sums of p g: 2, 2.4, 0.6; of p: 2.6, 3.8, 1.6; of g: 4, 3, 1; of p^2: 1.12, 2.33, 0.61."""
    p, target = quarter()
    near = {"abs": 1e-5}
    one, two = 4.8 / 6.8, 1.2 / 2.6
    assert float(losses.soft_dice(p, target)) == pytest.approx(1 - (one + two) / 2, **near)
    assert float(losses.soft_dice(p, target, background=True)) == pytest.approx(
        1 - (4 / 6.6 + one + two) / 3, **near
    )
    assert float(losses.soft_dice(p, target, squared=True)) == pytest.approx(
        1 - (4.8 / 5.33 + 1.2 / 1.61) / 2, **near
    )
    generalised = 2 * (2.4 / 9 + 0.6) / (6.8 / 9 + 2.6)
    assert float(losses.generalised_dice(p, target)) == pytest.approx(1 - generalised, **near)
    with_background = 2 * (2 / 16 + 2.4 / 9 + 0.6) / (6.6 / 16 + 6.8 / 9 + 2.6)
    assert float(losses.generalised_dice(p, target, background=True)) == pytest.approx(
        1 - with_background, **near
    )
    # class 1: TP 2.4, FP 1.4, FN 0.6; class 2: TP 0.6, FP 1, FN 0.4
    index = (2.4 / (2.4 + 0.3 * 1.4 + 0.7 * 0.6) + 0.6 / (0.6 + 0.3 + 0.7 * 0.4)) / 2
    assert float(losses.tversky(p, target)) == pytest.approx(1 - index, **near)
    cross_entropy = -(4 * math.log(0.5) + 3 * math.log(0.8) + math.log(0.6)) / 8
    assert float(losses.cross_entropy(p.log(), target)) == pytest.approx(cross_entropy, **near)
    focal = -(4 * 0.25 * math.log(0.5) + 3 * 0.04 * math.log(0.8) + 0.16 * math.log(0.6)) / 8
    assert float(losses.focal(p.log(), target)) == pytest.approx(focal, **near)
    # two answers a voxel: the background's are 0.75 and 0.75, then 0.8 and 1, then 0.6 and 0.6
    binary = -(8 * math.log(0.75) + 3 * math.log(0.8) + 2 * math.log(0.6)) / 16
    assert float(losses.binary_cross_entropy(p.log(), target)) == pytest.approx(binary, **near)


def test_dice_of_each_sample_is_the_mean_of_the_samples():
    x, target = scene((3, 4, 5, 2))
    p = x.softmax(1)
    for term in (losses.soft_dice, losses.generalised_dice, losses.tversky):
        alone = sum(float(term(p[n : n + 1], target[n : n + 1])) for n in range(3)) / 3
        assert float(term(p, target, batch=False)) == pytest.approx(alone, abs=1e-12)
        assert float(term(p, target)) != pytest.approx(alone, abs=1e-4)


def test_generalised_dice_of_one_structure_is_dice():
    x, target = scene((2, 2, 4, 3))
    p = x.softmax(1)
    assert float(losses.generalised_dice(p, target)) == pytest.approx(
        float(losses.soft_dice(p, target)), abs=1e-12
    )


def test_generalised_dice_does_not_depend_on_the_size_of_a_structure():
    """A thousand times more voxels of each, the same fractions of them found: the same loss."""
    p, target = quarter()
    repeated = losses.generalised_dice(p.repeat(1, 1, 40, 25), target.repeat(1, 40, 25))
    assert float(repeated) == pytest.approx(float(losses.generalised_dice(p, target)), abs=1e-5)


@pytest.mark.parametrize("batch", [True, False])
def test_generalised_dice_with_absent_classes_is_finite_and_blames_finding_them(batch):
    target = torch.tensor([[[0, 0, 1, 1, 1]] * 2] * 2)
    right = one_hot(target, 4).float()
    found = right.clone()
    found[:, :, 0, 0] = torch.tensor([0.0, 0.0, 1.0, 0.0])  # class 2, which is not there
    nothing = torch.zeros(2, 2, 5, dtype=torch.int64)
    assert losses.generalised_dice(right, target, batch) == pytest.approx(0, abs=1e-5)
    # As the smallest present class would.
    assert losses.generalised_dice(found, target, batch) == pytest.approx(1 - 12 / 13, abs=1e-5)
    assert losses.generalised_dice(one_hot(nothing, 4).float(), nothing, batch) == pytest.approx(
        0, abs=1e-5
    )
    assert losses.generalised_dice(right, nothing, batch) == pytest.approx(1, abs=1e-5)


def test_dice_of_absent_classes():
    target = torch.zeros(1, 3, 2, dtype=torch.int64)
    assert float(losses.soft_dice(one_hot(target, 3).float(), target)) == pytest.approx(0, abs=1e-6)
    assert float(losses.soft_dice(torch.full((1, 3, 3, 2), 1 / 3), target)) == pytest.approx(
        1, abs=1e-4
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_tversky_with_equal_halves_is_dice_and_with_ones_jaccard(shape):
    x, target = scene(shape, absent=True)
    p = x.softmax(1)
    assert float(losses.tversky(p, target, 0.5, 0.5)) == pytest.approx(
        float(losses.soft_dice(p, target)), abs=1e-12
    )
    dice = 1 - losses.soft_dice(p[:, :2] / p[:, :2].sum(1, keepdim=True), (target == 1).long())
    jaccard = 1 - losses.tversky(
        p[:, :2] / p[:, :2].sum(1, keepdim=True), (target == 1).long(), 1, 1
    )
    assert float(jaccard) == pytest.approx(float(dice / (2 - dice)), abs=1e-5)


def test_tversky_weighs_false_positives_and_negatives_apart():
    p, target = quarter()
    swapped = losses.tversky(p, target, 0.7, 0.3)
    assert swapped > losses.tversky(p, target, 0.3, 0.7)  # class 1 and 2 are found too much


def test_focal_with_gamma_zero_is_cross_entropy():
    x, target = scene((2, 4, 3, 2, 5))
    for options in ({}, {"class_weights": weights_for(x), "boundary": 2.0}):
        assert float(losses.focal(x, target, 0, **options)) == pytest.approx(
            float(losses.cross_entropy(x, target, **options)), abs=1e-12
        )


def test_binary_cross_entropy_of_one_structure_is_that_of_the_difference():
    x, target = scene((2, 2, 4, 2, 3))
    # The second sample is sure, and often wrong.
    x = x * torch.tensor([1.0, 40.0])[:, None, None, None, None]
    x.requires_grad_()
    mine = losses.binary_cross_entropy(x, target)
    theirs = functional.binary_cross_entropy_with_logits(x[:, 1] - x[:, 0], target.double())
    assert float(mine.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)
    gradients = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in (mine, theirs)]
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-15)


def test_binary_cross_entropy_of_several_is_the_textbook_form():
    x, target = scene((2, 4, 3, 2, 5))
    p, y = x.softmax(1)[:, 1:], one_hot(target, 4)[:, 1:]
    textbook = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert float(losses.binary_cross_entropy(x, target)) == pytest.approx(
        float(textbook), rel=1e-10
    )


def test_cross_entropy_is_torchs():
    x, target = scene((2, 4, 3, 2, 5))
    assert torch.equal(losses.cross_entropy(x, target), functional.cross_entropy(x, target))


# ---- extreme logits and precisions ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TERMS)
def test_sure_answers_keep_loss_and_gradient_finite(name, dtype):
    target = torch.arange(40).view(2, 4, 5) % 3
    for guess in (target, (target + 1) % 3):
        x = (one_hot(guess, 3).to(dtype) * 1e4).requires_grad_()
        value = TERMS[name](x, target)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(x.grad).all()


def test_a_sure_mistake_still_teaches_in_single_precision():
    """1 - p rounds to 0 at a logit of 20; taken from there, its logarithm would be infinite and its
    slope 0.
    """
    x = torch.zeros(1, 3, 2, 2)
    x[:, 1] = 30
    x.requires_grad_()
    value = losses.binary_cross_entropy(x, torch.zeros(1, 2, 2, dtype=torch.int64))
    value.backward()
    assert float(value.detach()) == pytest.approx((30 - math.log(2)) / 2, rel=1e-5)
    assert x.grad[0, 1] == pytest.approx(torch.full((2, 2), 1 / 8), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", TERMS)
def test_half_precision_is_computed_in_single(name, dtype):
    x, target = scene((2, 3, 40, 60))
    half = x.to(dtype).requires_grad_()
    single = half.detach().float()
    term = TERMS[name]
    value = term(half, target)
    value.backward()
    assert (
        half.grad.dtype == dtype and torch.isfinite(half.grad).all() and half.grad.abs().max() > 0
    )
    if name in OVERLAPS:  # their softmax was taken outside, in half precision
        assert value.dtype == torch.float32 and float(value.detach()) == pytest.approx(
            float(term(single, target)), rel=2e-2
        )
    else:
        assert torch.equal(value, term(single, target)) and value.dtype == torch.float32


# ---- weights ----


def test_class_weights_weigh_voxels_by_their_true_class():
    p, target = quarter()
    weighted = -(4 * 0.1 * math.log(0.5) + 3 * 2 * math.log(0.8) + 5 * math.log(0.6)) / 8
    assert float(losses.cross_entropy(p.log(), target, (0.1, 2.0, 5.0))) == pytest.approx(
        weighted, rel=1e-12
    )
    theirs = (
        functional.cross_entropy(
            p.log(), target, torch.tensor([0.1, 2.0, 5.0], dtype=torch.float64), reduction="sum"
        )
        / target.numel()
    )
    assert float(losses.cross_entropy(p.log(), target, (0.1, 2.0, 5.0))) == pytest.approx(
        float(theirs), rel=1e-12
    )


@pytest.mark.parametrize("term", [losses.cross_entropy, losses.binary_cross_entropy, losses.focal])
def test_equal_class_weights_scale(term):
    x, target = scene((2, 3, 4, 3))
    assert float(term(x, target, class_weights=(3.0,) * 3)) == pytest.approx(
        3 * float(term(x, target)), rel=1e-12
    )


def test_boundary_of_a_drawn_square():
    picture = """
        ........
        ...bb...
        ..bbbb..
        ..bbbb..
        ...bb...
        ........"""
    square = torch.zeros(2, 6, 8, dtype=torch.int64)
    square[0, 2:4, 3:5] = 2
    drawn = torch.tensor([[c == "b" for c in line.strip()] for line in picture.split()])
    weights = losses.boundary_weights(square, 2.0)
    assert weights.dtype == torch.float32
    assert torch.equal(weights[0], drawn * 2.0) and not weights[1].any()


def test_boundary_of_a_line_one_voxel_thick_and_of_touching_structures():
    line = torch.zeros(1, 5, 4, dtype=torch.int64)
    line[:, 2] = 1
    assert torch.equal(losses.boundary_weights(line)[0, :, 0], torch.tensor([0.0, 1, 1, 1, 0]))
    columns = torch.tensor([[[1, 1, 1, 2, 2, 2]] * 3])
    assert torch.equal(losses.boundary_weights(columns)[0, 1], torch.tensor([0.0, 0, 1, 1, 0, 0]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_boundary_in_three_dimensions_along_each_axis(axis):
    target = torch.zeros(2, 5, 6, 7, dtype=torch.int64)
    target.narrow(axis + 1, 0, 2).fill_(1)
    hit = losses.boundary_weights(target).movedim(axis + 1, 1)
    assert hit[:, 1:3].all() and not hit[:, 0].any() and not hit[:, 3:].any()


def test_boundary_of_a_single_slice_ignores_the_axis_without_neighbours():
    target = torch.randint(0, 3, (2, 5, 6), generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        losses.boundary_weights(target[..., None])[..., 0], losses.boundary_weights(target)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 5, 6),
        torch.zeros(5, 6, dtype=torch.int64),
        torch.zeros(2, 3, 4, 5, 6, dtype=torch.int64),
    ],
)
def test_boundaries_of_what_are_no_indices_are_refused(wrong):
    with pytest.raises(ValueError, match="class indices"):
        losses.boundary_weights(wrong)


def test_the_boundary_term_is_what_its_voxels_cost_more():
    x, target = scene((2, 3, 5, 6))
    each = functional.cross_entropy(x, target, reduction="none")
    expected = (each * (1 + 2 * losses.boundary_weights(target))).mean()
    assert float(losses.cross_entropy(x, target, boundary=2.0)) == pytest.approx(
        float(expected), rel=1e-12
    )


# ---- the sum ----


def test_combined_is_the_weighted_sum_of_its_terms():
    x, target = scene((2, 4, 3, 2, 5))
    p, loss = x.softmax(1), everything(x)
    weights, edge = loss.class_weights, loss.boundary
    parts = [
        loss.dice * losses.soft_dice(p, target, squared=True, background=True),
        loss.generalised_dice * losses.generalised_dice(p, target, background=True),
        loss.tversky * losses.tversky(p, target, background=True),
        loss.cross_entropy * losses.cross_entropy(x, target, weights, edge),
        loss.binary_cross_entropy * losses.binary_cross_entropy(x, target, weights, edge),
        loss.focal * losses.focal(x, target, 2.0, weights, edge),
    ]
    assert float(losses.combined(x, target, loss)) == pytest.approx(float(sum(parts)), rel=1e-12)


@pytest.mark.parametrize(
    "term",
    ["dice", "generalised_dice", "tversky", "cross_entropy", "binary_cross_entropy", "focal"],
)
def test_every_option_of_the_plan_reaches_its_term(term):
    x, target = scene((2, 3, 4, 5))
    only = {"dice": 0, "cross_entropy": 0, term: 1}
    overlap = {"batch_dice": False, "background": True}
    own = {
        "dice": {"squared": True},
        "focal": {"focal_gamma": 1},
        "tversky": {"tversky_false_positives": 0.5, "tversky_false_negatives": 0.1},
    }
    voxels = {"class_weights": (1, 2, 3), "boundary": 1}
    reaching = (
        voxels if term in ("cross_entropy", "binary_cross_entropy", "focal") else overlap
    ) | own.get(term, {})
    plain = losses.combined(x, target, Loss(**only))
    every = {"squared": True, "focal_gamma": 1, "tversky_false_positives": 0.5} | overlap | voxels
    for name, value in every.items():
        changed = losses.combined(x, target, Loss(**only, **{name: value}))
        assert (float(changed) != pytest.approx(float(plain), abs=1e-6)) == (name in reaching), name


def test_deep_supervision_halves_the_weight_of_every_level():
    target = scene((1, 3, 16, 8))[1]
    outputs = [scene((1, 3, 16 // 2**n, 8 // 2**n))[0] for n in range(3)]
    levels = [
        losses.combined(o, target[:, :: 2**n, :: 2**n], Loss()) for n, o in enumerate(outputs)
    ]
    expected = (4 * levels[0] + 2 * levels[1] + levels[2]) / 7
    assert float(losses.deeply_supervised(outputs, target, Loss())) == pytest.approx(
        float(expected), rel=1e-12
    )
    assert torch.equal(
        losses.deeply_supervised(outputs, one_hot(target, 3), Loss()),
        losses.deeply_supervised(outputs, target, Loss()),
    )
    assert torch.equal(losses.deeply_supervised(outputs[0], target, Loss()), levels[0])


# ---- a forgotten part of a term ----


def imported_anew(monkeypatch):
    """The source of ``losses`` once more, as a module of another name."""
    spec = importlib.util.spec_from_file_location("delineate.learn.losses_anew", losses.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(LOSSES, "_parts", {})  # it registers its terms once more
    spec.loader.exec_module(module)
    return module


def test_a_field_of_a_loss_that_is_neither_term_nor_setting_is_refused_at_once():
    once = r"Hinged must name each field once, .* found 'hinge' 0 times"
    with pytest.raises(TypeError, match=once):

        class Hinged(Loss):
            hinge: float = 0.0


def test_a_field_that_is_term_and_setting_is_refused():
    with pytest.raises(TypeError, match="found 'hinge' 2 times"):

        class Hinged(Loss):
            TERMS = (*Loss.TERMS, "hinge")
            SETTINGS = (*Loss.SETTINGS, "hinge")
            hinge: float = 0.0


@pytest.mark.parametrize("table", ["TERMS", "SETTINGS"])
def test_a_declared_name_that_is_no_field_is_refused(table):
    with pytest.raises(TypeError, match="Hinged has no field 'hinge'"):
        type("Hinged", (Loss,), {table: (*getattr(Loss, table), "hinge"), "__module__": __name__})


def test_a_declared_term_that_nobody_computes_is_refused_and_not_left_out():
    class Hinged(Loss):
        TERMS = (*Loss.TERMS, "hinge")
        hinge: float = 0.0

    x, target = scene((2, 3, 4, 3))
    for loss in (Hinged(hinge=1), Hinged(dice=0, cross_entropy=0, hinge=1)):
        with pytest.raises(ValueError, match="Hinged has the terms hinge"):
            losses.combined(x, target, loss)
        with pytest.raises(ValueError, match="hinge"):
            losses.deeply_supervised([x], target, loss)


def test_a_further_setting_changes_nothing():
    class Named(Loss):
        SETTINGS = (*Loss.SETTINGS, "name")
        name: str = ""

    x, target = scene((2, 3, 4, 3))
    plain = losses.combined(x, target, Loss(focal=1))
    assert torch.equal(losses.combined(x, target, Named(focal=1)), plain)


def test_a_loss_of_no_term_is_refused():
    with pytest.raises(ValueError, match="all loss weights are zero"):
        Loss(**dict.fromkeys(Loss.TERMS, 0))


@pytest.mark.parametrize(
    ("terms", "lacking"),
    [((*Loss.TERMS, "hinge"), "hinge"), (Loss.TERMS[:-1], Loss.TERMS[-1])],
)
def test_importing_losses_with_a_term_missing_on_either_side_raises(terms, lacking, monkeypatch):
    imported_anew(monkeypatch)
    monkeypatch.setattr(Loss, "TERMS", terms)
    with pytest.raises(ImportError, match=f"lacks the term {lacking}$"):
        imported_anew(monkeypatch)


@pytest.mark.parametrize("term", Loss.TERMS)
def test_every_term_alone_costs_something_and_weighs_what_the_plan_says(term):
    x, target = scene((2, 3, 4, 3))
    nothing = dict.fromkeys(Loss.TERMS, 0)
    once = losses.combined(x, target, Loss(**nothing | {term: 1}))
    thrice = losses.combined(x, target, Loss(**nothing | {term: 3}))
    assert float(once) > 1e-3
    assert float(thrice) == pytest.approx(3 * float(once), rel=1e-12)


def test_the_fast_way_is_taken_for_dice_and_cross_entropy_alone(monkeypatch):
    x, target = scene((2, 3, 4, 3))
    taken = []
    monkeypatch.setattr(losses._DiceAndCrossEntropy, "apply", lambda *_: taken.append(True))
    for loss in (Loss(), Loss(dice=0), Loss(cross_entropy=0), Loss(background=True, boundary=1)):
        losses.combined(x, target, loss)
    assert len(taken) == 4
    for name in ("generalised_dice", "tversky", "binary_cross_entropy", "focal", "squared"):
        losses.combined(x, target, Loss(**{name: 1}))
    assert len(taken) == 4

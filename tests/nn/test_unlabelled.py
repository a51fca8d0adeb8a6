"""What background teaches where annotations are not complete."""

import math

import pytest
import torch
from torch.nn import functional

from sniper.nn.heads import RegionOutput, region_losses
from sniper.nn.roi import RegionTargets
from sniper.nn.unlabelled import background_weight, without_unknown


def test_weights_are_those_of_the_paper():
    # arXiv 1806.06986: 0.25 + 0.75 exp(-50 exp(-20 o))
    overlap = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 1.0])
    expected = [0.25 + 0.75 * math.exp(-50 * math.exp(-20 * o)) for o in overlap.tolist()]
    torch.testing.assert_close(background_weight(overlap, 0.25), torch.tensor(expected))


def targets_of(labels, weight=None, known=None):
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(len(labels), 1)
    nothing = torch.zeros(len(labels), dtype=torch.int64)
    return RegionTargets(nothing, boxes, torch.tensor(labels), boxes, nothing, weight, known)


def class_loss(logits, targets):
    return region_losses(RegionOutput(logits, torch.zeros(len(logits), 4)), targets)["class"]


def test_loss_is_the_weighted_sum_over_the_number_of_regions():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    labels, weight = [0, 2, -1, 0], torch.tensor([0.25, 1.0, 1.0, 0.5])
    each = functional.cross_entropy(logits, torch.tensor(labels).clamp(min=0), reduction="none")
    expected = (0.25 * each[0] + each[1] + 0.5 * each[3]) / 3
    torch.testing.assert_close(class_loss(logits, targets_of(labels, weight)), expected)
    assert class_loss(logits, targets_of(labels, torch.ones(4))).item() == pytest.approx(
        class_loss(logits, targets_of(labels)).item(), rel=1e-6
    )


def test_background_says_nothing_of_classes_that_nobody_looked_for():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    known = torch.tensor([[True, False, True]])
    class_loss(logits, targets_of([0, 1, -1], known=known)).backward()
    background, positive, empty = logits.grad
    assert background[2] == 0  # class 1 was not looked for
    assert (background[[0, 1, 3]] != 0).all()
    assert (positive != 0).all()  # it shows class 0, so it is none of the others
    assert (empty == 0).all()


def test_nothing_known_leaves_background_without_a_loss():
    logits = without_unknown(torch.randn(2, 4), torch.tensor([0, -1]), torch.zeros(2, 3, dtype=torch.bool))
    assert functional.cross_entropy(logits, torch.tensor([0, -1]), ignore_index=-1, reduction="sum") == 0

"""The mask branch: what it is taught, and that it learns."""

import pytest
import torch

from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.errors import RecipeError
from sniper.nn.mask_head import MaskHead, mask_head_targets, mask_loss
from sniper.nn.roi import RegionTargets
from sniper.structures import Batch


def ring(label, points):
    """A row of outlines with one ring."""
    return [float(label), 1.0, float(len(points)), *points]


SQUARE = [10.0, 10, 30, 10, 30, 30, 10, 30]
TRIANGLE = [10.0, 10, 30, 10, 10, 30]


def outlines():
    rows = torch.full((2, 3, 11), -1.0)
    rows[:, :, 1] = 0
    rows[0, 0], rows[0, 1, :9] = torch.tensor(ring(2, SQUARE)), torch.tensor(ring(1, TRIANGLE))
    rows[1, 2] = torch.tensor(ring(0, SQUARE))
    return rows


def targets_of(rows):
    """Regions from (image, box, label, object)."""
    image, boxes, labels, matched = zip(*rows, strict=True)
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return RegionTargets(torch.tensor(image), boxes, torch.tensor(labels), boxes, torch.tensor(matched))


WHOLE, DOUBLE = [10.0, 10, 30, 30], [0.0, 0, 40, 40]


def test_lessons_are_drawn_in_half_open_regions_of_outlined_objects():
    targets = targets_of(
        [
            (0, WHOLE, 3, 0),
            (0, DOUBLE, 2, 1),
            (0, DOUBLE, 0, -1),
            (0, DOUBLE, 1, 2),
            (0, DOUBLE, 3, 0),
            (1, DOUBLE, 1, 2),
        ]
    )
    targets = mask_head_targets(targets, outlines(), per_chip=2)
    assert targets.image.tolist() == [0, 0, 1]  # the fourth has no outline, the fifth is one too many
    assert targets.labels.tolist() == [2, 1, 0]
    assert targets.inside.dtype == torch.float32
    assert targets.inside[0].min() == 1
    assert targets.inside[2].sum() == 14 * 14
    assert targets.inside[2, 7:21, 7:21].min() == 1
    assert targets.inside[1].sum() == pytest.approx(14 * 14 / 2, abs=8)
    assert targets.inside[1, 8, 8] == 1  # row and column are not exchanged
    assert targets.inside[1, 8, 12] == targets.inside[1, 12, 8] == 1


def test_no_lessons_still_reach_every_parameter():
    head = MaskHead(6, 16, 3, channels=8, convs=2)
    targets = targets_of([(0, DOUBLE, 0, -1)])
    for polygons in (outlines(), torch.zeros(2, 0, 2)):
        found = mask_head_targets(targets, polygons, per_chip=2)
        loss = mask_loss(head(head.reduced(torch.rand(2, 6, 4, 4)), found.image, found.boxes), found)
        assert loss.item() == 0
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_only_the_true_class_is_taught():
    targets = mask_head_targets(targets_of([(0, DOUBLE, 3, 0)]), outlines(), per_chip=2)
    logits = torch.zeros(1, 3, 28, 28, requires_grad=True)
    mask_loss(logits, targets).backward()
    assert logits.grad[0, 2].abs().min() > 0
    assert logits.grad[0, :2].abs().max() == 0


def scene():
    pixels = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 0.2
    for y in range(20, 90):  # a triangle
        pixels[0, 1, y, 20 : 20 + y - 20] = 0.9
    polygons = torch.tensor([[ring(0, [20.0, 20, 90, 90, 20, 90])]])
    return Batch(
        pixels=pixels,
        valid_hw=torch.tensor([[128, 128]]),
        scale=torch.ones(1),
        boxes=torch.tensor([[[20.0, 20, 90, 90]]]),
        labels=torch.zeros(1, 1, dtype=torch.int64),
        state=torch.zeros(1, 1, dtype=torch.int64),
        range_px=torch.tensor([[0.0, 1000.0]]),
        chip_index=torch.zeros(1, dtype=torch.int64),
        polygons=polygons,
    )


def test_the_detector_learns_a_mask_and_asks_for_outlines():
    torch.manual_seed(0)
    config = SniperConfig(
        backbone="timm/test_resnet", weights=None, channels=32, rpn_channels=32, head_channels=16, head_width=32,
        masks=True, mask_channels=32,
    )  # fmt: skip
    detector, batch = build_sniper(config, 2).train(), scene()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=6e-3)
    for _ in range(25):
        losses = detector.losses(batch)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["mask"] < 0.25
    kept = detector.outputs(batch, features=True)
    detections = detector.detect(batch)[0]
    assert torch.equal(kept.detections[0].boxes, detections.boxes)
    mask = detector.predict_masks(kept.features[0], batch.boxes[0], batch.labels[0])[0] > 0.5
    truth = torch.tril(torch.ones(28, 28, dtype=torch.bool))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert detector.training
    batch.polygons = None
    with pytest.raises(RecipeError, match="no masks"):
        detector.losses(batch)

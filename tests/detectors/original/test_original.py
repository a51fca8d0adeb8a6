"""The 2018 detectors as detectors: they detect, learn, and keep still what the original kept still."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from sniper.detectors.original.heads import MaskBranch, OriginalMaps
from sniper.detectors.original.losses import corrected_losses, mask_loss, original_losses, second_stage_losses
from sniper.detectors.original.mask_regions import MaskRegions
from sniper.detectors.original.network import OriginalConfig, OriginalSniper, build_original, sniper_mobilenetv2
from sniper.detectors.original.preact_resnet import PreactResNet
from sniper.detectors.original.proposals import OriginalRegionTargets
from sniper.detectors.protocol import Detector, ProposalTrainer
from sniper.errors import RecipeError
from sniper.nn.config import ProposalConfig, RoiConfig
from sniper.nn.heads import RegionOutput
from sniper.nn.mask_targets import mask_targets
from sniper.structures import Batch, Images, ObjectState


@pytest.fixture(scope="module")
def detector() -> OriginalSniper:
    torch.manual_seed(0)
    return sniper_mobilenetv2(3).eval()


def images_of(count: int, height: int, width: int) -> Images:
    pixels = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    return Images(pixels, torch.tensor([[height, width]] * count), torch.full((count,), 0.5))


def batch_of(objects: int) -> Batch:
    images = images_of(2, 96, 128)
    boxes = torch.tensor([[8.0, 8, 72, 80]]).repeat(2, objects, 1)
    states = torch.full((2, objects), int(ObjectState.VALID))
    return Batch(
        images.pixels, images.valid_hw, images.scale,
        boxes=boxes, labels=torch.zeros(2, objects, dtype=torch.int64), state=states,
        range_px=torch.tensor([[0.0, math.inf]] * 2), chip_index=torch.arange(2),
    )  # fmt: skip


def small(**settings: object) -> OriginalSniper:
    """With few regions, so that a step is quick."""
    proposals = ProposalConfig(train_before_nms=6000, keep=24, min_px=3)
    return build_original(OriginalConfig(network="sniper_mobilenetv2", train_proposals=proposals, **settings), 3)


def test_it_is_a_detector_and_stays_in_its_mode(detector: OriginalSniper) -> None:
    assert isinstance(detector, Detector)
    detector.train()
    detector.detect(images_of(1, 64, 64))
    assert detector.training
    detector.eval()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 95), (128, 64)])
def test_detections_are_whole_on_any_canvas(detector: OriginalSniper, height: int, width: int) -> None:
    both = detector.detect(images_of(2, height, width))
    assert len(both) == 2
    for found in both:
        assert len(found.boxes) > 0 or min(height, width) == 1
        assert len(found.boxes) == len(found.scores) == len(found.labels)
        assert torch.isfinite(found.boxes).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, 2] <= width).all()
        assert (found.boxes[:, 3] <= height).all()
        assert (found.scores.diff() <= 0).all()
        assert (found.scores > 0.001).all()


def test_a_batch_and_its_padding_change_nothing(detector: OriginalSniper) -> None:
    small = images_of(1, 64, 64)
    alone = detector.detect(small)[0]
    pixels = torch.full((2, 3, 64, 64), 0.7)
    pixels[0] = small.pixels[0]
    together = detector.detect(Images(pixels, small.valid_hw.repeat(2, 1), small.scale.repeat(2)))[0]
    torch.testing.assert_close(together.boxes, alone.boxes, rtol=1e-4, atol=1e-2)
    padded = Images(pixels, torch.tensor([[64, 64], [40, 50]]), small.scale.repeat(2))
    normal = detector.normalise(padded)
    assert normal[1, :, 40:].abs().max() == 0
    assert normal[1, :, :, 50:].abs().max() == 0
    torch.testing.assert_close(normal[1, :, 0, 0], 0.7 * 255 - torch.tensor([123.68, 116.779, 103.939]))
    as_bytes = Images((pixels * 255).round().to(torch.uint8), padded.valid_hw, padded.scale)
    torch.testing.assert_close(detector.normalise(as_bytes), normal, rtol=0, atol=0.51)


@pytest.mark.parametrize("objects", [0, 1])
def test_losses_reach_every_learned_weight(objects: int) -> None:
    torch.manual_seed(0)
    detector = small().train()
    losses = detector(batch_of(objects))
    assert set(losses) == {"rpn_class", "rpn_box", "class", "box"}
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    learned = {name: weight for name, weight in detector.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None for weight in learned.values())
    assert all(".norm." in name for name, weight in detector.named_parameters() if not weight.requires_grad)


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    detector, batch = small().train(), batch_of(1)
    optimiser = torch.optim.SGD([w for w in detector.parameters() if w.requires_grad], lr=0.02, momentum=0.9)
    history = []
    for _ in range(8):
        loss = sum(detector.losses(batch, torch.Generator().manual_seed(0)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def outlined(batch: Batch) -> Batch:
    """Each object is the left half of its box."""
    x1, y1, x2, y2 = batch.boxes.unbind(-1)
    middle = (x1 + x2) / 2
    points = torch.stack((x1, y1, middle, y1, middle, y2, x1, y2), dim=-1)
    head = torch.tensor([0.0, 1, 8]).expand(*points.shape[:2], 3)
    return replace(batch, polygons=torch.cat((head, points), dim=-1))


@pytest.mark.parametrize("rule", ["original", "ignore"])
@pytest.mark.parametrize("objects", [0, 2])
def test_every_branch_learns_by_either_rule(rule: str, objects: int) -> None:
    torch.manual_seed(0)
    detector = small(focus=True, masks=True, rois=RoiConfig(rule=rule)).train()
    losses = detector.losses(outlined(batch_of(objects)), torch.Generator().manual_seed(0))
    assert set(losses) == {"rpn_class", "rpn_box", "class", "box", "focus", "mask"}
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    assert (losses["mask"] > 0) == (objects > 0)
    sum(losses.values()).backward()
    assert all(weight.grad is not None for weight in detector.parameters() if weight.requires_grad)


def test_masks_need_outlines() -> None:
    with torch.device("meta"):
        detector = build_original(OriginalConfig(network="sniper_mobilenetv2", masks=True), 3)
    with pytest.raises(RecipeError, match="training data has no masks"):
        detector.losses(batch_of(1))


def test_mask_loss_is_the_two_way_softmax_over_known_cells() -> None:
    torch.manual_seed(0)
    branch = MaskBranch(16, 2)
    polygons = outlined(batch_of(2)).polygons
    assert polygons is not None
    polygons[1, 1, 1:] = -1  # an object without an outline
    boxes = torch.tensor([[8.0, 8, 71, 79], [20, 8, 71, 79], [8, 8, 71, 79]])
    regions = MaskRegions(torch.tensor([0, 1, 1]), boxes, torch.tensor([1, 2, 1]), torch.tensor([1, 0, 1]))
    reduced = torch.randn(2, 256, 6, 8)
    logits = branch(reduced, regions.image, boxes)
    rows = polygons.flatten(0, 1)[[1, 2]]
    targets = mask_targets(rows, boxes[:2], torch.tensor([0, 1])).long()
    assert 0.4 < targets[0].float().mean() < 0.6
    pairs = torch.stack((logits[[0, 1], [0, 1]], logits[[0, 1], [2, 3]]), dim=1)
    expected = functional.cross_entropy(pairs, targets)
    torch.testing.assert_close(mask_loss(branch, reduced, regions, polygons), expected)


def test_divisors_of_the_original() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 5))
    targets = OriginalRegionTargets(torch.rand(2, 5, 4), labels, torch.rand(2, 5, 4), labels - 1, torch.tensor([5, 5]))
    output = RegionOutput(torch.randn(10, 3), torch.rand(10, 4))
    weight = (labels.flatten() > 0).float().unsqueeze(1)
    distance = (output.deltas - targets.target_deltas.flatten(0, 1)).abs() * weight
    total = torch.where(distance < 1, 0.5 * distance.square(), distance - 0.5).sum()
    torch.testing.assert_close(second_stage_losses(output, targets, None)["box"], total / (188 * 2))
    torch.testing.assert_close(second_stage_losses(output, targets, 16)["box"], total / (188 * 16))


def test_only_the_original_rule_teaches_what_is_out_of_range() -> None:
    """An ignored object in the only place of interest: its class is learned by one rule and left out by the other."""
    torch.manual_seed(0)
    detector, batch = small().train(), batch_of(1)
    batch = replace(batch, state=torch.full_like(batch.state, int(ObjectState.IGNORED)))
    maps = detector.maps(detector.normalise(batch))
    seen = detector.head, maps.reduced, maps.regions, detector.test_anchors
    generator, corrected = torch.Generator(), detector.config.model_copy(update={"rois": RoiConfig()})
    assert len(original_losses(*seen, batch, detector.config).regions().labels) >= 2
    assert len(corrected_losses(*seen, batch, detector.config, generator.manual_seed(0)).regions().labels) > 0, (
        "the rule in the configuration is the original's in both"
    )
    assert len(corrected_losses(*seen, batch, corrected, generator.manual_seed(0)).regions().labels) == 0
    narrow = replace(batch, boxes=torch.tensor([[8.0, 8, 17, 80]]).repeat(2, 1, 1))
    assert len(original_losses(*seen, narrow, detector.config).regions().labels) == 0, (
        "the original did not know objects under 10 px"
    )


def test_the_proposal_stage_trains_alone() -> None:
    torch.manual_seed(0)
    detector, batch = sniper_mobilenetv2(3).eval(), batch_of(1)
    assert isinstance(detector, ProposalTrainer)
    alone = detector.proposal_losses(batch, torch.Generator().manual_seed(0))
    both = detector.losses(batch, torch.Generator().manual_seed(0))
    assert set(alone) == {"rpn_class", "rpn_box"}
    for name, loss in alone.items():
        torch.testing.assert_close(loss, both[name])


def test_heads_keep_single_precision_under_half() -> None:
    detector = sniper_mobilenetv2(3).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = detector.maps(detector.normalise(batch_of(0)))
        losses = detector.losses(batch_of(1))
    assert maps.regions.deltas.dtype == maps.reduced.dtype == torch.float32
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_stem_and_first_stage_keep_their_statistics() -> None:
    backbone = PreactResNet((1, 1, 1, 1)).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    third, fourth = backbone(torch.randn(2, 3, 33, 50))
    assert third.shape == (2, 1024, 3, 4)
    assert fourth.shape == (2, 2048, 3, 4)
    assert min(third.min(), fourth.min()) < 0  # raw sums
    moved = {name for name, value in backbone.named_buffers() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith(("stage2", "stage3", "stage4")) for name in moved)
    fixed = {name for name, weight in backbone.named_parameters() if not weight.requires_grad}
    assert {"norm_in.weight", "conv.weight", "norm.bias", "stage1.0.conv1.weight"} <= fixed
    assert not any(name.startswith("stage2") or name == "norm_in.bias" for name in fixed)


def test_masks_take_the_pair_of_their_class() -> None:
    branch = MaskBranch(16, 2)
    logits = torch.zeros(2, 4, 28, 28)
    logits[0, 3], logits[0, 1], logits[1, 0] = 5, 2, 1  # class 1 inside and outside, class 0 outside
    found = branch.mask_logits(logits, torch.tensor([1, 0]))
    assert found.shape == (2, 28, 28)
    assert found[0].unique().tolist() == [3]
    assert found[1].unique().tolist() == [-1]
    none = branch(torch.zeros(1, 256, 4, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert none.shape == (0, 4, 28, 28)


def test_probabilities_and_objectness_agree() -> None:
    maps = OriginalMaps(torch.randn(2, 6, 4, 5), torch.randn(2, 12, 4, 5))
    foreground = maps.probabilities()[:, 3:].permute(0, 2, 3, 1).reshape(2, -1)
    torch.testing.assert_close(maps.by_anchor().objectness.sigmoid(), foreground)
    assert torch.equal(maps.by_anchor().deltas[1, 7], maps.deltas[1, 4:8, 0, 2])


def test_soft_sampling_needs_the_corrected_rule() -> None:
    with pytest.raises(ValueError, match=r"soft_sampling.*rule"):
        OriginalConfig(rois=RoiConfig(rule="original", soft_sampling=0.25))
    assert OriginalConfig(rois=RoiConfig(soft_sampling=0.25)).rois.rule == "ignore"

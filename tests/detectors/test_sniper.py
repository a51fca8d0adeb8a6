"""The reference detector: it learns, it detects, and ignored objects neither teach nor disturb."""

import dataclasses
import math

import pytest
import torch
from drawn_chips import CHIPS, CROWD, EMPTY, IGNORED, VALID, batch_of
from pydantic import ValidationError
from torchvision.ops import box_iou

from sniper.detectors.protocol import Detector, Proposer
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.nn.config import AnchorConfig, ProposalConfig, RoiConfig
from sniper.nn.matching import match_anchors
from sniper.structures import Images

TINY = {
    "backbone": "timm/test_resnet", "weights": None, "channels": 32, "rpn_channels": 32, "head_channels": 16,
    "head_width": 64, "anchors": AnchorConfig(scales=(1, 2, 4)),
}  # fmt: skip


def tiny(num_classes=3, **settings):
    torch.manual_seed(0)
    return build_sniper(SniperConfig(**{**TINY, **settings}), num_classes)


def losses_and_gradients(detector, batch, seed=5):
    detector.zero_grad()
    losses = detector.losses(batch, torch.Generator().manual_seed(seed))
    sum(losses.values()).backward()
    gradients = {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, gradients


def same(one, other):
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def changed(batch, chip, slot, **what):
    """The batch with other values in one slot; the pixels stay."""
    columns = {name: getattr(batch, name).clone() for name in what}
    for name, value in what.items():
        columns[name][chip, slot] = torch.as_tensor(value, dtype=columns[name].dtype)
    return dataclasses.replace(batch, **columns)


# --- learning --------------------------------------------------------------------------------------------------------


def test_is_a_detector_and_a_proposer():
    assert isinstance(tiny(), Detector)
    assert isinstance(tiny(), Proposer)


def test_learns_two_chips_and_finds_their_objects():
    chips = [[entry for entry in chip if entry[2] == VALID] for chip in CHIPS]
    batch = batch_of(chips)
    detector = tiny().train()
    optimizer = torch.optim.AdamW(detector.parameters(), 2e-3)
    history = []
    for _ in range(60):
        total = sum(detector.losses(batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert sum(history[-5:]) < sum(history[:5]) / 5
    for found, chip in zip(detector.eval().detect(batch), chips, strict=True):
        for box, label, _ in chip:
            iou = box_iou(torch.tensor([box], dtype=torch.float32), found.boxes)[0]
            hits = (iou > 0.5) & (found.labels == label)
            assert hits.any()
            assert found.scores[hits].max() > 0.5


# --- ignored objects -------------------------------------------------------------------------------------------------


@pytest.fixture
def learner():
    """Proposals come from an untrained net, so the regions are many and land on everything."""
    return tiny(proposals=ProposalConfig(keep=300)).train()


@pytest.mark.parametrize(("chip", "slot"), [(0, 2), (1, 1)], ids=["ignored", "crowd"])
def test_relabelling_an_ignored_object_changes_nothing(learner, chip, slot):
    batch = batch_of(CHIPS)
    assert same(
        losses_and_gradients(learner, batch), losses_and_gradients(learner, changed(batch, chip, slot, labels=1))
    )


@pytest.mark.parametrize(
    ("chip", "slot", "moved"),
    [(0, 2, (110, 20.125, 150, 50.125)), (1, 1, (120.25, 120, 180, 180.0))],
    ids=["ignored", "crowd"],
)
def test_moving_an_ignored_object_changes_nothing(learner, chip, slot, moved):
    """Moved so little that the same anchors and regions keep out of it; not one bit may differ."""
    batch = batch_of(CHIPS)
    other = changed(batch, chip, slot, boxes=moved)
    anchors = learner.anchors((12, 12))
    labels = [
        match_anchors(anchors, b.boxes, b.state, b.valid_hw, (192, 192), learner.config.anchor_match).labels
        for b in (batch, other)
    ]
    assert torch.equal(*labels)
    assert same(losses_and_gradients(learner, batch), losses_and_gradients(learner, other))


@pytest.mark.parametrize(("chip", "slot"), [(0, 2), (1, 1)], ids=["ignored", "crowd"])
@pytest.mark.parametrize("state", [EMPTY, VALID], ids=["dropped", "learned"])
def test_dropping_or_learning_it_changes_the_losses(learner, chip, slot, state):
    batch = batch_of(CHIPS)
    before, after = (
        losses_and_gradients(learner, batch),
        losses_and_gradients(learner, changed(batch, chip, slot, state=state)),
    )
    assert before[0]["rpn_class"] != after[0]["rpn_class"]
    assert before[0]["class"] != after[0]["class"]


def test_no_gradient_where_all_is_crowd():
    """All of the chip is crowd: nothing is background, nothing is learned."""
    everything = [[((0, 0, 192, 192), 0, CROWD)]]
    losses, gradients = losses_and_gradients(tiny().train(), batch_of(everything))
    assert losses == {"rpn_class": 0, "rpn_box": 0, "class": 0, "box": 0}
    assert all((gradient == 0).all() for gradient in gradients.values())


def test_original_rule_learns_the_ignored_object():
    detector = tiny(rois=RoiConfig(rule="original")).train()
    batch = batch_of(CHIPS)
    before, after = (
        losses_and_gradients(detector, batch),
        losses_and_gradients(detector, changed(batch, 0, 2, labels=0)),
    )
    assert before[0]["rpn_class"] == after[0]["rpn_class"]
    assert before[0]["class"] != after[0]["class"]


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["ignore", "original"])
@pytest.mark.parametrize(
    "chips",
    [
        [[], []],
        [[((0, 0, 0, 0), 0, EMPTY)], []],
        [[((50, 50, 51, 51), 0, VALID)], []],
        [[((20, 20, 90, 90), 2, IGNORED)]],
    ],
    ids=["no slots", "empty slots", "one pixel", "only ignored"],
)
def test_losses_are_finite_and_reach_every_parameter(rule, chips):
    detector = tiny(rois=RoiConfig(rule=rule)).train()
    losses, gradients = losses_and_gradients(detector, batch_of(chips))
    assert all(math.isfinite(value) for value in losses.values())
    assert gradients.keys() == dict(detector.named_parameters()).keys()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    if not any(entry[2] == VALID for chip in chips for entry in chip):
        assert losses["rpn_box"] == 0


def test_no_proposal_in_range_is_fine():
    losses, _ = losses_and_gradients(tiny().train(), batch_of([[]], range_px=(5000.0, 6000.0)))
    assert losses["class"] == 0
    assert losses["box"] == 0
    assert losses["rpn_class"] > 0


def test_losses_are_finite_in_half_precision():
    detector = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.losses(batch_of(CHIPS))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in detector.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert all(found.boxes.isfinite().all() for found in detector.detect(batch_of(CHIPS)))


def images(*pictures, padded=None):
    """Pictures (3, H, W) on one padded input."""
    height, width = padded or (max(p.shape[1] for p in pictures), max(p.shape[2] for p in pictures))
    pixels = torch.full((len(pictures), 3, height, width), 0.5)
    for row, picture in zip(pixels, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    return Images(pixels, torch.tensor([p.shape[1:] for p in pictures]), torch.ones(len(pictures)))


@pytest.fixture
def finder():
    """Untrained, but with weights large enough that scores and boxes differ from place to place."""
    detector = tiny(score_threshold=0.0, max_detections=10_000).eval()
    with torch.no_grad():
        for layer in (detector.rpn.objectness, detector.rpn.deltas, detector.head.classes, detector.head.deltas):
            layer.weight.mul_(30)
    return detector


def test_batch_equals_single(finder):
    torch.manual_seed(3)
    pictures = [torch.rand(3, 100, 150), torch.rand(3, 64, 64), torch.rand(3, 160, 90)]
    padded = (160, 160)
    for method in (finder.detect, finder.propose):
        together = method(images(*pictures, padded=padded))
        for picture, found in zip(pictures, together, strict=True):
            alone = method(images(picture, padded=padded))[0]
            assert len(alone) == len(found) > 0
            torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=1e-4)
            # Nearly equal scores may change places: the boxes are compared as a set.
            distance = (found.boxes[:, None] - alone.boxes).abs().amax(-1) + 1000 * (
                found.labels[:, None] != alone.labels
            )
            assert distance.amin(0).max() < 0.01
            assert distance.amin(1).max() < 0.01


def test_what_lies_in_the_padding_does_not_matter(finder):
    picture = torch.rand(3, 70, 90)
    grey, loud = images(picture, padded=(128, 128)), images(picture, padded=(128, 128))
    loud.pixels[:, :, 70:] = 1.0
    loud.pixels[:, :, :, 90:] = 0.0
    one, other = finder.detect(grey)[0], finder.detect(loud)[0]
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_detections_lie_in_the_picture_best_first(finder):
    finder.config = finder.config.model_copy(update={"max_detections": 50, "score_threshold": 0.2})
    both = finder.detect(images(torch.rand(3, 90, 70), torch.rand(3, 40, 160)))
    for found, (height, width) in zip(both, [(90, 70), (40, 160)], strict=True):
        assert 0 < len(found) <= 50
        assert (found.scores > 0.2).all()
        assert (found.scores.diff() <= 0).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height])).all()
        assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
        assert set(found.labels.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2)])
def test_the_smallest_images(finder, size):
    picture = torch.rand(3, *size)
    assert len(finder.detect(images(picture))) == 1
    assert len(finder.propose(images(picture))) == 1
    assert len(finder.detect(images(picture, padded=(64, 320)))) == 1


def test_detecting_leaves_the_statistics_alone():
    detector = tiny().train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    detector.detect(batch_of(CHIPS))
    assert detector.training
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_uint8_pixels_are_the_same_as_floats(finder):
    whole = images(torch.rand(3, 64, 64))
    whole.pixels = (whole.pixels * 255).to(torch.uint8)
    one, other = finder.detect(whole)[0], finder.detect(whole.to("cpu"))[0]
    torch.testing.assert_close(one.boxes, other.boxes)


def test_config():
    assert SniperConfig(weights=None).leading_frozen == 0
    assert SniperConfig().leading_frozen == 2
    with pytest.raises(ValidationError, match="freeze random weights"):
        SniperConfig(weights=None, frozen_stages=1)
    with pytest.raises(ValidationError, match="concatenated maps"):
        SniperConfig(rpn_input="first")
    first = tiny(rpn_input="first", channels=None, dilation="dilate")
    assert first.rpn.conv.in_channels == first.backbone.map_channels[0] < first.backbone.channels
    losses_and_gradients(first.train(), batch_of(CHIPS))


# --- focus -----------------------------------------------------------------------------------------------------------


def test_a_focus_branch_adds_one_loss_and_learns_where_small_objects_are():
    plain, focusing = tiny(), tiny(focus=True, focus_channels=16)
    batch = batch_of([[((20, 30, 60, 70), 0, VALID)], [((110, 100, 150, 140), 1, IGNORED)]])
    expected, _ = losses_and_gradients(plain, batch)
    found, gradients = losses_and_gradients(focusing, batch)
    assert found.pop("focus") == pytest.approx(math.log(2), abs=0.05)
    assert found == expected, "the branch draws its weights last"
    assert gradients["focus.conv1.weight"].abs().max() > 0
    optimiser = torch.optim.Adam(focusing.parameters(), lr=3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        loss = focusing.losses(batch, torch.Generator().manual_seed(0))["focus"]
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.4 * math.log(2)
    images = Images(batch.pixels, batch.valid_hw, batch.scale)
    focusing.train()
    focus = focusing.outputs(images, focus=True).focus
    assert focusing.training
    assert (plain.focus_stride, focusing.focus_stride) == (None, 16)
    assert focus.shape == (2, 12, 12)


def test_regions_that_no_level_keeps_skip_the_second_stage():
    detector = tiny()
    images = batch_of(CHIPS)
    everything = detector.detect(images)
    ran = []
    detector.head.register_forward_hook(lambda module, given, output: ran.append(len(given[2])))
    kept_px = torch.tensor([[48.0, math.inf], [0.0, math.inf]])
    hinted = detector.detect(dataclasses.replace(images, kept_px=kept_px))
    detector.detect(images)
    assert 0 < ran[0] < ran[1]
    assert torch.equal(hinted[1].boxes, everything[1].boxes), "a range is one padded input's own"
    sizes = (hinted[0].boxes[:, 2:] - hinted[0].boxes[:, :2]).prod(dim=1).sqrt()
    assert (sizes > 48 / 2 - 8).all()


def test_improbable_regions_skip_the_second_stage():
    images = batch_of(CHIPS)
    counts = []
    for least in (0.0, 0.999):
        detector = tiny(proposals=ProposalConfig(test_min_score=least))
        counts.append(sum(map(len, detector.detect(images))))
        regions = detector.describe_regions(images, [torch.zeros(0, 4)] * 2, max_regions=20, nms_iou=0.7)
        assert all(len(one.scores) > 0 for one in regions), "new classes are told from plain ground"
    assert counts[0] > counts[1] == 0

"""torchvision's detectors on chips: the library's losses, without what lies on ignored objects and in crowds."""

import itertools
import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

import sniper
from chip_batches import (
    CHIPS,
    CROWD,
    EMPTY,
    IGNORED,
    SIDE,
    VALID,
    assert_resuming_is_exact,
    batch_of,
    changed,
    losses_and_gradients,
    same,
)
from facts import facts
from sniper.detectors.from_torchvision.build import build_torchvision
from sniper.detectors.from_torchvision.builders import BUILDERS
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.geometry import anchors_of, default_boxes_of, geometry_of
from sniper.detectors.protocol import Detector, MaskDetector, ProposalTrainer, Proposer
from sniper.errors import RecipeError
from sniper.nn.mask_targets import mask_targets
from sniper.structures import Images

CLASSES = 3


class Pyramid(nn.Module):
    """Three maps of strides 8, 16 and 32, of random convolutions."""

    out_channels = 16

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 16, 16, 16)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        maps, here = [], pixels
        for step in self.steps:
            here = torch.tanh(step(here))
            maps.append(here)
        return OrderedDict((str(place), one) for place, one in enumerate(maps[2:]))


SIZES = {"min_size": SIDE, "max_size": SIDE}


def two_stages(kind: type, **more: object) -> nn.Module:
    return kind(
        Pyramid(),
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=FastRCNNPredictor(32, CLASSES + 1),
        rpn_post_nms_top_n_train=60,
        rpn_post_nms_top_n_test=60,
        box_detections_per_img=20,
        **SIZES,
        **more,
    )


def network(family: str) -> nn.Module:
    """A small one of the library's own classes."""
    torch.manual_seed(0)
    if family == "Faster R-CNN":
        return two_stages(FasterRCNN)
    if family == "Mask R-CNN":
        return two_stages(
            MaskRCNN,
            mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 14, 2),
            mask_head=MaskRCNNHeads(16, (8,), 1),
            mask_predictor=MaskRCNNPredictor(8, 8, CLASSES + 1),
        )
    if family == "RetinaNet":
        anchors = AnchorGenerator(((16, 20), (32, 40), (64, 80)), ((0.5, 1.0, 2.0),) * 3)
        return RetinaNet(Pyramid(), CLASSES, anchor_generator=anchors, score_thresh=0.0, topk_candidates=200, **SIZES)
    if family == "FCOS":
        anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
        return FCOS(Wide(), CLASSES, anchor_generator=anchors, score_thresh=0.0, topk_candidates=200, **SIZES)
    boxes = DefaultBoxGenerator([[2], [2], [2]], min_ratio=0.2, max_ratio=0.6)
    backbone = Pyramid()
    backbone.out_channels = [16, 16, 16]  # type: ignore[assignment]
    return SSD(backbone, boxes, (SIDE, SIDE), CLASSES + 1)


class Wide(Pyramid):
    """With as many features as the group norms of FCOS need."""

    out_channels = 64

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Conv2d(16, 64, 1)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return OrderedDict((name, self.more(one)) for name, one in super().forward(pixels).items())


FAMILIES = ["Faster R-CNN", "Mask R-CNN", "RetinaNet", "FCOS", "SSD"]
by_family = pytest.mark.parametrize("family", FAMILIES)


# --- the library's own losses and detections -------------------------------------------------------------------------


@by_family
def test_without_ignored_objects_the_losses_are_the_librarys(family: str) -> None:
    net = network(family).train()
    batch = batch_of([[one for one in chip if one[2] == VALID] for chip in CHIPS] + [[]])
    detector = sniper.from_torchvision(net).train()
    targets = batch.targets(detector.first_label)
    for one, outlines, valid in zip(targets, batch.polygons, batch.valid, strict=True):
        whole = torch.tensor([[0.0, 0, SIDE, SIDE]]).expand(int(valid.sum()), 4)
        one["masks"] = mask_targets(outlines[valid], whole, torch.arange(int(valid.sum())), SIDE).to(torch.uint8)
    net.transform.resize = lambda image, target: (image, target)  # it draws a size, if only from one
    torch.manual_seed(5)
    expected = {name: loss.item() for name, loss in net(list(batch.pixels), targets).items()}
    found, _ = losses_and_gradients(detector, batch)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found.keys() == expected.keys()


@by_family
def test_detections_are_the_librarys_with_labels_from_0(family: str) -> None:
    net = network(family).eval()
    detector = sniper.from_torchvision(net).eval()
    images = batch_of(CHIPS)
    with torch.no_grad():
        expected = net(list(images.pixels))
    for one, own in zip(detector.detect(images), expected, strict=True):
        seen = (own["boxes"][:, 2:] > own["boxes"][:, :2]).all(dim=1)
        assert len(one) > 0
        torch.testing.assert_close(one.boxes, own["boxes"][seen])
        torch.testing.assert_close(one.scores, own["scores"][seen])
        assert torch.equal(one.labels, own["labels"][seen] - detector.first_label)
        assert set(one.labels.tolist()) <= set(range(CLASSES))


# --- ignored objects -------------------------------------------------------------------------------------------------

ignored_or_crowd = pytest.mark.parametrize(("chip", "slot"), [(0, 2), (1, 1)], ids=["ignored", "crowd"])


@by_family
@ignored_or_crowd
def test_what_an_ignored_object_is_changes_no_loss_and_no_gradient(family: str, chip: int, slot: int) -> None:
    detector = sniper.from_torchvision(network(family)).train()
    batch = batch_of(CHIPS)
    assert same(
        losses_and_gradients(detector, batch), losses_and_gradients(detector, changed(batch, chip, slot, labels=1))
    )


@by_family
@ignored_or_crowd
def test_dropping_or_learning_it_changes_losses_and_gradients(family: str, chip: int, slot: int) -> None:
    detector = sniper.from_torchvision(network(family)).train()
    batch = batch_of(CHIPS)
    before = losses_and_gradients(detector, batch)
    for state in (EMPTY, VALID):
        after = losses_and_gradients(detector, changed(batch, chip, slot, state=state, labels=1))
        assert before[0] != after[0]
        assert not same(before, after)


@by_family
def test_no_gradient_where_all_is_crowd(family: str) -> None:
    """Nothing is background and nothing is learned; the library alone would divide by nothing."""
    detector = sniper.from_torchvision(network(family)).train()
    losses, gradients = losses_and_gradients(detector, batch_of([[((0, 0, SIDE, SIDE), 0, CROWD)]]))
    assert all(value == 0 for value in losses.values())
    assert all((gradient == 0).all() for gradient in gradients.values())


@by_family
@pytest.mark.parametrize("chips", [[[], []], [[((20, 20, 90, 90), 2, IGNORED)]]], ids=["none", "only ignored"])
def test_losses_are_finite_without_objects(family: str, chips: list) -> None:
    losses, gradients = losses_and_gradients(sniper.from_torchvision(network(family)).train(), batch_of(chips))
    assert all(math.isfinite(value) for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@by_family
def test_resuming_is_exact(family: str, tmp_path: Path) -> None:
    assert_resuming_is_exact(lambda: sniper.from_torchvision(network(family)), tmp_path)


# --- inputs of any size ----------------------------------------------------------------------------------------------


def rows(boxes: Tensor) -> set[tuple[float, ...]]:
    return {tuple(one) for one in boxes.tolist()}


@pytest.mark.parametrize("family", ["RetinaNet", "SSD"])
def test_anchors_are_the_same_whatever_the_size_of_the_input(family: str) -> None:
    """The library stretches SSD's with the input, and shifts others where a stride does not divide it."""
    net = network(family)
    geometry = geometry_of(net.backbone)
    assert [one.stride for one in geometry] == [8, 16, 32]
    found = []
    for height, width in ((320, 352), (416, 384)):
        maps = [torch.zeros(1, 1, math.ceil(height / one.stride), math.ceil(width / one.stride)) for one in geometry]
        if family == "SSD":
            found.append(default_boxes_of(net.anchor_generator, maps, geometry, (height, width), SIDE))
        else:
            found.append(torch.cat(anchors_of(net.anchor_generator, maps, geometry)))
    assert rows(found[0]) < rows(found[1])


def test_convolutions_without_padding_shift_the_cells_of_a_map() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 3))
    assert geometry_of(backbone) == ((2, 1.0, 5),)


@by_family
@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
def test_the_smallest_images(family: str, size: tuple[int, int]) -> None:
    detector = sniper.from_torchvision(network(family)).eval()
    assert len(detector.detect(Images(torch.rand(1, 3, *size), torch.tensor([size]), torch.ones(1)))) == 1


def test_what_a_family_can_do() -> None:
    two_stages, one_stage = (sniper.from_torchvision(network(name)) for name in ("Mask R-CNN", "RetinaNet"))
    assert isinstance(two_stages, Detector)
    assert isinstance(two_stages, Proposer)
    assert isinstance(two_stages, ProposalTrainer)
    assert isinstance(two_stages, MaskDetector)
    assert two_stages.predicts_masks
    assert isinstance(one_stage, Detector)
    assert not isinstance(one_stage, Proposer | ProposalTrainer | MaskDetector)
    assert (two_stages.stride, two_stages.focus_stride) == (16, None)
    with pytest.raises(RecipeError, match=facts("Linear", "FasterRCNN")):
        sniper.from_torchvision(nn.Linear(1, 1))


def test_keypoints_are_not_left_untrained_silently() -> None:
    with pytest.raises(RecipeError, match=facts("KeypointRCNN", "keypoints", "FasterRCNN")):
        sniper.from_torchvision(two_stages(KeypointRCNN, num_keypoints=2))


def test_proposals_come_with_the_detections_and_train_alone() -> None:
    detector = sniper.from_torchvision(network("Faster R-CNN"))
    batch = batch_of(CHIPS)
    both = detector.eval().outputs(batch, proposals=True)
    for one, own in zip(both.proposals, detector.propose(batch), strict=True):
        assert torch.equal(one.boxes, own.boxes)
        assert (one.labels == 0).all()
        assert (one.scores.diff() <= 0).all()
    detector.train()
    torch.manual_seed(5)
    alone = {name: loss.item() for name, loss in detector.proposal_losses(batch).items()}
    whole, _ = losses_and_gradients(detector, batch)
    assert alone == {name: whole[name] for name in ("loss_objectness", "loss_rpn_box_reg")}


def test_masks_of_boxes_are_the_librarys() -> None:
    net = network("Mask R-CNN").eval()
    detector = sniper.from_torchvision(net).eval()
    images = batch_of(CHIPS[:1])
    with torch.no_grad():
        maps = net.backbone(detector._normalised(images))
        found = detector.outputs(images, features=True)
        boxes, labels = found.detections[0].boxes[:5], found.detections[0].labels[:5]
        pooled = net.roi_heads.mask_roi_pool(maps, [boxes], [(SIDE, SIDE)])
        logits = net.roi_heads.mask_predictor(net.roi_heads.mask_head(pooled))
    expected = logits[torch.arange(5), labels + 1].sigmoid()
    torch.testing.assert_close(detector.predict_masks(found.features[0], boxes, labels), expected)


@by_family
def test_a_focus_branch_adds_one_loss(family: str) -> None:
    plain, focusing = (sniper.from_torchvision(network(family), focus=focus).train() for focus in (False, True))
    batch = batch_of(CHIPS)
    expected, _ = losses_and_gradients(plain, batch)
    found, gradients = losses_and_gradients(focusing, batch)
    assert math.isfinite(found.pop("focus"))
    assert found == expected
    assert gradients["focus.conv1.weight"].abs().max() > 0
    small = Images(batch.pixels[:, :, :120, :100], torch.tensor([[120, 100]] * 2), torch.ones(2))
    assert focusing.outputs(small, focus=True).focus.shape == (2, 8, 7)
    assert focusing.focus_stride == 16


# --- the library's builders ------------------------------------------------------------------------------------------


def test_every_builder_of_the_installed_release_is_known() -> None:
    installed = torchvision.models.list_models(module=torchvision.models.detection)
    assert set(installed) - set(BUILDERS) == {"keypointrcnn_resnet50_fpn"}, "chips have no keypoints"


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_makes_a_training_step(name: str) -> None:
    torch.manual_seed(0)
    detector = build_torchvision(TorchvisionConfig(name=name, weights=None), 2).train()
    for module in detector.modules():
        if isinstance(module, RoIHeads):
            module.fg_bg_sampler.batch_size_per_image = 16  # of 512: seconds of convolutions in the second version
    chips = 2 if name.startswith("ssdlite") else 1  # its batch norms see maps of one cell
    batch = batch_of([[((8, 6, 60, 58), 1, VALID), ((2, 30, 30, 60), 0, IGNORED)]] * chips, side=64)
    losses = detector.losses(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    builder = BUILDERS[name]
    assert detector.stride == builder.focus_stride
    assert bool(getattr(detector, "predicts_masks", False)) == builder.masks
    assert [name for name in detector.class_layers if f"{name}.weight" not in detector.state_dict()] == []

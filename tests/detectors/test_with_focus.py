"""A focus branch on a torchvision detector: it trains, is kept in checkpoints, and says where to look closer."""

import copy
import csv
import inspect
import logging
import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator

import sniper
from facts import facts
from rectangle_set import SIZE, TINY, make_set
from sniper.data.source import load_dataset
from sniper.detectors.protocol import Detector, FocusDetector, MaskDetector, ProposalTrainer, Proposer, ReportsMetrics
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.detectors.with_focus import WithFocus, with_focus
from sniper.errors import RecipeError
from sniper.inference.config import InferenceConfig
from sniper.inference.detect import detect_images
from sniper.inference.images import ImageInput
from sniper.nn.folding import fold_norms
from sniper.pixels.decode import read_image
from sniper.pyramid import Level, Pyramid
from sniper.structures import Batch, Detections, Images, ObjectState

STRIDE, LAYER = 16, "net.backbone.8"  # of MobileNetV3 small: 48 features
PYRAMID = Pyramid(levels=(Level(scale=2.0, infer_range_px=(0, 40)), Level(scale=1.0, infer_range_px=(20, None))))


class RetinaNet(nn.Module):
    """On a small backbone with random weights. torchvision resizes every padded input unless it is told not to."""

    def __init__(self, *, classes: int = 3, resizes: bool = False) -> None:
        super().__init__()
        # Without the last layer: heads of its 576 features have 24 million weights.
        backbone = torchvision.models.mobilenet_v3_small(weights=None).features[:12]
        backbone.out_channels = 96
        anchors = AnchorGenerator(sizes=((16, 32),), aspect_ratios=((1.0,),))
        self.net = torchvision.models.detection.RetinaNet(
            backbone, classes, anchor_generator=anchors, score_thresh=0.0, topk_candidates=20
        )
        if not resizes:
            self.net.transform.resize = lambda image, target: (image, target)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.net(list(batch.pixels), batch.targets(first_label=0))

    def detect(self, images: Images) -> list[Detections]:
        return [Detections(one["boxes"], one["scores"], one["labels"]) for one in self.net(list(images.pixels))]


class OneByOne(RetinaNet):
    def detect(self, images: Images) -> list[Detections]:
        return [super(OneByOne, self).detect(_images(one[None]))[0] for one in images.pixels]


def _images(pixels: Tensor) -> Images:
    height, width = pixels.shape[2:]
    return Images(pixels, torch.tensor([[height, width]] * len(pixels)), torch.ones(len(pixels)))


def _random(count: int, height: int, width: int) -> Images:
    return _images(torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)))


def _batch() -> Batch:
    images = _random(2, 96, 128)
    boxes = torch.tensor([[[8.0, 8, 40, 40]], [[30.0, 20, 60, 70]]])
    return Batch(
        images.pixels, images.valid_hw, images.scale,
        boxes=boxes, labels=torch.zeros(2, 1, dtype=torch.int64),
        state=torch.full((2, 1), int(ObjectState.VALID)),
        range_px=torch.tensor([[0.0, math.inf]] * 2), chip_index=torch.arange(2),
    )  # fmt: skip


def _focused(kind: type[RetinaNet] = RetinaNet) -> WithFocus:
    torch.manual_seed(0)
    return sniper.with_focus(kind(), layer=LAYER)


def _equal(one: list[Detections], other: list[Detections]) -> bool:
    return all(
        torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) for a, b in zip(one, other, strict=True)
    )


# --- the branch -----------------------------------------------------------------------------------------------------


def test_stride_and_features_are_those_of_the_layer() -> None:
    detector = _focused()
    assert detector.training, "it stays in its mode"
    assert detector.focus_stride == STRIDE
    assert detector.focus.conv1.in_channels == 48
    assert sniper.with_focus(RetinaNet(), layer="net.backbone.3", channels=8).focus_stride == 8
    assert isinstance(detector, Detector)
    assert isinstance(detector, FocusDetector)


@pytest.mark.parametrize("hw", [(96, 128), (33, 95), (1, 1), (64, 200)])
def test_one_look_gives_detections_and_a_map_of_the_canvas(hw: tuple[int, int]) -> None:
    detector = _focused().eval()
    images = _random(2, *hw)
    found, _, focus, _ = detector.outputs(images, focus=True)
    assert _equal(found, detector.detector.detect(images))
    assert _equal(found, detector.detect(images))
    assert focus.shape == (2, math.ceil(hw[0] / STRIDE), math.ceil(hw[1] / STRIDE))
    assert ((focus >= 0) & (focus <= 1)).all()
    alone = detector.outputs(_images(images.pixels[1:]), focus=True).focus
    torch.testing.assert_close(alone, focus[1:])


def test_a_detector_may_look_at_one_canvas_after_the_other() -> None:
    images = _random(2, 96, 128)
    together, one_by_one = _focused().eval(), _focused(OneByOne).eval()
    torch.testing.assert_close(one_by_one.outputs(images, focus=True).focus, together.outputs(images, focus=True).focus)


def test_folding_norms_leaves_the_map_as_it_was_learned() -> None:
    torch.manual_seed(0)
    detector = with_focus(RetinaNet(), LAYER + ".block.0.0").eval()  # a convolution with a norm behind it
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var *= 4
        detector.focus.logits.weight *= 1000
    images = _random(1, 64, 96)
    plain = detector.outputs(images, focus=True).focus
    fold_norms(detector)
    torch.testing.assert_close(detector.outputs(images, focus=True).focus, plain, rtol=1e-3, atol=1e-3)


def test_the_loss_reaches_branch_and_backbone_and_leaves_the_others_alone() -> None:
    detector, batch = _focused(), _batch()
    torch.manual_seed(1)
    losses = detector(batch)
    assert set(losses) == {"classification", "bbox_regression", "focus"}
    assert losses["focus"].item() == pytest.approx(math.log(2), abs=0.05)
    plain = copy.deepcopy(detector.detector)
    torch.manual_seed(1)
    for name, loss in plain.losses(batch).items():
        torch.testing.assert_close(loss, losses[name], rtol=1e-3, atol=1e-4)
    losses["focus"].backward()
    assert all(weight.grad is not None for weight in detector.focus.parameters())
    assert detector.detector.net.backbone[0][0].weight.grad.abs().max() > 0
    assert isinstance(detector, ReportsMetrics)
    assert detector.training_metrics()["focus_recall_at_10"][1] > 0


# --- what else the detector can do ----------------------------------------------------------------------------------


def _seems(detector: object, protocol: type) -> bool:
    """As ``isinstance`` says from Python 3.12 on: without asking ``__getattr__``."""
    static = all(_has(detector, name) for name in protocol.__dict__ if not name.startswith("_"))
    assert static == isinstance(detector, protocol)
    return static


def _has(thing: object, name: str) -> bool:
    try:
        inspect.getattr_static(thing, name)
    except AttributeError:
        return False
    return True


def test_only_what_the_detector_can_do_shows() -> None:
    plain = _focused()
    config = SniperConfig(backbone="timm/test_resnet", weights=None, channels=16, masks=True)
    reference = build_sniper(config, 3)
    able = with_focus(reference, "backbone").eval()
    for protocol in (Proposer, ProposalTrainer, MaskDetector):
        assert not _seems(plain, protocol)
        assert _seems(able, protocol)
    images = _random(1, 64, 96)
    assert _equal(able.propose(images), reference.propose(images))
    assert able.predicts_masks
    kept = able.outputs(images, focus=True, features=True)
    assert kept.focus is not None
    torch.testing.assert_close(kept.focus, able.outputs(images, focus=True).focus)
    assert len(kept.features) == 1
    assert set(able.proposal_losses(_batch())) == {"rpn_class", "rpn_box"}
    assert able.class_layers["detector.head.classes"] == "background"

    other = copy.deepcopy(able)  # as the average of the weights does
    with torch.no_grad():
        other.focus.logits.bias += 1
    assert not torch.equal(other.outputs(images, focus=True).focus, kept.focus)
    assert other.propose.__self__ is other.detector
    torch.testing.assert_close(able.outputs(images, focus=True).focus, kept.focus)


# --- trained, kept and run ------------------------------------------------------------------------------------------


def test_it_trains_and_then_looks_closer_where_its_map_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_set(tmp_path / "set")
    detector = _focused()
    before = copy.deepcopy(detector.state_dict())
    settings = [s for s in TINY if not s.startswith("model.")]
    settings += [f"data.train={data}", "train.ema=0.5", "train.steps=2"]
    run = sniper.train("mobilenetv2", overrides=settings, detector=detector, root=tmp_path)
    rows = list(csv.DictReader((run.folder / "metrics.csv").open()))
    assert {"loss/focus", "loss/classification", "metric/focus_recall_at_10"} <= rows[0].keys()
    weights = detector.state_dict()
    assert not torch.equal(weights["focus.conv1.weight"].cpu(), before["focus.conv1.weight"])

    model = sniper.load_model(run.checkpoint, detector=_focused(), device="cpu")
    images = _random(1, 96, 128)
    averaged = sniper.load_model(run.folder / "last-ema.safetensors", detector=_focused(), device="cpu").detector
    assert torch.equal(model.detector.outputs(images, focus=True).focus, averaged.outputs(images, focus=True).focus)

    pictures = [ImageInput(k, read_image(load_dataset(data).image_path(k))) for k in range(2)]
    shares = {}
    with caplog.at_level(logging.WARNING, "sniper"):
        for threshold in (0.0, 1.0):
            config = InferenceConfig.model_validate({"focus": {"threshold": threshold}})
            found = list(detect_images(model.backend, pictures, PYRAMID, config))
            shares[threshold] = sum(one.pixels_processed for one in found) / sum(one.pixels_full for one in found)
            assert sum(len(one.boxes_xyxy) for one in found) > 0
            assert all((one.boxes_xyxy <= [*SIZE, *SIZE]).all() for one in found)
    assert shares[0.0] == 1
    assert shares[1.0] < 1
    assert "has no focus branch" not in caplog.text


# --- what cannot be done --------------------------------------------------------------------------------------------


class NamesALossFocus(RetinaNet):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"focus": super().losses(batch)["classification"]}


@pytest.mark.parametrize(
    ("build", "layer", "message"),
    [
        (RetinaNet, "net.backbone.layer3", r"RetinaNet has no layer 'net\.backbone\.layer3'; it has net\.backbone"),
        (RetinaNet, "", "has no layer ''"),
        (
            RetinaNet,
            "net.head.classification_head",
            r"layer 'net\.head.*' should give one map .* it gave a tensor \(1,",
        ),
        (RetinaNet, "net.transform", "it gave a tuple"),
        (RetinaNet, "net.anchor_generator", "it gave a list"),
        (lambda: RetinaNet(resizes=True), LAYER, "must not resize its input"),
        (lambda: nn.Linear(1, 1), "", "Linear is no detector"),
        (_focused, "detector." + LAYER, "WithFocus has a focus branch already"),
    ],
)
def test_one_sentence_says_what_is_wrong(build: type, layer: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        with_focus(build(), layer)
    assert "\n" not in str(caught.value)


def test_what_shows_only_while_it_trains() -> None:
    with pytest.raises(RecipeError, match=facts("NamesALossFocus", "loss", "focus")):
        _focused(NamesALossFocus).losses(_batch())
    detector = _focused()
    detector.layer = "net.head.regression_head"
    with pytest.raises(RecipeError, match=r"but it gave a tensor|but it ran"):
        detector.losses(_batch())
    detector.layer = "net.backbone.3"
    with pytest.raises(RecipeError, match=facts("12 x 16", "96 x 128 px", "expected", "6 x 8", "16 px")):
        detector.losses(_batch())

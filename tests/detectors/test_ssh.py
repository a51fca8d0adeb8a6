"""SSH: the network of the paper, its anchors and hard examples, and what ignored objects must not teach."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.ops import box_iou

from facts import facts
from sniper.detectors.protocol import Detector, FocusDetector, MultiOutput, Proposer
from sniper.detectors.ssh.config import HardExamplesConfig, SshConfig
from sniper.detectors.ssh.losses import hard_examples
from sniper.detectors.ssh.network import Ssh, build_ssh
from sniper.errors import CheckpointError, RecipeError
from sniper.nn.matching import match_anchors
from sniper.nn.mobilenet_v1 import mobilenet_v1_quarter
from sniper.structures import Batch, Images, ObjectState
from sniper.training.checkpoint import CheckpointMeta, save_weights
from sniper.training.finetune import start_from

VALID, IGNORED, CROWD, EMPTY = (int(ObjectState[name]) for name in ("VALID", "IGNORED", "CROWD", "EMPTY"))
TINY = {
    "backbone": "timm/test_resnet", "weights": None, "channels": (8, 8, 8), "fused_channels": 8,
    "module_norm": True,
}  # fmt: skip
Chip = list[tuple[tuple[float, ...], int, int]]


def tiny(num_classes: int = 1, **settings: object) -> Ssh:
    torch.manual_seed(0)
    return build_ssh(SshConfig.model_validate(TINY | settings), num_classes)


def batch_of(chips: list[Chip], side: int = 128) -> Batch:
    """A chip is a list of (box, class, state), drawn as bright rectangles whose colour is the class."""
    longest = max(map(len, chips), default=0)
    boxes = torch.zeros(len(chips), longest, 4)
    labels, state = (torch.full((len(chips), longest), -1) for _ in range(2))
    pixels = torch.rand(len(chips), 3, side, side, generator=torch.Generator().manual_seed(7)) * 0.2
    for i, chip in enumerate(chips):
        for j, (box, label, kind) in enumerate(chip):
            boxes[i, j], labels[i, j], state[i, j] = torch.tensor(box, dtype=torch.float32), label, kind
            x1, y1, x2, y2 = map(int, box)
            pixels[i, label % 3, y1:y2, x1:x2] = 0.9
    return Batch(
        pixels=pixels, valid_hw=torch.tensor([[side, side]] * len(chips)), scale=torch.ones(len(chips)), boxes=boxes,
        labels=labels, state=state, range_px=torch.tensor([[0.0, math.inf]] * len(chips)),
        chip_index=torch.arange(len(chips)),
    )  # fmt: skip


CHIPS: list[Chip] = [
    [((20, 30, 50, 64), 0, VALID), ((70, 20, 88, 38), 0, VALID), ((80, 60, 112, 90), 0, IGNORED)],
    [((10, 20, 84, 100), 0, VALID), ((90, 90, 120, 120), 0, CROWD)],
]


def losses_and_gradients(detector: Ssh, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
    detector.zero_grad()
    losses = detector.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, gradients


# --- the paper's network ---------------------------------------------------------------------------------------------


def test_the_vgg_form_is_the_papers() -> None:
    """Section 3 of the paper and its Caffe network: 19.8 million parameters, three modules at strides 8, 16 and 32."""

    def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
        return inputs * outputs * kernel**2 + outputs

    def module(inputs: int, channels: int) -> int:
        half = channels // 2
        context = conv(inputs, half) + 3 * conv(half, half)  # shared, then 5 x 5, and 7 x 7 in two
        return conv(inputs, channels) + context + conv(2 * channels, 2 * 2, 1) + conv(2 * channels, 2 * 4, 1)

    vgg = sum(conv(*pair) for pair in [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)])
    vgg += conv(256, 512) + 5 * conv(512, 512)
    fusion = 2 * conv(512, 128, 1) + conv(128, 128)
    with torch.device("meta"):
        detector = build_ssh(SshConfig(), 1, pretrained=False).eval()
        features = detector.backbone(torch.zeros(1, 3, 500, 640))
        maps = detector._maps(features)
    parameters = sum(parameter.numel() for parameter in detector.parameters())
    assert parameters == vgg + fusion + module(128, 128) + 2 * module(512, 256) == 19_766_372
    assert [tuple(one.shape) for one in features] == [(1, 512, 62, 80), (1, 512, 31, 40), (1, 512, 15, 20)]
    assert [one.logits.shape[1] for one in maps] == [2 * 62 * 80, 2 * 31 * 40, 2 * 15 * 20]
    # conv1 and conv2 keep their weights, as in the paper's training.
    frozen = sum(parameter.numel() for parameter in detector.parameters() if not parameter.requires_grad)
    assert frozen == conv(3, 64) + conv(64, 64) + conv(64, 128) + conv(128, 128)


def test_anchors_are_sixteen_px_times_the_papers_scales() -> None:
    first = [own((2, 3))[:2] for own in tiny().anchors]
    scales = [(anchors[:, 2:] - anchors[:, :2]) / 16 for anchors in first]
    assert [one.tolist() for one in scales] == [[[1, 1], [2, 2]], [[4, 4], [8, 8]], [[16, 16], [32, 32]]]
    centres = [((anchors[:, 2:] + anchors[:, :2]) / 2).unique().tolist() for anchors in first]
    assert centres == [[4], [8], [16]], "the middle of the first cell of strides 8, 16 and 32"


def test_the_largest_background_logit_counts() -> None:
    detector = tiny(background_logits=(3, 1, 1))
    module = detector.detection[0]
    assert module.background.out_channels == 2 * 3
    features = torch.rand(1, 8, 2, 2)
    with torch.no_grad():
        module.eval().background.bias.copy_(torch.tensor([0.0, 9, 1, 2, 0, 7]))
        module.background.weight.zero_()
        logits = module(features).logits
    assert logits[0, :, 0].tolist() == [9, 7] * 4


def test_mobilenet_takes_the_weights_that_go_around(tmp_path: Path) -> None:
    """A checkpoint of a training on ImageNet: names with ``module.``, a classifier, an optimiser beside them."""
    torch.manual_seed(1)
    blocks = torch.nn.Sequential(mobilenet_v1_quarter())
    state = {f"module.{name.replace('_', '.', 1)}": value for name, value in blocks.state_dict().items()}
    assert "module.stage2.5.3.weight" in state
    path = tmp_path / "mobilenet.tar"
    torch.save({"epoch": 3, "state_dict": state | {"module.fc.bias": torch.zeros(9)}, "optimizer": {}}, path)
    config = SshConfig.model_validate(TINY | {"backbone": "sniper/mobilenet_v1_x0.25", "weights": str(path)})
    detector = build_ssh(config, 1)
    assert detector.backbone.map_channels == (64, 128, 256)
    loaded = dict(detector.backbone.body.named_parameters())
    assert torch.equal(loaded["stage3_1.3.weight"], state["module.stage3.1.3.weight"])
    assert sum(one.numel() for one in loaded.values()) == 213_072


def test_what_cannot_be_built_is_one_sentence() -> None:
    with pytest.raises(CheckpointError) as told:
        build_ssh(SshConfig(backbone="sniper/mobilenet_v1_x0.25"), 1)
    assert facts(told.value) == facts(
        "sniper/mobilenet_v1_x0.25 has no ImageNet weights to download; set model.weights to a file with them, as "
        "RetinaFace's mobilenetV1X0.25_pretrain.tar, or to null"
    )
    with pytest.raises(RecipeError, match=facts("sniper", "mobilenet_v1", "did you mean", "mobilenet_v1_x0.25")):
        tiny(backbone="sniper/mobilenet_v1")
    with pytest.raises(ValidationError, match="freeze random weights"):
        SshConfig(weights=None, frozen_stages=1)
    with pytest.raises(ValidationError, match="even"):
        SshConfig(channels=(128, 255, 256))


# --- learning --------------------------------------------------------------------------------------------------------


def test_is_what_the_code_around_it_asks_for() -> None:
    assert isinstance(tiny(), Detector)
    assert isinstance(tiny(), Proposer)
    assert isinstance(tiny(focus=True), FocusDetector)
    assert isinstance(tiny(), MultiOutput)
    assert tiny().focus_stride is None
    assert tiny(focus=True).focus_stride == 16


def test_learns_two_chips_and_finds_their_objects_of_two_classes() -> None:
    chips: list[Chip] = [
        [((8, 10, 28, 34), 0, VALID), ((36, 30, 54, 48), 1, VALID)],
        [((6, 8, 56, 60), 0, VALID)],
    ]
    batch = batch_of(chips, side=64)
    detector = tiny(2, box_weight=4).train()
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-2)
    history = []
    for step in range(30):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 30)  # so that the statistics of the norms settle
        optimizer.zero_grad()
        loss = torch.stack(list(detector.losses(batch).values())).sum()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] / 4
    found = detector.eval().detect(batch)
    for one, chip in zip(found, chips, strict=True):
        for box, label, _ in chip:
            iou = box_iou(torch.tensor([box], dtype=torch.float32), one.boxes)[0]
            hits = (iou > 0.7) & (one.labels == label)
            assert one.scores[hits].max() > 0.15
        overlaps = box_iou(one.boxes, one.boxes) > 0.5
        assert int((overlaps & (one.labels == one.labels[:, None])).sum()) == len(one), "one box an object and class"
    assert found[1].scores[0] > 0.5
    assert box_iou(found[1].boxes[:1], batch.boxes[1, :1])[0, 0] > 0.7


def test_hard_examples_are_the_ones_that_are_most_wrong() -> None:
    """Two chips: one with three positives of which two count, and background of every kind of wrongness."""
    objectness = torch.tensor([[-2.0, 3.0, -5.0, 0.0, 4.0, -1.0, 2.0], [1.0, -3.0, -4.0, 5.0, 6.0, -2.0, -6.0]])
    logits = torch.stack((torch.zeros_like(objectness), objectness), dim=2)
    labels = torch.tensor([[1, 1, 1, 0, 0, 0, -1], [0, 0, 0, 0, -1, 0, 0]], dtype=torch.int8)
    config = HardExamplesConfig(negatives_per_positive=2, min_negatives=1, max_positives=2)
    chosen = hard_examples(logits, labels, config)
    assert sorted(chosen.positives[chosen.is_positive > 0].tolist()) == [0, 2], "the easy one at 1 is left out"
    # Two positives allow four negatives, wherever they are: 4 and 3 of the first chip, 3 and 0 of the second.
    assert sorted(chosen.negatives[chosen.is_negative > 0].tolist()) == [3, 4, 7 + 0, 7 + 3]
    nothing = hard_examples(logits, labels.clamp(max=0), config.model_copy(update={"min_negatives": 3}))
    assert nothing.is_positive.sum() == 0
    assert nothing.is_negative.sum() == 6, "three a chip, where there is no object at all"


@pytest.mark.parametrize(
    "chips",
    [
        [[], []],
        [[((0, 0, 0, 0), 0, EMPTY)], []],
        [[((50, 50, 51, 51), 0, VALID)], []],
        [[((20, 20, 90, 90), 0, IGNORED)]],
    ],
    ids=["no slots", "empty slots", "one pixel", "only ignored"],
)
def test_losses_are_finite_and_reach_every_parameter(chips: list[Chip]) -> None:
    detector = tiny(focus=True, focus_channels=8).train()
    losses, gradients = losses_and_gradients(detector, batch_of(chips))
    assert list(losses) == ["class_8", "box_8", "class_16", "box_16", "class_32", "box_32", "focus"]
    assert all(math.isfinite(value) for value in losses.values())
    assert gradients.keys() == dict(detector.named_parameters()).keys()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    if not any(entry[2] == VALID for chip in chips for entry in chip):
        assert losses["box_8"] == losses["box_16"] == losses["box_32"] == 0


# --- ignored objects -------------------------------------------------------------------------------------------------


def moved(batch: Batch, chip: int, slot: int, **what: object) -> Batch:
    """The batch with other values in one slot; the pixels stay."""
    columns = {name: getattr(batch, name).clone() for name in what}
    for name, value in what.items():
        columns[name][chip, slot] = torch.as_tensor(value, dtype=columns[name].dtype)
    return dataclasses.replace(batch, **columns)


@pytest.mark.parametrize(("chip", "slot"), [(0, 2), (1, 1)], ids=["ignored", "crowd"])
def test_what_is_ignored_is_neither_learned_nor_background(chip: int, slot: int) -> None:
    detector, batch = tiny().train(), batch_of(CHIPS)
    losses, gradients = losses_and_gradients(detector, batch)
    again, same = losses_and_gradients(detector, moved(batch, chip, slot, labels=7))
    assert losses == again
    assert all(torch.equal(gradients[name], same[name]) for name in gradients)
    assert losses != losses_and_gradients(detector, moved(batch, chip, slot, state=VALID, labels=0))[0]
    anchors = torch.cat([own(hw) for own, hw in zip(detector.anchors, [(16, 16), (8, 8), (4, 4)], strict=True)])
    box = batch.boxes[chip, slot]
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    size = (box[2:] - box[:2]).prod().sqrt()
    on_it = ((middle - (box[:2] + box[2:]) / 2).abs() < 6).all(dim=1) & (anchors[:, 2] - anchors[:, 0] - size < 4)
    on_it &= anchors[:, 2] - anchors[:, 0] > 24
    assert on_it.any()
    expected = {int(batch.state[chip, slot]): -1, EMPTY: 0, VALID: 1}
    for state, label in expected.items():
        other = moved(batch, chip, slot, state=state)
        config = detector.config.anchor_match
        labels = match_anchors(anchors, other.boxes, other.state, other.valid_hw, (128, 128), config).labels
        assert (labels[chip, on_it] == label).any()
        assert set(labels[chip, on_it].tolist()) <= {label, -1}


def test_all_crowd_teaches_nothing() -> None:
    losses, gradients = losses_and_gradients(tiny().train(), batch_of([[((0, 0, 128, 128), 0, CROWD)]]))
    assert set(losses.values()) == {0}
    assert all((gradient == 0).all() for gradient in gradients.values())


# --- detection -------------------------------------------------------------------------------------------------------


@pytest.fixture
def finder() -> Ssh:
    """Untrained, but with weights large enough that scores and boxes differ from place to place."""
    detector = tiny(2, score_threshold=0.0, max_detections=10_000, nms_iou=1.0).eval()
    with torch.no_grad():
        for module in detector.detection:
            for layer in (module.objects, module.background, module.deltas):
                layer.weight.mul_(20)
    return detector


def images(*pictures: Tensor, padded: tuple[int, int]) -> Images:
    """Pictures (3, H, W) on one padded input."""
    pixels = torch.full((len(pictures), 3, *padded), 0.5)
    for row, picture in zip(pixels, pictures, strict=True):
        row[:, : picture.shape[1], : picture.shape[2]] = picture
    return Images(pixels, torch.tensor([p.shape[1:] for p in pictures]), torch.ones(len(pictures)))


def test_batch_equals_single_and_padding_does_not_matter(finder: Ssh) -> None:
    torch.manual_seed(3)
    pictures = [torch.rand(3, 90, 70), torch.rand(3, 33, 60)]
    for method in (finder.detect, finder.propose):
        for picture, found in zip(pictures, method(images(*pictures, padded=(96, 96))), strict=True):
            loud = images(picture, padded=(96, 96))
            loud.pixels[:, :, picture.shape[1] :] = 1.0
            alone = method(loud)[0]
            assert len(alone) == len(found) > 0
            torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=1e-4)
            height, width = picture.shape[1:]
            assert (found.boxes >= 0).all()
            assert (found.boxes <= torch.tensor([width, height, width, height])).all()
            assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 17)])
def test_the_smallest_images(finder: Ssh, size: tuple[int, int]) -> None:
    assert len(finder.detect(images(torch.rand(3, *size), padded=size))) == 1


def test_one_forward_pass_gives_all(finder: Ssh) -> None:
    detector = tiny(focus=True, focus_channels=8)
    both = detector.outputs(images(torch.rand(3, 64, 80), padded=(64, 80)), proposals=True, focus=True, features=True)
    assert both.focus is not None
    assert both.focus.shape == (1, 4, 5)
    assert both.proposals is not None
    assert set(both.proposals[0].labels.tolist()) == {0}
    assert both.features is None


def test_rows_of_classes_follow_their_names(tmp_path: Path) -> None:
    """From a detector of cats and faces to one of faces and dogs: two anchors a cell, so two runs of rows."""
    former, detector = tiny(2), tiny(2)
    torch.nn.init.normal_(former.detection[1].objects.weight)
    meta = CheckpointMeta(class_names=("cat", "face"))
    save_weights(tmp_path / "former.safetensors", former.state_dict(), meta)
    own = detector.detection[1].objects.weight.detach().clone()
    start = start_from(detector, tmp_path / "former.safetensors", ("face", "dog"))
    assert start.shared_classes == 1
    found, given = detector.detection[1].objects.weight, former.detection[1].objects.weight
    assert torch.equal(found[[0, 2]], given[[1, 3]])
    assert torch.equal(found[[1, 3]], own[[1, 3]])


def test_modules_whose_sizes_nobody_keeps_do_not_run() -> None:
    detector = tiny()
    images = batch_of(CHIPS)
    everything = detector.detect(images)
    ran: list[int] = []
    for number, module in enumerate(detector.detection):
        module.register_forward_hook(lambda module, given, output, number=number: ran.append(number))
    large = torch.tensor([[64.0, math.inf]] * 2)
    detector.detect(dataclasses.replace(images, kept_px=large))
    assert ran == [1, 2]
    ran.clear()
    mixed = detector.detect(dataclasses.replace(images, kept_px=torch.tensor([[64.0, math.inf], [0.0, math.inf]])))
    assert ran == [0, 1, 2]
    assert torch.equal(mixed[1].boxes, everything[1].boxes)
    alone = detector.detect(dataclasses.replace(images, kept_px=large))
    assert torch.equal(mixed[0].scores, alone[0].scores), "what an input gives does not depend on its batch"

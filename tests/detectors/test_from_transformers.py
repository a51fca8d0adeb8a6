"""Detectors of transformers on chips: the library's losses, without what lies on ignored objects and in crowds."""

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sniper
from chip_batches import (
    CHIPS,
    CROWD,
    EMPTY,
    SIDE,
    VALID,
    assert_resuming_is_exact,
    batch_of,
    changed,
    losses_and_gradients,
    same,
)
from facts import facts
from sniper.detectors.from_transformers.build import build_transformers
from sniper.detectors.from_transformers.detector import TransformersDetector
from sniper.detectors.from_transformers.models import RECIPES
from sniper.detectors.from_transformers.targets import corners, targets_of
from sniper.detectors.protocol import Detector, MaskDetector, MultiOutput, ProposalTrainer, Proposer
from sniper.errors import RecipeError
from sniper.structures import Batch, Images
from tiny_transformers import TINY_NETWORKS, tiny_network

pytest.importorskip("transformers")
pytest.importorskip("scipy")

CLASSES = 3
FIVE = ("a", "b", "c", "d", "e")  # logits do not look like boxes
DENOISED = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
by_family = pytest.mark.parametrize("family", TINY_NETWORKS)


def detector_of(family: str) -> TransformersDetector:
    return sniper.from_transformers(tiny_network(family), max_detections=60, score_threshold=0.0)


def learned_only(chips: list = CHIPS) -> list:
    return [[one for one in chip if one[2] == VALID] for chip in chips]


def found_by(detector: TransformersDetector, batch: Batch) -> Tensor:
    """(B, 10, 4) boxes of the last of the last layer's queries in training, network px."""
    boxes: list[Tensor] = []
    own = detector.net.loss_function

    def computed(logits: Tensor, labels: list, device: object, pred_boxes: Tensor, *args: Any, **more: Any) -> Any:
        boxes.append(pred_boxes.detach())
        return own(logits, labels, device, pred_boxes, *args, **more)

    detector.net.loss_function = computed
    losses_and_gradients(detector, batch)
    detector.net.loss_function = own
    return corners(boxes[0][:, -10:]) * SIDE


def with_ignored_where_it_finds(detector: TransformersDetector) -> Batch:
    """Two chips; what is ignored in the first lies where a query is, and so does the crowd in the second."""
    boxes = found_by(detector, batch_of(CHIPS)).clamp(0, SIDE)
    far = (boxes - torch.tensor([20.0, 30, 60, 80])).abs().sum(dim=2).argmax(dim=1)
    batch = changed(batch_of(CHIPS), 0, 2, boxes=boxes[0, far[0]])
    return changed(batch, 1, 1, boxes=boxes[1, far[1]])


# --- the library's own losses and detections -------------------------------------------------------------------------


@by_family
def test_without_ignored_objects_the_losses_are_the_librarys(family: str) -> None:
    net, batch = tiny_network(family).train(), batch_of([*learned_only(), []])
    detector = sniper.from_transformers(tiny_network(family)).train()
    found, gradients = losses_and_gradients(detector, batch)
    pixels = detector.normalise(batch)
    targets = targets_of(batch, (SIDE, SIDE), detector.rule)
    torch.manual_seed(5)
    labels = [{name: one[name] for name in ("class_labels", "boxes")} for one in targets]
    loss = net(pixel_values=pixels, labels=labels).loss
    loss.backward()
    assert sum(found.values()) == pytest.approx(loss.item(), rel=1e-6)
    assert all(value > 0 or name == "loss_ddf" for name, value in found.items())
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            atol = 1e-5 * max(1.0, parameter.grad.abs().max().item())
            torch.testing.assert_close(gradients[f"net.{name}"], parameter.grad, atol=atol, rtol=1e-4)


def of_library(outputs: Any, family: str) -> list[dict[str, Tensor]]:
    from transformers import DetrImageProcessor, RTDetrImageProcessor

    processor = RTDetrImageProcessor() if family == "rt_detr" else DetrImageProcessor()
    found: list = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(SIDE, SIDE)] * 2)
    return found


@pytest.mark.parametrize("family", ["rt_detr", "detr"])
def test_detections_are_the_librarys(family: str) -> None:
    """The library takes the best class of each query of DETR; here a query may be of several."""
    detector = detector_of(family).eval()
    images = batch_of(CHIPS)
    with torch.no_grad():
        expected = of_library(detector.net(pixel_values=detector.normalise(images)), family)
    for one, own in zip(detector.detect(images), expected, strict=True):
        own_rows = {
            (round(score, 4), int(label)) for score, label in zip(own["scores"].tolist(), own["labels"], strict=True)
        }
        rows = {(round(score, 4), int(label)) for score, label in zip(one.scores.tolist(), one.labels, strict=True)}
        assert own_rows <= rows
        assert (one.scores.diff() <= 0).all()
        if family == "rt_detr":
            torch.testing.assert_close(one.boxes[:20], own["boxes"].clamp(0, SIDE), atol=1e-3, rtol=0)


# --- ignored objects -------------------------------------------------------------------------------------------------


@by_family
def test_an_ignored_object_changes_no_loss_and_no_gradient(family: str) -> None:
    detector = detector_of(family).train()
    batch = with_ignored_where_it_finds(detector)
    before = losses_and_gradients(detector, batch)
    assert same(before, losses_and_gradients(detector, changed(batch, 0, 2, labels=1)))
    assert same(before, losses_and_gradients(detector, changed(batch, 1, 1, labels=1)))
    for chip, slot in ((0, 2), (1, 1)):
        for state in (EMPTY, VALID):
            after = losses_and_gradients(detector, changed(batch, chip, slot, state=state, labels=1))
            assert before[0] != after[0]
            assert not same(before, after)


def rows_that_learn(detector: TransformersDetector, batch: Batch) -> list[int]:
    """How many queries have a gradient in each chip, in each layer, group and stage that has class logits."""
    logits: list[Tensor] = []
    own = detector.net.loss_function

    def computed(*args: Any, **more: Any) -> Any:
        for value in (*args, *more.values()):
            if isinstance(value, Tensor) and value.shape[-1] in (len(FIVE), len(FIVE) + 1) and value.requires_grad:
                value.retain_grad()
                logits.append(value)
        return own(*args, **more)

    detector.net.loss_function = computed
    losses_and_gradients(detector, batch)
    detector.net.loss_function = own
    gradients = [one.grad.flatten(0, -3) for one in logits if one.grad is not None]
    return [int((row != 0).any(dim=-1).sum()) for one in gradients for row in one]


@by_family
def test_in_a_crowd_only_matched_queries_learn_classes_in_every_layer_and_group(family: str) -> None:
    detector = sniper.from_transformers(tiny_network(family, FIVE)).train()
    learned = ((20, 30, 60, 80), 0, VALID)
    everywhere = ((0, 0, SIDE, SIDE), 1, CROWD)
    plain = rows_that_learn(detector, batch_of([[learned], [learned]]))
    crowded = rows_that_learn(detector, batch_of([[learned, everywhere], [learned, everywhere]]))
    groups = 2 if family in ("lw_detr", "rf_detr") else 1
    denoised = 10 if family in DENOISED else 0
    assert min(count for count in plain if count) >= 20 * groups / 2
    assert max(plain) == 20 + 2 * denoised
    assert len(crowded) == len(plain)
    # Two more where the library gives the logits of the last layer twice.
    assert {count for count in crowded if count} <= {groups, groups + denoised, denoised}
    assert len([count for count in crowded if count]) == len([count for count in plain if count])


@by_family
def test_classes_are_not_learned_where_all_is_crowd(family: str) -> None:
    detector = detector_of(family).train()
    losses, gradients = losses_and_gradients(detector, batch_of([[((0, 0, SIDE, SIDE), 0, CROWD)]]))
    assert all(value == 0 or name == "loss_ddf" for name, value in losses.items())
    if family not in ("d_fine", "deimv2"):  # what a layer learns from the last one needs no objects
        assert all((gradient == 0).all() for gradient in gradients.values())


@by_family
def test_losses_are_finite_without_objects(family: str) -> None:
    losses, gradients = losses_and_gradients(detector_of(family).train(), batch_of([[], []]))
    assert all(math.isfinite(value) for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert sum(losses.values()) > 0


@by_family
def test_resuming_is_exact(family: str, tmp_path: Path) -> None:
    assert_resuming_is_exact(lambda: detector_of(family), tmp_path)


# --- any input, any of the classes -----------------------------------------------------------------------------------


@by_family
def test_what_it_is_and_the_smallest_images(family: str) -> None:
    detector = detector_of(family).eval()
    assert isinstance(detector, Detector)
    assert isinstance(detector, Proposer)
    assert isinstance(detector, MultiOutput)
    assert not isinstance(detector, ProposalTrainer | MaskDetector)
    for height, width in ((1, 1), (3, 200)):
        found = detector.outputs(
            Images(torch.rand(1, 3, height, width), torch.tensor([[height, width]]), torch.ones(1)), proposals=True
        )
        for one in itertools.chain(found.detections, found.proposals):
            assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
            assert (one.boxes <= torch.tensor([width, height] * 2)).all()
            assert (one.scores.diff() <= 0).all()
        assert (found.proposals[0].labels == 0).all()


@by_family
def test_its_settings_build_the_same_network_again(family: str) -> None:
    detector = detector_of(family).eval()
    again = build_transformers(detector.config, CLASSES).eval()
    again.load_state_dict(detector.state_dict())
    images = batch_of(CHIPS)
    for one, other in zip(detector.detect(images), again.detect(images), strict=True):
        assert len(one) > 0
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
    assert again.config == detector.config
    own = detector.state_dict()
    rows = [own[f"{layer}.weight"].shape[0] for layer in detector.class_layers]
    assert set(rows) <= {CLASSES, CLASSES + 1}
    other_classes = build_transformers(detector.config, CLASSES + 2).state_dict()
    differ = {name.rpartition(".")[0] for name, value in own.items() if value.shape != other_classes[name].shape}
    assert differ == set(detector.class_layers)


def test_padding_is_not_seen() -> None:
    detector = detector_of("detr").eval()
    images = batch_of(CHIPS[:1], valid_hw=[[100, 90]])
    other = Images(images.pixels.clone(), images.valid_hw, images.scale)
    other.pixels[:, :, 100:] = 0.3
    one, same_one = detector.detect(images)[0], detector.detect(other)[0]
    assert torch.equal(one.boxes, same_one.boxes)
    assert one.boxes[:, 2].max() <= 90
    assert one.boxes[:, 3].max() <= 100


def test_half_precision_computes_losses_in_single() -> None:
    detector = detector_of("d_fine").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector.losses(batch_of(CHIPS))
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert all(value.isfinite() for value in losses.values())


def test_every_detector_of_the_installed_release_is_known() -> None:
    """But for those of document pages and lines of text, which train differently or not at all."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as INSTALLED

    assert {kind for kind in set(INSTALLED) - set(RECIPES) if not kind.startswith(("pp_doclayout", "pp_ocr"))} == set()
    assert set(TINY_NETWORKS) == set(RECIPES)


def test_what_is_no_such_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=facts("Linear", "rt_detr_v2")):
        sniper.from_transformers(nn.Linear(1, 1))
    net = tiny_network("yolos")
    net.loss_function = lambda *args: None
    with pytest.raises(RecipeError, match="ignored objects cannot be left out"):
        sniper.from_transformers(net)
    config = detector_of("yolos").config
    for architecture, said in (
        ({"model_type": "vit"}, facts("model.architecture", "vit", "yolos")),
        ({"model_type": "rt_detr", "num_queries": "many"}, facts("model.architecture", "num_queries")),
    ):
        with pytest.raises(RecipeError, match=said):
            build_transformers(config.model_copy(update={"architecture": architecture}), 2)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(RecipeError, match=r"pip install 'sniper-detection\[transformers\]'"):
        build_transformers(config, 2)


def test_a_network_may_be_wrapped_twice(recwarn: pytest.WarningsRecorder) -> None:
    net = tiny_network("detr")
    expected = losses_and_gradients(sniper.from_transformers(net).train(), batch_of(CHIPS))
    assert same(expected, losses_and_gradients(sniper.from_transformers(net).train(), batch_of(CHIPS)))


Computed = Callable[..., Any]

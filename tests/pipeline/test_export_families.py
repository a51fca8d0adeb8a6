"""SSH and torchvision's detectors as ONNX files: the numbers of torch on photos, for any batch and size."""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from onnx_parity import assert_same, batch_of, rows_of
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

import sniper
from sniper.backends.onnx.session import Session
from sniper.data.source import load_dataset
from sniper.detectors.protocol import FixedOutputs, Proposer
from sniper.detectors.ssh.config import SshConfig
from sniper.detectors.ssh.modules import DetectionModule, Fusion
from sniper.detectors.ssh.network import Ssh
from sniper.inference.backend import Want
from sniper.nn.fixed import best_slots
from sniper.nn.focus_head import FocusHead
from sniper.nn.sampling import gather_boxes
from sniper.pipeline.export import export
from sniper.pipeline.model import Model, load_model
from sniper.recipe import Recipe
from sniper.structures import Images
from sniper.to_onnx.deepness import DeepnessGraph, write_deepness
from sniper.to_onnx.graph import DetectorGraph, GraphSettings, write_graph

WRITTEN = ["ssh", "retinanet", "fasterrcnn"]  # writing takes seconds, and FCOS shares RetinaNet's code
NAMES, IDS = ("cat", "dog", "bird"), (17, 18, 16)
SETTINGS: dict[str, Any] = {
    "pyramid": {"levels": [{"scale": 1.0, "infer_range_px": [0, 64]}, {"scale": 0.5}], "chip_px": 256},
    "inference": {"window_px": 384},
}
SIDES = ((24,), (64,))


class _Pyramid(nn.Module):
    """Maps at strides 8, 16, ... by a few convolutions: tracing takes its time for each layer."""

    out_channels = 32

    def __init__(self, maps: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 8, 8), nn.BatchNorm2d(32), nn.ReLU())
        self.further = nn.ModuleList(nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()) for _ in range(maps - 1))

    def forward(self, pixels: Tensor) -> "OrderedDict[str, Tensor]":
        maps = [self.stem(pixels)]
        for layer in self.further:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(number), one) for number, one in enumerate(maps))


def _anchors(ratios: tuple[float, ...] = (0.5, 1.0, 2.0)) -> AnchorGenerator:
    return AnchorGenerator(SIDES, (ratios,) * len(SIDES))


def _spread(net: nn.Module, scores: list[nn.Module], deltas: list[nn.Module]) -> nn.Module:
    """Weights with which scores and boxes differ and stay sensible, as those of a trained network do."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for share, layers in ((0.5, scores), (0.1, deltas)):
            for layer in layers:
                layer.weight.mul_(share)
    return net


BOUNDS: dict[str, Any] = {"topk_candidates": 200, "detections_per_img": 100, "score_thresh": 0.2}


def _retinanet() -> nn.Module:
    net = RetinaNet(_Pyramid(), 3, anchor_generator=_anchors(), **BOUNDS)
    classes, boxes = net.head.classification_head, net.head.regression_head
    classes.conv, boxes.conv = classes.conv[:1], boxes.conv[:1]
    return _spread(net, [classes.cls_logits], [boxes.bbox_reg])


def _fcos() -> nn.Module:
    net = FCOS(_Pyramid(), 3, anchor_generator=AnchorGenerator(((8,), (16,)), ((1.0,),) * 2), **BOUNDS)
    classes, boxes = net.head.classification_head, net.head.regression_head
    return _spread(net, [classes.cls_logits, boxes.bbox_ctrness], [])


def _faster_rcnn() -> nn.Module:
    predictor = _Predictor()
    net = FasterRCNN(
        _Pyramid(), rpn_anchor_generator=_anchors(), box_roi_pool=MultiScaleRoIAlign(["0", "1"], 5, 2),
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(32 * 25, 32), nn.ReLU()), box_predictor=predictor,
        rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=100, box_detections_per_img=100,
    )  # fmt: skip
    head = net.rpn.head
    return _spread(net, [head.cls_logits, predictor.cls_score], [head.bbox_pred, predictor.bbox_pred])


class _Predictor(nn.Module):
    """Classes and boxes of 32 features."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(32, 4), nn.Linear(32, 16)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(hidden), self.bbox_pred(hidden)


class _Trunk(_Pyramid):
    """Maps at strides 8, 16 and 32 as a list."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, pixels: Tensor) -> list[Tensor]:  # type: ignore[override]
        return list(super().forward(pixels).values())


def _ssh() -> nn.Module:
    config = SshConfig.model_validate({"weights": None, "before_nms": 200, "max_detections": 100, "nms_iou": 0.4})
    modules = [DetectionModule(32, 8, 3, anchors=2, background_logits=1, norm=True) for _ in range(3)]
    detector = Ssh(_Trunk(), Fusion(32, 32, 32, norm=True), modules, config, focus=FocusHead(32, channels=8))
    scores = [layer for module in modules for layer in (module.background, module.objects)]
    return _spread(detector, scores, [module.deltas for module in modules])


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "ssh": _ssh, "retinanet": _retinanet, "fcos": _fcos, "fasterrcnn": _faster_rcnn,
}  # fmt: skip


class Both(NamedTuple):
    """The same detector in torch and in onnxruntime."""

    torch: Model
    onnx: Model
    path: Path


def _detector(family: str) -> nn.Module:
    torch.manual_seed(3)
    net = BUILDERS[family]()
    return (net if family == "ssh" else sniper.from_torchvision(net)).eval()


@pytest.fixture(scope="module", params=WRITTEN)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """One export for all tests of a family."""
    path = tmp_path_factory.mktemp("exported") / f"{request.param}.onnx"
    model = Model.of(_detector(request.param), Recipe.parse(SETTINGS), NAMES, IDS)
    export(model, path)
    return Both(model, load_model(path, device="cpu"), path)


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco_subset" / "val2017").glob("*.jpg"))[:4]


@pytest.mark.parametrize("family", list(BUILDERS))
def test_fixed_slots_hold_what_lists_hold(family: str, photos: list[Path]) -> None:
    """Before anything is written: the same detector, its outputs in slots and as lists."""
    detector = _detector(family)
    inputs, valid_hw = batch_of(photos[:2], (256, 192))
    images = Images(torch.from_numpy(inputs).permute(0, 3, 1, 2) / 255, torch.from_numpy(valid_hw), torch.ones(2))
    proposes = isinstance(detector, Proposer)
    lists, fixed = detector.outputs(images, proposals=proposes), detector.fixed_outputs(images)
    columns = [(lists.detections, fixed.boxes, fixed.scores, fixed.counts)]
    if proposes:
        columns.append((lists.proposals, fixed.proposal_boxes, fixed.proposal_scores, fixed.proposal_counts))
    for wanted, boxes, scores, counts in columns:
        for image, one in enumerate(wanted):
            count = int(counts[image])
            assert count == len(one) > 10
            torch.testing.assert_close(scores[image, :count], one.scores, atol=1e-5, rtol=0)
            torch.testing.assert_close(boxes[image, :count], one.boxes, atol=1e-3, rtol=0)
            assert scores[image, count:].abs().sum() == boxes[image, count:].abs().sum() == 0
    if not proposes:
        assert fixed.proposal_boxes is None


@pytest.mark.parametrize(("count", "size_wh"), [(1, (512, 384)), (4, (192, 256))])
def test_photos_give_what_torch_gives(both: Both, photos: list[Path], count: int, size_wh: tuple[int, int]) -> None:
    inputs, valid_hw = batch_of(photos[:count], size_wh)
    scale = np.ones(count, np.float32)
    assert both.onnx.backend.proposes == both.torch.backend.proposes
    assert both.onnx.backend.focus_source == both.torch.backend.focus_source
    assert both.onnx.backend.focus_stride == both.torch.backend.focus_stride
    wants = [Want(focus=both.torch.backend.focus_stride is not None)]
    wants += [Want(regions="proposals")] if both.torch.backend.proposes else []
    for want in wants:
        mine = both.torch.backend.look(inputs, valid_hw, scale, want)
        theirs = both.onnx.backend.look(inputs, valid_hw, scale, want)
        assert len(mine.scores) > 10 * count
        for image in range(count):
            assert_same(rows_of(mine, image), rows_of(theirs, image))
        if want.focus:
            assert mine.focus is not None
            assert theirs.focus is not None
            np.testing.assert_allclose(theirs.focus, mine.focus, atol=1e-4)


def test_a_file_is_evaluated_with(both: Both, shared_data: Path) -> None:
    table = load_dataset(shared_data / "coco_subset" / "annotations" / "instances_val2017.json", classes=NAMES)
    table = table.select(np.unique(table.image_rows_of_objects())[:4])
    mine, theirs = (sniper.evaluate(model, table, protocols=("coco", "voc")) for model in (both.torch, both.path))
    assert abs(mine.detections.num_objects - theirs.detections.num_objects) <= 4
    assert theirs.as_dict() == pytest.approx(mine.as_dict(), abs=1e-3)


def test_a_file_is_predicted_with(both: Both, photos: list[Path], tmp_path: Path, sniper: Callable[..., Any]) -> None:
    done = sniper("predict", both.path, photos[0], "-o", tmp_path, "--no-draw", "--focus-threshold", "0.3")
    assert done.code == 0, done.lines
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    wanted = both.torch.focused(0.3).detect(photos[0], min_score=0.05)
    assert abs(len(entry["detections"]) - len(wanted.scores)) <= 2
    assert len(wanted.scores) > 10


class _Cells(nn.Module):
    """The least that can be written: a box of two classes for each cell of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 64, 64)

    def fixed_outputs(self, images: Images) -> FixedOutputs:
        maps = self.conv(images.pixels.to(self.conv.weight.dtype)).float().sigmoid()
        values = maps.flatten(2).transpose(1, 2)
        low, size = values[..., :2] * 100, values[..., 2:4] * 60 + 10
        boxes, labels = torch.cat((low, low + size), dim=-1), (values[..., 5] > 0.5).long()
        scores, rows = best_slots(values[..., 4], 40)
        counts = (scores > 0).sum(dim=1)
        there = torch.arange(40) < counts.unsqueeze(1)
        boxes = gather_boxes(boxes, rows).masked_fill(~there.unsqueeze(-1), 0)
        return FixedOutputs(boxes, scores.masked_fill(~there, 0), labels.gather(1, rows).masked_fill(~there, 0), counts)

    def half_precision(self) -> None:
        self.conv.half()


@pytest.mark.parametrize(("half", "iou"), [(False, 0.3), (True, None)])
def test_half_precision_and_suppression_inside_run_in_onnxruntime(
    tmp_path: Path, half: bool, iou: float | None
) -> None:
    torch.manual_seed(0)
    graph = DetectorGraph(_Cells(), GraphSettings(half, iou))
    write_graph(graph, tmp_path / "cells.onnx", {})
    session = Session(tmp_path / "cells.onnx", "cpu")
    for shape in ((1, 256, 320, 3), (4, 192, 384, 3)):
        images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        valid_hw = np.tile(np.asarray([shape[1:3]]), (shape[0], 1))
        boxes, scores, labels, counts = session.run(graph.output_names, {"images": images, "valid_hw": valid_hw})
        wanted = [one.numpy() for one in graph(torch.from_numpy(images), torch.from_numpy(valid_hw))]
        cells = shape[1] * shape[2] // 64**2
        assert (counts < cells).all() if iou else (counts == cells).all()
        tolerance = 1e-2 if half else 1e-5
        np.testing.assert_array_equal(counts, wanted[3])
        np.testing.assert_allclose(np.sort(scores), np.sort(wanted[1]), atol=tolerance)
        if not half:
            np.testing.assert_allclose(boxes, wanted[0], atol=0.05)
            np.testing.assert_array_equal(labels, wanted[2])


def test_the_form_of_the_plugin_deepness(tmp_path: Path) -> None:
    """What the plugin reads, as it reads it: JSON in the metadata, and an output as YOLOv5 has it."""
    torch.manual_seed(0)
    graph = DeepnessGraph(DetectorGraph(_Cells(), GraphSettings()), 2)
    path = tmp_path / "tiles.onnx"
    write_deepness(graph, path, tile_px=256, class_names=("car", "bus"), min_score=0.25)
    session = Session(path, "cpu")
    assert [port.shape for port in session.inputs] == [(1, 3, 256, 256)]
    assert [port.shape for port in session.outputs] == [(1, 40, 7)]
    told = {name: json.loads(value) for name, value in session.metadata.items()}
    assert told == {
        "model_type": "Detector", "det_type": "YOLO_v5_or_v7_default", "class_names": {"0": "car", "1": "bus"},
        "tile_size": 256, "tiles_overlap": 20, "det_conf": 0.25, "det_iou_thresh": 0.5,
    }  # fmt: skip
    pixels = np.random.default_rng(1).random((1, 3, 256, 256), np.float32)
    ((rows,),) = session.run(["output"], {"images": pixels})
    wanted = graph.inner.found(torch.from_numpy(pixels), torch.tensor([[256, 256]]))
    count = int(wanted.counts[0])
    boxes = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1)[:count]
    np.testing.assert_allclose(boxes, wanted.boxes[0, :count].numpy(), atol=0.05)
    np.testing.assert_allclose(rows[:, 4], wanted.scores[0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(rows[:count, 5:].argmax(axis=1), wanted.labels[0, :count].numpy())
    assert (rows[count:, 4] == 0).all()

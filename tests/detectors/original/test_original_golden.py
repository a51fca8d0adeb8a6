"""The original networks against numbers recorded from the original code: every recorded node, in both precisions.

Random proposals' order is not compared end to end: what lies behind them is fed the recorded regions. Two images run
in double precision, where equal means equal, and one in single precision, where rounding is what it was in the
original: every node and every branch in both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from devices import DEVICE
from recorded import Golden
from sniper.detectors.original.boxes import decode, half_open, inclusive
from sniper.detectors.original.heads import OriginalMaps, RegionOutput
from sniper.detectors.original.network import OriginalConfig, OriginalSniper, build_original
from sniper.mxnet.names import state_dict_of
from sniper.mxnet.params import read_params
from sniper.nn import box_deltas

CLASSES = 80
NETWORKS = {
    "mobilenet": OriginalConfig(network="sniper_mobilenetv2"),
    "res50": OriginalConfig(network="sniper_resnet50"),
    "res101": OriginalConfig(network="sniper_resnet101", focus=True),
    "res101mask": OriginalConfig(network="sniper_resnet101", masks=True),
}
CASES = ("single", "batch2")
STEM = {"bn_data", "conv0", "bn0", "relu0", "pooling0"}
QUANTILE = 0.999
MOST_REGIONS = 0.99


class Network(NamedTuple):
    name: str
    detector: OriginalSniper
    folder: Path

    def recorded(self, case: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.name}_{case}.npz") as data:
            return dict(data)


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest, golden: Golden) -> Network:
    """The network with the weights of its checkpoint; read once."""
    name = request.param
    file = golden.file(f"net/{name}-0001.params.xz")
    detector = build_original(NETWORKS[name], CLASSES)
    detector.load_state_dict(state_dict_of(read_params(file), detector, file=file.name, network=name))
    return Network(name, detector.eval().to(DEVICE), file.parent)


class Nodes(dict[str, Tensor]):
    """Values inside a network, by the original's names, as it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[RemovableHandle] = []

    def watch(self, module: nn.Module, name: str, pick: Callable[..., Tensor] = lambda output: output) -> None:
        def keep(module: nn.Module, inputs: tuple, output: object) -> None:
            self[name] = pick(output).detach().clone()  # the next activation may work in place

        self.hooks.append(module.register_forward_hook(keep))


@contextmanager
def watched(detector: OriginalSniper) -> Iterator[Nodes]:
    nodes = Nodes()
    if hasattr(detector.backbone, "stacks"):
        watch_mobilenet(nodes, detector.backbone)
    else:
        watch_resnet(nodes, detector.backbone)
    watch_heads(nodes, detector)
    try:
        yield nodes
    finally:
        for hook in nodes.hooks:
            hook.remove()


def watch_resnet(nodes: Nodes, backbone: nn.Module) -> None:
    nodes.watch(backbone.norm_in, "bn_data")
    nodes.watch(backbone.conv, "conv0")
    nodes.watch(backbone.norm, "bn0")
    nodes.watch(backbone.relu, "relu0")
    nodes.watch(backbone.pool, "pooling0")
    first, last = backbone.stage1[0], backbone.stage4
    nodes.watch(first, "stage1_unit1_out")
    nodes.watch(first.conv3, "stage1_unit1_conv3")
    nodes.watch(first.shortcut, "stage1_unit1_sc")
    nodes.watch(last[0].relu2, "stage4_unit1_relu2")
    for unit in range(3):
        nodes.watch(last[unit].conv2, f"stage4_unit{unit + 1}_conv2")
        nodes.watch(last[unit].conv2.offset, f"stage4_unit{unit + 1}_offset")
    for stage in range(1, 5):
        nodes.watch(getattr(backbone, f"stage{stage}"), f"stage{stage}_out")
    nodes.watch(backbone, "cat4", lambda maps: torch.cat(maps, dim=1))


def watch_mobilenet(nodes: Nodes, backbone: nn.Module) -> None:
    nodes.watch(backbone.first.conv, "first-3x3-conv-conv2d")
    nodes.watch(backbone.first, "first-3x3-conv-relu6")
    nodes.watch(backbone.stacks[1][0].depthwise.conv, "seq-1-block0-depthwise-conv2d")
    for index, stack in enumerate(backbone.stacks):
        kind = "shortcut" if len(stack) > 1 else "linear-batchnorm"
        nodes.watch(stack, f"seq-{index}-block{len(stack) - 1}-{kind}")
    nodes.watch(backbone.last, "last_fm")


def watch_heads(nodes: Nodes, detector: OriginalSniper) -> None:
    rpn, head = detector.rpn, detector.head
    nodes.watch(rpn.conv, "rpn_conv_3x3")
    nodes.watch(rpn.relu, "rpn_relu")
    nodes.watch(rpn, "rpn_cls_score", lambda maps: maps.logits)
    nodes.watch(rpn, "rpn_bbox_pred", lambda maps: maps.deltas)
    nodes.watch(rpn, "rpn_cls_prob_reshape", lambda maps: maps.probabilities())
    nodes.watch(detector.reduction, "conv_new_1_relu")
    nodes.watch(head.pool.plain, "offset_t")
    nodes.watch(head.pool.offsets, "offset")
    nodes.watch(head.pool, "deformable_roi_pool")
    nodes.watch(head.first, "fc_new_1")
    nodes.watch(head.second, "fc_new_2")
    nodes.watch(head.classes, "cls_score")
    nodes.watch(head.classes, "cls_prob", lambda logits: logits.softmax(dim=1))
    # The checkpoint's test weights predict codes without the deviations, which our decoding divides by.
    nodes.watch(
        head.deltas,
        "bbox_pred",
        lambda deltas: deltas / deltas.new_tensor(box_deltas.REGION_WEIGHTS).repeat_interleave(2),
    )
    if detector.focus is not None:
        nodes.watch(detector.focus.relu1, "conv_new_2_relu")
        nodes.watch(detector.focus.relu2, "conv_new_3_relu")
        nodes.watch(detector.focus, "conv_new_out")
        nodes.watch(detector.focus, "scale_prob", lambda logits: logits.softmax(dim=1))
    if detector.masks is not None:
        nodes.watch(detector.masks.pool.plain, "mask_offset_t")
        nodes.watch(detector.masks.pool.offsets, "mask_offset")
        nodes.watch(detector.masks.pool, "mask_deformable_roi_pool")
        nodes.watch(detector.masks.convs.relu4, "mask_relu_4")
        nodes.watch(detector.masks.relu, "mask_deconv_relu")
        nodes.watch(detector.masks, "mask_out")


@contextmanager
def in_double(detector: OriginalSniper) -> Iterator[None]:
    """Double precision inside; single precision, exactly as before, after."""
    detector.double()
    try:
        yield
    finally:
        detector.float()


@torch.no_grad()
def run(network: Network, inputs: dict[str, np.ndarray], dtype: torch.dtype) -> "Run":
    """All nodes, of the recorded pixels and regions."""
    detector, rois = network.detector, torch.from_numpy(inputs["rois"]).to(DEVICE, dtype)
    with watched(detector) as nodes:
        maps = detector.maps(torch.from_numpy(inputs["data"]).to(DEVICE, dtype))
        output = detector.head(maps.reduced, rois[:, 0].long(), rois[:, 1:])
        if detector.masks is not None:
            rois = torch.from_numpy(inputs["mask_rois"]).to(DEVICE, dtype)
            detector.masks(maps.reduced, rois[:, 0].long(), rois[:, 1:])
    nodes["rpn_cls_prob"] = nodes["rpn_cls_prob_reshape"]  # one array in another shape
    nodes["cls_prob_reshape"], nodes["bbox_pred_reshape"] = nodes["cls_prob"], nodes["bbox_pred"]
    return Run(nodes, output)


class Run(NamedTuple):
    """What came of recorded regions."""

    nodes: Nodes
    output: RegionOutput


def errors(record: dict[str, np.ndarray], name: str, value: Tensor) -> np.ndarray:
    """Differences from every recorded value of a node, and of its mean, in deviations of the node."""
    flat = value.cpu().numpy().ravel()
    if name in record:
        difference = flat - record[name].ravel()
    else:
        difference = flat[record[f"{name}/idx"]]
        difference -= record[f"{name}/val"]
    if f"{name}/stats" not in record:
        return np.abs(difference) / record[name].std()
    assert flat.size == np.prod(record[f"{name}/shape"]), name
    mean, std = record[f"{name}/stats"][1:3]
    return np.append(np.abs(difference), abs(flat.mean(dtype=np.float64) - mean)) / std


def error(record: dict[str, np.ndarray], name: str, value: Tensor, quantile: float) -> float:
    """The error below which that share of a node lies; of what is pooled from regions, a few whole ones may differ."""
    pooled = name.startswith(("offset", "deformable_roi", "fc_new", "cls_", "bbox_pred", "mask_"))
    return float(np.quantile(errors(record, name, value), min(quantile, MOST_REGIONS) if pooled else quantile))


def recorded_nodes(record: dict[str, np.ndarray]) -> list[str]:
    """Names of the nodes behind the inputs; proposals are an operator of their own."""
    names = [key.removesuffix("/stats") for key in record if key.endswith("/stats") and not key.startswith("fork")]
    return [name for name in names if name not in ("rois", "rois_score")]


def tolerance(network: str, node: str) -> float:
    """Of golden/README.md, for single precision, in deviations of the node."""
    if node.startswith("cls_prob"):
        return 0.1
    if network == "mobilenet":
        return 2e-3
    if node in STEM or node.startswith("stage1"):
        return 2e-5
    return {"stage2_out": 1e-4, "stage3_out": 1e-3}.get(node, 2e-2)


@pytest.mark.slow
def test_double_precision_of_two_images(network: Network) -> None:
    inputs, record = network.recorded("batch2"), network.recorded("batch2_f64")
    names = recorded_nodes(record)
    assert names
    with in_double(network.detector):
        done = run(network, inputs, torch.float64)
    found = {name: error(record, name, done.nodes[name], QUANTILE) for name in names}
    assert {name: error for name, error in found.items() if error > 1e-6} == {}
    check_all_regions(network, inputs, done)


@pytest.mark.slow
def test_single_precision_of_one_image(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # else a GPU's convolutions keep ten bits
    record = network.recorded("single")
    done = run(network, record, torch.float32)
    found = {name: error(record, name, done.nodes[name], 1.0) for name in recorded_nodes(record)}
    assert {name: error for name, error in found.items() if error > tolerance(network.name, name)} == {}
    check_all_regions(network, record, done)


def check_all_regions(network: Network, record: dict[str, np.ndarray], done: Run) -> None:
    """Those that ``run`` has been through, and, in single precision, those of the other proposal operators."""
    check_regions(network, record, done, "")
    reduced = done.nodes["conv_new_1_relu"].float()
    for source in ("fork_cpu/", "fork_gpu/"):
        rois = torch.from_numpy(record[f"{source}rois"]).to(DEVICE)
        with torch.no_grad(), watched(network.detector) as nodes:
            output = network.detector.head(reduced, rois[:, 0].long(), rois[:, 1:])
        nodes["cls_prob_reshape"], nodes["bbox_pred_reshape"] = nodes["cls_prob"], nodes["bbox_pred"]
        check_regions(network, record, Run(nodes, output), source)


def check_regions(network: Network, record: dict[str, np.ndarray], done: Run, source: str) -> None:
    """Classes and boxes of the regions that one of the proposal operators gave.

    A sample within rounding of the map's border may count or not, which can empty a bin: where that happened (in one
    region of 300, 1.5e-5 cells from the border) the whole region differs, so a few regions may.
    """
    nodes, output = done
    rois = torch.from_numpy(record[f"{source}rois"]).to(output.deltas)
    assert error(record, f"{source}deformable_roi_pool", nodes["deformable_roi_pool"], MOST_REGIONS) < 2e-2
    for name in ("cls_prob_reshape", "bbox_pred_reshape"):
        found = np.quantile(errors(record, source + name, nodes[name]), MOST_REGIONS)
        assert found < tolerance(network.name, name), source + name
    im_info = torch.from_numpy(record["im_info"]).to(DEVICE)[rois[:, 0].long()]
    boxes = decode(half_open(rois[:, 1:]), output.deltas, im_info[:, :2])
    apart = np.abs((boxes / im_info[:, 2:]).cpu().numpy() - record[f"{source}det_boxes"].reshape(-1, 4))
    assert np.quantile(apart.max(axis=1), MOST_REGIONS) < 0.5
    assert np.median(apart) < 0.05


@pytest.mark.parametrize("case", CASES)
def test_proposals_of_recorded_maps(network: Network, case: str) -> None:
    """In order; only where probabilities are equal in single precision the original's sort is not a stable one."""
    record = network.recorded(case)
    foreground = torch.from_numpy(record["rpn_cls_prob_reshape"].astype(np.float64)).chunk(2, dim=1)[1]
    logits = torch.cat((torch.zeros_like(foreground), foreground.logit()), dim=1)
    maps = OriginalMaps(logits.to(DEVICE), torch.from_numpy(record["rpn_bbox_pred"]).to(DEVICE))
    im_info = torch.from_numpy(record["im_info"]).to(DEVICE)
    found = network.detector.propose_regions(maps, im_info[:, :2], im_info[:, 2])
    rois = record["fork_cpu/rois"].reshape(len(im_info), -1, 5)
    scores = record["fork_cpu/score"].reshape(len(im_info), -1)
    for image, count in enumerate(record["fork_cpu/n_valid"]):
        boxes, score = inclusive(found.boxes[image]).cpu().numpy(), found.scores[image].cpu().numpy().astype(np.float32)
        assert int(found.present[image].sum()) == count
        np.testing.assert_allclose(score[:count], scores[image, :count], atol=1e-6)
        ours, theirs = (in_order(b[:count], scores[image, :count]) for b in (boxes, rois[image, :, 1:]))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def in_order(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """By score, and of equal ones by place."""
    return boxes[np.lexsort((*boxes.round(1).T, -scores))]

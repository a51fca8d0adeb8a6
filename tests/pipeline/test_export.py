"""A detector as an ONNX file: the numbers of torch, and the strategy with it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from onnx_parity import Rows, assert_same, batch_of, rows_of
from PIL import Image
from torch import Tensor, nn

import sniper as package
from facts import facts
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import Sniper
from sniper.detectors.two_stage import FirstStage
from sniper.errors import CheckpointError, RecipeError
from sniper.inference.backend import Want
from sniper.nn.anchors import Anchors
from sniper.nn.backbones import Backbone
from sniper.nn.focus_head import FocusHead
from sniper.nn.fusion import Projection
from sniper.nn.heads import RegionHead
from sniper.nn.rpn import RPN
from sniper.nn.stages import Cut, Stage
from sniper.nn.suppress import keep_greedily
from sniper.pipeline.export import export
from sniper.pipeline.model import Model, load_model
from sniper.recipe import Recipe
from sniper.to_onnx.graph import DetectorGraph, GraphSettings

NAMES, IDS = ("cat", "dog", "bird"), (17, 18, 16)
SETTINGS: dict[str, Any] = {
    "pyramid": {
        "levels": [{"scale": 1.0, "infer_range_px": [0, 64]}, {"scale": 0.5}, {"scale": 0.25}],
        "chip_px": 256,
    },
    "inference": {"window_px": 384, "merge": {"sigma": 0.5}, "focus": {"threshold": 0.5}},
}


class _Body(nn.Module):
    """Maps at strides 16 and 32 by three convolutions: tracing a graph takes its time for each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 4, 4), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())

    def forward(self, pixels: Tensor) -> list[Tensor]:
        fine = self.first(pixels)
        return [fine, self.second(fine)]


def _detector() -> Sniper:
    """The reference detector on that body, with weights large enough for scores and boxes to differ."""
    torch.manual_seed(0)
    config = SniperConfig.model_validate(
        {"weights": None, "focus": True, "proposals": {"keep": 100}, "max_detections": 300, "score_threshold": 0.05}
    )
    maps = [Stage("first", 16, 16), Stage("second", 32, 16)]
    backbone = Backbone(Cut(_Body(), maps, maps), Projection((16, 16), 16), 16, [], "train")
    anchors = Anchors(16, config.anchors)
    first = FirstStage(backbone, anchors, RPN(16, 16, anchors.per_cell))
    focus = FocusHead(16, channels=8)
    detector = Sniper(first, RegionHead(16, 16, 3, channels=8, width=16), config, focus=focus)
    with torch.no_grad():
        for layer in (detector.rpn.objectness, detector.rpn.deltas, detector.head.classes, focus.logits):
            layer.weight.mul_(30)
    return detector.eval()


class Both(NamedTuple):
    """The same detector in torch and in onnxruntime."""

    torch: Model
    onnx: Model
    path: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """One export for all tests."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    model = Model.of(_detector(), Recipe.parse(SETTINGS), NAMES, IDS)
    export(model, path)
    return Both(model, load_model(path, device="cpu"), path)


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "coco_subset" / "val2017").glob("*.jpg"))[:4]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("size_wh", [(512, 384), (192, 256)])
def test_one_batch_of_photos_gives_what_torch_gives(
    both: Both, photos: list[Path], count: int, size_wh: tuple[int, int]
) -> None:
    inputs, valid_hw = batch_of(photos[:count], size_wh)
    scale = np.ones(count, np.float32)
    for want in (Want(focus=True), Want(regions="proposals")):
        mine = both.torch.backend.look(inputs, valid_hw, scale, want)
        theirs = both.onnx.backend.look(inputs, valid_hw, scale, want)
        assert len(mine.scores) > 20 * count
        for image in range(count):
            assert_same(rows_of(mine, image), rows_of(theirs, image))
        if want.focus:
            assert mine.focus is not None
            assert theirs.focus is not None
            np.testing.assert_allclose(theirs.focus, mine.focus, atol=1e-4)


def test_all_levels_with_autofocus_find_what_torch_finds(both: Both, photos: list[Path]) -> None:
    coarse = np.zeros((1, 128, 192, 3), np.uint8)
    coarse[0, :107, :160] = np.asarray(Image.open(photos[0]).convert("RGB").resize((160, 107)))
    seen = both.torch.backend.look(coarse, np.asarray([[107, 160]]), np.float32([0.25]), Want(focus=True)).focus
    assert seen is not None
    threshold = float(np.sort(seen[0, :7, :10].ravel())[-4:-2].mean())  # three cells of the coarsest level, or so
    one, other = (model.focused(threshold).detect(photos[0], min_score=0) for model in (both.torch, both.onnx))
    assert 0 < other.pixels_processed == one.pixels_processed < one.pixels_full
    assert len(one.scores) > 20
    mine, theirs = (Rows(found.boxes_xyxy, found.scores, found.labels) for found in (one, other))
    assert_same(mine, theirs)


def test_the_strategy_travels_with_the_file(both: Both) -> None:
    assert (both.onnx.class_names, both.onnx.class_ids) == (NAMES, IDS)
    assert both.onnx.pyramid == both.torch.pyramid
    assert both.onnx.recipe.inference == both.torch.recipe.inference
    assert (both.onnx.backend.focus_source, both.onnx.backend.focus_stride) == ("branch", 16)
    assert both.onnx.digest() == load_model(both.path, device="cpu").digest() != both.torch.digest()


def test_the_command_line_predicts_and_evaluates_an_exported_file(
    both: Both, photos: list[Path], shared_data: Path, tmp_path: Path, sniper: Callable[..., Any]
) -> None:
    done = sniper("predict", both.path, photos[0], "-o", tmp_path, "--focus-threshold", "0.2")
    assert done.code == 0, done.lines
    (entry,) = json.loads((tmp_path / "predictions.json").read_text())
    wanted = both.torch.focused(0.2).detect(photos[0], min_score=0.05)
    assert len(entry["detections"]) == len(wanted.scores) > 0
    assert (tmp_path / f"{photos[0].stem}.jpg").is_file()


# One process: whether something is imported shows in no other way.
NO_TORCH = """
import sys
from sniper.cli import main
sys.argv = ["sniper", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print([name for name in ("torch", "torchvision", "accelerate", "timm") if name in sys.modules])
"""


def test_predicting_from_onnx_imports_no_torch(both: Both, photos: list[Path], tmp_path: Path) -> None:
    arguments = ["predict", both.path, photos[0], "-o", tmp_path, "--no-draw"]
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_several_processes_that_run_onnx_import_no_torch(both: Both) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import loaded_modules as l, pathlib; " + (
        f"print(l.loaded_by(pathlib.Path({str(both.path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[[], [], []]"


def test_suppression_inside_the_graph_goes_class_by_class() -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 128, 192, 3), dtype=torch.uint8, generator=random)
    valid_hw = torch.tensor([[128, 192], [100, 150]])
    detector = _detector()
    plain, suppressed = (DetectorGraph(detector, GraphSettings(nms_iou=iou))(pixels, valid_hw) for iou in (None, 0.4))
    for image in range(2):
        count = int(plain[3][image])
        boxes, scores, labels = (column[image, :count] for column in plain[:3])
        wanted = []
        for label in range(3):
            rows = torch.nonzero(labels == label).flatten()
            kept, number = keep_greedily(boxes[rows][None], torch.tensor([len(rows)]), len(rows), 0.4)
            wanted += rows[kept[0, : number[0]]].tolist()
        found = int(suppressed[3][image])
        assert 0 < found == len(wanted) < count
        torch.testing.assert_close(suppressed[1][image, :found], scores[sorted(wanted)])
        torch.testing.assert_close(suppressed[0][image, :found], boxes[sorted(wanted)])
        assert suppressed[1][image, found:].abs().sum() == 0


def test_half_precision_keeps_scores_to_a_hundredth() -> None:
    pixels = torch.randint(0, 256, (1, 128, 192, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    detector, valid_hw = _detector(), torch.tensor([[128, 192]])
    single, half = (DetectorGraph(detector, GraphSettings(half=half))(pixels, valid_hw) for half in (False, True))
    assert 0 < (half[1] - single[1]).abs().max() < 0.01
    assert {one.dtype for one in half} == {torch.float32, torch.int64}


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    class Own(nn.Module):
        def losses(self, batch: Any) -> dict[str, Tensor]:
            raise NotImplementedError

        def detect(self, images: Any) -> list[Any]:
            raise NotImplementedError

    model = Model.of(Own(), Recipe.parse(SETTINGS), NAMES, IDS)
    with pytest.raises(RecipeError, match="Own cannot be written as ONNX: it has no fixed_outputs"):
        export(model, tmp_path / "own.onnx")
    with pytest.raises(RecipeError, match=r"expected a name that ends in \.onnx"):
        export(model, tmp_path / "own.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_sniper_wrote_takes_no_form_and_a_damaged_one_is_told(both: Both, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=facts("sniper export", "leave out", "yunet.yaml")):
        load_model(both.path, form="yunet")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(both.path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=facts("damaged.onnx", "no ONNX file", "onnxruntime")):
        package.load_model(damaged)

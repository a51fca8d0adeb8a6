"""A detector in the form that Deepness, a plugin of QGIS, runs on tiles of a map.

The plugin takes one input (1, 3, S, S) float RGB in [0, 1] and one output in the form of YOLOv5, suppresses by itself,
and reads its settings from the file's metadata, each value as JSON.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sniper.to_onnx.graph import DetectorGraph, written

INPUT, OUTPUT = "images", "output"
NMS_IOU, OVERLAP_PERCENT = 0.5, 20


class DeepnessGraph(nn.Module):
    """(1, 3, S, S) pixels to (1, D, 5 + C): middle x, y, width, height in px, score, and 1 at the class."""

    def __init__(self, graph: DetectorGraph, num_classes: int) -> None:
        super().__init__()
        self.inner, self.num_classes = graph, num_classes  # fx keeps the name graph for itself

    def forward(self, images: Tensor) -> Tensor:
        """Detections, best first; rows that are none have the score 0."""
        valid_hw = torch.tensor([images.shape[2:]], device=images.device)
        found = self.inner.found(images, valid_hw)
        low, high = found.boxes[..., :2], found.boxes[..., 2:]
        classes = functional.one_hot(found.labels, self.num_classes).to(found.boxes.dtype)
        return torch.cat(((low + high) / 2, high - low, found.scores.unsqueeze(-1), classes), dim=-1)


def write_deepness(
    graph: DeepnessGraph, path: Path, *, tile_px: int, class_names: Sequence[str], min_score: float
) -> None:
    """Write ``graph`` for tiles of ``tile_px``; detections below ``min_score`` are what the plugin leaves out at first.

    Raises:
        RecipeError: a package that this needs is not installed.
    """
    settings = {
        "model_type": "Detector",
        "det_type": "YOLO_v5_or_v7_default",
        "class_names": dict(enumerate(class_names)),
        "tile_size": tile_px,
        "tiles_overlap": OVERLAP_PERCENT,
        "det_conf": round(min_score, 3),
        "det_iou_thresh": NMS_IOU,
    }
    metadata = {name: json.dumps(value) for name, value in settings.items()}
    written(graph, (torch.zeros(1, 3, tile_px, tile_px),), None, [INPUT], [OUTPUT], metadata, path)

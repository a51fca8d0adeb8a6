"""Chips against whole images for detectors of torchvision and transformers: the same network, the same CPU time.

    python benchmarks/families.py DATA WEIGHTS --cells retinanet:hit_uav:chips retinanet:hit_uav:whole --minutes 4
    python benchmarks/families.py --table

A cell is a family, a data set and a way. Its number of steps is the minutes divided by the CPU seconds of a step,
measured first, so the schedule is complete whatever else the machine does. torchvision's families share one trunk,
MobileNetV1 x 0.25 with ImageNet weights and a small feature pyramid (``WEIGHTS`` is
``mobilenetv1_x0.25_imagenet.tar``); those of transformers are small and start from random weights. A batch is about two
megapixels either way. Each cell is tested the way it was trained, and prints one line of JSON. DATA has a folder for
each set, with ``train.json`` and ``test.json`` in it or in its folder ``annotations``.
"""

import argparse
import csv
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

import sniper
from same_budget import step_seconds
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.nn.backbones import build_trunk
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.detectors import build_detector, resolve_pyramid, with_detector
from sniper.pipeline.evaluate import evaluate_table
from sniper.pipeline.model import load_model
from sniper.pipeline.train import train
from sniper.recipe import Recipe

STRIDES = (8, 16, 32)
MAPS = ("0", "1", "2")
PYRAMID_CHANNELS = 64
REGIONS = 128  # of a chip or image that Faster R-CNN learns; with the library's 512 they are most of a step of chips
RESNET: dict[str, Any] = {
    "embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic",
}  # fmt: skip
HGNET = {
    "model_type": "hgnet_v2", "stem_channels": [3, 16, 16], "stage_in_channels": [16, 16, 32, 48],
    "stage_mid_channels": [16, 16, 16, 32], "stage_out_channels": [16, 32, 48, 64], "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True], "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5], "stage_numb_of_layers": [2, 2, 2, 2], "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 1, 1, 1], "embedding_size": 16, "out_features": ["stage2", "stage3", "stage4"],
}  # fmt: skip
QUERIES = {
    "encoder_hidden_dim": 64, "encoder_in_channels": [32, 48, 64], "encoder_ffn_dim": 128, "d_model": 64,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_ffn_dim": 128, "num_queries": 100,
    "decoder_in_channels": [64, 64, 64], "decoder_layers": 2, "num_denoising": 50, "freeze_backbone_batch_norms": False,
}  # fmt: skip
RT_DETR = {"backbone_config": RESNET | {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4]}, **QUERIES}
DETR: dict[str, Any] = {
    "backbone_config": RESNET | {"model_type": "resnet", "out_features": ["stage4"]},
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_queries": 100,
    "auxiliary_loss": True,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "rt_detr": RT_DETR,
    "rt_detr_v2": RT_DETR,
    "d_fine": {"backbone_config": HGNET, **QUERIES},
    "detr": DETR,
    "conditional_detr": DETR,
    "deformable_detr": DETR | {
        "backbone_config": RESNET | {"model_type": "resnet", "out_features": ["stage2", "stage3", "stage4"]},
        "num_feature_levels": 3, "with_box_refine": True, "two_stage": True, "two_stage_num_proposals": 100,
    },
    "rf_detr": {
        "backbone_config": {
            "model_type": "rf_detr_dinov2", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": 384, "patch_size": 16, "mlp_ratio": 2, "out_indices": [2, 4], "num_windows": 2,
        },
        "d_model": 64, "decoder_layers": 2, "decoder_self_attention_heads": 4, "decoder_cross_attention_heads": 4,
        "decoder_ffn_dim": 128, "num_queries": 100, "group_detr": 4,
    },
}  # fmt: skip


class Pyramid(nn.Module):
    """The trunk with a feature pyramid, or with its maps as they are."""

    def __init__(self, weights: Path, *, fused: bool) -> None:
        super().__init__()
        self.trunk = build_trunk("sniper/mobilenet_v1_x0.25", STRIDES, weights=str(weights))
        widths = list(self.trunk.map_channels)
        self.out_channels: int | list[int] = PYRAMID_CHANNELS if fused else widths
        self.fpn = FeaturePyramidNetwork(widths, PYRAMID_CHANNELS) if fused else None

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Maps by name, finest first."""
        maps = dict(zip(MAPS, self.trunk(pixels), strict=True))
        return maps if self.fpn is None else self.fpn(maps)


def network_of(family: str, classes: int, weights: Path) -> nn.Module:
    """A network of torchvision on the small trunk, for objects of 16 px and more."""
    trunk = Pyramid(weights, fused=family != "ssdlite")
    ratios = ((0.5, 1.0, 2.0),) * 3
    if family in ("fasterrcnn", "maskrcnn"):
        masks = family == "maskrcnn"
        return (MaskRCNN if masks else FasterRCNN)(
            trunk,
            classes + 1,
            rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,)), ratios),
            box_roi_pool=MultiScaleRoIAlign(MAPS, output_size=7, sampling_ratio=2),
            box_batch_size_per_image=REGIONS,
            **({"mask_roi_pool": MultiScaleRoIAlign(MAPS, output_size=14, sampling_ratio=2)} if masks else {}),
        )
    if family == "retinanet":
        sizes = tuple(tuple(int(side * 2 ** (part / 3)) for part in range(3)) for side in (24, 48, 96))
        return RetinaNet(trunk, classes, anchor_generator=AnchorGenerator(sizes, ratios))
    if family == "fcos":
        return FCOS(trunk, classes, anchor_generator=AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3))
    boxes = DefaultBoxGenerator([[2], [2, 3], [2, 3]], scales=[0.05, 0.1, 0.2, 0.4], steps=list(STRIDES))
    widths = [int(width) for width in trunk.out_channels]  # type: ignore[union-attr]
    head = SSDLiteHead(widths, boxes.num_anchors_per_location(), classes + 1, nn.BatchNorm2d)
    return SSD(trunk, boxes, (512, 512), classes + 1, head=head)


def recipe_of(family: str, way: str, steps: int, seed: int) -> Recipe:
    """The settings of a cell."""
    queries = family in ARCHITECTURES
    side, long_px = (384, 640) if queries else (512, 1333)
    rate = 5e-4 if family == "detr" else 1e-3
    settings: dict[str, Any] = {
        "augment": {"horizontal_flip": 0.5, "vertical_flip": 0.5},
        "evaluation": {"max_detections": 600},
        "inference": {"merge": {"max_per_image": 600}},
        "loader": {"workers": 0, "batch_size": round(2.1e6 / side**2)},
        "pyramid": {"chip_px": side},
        "train": {
            "optimizer": "adamw", "learning_rate": rate, "weight_decay": 0.01, "schedule": "cosine",
            "warmup_steps": 30, "clip_norm": 1.0 if queries else 5.0, "steps": steps, "seed": seed,
            "tensorboard": False, "checkpoint_every_minutes": None, "evaluate_every": None, "device": "cpu",
        },
    }  # fmt: skip
    if queries:
        architecture = {"model_type": family, **ARCHITECTURES[family]}
        settings["model"] = {"kind": "transformers", "name": f"tiny-{family}", "weights": None}
        settings["model"]["architecture"] = architecture
        settings["inference"]["window_px"] = side
    if way == "whole":
        level = {"long_px": long_px} if queries else {"short_px": 800, "long_px": long_px}
        settings["sampler"] = {"method": "whole"}
        settings["pyramid"]["levels"] = [level]
        settings["loader"]["batch_size"] = 6 if queries else 2
        settings["inference"]["window_px"] = long_px
    return Recipe.parse(settings, f"{family}:{way}")


def tables_of(folder: Path, outlines: Path | None = None) -> tuple[AnnotationTable, AnnotationTable]:
    """Training and test tables; the annotations lie beside the images or in a folder of their own.

    With ``outlines``, a file that is written, training objects have their boxes as outlines.
    """
    where = next(one for one in (folder, folder / "annotations") if (one / "train.json").is_file())
    source = where / "train.json"
    if outlines is not None:
        content = json.loads(source.read_text())
        for one in content["annotations"]:
            x, y, width, height = one["bbox"]
            one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        outlines.parent.mkdir(parents=True, exist_ok=True)
        outlines.write_text(json.dumps(content))
        source = outlines
    table = load_dataset(source, image_root=folder)
    test = load_dataset(where / "test.json", image_root=folder, classes=table.class_names, missing_classes="allow")
    return table, test


def run_cell(cell: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train, test and describe one cell."""
    family, data, way = cell.split(":")
    torch.set_num_threads(1)
    outlines = args.runs / f"{data}-outlines.json" if family == "maskrcnn" else None  # the sets have boxes only
    table, test = tables_of(args.data / data, outlines)
    if args.test_images:
        test = test.select(range(min(args.test_images, len(test))))

    def fresh() -> nn.Module | None:
        torch.manual_seed(args.seed)
        if family in ARCHITECTURES:
            return None
        return sniper.from_torchvision(network_of(family, len(table.class_names), args.weights))

    trial = recipe_of(family, way, 1, args.seed)
    detector = fresh() or build_detector(trial, len(table.class_names), class_names=table.class_names)
    resolved, pyramid = resolve_pyramid(with_detector(trial, detector), table)
    detector.to(memory_format=torch.channels_last)
    per_step = step_seconds(detector, ChipSource(table, pyramid, resolved), warm=2, measured=6)
    recipe = recipe_of(family, way, max(4, round(60 * args.minutes / per_step)), args.seed)
    name = f"{cell.replace(':', '-')}-{args.seed}"
    shutil.rmtree(args.runs / "train" / name, ignore_errors=True)  # of a cell that is run again or was cut off
    started = time.process_time()
    done = train(recipe, data=table, detector=fresh(), name=name, root=args.runs, log=lambda _: None)
    trained = time.process_time() - started
    model = load_model(done.folder, detector=fresh(), device="cpu")
    result = evaluate_table(model.backend, test, pyramid, resolved.inference, resolved.evaluation)
    with (done.folder / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
    return {
        "family": family, "data": data, "way": way, "seed": args.seed, "steps": recipe.train.steps,
        "chips": done.result.chips, "epochs": round(done.result.epochs, 1), "train_cpu_minutes": round(trained / 60, 1),
        "parameters": sum(weight.numel() for weight in detector.parameters()),
        "levels": [level.scale or level.long_px for level in pyramid.levels],
        "first_loss": round(losses[0], 3), "last_loss": round(losses[-1], 3),
        "ap": round(100 * result.result.ap, 1), "ap50": round(100 * result.result.ap50, 1),
        "test_megapixels": round(result.pixels_per_image / 1e6, 2),
        "found_in_one_photo": len(model.detect(str(test.image_path(0))).scores),
        **({"regions": REGIONS} if family == "fasterrcnn" else {}),
    }  # fmt: skip


def table_of(path: Path) -> str:
    """The cells as a table, both ways of a family beside each other."""
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        one = json.loads(line)
        family = f"{one['family']}, {one['regions']} regions" if "regions" in one else one["family"]
        cells.setdefault((family, one["data"]), {})[one["way"]] = one
    lines = []
    for (family, data), ways in cells.items():
        row = [family, data]
        for way in ("chips", "whole"):
            one = ways.get(way)
            keys = ("train_cpu_minutes", "steps", "first_loss", "last_loss", "ap", "ap50", "test_megapixels")
            row += ["-"] * len(keys) if one is None else [str(one[key]) for key in keys]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells in turn, a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--cells", nargs="+", default=[])
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-images", type=int)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "families.jsonl")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table_of(args.out))
    for cell in args.cells:
        line = json.dumps(run_cell(cell, args))
        print(line, flush=True)
        with args.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()

"""How many images a second a detector looks at, at all its levels, merging included: files in, detections out.

    python benchmarks/inference_speed.py original/coco-resnet101 instances_val2017.json --precision bf16
    python benchmarks/inference_speed.py mobilenetv2 instances_val2017.json --proposals

The weights are random, the work is that of trained ones or more: every region has all classes above the threshold.
"""

import argparse
import json
import logging
import time

import numpy as np
import torch

from sniper.backends.torch import TorchBackend
from sniper.data.source import load_dataset
from sniper.inference.detect import detect_images
from sniper.inference.proposing import propose_images
from sniper.pipeline.checkpoint_model import pick_device
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.pipeline.sources import Skipped, table_images
from sniper.recipe import Recipe


def main() -> None:
    """Measure one configuration and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name of a shipped recipe")
    parser.add_argument("data", help="dataset whose images are looked at")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--proposals", action="store_true", help="extract proposals, as for negative chips")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    device = pick_device()
    table = load_dataset(args.data)
    settings = ["model.weights=null", f"inference.precision={args.precision}"]
    recipe, pyramid = resolve_pyramid(Recipe.load(args.recipe, settings), table)
    torch.manual_seed(0)
    detector = build_detector(recipe, len(table.class_names), pretrained=False)
    detector.to(memory_format=torch.channels_last)
    backend = TorchBackend(detector, device=device, precision=args.precision)
    some = table.select(np.arange(min(args.images, len(table))))

    def look(count: int) -> tuple[float, int, int]:
        part = some.select(np.arange(min(count, len(some))))
        started = time.perf_counter()
        images = table_images(part, Skipped())
        if args.proposals:
            found = list(propose_images(backend, images, pyramid, recipe.inference, recipe.negatives.extraction))
        else:
            found = list(detect_images(backend, images, pyramid, recipe.inference))
        boxes, pixels = sum(len(one.scores) for one in found), sum(one.pixels_processed for one in found)
        return time.perf_counter() - started, boxes, pixels

    look(8)  # kernels are chosen and compiled
    seconds, boxes, pixels = look(len(some))
    result = {
        "recipe": args.recipe,
        "levels": len(pyramid.levels),
        "images": len(some),
        "precision": args.precision,
        "what": "proposals" if args.proposals else "detections",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "images_per_second": round(len(some) / seconds, 2),
        "megapixels_per_image": round(pixels / 1e6 / len(some), 2),
        "detections_per_image": round(boxes / len(some), 1),
    }
    if device.type == "cuda":
        result["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

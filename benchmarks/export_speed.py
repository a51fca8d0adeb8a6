"""An exported detector in onnxruntime beside torch on one core, and what their detections differ by; prints JSON.

python benchmarks/export_speed.py MODEL.onnx CHECKPOINT PHOTOS... [--side 512] [--repeat 5]
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from PIL import Image

from sniper.inference.backend import Backend, Want
from sniper.pipeline.model import load_model


def main() -> None:
    """Run both on the same batches in turn: the neighbours of a shared machine disturb both alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=512, help="side of the square inputs, px")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    both: dict[str, Backend] = {
        "onnxruntime": load_model(given.onnx, device="cpu").backend,
        "torch": load_model(given.checkpoint, device="cpu").backend,
    }
    side = given.side
    images = [np.asarray(Image.open(path).convert("RGB").resize((side, side))) for path in given.photos]
    for batch in (1, 4):
        inputs = np.stack([images[k % len(images)] for k in range(batch)])
        valid_hw, scale = np.full((batch, 2), side), np.ones(batch, np.float32)
        times: dict[str, list[float]] = {name: [] for name in both}
        for turn in range(given.repeat + 1):
            found = {}
            for name, backend in both.items():
                start = time.process_time()
                found[name] = backend.look(inputs, valid_hw, scale, Want(focus=backend.focus_source == "branch"))
                if turn:  # the first one warms up
                    times[name].append(time.process_time() - start)
        mine, theirs = found["torch"], found["onnxruntime"]
        told = {name: round(1000 * float(np.median(values)) / batch, 1) for name, values in times.items()}
        best = [
            float(np.abs(mine.scores[mine.rows(k)][:50] - theirs.scores[theirs.rows(k)][:50]).max())
            for k in range(batch)
        ]
        print(json.dumps({"batch": batch, "side": side, "ms an image": told, "largest score difference": max(best)}))


if __name__ == "__main__":
    main()

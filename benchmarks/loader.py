"""Chips per second: the loader (an image decoded once, all its chips cut from it) against decoding for each chip.

    python benchmarks/loader.py --data ../shared/data/coco_subset [--out loader.json]

Both sides deliver the same mined chips in batches of 16 with the same objects and the same augmentation. The
other side is what one writes without the loader: a map-style dataset whose item k decodes the image of chip k
(cv2.imread, or simplejpeg), crops, and resizes with cv2. Two sets: the photos as they are, and twelve JPEGs of
2,000 to 4,000 px, mosaics of the enlarged photos with their annotations. Rounds alternate between the sides; the
numbers are medians over rounds. "cpu" counts the main process's CPU seconds instead of the clock, for busy machines;
with workers, "ms_a_chip" is CPU milliseconds of this process and of all workers. ``--copies`` makes the epoch of
the photos longer: starting workers and touching memory for the first time cost once.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from sniper.chips.config import ChipConfig
from sniper.chips.epoch import mine
from sniper.chips.table import ChipTable
from sniper.data.flags import ObjectFlag
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.loader.collate import collate
from sniper.loader.colours import recolour
from sniper.loader.config import AugmentConfig, LoaderConfig
from sniper.loader.image_chips import objects_in_chip
from sniper.loader.sample import Sample
from sniper.loader.shuffle import chip_generator
from sniper.loader.stream import ChipLoader
from sniper.loader.transforms import View, turn
from sniper.pixels.decode import read_image
from sniper.pixels.resample import planes
from sniper.pyramid import Level, Pyramid
from sniper.structures import Batch

BATCH = 16
COCO_PYRAMID = Pyramid(
    levels=(
        Level(scale=3.0, train_range_px=(0, 80)),
        Level(scale=1.667, train_range_px=(32, 150)),
        Level(long_px=512, train_range_px=(120, None)),
    ),
    chip_px=512,
)
AUGMENTS = {
    "flip": AugmentConfig(),
    "flip and colour": AugmentConfig(brightness=0.2, contrast=0.2, saturation=0.2),
}


def imread(path: Path) -> np.ndarray:
    """(H, W, 3) RGB by OpenCV's decoder."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def turbo(path: Path) -> np.ndarray:
    """(H, W, 3) RGB by the decoder that the loader uses."""
    region = path.read_bytes()
    return simplejpeg.decode_jpeg(region, "RGB")


class DecodePerChip(Dataset[Sample]):
    """Item k decodes the image of chip k, crops to whole pixels and resizes."""

    def __init__(
        self, table: AnnotationTable, chips: ChipTable, augment: AugmentConfig, decode: Callable[[Path], np.ndarray]
    ) -> None:
        self.table, self.chips, self.augment, self.decode = table, chips, augment, decode

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, chip: int) -> Sample:
        chips, table = self.chips, self.table
        scale, (width, height) = float(chips.scale[chip]), chips.valid_wh[chip].tolist()
        pixels = self.decode(table.image_path(int(chips.image_index[chip])))
        x1, y1 = (chips.origin_xy[chip] / scale).astype(int)
        x2, y2 = np.ceil((chips.origin_xy[chip] + chips.valid_wh[chip]) / scale).astype(int)
        region = cv2.resize(pixels[y1:y2, x1:x2], (width, height))
        objects, rng = objects_in_chip(table, chips, chip), chip_generator(0, 0, chip)
        view = turn(View(region, objects.boxes, tuple(chips.size_wh[chip].tolist())), self.augment, rng)
        padded = planes(view.region, view.size_wh)
        return Sample(
            recolour(padded, (width, height), self.augment, rng),
            (width, height),
            scale,
            view.boxes,
            objects.labels,
            objects.state,
            tuple((chips.range_px[chip] * scale).tolist()),
            chip,
        )


def mosaics(table: AnnotationTable, folder: Path, *, count: int = 12, quality: int = 90) -> Path:
    """Write JPEGs of 2,000 to 4,000 px on the long side and their COCO JSON; return the JSON."""
    rng, images, annotations = np.random.default_rng(0), [], []
    folder.mkdir(parents=True)
    photos = rng.permutation(len(table)).tolist()
    for number in range(count):
        cells = 2 + number % 2
        width = int(2000 + 2000 * number / (count - 1))
        height = int(width * rng.uniform(0.67, 0.8))
        padded = np.zeros((height, width, 3), np.uint8)
        for cell in range(cells * cells):
            row = photos.pop()
            x1, x2 = (width * (cell % cells + side) // cells for side in (0, 1))
            y1, y2 = (height * (cell // cells + side) // cells for side in (0, 1))
            photo = read_image(table.image_path(row))
            padded[y1:y2, x1:x2] = cv2.resize(photo, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)
            scale = np.asarray([x2 - x1, y2 - y1]) / table.sizes_wh[row]
            for index in range(table.offsets[row], table.offsets[row + 1]):
                corners = table.boxes_xyxy[index].reshape(2, 2) * scale + (x1, y1)
                side = corners[1] - corners[0]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": int(table.class_ids[table.labels[index]]),
                        "bbox": [*corners[0].tolist(), *side.tolist()],
                        "area": float(side.prod()),
                        "iscrowd": int(table.flags[index] & ObjectFlag.CROWD),
                    }
                )
        name = f"{number}.jpg"
        cv2.imwrite(str(folder / name), padded[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    categories = [{"id": int(i), "name": n} for i, n in zip(table.class_ids, table.class_names, strict=True)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def one_thread(_: int = 0) -> None:
    """One thread for each process, on both sides."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def timed(batches: Iterator[Batch]) -> dict[str, float]:
    """Chips, seconds, and CPU seconds of this process and of its workers, which have ended, of all ``batches``."""
    wall, before, chips = time.perf_counter(), os.times(), 0
    for batch in batches:
        chips += len(batch)
    spent = np.subtract(os.times(), before)
    return {"chips": chips, "wall": time.perf_counter() - wall, "cpu": spent[:2].sum(), "workers": spent[2:4].sum()}


def compare(
    table: AnnotationTable, chips: ChipTable, *, workers: int, augment: AugmentConfig, rounds: int, sample: int
) -> dict[str, object]:
    """Chips per second of each side; the plain ones on ``sample`` random chips."""

    def ours() -> Iterator[Batch]:
        config = LoaderConfig(batch_size=BATCH, workers=workers)
        yield from ChipLoader(table, chips, config, augment, seed=0, epoch=0)

    def plain(decode: Callable[[Path], np.ndarray]) -> Iterator[Batch]:
        chosen = np.random.default_rng(1).permutation(len(chips))[:sample].tolist()
        yield from DataLoader(
            DecodePerChip(table, chips, augment, decode),
            batch_size=BATCH,
            sampler=SubsetRandomSampler(chosen),
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=one_thread,
        )

    sides = {"sniper": ours, "imread": lambda: plain(imread), "simplejpeg": lambda: plain(turbo)}
    for side in sides.values():
        next(iter(side()))  # compiled and cached before the clock starts
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            runs[name].append(timed(side()))
    clocks = ("wall", "cpu") if workers == 0 else ("wall",)
    result: dict[str, object] = {"workers": workers, "chips": len(chips)}
    for clock in clocks:
        rate = {name: statistics.median(run["chips"] / run[clock] for run in runs[name]) for name in sides}
        result[f"chips_per_s_{clock}"] = {name: round(value, 1) for name, value in rate.items()}
        result[f"times_faster_{clock}"] = {
            f"than {name}": round(rate["sniper"] / rate[name], 2) for name in ("imread", "simplejpeg")
        }
    if workers:
        for where, clock in (("here", "cpu"), ("workers", "workers")):
            spent = {name: statistics.median(run[clock] / run["chips"] for run in runs[name]) for name in sides}
            result[f"ms_a_chip_{where}"] = {name: round(1e3 * value, 3) for name, value in spent.items()}
    return result


def main() -> None:
    """Run both sets and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the COCO subset (with train2017)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=192, help="chips timed on the decode-per-chip side")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="numbers of worker processes")
    parser.add_argument("--copies", type=int, default=1, help="of the photos in an epoch")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    one_thread()
    photos = load_dataset(arguments.data, "train2017")
    result: dict[str, object] = {
        "benchmark": "loader",
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        "cores": torch.multiprocessing.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as folder:
        large = load_dataset(mosaics(photos, Path(folder) / "mosaics"))
        longer = photos.select(np.tile(np.arange(len(photos)), arguments.copies))
        for name, table in (("large", large), ("coco_subset", longer)):
            chips = mine(table, COCO_PYRAMID, ChipConfig(), seed=0, epoch=0)
            result[name] = {
                "images": len(table),
                "megapixels_per_image": round(float(table.sizes_wh.prod(axis=1).mean()) / 1e6, 2),
                "chips_per_image": round(len(chips) / len(table), 1),
                "runs": {
                    f"{augment_name}, {workers} workers": compare(
                        table, chips, workers=workers, augment=augment, rounds=arguments.rounds, sample=arguments.sample
                    )
                    for augment_name, augment in AUGMENTS.items()
                    for workers in arguments.workers
                },
            }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()

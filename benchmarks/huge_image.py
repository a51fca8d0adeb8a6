"""Claim: a 20,000 x 20,000 image is predicted in less than 3 GB of memory, as a GeoTIFF in tiles, as one in strips,
and as a JPEG; what is found in a smaller one by windows is, bit for bit, what is found in it decoded whole.

    python benchmarks/huge_image.py [--side 20000] [--forms tiled,striped,jpeg] [--piece 3000] [--threads 1]
        [--factors 0.5,0.125] [--budget 0.5] [--checkpoint FILE] [--folder FOLDER]

The image is a mosaic of the packaged aerial photos, turned and mirrored by a fixed seed, and the detector is the
demo's, unless a checkpoint is given. Each form is predicted in a process of its own, through ``sniper.predict`` with
drawing, which counts its seconds and its peak of resident memory (which includes pages of mapped files). ``--budget``
looks coarse to fine with that share of the full pyramid's pixels; without, at everything. Needs the extra ``geotiff``.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np


def photos() -> list[np.ndarray]:
    """The packaged photos, the smallest side of all cut off to whole tiles of 400 px."""
    from sniper.demo.assets import demo_data
    from sniper.pixels.decode import read_image

    files = sorted(demo_data().train.parent.glob("*.jpg"))
    return [read_image(path) for path in files]


def mosaic_rows(side: int, tile: int = 400, seed: int = 0):
    """Rows of tiles of a ``side`` x ``side`` mosaic, (tile, side, 3) each."""
    random, sources = np.random.default_rng(seed), photos()
    for top in range(0, side, tile):
        row = np.empty((tile, side + tile, 3), np.uint8)
        for left in range(0, side, tile):
            source = sources[random.choice(len(sources), p=[0.45, 0.45, 0.05, 0.05])]
            y, x = (random.integers(0, length - tile + 1) for length in source.shape[:2])
            piece = np.rot90(source[y : y + tile, x : x + tile], random.integers(4))
            row[:, left : left + tile] = piece[:, ::-1] if random.random() < 0.5 else piece
        yield top, row[: min(tile, side - top), :side]


def write(folder: Path, form: str, side: int) -> Path:
    """The mosaic as a file; one that is there stays."""
    import rasterio
    import simplejpeg
    from rasterio.windows import Window

    path = folder / f"mosaic-{side}-{form}.{'jpg' if form == 'jpeg' else 'tif'}"
    if path.exists():
        return path
    partial = path.with_suffix(".part")
    if form == "jpeg":
        pixels = np.empty((side, side, 3), np.uint8)
        for top, row in mosaic_rows(side):
            pixels[top : top + len(row)] = row
        partial.write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))
    else:
        tiling = {"tiled": True, "blockxsize": 512, "blockysize": 512} if form == "tiled" else {"blockysize": 32}
        place = {"crs": "EPSG:32612", "transform": rasterio.Affine(0.1, 0, 528_000, 0, -0.1, 4_978_000)}
        with rasterio.open(
            partial, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
            compress="deflate", zlevel=1, bigtiff="IF_SAFER", **tiling, **place,
        ) as file:  # fmt: skip
            for top, row in mosaic_rows(side):
                file.write(row.transpose(2, 0, 1), window=Window(0, top, side, len(row)))
    partial.rename(path)
    return path


def demo_model(factors: list[float], budget: float | None):
    """The demo's detector with its packaged weights; the finest level finds the smallest crowns."""
    from safetensors.torch import load_file

    from sniper.data.source import load_dataset
    from sniper.demo.assets import demo_data, trained_crowns
    from sniper.pipeline.detectors import build_detector, resolve_pyramid
    from sniper.pipeline.model import Model
    from sniper.recipe import Recipe
    from sniper.training.checkpoint import load_into

    table = load_dataset(demo_data().train)
    recipe, _ = resolve_pyramid(Recipe.load("demo"), table)
    detector = build_detector(recipe, 1, pretrained=False)
    weights = {
        name: one.float() if one.is_floating_point() else one for name, one in load_file(trained_crowns()).items()
    }
    load_into(detector, weights, trained_crowns())

    model = Model.of(detector, recipe, table.class_names, table.class_ids)
    return with_levels(model, factors).focused(None, budget)


def with_levels(model, factors: list[float]):
    """The model with one level a factor; each but the coarsest leaves objects above 96 network px to the next."""
    from sniper.pyramid import Level

    bounds = [0.0, *(96 / factor for factor in factors[:-1]), None]
    levels = tuple(
        Level(scale=factor, infer_range_px=(0.75 * low, None if high is None else 1.25 * high))
        for factor, low, high in zip(factors, bounds[:-1], bounds[1:], strict=True)
    )
    pyramid = model.recipe.pyramid.model_copy(update={"levels": levels})
    return replace(model, recipe=model.recipe.model_copy(update={"pyramid": pyramid}))


def load(settings: dict):
    """The model that the settings ask for."""
    from sniper.pipeline.model import load_model

    if settings["checkpoint"] is None:
        return demo_model(settings["factors"], settings["budget"])
    model = load_model(settings["checkpoint"], device="cpu")
    return (with_levels(model, settings["factors"]) if settings["factors"] else model).focused(None, settings["budget"])


def peak_mb() -> float:
    """Peak of resident memory of this process; ``ru_maxrss`` would begin with that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def child(settings: dict) -> dict:
    """Predict one file in this process, and tell what it took."""
    import torch

    import sniper

    torch.set_num_threads(settings["threads"])
    model = load(settings)
    before, peak_before = resource.getrusage(resource.RUSAGE_SELF), peak_mb()
    start, windows = time.perf_counter(), [0, 0]

    def count(done: int, planned: int) -> None:
        windows[:] = done, planned
        if sys.stderr.isatty():
            print(f"\r{done}/{planned} windows", end="", file=sys.stderr)

    done = sniper.predict(model, settings["path"], output=settings["output"], on_window_progress=count)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mb": round(peak_mb()),
        "peak_mb_before": round(peak_before),
        "detections": len(done.items[0].scores),
        "windows": windows[0],
        "network_megapixels": round(done.items[0].pixels_processed / 1e6),
        "pixel_share": round(done.pixel_share, 3),
        "files": sorted(path.name for path in Path(settings["output"]).iterdir()),
    }


def same_as_in_one_piece(settings: dict) -> dict:
    """Whether windows and the decoded whole give the same detections, for each form."""
    import torch

    import sniper

    torch.set_num_threads(settings["threads"])
    model = load(settings)
    told = {}
    for form, path in settings["paths"].items():
        found = []
        for megapixels in (0.0, 1e6):
            inference = model.recipe.inference.model_copy(update={"whole_megapixels": megapixels})
            one = replace(model, recipe=model.recipe.model_copy(update={"inference": inference}))
            found.append(sniper.predict(one, path, min_score=0).items[0])
        windows, whole = found
        same = [np.array_equal(getattr(windows, k), getattr(whole, k)) for k in ("boxes_xyxy", "scores", "labels")]
        told[form] = {"detections": len(whole.scores), "equal": all(same)}
    return told


def in_child(kind: str, settings: dict) -> dict:
    """The result of a function of this file in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(settings["threads"])}
    command = [sys.executable, __file__, "--child", kind, json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--piece", type=int, default=3000)
    parser.add_argument("--forms", default="tiled,striped,jpeg")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factors", default="0.5,0.125")
    parser.add_argument("--budget", type=float, default=None)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where the images are kept; none: a temporary one")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, settings = options.child[0], json.loads(options.child[1])
        print(json.dumps(child(settings) if kind == "predict" else same_as_in_one_piece(settings)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        forms = options.forms.split(",")
        settings = {
            "threads": options.threads,
            "factors": [float(one) for one in options.factors.split(",") if one],
            "budget": options.budget,
            "checkpoint": options.checkpoint,
        }
        pieces = {form: str(write(folder, form, options.piece)) for form in forms}
        told: dict = {"side": options.side, **settings, "cpu": platform.processor() or platform.machine()}
        told["in_one_piece"] = {"side": options.piece} | in_child("same", settings | {"paths": pieces})
        for form in forms:
            path = write(folder, form, options.side)
            output = Path(temporary) / f"found-{form}"
            told[form] = {"file_mb": round(path.stat().st_size / 1e6)} | in_child(
                "predict", settings | {"path": str(path), "output": str(output)}
            )
            print(form, json.dumps(told[form]), file=sys.stderr)
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

"""New classes from a few photos without boxes: how well they are found, named and told from what is unknown.

    python benchmarks/new_classes.py objects DATA --out objects.json      # what the objectness detector learns from
    python benchmarks/new_classes.py measure DATA CHECKPOINT --out new_classes.json
    python benchmarks/new_classes.py table new_classes.json

``DATA`` is a folder with ``coco_subset``, ``aerial_cars_kit_ais``, ``hit_uav``, ``bccd`` and ``fod_a``. Fifteen classes
of fod_a are learned from its ``learn`` photos, sixteen are unknown; both are looked for in its ``test`` photos, which
were taken later. Every photo is described once: all ways of learning see the same regions.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.backends.new_classes import MIN_OBJECTNESS, NewClassBackend
from sniper.boxes import iou
from sniper.data.detections import DetectionTable
from sniper.data.source import DataSource
from sniper.data.table import AnnotationTable
from sniper.data.voc_pages import read_page
from sniper.evaluation.voc import VocProtocol
from sniper.inference.backend import Backend
from sniper.inference.detect import detect_images
from sniper.inference.regions import MAX_REGIONS, Described, RegionSource
from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.new_classes.head import ClassHead, Features
from sniper.new_classes.held_out import fit_best
from sniper.new_classes.selection import Bags, choose_regions
from sniper.pipeline.class_model import region_source
from sniper.pipeline.detect import table_of as detections_of
from sniper.pipeline.learned import similar_photos
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.photo_folder import ClassPhoto
from sniper.pipeline.photo_regions import PhotoRegions, describe_box, describe_photos
from sniper.pipeline.region_store import RegionStore
from sniper.pipeline.sources import Skipped, table_images
from sniper.pixels.open import open_pixels
from things_on_ground import things_of, write_pictures

KNOWN = 15  # classes that are learned, drawn by the seed; the others are unknown
SHOTS = (1, 5, 25)
FOUND_IOU = 0.5
HELD_OUT_COCO = ("dog", "cat", "bus", "laptop", "tv", "toilet", "clock", "motorcycle")
PICTURES, THINGS = 600, 400  # made of things on plain ground, and from how many
OTHERS = {"aerial_cars_kit_ais": 20, "hit_uav": 40, "bccd": 40}  # images of other sets beside all of coco_subset


def objects(data: Path, out: Path) -> None:
    """One COCO file of the class ``object``: none of fod_a, and eight classes of COCO are neither object nor ground."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []

    def add(name: str, size: tuple[int, int], found: list[tuple[list[float], bool]]) -> None:
        images.append({"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        for box, ignored in found:
            row = {"id": len(boxes) + 1, "image_id": len(images), "category_id": 1, "bbox": box}
            boxes.append(row | {"area": box[2] * box[3], "iscrowd": int(ignored)})

    def add_coco(file: str, folder: str, count: int | None = None) -> None:
        given = json.loads((data / file).read_text())
        names = {one["id"]: one["name"] for one in given["categories"]}
        of_image: dict[int, list[tuple[list[float], bool]]] = {}
        for one in given["annotations"]:
            ignored = bool(one.get("iscrowd")) or names[one["category_id"]] in HELD_OUT_COCO
            of_image.setdefault(one["image_id"], []).append((one["bbox"], ignored))
        order = np.random.default_rng(0).permutation(len(given["images"]))[:count]
        for image in (given["images"][k] for k in order):
            add(folder + image["file_name"], (image["width"], image["height"]), of_image.get(image["id"], []))

    add_coco("coco_subset/annotations/instances_train2017.json", "coco_subset/train2017/")
    add_coco("aerial_cars_kit_ais/annotations/train.json", "aerial_cars_kit_ais/", OTHERS["aerial_cars_kit_ais"])
    add_coco("hit_uav/train.json", "hit_uav/", OTHERS["hit_uav"])
    pages = sorted((data / "bccd/Annotations").glob("*.xml"))
    for k in np.random.default_rng(0).permutation(len(pages))[: OTHERS["bccd"]]:
        image = data / f"bccd/JPEGImages/{pages[k].stem}.jpg"
        page = read_page(pages[k], lambda _, written, image=image: image)
        corners = np.array(page.corners).reshape(-1, 4) - [1, 1, 0, 0]
        sides = corners[:, 2:] - corners[:, :2]
        cells = np.concatenate([corners[:, :2], sides], axis=1)[(sides > 1).all(axis=1)]
        add(f"bccd/JPEGImages/{pages[k].stem}.jpg", (640, 480), [(box, False) for box in cells.tolist()])
    random = np.random.default_rng(0)
    folder = data / "coco_subset"
    things = things_of(
        folder / "annotations/instances_train2017.json", folder / "train2017", HELD_OUT_COCO, THINGS, random
    )
    for one in write_pictures(out.with_suffix(".pictures").resolve(), things, PICTURES, random):
        add(str(one["file"]), one["size"], [(box, False) for box in one["boxes"]])
    out.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "object"}]}))
    print(json.dumps({"images": len(images), "objects": len(boxes), "file": str(out)}))


class Remembering:
    """A region source that describes each batch once, and keeps it on disk: every head sees the same regions."""

    def __init__(self, source: RegionSource, store: RegionStore) -> None:
        self._source, self._store, self.name = source, store, source.name

    @property
    def backend(self) -> Backend:
        """That of the source."""
        return self._source.backend

    def digest(self) -> str:
        """That of the source."""
        return self._source.digest()

    def describe(
        self,
        inputs: NDArray[np.uint8],
        valid_hw: NDArray[np.int64],
        scale: NDArray[np.float32],
        given: list[NDArray[np.float32]] | None = None,
        *,
        max_regions: int = MAX_REGIONS,
    ) -> Described:
        """What the source says, or said before; whole inputs are described too, whether asked for or not."""
        if given is not None and max_regions == 0:
            return self._source.describe(inputs, valid_hw, scale, given, max_regions=0)
        place = f"{self._source.digest()} {self.name} {inputs.shape} {valid_hw.tolist()}"
        key = hashlib.sha256(place.encode() + inputs.tobytes()).hexdigest()
        known = self._store.get(key)
        if known is None:
            whole = [np.array([[0, 0, width, height]], np.float32) for height, width in valid_hw.tolist()]
            found = self._source.describe(inputs, valid_hw, scale, whole, max_regions=max_regions)
            known = {name: getattr(found, name) for name in ("boxes", "scores", "features", "offsets")}
            self._store.put(key, known)
        found = Described(**known)
        if given is not None:
            return found
        last = found.offsets[1:] - 1
        left = np.delete(np.arange(len(found.scores)), last)
        offsets = found.offsets - np.arange(len(found.offsets))
        return Described(found.boxes[left], found.scores[left], found.features[left], offsets)


class Learning(NamedTuple):
    """Photos to learn from with their regions, and the boxes that nobody tells the learner."""

    photos: list[ClassPhoto]
    regions: list[PhotoRegions]
    boxes: NDArray[np.float32]  # (P, 4)
    whole: NDArray[np.float32]  # (P, D) features of whole photos
    truth: Callable[[int], NDArray[np.float32]]  # (D,) features of the box of a photo


def learning_photos(
    model: Model, source: RegionSource, data: Path, names: Sequence[str], store: RegionStore
) -> Learning:
    """All learn photos of some classes, described."""
    table = DataSource(str(data / "fod_a/learn.json"), images=str(data / "fod_a")).open("train", needs_images=True)
    rows = [row for row in range(len(table)) if table.class_names[table.labels[table.objects(row)][0]] in names]
    photos, boxes = [], []
    for row in rows:
        path = table.image_path(row)
        photos.append(photo_of(path, path.parent.name))
        boxes.append(table.boxes_xyxy[table.objects(row)][0])
    return described(model, source, photos, boxes, store)


def photo_of(path: Path, class_name: str | None) -> ClassPhoto:
    """A photo of a class; None: it is not told which."""
    return ClassPhoto(path, class_name, hashlib.sha256(path.read_bytes()).hexdigest())


def described(
    model: Model, source: RegionSource, photos: list[ClassPhoto], boxes: list[NDArray[np.float32]], store: RegionStore
) -> Learning:
    """Photos with their regions; ``boxes`` are those that nobody tells the learner, one of each."""
    regions = list(describe_photos(model, source, photos, store=store))
    whole = np.stack([one.features[-1] for one in regions])
    return Learning(
        photos,
        regions,
        np.stack(boxes),
        whole,
        lambda row: feature_of_box(model, source, photos[row], boxes[row], store),
    )


def feature_of_box(
    model: Model, source: RegionSource, photo: ClassPhoto, box: NDArray[np.float32], store: RegionStore
) -> NDArray[np.float32]:
    """(D,) features of a box."""
    key = hashlib.sha256(f"truth {source.digest()} {photo.content}".encode()).hexdigest()
    known = store.get(key)
    if known is None:
        pixels = open_pixels(photo.path, whole_pixels=1e9)
        known = {"features": describe_box(model, source, pixels, box, photo.path)}
        store.put(key, known)
    return known["features"][0]


def examples_of(learning: Learning, rows: NDArray[np.int64], labels: NDArray[np.int32], way: str) -> Examples:
    """What each way learns from."""
    numbers = np.arange(len(rows), dtype=np.int32)
    if way == "whole image":
        return Examples(learning.whole[rows], labels, numbers, learning.boxes[rows], np.ones(len(rows), np.float32))
    some = [learning.regions[row] for row in rows]
    counts = [len(one.scores) for one in some]
    regions = Examples(
        np.concatenate([one.features for one in some]),
        np.repeat(labels, counts),
        np.repeat(numbers, counts),
        np.concatenate([one.boxes for one in some]),
        np.concatenate([one.scores for one in some]),
    )
    chosen = choose_regions(Bags(regions, np.zeros(0, np.int64)), None, int(labels.max()) + 1)
    if way != "boxes":
        return chosen
    ground = chosen.take(chosen.labels == BACKGROUND)
    drawn = Examples(
        np.stack([learning.truth(row) for row in rows.tolist()]),
        labels,
        numbers,
        learning.boxes[rows],
        np.ones(len(rows), np.float32),
    )
    joined = Examples.join([drawn, ground])
    return joined.take(np.argsort(joined.photos, kind="stable"))


def head_of(
    learning: Learning, rows: NDArray[np.int64], names: Sequence[str], way: str, features: Features
) -> ClassHead:
    """A head learned one way from some of the photos."""
    label = {name: number for number, name in enumerate(names)}
    labels = np.array([label[str(learning.photos[row].class_name)] for row in rows], np.int32)
    examples = examples_of(learning, rows, labels, way)
    groups = similar_photos([learning.regions[row].thumbnail for row in rows])
    kinds = {"prototypes": ("prototypes",), "boxes": ("logistic",), "whole image": ("prototypes",)}.get(way)
    fitted = fit_best(examples, groups, len(names), *([kinds] if kinds else []))
    return ClassHead(
        tuple(names), fitted.classifier, fitted.calibration, fitted.expected, features, examples, (), groups
    )


def region_accuracy(learning: Learning, rows: NDArray[np.int64], examples: Examples) -> float:
    """Share of photos whose learned region has an IoU of 0.5 and more with the box."""
    shown = examples.take(examples.labels != BACKGROUND)
    overlap = np.diagonal(iou(shown.boxes, learning.boxes[rows][shown.photos]))
    return float((overlap >= FOUND_IOU).mean())


class Test(NamedTuple):
    """Test photos, each with one object, and their regions."""

    table: AnnotationTable
    truth: NDArray[np.str_]  # (P,) class of each
    regions: list[PhotoRegions]


def test_photos(model: Model, source: RegionSource, data: Path, count: int, store: RegionStore) -> Test:
    """So many test photos of each class of fod_a, spread evenly."""
    table = DataSource(str(data / "fod_a/test.json"), images=str(data / "fod_a")).open("test", needs_images=True)
    of_class = [np.flatnonzero(table.labels == label).tolist() for label in range(len(table.class_names))]
    table = table.select([row for rows in of_class for row in spread(rows, count)])  # an object a photo
    paths = [table.image_path(row) for row in range(len(table))]
    photos = [photo_of(path, path.parent.name) for path in paths]
    truth = np.array([table.class_names[label] for label in table.labels])
    return Test(table, truth, list(describe_photos(model, source, photos, store=store)))


def tested(model: Model, source: RegionSource, head: ClassHead, test: Test, detects: bool) -> dict[str, float]:
    """Scores of a head on the test photos; detections come through the same inference as ``sniper predict``."""
    known = np.isin(test.truth, head.class_names)
    if not detects:
        return _open_set(head, test, known)
    detections = detections_through(model, NewClassBackend(source, head), test.table)
    classed, score = test.table.with_classes(head.class_names), VocProtocol()
    rows = np.flatnonzero(known)
    image = np.repeat(np.arange(len(detections)), np.diff(detections.offsets))
    on_known = known[image]
    place = np.cumsum(known) - 1
    some = DetectionTable.from_arrays(
        place[image[on_known]], detections.boxes_xyxy[on_known], detections.scores[on_known],
        detections.labels[on_known], None, detections.image_ids[rows],
    )  # fmt: skip
    return {
        "AP50": score(classed.select(rows), some).numbers["VOC_AP50"],
        "AP50_among_unknown": score(classed, detections).numbers["VOC_AP50"],
        **_open_set(head, test, known),
    }


def detections_through(model: Model, backend: Backend, table: AnnotationTable) -> DetectionTable:
    images = table_images(table, Skipped())
    return detections_of(list(detect_images(backend, images, model.pyramid, model.recipe.inference)), table.image_ids)


def _open_set(head: ClassHead, test: Test, known: NDArray[np.bool_]) -> dict[str, float]:
    """Of the objects that the detector finds: what is accepted, and how it is named."""
    found, accepted, named = (np.zeros(len(known), np.bool_) for _ in range(3))
    for row, one in enumerate(test.regions):
        on_object = iou(one.boxes, test.table.boxes_xyxy[test.table.objects(row)])[:, 0] >= FOUND_IOU
        candidates = np.flatnonzero(on_object & (one.scores >= MIN_OBJECTNESS))
        if not len(candidates):
            continue
        best = candidates[np.argmax(one.scores[candidates])]
        probability = head.probabilities(one.features[best : best + 1])[0]
        found[row], accepted[row] = True, probability.max() >= head.calibration.threshold
        named[row] = head.class_names[int(probability.argmax())] == test.truth[row]
    of_known, of_unknown = found & known, found & ~known
    return {
        "found": float(found.mean()),
        "accuracy": float(named[of_known].mean()),
        "kept": float(accepted[of_known].mean()),
        "kept_of_rightly_named": float(accepted[of_known & named].mean()),
        "unknown_rejected": float((~accepted)[of_unknown].mean()),
    }


WAYS = ("learned", "prototypes", "whole image", "boxes")


def opened(
    checkpoint: Path, out: Path, features: str, weights: str | None
) -> tuple[Model, RegionStore, RegionSource, Features]:
    """The detector, what keeps its regions beside ``out``, what describes them, and what a head is told of it."""
    model = load_model(checkpoint, device="cpu")
    store = RegionStore(out.with_suffix(".regions"), max_bytes=10**10)
    source = Remembering(region_source(model, features, weights), store)
    return model, store, source, Features(source.name, source.digest(), weights, model.digest())


def measure(
    data: Path, checkpoint: Path, out: Path, features: str, weights: str | None, seeds: int, count: int, detects: bool
) -> None:
    """All ways, numbers of photos and seeds; written after each."""
    model, store, source, told = opened(checkpoint, out, features, weights)
    names = sorted(folder.name for folder in (data / "fod_a/learn").iterdir())
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        known = sorted(np.random.default_rng(seed).permutation(names)[:KNOWN].tolist())
        learning = learning_photos(model, source, data, known, store)
        test = test_photos(model, source, data, count, store)
        of_class = {name: [k for k, p in enumerate(learning.photos) if p.class_name == name] for name in known}
        for way in WAYS:
            for shots in SHOTS:
                some = np.array([k for name in known for k in spread(of_class[name], shots)])
                start = time.process_time()
                head = head_of(learning, some, known, way, told)
                seconds = time.process_time() - start
                row = {"seed": seed, "photos": shots, "way": way, "kind": head.classifier.kind, "fit_cpu_s": seconds}
                if way in ("learned", "prototypes"):
                    row["region_accuracy"] = region_accuracy(learning, some, head.examples)
                row |= {"expected": head.expected._asdict()} | tested(model, source, head, test, detects)
                rows.append(row)
                out.write_text(json.dumps({"features": source.name, "rows": rows}, indent=1))
                print(json.dumps(row), flush=True)


def spread(rows: list[int], count: int) -> list[int]:
    """So many of the rows, spread evenly."""
    return [rows[k] for k in np.linspace(0, len(rows) - 1, count).round().astype(int)] if count > 1 else rows[:1]


def table(file: Path) -> None:
    """Means over the seeds, as Markdown."""
    rows = json.loads(file.read_text())["rows"]
    columns = ("region_accuracy", "AP50", "AP50_among_unknown", "accuracy", "kept", "kept_of_rightly_named")
    columns = (*columns, "unknown_rejected")
    print("| photos | way |", " | ".join(columns), "|\n|", "---|" * (2 + len(columns)))
    for shots in SHOTS:
        for way in WAYS:
            own = [row for row in rows if row["photos"] == shots and row["way"] == way]
            cells = [f"{np.mean([row[name] for row in own]):.3f}" if own and name in own[0] else "" for name in columns]
            print(f"| {shots} | {way} |", " | ".join(cells), "|")


def main() -> None:
    """Read the arguments and run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("objects")
    one.add_argument("data", type=Path)
    one.add_argument("--out", type=Path, required=True)
    two = parts.add_parser("measure")
    two.add_argument("data", type=Path)
    two.add_argument("checkpoint", type=Path)
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--features", default="detector")
    two.add_argument("--feature-weights")
    two.add_argument("--seeds", type=int, default=2)
    two.add_argument("--regions-only", action="store_true", help="without AP50: names and rejection of found things")
    two.add_argument("--test-photos", type=int, default=15, help="of each class")
    three = parts.add_parser("table")
    three.add_argument("file", type=Path)
    given = parser.parse_args()
    if given.part == "objects":
        objects(given.data, given.out)
    elif given.part == "measure":
        measure(
            given.data,
            given.checkpoint,
            given.out,
            given.features,
            given.feature_weights,
            given.seeds,
            given.test_photos,
            not given.regions_only,
        )
    else:
        table(given.file)


if __name__ == "__main__":
    main()

"""Super-classes for R-FCN-3K: classes whose objects look alike, by the k-means of what a trunk says of them.

arXiv 1712.01802, section 3.2; ``docs/method.md``, "R-FCN-3K".
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sniper.data.table import AnnotationTable
from sniper.detectors.rfcn3k.clusters import write_clusters
from sniper.errors import DataError, RecipeError
from sniper.inference.windows import region_around
from sniper.nn.crop_trunk import CONTEXT, CROPS_AT_ONCE, CropTrunk, build_crop_trunk
from sniper.pipeline.checkpoint_model import pick_device
from sniper.pipeline.sources import Skipped, table_images
from sniper.pipeline.tables import Data, require_objects, table_of
from sniper.pixels.windowed import PixelSource, cut_from

OBJECTS = 50  # of a class that are looked at
_STARTS = 10  # of k-means, of which the best counts


def group_by_looks(
    data: Data,
    super_classes: int,
    output: Path | str | None = None,
    *,
    features: str = "torchvision/mobilenet_v2",
    feature_weights: str = "imagenet",
    objects: int = OBJECTS,
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """The super-class of each class, from 0; alike objects give alike means of features, and k-means groups these.

    Args:
        data: a dataset with boxes, by path, as a ``DataSource`` or loaded.
        super_classes: how many groups.
        output: file to write, for ``model.clusters``; none: no file.
        features: the network that looks at a crop of each object: ``torchvision/<model>`` or a model of timm.
        feature_weights: its weights: a file, or ``imagenet``.
        objects: how many of each class are looked at, drawn by ``seed``.
        seed: of that draw, and of the first centres.
        device: where the network runs.
        on_progress: told how many more images are done.

    Raises:
        DataError: a class has no object, there are fewer classes than groups, or an image cannot be read.
        RecipeError: there is no such network, or scikit-learn is not installed.
        CheckpointError: the weights cannot be had.
    """
    k_means = _k_means()
    table = table_of(data, needs_images=True)
    require_objects(table, "to group classes by")
    names = table.class_names
    if not 1 <= super_classes <= len(names):
        raise DataError(f"{table.root}: {len(names)} classes make 1 to {len(names)} super-classes, not {super_classes}")
    rows = _some_of_each(table, objects, seed)
    empty = np.setdiff1d(np.arange(len(names)), table.labels[rows])
    if len(empty):
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DataError(
            f"{table.root}: class {names[empty[0]]!r}{more} has no object to look at; leave it out with --classes"
        )
    place = pick_device(device)
    trunk = build_crop_trunk(features, feature_weights).eval().requires_grad_(False).to(place)
    means = _class_means(table, rows, trunk, place, on_progress)
    found = k_means(n_clusters=super_classes, n_init=_STARTS, random_state=seed).fit_predict(means)
    groups = dict(zip(names, _in_order(found).tolist(), strict=True))
    if output is not None:
        write_clusters(output, groups)
    return groups


def _k_means() -> Any:
    try:
        return import_module("sklearn.cluster").KMeans
    except ImportError as error:
        raise RecipeError(
            f"grouping classes needs scikit-learn ({error}); pip install 'sniper-detection[rfcn3k]'"
        ) from error


def _some_of_each(table: AnnotationTable, count: int, seed: int) -> NDArray[np.int64]:
    """Rows of at most ``count`` objects of each class, in the order of the table."""
    usable = np.flatnonzero(~table.ignored)
    drawn = np.random.default_rng(seed).permutation(usable)
    by_class = drawn[np.argsort(table.labels[drawn], kind="stable")]
    labels = table.labels[by_class]
    place = np.arange(len(labels)) - np.searchsorted(labels, labels)  # within the class
    return np.sort(by_class[place < count])


def _class_means(
    table: AnnotationTable,
    rows: NDArray[np.int64],
    trunk: CropTrunk,
    device: torch.device,
    on_progress: Callable[[int], None],
) -> NDArray[np.float64]:
    """(C, D) mean features of the chosen objects of each class."""
    sums, counts = np.zeros((len(table.class_names), trunk.channels)), np.zeros(len(table.class_names))
    for crops, labels in _batches(table, rows, trunk.side_px, on_progress):
        with torch.inference_mode():
            pixels = torch.from_numpy(crops).to(device)
            features = trunk(trunk.normalised(pixels)).double().cpu().numpy()
        np.add.at(sums, labels, features)
        np.add.at(counts, labels, 1)
    return sums / counts[:, None]


def _batches(
    table: AnnotationTable, rows: NDArray[np.int64], side_px: int, on_progress: Callable[[int], None]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """(K, side, side, 3) crops of the chosen objects with their (K,) labels."""
    image = table.image_rows_of_objects()[rows]
    images, first = np.unique(image, return_index=True)
    ends = np.append(first[1:], len(rows))
    crops: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for one in table_images(table.select(images), Skipped()):
        own = rows[first[one.key] : ends[one.key]]
        crops += [_crop(one.pixels, box, side_px) for box in table.boxes_xyxy[own]]
        labels += table.labels[own].tolist()
        while len(crops) >= CROPS_AT_ONCE:
            yield np.stack(crops[:CROPS_AT_ONCE]), np.array(labels[:CROPS_AT_ONCE], np.int32)
            crops, labels = crops[CROPS_AT_ONCE:], labels[CROPS_AT_ONCE:]
        on_progress(1)
    if crops:
        yield np.stack(crops), np.array(labels, np.int32)


def _crop(pixels: NDArray[np.uint8] | PixelSource, box: NDArray[np.float32], side_px: int) -> NDArray[np.uint8]:
    """(side, side, 3) square around a box (original px), moved into the image where it reaches over its border."""
    size_wh = (pixels.shape[1], pixels.shape[0]) if isinstance(pixels, np.ndarray) else pixels.size_wh
    x1, y1, x2, y2 = box.tolist()
    scale = side_px / (max(x2 - x1, y2 - y1) * (1 + CONTEXT))
    origin, valid = region_around((x1, y1, x2, y2), size_wh, scale, side_px)
    return cut_from(pixels, origin, scale, (side_px, side_px), valid)


def _in_order(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """The same groups, numbered by the first class of each."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]

"""Merging detections: the recorded numbers of the original, a plain reference, and what must hold for any boxes.

The recorded boxes have inclusive corners (width = x2 - x1 + 1). ``half_open`` is the whole legacy layer: the same
box with x2 + 1 and y2 + 1 has the same IoU here. In double precision, for adding 1 in single would round.
"""

from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recorded import GOLDEN, Golden, rounding
from sniper import boxes as box_math
from sniper.compiled import thread_count
from sniper.inference.config import MergeConfig
from sniper.inference.merge import drop_cut, merge_images, nms, range_keep

ATOL = 1e-6  # of golden/README.md


def half_open(boxes_inclusive: np.ndarray) -> np.ndarray:
    return boxes_inclusive.astype(np.float64) + np.asarray([0, 0, 1, 1])


def plain_soft_nms(boxes: np.ndarray, scores: np.ndarray, config: MergeConfig) -> tuple[list[int], list[float]]:
    """The textbook: take the best, lower what overlaps it, drop what falls below, again."""
    overlaps = box_math.iou(boxes.astype(np.float64), boxes.astype(np.float64))
    scores = scores.astype(np.float32).copy()
    alive = np.ones(len(scores), dtype=bool)
    keep, final = [], []
    while alive.any():
        best = int(np.argmax(np.where(alive, scores, -1)))
        keep.append(best)
        final.append(float(scores[best]))
        alive[best] = False
        o = overlaps[best]
        touched = alive & (o > 0)
        if config.method == "soft_gaussian":
            weight = np.exp(-(o**2) / config.sigma)
        elif config.method == "soft_linear":
            weight = np.where(o > config.iou_threshold, 1 - o, 1)
        else:
            weight = np.where(o > config.iou_threshold, 0, 1)
            alive &= ~(touched & (weight == 0))
        scores[touched] = (scores[touched] * weight[touched]).astype(np.float32)
        alive &= ~(touched & (scores < config.score_threshold))
    return keep, final


def random_boxes(rng: np.random.Generator, n: int, clustered: bool = False) -> np.ndarray:
    centre = rng.uniform(0, 300, (n, 2))
    size = np.exp(rng.uniform(np.log(2), np.log(150), (n, 2)))
    if clustered:
        anchor = rng.integers(0, max(n // 12, 1), n)
        centre = centre[anchor] + rng.normal(0, 0.1, (n, 2)) * size[anchor]
        size = size[anchor] * np.exp(rng.normal(0, 0.1, (n, 2)))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


def near_threshold(dets: np.ndarray, iou: float) -> bool:
    """Whether rounding in single precision, the recording's, may decide about a pair of boxes."""
    boxes = half_open(dets[:, :4])
    overlaps = box_math.iou(boxes, boxes)
    return bool((np.abs(overlaps - iou) < 16 * np.finfo(np.float32).eps).any())


@pytest.mark.parametrize(
    ("recorded", "config"),
    [
        ("soft_gaussian_sigma0.55", MergeConfig(sigma=0.55)),
        ("soft_gaussian_sigma0.6", MergeConfig(sigma=0.6)),
        ("wrapper_sigma0.55", MergeConfig()),
        ("soft_linear_sigma0.6", MergeConfig(method="soft_linear", iou_threshold=0.3)),
        ("soft_hard_sigma0.6", MergeConfig(method="hard", iou_threshold=0.3)),
    ],
)
def test_recorded_soft_nms(golden: Golden, recorded: str, config: MergeConfig) -> None:
    data = golden.load("ops/nms.npz")
    for case in golden.cases("ops/nms.npz"):
        dets, expected = data[f"{case}/dets"], data[f"{case}/{recorded}"]
        if config.method != "soft_gaussian" and near_threshold(dets, config.iou_threshold):
            continue
        merged = nms(half_open(dets[:, :4]), dets[:, 4], np.zeros(len(dets), dtype=int), config)
        assert len(merged.keep) == len(expected), case
        np.testing.assert_array_equal(dets[merged.keep, :4], expected[:, :4], err_msg=case)
        np.testing.assert_allclose(merged.scores, expected[:, 4], rtol=0, atol=ATOL, err_msg=case)


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.7])
@pytest.mark.parametrize("flavour", ["py", "cython"])
def test_recorded_hard_nms(golden: Golden, threshold: float, flavour: str) -> None:
    """The Python version drops IoU > t as here, the compiled one IoU >= t: the next smaller threshold."""
    data = golden.load("ops/nms.npz")
    limit = threshold if flavour == "py" else float(np.nextafter(np.float32(threshold), np.float32(0)))
    config = MergeConfig(method="hard", iou_threshold=limit, score_threshold=0)
    compared = 0
    for case in golden.cases("ops/nms.npz"):
        dets = data[f"{case}/dets"]
        merged = nms(half_open(dets[:, :4]), dets[:, 4], np.zeros(len(dets), dtype=int), config)
        if not near_threshold(dets, threshold):
            np.testing.assert_array_equal(merged.keep, data[f"{case}/nms_{flavour}_{threshold}"], err_msg=case)
            compared += len(dets) > 1
    assert compared > 0, "nothing was compared"


@pytest.mark.parametrize("case", GOLDEN.cases("ops/aggregate.npz", "agg.*"))
def test_recorded_aggregation(golden: Golden, case: str) -> None:
    """Range filter by level, soft-NMS by class, cap by image. The recorded filter measures areas without the + 1.

    It keeps ``low < size <= high`` while ours keeps ``low <= size < high``, as training does: sizes exactly at a bound
    go by the recorded rule here.
    """
    data = golden.load("ops/aggregate.npz")
    rows = data[f"{case}/in"]
    level, label, image = rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2].astype(int)
    ranges = data[f"{case}/valid_ranges"].astype(float)
    ranges = np.stack([np.maximum(ranges[:, 0], 0), np.where(ranges[:, 1] < 0, np.inf, ranges[:, 1])], axis=1)
    low, high = ranges[level].T
    size = np.maximum(rows[:, 6:8] - rows[:, 4:6], 0).astype(np.float64).prod(axis=1) ** 0.5
    at_bound, recorded = (size == low) | (size == high), ((low <= 0) | (size > low)) & (size <= high)
    rows = rows[np.where(at_bound, recorded, range_keep(rows[:, 4:8], low, high))]
    rows = rows[np.argsort(rows[:, 2], kind="stable")]
    level, label, image = rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2].astype(int)
    n_images, cap = int(data[f"{case}/n_images"]), int(data[f"{case}/max_per_image"])
    config = MergeConfig(sigma=float(data[f"{case}/nms_sigma"]), max_per_image=cap if cap > 0 else None)
    merged = merge_images(
        np.searchsorted(image, np.arange(n_images + 1)),
        half_open(rows[:, 4:8].astype(np.float32)),
        rows[:, 8],
        label,
        level,
        np.tile([0, np.inf], (len(ranges), 1)),
        config,
    )
    np.testing.assert_array_equal(np.repeat(np.arange(n_images), np.diff(merged.offsets)), image[merged.keep])
    found = np.column_stack([label[merged.keep], image[merged.keep], rows[merged.keep, 4:8], merged.scores])
    expected = data[f"{case}/out"]
    assert len(found) == len(expected)
    found, expected = by_row(found), by_row(expected)
    np.testing.assert_allclose(found[:, 6], expected[:, 6], rtol=0, atol=ATOL)
    np.testing.assert_allclose(found[:, :6], expected[:, :6], rtol=0, atol=rounding(1, expected[:, 2:6]))


def by_row(rows: np.ndarray) -> np.ndarray:
    """Rows of (class, image, box, score) in one fixed order."""
    return rows[np.lexsort(np.round(rows[:, :6], 2).T)]


def test_recorded_pruning(golden: Golden) -> None:
    data = golden.load("ops/aggregate.npz")
    found = []
    wh = tuple(float(side) for side in data["prune/im_wh"])
    for chip, (crop, boxes, scores) in enumerate(
        zip(data["prune/crops"], data["prune/boxes"], data["prune/scores"], strict=True)
    ):
        shifted = boxes + np.tile(crop[:2], 2)
        keep = drop_cut(shifted, crop, wh, float(data["prune/delta"]))
        row, label = np.nonzero((scores[:, 1:] > 1e-3) & keep[:, None])
        label += 1  # column 0 is the background
        found.append(np.column_stack([label, np.full(len(row), chip), shifted[row], scores[row, label]]))
    np.testing.assert_allclose(by_row(np.concatenate(found)), by_row(data["prune/out"]), rtol=1e-12)


def test_drop_cut_takes_one_chip_or_one_per_box() -> None:
    boxes = np.asarray([[5, 50, 20, 60], [105, 50, 120, 60], [150, 50, 195, 60.0]])
    chip = np.asarray([100, 0, 200, 100.0])
    assert drop_cut(boxes[1:], chip, (300, 100)).tolist() == [False, False]
    assert drop_cut(boxes[2:], chip, (200, 100)).tolist() == [True]  # the right side is the image's own border
    chips = np.asarray([[0, 0, 100, 100], [100, 0, 200, 100], [100, 0, 200, 100.0]])
    assert drop_cut(boxes, chips, (300, 100)).tolist() == [True, False, False]
    assert drop_cut(np.zeros((0, 4)), chip, (300, 100)).shape == (0,)


@pytest.mark.parametrize("method", ["soft_gaussian", "soft_linear", "hard"])
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_plain_loop(method: str, clustered: bool, dtype: type) -> None:
    rng = np.random.default_rng(3)
    config = MergeConfig(method=method, iou_threshold=0.4)
    for n in (2, 15, 16, 17, 33, 400):
        boxes = random_boxes(rng, n, clustered)
        scores = rng.uniform(0.0005, 1, n).astype(np.float32)
        keep, final = plain_soft_nms(boxes, scores, config)
        merged = nms(boxes.astype(dtype), scores, np.zeros(n, dtype=int), config)
        assert merged.keep.tolist() == keep
        np.testing.assert_allclose(merged.scores, final, rtol=1e-5, atol=1e-7)


def test_hard_equals_torchvision() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(5)
    boxes, scores, labels = random_boxes(rng, 3000, True), rng.random(3000, dtype=np.float32), rng.integers(0, 7, 3000)
    expected = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), 0.5)
    merged = nms(boxes, scores, labels, MergeConfig(method="hard", score_threshold=0))
    assert merged.keep.tolist() == expected.tolist()


def test_of_equal_scores_the_lower_row_goes_first() -> None:
    """Also after the blocks have been packed anew, which reorders places."""
    rng = np.random.default_rng(17)
    boxes, scores = random_boxes(rng, 900, False), rng.integers(1, 4, 900) / 4
    for method in ("soft_linear", "hard"):  # exact weights
        config = MergeConfig(method=method, iou_threshold=0.6)
        keep, _ = plain_soft_nms(boxes, scores, config)
        assert nms(boxes, scores, np.zeros(900, dtype=int), config).keep.tolist() == keep


def test_classes_do_not_meet() -> None:
    rng = np.random.default_rng(7)
    boxes, scores, labels = random_boxes(rng, 500, True), rng.random(500, dtype=np.float32), rng.integers(0, 5, 500)
    together = nms(boxes, scores, labels)
    alone = {}
    for label in range(5):
        rows = np.flatnonzero(labels == label)
        part = nms(boxes[rows], scores[rows], np.zeros(len(rows), dtype=int))
        alone.update(zip(rows[part.keep].tolist(), part.scores.tolist(), strict=True))
    assert alone == dict(zip(together.keep.tolist(), together.scores.tolist(), strict=True))
    assert (np.diff(together.scores) <= 0).all()


@pytest.mark.parametrize("cap", [None, 40])
def test_batch_of_images_equals_single(cap: int | None) -> None:
    rng = np.random.default_rng(11)
    counts = [0, 1, 700, 0, 60, 1500]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    n = offsets[-1]
    boxes, scores = random_boxes(rng, n, True), rng.random(n, dtype=np.float32)
    labels, levels = rng.integers(0, 4, n), rng.integers(0, 3, n)
    ranges = np.asarray([[0, 60], [20, 120], [50, np.inf]])
    config = MergeConfig(max_per_image=cap)
    merged = merge_images(offsets, boxes, scores, labels, levels, ranges, config)
    for image, (start, end) in enumerate(pairwise(offsets)):
        rows = start + np.flatnonzero(range_keep(boxes[start:end], *ranges[levels[start:end]].T))
        single = nms(boxes[rows], scores[rows], labels[rows], config)
        mine = slice(merged.offsets[image], merged.offsets[image + 1])
        assert merged.keep[mine].tolist() == rows[single.keep][:cap].tolist()
        assert merged.scores[mine].tolist() == single.scores[:cap].tolist()


def test_cap_is_exact_where_scores_tie() -> None:
    boxes = np.arange(20, dtype=np.float32)[:, None] * 10 + np.asarray([0, 0, 5, 5], dtype=np.float32)
    zeros = np.zeros(20, dtype=int)
    merged = merge_images(
        np.asarray([0, 20]), boxes, np.full(20, 0.5), zeros, zeros, [[0, np.inf]], MergeConfig(max_per_image=7)
    )
    assert merged.keep.tolist() == list(range(7))


def test_any_number_of_threads_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random, count = np.random.default_rng(0), 6000
    corners, sizes = random.uniform(0, 500, (count, 2)), random.uniform(5, 90, (count, 2))
    boxes, scores = np.concatenate([corners, corners + sizes], 1), random.random(count)
    labels = random.integers(0, 9, count)
    found = []
    for threads in (1, 5):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
        assert thread_count() == threads
        found.append(nms(boxes, scores, labels))
    assert len(found[0].keep) > 0
    np.testing.assert_array_equal(found[0].keep, found[1].keep)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


@st.composite
def box_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corner = rng.integers(0, 30, (n, 2)) * draw(st.sampled_from([0.5, 1, 1000.0]))
    size = rng.integers(0, 12, (n, 2))  # empty boxes too
    scores = rng.permutation(n) / max(n, 1) if draw(st.booleans()) else rng.integers(0, 4, n) / 4
    return np.concatenate([corner, corner + size], 1).astype(np.float32), scores, rng.integers(0, 3, n)


configs = st.builds(
    MergeConfig,
    method=st.sampled_from(["soft_gaussian", "soft_linear", "hard"]),
    sigma=st.floats(1e-3, 2),
    iou_threshold=st.floats(0, 1),
    score_threshold=st.sampled_from([0, 0.001, 0.3]),
)


@settings(max_examples=80, deadline=None)
@given(box_sets(), configs)
def test_scores_never_rise_and_nothing_is_invented(sets: tuple[np.ndarray, ...], config: MergeConfig) -> None:
    boxes, scores, labels = sets
    merged = nms(boxes, scores, labels, config)
    assert len(set(merged.keep.tolist())) == len(merged.keep)
    assert np.isfinite(merged.scores).all()
    assert (merged.scores <= scores.astype(np.float32)[merged.keep]).all()
    assert (np.diff(merged.scores) <= 0).all()
    for label in np.unique(labels):  # the best of each class never suffers
        assert scores[labels == label].max().astype(np.float32) in merged.scores[labels[merged.keep] == label]


@settings(max_examples=60, deadline=None)
@given(box_sets(), configs, st.randoms(use_true_random=False))
def test_order_of_the_input_does_not_matter(sets: tuple[np.ndarray, ...], config: MergeConfig, random: object) -> None:
    boxes, _, labels = sets
    n = len(boxes)
    scores = (np.arange(n) + 1) / (n + 1)  # no ties before; equal boxes may tie afterwards
    order = np.asarray(random.sample(range(n), n), dtype=int)  # type: ignore[attr-defined]
    one, other = nms(boxes, scores, labels, config), nms(boxes[order], scores[order], labels[order], config)
    assert dict(zip(one.keep.tolist(), one.scores.tolist(), strict=True)) == dict(
        zip(order[other.keep].tolist(), other.scores.tolist(), strict=True)
    )


def test_narrow_gaussian_tends_to_hard() -> None:
    rng = np.random.default_rng(13)
    boxes, scores = random_boxes(rng, 300, True), rng.uniform(0.1, 1, 300)
    labels = np.zeros(300, dtype=int)
    soft = nms(boxes, scores, labels, MergeConfig(sigma=1e-7))
    hard = nms(boxes, scores, labels, MergeConfig(method="hard", iou_threshold=0.0009))
    assert soft.keep.tolist() == hard.keep.tolist()


def test_zero_and_one_box() -> None:
    none = np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int)
    assert len(nms(*none).keep) == 0
    merged = merge_images(np.zeros(4, dtype=int), *none, np.zeros(0, dtype=int), [[0, np.inf]])
    assert merged.offsets.tolist() == [0, 0, 0, 0]
    assert merge_images(np.zeros(1, dtype=int), *none, np.zeros(0, dtype=int), [[0, np.inf]]).offsets.tolist() == [0]
    one = nms(np.asarray([[0, 0, 1, 1]]), np.asarray([1e-9]), np.asarray([3]))
    assert one.keep.tolist() == [0]
    assert one.scores[0] == np.float32(1e-9)  # overlaps nothing: stays whatever its score


def test_identical_boxes() -> None:
    boxes, labels = np.tile([3, 3, 9, 9], (50, 1)), np.zeros(50, dtype=int)
    scores = np.full(50, 0.8)
    assert nms(boxes, scores, labels, MergeConfig(method="hard")).keep.tolist() == [0]
    merged = nms(boxes, scores, labels)
    np.testing.assert_allclose(merged.scores, 0.8 * np.exp(-np.arange(len(merged.scores)) / 0.55), rtol=1e-5)
    assert merged.keep.tolist() == [0, 1, 2, 3]  # the fifth would be below 0.001
    pixel = np.tile([0, 0, 1, 1], (2, 1))
    assert nms(pixel, np.asarray([0.2, 0.9]), np.zeros(2, dtype=int), MergeConfig(method="hard")).keep.tolist() == [1]


def test_range_keep() -> None:
    boxes = np.asarray([[0, 0, 0, 0], [0, 0, 4, 4], [0, 0, 2, 32], [0, 0, 8, 8.1]])
    assert range_keep(boxes, 4, 8).tolist() == [False, True, False, False]  # closed below, open above
    assert range_keep(boxes, 0, np.inf).all()
    assert range_keep(boxes, np.asarray([0, 3, 0, 9]), np.asarray([1, 5, 7, np.inf])).tolist() == [1, 1, 0, 0]


def test_levels_keep_their_own_range() -> None:
    boxes = np.asarray([[0, 0, 50, 50], [200, 0, 210, 10], [0, 0, 50, 50], [200, 0, 210, 10.0]])
    merged = merge_images(
        np.asarray([0, 4]), boxes, np.asarray([0.9, 0.8, 0.7, 0.6]), np.zeros(4, dtype=int), np.asarray([0, 0, 1, 1]),
        np.asarray([[0, 32], [32, np.inf]]),
    )  # fmt: skip
    assert merged.keep.tolist() == [1, 2]
    assert merged.scores.tolist() == pytest.approx([0.8, 0.7])


def test_not_a_number_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    boxes = np.asarray([[0, 0, 5, 5], [0, 0, np.nan, 5], [0, 0, 5, np.inf], [20, 20, 25, 25]])
    merged = nms(boxes, np.asarray([np.nan, 0.5, 0.5, 0.5]), np.zeros(4, dtype=int))
    assert merged.keep.tolist() == [3]
    assert "dropped 3 of 4" in caplog.text


def test_refuses_what_it_cannot_merge() -> None:
    boxes, one = np.zeros((2, 4)), np.zeros(2, dtype=int)
    with pytest.raises(ValueError, match="expected boxes"):
        nms(boxes, np.zeros(3), one)
    with pytest.raises(ValueError, match="negative"):
        nms(boxes, np.zeros(2), one - 1)
    with pytest.raises(ValueError, match="negative"):
        nms(boxes, np.full(2, -0.1), one)
    with pytest.raises(ValueError, match="2 ranges"):
        merge_images(np.asarray([0, 2]), boxes, np.zeros(2), one, one + 2, np.ones((2, 2)))
    with pytest.raises(ValueError, match="offsets"):
        merge_images(np.asarray([0, 3]), boxes, np.zeros(2), one, one, np.ones((2, 2)))
    with pytest.raises(ValidationError):
        MergeConfig(sigma=0)

"""The chip loader: the same batches whatever the workers, and each image decoded once."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from loader_cases import chips_of, dataset, same, table_of
from PIL import Image

from forked import Python
from sniper.errors import DataError
from sniper.loader import image_chips
from sniper.loader.config import AugmentConfig, LoaderConfig, worker_count
from sniper.loader.image_chips import objects_in_chip, parts_of, reduction_for
from sniper.loader.stream import ChipLoader, buffer_capacity
from sniper.pixels import decode as images
from sniper.pixels import open as opening
from sniper.structures import ObjectState

LIVELY = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5, brightness=0.2, saturation=0.2)
PLAIN = AugmentConfig(horizontal_flip=0)


def loader_of(made, *, augment=LIVELY, seed=3, epoch=1, rank=0, world_size=1, first_batch=0, **settings):
    config = LoaderConfig(**{"batch_size": 4, "workers": 0, "shuffle_chips": 8, **settings})
    return ChipLoader(
        *made, config, augment, seed=seed, epoch=epoch, rank=rank, world_size=world_size, first_batch=first_batch
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture(scope="module")
def batches(made):
    return list(loader_of(made))


@pytest.fixture
def decoded(monkeypatch, tmp_path):
    """The paths of the images decoded so far, by this process and its workers."""
    record = tmp_path / "decoded"
    record.touch()

    def reading(path, **options):
        with record.open("a") as file:
            file.write(f"{path}\n")
        return images.read_image(path, **options)

    monkeypatch.setattr(opening, "read_image", reading)
    return lambda: record.read_text().split()


@pytest.mark.parametrize("part_bytes", [1, 30_000, image_chips.PART_BYTES])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_are_the_same_for_any_number_of_workers(made, batches, workers, part_bytes, monkeypatch):
    monkeypatch.setattr(image_chips, "PART_BYTES", part_bytes)
    state = torch.get_rng_state()
    loader = loader_of(made, workers=workers)
    assert len(loader) == loader.num_batches == len(batches)
    assert all(same(a, b) for a, b in zip(loader, batches, strict=True))
    assert all(same(a, b) for a, b in zip(loader, batches, strict=True))  # and again
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resumed_epoch_is_the_tail_of_a_whole_one(made, batches, decoded):
    _, chips = made
    for first in range(len(batches) + 1):
        before = len(decoded())
        loader = loader_of(made, first_batch=first)
        assert len(loader) == len(batches) - first
        assert loader.num_batches == len(batches)
        assert all(same(a, b) for a, b in zip(loader, batches[first:], strict=True))
        to_come = chips.image_index[[int(chip) for batch in batches[first:] for chip in batch.chip_index]]
        assert len(decoded()) - before == loader.decodes == len(set(to_come))
    with pytest.raises(ValueError, match="first_batch"):
        loader_of(made, first_batch=len(batches) + 1)


@pytest.mark.parametrize("part_bytes", [1, image_chips.PART_BYTES])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_is_decoded_once_an_epoch_and_rank(made, decoded, workers, part_bytes, monkeypatch):
    monkeypatch.setattr(image_chips, "PART_BYTES", part_bytes)
    for rank in range(3):
        before = len(decoded())
        loader = loader_of(made, rank=rank, world_size=3, workers=workers)
        assert sum(1 for _ in loader) == loader.num_batches
        names = decoded()[before:]
        assert len(names) == len(set(names)) == loader.decodes


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_cover_every_chip_with_equal_numbers_of_batches(made, world_size):
    _, chips = made
    loaders = [loader_of(made, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({loader.num_batches for loader in loaders}) == 1
    seen = np.bincount(
        [int(i) for loader in loaders for batch in loader for i in batch.chip_index], minlength=len(chips)
    )
    assert seen.min() == 1
    assert seen.sum() - len(chips) < world_size * 4


def test_fewer_chips_than_a_batch_are_repeated(tmp_path):
    made = dataset(tmp_path, 1)
    (batch,) = loader_of(made, batch_size=16)
    assert set(batch.chip_index.tolist()) == set(range(len(made[1])))


def test_no_chips_give_no_batches(tmp_path):
    table = table_of(tmp_path, [(10, 10)], [[]])
    loader = loader_of((table, chips_of(table, [])))
    assert len(loader) == 0
    assert list(loader) == []


def test_what_a_chip_teaches(tmp_path):
    boxes = [
        (10, 10, 30, 30),  # valid
        (0, 0, 8, 8),  # half in the chip
        (20, 20, 60, 60),  # crowd
        (0, 0, 5.1, 5.1),  # shows 0.2 network px
        (70, 70, 90, 90),  # outside
        (12, 12, 13, 30),  # crowd
        (39.9, 5, 50, 50),  # beyond the right edge but for 0.2 network px
    ]
    table = table_of(tmp_path, [(100, 80)], [boxes])
    chips = chips_of(table, [(0, 2.0, (10, 10))], side=70, valid=[[0]])
    found = objects_in_chip(table, chips, 0)
    assert found.boxes.tolist() == [[10, 10, 50, 50], [0, 0, 6, 6], [30, 30, 70, 70], [14, 14, 16, 50]]
    assert found.labels.tolist() == [0, 1, 2, 0]
    assert found.state.tolist() == [ObjectState.VALID, ObjectState.IGNORED, ObjectState.CROWD, ObjectState.CROWD]

    assert cv2.imwrite(str(tmp_path / "0.jpg"), np.full((80, 100, 3), 200, np.uint8))
    (batch,) = loader_of((table, chips), batch_size=1, augment=PLAIN)
    assert batch.range_px.tolist() == [[16.0, float("inf")]]
    assert batch.scale.tolist() == [2.0]
    assert batch.boxes[0].tolist() == found.boxes.tolist()


def test_images_without_objects_of_one_pixel_and_smaller_than_a_chip(tmp_path):
    table = table_of(tmp_path, [(1, 1), (20, 10)], [[], []], ".png")
    for index, (width, height) in enumerate(table.sizes_wh.tolist()):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((height, width, 3), 90, np.uint8))
    chips = chips_of(table, [(0, 1.0, (0, 0)), (0, 0.2, (0, 0)), (1, 3.0, (0, 0)), (1, 0.05, (0, 0))])
    (batch,) = loader_of((table, chips), augment=PLAIN)
    assert batch.boxes.shape == (4, 0, 4)
    for pixels, (height, width), index in zip(batch.pixels, batch.valid_hw, batch.chip_index, strict=True):
        assert (pixels[:, :height, :width] == 90).all()
        assert (pixels[0, height:] == 124).all()
        assert sorted([int(width), int(height)]) == [[1, 1], [1, 1], [30, 60], [1, 1]][int(index)]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_photos_are_read_as_rgb(tmp_path, mode):
    table = table_of(tmp_path, [(64, 64)], [[]])
    Image.new("RGB", (64, 64), (100, 100, 100)).convert(mode).save(tmp_path / "0.jpg", quality=95)
    (batch,) = loader_of((table, chips_of(table, [(0, 1.0, (0, 0))])), batch_size=1)
    assert (batch.pixels.int() - 100).abs().max() <= 3


def test_pixels_under_a_box_stay_under_it_through_file_cut_and_flip(tmp_path):
    box = (50.5, 40.25, 90.0, 80.75)
    table = table_of(tmp_path, [(160, 120)], [[box]], ".png")
    padded = np.zeros((120 * 4, 160 * 4), np.uint8)
    x1, y1, x2, y2 = (int(4 * value) for value in box)
    padded[y1:y2, x1:x2] = 255
    assert cv2.imwrite(str(tmp_path / "0.png"), cv2.resize(padded, (160, 120), interpolation=cv2.INTER_AREA))
    placed = [(0, scale, (int(40 * scale), int(30 * scale))) for scale in (0.4, 1.0, 1.667, 2.5)]
    chips = chips_of(table, placed, side=128, valid=[[0]] * 4)
    (batch,) = loader_of((table, chips), augment=AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5))
    for pixels, valid, boxes in zip(batch.pixels, batch.valid_hw, batch.boxes, strict=True):
        weights = pixels[0, : valid[0], : valid[1]].double()
        x = (weights.sum(0) * (torch.arange(valid[1]) + 0.5)).sum() / weights.sum()
        y = (weights.sum(1) * (torch.arange(valid[0]) + 0.5)).sum() / weights.sum()
        assert abs(x - (boxes[0, 0] + boxes[0, 2]) / 2) < 0.05
        assert abs(y - (boxes[0, 1] + boxes[0, 3]) / 2) < 0.05


def test_coarse_chips_decode_at_reduced_scale(made, monkeypatch):
    asked = {}

    def reading(path, *, reduction=1, **options):
        asked[Path(path).stem] = reduction
        return images.read_image(path, reduction=reduction, **options)

    monkeypatch.setattr(opening, "read_image", reading)
    table, _ = made
    chips = chips_of(table, [(0, 0.1, (0, 0)), (1, 0.25, (0, 0)), (1, 0.1, (0, 0)), (2, 0.51, (0, 0))])
    list(loader_of((table, chips)))
    assert asked == {"0": 8, "1": 4, "2": 1}
    assert [reduction_for(np.asarray([s])) for s in (0.01, 0.125, 0.13, 0.5, 1.0, 3.0)] == [8, 8, 4, 2, 1, 1]


@pytest.fixture
def damaged(tmp_path):
    """Nine images of which the fourth is cut off and the sixth missing."""
    made = dataset(tmp_path, 9)
    content = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "5.jpg").unlink()
    return made


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_with_one_sentence(damaged, workers):
    with pytest.raises(DataError) as caught:
        list(loader_of(damaged, workers=workers))
    message = str(caught.value)
    assert "3.jpg" in message or "5.jpg" in message
    assert "\n" not in message


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_and_listed(damaged, workers, caplog):
    _, chips = damaged
    with caplog.at_level(logging.WARNING, logger="sniper"):
        loader = loader_of(damaged, workers=workers, on_bad_image="skip")
        batches = list(loader)
    assert len(batches) == loader.num_batches
    assert {Path(file).name for file, _ in loader.skipped} == {"3.jpg", "5.jpg"}
    assert len(caplog.records) == 2
    used = {int(chips.image_index[chip]) for batch in batches for chip in batch.chip_index}
    assert used == set(range(9)) - {3, 5}


@pytest.mark.parametrize("seed", range(3))
def test_a_resumed_epoch_replaces_the_same_chips(damaged, seed):
    batches = list(loader_of(damaged, on_bad_image="skip", seed=seed, batch_size=2))
    for first in range(len(batches)):
        tail = loader_of(damaged, on_bad_image="skip", seed=seed, batch_size=2, first_batch=first)
        assert all(same(a, b) for a, b in zip(tail, batches[first:], strict=True))


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path):
    made = dataset(tmp_path, 3)
    for file in tmp_path.glob("*.jpg"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 3 images"):
        list(loader_of(made, on_bad_image="skip"))


def test_an_image_of_another_size_than_annotated_is_refused(made, tmp_path):
    table = table_of(tmp_path, [(50, 40)], [[]])
    assert cv2.imwrite(str(tmp_path / "0.jpg"), np.zeros((60, 40, 3), np.uint8))
    with pytest.raises(DataError, match="40x60"):
        list(loader_of((table, chips_of(table, [(0, 1.0, (0, 0))]))))


def children_of(pid):
    listing = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if "Z" not in line.split()[1]]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def is_python(pid):
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and b"python" in command.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_leaving_early_ends_the_workers(made):
    before = set(children_of(os.getpid()))
    batches = iter(loader_of(made, workers=2))
    next(batches)
    workers = [pid for pid in children_of(os.getpid()) if pid not in before and is_python(pid)]
    assert len(workers) >= 2
    batches.close()
    assert not any(map(alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_interrupting_leaves_no_worker_behind(python: Python, tmp_path):
    program = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from loader_cases import dataset\n"
        "from sniper.loader.stream import ChipLoader, LoaderConfig\n"
        "from sniper.loader.transforms import AugmentConfig\n"
        "made = dataset(Path(sys.argv[2]), 30)\n"
        "config = LoaderConfig(batch_size=2, workers=2, shuffle_chips=4)\n"
        "loader = ChipLoader(*made, config, AugmentConfig(), seed=0, epoch=0)\n"
        "for batch in loader:\n"
        "    print('batch', flush=True); time.sleep(0.5)\n"
    )
    process = python.start("-c", program, Path(__file__).parent, tmp_path, start_new_session=True)
    assert process.wait_for_line() == "batch"
    workers = children_of(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everyone gets it
    assert process.wait(timeout=120) != 0
    assert process.stderr.count("Traceback") == 1  # the main process's own
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def test_auto_workers(monkeypatch):
    for cores, ranks, expected in [(1, 1, 0), (2, 1, 0), (4, 1, 4), (32, 1, 8), (32, 8, 4), (4, 8, 0)]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert worker_count("auto", ranks) == expected
    assert worker_count(3, 8) == 3


def test_the_buffer_is_bounded_in_memory_and_absent_where_it_is_of_no_use(made):
    table, chips = made
    assert buffer_capacity(chips, 100) == 100
    large = chips_of(table, [(0, 1.0, (0, 0)), (0, 3.0, (0, 0))], side=1024)
    assert buffer_capacity(large, 100) == 25
    assert buffer_capacity(chips_of(table, [(0, 1.0, (0, 0)), (2, 1.0, (0, 0))]), 100) == 1


def test_parts_keep_the_order_and_their_bound(made, monkeypatch):
    table, _ = made
    places = [(0, 1.0, (index % 7, 30 - index)) for index in range(10)]
    chips = chips_of(table, places)
    rows = np.random.default_rng(0).permutation(10)
    for bytes_each, sizes in ((1, [1] * 10), (3 * 64 * 64 * 4, [4, 4, 2]), (10**9, [10])):
        monkeypatch.setattr(image_chips, "PART_BYTES", bytes_each)
        parts = parts_of(rows, chips)
        assert [len(part) for part in parts] == sizes
        starts = np.cumsum([0, *sizes])
        for part, start, end in zip(parts, starts[:-1], starts[1:], strict=True):
            assert set(part) == set(rows[start:end])
            assert (np.diff(chips.origin_xy[part][:, 1]) >= 0).all(), "row by row"


def test_mined_chips_of_photos_load(shared_data):
    from sniper.chips.config import ChipConfig
    from sniper.chips.epoch import mine
    from sniper.data.source import load_dataset
    from sniper.pyramid import Level, Pyramid

    table = load_dataset(shared_data / "coco_subset", "val2017").select(range(12))
    levels = (Level(scale=1.667, train_range_px=(0, 150)), Level(long_px=512, train_range_px=(120, None)))
    chips = mine(table, Pyramid(levels=levels), ChipConfig(), seed=0, epoch=0)
    seen = 0
    for batch in loader_of((table, chips)):
        assert batch.pixels.shape[1:] == (3, 512, 512)
        assert (batch.boxes[..., 2:] >= batch.boxes[..., :2]).all()
        seen += int(batch.valid.sum())
    assert seen >= len(chips.object_rows)

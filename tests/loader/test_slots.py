"""Chips that stay in memory shared with a worker: kept while anyone looks at them, and no longer."""

import os

import numpy as np
import pytest
from loader_cases import dataset

from sniper.loader.config import FORKS, AugmentConfig
from sniper.loader.image_chips import ImageChips
from sniper.loader.shuffle import image_tasks
from sniper.loader.slots import Slots
from sniper.loader.workers import read_by_workers

CHIP = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)


def test_a_slot_is_free_when_the_last_array_of_it_is_gone():
    room = Slots(2, CHIP.nbytes)
    first = room.show(room.fill(CHIP), CHIP.shape)
    second = room.fill(CHIP + 1)
    assert room.fill(CHIP) is None
    np.testing.assert_array_equal(first, CHIP)
    part = first[0, 1:].reshape(-1)[:3]  # a view of a view
    del first
    assert room.fill(CHIP) is None
    assert part.tolist() == [7, 8, 9]
    del part
    assert room.fill(CHIP + 2) == 0, "the lowest free one"
    np.testing.assert_array_equal(room.show(second, CHIP.shape), CHIP + 1)


def test_a_chip_that_is_too_large_gets_no_slot():
    assert Slots(2, 1).fill(np.zeros((3, 100, 100), np.uint8)) is None


@pytest.mark.skipif(not FORKS, reason="workers are not forked here")
def test_what_a_forked_process_puts_there_is_seen_here():
    room = Slots(3, CHIP.nbytes)
    child = os.fork()
    if child == 0:
        room.fill(CHIP)
        room.fill(CHIP + 1)
        os._exit(0)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(room.show(1, CHIP.shape), CHIP + 1)
    assert room.fill(CHIP) == 1, "the array above is gone, the chip in slot 0 is not"


@pytest.mark.parametrize("held_chips", [0, 1000])
def test_no_chip_changes_while_it_is_held_with_room_for_it_or_not(tmp_path, held_chips):
    table, chips = dataset(tmp_path, 40)
    assert len(chips) > 60, "more than there is room for without held chips"
    source = ImageChips(table, chips, AugmentConfig(), whole_pixels=1e9, seed=0, epoch=0)
    tasks = image_tasks(np.arange(len(chips)), chips.image_index)
    held = [sample for part in read_by_workers(source, tasks, 1, held_chips=held_chips) for sample in part.samples]
    here = [sample for task in tasks for part in source.read(task) for sample in part.samples]
    assert len(held) == len(here) == len(chips)
    for one, other in zip(held, here, strict=True):
        assert one.chip == other.chip
        np.testing.assert_array_equal(one.pixels, other.pixels)

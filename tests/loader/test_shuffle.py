"""The order of chips: complete, fair to the ranks, bounded in memory, resumable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.loader.shuffle import chip_order, remaining_tasks

counts_of_images = st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any)


def image_index(counts):
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def orders(counts, *, world_size=1, batch_size=4, capacity=8, seed=0, epoch=0):
    return [
        chip_order(
            image_index(counts),
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            capacity=capacity,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]


@settings(max_examples=100, deadline=None)
@given(
    counts=counts_of_images,
    world_size=st.integers(1, 5),
    batch_size=st.integers(1, 20),
    capacity=st.integers(1, 40),
    seed=st.integers(-5, 2**40),
)
def test_ranks_share_all_chips_and_have_the_same_number(counts, world_size, batch_size, capacity, seed):
    ranks = orders(counts, world_size=world_size, batch_size=batch_size, capacity=capacity, seed=seed)
    total = sum(counts)
    share = -(-total // (world_size * batch_size)) * batch_size
    seen = np.zeros(total, int)
    for order in ranks:
        assert len(order.output_order) == share
        assert np.array_equal(np.sort(order.output_order), np.sort(order.read_order))
        np.add.at(seen, order.output_order, 1)
    padding = share * world_size - total
    assert seen.min() >= 1
    assert (seen - 1).sum() == padding
    assert seen.max() <= 1 + -(-padding // total)  # the head is repeated whole before any chip comes again


@settings(max_examples=100, deadline=None)
@given(counts=counts_of_images, world_size=st.integers(1, 4), capacity=st.integers(1, 40), first=st.integers(0, 60))
def test_a_rank_visits_an_image_once_and_holds_no_more_than_the_buffer(counts, world_size, capacity, first):
    index = image_index(counts)
    for order in orders(counts, world_size=world_size, capacity=capacity):
        first = min(first, len(order.output_order))
        tasks = remaining_tasks(order, index, first)
        to_come = order.output_order[first:]
        assert len({task.image for task in tasks}) == len(tasks)
        assert set(np.concatenate([np.zeros(0, int), *(v.chips for v in tasks)])) == set(to_come)
        assert all((index[task.chips] == task.image).all() for task in tasks)

        # Play it: pull chips until the one whose turn it is is held, and let go of what is emitted for the last time.
        held, pulled = set(), (chip for task in tasks for chip in task.chips)
        repeated = len(to_come) - len(set(to_come))
        for position, chip in enumerate(to_come):
            while chip not in held:
                held.add(next(pulled))
            assert len(held) <= capacity + 1 + repeated, (
                "chips of an image come in the order in which they enter the buffer"
            )
            if chip not in to_come[position + 1 :]:
                held.remove(chip)
        assert next(pulled, None) is None


def test_chips_of_different_images_mix_and_epochs_and_seeds_differ():
    counts = [10] * 50
    (order,) = orders(counts, batch_size=10, capacity=200)
    images = image_index(counts)[order.output_order].reshape(-1, 10)
    assert np.mean([len(set(batch)) for batch in images]) > 7
    (other_epoch,) = orders(counts, batch_size=10, capacity=200, epoch=1)
    (other_seed,) = orders(counts, batch_size=10, capacity=200, seed=1)
    assert not np.array_equal(order.output_order, other_epoch.output_order)
    assert not np.array_equal(order.output_order, other_seed.output_order)
    (again,) = orders(counts, batch_size=10, capacity=200)
    assert np.array_equal(order.output_order, again.output_order)


@pytest.mark.parametrize("capacity", [1, 100])
def test_no_chips_and_one_chip(capacity):
    (none,) = orders([0, 0], capacity=capacity)
    assert len(none.output_order) == 0
    assert remaining_tasks(none, image_index([0, 0]), 0) == []
    (one,) = orders([0, 1], capacity=capacity)
    assert one.output_order.tolist() == [0] * 4
    assert [task.chips.tolist() for task in remaining_tasks(one, image_index([0, 1]), 3)] == [[0]]


def test_a_whole_coco_epoch_is_ordered_in_seconds():
    index = np.repeat(np.arange(118_000), 5)
    order = chip_order(index, seed=0, epoch=0, batch_size=16, capacity=512)
    assert len(remaining_tasks(order, index, 0)) == 118_000

"""The annotation table: packing, subsets, fingerprint, and sharing between processes."""

import gc
import multiprocessing
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facts import facts
from sniper.data import sharing
from sniper.data.building import ObjectRows, build_table
from sniper.data.columns import MaskBuilder, PackedStrings, ragged_rows
from sniper.data.image_labels import ImageLabels
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from table_cases import same


def make_table(images=5, boxes=12, masks=True, seed=0) -> AnnotationTable:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (boxes, 2))
    corners = np.concatenate([corner, corner + rng.uniform(1, 40, (boxes, 2))], axis=1)
    shapes = [
        [rng.uniform(0, 90, 6 + 2 * int(rng.integers(4))).tolist() for _ in range(rng.integers(3))] for _ in corners
    ]

    def add_mask(row: int, builder: MaskBuilder) -> None:
        if row % 5 == 4:
            builder.add(run_length=b'{"size":[90,100],"counts":[%d,8990]}' % row)
        else:
            builder.add(shapes[row])

    return build_table(
        ObjectRows(
            rng.integers(0, images, boxes),
            corners,
            rng.integers(0, 3, boxes),
            rng.integers(0, 128, boxes, dtype=np.uint8),
        ),
        source="made",
        root=Path("photos"),
        file_names=[f"fo\u00fc/{i}.jpg" for i in range(images)],
        image_ids=np.arange(images) * 7 + 3,
        sizes_wh=np.tile([100, 90], (images, 1)),
        class_names=["cat", "dog", "eel"],
        class_ids=np.array([1, 5, 9]),
        add_mask=add_mask if masks else None,
        image_labels=make_image_labels(images) if masks else None,
        class_ancestors=np.array([[1, 0], [2, 0], [2, 1]], np.int32) if masks else None,
    )


def make_image_labels(images: int) -> ImageLabels:
    """Image i has i modulo 3 labels."""
    offsets = np.concatenate([[0], np.cumsum(np.arange(images) % 3)])
    numbers = np.arange(offsets[-1])
    return ImageLabels(offsets, (numbers % 3).astype(np.int32), (numbers % 5 / 4).astype(np.float32))


def test_packed_strings():
    names = ["", "a.jpg", "\u00fc\u4e2d.png", "b\udcff.jpg"]
    packed = PackedStrings.pack(names)
    assert list(packed) == names
    assert packed[-1] == names[-1]
    assert packed[1:3] == tuple(names[1:3])
    assert list(packed.take(np.array([2, 0, 2]))) == [names[2], "", names[2]]
    assert len(PackedStrings.pack([])) == 0
    with pytest.raises(IndexError):
        packed[4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.data())
def test_ragged_rows_are_the_rows_of_each_group(counts, data):
    offsets = np.concatenate([[0], np.cumsum(counts)])
    groups = np.array(data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=10)), np.int64)
    rows, new_offsets = ragged_rows(offsets, groups)
    expected = [list(range(offsets[g], offsets[g + 1])) for g in groups]
    assert rows.tolist() == [row for group in expected for row in group]
    assert np.diff(new_offsets).tolist() == [len(group) for group in expected]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("images", "boxes"), [(5, 12), (3, 0), (1, 1), (40, 9)])
def test_select_keeps_what_belongs_to_the_images(images, boxes, masks):
    table = make_table(images, boxes, masks).check()
    rows = np.random.default_rng(1).permutation(images)[: (images + 1) // 2]
    chosen = table.select(rows).check()
    assert len(chosen) == len(rows)
    assert chosen.image_ids.tolist() == table.image_ids[rows].tolist()
    for new, old in enumerate(rows.tolist()):
        assert chosen.image_path(new) == table.image_path(old)
        for a, b in zip(range(*chosen.objects(new).indices(999)), range(*table.objects(old).indices(999)), strict=True):
            assert chosen.annotation_ids[a] == table.annotation_ids[b]
            assert chosen.boxes_xyxy[a].tolist() == table.boxes_xyxy[b].tolist()
            assert chosen.flags[a] == table.flags[b]
            if masks:
                assert chosen.masks.run_length(a) == table.masks.run_length(b)
                ours, theirs = chosen.masks.polygons(a), table.masks.polygons(b)
                assert [p.tolist() for p in ours] == [p.tolist() for p in theirs]
        if masks:
            ours, theirs = chosen.image_labels, table.image_labels
            assert ours.labels[ours.of_image(new)].tolist() == theirs.labels[theirs.of_image(old)].tolist()
            assert ours.confidence[ours.of_image(new)].tolist() == theirs.confidence[theirs.of_image(old)].tolist()
    assert same(table.select(range(images)), table)
    assert len(table.select([])) == 0


def test_masks_follow_their_boxes_through_sorting():
    table = make_table(4, 30)
    runs = 0
    for row, identity in enumerate(table.annotation_ids.tolist()):
        run = table.masks.run_length(row)
        assert (run is not None) == ((identity - 1) % 5 == 4)
        if run is not None:
            runs += 1
            assert run["counts"][0] == identity - 1
    assert runs == 6


def test_with_classes_relabels_and_drops():
    table = make_table(5, 40)
    fewer = table.with_classes(["eel", "cat"]).check()
    assert fewer.class_names == ("eel", "cat")
    assert fewer.class_ids.tolist() == [9, 1]
    assert len(fewer) == len(table)
    kept = table.labels != 1
    assert fewer.annotation_ids.tolist() == table.annotation_ids[kept].tolist()
    names = [table.class_names[label] for label in table.labels[kept]]
    assert [fewer.class_names[label] for label in fewer.labels] == names
    assert fewer.flags.tolist() == table.flags[kept].tolist()
    assert fewer.class_ancestors.tolist() == [[0, 1]], "dog, the parent of eel, is gone: cat is still above"
    for row in range(len(table)):
        old, new = table.image_labels, fewer.image_labels
        verified = list(zip(old.labels[old.of_image(row)], old.confidence[old.of_image(row)], strict=True))
        left = list(zip(new.labels[new.of_image(row)], new.confidence[new.of_image(row)], strict=True))
        assert left == [({2: 0, 0: 1}[label], confidence) for label, confidence in verified if label != 1]
    with pytest.raises(DataError, match="did you mean 'dog'"):
        table.with_classes(["dogs"])
    with pytest.raises(DataError, match="twice"):
        table.with_classes(["cat", "cat"])


def test_fingerprint_follows_every_column_and_setting():
    table = make_table()
    prints = {
        table.fingerprint(),
        table.fingerprint({"t": 1}),
        table.fingerprint({"t": 2}),
        make_table(masks=False).fingerprint(),
    }
    for name in ("image_ids", "sizes_wh", "boxes_xyxy", "labels", "flags", "areas", "annotation_ids", "class_ids"):
        changed = getattr(table, name).copy()
        changed.flat[-1] += 1
        prints.add(replace(table, **{name: changed}).fingerprint())
    prints.add(replace(table, class_names=("cat", "dog", "elk")).fingerprint())
    prints.add(replace(table, file_names=["x", *table.file_names[1:]]).fingerprint())
    prints.add(
        replace(table, image_labels=replace(table.image_labels, labels=table.image_labels.labels + 1)).fingerprint()
    )
    prints.add(replace(table, class_ancestors=np.array([[1, 0], [2, 0]], np.int32)).fingerprint())
    assert len(prints) == 16
    assert make_table().fingerprint() == table.fingerprint()
    assert replace(table, root=Path("elsewhere")).fingerprint() == table.fingerprint()


def test_check_names_the_broken_promise():
    table = make_table()
    outside = table.boxes_xyxy.copy()
    outside[3, 2] = 101
    with pytest.raises(DataError, match=f"annotation {table.annotation_ids[3]} .*inside"):
        replace(table, boxes_xyxy=outside).check()
    with pytest.raises(DataError, match="labels"):
        replace(table, labels=table.labels.astype(np.int64)).check()
    with pytest.raises(DataError, match="offsets"):
        replace(table, offsets=table.offsets[::-1].copy()).check()
    with pytest.raises(DataError, match="areas has 3 rows"):
        replace(table, areas=table.areas[:3]).check()
    with pytest.raises(DataError, match="bits of no ObjectFlag"):
        replace(table, flags=table.flags | np.uint8(128)).check()
    labels = table.image_labels
    with pytest.raises(DataError, match=facts("image labels", 4, 5)):
        replace(table, image_labels=labels.take(np.arange(4))).check()
    with pytest.raises(DataError, match=r"image label 0 is class 3 .*0\.\.2"):
        replace(table, image_labels=replace(labels, labels=labels.labels + 3)).check()
    with pytest.raises(DataError, match=facts("confidence", "image labels", "float64")):
        replace(table, image_labels=replace(labels, confidence=labels.confidence.astype(np.float64))).check()
    with pytest.raises(DataError, match="'cat' is its own ancestor"):
        replace(table, class_ancestors=np.array([[0, 0]], np.int32)).check()


def test_plain_table_survives_pickling():
    table = make_table()
    assert same(pickle.loads(pickle.dumps(table)), table)


def _look(table: AnnotationTable, answers) -> None:
    answers.put((table.fingerprint(), table.file_name(2), table.boxes_xyxy.flags.writeable, table.shared is not None))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_shared_table_reaches_a_worker_without_copies(method):
    table = make_table()
    shared = table.share()
    assert same(shared, table)
    assert shared.share() is shared
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    worker = context.Process(target=_look, args=(shared, answers))
    worker.start()
    answer = answers.get(timeout=60)
    worker.join()
    assert answer == (table.fingerprint(), table.file_name(2), False, True)
    assert shared.shared.path.exists()


def test_large_shared_table_pickles_small():
    images = 118_000
    table = build_table(
        ObjectRows(np.arange(images), np.tile([1.0, 1, 5, 5], (images, 1)), np.zeros(images, np.int32)),
        source="made",
        root=Path("photos"),
        file_names=[f"{i:012d}.jpg" for i in range(images)],
        image_ids=None,
        sizes_wh=np.tile([640, 480], (images, 1)),
        class_names=["thing"],
    )
    shared = table.share()
    assert len(pickle.dumps(shared)) < 10_000
    again = pickle.loads(pickle.dumps(shared))
    assert same(again, table)
    assert again.file_name(117_999) == "000000117999.jpg"
    with pytest.raises(ValueError, match="read-only"):
        again.boxes_xyxy[0] = 0


@pytest.mark.parametrize("boxes", [0, 3])
def test_shared_file_goes_with_its_owner_and_views_stay(boxes):
    shared = make_table(2, boxes).share()
    path = shared.shared.path
    view = pickle.loads(pickle.dumps(shared))
    handle = pickle.dumps(shared)
    del shared
    gc.collect()
    assert not path.exists()
    assert same(view, make_table(2, boxes))
    with pytest.raises(DataError, match="is gone"):
        pickle.loads(handle)


def test_subset_of_a_shared_table_is_its_own():
    shared = make_table().share()
    part = shared.select([0, 1])
    path = shared.shared.path
    del shared
    gc.collect()
    assert not path.exists()
    assert same(pickle.loads(pickle.dumps(part)), make_table().select([0, 1]))


def test_file_of_a_killed_owner_is_removed_by_the_next(python, monkeypatch):
    script = (
        "import sys, time; sys.path[:0] = sys.argv[1:]; from test_annotation_table import make_table\n"
        "shared = make_table().share(); print(shared.shared.path, flush=True); time.sleep(60)"
    )
    owner = python.start("-c", script, Path(__file__).parent, Path(__file__).parents[1])
    path = Path(owner.wait_for_line())
    monkeypatch.setattr(sharing, "_SETTLED_S", 0)
    time.sleep(0.05)
    alive = make_table().share()
    assert path.exists()
    owner.kill()
    assert path.exists()
    another = make_table().share()
    assert not path.exists()
    assert alive.shared.path.exists()
    assert another.shared.path.exists()


def test_all_classes_as_one() -> None:
    table = make_table()
    one = table.of_one_class()
    assert one.check().class_names == ("object",)
    assert one.class_ids.tolist() == [1]
    assert not one.labels.any()
    assert one.num_objects == table.num_objects
    assert np.array_equal(one.flags, table.flags)

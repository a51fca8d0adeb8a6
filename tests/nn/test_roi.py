"""Labels of regions: classes, what is left out, and the original's rule."""

import math

import torch

from sniper.nn.config import RoiConfig
from sniper.nn.proposals import Proposals
from sniper.nn.roi import RegionTargets
from sniper.nn.roi import region_targets as padded_targets
from sniper.structures import Batch, ObjectState

VALID, IGNORED, CROWD, EMPTY = ObjectState.VALID, ObjectState.IGNORED, ObjectState.CROWD, ObjectState.EMPTY


def batch_of(objects, range_px=(0.0, math.inf)):
    """One chip; an object is (box, label, state)."""
    boxes = torch.tensor([box for box, _, _ in objects], dtype=torch.float32).view(1, -1, 4)
    return Batch(
        pixels=torch.zeros(1, 3, 512, 512),
        valid_hw=torch.tensor([[512, 512]]),
        scale=torch.ones(1),
        boxes=boxes,
        labels=torch.tensor([[label for _, label, _ in objects]], dtype=torch.int64),
        state=torch.tensor([[int(state) for _, _, state in objects]], dtype=torch.int64),
        range_px=torch.tensor([range_px]),
        chip_index=torch.zeros(1, dtype=torch.int64),
    )


def proposals_of(boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(1, -1, 4)
    return Proposals(boxes, torch.ones(boxes.shape[:2]), torch.ones(boxes.shape[:2], dtype=torch.bool))


def region_targets(*given):
    """Without the empty places, of which there are as many as make up the number a chip."""
    targets = padded_targets(*given)
    used = targets.labels >= 0
    columns = {name: getattr(targets, name) for name in ("image", "boxes", "labels", "objects", "matched")}
    weight = None if targets.weight is None else targets.weight[used]
    return RegionTargets(**{name: column[used] for name, column in columns.items()}, weight=weight)


def labels_by_box(targets):
    return {tuple(box.tolist()): int(label) for box, label in zip(targets.boxes, targets.labels, strict=True)}


SQUARE = (100, 100, 200, 200)
LEFT = (100, 100, 150, 200)  # half of the square
LEFT_MORE = (100, 100, 160, 200)
FAR = (400, 400, 450, 450)


def test_classes_background_and_added_objects():
    targets = region_targets(proposals_of([LEFT_MORE, FAR]), batch_of([(SQUARE, 4, VALID)]), RoiConfig())
    assert labels_by_box(targets) == {SQUARE: 5, LEFT_MORE: 5, FAR: 0}
    assert targets.objects[targets.labels == 5].tolist() == [list(map(float, SQUARE))] * 2


def test_iou_of_exactly_one_half_is_background():
    targets = region_targets(proposals_of([LEFT]), batch_of([(SQUARE, 0, VALID)]), RoiConfig())
    assert labels_by_box(targets)[LEFT] == 0


def test_best_on_an_ignored_object_is_left_out():
    objects = [(SQUARE, 0, VALID), (LEFT, 1, IGNORED)]
    targets = region_targets(proposals_of([LEFT, LEFT_MORE, SQUARE, FAR]), batch_of(objects), RoiConfig())
    found = labels_by_box(targets)
    assert LEFT not in found
    assert LEFT_MORE not in found  # 0.6 with the valid object, 0.83 with the ignored one
    assert found == {SQUARE: 1, FAR: 0}


def test_little_overlap_with_an_ignored_object_stays_background():
    touching = (190, 100, 290, 200)
    targets = region_targets(proposals_of([touching]), batch_of([(SQUARE, 0, IGNORED)]), RoiConfig())
    assert labels_by_box(targets) == {touching: 0}


def test_in_a_crowd_there_is_no_background_but_labelled_objects_stay():
    objects = [((0, 0, 300, 300), 0, CROWD), (SQUARE, 2, VALID)]
    targets = region_targets(proposals_of([(10, 10, 60, 60), FAR]), batch_of(objects), RoiConfig())
    assert labels_by_box(targets) == {SQUARE: 3, FAR: 0}


def test_original_rule_trains_everything_against_every_object():
    objects = [(SQUARE, 0, VALID), (LEFT, 1, IGNORED), (FAR, 2, IGNORED), (SQUARE, 9, CROWD)]
    proposals = proposals_of([LEFT, LEFT_MORE, (300, 300, 330, 330)])
    targets = region_targets(proposals, batch_of(objects, (60.0, 200.0)), RoiConfig(rule="original"))
    # FAR (50 px) is out of range: it is not added to the regions.
    assert labels_by_box(targets) == {SQUARE: 1, LEFT: 2, LEFT_MORE: 2, (300, 300, 330, 330): 0}
    assert len(targets.labels) == 5  # LEFT came as an object and as a proposal


def test_original_rule_does_not_learn_difficult_objects():
    objects = [(SQUARE, 0, VALID), (FAR, -1, IGNORED)]
    targets = region_targets(proposals_of([FAR]), batch_of(objects), RoiConfig(rule="original"))
    assert labels_by_box(targets) == {SQUARE: 1, FAR: 0}
    assert len(targets.labels) == 2, "only the proposal, not the object itself, becomes a region"


def test_sampling_is_bounded_and_background_without_objects():
    boxes = [(i, i, i + 20, i + 20) for i in range(200)]
    targets = region_targets(proposals_of(boxes), batch_of([]), RoiConfig(per_chip=64))
    assert len(targets.labels) == 64
    assert (targets.labels == 0).all()
    empty = batch_of([((0, 0, 0, 0), -1, EMPTY)] * 3)
    assert (region_targets(proposals_of(boxes), empty, RoiConfig()).labels == 0).all()


def test_no_regions_at_all():
    targets = region_targets(proposals_of([]), batch_of([]), RoiConfig())
    assert targets.boxes.shape == (0, 4)


def test_shapes_do_not_depend_on_what_is_found():
    """Nothing is read from the device, and empty places train nothing."""
    many = proposals_of([(i, i, i + 20, i + 20) for i in range(200)])
    few = many._replace(present=many.present & (torch.arange(200) < 1))
    for proposals, labelled in ((few, 2), (many, 64)):
        targets = padded_targets(proposals, batch_of([(SQUARE, 4, VALID)]), RoiConfig(per_chip=64))
        assert len(targets.labels) == 64
        assert int((targets.labels >= 0).sum()) == labelled
        assert (targets.matched[targets.labels <= 0] == -1).all()


def test_background_far_from_all_that_is_labelled_weighs_less():
    near = (100, 100, 150, 180)  # IoU 0.4 with the square
    objects = [(SQUARE, 4, VALID), ((300, 300, 400, 400), 1, IGNORED)]
    beside_the_ignored = (300, 300, 350, 350)  # IoU 0.25: background, and near something that was labelled
    proposals = proposals_of([LEFT_MORE, near, FAR, beside_the_ignored])
    targets = region_targets(proposals, batch_of(objects), RoiConfig(soft_sampling=0.25))
    weights = dict(zip(map(tuple, targets.boxes.tolist()), targets.weight.tolist(), strict=True))
    assert weights[SQUARE] == weights[LEFT_MORE] == 1
    assert weights[FAR] == 0.25
    assert 0.95 < weights[near] < 1
    assert 0.6 < weights[beside_the_ignored] < 0.9


def test_without_soft_sampling_and_without_objects_nothing_and_everything_weighs_less():
    assert region_targets(proposals_of([FAR]), batch_of([]), RoiConfig()).weight is None
    assert region_targets(proposals_of([FAR]), batch_of([]), RoiConfig(soft_sampling=0.25)).weight.tolist() == [0.25]

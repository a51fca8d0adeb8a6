"""``sniper.ChipDataset``: chips for other people's training loops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms import v2

import sniper
from facts import facts
from rectangle_set import make_set
from sniper.errors import DataError, RecipeError
from sniper.loader.blanking import blanked, covered
from sniper.pipeline.chip_dataset import ChipDataset
from sniper.pixels.resample import BORDER_RGB
from test_readme import code_behind

PAGE = Path(__file__).parents[2] / "docs" / "chips_for_other_trainers.md"
TWO_LEVELS = {
    "levels": [{"scale": 2.0, "train_range_px": [0, 18]}, {"scale": 1.0, "train_range_px": [14, None]}],
    "chip_px": 96,
}
PLAIN = ["augment.horizontal_flip=0"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five photos with four rectangles each, one of them a crowd, and one without any."""
    path = make_set(tmp_path / "set")
    document = json.loads(path.read_text())
    document["annotations"][2]["iscrowd"] = 1
    path.write_text(json.dumps(document))
    return path


def _same(one: Any, other: Any) -> bool:
    """Whether two pairs of image and target agree in every bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _back(boxes: torch.Tensor, chips: ChipDataset, row: int) -> np.ndarray:
    """Boxes of a chip in px of its image."""
    return (boxes.numpy() + np.tile(chips.chips.origin_xy[row], 2)) / chips.chips.scale[row]


def test_every_object_is_learned_at_its_level_and_ignored_at_the_others(data: Path) -> None:
    chips = ChipDataset(data, TWO_LEVELS, overrides=PLAIN)
    table = chips.table
    learned: set[tuple[int, int]] = set()
    for row, (image, target) in enumerate(chips[row] for row in range(len(chips))):
        assert image.shape == (3, 96, 96)
        assert image.dtype == torch.float32
        assert 0 <= image.min() < image.max() <= 1
        objects = table.objects(int(chips.chips.image_index[row]))
        seen = torch.cat([target["boxes"], target["ignored"]])
        labels = torch.cat([target["labels"], target["ignored_labels"]])
        crowd = torch.cat([target["iscrowd"], target["ignored_iscrowd"]]).numpy()
        whole = _back(seen, chips, row)
        for number, (box, label) in enumerate(zip(whole, labels.tolist(), strict=True)):
            # A box cut by the edge of the chip lies inside the whole one.
            true = table.boxes_xyxy[objects]
            inside = (true[:, :2] <= box[:2] + 1e-3).all(1) & (true[:, 2:] >= box[2:] - 1e-3).all(1)
            (at,) = np.flatnonzero(inside & (table.labels[objects] == label - 1))
            assert crowd[number] == (table.flags[objects][at] == 1)
            if number < len(target["boxes"]):
                learned.add((objects.start + int(at), int(chips.chips.level[row])))
    sizes = np.sqrt(np.prod(table.boxes_xyxy[:, 2:] - table.boxes_xyxy[:, :2], axis=1))
    assert learned == {
        (row, level)
        for row, size in enumerate(sizes)
        for level, wanted in enumerate((size < 18, size >= 14))
        if wanted and not table.ignored[row]
    }


def test_the_same_chips_for_any_number_of_workers_and_other_ones_in_another_epoch(data: Path) -> None:
    chips = ChipDataset(data, TWO_LEVELS)

    def epoch(loader: DataLoader, number: int) -> list:
        chips.set_epoch(number)
        return [pair for images, targets in loader for pair in zip(images, targets, strict=True)]

    here = DataLoader(chips, batch_size=3, collate_fn=chips.collate_fn)
    there = DataLoader(chips, batch_size=3, num_workers=2, collate_fn=chips.collate_fn, persistent_workers=True)
    first, second = epoch(here, 0), epoch(here, 1)
    assert not _same(first, second)
    chips.set_epoch(0)
    assert _same(first, [chips[row] for row in range(len(chips))])
    assert _same(epoch(there, 0), first)
    assert _same(epoch(there, 1), second), "workers that outlive an epoch follow"
    other = ChipDataset(data, TWO_LEVELS, overrides=["train.seed=5"])
    assert not _same([other[row] for row in range(min(len(other), len(first)))], first)


def test_samplers_of_torch_and_transforms_of_torchvision(data: Path) -> None:
    def mirrored(image: torch.Tensor, target: dict) -> tuple[torch.Tensor, dict]:
        return v2.RandomHorizontalFlip(p=1)(image, target)

    plain = ChipDataset(data, TWO_LEVELS, overrides=PLAIN)
    flipped = ChipDataset(data, TWO_LEVELS, overrides=PLAIN, transforms=mirrored)
    image, target = plain[0]
    image_2, target_2 = flipped[0]
    assert torch.equal(image.flip(2), image_2)
    for name in ("boxes", "ignored"):
        assert torch.equal(96 - target[name][:, [2, 0]], target_2[name][:, [0, 2]]), name
    shares = [list(DistributedSampler(plain, 2, rank, shuffle=True, seed=1)) for rank in (0, 1)]
    assert set(shares[0]) | set(shares[1]) == set(range(len(plain)))


def test_cocos_form_has_the_datasets_classes_and_ignored_objects_as_crowds(data: Path) -> None:
    chips = ChipDataset(data, TWO_LEVELS, overrides=PLAIN)
    coco = ChipDataset(data, TWO_LEVELS, overrides=PLAIN, form="coco")
    for row in range(len(chips)):
        image, target = coco[row]
        assert image.dtype == torch.uint8
        assert torch.allclose(image / 255, chips[row][0])
        assert target["image_id"] == row
        learned = [one for one in target["annotations"] if not one["iscrowd"]]
        boxes = torchvision.ops.box_convert(
            torch.tensor([one["bbox"] for one in learned]).reshape(-1, 4), "xywh", "xyxy"
        )
        assert torch.allclose(boxes, chips[row][1]["boxes"])
        assert [one["category_id"] // 10 for one in learned] == chips[row][1]["labels"].tolist()
        assert len(target["annotations"]) - len(learned) == len(chips[row][1]["ignored"])


def test_ignored_objects_are_painted_over_on_demand(data: Path) -> None:
    keep = ChipDataset(data, TWO_LEVELS, overrides=PLAIN)
    blank = ChipDataset(data, TWO_LEVELS, overrides=PLAIN, ignored="blank")
    painted = 0
    for row in range(len(keep)):
        (image, target), (other, _) = keep[row], blank[row]
        changed = (image != other).any(dim=0).numpy()
        ignored = covered(target["ignored"].numpy(), (96, 96))
        valid = covered(target["boxes"].numpy(), (96, 96))
        assert not changed[~ignored | valid].any()
        grey = (other * 255).round().permute(1, 2, 0).numpy()[ignored & ~valid]
        assert (grey == BORDER_RGB).all()
        painted += int(changed.sum())
    assert painted > 1000


def test_blanking_of_many_boxes_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-5, 60, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 3, (200, 2))], axis=1)
    slow = np.zeros((50, 60), bool)
    for x1, y1, x2, y2 in np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).clip(0).astype(int):
        slow[y1:y2, x1:x2] = True
    assert np.array_equal(covered(boxes, (50, 60)), slow)
    assert covered(np.zeros((0, 4)), (5, 5)).sum() == 0
    pixels = np.zeros((3, 5, 5), np.uint8)
    assert blanked(pixels, np.zeros((0, 4)), np.zeros((0, 4))) is pixels


def test_images_that_cannot_be_read(data: Path) -> None:
    chips = ChipDataset(data, TWO_LEVELS)
    (data.parent / "images" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=facts("0.png")):
        chips[0]
    skipping = ChipDataset(data, TWO_LEVELS, overrides=["loader.on_bad_image=skip"])
    first_of_1 = int(np.searchsorted(skipping.chips.image_index, 1))
    assert _same(skipping[0], skipping[first_of_1])  # stands in
    with pytest.raises(IndexError):
        chips[len(chips)]


def test_wrong_arguments_are_refused_in_a_sentence(data: Path) -> None:
    with pytest.raises(RecipeError, match=facts("torchvision", "coco", "yolo")):
        ChipDataset(data, form="yolo")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=facts("pyramid.chip_px", "pyramid.chips_px")):
        ChipDataset(data, {"chips_px": 96})
    with pytest.raises(DataError, match=facts("pyramid.levels", "auto")):
        ChipDataset(data, {"levels": [{"scale": 1.0, "train_range_px": [900, None]}]})


def test_the_example_of_the_documentation_trains(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=2)
    code = (
        code_behind("example: chip dataset", PAGE)
        .replace("train.json", str(data))
        .replace("range(12)", "range(1)")
        .replace("320", "64")
    )
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(code, names)
    assert np.isfinite(names["loss"].item())
    assert names["chips"].pyramid.chip_px == 64
    assert all(image.shape == (3, 64, 64) for image in names["images"])
    assert sniper.ChipDataset is ChipDataset

"""A loaded model as people use it in Python: images in, detections out."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trained_run import Trained

import sniper
from devices import DEVICE
from sniper.errors import DataError
from sniper.inference.images import ImageDetections


def same(one: ImageDetections, other: ImageDetections) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes_xyxy", "scores", "labels"))


def png_of(trained: Trained, folder: Path) -> Path:
    """One of the images without the losses of JPEG."""
    image = next((trained.train_json.parent / "images").iterdir())
    Image.open(image).convert("RGB").save(folder / "image.png")
    return folder / "image.png"


def test_an_image_in_any_form_gives_the_same(trained: Trained, tmp_path: Path) -> None:
    model = sniper.load_model(trained.run.folder, device=DEVICE)
    path = png_of(trained, tmp_path)
    image = Image.open(path)
    pixels = np.asarray(image)
    found = model.detect(path, min_score=0.0)
    assert len(found)
    assert set(found.labels) <= set(range(len(model.class_names)))
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    alpha = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    for other in (str(path), image, pixels, pixels[:, ::-1][:, ::-1], planes, planes.float() / 255, alpha):
        assert same(model.detect(other, min_score=0.0), found)


def test_a_list_gives_a_list_and_the_score_counts(trained: Trained, tmp_path: Path) -> None:
    model = sniper.load_model(trained.run.folder, device=DEVICE)
    pixels = np.asarray(Image.open(png_of(trained, tmp_path)))
    both = model.detect([pixels, pixels[:60]], min_score=0.0)
    assert [one.key for one in both] == [0, 1]
    assert same(both[0], model.detect(pixels, min_score=0.0))
    assert model.detect([]) == []
    middle = float(np.median(both[0].scores))
    few = model.detect(pixels, min_score=middle)
    assert 0 < len(few) < len(both[0])
    assert few.scores.min() >= middle
    grey = model.detect(pixels[:, :, 0], min_score=0.0)
    assert same(grey, model.detect(np.repeat(pixels[:, :, :1], 3, axis=2), min_score=0.0))


def test_a_photo_is_turned_upright(trained: Trained, tmp_path: Path) -> None:
    model = sniper.load_model(trained.run.folder, device=DEVICE)
    upright = Image.open(png_of(trained, tmp_path))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    assert same(model.detect(Image.open(turned), min_score=0.0), model.detect(upright, min_score=0.0))


def test_eight_threads_use_one_model(trained: Trained) -> None:
    model = sniper.load_model(trained.run.folder, device=DEVICE)
    paths = sorted((trained.train_json.parent / "images").iterdir())
    alone = [model.detect(path, min_score=0.0) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: model.detect(path, min_score=0.0), paths * 3))
    assert all(same(one, other) for one, other in zip(alone * 3, together, strict=True))


@pytest.mark.parametrize(
    ("image", "facts"),
    [
        (np.zeros((4, 4, 3)), ("uint8", "float64")),
        (np.zeros((2, 4, 4, 3), np.uint8), ("(H, W, 3)", "(2, 4, 4, 3)", "list")),
        (np.zeros((4, 0, 3), np.uint8), ("(4, 0, 3)",)),
        (np.zeros((4, 4, 5), np.uint8), ("(4, 4, 5)",)),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ("(3, H, W)", "(4, 4, 3)")),
        (torch.full((3, 4, 4), 1.5), ("[0, 1]", "1.5")),
        (torch.full((3, 4, 4), float("nan")), ("[0, 1]", "nan")),
        ("not/there.jpg", ("not/there.jpg",)),
    ],
)
def test_what_is_no_image_is_refused(trained: Trained, image: object, facts: tuple[str, ...]) -> None:
    model = sniper.load_model(trained.run.folder, device=DEVICE)
    with pytest.raises(DataError) as caught:
        model.detect(image)  # type: ignore[call-overload]
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)

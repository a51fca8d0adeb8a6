"""Which region of a photo shows its class."""

import numpy as np
import pytest
from planted import planted

from sniper.new_classes.examples import BACKGROUND, Examples
from sniper.new_classes.selection import Bags, choose_regions

NONE_GIVEN = np.zeros(0, np.int64)


def chosen_boxes(found: Examples) -> list[list[float]]:
    return found.boxes[found.labels != BACKGROUND].tolist()


@pytest.mark.parametrize(("classes", "photos"), [(3, 6), (2, 20), (1, 8)])
def test_what_all_photos_of_a_class_show_is_found(classes: int, photos: int) -> None:
    regions, shown = planted(classes, photos, background_photos=4)
    found = choose_regions(Bags(regions, NONE_GIVEN), None, classes)
    right = [
        box == regions.boxes[row].tolist() for box, row in zip(chosen_boxes(found), shown[shown >= 0], strict=True)
    ]
    assert np.mean(right) >= 0.9
    assert (np.bincount(found.labels[found.labels >= 0], minlength=classes) == photos).all()
    assert (found.labels == BACKGROUND).sum() >= classes * photos
    assert (np.diff(found.photos) >= 0).all()


def test_a_region_that_was_drawn_is_kept_and_so_are_several() -> None:
    regions, shown = planted(2, 4)
    drawn = np.array([0, 3, 9], np.int64)  # two regions of the first photo, one of the second
    found = choose_regions(Bags(regions, drawn), None, 2)
    of_photo = [chosen_boxes(found.take(found.photos == number)) for number in (0, 1)]
    assert of_photo[0] == regions.boxes[[0, 3]].tolist()
    assert of_photo[1] == regions.boxes[[9]].tolist()
    assert shown[0] not in (0, 3)


def test_known_classes_keep_their_examples_and_push_new_ones_away() -> None:
    regions, shown = planted(3, 6)
    old = regions.take(regions.labels < 2)
    others = choose_regions(Bags(old, NONE_GIVEN), None, 2)
    new = regions.take(regions.labels == 2)
    renumbered = Examples(new.features, new.labels, new.photos - 12, new.boxes, new.scores)
    found = choose_regions(Bags(renumbered, NONE_GIVEN), others, 3)
    assert set(found.labels.tolist()) == {BACKGROUND, 2}
    expected = regions.boxes[shown[12:]].tolist()
    assert np.mean([a == b for a, b in zip(chosen_boxes(found), expected, strict=True)]) >= 0.8


def test_one_photo_a_class_and_one_region_a_photo() -> None:
    regions, _ = planted(3, 1, background_photos=2)
    assert len(chosen_boxes(choose_regions(Bags(regions, NONE_GIVEN), None, 3))) == 3
    single, _ = planted(2, 3, regions=1)
    found = choose_regions(Bags(single, NONE_GIVEN), None, 2)
    assert (found.labels == single.labels).all()


def test_the_photo_as_a_whole_is_taken_only_where_there_is_nothing_else() -> None:
    regions, _ = planted(2, 6, regions=3)
    scores = regions.scores.copy()
    scores[2::3] = 0  # the last of each photo is the photo as a whole, alike in all
    features = regions.features.copy()
    features[2::3] = 2.0
    bags = Bags(Examples(features, regions.labels, regions.photos, regions.boxes, scores), NONE_GIVEN)
    found = choose_regions(bags, None, 2)
    assert found.scores[found.labels >= 0].min() > 0

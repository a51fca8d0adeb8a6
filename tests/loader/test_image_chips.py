"""What a chip shows of objects that only some formats have."""

from pathlib import Path

from loader_cases import chips_of

from sniper.loader.image_chips import objects_in_chip
from sniper.structures import ObjectState
from voc_cases import voc_table


def test_difficult_objects_are_ignored_and_teach_no_class(tmp_path: Path) -> None:
    table = voc_table(tmp_path / "voc", ((0, 0, 40, 40), ""), ((50, 50, 60, 60), "difficult"))
    chips = chips_of(table, [(0, 1.0, (0, 0))], side=100, valid=[[0]])
    objects = objects_in_chip(table, chips, 0)
    assert objects.state.tolist() == [ObjectState.VALID, ObjectState.IGNORED]
    assert objects.labels.tolist() == [0, -1]

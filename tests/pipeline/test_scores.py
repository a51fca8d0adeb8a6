"""What an evaluation says where its protocols leave COCO out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trained_run import Trained

from devices import DEVICE
from sniper.data.detections import DetectionTable
from sniper.data.source import DataSource, load_dataset
from sniper.errors import RecipeError
from sniper.evaluation.error_types import ErrorSplit
from sniper.evaluation.protocol import Score
from sniper.evaluation.widerface import WiderProtocol
from sniper.pipeline.evaluate import Evaluation, evaluate, save_evaluation
from tables_by_hand import found_in
from wider_cases import write_mat_files


def test_numbers_are_those_of_any_protocol_and_coco_may_be_missing() -> None:
    nothing = DetectionTable.from_arrays([], np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), None, np.zeros(0, int))
    done = Evaluation((Score("voc", {"mAP": 0.5}),), nothing, 1.0, 1.0, 1.0, [], ErrorSplit(0, 0, 0, 0, 0, 0, 0.0))
    assert done.as_dict() == {"mAP": 0.5}
    with pytest.raises(RecipeError, match=r"expected a COCO score.*\[voc\]"):
        _ = done.result


def test_protocols_by_word_take_the_place_of_the_recipes(trained: Trained, tmp_path: Path) -> None:
    done = evaluate(
        trained.run.folder, trained.val_json, output=tmp_path, protocols=("voc", "openimages"), device=DEVICE
    )
    assert [score.name for score in done.scores] == ["voc", "openimages"]
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written.items() >= done.as_dict().items()
    assert list(written)[:2] == ["VOC_AP50", "VOC_AP50_11"]
    with pytest.raises(RecipeError, match="name each one once, got voc, voc"):
        evaluate(trained.run.folder, trained.val_json, protocols=("voc", "voc"), device=DEVICE)


def test_faces_are_written_in_the_official_layout_too(tmp_path: Path) -> None:
    table = load_dataset(write_mat_files(tmp_path / "ground_truth"))
    found = found_in(table, [(0, (10, 10, 50, 60), 0.5, 0)])
    score = WiderProtocol()(table, found)
    done = Evaluation((score,), found, 1.0, 1.0, 1.0, [], ErrorSplit(1, 0, 0, 0, 0, 4, 0.5))
    save_evaluation(done, table, tmp_path / "out")
    assert (tmp_path / "out" / "wider" / "0--Parade" / "a.txt").read_text() == "a\n1\n10 10 40 50 0.5\n"
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["WIDER_easy"] == pytest.approx(0.5)


def test_data_without_an_object_to_find_are_told(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = json.loads(trained.val_json.read_text())
    crowds = [one | {"iscrowd": 1} for one in said["annotations"]]
    for number, annotations in enumerate([said["annotations"], [], crowds]):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(said | {"annotations": annotations}))
        caplog.clear()
        evaluate(trained.run.folder, DataSource(file, images=trained.val_json.parent / "images"), device=DEVICE)
        told = [line for line in caplog.messages if "no object to find" in line]
        assert len(told) == (number > 0)
        assert all(f"3 images, {len(annotations)} objects" in line for line in told)


def test_a_class_map_counts_fine_classes_for_the_datas_own(trained: Trained, tmp_path: Path) -> None:
    own = evaluate(trained.run.folder, trained.val_json, protocols=("imagenet",), device=DEVICE)
    table = load_dataset(trained.val_json)
    renamed = replace(table, class_names=tuple(f"any {name}" for name in table.class_names))
    file = tmp_path / "map.txt"
    file.write_text("".join(f"{name}\tany {name}\n" for name in table.class_names))
    mapped = evaluate(trained.run.folder, renamed, protocols=("imagenet",), class_map=file, device=DEVICE)
    assert mapped.as_dict() == own.as_dict()
    assert set(mapped.class_names) == set(renamed.class_names)

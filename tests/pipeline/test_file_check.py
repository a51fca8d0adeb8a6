"""Files are looked at before training, those of the evaluation too, and images that are in both datasets are told."""

import logging
from pathlib import Path

import pytest

from facts import facts
from rectangle_set import TINY, make_set
from sniper.data.source import load_dataset
from sniper.errors import DataError
from sniper.pipeline.file_check import check_files
from sniper.pipeline.train import train


def check(data: Path, val: Path | None, on_bad_image: str = "stop") -> list[str]:
    told: list[str] = []
    check_files(
        load_dataset(data),
        None if val is None else load_dataset(val),
        whole_pixels=64e6,
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
        log=told.append,
    )
    return told


def test_a_bad_validation_image_is_found_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, val = make_set(tmp_path / "set"), make_set(tmp_path / "val", images=4, seed=1)
    bad = tmp_path / "val" / "images" / "2.png"
    bad.write_bytes(bad.read_bytes()[:-2000])
    overrides = [*TINY, "train.steps=2"]
    with pytest.raises(DataError, match=facts(str(bad), 102, "1 of 4 images", "--on-bad-image skip")):
        train("mobilenetv2", overrides=overrides, data=data, val=val, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with caplog.at_level(logging.WARNING, "sniper"):
        run = train("mobilenetv2", overrides=overrides, data=data, val=val, root=tmp_path / "runs", on_bad_image="skip")
    assert "1 of 4 images" in caplog.text
    assert run.evaluation is not None
    assert len(run.evaluation.detections) == 3
    assert [name for name, _ in run.skipped] == [str(bad)]


def test_all_bad_is_an_error_in_any_case(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=3)
    for image in (tmp_path / "set" / "images").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DataError, match=facts("none of 3 images", "0.png", "empty")):
        check(data, None, "skip")


def test_images_in_both_datasets_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, val = make_set(tmp_path / "set"), make_set(tmp_path / "val", seed=1)
    check(data, val)
    assert caplog.text == ""
    own, other = tmp_path / "set" / "images", tmp_path / "val" / "images"
    (other / "0.png").unlink()
    (other / "0.png").symlink_to(own / "3.png")
    (other / "1.png").write_bytes((own / "4.png").read_bytes())
    check(data, val)
    assert f"2 of 6 evaluation images are training images too, such as {own / '3.png'} and" in caplog.text
    caplog.clear()
    check(data, data)
    assert "6 of 6 evaluation images" in caplog.text

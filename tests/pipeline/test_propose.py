"""Extraction of proposals: resumed, over several processes, in data with files that cannot be read."""

import sys
from pathlib import Path

import numpy as np
import pytest
from trained_run import Trained

from devices import DEVICE, bit_for_bit
from rectangle_set import TINY, make_set
from sniper.data.detection_files import load_detections, read_proposals
from sniper.data.source import load_dataset
from sniper.errors import DataError
from sniper.inference.config import ProposeConfig
from sniper.inference.proposing import propose_images
from sniper.pipeline.model import load_model
from sniper.pipeline.propose import propose
from sniper.pipeline.sources import Skipped, table_images
from sniper.pipeline.train import train


def test_a_share_of_the_windows_is_drawn_by_the_seed_alone(trained: Trained) -> None:
    model = load_model(trained.run.folder, device=DEVICE)
    table = load_dataset(trained.train_json)
    inference = model.recipe.inference.model_copy(update={"window_px": 128})
    scaled_wh = model.pyramid.levels[0].model_copy(
        update={"scale": 4.0, "long_px": None, "short_px": None, "max_scale": None}
    )
    pyramid = model.pyramid.model_copy(update={"levels": (scaled_wh,)})

    def looked(share: float, seed: int) -> list[int]:
        config = ProposeConfig(window_share=share)
        found = propose_images(model.backend, table_images(table, Skipped()), pyramid, inference, config, seed=seed)
        return [one.pixels_processed for one in found]

    full = looked(1.0, 0)
    assert looked(0.5, 1) == looked(0.5, 1) != looked(0.5, 2)
    assert 0.2 < sum(looked(0.5, 3)) / sum(full) < 0.8
    assert sum(looked(1e-9, 0)) == 0, "nothing to look at is no error"


@bit_for_bit
def test_extraction_goes_on_where_it_was_and_any_number_of_processes_gives_the_same(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[int] = []
    one = propose(
        trained.run.folder, trained.train_json, tmp_path / "one.safetensors", device=DEVICE, on_progress=ticks.append
    )
    assert sum(ticks) == 6
    assert not one.reused
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]
    assert propose(trained.run.folder, trained.train_json, tmp_path / "one.safetensors", device=DEVICE).reused

    monkeypatch.setattr(sys.modules["sniper.pipeline.propose"], "SHARD_IMAGES", 2)
    two = propose(trained.run.folder, trained.train_json, tmp_path / "two.safetensors", device=DEVICE, processes=2)
    assert np.array_equal(one.detections.boxes_xyxy, two.detections.boxes_xyxy)

    def stop(images: int) -> None:
        raise KeyboardInterrupt

    third = tmp_path / "three.safetensors"
    with pytest.raises(KeyboardInterrupt):
        propose(trained.run.folder, trained.train_json, third, device=DEVICE, on_progress=stop)
    (part,) = (tmp_path / "three.safetensors.parts").iterdir()
    made = part.stat().st_mtime_ns
    seen: list[int] = []

    def look(images: int) -> None:
        assert part.stat().st_mtime_ns == made
        seen.append(images)

    assert propose(
        trained.run.folder, trained.train_json, third, device=DEVICE, on_progress=look
    ).detections.num_objects
    assert seen == [2, 2, 2]
    assert not part.parent.exists()
    assert np.array_equal(load_detections(third).scores, one.detections.scores)


def test_an_image_that_cannot_be_read_stops_or_is_listed(trained: Trained, tmp_path: Path) -> None:
    data = make_set(tmp_path / "data", images=3)
    (tmp_path / "data" / "images" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1\.png"):
        propose(trained.run.folder, data, tmp_path / "p.safetensors", device=DEVICE)
    done = propose(trained.run.folder, data, tmp_path / "p.safetensors", device=DEVICE, on_bad_image="skip")
    assert len(done.skipped) == 1
    assert done.detections.image_ids.tolist() == [100, 102]
    aligned = read_proposals(done.path, load_dataset(data))
    assert np.diff(aligned.offsets)[1] == 0
    assert np.array_equal(aligned.boxes_xyxy, done.detections.boxes_xyxy)


def test_extraction_looks_everywhere_whatever_autofocus_would_leave_out(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, f"data.train={trained.train_json}", "model.focus=true", "model.focus_channels=8"]
    overrides += ["pyramid.levels=[{scale: 2}, {scale: 1}]"]
    model = load_model(train("mobilenetv2", overrides=overrides, root=tmp_path).folder, device=DEVICE)
    everywhere = propose(model, trained.train_json, tmp_path / "everywhere.safetensors").detections
    assert set(everywhere.levels.tolist()) == {0, 1}
    focused = propose(model.focused(1.0), trained.train_json, tmp_path / "focused.safetensors").detections
    np.testing.assert_array_equal(focused.boxes_xyxy, everywhere.boxes_xyxy)
    np.testing.assert_array_equal(focused.levels, everywhere.levels)
    some = propose(
        model.focused(1.0),
        trained.train_json,
        tmp_path / "some.safetensors",
        config=ProposeConfig(window_share=0.2),
    ).detections
    assert some.num_objects < everywhere.num_objects, "a share of the windows is drawn"

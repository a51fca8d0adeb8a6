"""Work split by image: the same result whoever makes which part, resumed, and over the processes of a launch."""

import json
import os
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trained_run import Trained

from devices import DEVICE, bit_for_bit
from forked import Python, processes_interpreter
from rectangle_set import TINY, make_set
from sniper.data.detection_files import load_detections, save_detections
from sniper.data.detections import DetectionTable
from sniper.errors import DataError, RecipeError
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import load_model
from sniper.pipeline.propose import propose
from sniper.pipeline.shards import MAX_SHARD_IMAGES, split
from sniper.pipeline.train import train


@given(
    images=st.integers(0, 3000),
    in_flight=st.integers(1, 300),
    large=st.sets(st.integers(0, 2999), max_size=5),
)
def test_shards_are_whole_groups_of_all_images(images: int, in_flight: int, large: set[int]) -> None:
    alone = [k in large for k in range(images)]
    shards = split(images, in_flight, alone=alone)
    assert [row for shard in shards for row in shard] == list(range(images))
    assert all(0 < len(shard) <= max(MAX_SHARD_IMAGES, in_flight) for shard in shards)
    assert all(len(shard) == 1 for shard in shards if large & set(shard))
    plain = split(images, in_flight)
    assert all(len(shard) % in_flight == 0 for shard in plain[:-1])
    assert len(plain) <= max(64, -(-images // (MAX_SHARD_IMAGES - in_flight + 1))) or in_flight > MAX_SHARD_IMAGES // 2


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny detector with masks, that looks at two images at a time, and a set of seven."""
    folder = tmp_path_factory.mktemp("shards")
    sets = [make_set(folder / name, images=7, seed=seed) for seed, name in enumerate(("train", "val"))]
    for path in sets:
        document = json.loads(path.read_text())
        for entry in document["annotations"]:
            x, y, w, h = entry["bbox"]
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        path.write_text(json.dumps(document))
    overrides = [*TINY, "model.masks=true", "model.mask_channels=8", "model.mask_convs=1", "train.steps=2"]
    overrides += [f"data.train={sets[0]}", "inference.images_in_flight=2"]
    return train("mobilenetv2", overrides=overrides, root=folder).folder, sets[1]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images, one of which cannot be read."""
    data = make_set(tmp_path_factory.mktemp("spoilt") / "set", images=7)
    (data.parent / "images" / "5.png").write_bytes(b"no image")
    return data


def assert_same(one: DetectionTable, other: DetectionTable) -> None:
    for field in fields(DetectionTable):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "masks":
            ours, theirs = list(ours), list(theirs)
            assert ours == theirs
        else:
            np.testing.assert_array_equal(ours, theirs)


@bit_for_bit
def test_any_number_of_processes_finds_the_same(masked: tuple[Path, Path], spoilt: Path, tmp_path: Path) -> None:
    run, _ = masked
    told: dict[int, list[int]] = {1: [], 2: []}
    done = {}
    for count, ticks in told.items():
        given = {"processes": count, "output": tmp_path / str(count), "on_progress": ticks.append}
        done[count] = evaluate(run, spoilt, device=DEVICE, on_bad_image="skip", **given)
    one = done[1]
    assert one.detections.num_objects > 0
    assert one.detections.masks is not None
    assert [Path(name).name for name, _ in one.skipped] == ["5.png"]
    for count, ticks in told.items():
        assert_same(done[count].detections, one.detections)
        assert done[count].as_dict() == one.as_dict()
        assert done[count].pixels_per_image == one.pixels_per_image
        assert done[count].skipped == one.skipped
        assert sum(ticks) == 7
        written = sorted((tmp_path / str(count)).iterdir())
        assert [path.name for path in written] == ["metrics.json", "pr_curves.png", "predictions.json"]
        assert written[-1].read_bytes() == (tmp_path / "1" / "predictions.json").read_bytes()


def test_masks_survive_a_file_of_detections(masked: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate(*masked, device=DEVICE).detections
    save_detections(tmp_path / "some.safetensors", found)
    assert_same(load_detections(tmp_path / "some.safetensors"), found)


@bit_for_bit
def test_a_stopped_evaluation_goes_on_where_it_was(masked: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = masked

    def stop(images: int) -> None:
        nonlocal seen
        seen += images
        if seen > 4:
            raise KeyboardInterrupt

    for processes in (1, 2):
        seen, output = 0, tmp_path / str(processes)
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, data, device=DEVICE, output=output, processes=processes, on_progress=stop)
        assert [path.name for path in output.iterdir()] == ["predictions.json.parts"], "nothing half-written"
        before = {path: path.stat().st_mtime_ns for path in (output / "predictions.json.parts").iterdir()}
        assert before
        assert all(path.suffix == ".safetensors" and not path.name.startswith(".") for path in before)

        def look(images: int, before: dict[Path, int] = before) -> None:
            assert all(path.stat().st_mtime_ns == made for path, made in before.items() if path.exists())

        done = evaluate(run, data, device=DEVICE, output=output, on_progress=look)
        assert_same(done.detections, evaluate(run, data, device=DEVICE).detections)
        assert not (output / "predictions.json.parts").exists()


def test_an_error_in_any_process_is_the_same_sentence_and_ends_all(
    masked: tuple[Path, Path], spoilt: Path, tmp_path: Path
) -> None:
    run, _ = masked
    for processes in (1, 2):
        with pytest.raises(DataError, match=r"5\.png.*image id 105"):
            evaluate(run, spoilt, device=DEVICE, processes=processes)
    own = load_model(run, detector=load_model(run, device=DEVICE).detector, device=DEVICE)
    for verb in (evaluate, lambda *given, **more: propose(*given, tmp_path / "p.safetensors", **more)):
        with pytest.raises(RecipeError, match="several processes need a checkpoint"):
            verb(own, spoilt, processes=2)


def test_every_process_of_a_launch_looks_at_its_share_and_gets_the_result_of_all(
    python: Python, masked: tuple[Path, Path], spoilt: Path, tmp_path: Path
) -> None:
    run, data = masked
    python.launch(2, Path(__file__).with_name("evaluated_by_ranks.py"), run, data, spoilt, tmp_path)
    reports = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    one = evaluate(run, data, device="cpu")
    for rank, report in enumerate(reports):
        assert report["metrics"] == one.as_dict()
        assert_same(load_detections(tmp_path / f"rank{rank}.safetensors"), one.detections)
        assert "5.png" in report["error"], "both end, though one alone met the image"
    assert sorted(report["looked_at"] for report in reports) == [3, 4], "no rank does everything"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json", "pr_curves.png", "predictions.json",
    ]  # fmt: skip


def test_an_evaluation_in_training_is_shared_by_its_processes(python: Python, trained: Trained, tmp_path: Path) -> None:
    """The metrics of two processes are those of the saved weights, evaluated by one. The one true ``torchrun``."""
    settings = [*TINY, f"data.train={trained.train_json}", f"data.evaluate={trained.val_json}", "train.steps=2"]
    settings += ["train.device=cpu", "loader.batch_size=1", "train.unused_parameters=true"]
    settings += ["inference.images_in_flight=1"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "sniper"]
    given = [argument for setting in settings for argument in ("--set", setting)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHON_EXEC"] = processes_interpreter() or sys.executable  # of what torchrun starts
    command = [*launch, "train", "mobilenetv2", *given, "--root", tmp_path, "--name", "two"]
    done = python.run(*command, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("run folder: ") == done.stdout.count("Errors: ") == 1, "one process reports"
    assert done.stderr.count("training on cpu, 2 processes, 2 chips a step") == 1
    folder = tmp_path / "train" / "two"
    numbers = json.loads((folder / "metrics.json").read_text())
    alone = evaluate(folder / "last.safetensors", trained.val_json, device="cpu")
    # Weights in training have another memory layout, and round otherwise.
    assert {name: numbers[name] for name in alone.as_dict()} == pytest.approx(alone.as_dict(), abs=1e-3)
    written = json.loads((folder / "predictions.json").read_text())
    assert {entry["image_id"] for entry in written} == set(alone.detections.image_ids.tolist())
    assert len(written) == alone.detections.num_objects


def test_a_killed_evaluation_leaves_no_processes_and_goes_on(
    python: Python, masked: tuple[Path, Path], tmp_path: Path
) -> None:
    run, data = masked
    code = (
        "import sys, sniper\n"
        "if __name__ == '__main__':\n"
        "    sniper.evaluate(sys.argv[1], sys.argv[2], device='cpu', processes=2, output=sys.argv[3])\n"
    )
    (tmp_path / "run.py").write_text(code)
    output = tmp_path / "out"
    process = python.start(tmp_path / "run.py", run, data, output, start_new_session=True)
    parts = output / "predictions.json.parts"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if parts.is_dir() and any(path.suffix == ".safetensors" for path in parts.iterdir()):
            break
        time.sleep(0.01)
    assert process.poll() is None, process.stderr
    process.kill()
    ended = threading.Event()
    for _ in range(100):
        if not _of_session(process.pid):
            ended.set()
            break
        time.sleep(0.1)
    assert ended.is_set(), "workers outlive the one that started them"
    done = evaluate(run, data, device=DEVICE, output=output)
    assert done.result.images == 7


def _of_session(session: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found

"""Detecting in files, folders, globs and videos; writing what was found."""

import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from trained_run import Trained

from devices import DEVICE, bit_for_bit
from facts import facts
from forked import Python
from sniper.errors import DataError, RecipeError, StorageError
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.predict import predict, predict_stream
from sniper.pipeline.prediction import Prediction
from sniper.pipeline.source_files import distinct_stems
from sniper.report.blur import blur_detections
from sniper.report.draw import draw_detections
from sniper.training.checkpoint import load_weights, save_weights
from sniper.training.weights_file import checkpoint_file
from sniper.writers.images import save_picture


@pytest.fixture(scope="module")
def model(trained: Trained) -> Model:
    return load_model(trained.run.folder, device=DEVICE)


def _image(path: Path, size_wh: tuple[int, int] = (90, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _video(path: Path, frames: int = 3, size_wh: tuple[int, int] = (96, 64)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, size_wh)
    for number in range(frames):
        writer.write(np.full((size_wh[1], size_wh[0], 3), 40 * number % 250, np.uint8))
    writer.release()
    return path


def test_files_folders_and_globs(model: Model, tmp_path: Path) -> None:
    for name in ("a/one.png", "a/deep/two.JPG", "b/one.png", "b/three.bmp"):
        _image(tmp_path / "in" / name)
    (tmp_path / "in" / "a" / "notes.txt").write_text("no image")
    sources = [tmp_path / "in" / "a", str(tmp_path / "in" / "b" / "*.png"), tmp_path / "in" / "b" / "three.bmp"]
    ticks: list[int] = []
    found = predict(
        model, [*sources, sources[-1]], output=tmp_path / "out", min_score=0, draw_min_score=0, on_progress=ticks.append
    )
    names = [str(item.path.relative_to(tmp_path / "in")) for item in found.items]
    assert names == ["a/deep/two.JPG", "a/one.png", "b/one.png", "b/three.bmp"]
    assert sum(ticks) == 4
    assert found.skipped == []
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert drawn == ["one-2.jpg", "one.jpg", "predictions.json", "three.jpg", "two.jpg"]
    for name in drawn[:2]:
        assert cv2.imread(str(tmp_path / "out" / name)) is not None
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["file"] for entry in entries] == [str(item.path) for item in found.items]
    for entry, item in zip(entries, found.items, strict=True):
        assert len(entry["detections"]) == len(item.scores) > 0
        assert (np.diff(item.scores) <= 0).all()
        first = entry["detections"][0]
        assert first["class"] in model.class_names
        x, y, width, height = first["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], item.boxes_xyxy[0], atol=0.02)
        assert item.boxes_xyxy.max(initial=0) <= 90


def test_one_result_whatever_else_is_looked_at(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [_image(tmp_path / "images" / f"{k}.png", (60 + 30 * k, 50)) for k in range(3)]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    together = predict(model, paths, min_score=0)
    alone = predict(model, str(paths[1]), min_score=0)
    np.testing.assert_allclose(together.items[1].boxes_xyxy, alone.items[0].boxes_xyxy, atol=1e-3)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == paths, "no output, no files"
    middle = float(np.median(alone.items[0].scores))
    some = predict(model, paths, min_score=middle)
    for item, everything in zip(some.items, together.items, strict=True):
        np.testing.assert_array_equal(item.scores, everything.scores[everything.scores >= middle])
    assert 0 < len(some.items[1].scores) < len(together.items[1].scores)


def test_a_video_that_is_cut_off_is_told(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (96, 64))
    for frame in np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3), dtype=np.uint8):
        writer.write(frame)
    writer.release()
    assert predict(model, whole).images == 12
    assert not caplog.messages
    cut = tmp_path / "cut.avi"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    found = predict(model, cut).images
    assert 0 < found < 12
    assert f"cut.avi: {found} of 12 frames can be read: the video is cut off" in caplog.text


def test_videos(model: Model, tmp_path: Path) -> None:
    clip = _video(tmp_path / "clip.avi")
    (tmp_path / "more").mkdir()
    other = _video(tmp_path / "more" / "clip.avi", frames=1)
    still = _image(tmp_path / "clip.png")
    found = predict(model, [clip, other, still], output=tmp_path / "out", min_score=0)
    assert [(item.path, item.frame) for item in found.items] == [
        (still, None), (clip, 0), (clip, 1), (clip, 2), (other, 0),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "clip-2.mp4", "clip-3.jpg", "clip.mp4", "predictions.json",
    ]  # fmt: skip
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert capture.read()[1].shape == (64, 96, 3)
    frames = [entry["frame"] for entry in json.loads((tmp_path / "out" / "predictions.json").read_text())[1:]]
    assert frames == [0, 1, 2, 0]
    plain = predict(model, clip, output=tmp_path / "plain", draw=False)
    assert len(plain.items) == 3
    assert [path.name for path in (tmp_path / "plain").iterdir()] == ["predictions.json"]


def test_images_of_one_pixel_and_long_ones(model: Model, tmp_path: Path) -> None:
    for size in ((1, 1), (1, 700), (700, 2)):
        item = predict(model, _image(tmp_path / f"{size}.png", size), output=tmp_path / "out", min_score=0).items[0]
        assert len(item.boxes_xyxy) > 0 or min(size) == 1, "nothing found"
        assert (item.boxes_xyxy >= 0).all()
        assert (item.boxes_xyxy <= [*size, *size]).all()


def test_links_to_nowhere_are_skipped(model: Model, tmp_path: Path) -> None:
    _image(tmp_path / "in" / "a.png")
    for name in ("b.png", "c.mp4"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "nowhere")
    found = predict(model, tmp_path / "in", output=tmp_path / "out", keep=False, on_bad_image="skip")
    assert [Path(name).name for name, _ in found.skipped] == ["b.png", "c.mp4"]
    assert found.images == 1
    with pytest.raises(DataError, match=r"cannot read .*b\.png: No such file"):
        predict(model, tmp_path / "in", output=tmp_path / "other")


def test_bad_sources(model: Model, tmp_path: Path) -> None:
    good = _image(tmp_path / "good.png")
    cut = _image(tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:200])
    no_video = tmp_path / "no.mp4"
    no_video.write_text("this is no video")
    with pytest.raises(DataError, match=r"cut\.png"):
        predict(model, [good, cut])
    with pytest.raises(DataError, match=r"no\.mp4: cannot be opened as a video"):
        predict(model, no_video)
    found = predict(model, tmp_path, output=tmp_path / "out", on_bad_image="skip")
    assert [item.path for item in found.items] == [good]
    assert [Path(name).name for name, _ in found.skipped] == ["cut.png", "no.mp4"]
    with pytest.raises(DataError, match="no such file, folder or match"):
        predict(model, tmp_path / "*.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images or videos in this folder"):
        predict(model, tmp_path / "empty")


def test_drawings_never_replace_what_was_looked_at(model: Model, tmp_path: Path) -> None:
    photo = _image(tmp_path / "photo.jpg")
    before = photo.read_bytes()
    with pytest.raises(StorageError, match=facts("photo.jpg", "another folder")):
        predict(model, photo, output=tmp_path)
    assert photo.read_bytes() == before
    predict(model, photo, output=tmp_path, draw=False)
    assert (tmp_path / "predictions.json").is_file()


def test_drawings_show_each_class_from_the_score_that_the_checkpoint_keeps(trained: Trained, tmp_path: Path) -> None:
    weights, meta = load_weights(checkpoint_file(trained.run.folder))
    photo = _image(tmp_path / "photo.png")
    pixels = cv2.imread(str(photo))[..., ::-1]

    def drawn(draw_scores: tuple[float, ...], **given: float) -> np.ndarray:
        save_weights(tmp_path / "one.safetensors", weights, meta.model_copy(update={"draw_scores": draw_scores}))
        model = load_model(tmp_path / "one.safetensors", device=DEVICE)
        predict(model, photo, output=tmp_path / "out", **given)
        return cv2.imread(str(tmp_path / "out" / "photo.jpg"))

    found = predict(trained.run.folder, photo, min_score=0, device=DEVICE).items[0]
    middle = float(np.median(found.scores))
    given = {"boxes_xyxy": found.boxes_xyxy, "scores": found.scores, "labels": found.labels}

    def expected(min_score: float | tuple[float, ...]) -> np.ndarray:
        picture = draw_detections(pixels, **given, class_names=found.class_names, min_score=min_score)
        save_picture(tmp_path / "expected.jpg", picture)
        return cv2.imread(str(tmp_path / "expected.jpg"))

    one_class = tuple(middle if label == found.labels[0] else 1.0 for label in range(3))
    assert (expected(one_class) != expected(1.0)).any()
    np.testing.assert_array_equal(drawn(one_class), expected(one_class))
    np.testing.assert_array_equal(drawn(one_class, min_score=middle), expected(middle), "said by hand")
    np.testing.assert_array_equal(drawn(one_class, draw_min_score=0.9), expected(0.9), "said by hand")
    np.testing.assert_array_equal(drawn(()), expected(0.3), "not evaluated")
    np.testing.assert_array_equal(drawn((), min_score=0.01), expected(0.3), "not evaluated")


def test_names_are_told_apart() -> None:
    paths = [Path(name) for name in ("a/x.jpg", "b/x.png", "c/x-2.jpg", "d/X.jpg", "e/y.jpg")]
    assert distinct_stems(paths) == ["x", "x-2", "x-2-2", "X-3", "y"]


# --- in parts -------------------------------------------------------------------------------------------------------


def _few_in_flight(trained: Trained, path: Path, **detector: object) -> Path:
    """The trained weights, with a recipe that looks at two images at a time."""
    weights, meta = load_weights(checkpoint_file(trained.run.folder))
    recipe = dict(meta.recipe)
    recipe["inference"] = recipe["inference"] | {"images_in_flight": 2}
    recipe["model"] = recipe["model"] | detector
    save_weights(path, weights, meta.model_copy(update={"recipe": recipe}))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images, one of which cannot be read, and two videos."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(5):
        _image(folder / f"{number}.png", (60 + 10 * number, 50))
    (folder / "3.png").write_bytes(b"no image")
    for number in range(2):
        _video(folder / f"{number}.avi", frames=2 + number)
    return folder


def _assert_same(ours: list[Prediction], theirs: list[Prediction]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for field in fields(Prediction):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@bit_for_bit
def test_any_number_of_processes_finds_and_writes_the_same(trained: Trained, sources: Path, tmp_path: Path) -> None:
    checkpoint = _few_in_flight(trained, tmp_path / "few.safetensors")
    given = {"min_score": 0, "draw_min_score": 0, "on_bad_image": "skip", "device": DEVICE}
    done = {}
    for count in (1, 2):
        ticks: list[int] = []
        output = tmp_path / str(count)
        done[count] = predict(checkpoint, sources, output=output, processes=count, on_progress=ticks.append, **given)
        assert sum(ticks) == done[count].images == 9
    one = done[1]
    assert [Path(name).name for name, _ in one.skipped] == ["3.png"]
    written = {path.name: path.read_bytes() for path in (tmp_path / "1").iterdir()}
    assert sorted(written) == ["0-2.jpg", "0.mp4", "1-2.jpg", "1.mp4", "2.jpg", "4.jpg", "predictions.json"]
    _assert_same(done[2].items, one.items)
    assert done[2].skipped == one.skipped
    assert {path.name: path.read_bytes() for path in (tmp_path / "2").iterdir()} == written
    _assert_same(list(predict_stream(checkpoint, sources, min_score=0, on_bad_image="skip", device=DEVICE)), one.items)
    bare = predict(checkpoint, sources, keep=False, output=tmp_path / "bare", **given)
    assert bare.items == []
    assert (bare.images, bare.detections) == (9, sum(len(item.scores) for item in one.items))
    assert (bare.pixels_processed, bare.pixel_share, bare.skipped) == (one.pixels_processed, 1, one.skipped)
    assert {path.name: path.read_bytes() for path in (tmp_path / "bare").iterdir()} == written


def test_a_stopped_prediction_leaves_nothing_half_written_and_goes_on(
    trained: Trained, sources: Path, tmp_path: Path
) -> None:
    checkpoint = _few_in_flight(trained, tmp_path / "few.safetensors")
    given = {"min_score": 0, "on_bad_image": "skip", "device": DEVICE, "keep": False, "output": tmp_path / "out"}
    seen: list[int] = []

    def stop_at(images: int) -> None:
        seen.append(images)
        if sum(seen) == 6:  # in the middle of the first video
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(checkpoint, sources, on_progress=stop_at, **given)
    left = sorted(path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert left == [".done"] * 3 + [".jpg"] * 4 + [".json"] * 3
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.jpg")}
    done = predict(checkpoint, sources, **given)
    assert (done.images, len(done.skipped)) == (9, 1)
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn, "images were not done again"
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    frames = [(Path(entry["file"]).name, entry["frame"]) for entry in entries if "frame" in entry]
    assert frames == [("0.avi", 0), ("0.avi", 1), ("1.avi", 0), ("1.avi", 1), ("1.avi", 2)]
    assert not (tmp_path / "out" / "predictions.json.parts").exists()


MEASURED = """
import sys
import sniper
model = sniper.load_model(sys.argv[1], device="cpu")
for clip in sys.argv[3:]:
    found = sniper.predict(model, clip, output=sys.argv[2], keep=False, min_score=0, draw_min_score=2)
    # Not ru_maxrss, which begins with that of the process that started this one.
    print(found.detections, open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells its peak of memory on Linux only")
def test_memory_does_not_grow_with_the_number_of_frames(python: Python, trained: Trained, tmp_path: Path) -> None:
    checkpoint = _few_in_flight(trained, tmp_path / "few.safetensors", max_detections=300)
    clips = [_video(tmp_path / f"{frames}.avi", frames, (32, 24)) for frames in (30, 400)]
    done = python.run("-c", MEASURED, checkpoint, tmp_path / "out", *clips)
    assert done.returncode == 0, done.stderr
    (few, small), (many, large) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert many > 10 * few > 10_000
    assert large - small < 20_000, f"{(large - small) / 1000:.0f} MB more for {many - few} more detections"


def test_blurred_pictures_and_frames(model: Model, tmp_path: Path) -> None:
    """Every detection from the chosen score on is hidden; the rest of the picture is as it was."""
    image, video = _image(tmp_path / "in" / "a.png"), _video(tmp_path / "in" / "film.avi", frames=2)
    found = predict(model, [image, video], output=tmp_path / "out", min_score=0, draw_min_score=0.3, blur=True)
    first = found.items[0]
    pixels = np.asarray(Image.open(image))
    expected = blur_detections(pixels, first.boxes_xyxy, first.scores, first.labels, min_score=0.3)
    save_picture(tmp_path / "expected.jpg", expected)
    assert (tmp_path / "out" / "a.jpg").read_bytes() == (tmp_path / "expected.jpg").read_bytes()
    assert (expected != pixels).any() == (first.scores >= 0.3).any()
    frames = cv2.VideoCapture(str(tmp_path / "out" / "film.mp4"))
    assert frames.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_blur_is_refused_where_it_would_not_hide_anything(model: Model, tmp_path: Path) -> None:
    image = _image(tmp_path / "a.png")
    with pytest.raises(RecipeError, match=facts("--blur", "--no-draw", "drawings")):
        predict(model, image, output=tmp_path / "out", draw=False, blur=True)
    with pytest.raises(RecipeError, match=facts("--blur", "--draw-focus", "focus maps")):
        predict(model, image, output=tmp_path / "out", draw_focus=True, blur=True)
    assert not (tmp_path / "out").exists()

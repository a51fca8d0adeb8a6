"""The command line: every verb, and what is said and returned when something is wrong."""

import json
import logging
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from devices import DEVICE
from forked import Python
from rectangle_set import SIZE, TINY, coco_document, make_set
from sniper import cli
from sniper.data.detection_files import load_detections
from sniper.training.checkpoint import load_weights, save_weights


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


def _settings() -> list[str]:
    return [argument for setting in TINY for argument in ("--set", setting)]


def _main(*arguments: object) -> int:
    """The exit code of ``sniper`` with these arguments."""
    before, sys.argv = sys.argv, ["sniper", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def sniper(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Command]:
    """``sniper ...`` in this process and in an empty folder, through the real entry point."""
    root, logger = logging.getLogger(), logging.getLogger("sniper")
    before = root.handlers[:], root.level, logger.level
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        return Said(_main(*arguments), *capsys.readouterr())

    yield run
    root.handlers[:], level = before[0], before[1]
    root.setLevel(level)
    logger.setLevel(before[2])


def _assert_one_sentence(said: Said, *parts: str) -> None:
    assert said.code == 2, said
    *before, last = said.err.splitlines()
    assert last.startswith("error: "), said.err
    assert all(line.startswith(("warning: ", "step ", "training on ")) for line in before), said.err
    assert "Traceback" not in said.err + said.out
    for part in parts:
        assert re.search(part, last), (part, last)


class Trained(NamedTuple):
    """A run made by the command line, and its datasets."""

    folder: Path
    data: Path
    val: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained by the command line, in folders whose names YAML would read as something else."""
    root = tmp_path_factory.mktemp("cli")
    data, val = make_set(root / "2024: a #1"), make_set(root / "val", images=3, seed=1)
    arguments = ["train", "mobilenetv2", *_settings(), "--set", "train.steps=2", "--name", "one", "--root", str(root)]
    assert _main(*arguments, "--data", data, "--val", val) == 0
    return Trained(root / "train" / "one", data, val)


# --- real processes -------------------------------------------------------------------------------------------------


def test_help_needs_no_torch() -> None:
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print(sorted({'torch', 'numba', 'numpy', 'cv2'} & set(sys.modules))))\n"
        "runpy.run_module('sniper', run_name='__main__', alter_sys=True)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in ("train", "evaluate", "predict", "propose", "chips", "demo", "models"))
    assert shown.stdout.splitlines()[-1] == "[]"


VERBS = "train", "evaluate", "predict", "propose", "chips stats", "chips preview", "import-mxnet", "download", "demo"


@pytest.mark.parametrize("verb", [*VERBS, "score", "models", "settings", "check", "convert", "runs"])
def test_every_verb_tells_what_it_takes(sniper: Command, verb: str) -> None:
    said = sniper(*verb.split(), "-h")
    assert said.code == 0
    assert "Usage:" in said.out
    assert f"sniper {verb}" in said.out


def test_the_version_is_that_of_the_package(sniper: Command) -> None:
    import sniper as package

    assert sniper("--version").out == f"sniper {package.__version__}\n"
    assert sniper("evaluate", "--help").out.startswith(sniper("evaluate", "-h").out[:200])
    shown = sniper("--help").out
    assert "--install-completion" in shown
    assert "--show-completion" in shown


def test_settings_are_listed_and_searched(sniper: Command) -> None:
    said = sniper("settings")
    assert said.code == 0
    assert "train.learning_rate = 0.015\n    peak learning rate" in said.out
    assert "model.kind = original" in said.out
    found = sniper("settings", "megapixels").out
    assert "loader.whole_megapixels = 64" in found
    assert "train.learning_rate" not in found
    assert "train.learning_rate = 0.015" not in sniper("settings", "train", "--recipe", "demo").out
    _assert_one_sentence(sniper("settings", "zoom_px"), "no setting has 'zoom_px' in its name", "loader, augment")


def test_train_takes_short_forms(sniper: Command, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=3)
    settings = [part for one in TINY if not one.startswith("train.steps") for part in ("--set", one)]
    short = ["--epochs", "0.5", "--batch", "1", "--seed", "3", "--device", "cpu"]
    said = sniper("train", "mobilenetv2", *settings, "--data", data, *short, "--name", "short")
    assert said.code == 0, said.err
    recipe = Path("runs/train/short/recipe.yaml").read_text()
    assert all(line in recipe for line in ("  epochs: 0.5\n", "  batch_size: 1\n", "  seed: 3\n", "  device: cpu\n"))
    said = sniper("train", "mobilenetv2", "--data", data, "--minutes", "0")
    _assert_one_sentence(said, r"train\.minutes: expected a number greater than 0, got 0")


def test_train_tells_where_its_time_went(sniper: Command, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=3)
    said = sniper("train", "mobilenetv2", *_settings(), "--set", "train.steps=5", "--data", data, "--profile")
    assert said.code == 0, said.err
    assert re.search(r"a step took \S+ s \(2 profiled\): waiting for chips \d+%, forward \d+%", said.out), said.out
    trace = json.loads(Path("runs/train/train/trace.json").read_text())
    assert {"forward: backbone", "forward: rpn", "backward"} <= {event.get("name") for event in trace["traceEvents"]}


def test_a_verb_that_is_not_there_is_2(sniper: Command) -> None:
    assert sniper("trian").code == 2


def test_ctrl_c_is_130(python: Python) -> None:
    code = (
        "import sniper.cli as c, time\n"
        "@c.app.command()\n"
        "def wait():\n"
        "    print('waiting', flush=True); time.sleep(60)\n"
        "c.main()"
    )
    process = python.start("-c", code, "wait")
    assert process.wait_for_line() == "waiting"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in process.stderr


def test_a_full_disk_while_saving_is_one_sentence(python: Python, trained: Trained, tmp_path: Path) -> None:
    """No file may exceed 600 kB; the first checkpoint would."""
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000));"
        "from sniper.cli import main; main()"
    )
    arguments = ["train", "mobilenetv2", *_settings(), "--set", "train.steps=1", "--data", trained.data]
    done = python.run("-c", limited, *arguments, cwd=tmp_path)
    _assert_one_sentence(
        Said(done.returncode, done.stdout, done.stderr), r"cannot write .*state\.pt: File too large; free space"
    )
    folder = tmp_path / "runs" / "train" / "train"
    assert not [path.name for path in folder.iterdir() if "state" in path.name or "safetensors" in path.name]


# --- verbs ----------------------------------------------------------------------------------------------------------


def test_train_evaluate_predict(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    assert (trained.folder / "best.safetensors").is_file()
    recipe = (trained.folder / "recipe.yaml").read_text()
    assert f"train: '{trained.data}'" in recipe, "a path with characters of YAML stays a path"

    both = "--protocol", "voc", "--protocol", "coco"
    said = sniper("evaluate", trained.folder, trained.val, "--device", DEVICE, *both)
    assert said.code == 0, said.err
    assert "AP50" in said.out
    assert said.out.index("Pascal VOC, IoU 0.5: 3 images") < said.out.index("COCO: 3 images")
    assert re.search(r"images/s, \d+\.\d\d Mpx an image, results: runs/evaluate/evaluate\n", said.out)
    names = {path.name for path in Path("runs/evaluate/evaluate").iterdir()}
    assert names == {"predictions.json", "metrics.json", "pr_curves.png"}
    assert sniper("evaluate", trained.folder, trained.val, "-o", tmp_path / "e").code == 0
    assert (tmp_path / "e" / "metrics.json").is_file()
    focus = "--focus-threshold", "0.5", "--pixel-budget", "0.5"
    said = sniper("evaluate", trained.folder, trained.val, *focus, "-o", tmp_path / "e")
    assert said.code == 0, said.err

    said = sniper("predict", trained.folder, trained.val.parent / "images", "--min-score", "0", "-o", tmp_path / "p")
    assert said.code == 0, said.err
    assert re.search(r"\d+ detections in 3 images, results: ", said.out)
    assert len(list((tmp_path / "p").glob("*.jpg"))) == 3
    said = sniper("predict", trained.folder, trained.val.parent / "images", "--draw-focus", "-o", tmp_path / "f")
    _assert_one_sentence(said, "focus maps cannot be drawn, as the model")
    again = sniper("train", "--resume", trained.folder)
    assert again.code == 0
    assert "2 steps" in again.out


def test_several_processes_say_what_one_says(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    images = trained.val.parent / "images"
    for verb, source in (("evaluate", trained.val), ("predict", images)):
        said = {}
        for count in (1, 2):
            said[count] = sniper(
                verb, trained.folder, source, "--processes", count, "-o", tmp_path / verb / str(count),
                "--device", DEVICE,
            )  # fmt: skip
            assert said[count].code == 0, said[count].err
        results = [(tmp_path / verb / str(count) / "predictions.json").read_bytes() for count in said]
        assert results[0] == results[1]


def test_models_and_chips(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    said = sniper("models")
    assert said.code == 0
    assert all(name in said.out for name in ("mobilenetv2", "resnet50", "resnet101", "timm/resnet50"))
    said = sniper("chips", "stats", trained.data, "-o", tmp_path / "stats")
    assert said.code == 0, said.err
    assert "20 objects in 6 images" in said.out
    assert said.err == ""
    assert json.loads((tmp_path / "stats" / "coverage.json").read_text())["objects"] == 20
    said = sniper("chips", "stats", trained.data, "--set", "pyramid.levels=[{scale: 1, train_range_px: [90, 99]}]")
    assert said.code == 0
    assert "warning: 100.0% of the objects" in said.err
    assert "set pyramid.levels to auto" in said.err
    said = sniper("chips", "preview", trained.data, "--count", 2, "--epoch", 1, "-o", tmp_path / "chips")
    assert said.code == 0
    assert len(list((tmp_path / "chips").glob("*.jpg"))) == 4


# --- annotations ----------------------------------------------------------------------------------------------------


def _document(**changes: object) -> dict:
    objects = {"0.png": [("red", (10, 10, 40, 40)), ("blue", (60, 20, 90, 70))], "1.png": [("red", (5, 5, 25, 20))]}
    return coco_document(objects, ("blue", "red")) | changes


def _annotation(**changes: object) -> dict:
    document = _document()
    document["annotations"][1] |= changes
    return document


REFUSED: dict[str, tuple[object, str]] = {
    "cut off": (json.dumps(_document())[:-40], "ends in the middle|cut off"),
    "not JSON": ("{'images': []}", "is not JSON"),
    "unknown class": (_annotation(category_id=99), "annotation 2.*category.*99"),
    "unknown image": (_annotation(image_id=7), "annotation 2.*image.*7"),
    "image id twice": (_document(images=[_document()["images"][0]] * 2), "image id 100"),
    "class id twice": (_document(categories=[{"id": 10, "name": "a"}, {"id": 10, "name": "b"}]), "category id 10"),
    "no images": (_document(images=[], annotations=[]), "has no images"),
    "no sizes": (_document(images=[{"id": 100, "file_name": "0.png"}]), "image 100.*width"),
    "no box": (_document(annotations=[{"id": 1, "image_id": 100, "category_id": 10}]), "annotation 1.*bbox"),
    "another kind of file": ([1, 2], "not a COCO annotation file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_annotations_that_are_refused(sniper: Command, tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    file = tmp_path / "set.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    _assert_one_sentence(sniper("chips", "stats", file), re.escape(str(file)), message)


def test_other_forms_and_places_that_are_refused(sniper: Command, tmp_path: Path) -> None:
    _assert_one_sentence(sniper("chips", "stats", tmp_path / "none.json"), r"none\.json is not there")
    _assert_one_sentence(sniper("chips", "stats", tmp_path), "is no dataset of a known form")
    yolo = make_set(tmp_path / "yolo", "yolo")
    _assert_one_sentence(sniper("chips", "stats", yolo, "--split", "test"), r"data\.yaml.*test")
    label = tmp_path / "yolo" / "labels" / "3.txt"
    label.write_text("0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    _assert_one_sentence(sniper("chips", "stats", yolo), r"3\.txt, line 2: class 7 is not in 0\.\.2")
    voc = make_set(tmp_path / "voc", "voc")
    page = tmp_path / "voc" / "Annotations" / "2.xml"
    page.write_text(page.read_text()[:-30])
    _assert_one_sentence(sniper("chips", "stats", voc), r"2\.xml, line 1: damaged XML")


def test_boxes_that_can_be_repaired_are_one_warning(sniper: Command, tmp_path: Path) -> None:
    boxes = {
        "dilation": [140, 100, 50, 50],
        "outside": [500, 500, 10, 10],
        "inverted": [50, 50, -10, 10],
        "nan": [float("nan"), 10, 10, 10],
        "empty": [10, 10, 0, 10],
        "sound": [10, 10, 30, 30],
    }
    annotations = [
        {"id": 1, "image_id": 100, "category_id": 10, "bbox": box, "iscrowd": 0, "area": 1} for box in boxes.values()
    ]
    file = tmp_path / "set.json"
    file.write_text(json.dumps(_document(annotations=annotations)))
    said = sniper("chips", "stats", file)
    assert said.code == 0
    assert "2 objects in 2 images" in said.out
    assert said.err == (
        f"warning: {file}, 6 boxes: boxes clipped to the image: 1; boxes that are not finite dropped: 1; "
        "inverted boxes dropped: 1; empty boxes dropped: 1; boxes outside the image dropped: 1; "
        "repeated annotation ids numbered anew: 5\n"
    )


# --- recipes --------------------------------------------------------------------------------------------------------


def test_recipes_that_are_refused(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    train = ["train", "mobilenetv2", "--data", trained.data]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("train:\n  learning_rate: [fast\n")
    cases = (
        ([*train, "--set", "train.learning_rat=1"], r"did you mean train\.learning_rate\?"),
        ([*train, "--set", "train.learning_rate=fast"], "expected a number, got 'fast'"),
        ([*train, "--set", "model.backbone=timm/resnet5"], "resnet5"),
        ([*train, "--set", "train.best_metric=mAP", "--set", "model.weights=no.pth"], r"no\.pth"),
        ([*train, "--on-bad-image", "ignore"], "--on-bad-image takes stop or skip, got 'ignore'"),
        (["train", "mobilnet", "--data", trained.data], r"no recipe mobilnet.*\(demo, mobilenetv2"),
        (["train", wrong, "--data", trained.data], r"wrong\.yaml, line \d: not valid YAML"),
        (
            ["evaluate", trained.folder, trained.val, "--protocol", "pascal"],
            "--protocol takes coco, voc, .*got 'pascal'",
        ),
        ([*train, "--protocol", "VOC"], "--protocol takes coco, voc, .*got 'VOC'"),
        (["train", "mobilenetv2"], r"data\.train is not set"),
        (["train"], "takes a recipe, or --resume RUN"),
        (["train", "mobilenetv2", "--resume", trained.folder], "takes a recipe, or --resume RUN, and not both"),
        (["train", "--resume", tmp_path], "is not a run folder"),
        ([*train, "--root", trained.folder.parents[1], "--name", "one", *_settings()], "one exists and is not empty"),
        (["chips", "stats", trained.data, "--set", "chips.stride_px=[600, 600]"], "leave gaps between chips of"),
        (["chips", "stats", trained.data, "--set", "pyramid.levels=[]"], "a list of at least 1 item"),
    )
    for arguments, message in cases:
        _assert_one_sentence(sniper(*arguments), message)
    assert list(Path().iterdir()) == [], "nothing is left behind"


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoints_that_are_refused(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    good = (trained.folder / "best.safetensors").read_bytes()
    (tmp_path / "text.safetensors").write_text("this is no checkpoint")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.zeros(3)}, tmp_path / "torch.pt")
    (tmp_path / "cut.safetensors").write_bytes(good[:-1000])
    (tmp_path / "header.safetensors").write_bytes(good[:300])
    (tmp_path / "flipped.safetensors").write_bytes(good[:-1000] + bytes([good[-1000] ^ 64]) + good[-999:])
    weights, meta = load_weights(trained.folder / "best.safetensors")
    nan = {name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()}
    save_weights(tmp_path / "nan.safetensors", nan, meta)
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("text.safetensors", "damaged or not a checkpoint"),
        ("flipped.safetensors", "is damaged .its checksum is another"),
        ("nan.safetensors", "has a value that is not a finite number"),
        ("pickle.pt", "is a PyTorch pickle, which can run code"),
        ("torch.pt", "is a PyTorch pickle, which can run code"),
        ("cut.safetensors", "damaged or not a checkpoint"),
        ("header.safetensors", "damaged or not a checkpoint"),
        ("foreign.safetensors", "not a sniper checkpoint"),
        ("empty.safetensors", "is empty"),
        ("folder", r"no best\.safetensors or last\.safetensors in this folder"),
        ("none.safetensors", "no such checkpoint"),
    ):
        place = re.escape(str(tmp_path / name))
        _assert_one_sentence(sniper("evaluate", tmp_path / name, trained.val), place, message)
        _assert_one_sentence(sniper("predict", tmp_path / name, trained.val.parent / "images"), place, message)
    said = sniper("predict", trained.folder, trained.val.parent / "images", "--device", "warp")
    _assert_one_sentence(said, "--device warp: expected auto, cpu, cuda")
    said = sniper("predict", trained.folder, "none/*.jpg")
    _assert_one_sentence(said, r"none/\*\.jpg: no such file, folder or match")


# --- images ---------------------------------------------------------------------------------------------------------


def _spoil(images: Path) -> None:
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:3000])
    (images / "1.png").unlink()


def test_bad_images_stop_or_are_skipped_and_listed(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    images = tmp_path / "set" / "images"
    _spoil(images)
    train = ["train", "mobilenetv2", *_settings(), "--set", "train.steps=2", "--data", data]
    evaluate = ["evaluate", trained.folder, data]
    predict = ["predict", trained.folder, images]
    _assert_one_sentence(sniper(*train), r"(0|1)\.png \(image id 10[01]\)")
    _assert_one_sentence(sniper(*evaluate), r"0\.png \(image id 100\)")
    _assert_one_sentence(sniper(*predict), r"0\.png cannot be decoded")
    for verb, files in ((train, ("0.png", "1.png")), (evaluate, ("0.png", "1.png")), (predict, ("0.png",))):
        said = sniper(*verb, "--on-bad-image", "skip")
        assert said.code == 0, said.err
        listed = said.err.split(f"skipped {len(files)} files that cannot be read:\n")[1].splitlines()
        assert len(listed) == len(files)
        for name in files:
            assert sum(str(images / name) in line for line in listed) == 1
    log = next(Path("runs/train").rglob("log.txt")).parent
    logs = "".join(path.read_text() for path in log.parent.rglob("log.txt"))
    assert str(images / "0.png") in logs
    assert str(images / "1.png") in logs
    for image in images.iterdir():
        image.write_bytes(b"")
    _assert_one_sentence(sniper(*train, "--on-bad-image", "skip"), "can be read")
    _assert_one_sentence(sniper(*evaluate, "--on-bad-image", "skip"), "none of 6 images can be read")
    assert "0 detections in 0 images" in sniper(*predict, "--on-bad-image", "skip").out


def test_images_in_every_colour_and_orientation(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    pixels = Image.fromarray(random.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    pixels.convert("CMYK").save(folder / "cmyk.jpg")
    pixels.convert("L").save(folder / "grey.jpg")
    pixels.convert("L").save(folder / "grey.png")
    pixels.convert("RGBA").save(folder / "alpha.png")
    pixels.convert("P").save(folder / "palette.png")
    pixels.convert("1").save(folder / "bits.png")
    deep = random.integers(0, 65535, (SIZE[1], SIZE[0]), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    pixels.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif.tobytes())
    pixels.save(folder / "plain.webp")
    objects = {path.name: [("red", (20, 20, 60, 50))] for path in sorted(folder.iterdir())}
    data = tmp_path / "set" / "set.json"
    data.write_text(json.dumps(coco_document(objects, ("red",))))
    said = sniper("train", "mobilenetv2", *_settings(), "--data", data, "--val", data, "--root", tmp_path)
    assert said.code == 0, said.err
    others = [line for line in said.err.splitlines() if "evaluation images are training images too" not in line]
    assert not re.search("warning|error|skipped", "\n".join(others))
    said = sniper("evaluate", tmp_path / "train" / "train", data)
    assert (said.code, said.err) == (0, "")
    said = sniper("predict", tmp_path / "train" / "train", folder, "-o", tmp_path / "found")
    assert (said.code, said.err) == (0, "")
    assert f"in {len(objects)} images" in said.out
    assert len(list((tmp_path / "found").glob("*.jpg"))) == len(objects)


def test_propose_and_the_negative_chips_that_come_of_it(sniper: Command, trained: Trained) -> None:
    command = "propose", trained.folder, trained.data, "-o", "boxes.safetensors", "--top", "20", "--device", DEVICE
    said = sniper(*command)
    assert said.code == 0, said
    assert "of 6 images, boxes.safetensors written" in said.out
    again = sniper(*command)
    assert "was done before" in again.out
    shown = sniper("chips", "stats", trained.data, *_settings(), "--proposals", "boxes.safetensors")
    assert "negative" in shown.out
    hard = "--detections", "--min-score", "0.1", "--device", DEVICE
    scores = []
    for name, share in (("hard", "1"), ("some", "0.3")):
        said = sniper(
            "propose", trained.folder, trained.data, "-o", f"{name}.safetensors", *hard, "--window-share", share
        )
        assert f"of 6 images, {name}.safetensors written" in said.out
        scores.append(load_detections(f"{name}.safetensors").scores)
        assert (scores[-1] >= 0.1).all()
    assert len(scores[0]) > len(scores[1])
    assert not np.isin(load_detections("boxes.safetensors").scores, scores[0]).any(), "the second stage's scores"
    for option, told in (("--nms", "--nms is an IoU"), ("--window-share", "--window-share is a share above 0")):
        _assert_one_sentence(sniper("propose", trained.folder, trained.data, "-o", "b", option, "0"), told)
    weights = trained.folder / "last.safetensors"
    _assert_one_sentence(sniper("chips", "stats", trained.data, "--proposals", weights), "not weights")
    missing = sniper("train", "mobilenetv2", *_settings(), "--data", trained.data, "--negatives", "none.json")
    _assert_one_sentence(missing, r"none\.json is not there")
    assert not Path("runs/train").exists()

"""Every verb: what it takes, what it says and what it leaves."""

import json
import re
import signal
from pathlib import Path

import pytest
from commands import Command, Said, Trained, assert_one_sentence, tiny_settings

from devices import DEVICE
from forked import Python
from rectangle_set import TINY, make_set

VERBS = (
    "train",
    "evaluate",
    "predict",
    "propose",
    "chips stats",
    "chips preview",
    "chips export",
    "import-mxnet",
    "download",
    "demo",
)


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
    assert_one_sentence(sniper("settings", "zoom_px"), "no setting has 'zoom_px' in its name", "loader, augment")


def test_train_takes_short_forms(sniper: Command, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=3)
    settings = [part for one in TINY if not one.startswith("train.steps") for part in ("--set", one)]
    short = ["--epochs", "0.5", "--batch", "1", "--seed", "3", "--device", "cpu"]
    said = sniper("train", "mobilenetv2", *settings, "--data", data, *short, "--name", "short")
    assert said.code == 0, said.err
    recipe = Path("runs/train/short/recipe.yaml").read_text()
    assert all(line in recipe for line in ("  epochs: 0.5\n", "  batch_size: 1\n", "  seed: 3\n", "  device: cpu\n"))
    said = sniper("train", "mobilenetv2", "--data", data, "--minutes", "0")
    assert_one_sentence(said, r"train\.minutes: expected a number greater than 0, got 0")


def test_train_tells_where_its_time_went(sniper: Command, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=3)
    said = sniper("train", "mobilenetv2", *tiny_settings(), "--set", "train.steps=5", "--data", data, "--profile")
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
    arguments = ["train", "mobilenetv2", *tiny_settings(), "--set", "train.steps=1", "--data", trained.data]
    done = python.run("-c", limited, *arguments, cwd=tmp_path)
    assert_one_sentence(
        Said(done.returncode, done.stdout, done.stderr), r"cannot write .*state\.pt: File too large; free space"
    )
    folder = tmp_path / "runs" / "train" / "train"
    assert not [path.name for path in folder.iterdir() if "state" in path.name or "safetensors" in path.name]


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
    one_each = "--set", "inference.merge.max_per_image=1"
    focus = "--focus-threshold", "0.5", "--pixel-budget", "0.5"
    said = sniper("evaluate", trained.folder, trained.val, *focus, *one_each, "-o", tmp_path / "e")
    assert said.code == 0, said.err
    assert len(json.loads((tmp_path / "e" / "predictions.json").read_text())) == 3

    all_scores = "--min-score", "0", *one_each
    said = sniper("predict", trained.folder, trained.val.parent / "images", *all_scores, "-o", tmp_path / "p")
    assert said.code == 0, said.err
    assert re.search(r"\b3 detections in 3 images, results: ", said.out)
    assert len(list((tmp_path / "p").glob("*.jpg"))) == 3
    said = sniper("predict", trained.folder, trained.val.parent / "images", "--draw-focus", "-o", tmp_path / "f")
    assert_one_sentence(said, "focus maps cannot be drawn, as the model")
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
    assert all(name in said.out for name in ("mobilenetv2", "resnet50", "resnet101", "timm/resnet50", "sniper/objects"))
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

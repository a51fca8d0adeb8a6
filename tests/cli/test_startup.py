"""What starts without torch: help, and the answers to bad arguments, recipes and paths."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

HEAVY = ["torch", "torchvision", "transformers", "timm", "accelerate", "numba", "cv2", "matplotlib", "faster_coco_eval"]
NOT_FOR_HELP = [*HEAVY, "numpy", "pydantic", "yaml", "PIL", "rich", "pygments", "markdown_it"]

# Every command of standard input, a JSON list of arguments a line, in this one process. After each: its exit code, what
# it said, and which modules are loaded by then.
PROGRAM = """
import contextlib, io, json, sys
from sniper.cli import main
for line in sys.stdin:
    sys.argv, code, said = ["sniper", *json.loads(line)], 0, io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    print(json.dumps([code, said.getvalue(), sorted(sys.modules)]))
"""

REFUSED: dict[str, tuple[list[str], str]] = {
    "no such verb": (["trian"], "No such command 'trian'"),
    "no such option": (["train", "demo", "--dat", "x"], "No such option"),
    "no such device": (["predict", "RUN", "PICTURE", "--device", "gpu"], "--device gpu: expected auto, cpu, cuda"),
    "no such answer": (["evaluate", "RUN", "DATA", "--on-bad-image", "no"], "--on-bad-image takes stop or skip"),
    "no such recipe": (["train", "mobilnet", "--data", "DATA"], "no recipe mobilnet"),
    "no such setting": (["train", "demo", "--data", "DATA", "--set", "train.epoch=1"], "did you mean train.epochs?"),
    "no data named": (["train", "mobilenetv2"], "data.train is not set"),
    "no training data": (["train", "mobilenetv2", "--data", "none"], "none is not there"),
    "no evaluation data": (["train", "mobilenetv2", "--data", "DATA", "--val", "nothing"], "nothing is not there"),
    "no weights": (["train", "mobilenetv2", "--data", "DATA", "--weights", "w.safetensors"], "w.safetensors: no such"),
    "a name for weights": (["train", "demo", "--data", "DATA", "--weights", "sniper/objects"], "names a detector, not"),
    "no proposals": (["train", "mobilenetv2", "--data", "DATA", "--negatives", "n.json"], "n.json is not there"),
    "no run": (["train", "--resume", "none"], "none is not a run folder"),
    "neither recipe nor run": (["train"], "takes a recipe, or --resume RUN"),
    "no checkpoint": (["predict", "none.safetensors", "PICTURE"], "none.safetensors: no such checkpoint"),
    "no checkpoint in it": (["evaluate", ".", "DATA"], "no best.safetensors or last.safetensors"),
    "no pictures": (["predict", "RUN", "none*.jpg"], "none*.jpg: no such file, folder or match"),
    "no data to evaluate": (["evaluate", "RUN", "none.json"], "none.json is not there"),
    "no data to propose": (["propose", "RUN", "none.json", "-o", "x.safetensors"], "none.json is not there"),
    "an IoU of nothing": (["propose", "RUN", "DATA", "-o", "x.safetensors", "--nms", "0"], "--nms is an IoU above 0"),
    "no data for chips": (["chips", "stats", "none.json"], "none.json is not there"),
    "no proposals for chips": (["chips", "preview", "DATA", "--proposals", "p.json"], "p.json is not there"),
    "no data to plan for": (["plan", "none.json"], "none.json is not there"),
    "no data to plan a test on": (["plan", "DATA", "--val", "nothing"], "nothing is not there"),
    "no recipe to plan": (["plan", "DATA", "--recipe", "none"], "no recipe none"),
    "no recipe for chips": (["chips", "stats", "DATA", "--recipe", "none"], "no recipe none"),
    "no network": (["import-mxnet", "PICTURE", "--arch", "alexnet", "-o", "x"], "--arch alexnet: no such network"),
    "no class names": (
        ["import-mxnet", "PICTURE", "--arch", "sniper_resnet101", "-o", "x", "--classes", "c.txt"],
        "cannot read the class names in c.txt",
    ),
    "no parameters": (["import-mxnet", "none.params", "--arch", "sniper_resnet101", "-o", "x"], "none.params"),
    "no weights of that name": (["download", "nowhere:x"], "no weights are called 'nowhere:x'"),
    "no repository": (["download", "hf:owner"], "hf:owner: expected hf:OWNER/REPO"),
    "no checksum": (["download", "resnet50", "--sha256", "0"], "--sha256 0: expected 64 hexadecimal digits"),
}


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    said: str
    modules: list[str]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answers to ``--help``, and to all that is refused."""
    here = tmp_path_factory.mktemp("startup")
    (here / "RUN").mkdir()
    for name in ("RUN/best.safetensors", "DATA", "PICTURE"):  # are there; what is in them nobody asks
        (here / name).touch()
    commands = {"help": ["--help"]} | {name: arguments for name, (arguments, _) in REFUSED.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="".join(json.dumps(arguments) + "\n" for arguments in commands.values()),
        capture_output=True,
        text=True,
        cwd=here,
        env=os.environ | {"COLUMNS": "400"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["DATA", "PICTURE", "RUN"], "nothing is left behind"
    lines = done.stdout.splitlines()
    return {name: Answer(*json.loads(line)) for name, line in zip(commands, lines, strict=True)}


def test_help_loads_only_what_it_needs(answers: dict[str, Answer]) -> None:
    assert answers["help"].code == 0
    assert "Train a detector on chips" in answers["help"].said
    verbs = "train", "evaluate", "predict", "propose", "chips", "demo", "models"
    assert all(verb in answers["help"].said for verb in verbs)
    assert [name for name in NOT_FOR_HELP if name in answers["help"].modules] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_torch_is_loaded(answers: dict[str, Answer], name: str) -> None:
    answer, (_, message) = answers[name], REFUSED[name]
    assert answer.code == 2, answer.said
    assert message in answer.said
    assert "Traceback" not in answer.said
    assert [name for name in HEAVY if name in answer.modules] == []


def test_the_package_alone_loads_nothing() -> None:
    code = "import sys, sniper; print(len([name for name in sys.modules if name.startswith('sniper')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"

"""Negative chips from a recipe: proposals made once, kept with the run, renewed, resumed; proposals of other tools."""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from trained_run import Trained

from devices import DEVICE, bit_for_bit
from facts import facts
from rectangle_set import TINY, make_set
from sniper.chips.epoch import mine
from sniper.chips.table import ChipKind, ChipTable
from sniper.data.detection_files import load_detections, read_details, read_proposals
from sniper.data.source import load_dataset
from sniper.detectors.original.network import OriginalConfig, build_original
from sniper.detectors.protocol import ProposalTrainer, Proposer
from sniper.errors import DataError, RecipeError
from sniper.inference.config import ProposeConfig
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.chips import chip_preview, chip_stats
from sniper.pipeline.detectors import resolve_pyramid
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import load_model
from sniper.pipeline.negatives import feed_of_run, resolve_refresh
from sniper.pipeline.proposal_feed import feed_from_file
from sniper.pipeline.train import TrainedRun, train
from sniper.recipe import Recipe
from sniper.structures import Batch, Detections, Images
from sniper.training.checkpoint import load_weights
from sniper.training.run import RunFolder

FEW = [
    "negatives.min_proposals=3",
    "negatives.min_proposals_finest=3",
    "negatives.proposal_epochs=1",
    "model.anchors.scales=[2, 4]",
    "train.warmup_steps=0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data") / "train")


def weights(folder: Path) -> dict[str, Tensor]:
    return load_weights(folder / "last.safetensors").weights


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return all(torch.equal(first[name], second[name]) for name in first)


def about_negatives(said: list[str]) -> list[str]:
    """Without the lines that tell on what training runs, and at what rate."""
    return [line for line in said if not line.startswith(("training on ", "learning rate "))]


@bit_for_bit
def test_one_command_trains_proposals_extracts_and_trains_and_the_next_skips_what_is_done(
    data: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = [*TINY, *FEW, f"data.train={data}", "negatives.proposals=auto"]
    done = train("mobilenetv2", overrides=settings, root=tmp_path, name="a", log=said.append)
    assert [line.split(":")[0] for line in about_negatives(said)] == [
        "proposals, training", *["proposals, extraction"] * 2,
    ]  # fmt: skip
    (folder,) = (tmp_path / "negatives").iterdir()
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"proposals", "proposer.safetensors", "training"}
    assert (done.folder / "proposals.safetensors").is_file()
    found = load_detections(done.folder / "proposals.safetensors")
    assert len(found) == 6
    assert not found.labels.any()
    assert set(found.levels.tolist()) <= set(range(len(done.recipe.pyramid.levels)))
    assert load_model(folder / "proposer.safetensors", device=DEVICE).class_names == ("blue", "green", "red")

    table = load_dataset(data)
    feed = feed_from_file(done.folder / "proposals.safetensors", table, done.recipe.negatives)
    model = load_model(done.folder, device=DEVICE)
    chips = ChipSource(table, model.pyramid, done.recipe, feed).chips(0)
    assert (chips.kind == ChipKind.NEGATIVE).any()

    said.clear()
    again = train("mobilenetv2", overrides=settings, root=tmp_path, name="b", log=said.append)
    assert len(about_negatives(said)) == 2
    assert all("done before" in line for line in about_negatives(said))
    assert same(done.folder, again.folder)
    # The file stage alone, by hand, gives the same run.
    by_hand = [line.replace("=auto", f"={done.folder / 'proposals.safetensors'}") for line in settings]
    assert same(train("mobilenetv2", overrides=by_hand, root=tmp_path, name="c").folder, done.folder)
    without = train("mobilenetv2", overrides=[*TINY, f"data.train={data}"], root=tmp_path, name="d")
    assert not same(without.folder, done.folder)


class _InterruptAfter(logging.Handler):
    def __init__(self, text: str) -> None:
        super().__init__(logging.INFO)
        self.text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            os.kill(os.getpid(), signal.SIGINT)


def in_two_pieces(settings: list[str], root: Path) -> TrainedRun:
    """Ten steps, stopped at the sixth or soon after, and resumed."""
    interrupt = _InterruptAfter("step 6/10")
    logger = logging.getLogger("sniper")
    logger.addHandler(interrupt)
    try:
        stopped = train("mobilenetv2", overrides=settings, root=root, name="parts")
    finally:
        logger.removeHandler(interrupt)
    assert not stopped.result.finished
    done = train(resume=stopped.folder)
    assert done.result.finished
    return done


@bit_for_bit
def test_renewed_proposals_are_kept_and_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    settings = [
        *TINY, *FEW, f"data.train={data}", "negatives.proposals=auto", "negatives.refresh_epochs=1",
        "train.steps=10", "loader.batch_size=6",
    ]  # fmt: skip
    whole = train("mobilenetv2", overrides=settings, root=tmp_path, name="whole")
    renewed = sorted(path.name for path in whole.folder.glob("proposals-epoch*"))
    assert renewed
    assert whole.result.epochs > 1
    done = in_two_pieces(settings, tmp_path)
    assert same(done.folder, whole.folder)
    assert sorted(path.name for path in done.folder.glob("proposals-epoch*")) == renewed


@bit_for_bit
def test_a_detector_asked_while_it_trains_needs_no_first_stage_and_resumes_exactly(data: Path, tmp_path: Path) -> None:
    settings = [
        *TINY, *FEW, f"data.train={data}", "negatives.proposals=self", "negatives.refresh_epochs=1", "train.steps=10",
        "negatives.extraction.window_share=0.9", "loader.batch_size=6",
    ]  # fmt: skip
    said: list[str] = []
    whole = train("mobilenetv2", overrides=settings, root=tmp_path, name="whole", log=said.append)
    assert not about_negatives(said)
    assert not (tmp_path / "negatives").exists()
    renewed = sorted(path.name for path in whole.folder.glob("proposals*"))
    assert renewed[0] == "proposals-epoch1.safetensors"
    assert load_detections(whole.folder / renewed[0]).num_objects
    done = in_two_pieces(settings, tmp_path)
    assert same(done.folder, whole.folder)
    assert sorted(path.name for path in done.folder.glob("proposals*")) == renewed
    # Later epochs alone have negative chips.
    model = load_model(whole.folder, device=DEVICE)
    table = load_dataset(data)
    source = ChipSource(
        table, model.pyramid, whole.recipe, feed_of_run(RunFolder.open(whole.folder), whole.recipe, table)
    )
    kinds = [source.chips(epoch).kind for epoch in (0, 1, 0)]
    assert [bool((kind == ChipKind.NEGATIVE).any()) for kind in kinds] == [False, True, False]


def test_when_a_detector_is_asked_follows_from_the_length_of_its_training(data: Path, tmp_path: Path) -> None:
    tiny = [setting for setting in TINY if not setting.startswith("train.steps")]
    own = [*tiny, f"data.train={data}", "negatives.proposals=self"]
    said: list[str] = []
    table = load_dataset(data)
    recipe, pyramid = resolve_pyramid(Recipe.load("mobilenetv2", own), table)
    chips, batch = len(ChipSource(table, pyramid, recipe).chips(0)), recipe.loader.batch_size
    steps = round(3 * chips / batch)
    run = train("mobilenetv2", overrides=[*own, f"train.steps={steps}"], root=tmp_path, log=said.append)
    assert run.recipe.negatives.refresh_epochs == 2
    assert about_negatives(said) == [f"negatives: the detector is asked after 2 of {steps * batch / chips:.1f} epochs"]
    assert [path.name for path in run.folder.glob("proposals*")] == ["proposals-epoch2.safetensors"]
    assert Recipe.load(run.folder / "recipe.yaml") == run.recipe

    def asked(length: str) -> tuple[int | None, str]:
        recipe = resolve_refresh(Recipe.load("mobilenetv2", [*own, length]), lambda: chips, said.append)
        return recipe.negatives.refresh_epochs, said[-1]

    assert asked("train.epochs=7") == (5, "negatives: the detector is asked after 5 of 7.0 epochs")
    assert asked("train.epochs=1") == (1, "negatives: the detector is asked never: 1.0 epochs are too short")
    with pytest.raises(RecipeError, match=facts("self", "negatives.refresh_epochs", "train.minutes")):
        asked("train.minutes=10")


def test_a_detector_that_is_asked_itself_has_defaults_of_its_own() -> None:
    own = Recipe.parse(
        {"negatives": {"proposals": "self", "min_proposals": 3, "extraction": {"min_score": 0.2}}}
    ).negatives
    assert (own.min_proposals, own.min_proposals_finest, own.sampling, own.max_per_positive) == (3, 1, "score", 0.5)
    assert (own.extraction.boxes, own.extraction.min_score, own.extraction.nms_iou) == ("detections", 0.2, 0.5)
    usual = Recipe.parse({"negatives": {"proposals": "auto"}}).negatives
    assert (usual.min_proposals, usual.min_proposals_finest, usual.max_per_positive) == (11, 26, None)
    assert usual.extraction == ProposeConfig()
    with pytest.raises(RecipeError, match=r"negatives\.extraction"):
        Recipe.parse({"negatives": {"proposals": "self", "extraction": 3}})


def test_proposals_of_another_tool(data: Path, tmp_path: Path) -> None:
    table = load_dataset(data)
    entries = [
        {"image_id": 103, "category_id": 77, "bbox": [5.0, 5.0, 10.0, 20.0], "score": 0.5},
        {"image_id": 9, "bbox": [0, 0, 5, 5], "score": 0.1},
        {"image_id": 100, "bbox": [1, 2, 3, 4]},
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(entries))
    found = read_proposals(path, table)
    assert found.offsets.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert found.boxes_xyxy.tolist() == [[1, 2, 4, 6], [5, 5, 15, 25]]
    run = train("mobilenetv2", overrides=[*TINY, f"data.train={data}", f"negatives.proposals={path}"], root=tmp_path)
    assert load_detections(run.folder / "proposals.safetensors").num_objects == 2
    assert read_details(path) is None

    path.write_text(json.dumps(entries[1:2]))
    with pytest.raises(DataError, match="boxes of none of the images"):
        read_proposals(path, table)
    path.write_text("{}")
    with pytest.raises(DataError, match="not a COCO results file"):
        read_proposals(path, table)
    for content in (b"", b"rubbish and more of it"):
        other = tmp_path / "boxes.safetensors"
        other.write_bytes(content)
        with pytest.raises(DataError, match="no detection table"):
            read_proposals(other, table)
    with pytest.raises(DataError, match="no such file"):
        load_detections(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="not weights"):
        load_detections(run.folder / "last.safetensors")
    with pytest.raises(RecipeError, match=r"needs sampler\.method chips, not tiles"):
        train(
            "mobilenetv2",
            overrides=[*TINY, f"data.train={data}", "negatives.proposals=auto", "sampler.method=tiles"],
            root=tmp_path,
        )


class Corners(nn.Module):
    """A detector without proposals or first stage: one box a padded input, of any class."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.zeros(()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"score": self.score.sigmoid()}

    def detect(self, images: Images) -> list[Detections]:
        box, label = images.pixels.new_tensor([[1.0, 1.0, 21.0, 21.0]]), images.valid_hw.new_tensor([2])
        return [Detections(box.float(), self.score.detach().sigmoid()[None], label) for _ in range(len(images))]


def test_detectors_that_propose_nothing_give_their_detections(data: Path, tmp_path: Path) -> None:
    overrides = [*TINY, *FEW, f"data.train={data}", "negatives.proposals=auto"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path, detector=Corners())
    found = load_detections(run.folder / "proposals.safetensors")
    assert found.num_objects >= 6
    assert not found.labels.any()


class SlowCorners(Corners):
    """Takes its time to detect, as a large detector on many images does."""

    seconds = 0.0

    def detect(self, images: Images) -> list[Detections]:
        SlowCorners.seconds += 0.5
        time.sleep(0.5)
        return super().detect(images)


def test_looking_for_negatives_is_not_training_time(data: Path, tmp_path: Path) -> None:
    overrides = [*TINY, *FEW, f"data.train={data}", "negatives.proposals=self", "negatives.refresh_epochs=1"]
    overrides += ["train.steps=6", "loader.batch_size=6"]
    SlowCorners.seconds, began = 0.0, time.monotonic()
    run = train("mobilenetv2", overrides=overrides, root=tmp_path, detector=SlowCorners())
    took = time.monotonic() - began
    assert run.result.epochs > 1
    assert SlowCorners.seconds > 0
    assert 60 * run.result.minutes < took - SlowCorners.seconds
    assert RunFolder(run.folder).read_metrics()[-1]["minutes"] < (took - SlowCorners.seconds) / 60


def test_the_first_epoch_is_mined_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of the run in epochs, for the pictures of the run folder and for training, the same table."""
    mined: list[int] = []

    def counted(*given: object, epoch: int, **named: object) -> ChipTable:
        mined.append(epoch)
        return mine(*given, epoch=epoch, **named)

    monkeypatch.setattr(sys.modules[ChipSource.__module__], "mine", counted)
    overrides = [*TINY, f"data.train={data}", "negatives.proposals=self", "train.steps=1"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path)
    assert run.result.step == 1
    assert len(list((run.folder / "previews").iterdir())) == 8
    assert mined == [0]


def test_what_the_detectors_here_can_do(trained: Trained) -> None:
    model = load_model(trained.run.folder, device=DEVICE)
    assert isinstance(model.detector, ProposalTrainer)
    assert isinstance(model.detector, Proposer)
    original = build_original(OriginalConfig(network="sniper_mobilenetv2"), 3)
    assert isinstance(original, Proposer)
    padded = Images(torch.rand(2, 3, 128, 160), torch.tensor([[128, 160], [100, 90]]), torch.ones(2))
    with torch.no_grad():
        for found, (height, width) in zip(original.propose(padded), padded.valid_hw.tolist(), strict=True):
            assert len(found) > 0
            assert not found.labels.any()
            assert (found.scores.diff() <= 0).all()
            assert (found.boxes >= 0).all()
            assert (found.boxes <= torch.tensor([width, height, width, height])).all()


def test_stats_count_negative_chips_and_previews_show_them(trained: Trained, tmp_path: Path) -> None:
    settings = [*TINY, "negatives.min_proposals=1", "negatives.min_proposals_finest=1", "negatives.found_iou=null"]
    recipe, table = Recipe.load("mobilenetv2", settings), load_dataset(trained.train_json)
    corner = [{"image_id": int(i), "bbox": [130, 100, 15, 12], "score": 0.9} for i in table.image_ids]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(corner))
    report = chip_stats(recipe, table, proposals=path, output=tmp_path / "stats")
    count = report.chips["negative"]
    assert 1 <= count <= 6
    assert sum(level.negatives for level in report.levels) == count
    assert report.proposals == 6
    assert json.loads((tmp_path / "stats" / "coverage.json").read_text())["proposals"] == 6
    _, columns, rows = report.tables()[0]
    assert columns[-1] == "negative chips"
    assert sum(int(row[-1]) for row in rows) == count
    assert chip_stats(recipe, table).tables()[0][1][-1] != "negative chips"
    assert len(chip_preview(recipe, table, proposals=path, count=1, output=tmp_path / "prev")) == 2


def test_errors_of_an_evaluation_are_written_and_told(trained: Trained, tmp_path: Path) -> None:
    done = evaluate(trained.run.folder, trained.val_json, device=DEVICE, output=tmp_path)
    written = json.loads((tmp_path / "metrics.json").read_text())["errors"]
    assert written == done.errors.as_dict()
    assert written["objects"] == done.result.objects
    assert done.errors.detections <= done.result.objects

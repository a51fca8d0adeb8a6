"""The page that a training leaves in its run folder."""

import re
from html import unescape
from pathlib import Path

import numpy as np
from trained_run import Trained

from browser import browse
from rectangle_set import TINY
from sniper.data.source import load_dataset
from sniper.evaluation.error_types import judge
from sniper.pipeline.train import train
from sniper.report.run_page import choose_examples


def page_of(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def words(page: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)))


def test_the_page_tells_what_was_learned_and_how_well_it_detects(trained: Trained) -> None:
    page = page_of(trained.run.folder)
    told = words(page)
    for heading in (
        "What it learned from", "Training", "How well it detects", "What goes wrong", "Detections beside the truth",
        "What it cost", "Use it",
    ):  # fmt: skip
        assert f">{heading}</h2>" in page
    assert "6 images with 20 objects; 1 without objects." in told
    assert "Measured on 3 images with 8 objects." in told
    for name in ("blue", "green", "red", "rpn_class", "chips an epoch", "AP50"):
        assert name in told
    evaluation = trained.run.evaluation
    assert evaluation is not None
    assert f"{evaluation.result.ap50:.3f} AP50" in told
    assert f"sniper predict {trained.run.folder}" in told


def test_it_stands_alone(trained: Trained) -> None:
    page = page_of(trained.run.folder)
    assert not re.search(r"https?:|@import|<script|<link", page)
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) >= 4
    assert all(source.startswith("data:image/") for source in sources)


def test_a_phone_and_a_desktop_show_all_of_it(trained: Trained, tmp_path: Path) -> None:
    for view in browse(trained.run.folder / "index.html", (390, 1200), tmp_path):
        assert (view.overflow, view.wide, view.broken) == (0, 0, 0)
        assert view.images >= 4
        assert view.charts >= 3
        assert view.letters >= 10


def test_a_run_without_evaluation_data_says_so(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, "train.steps=1", f"data.train={trained.train_json}"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path)
    told = words(page_of(run.folder))
    assert "does not tell how well it detects" in told
    assert "How well it detects" not in told
    again = train(resume=run.folder)
    assert words(page_of(again.folder)) == told


def test_the_worst_and_the_best_images(trained: Trained) -> None:
    table, evaluation = load_dataset(trained.val_json), trained.run.evaluation
    assert evaluation is not None
    verdicts = judge(table, evaluation.detections)
    worst, best = choose_examples(verdicts, 2)
    assert len(worst) == 2
    assert not {*worst} & {*best}
    f1 = []
    for row in range(len(table)):
        own = verdicts.verdict[verdicts.offsets[row] : verdicts.offsets[row + 1]]
        found, objects = int((own == 0).sum()), int(np.diff(table.offsets)[row])
        f1.append(2 * found / max(len(own) + objects, 1))
    assert max(f1[row] for row in worst) <= min(f1[row] for row in best)


def test_a_page_that_is_not_there_is_made_again(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, "train.steps=1", f"data.train={trained.train_json}", f"data.evaluate={trained.val_json}"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path)
    (run.folder / "index.html").unlink()
    train(resume=run.folder)
    assert "How well it detects" in page_of(run.folder)

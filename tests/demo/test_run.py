"""The demo, whole, with a moment of training."""

import re
from pathlib import Path

import pytest

from sniper.demo.run import run_demo
from sniper.errors import StorageError


def test_demo_leaves_a_page_and_all_that_it_shows(tmp_path: Path) -> None:
    said: list[str] = []
    page = run_demo(tmp_path / "demo", minutes=0.02, log=said.append)

    assert page == tmp_path / "demo" / "index.html"
    html = page.read_text(encoding="utf-8")
    shown = re.findall(r'src="([^"]+)"', html)
    assert {"chips.jpg", "levels.jpg", "worst-1-truth.jpg", "worst-1-detections.jpg"} <= set(shown)
    assert html.count("<svg") >= 3
    assert all((page.parent / name).stat().st_size > 1000 for name in shown)
    assert "AP50" in html
    assert "National Ecological Observatory Network" in html
    assert (page.parent / "evaluate" / "predictions.json").is_file()
    assert (page.parent / "train" / "trees" / "last.safetensors").is_file()
    assert any("chips from 3 photos" in line for line in said)

    with pytest.raises(StorageError, match="not empty"):
        run_demo(tmp_path / "demo", minutes=0.02)

"""Pages in a real browser, at several widths at once."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

import pytest

# The window is loaded when its frames are, and those when their images are: embedded ones are not lazy.
_MEASURE = """
const measured = view => {
  const page = view.contentDocument, root = page.documentElement, images = [...page.images];
  const letters = [...page.querySelectorAll("p, td, th, span, small, figcaption, text")].map(one => {
    const chart = one.closest("svg"), shrunk = chart ? chart.getBoundingClientRect().width / 400 : 1;
    return shrunk * parseFloat(view.contentWindow.getComputedStyle(one).fontSize);
  });
  const right = one => one.getBoundingClientRect().right;
  return {
    overflow: root.scrollWidth - root.clientWidth,
    images: images.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).length,
    charts: page.querySelectorAll("svg.chart").length,
    letters: Math.min(...letters),
    wide: [...page.querySelectorAll("main > *")].filter(one => right(one) > root.clientWidth + 1).length,
  };
};
addEventListener("load", () => {
  const all = [...document.querySelectorAll("iframe")].map(measured);
  document.body.innerHTML = "<pre id=measured></pre>";
  document.getElementById("measured").textContent = JSON.stringify(all);
});
"""


class View(NamedTuple):
    """A page at one width."""

    overflow: int  # px that the page is wider than the window
    images: int
    broken: int  # images that do not load
    charts: int
    letters: float  # px of the smallest
    wide: int  # parts that stick out to the right


def browse(page: Path, widths: tuple[int, ...], folder: Path) -> list[View]:
    """Load a self-contained page at these widths; skips where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here")
    content = escape(page.read_text(encoding="utf-8"), quote=True)
    frame = '<iframe srcdoc="{}" width="{}" height="900" style="border:0"></iframe>'
    views = "".join(frame.format(content, width) for width in widths)
    around = folder / "around.html"
    around.write_text(f"<!doctype html><meta charset=utf-8><body>{views}<script>{_MEASURE}</script>", encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [program, *flags, "--dump-dom", around.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    told = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stdout[:2000] + done.stderr[-2000:]
    return [View(**view) for view in json.loads(unescape(told.group(1)))]

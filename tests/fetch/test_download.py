"""Transfers from a real server that break, stall, are cut short, start anew and change underway."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision
from safetensors.torch import save_file
from served import CONTENT, SHA256, Site, serving

from facts import facts
from forked import Python
from sniper.detectors.from_transformers.weights import model_folder
from sniper.errors import CheckpointError, DownloadError, StorageError
from sniper.fetch import Downloaded, Patience, cache_folder, cached, download, resolve
from sniper.nn.backbones import build_backbone

QUICK = Patience(timeout_s=0.3, retries=2, pause_s=0.01)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def fetch(site: Site, path: str = "/net.bin", **options: object) -> Downloaded:
    return download(site.url + path, patience=QUICK, **options)


def names(site: Site) -> list[str]:
    return sorted(p.name for p in cache_folder().rglob("*") if p.is_file())


def test_whole_file_and_not_fetched_again(site: Site) -> None:
    ticks: list[tuple[int, int | None]] = []
    done = fetch(site, on_progress=lambda here, total: ticks.append((here, total)))
    assert done.path.read_bytes() == CONTENT
    assert done[1:] == (len(CONTENT), SHA256, True, False)
    assert ticks[-1] == (len(CONTENT), len(CONTENT))
    assert names(site) == ["net.bin", "net.bin.json"]
    assert cached(site.url + "/net.bin") == done.path
    assert fetch(site) == done._replace(fresh=False)
    assert fetch(site, sha256=SHA256.upper()).verified
    assert len(site.asked) == 1
    assert cached("nothing") is None
    assert cached("timm/nothing") is None


def test_a_damaged_file_in_the_cache_is_fetched_again(site: Site) -> None:
    path = fetch(site).path
    path.write_bytes(b"x" + CONTENT[1:])
    assert fetch(site).fresh
    assert path.read_bytes() == CONTENT


def test_broken_transfers_go_on_where_they_stopped(site: Site) -> None:
    site.stops = [100_000, 50_000, 1]
    assert fetch(site, sha256=SHA256).verified
    assert [asked[1] for asked in site.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_stalled_server_is_left(site: Site) -> None:
    site.stops, site.stall_s = [120_000], 600
    assert fetch(site).sha256 == SHA256
    assert site.asked[1][1] == "bytes=120000-"


def test_a_slow_server_is_waited_for(site: Site) -> None:
    site.slow_s = 0.02  # longer in all than the time for which it may be silent
    assert fetch(site).sha256 == SHA256
    assert len(site.asked) == 1


def test_a_server_without_ranges_begins_anew(site: Site) -> None:
    site.ranges, site.stops = False, [100_000]
    assert fetch(site).sha256 == SHA256
    assert len(site.asked) == 2


def test_without_a_mark_nothing_is_put_together(site: Site) -> None:
    site.etag, site.stops = None, [100_000]
    assert fetch(site).sha256 == SHA256
    assert site.asked[1][1] is None
    (cache_folder() / "weights").rename(cache_folder() / "old")
    site.stops = [100_000]  # with the checksum one would notice
    assert fetch(site, sha256=SHA256).verified
    assert site.asked[3][1] == "bytes=100000-"


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("size", [300_000, 50_000, 400_000])
def test_a_file_that_changes_begins_anew(site: Site, if_range: bool, size: int) -> None:
    site.stops = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=facts("100000 of 300000 bytes", "3 times", "100000 bytes are kept")):
        fetch(site)
    assert names(site) == ["net.bin.part", "net.bin.part.json"]
    new = np.random.default_rng(1).bytes(size)
    site.files["/net.bin"], site.etag, site.if_range = new, '"two"', if_range
    assert fetch(site).path.read_bytes() == new
    assert names(site) == ["net.bin", "net.bin.json"]


def test_a_part_that_is_complete_only_gets_its_name(site: Site) -> None:
    site.stops = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(site)
    (part,) = cache_folder().rglob("*.part")
    part.write_bytes(CONTENT)
    asked = len(site.asked)
    assert fetch(site).sha256 == SHA256
    assert len(site.asked) == asked


def test_a_wrong_checksum_removes_the_file(site: Site) -> None:
    with pytest.raises(DownloadError, match=facts(SHA256, "0" * 64, "removed")):
        fetch(site, sha256="0" * 64)
    assert names(site) == []


def test_servers_that_refuse(site: Site) -> None:
    with pytest.raises(DownloadError, match=facts("404", "Not Found", "name")):
        fetch(site, "/other.bin")
    site.status = [403]
    with pytest.raises(DownloadError, match="HTTP 403"):
        fetch(site)
    site.status = [503, 429]
    assert fetch(site).sha256 == SHA256
    site.status = [503] * 3
    with pytest.raises(DownloadError, match=r"HTTP 503 .* 3 times in a row"):
        fetch(site, "/net.bin?again")
    with pytest.raises(DownloadError, match="refuses the connection"):
        download("http://127.0.0.1:9/a", patience=QUICK)
    with pytest.raises(DownloadError, match="the server is not found"):
        download("https://server.invalid/a", patience=QUICK)


def test_files_of_unknown_length(site: Site) -> None:
    site.length = "none"
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        fetch(site)
    assert fetch(site, sha256=SHA256).verified
    site.length, site.stops = "chunked", [100_000]
    site.files["/chunked.bin"] = CONTENT
    assert fetch(site, "/chunked.bin").sha256 == SHA256
    assert site.asked[-1][1] == "bytes=100000-"


def test_what_is_not_safe_is_refused(site: Site) -> None:
    for name in ("ftp://a/b", "file:///etc/passwd", "http://example.com/a"):
        with pytest.raises(DownloadError, match=r"only https|give --sha256"):
            download(name, patience=QUICK)
    site.redirect["/to"] = ("file:///etc/passwd", {})
    with pytest.raises(DownloadError, match="that is not safe"):
        fetch(site, "/to")
    site.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="sends the file packed"):
        fetch(site)


@pytest.mark.parametrize("name", ["hf:a", "hf:a/../b", "hf:../b", "hf:a/b/../../c", "hf:a/b@../x", "hf:a/b//c"])
def test_names_that_leave_the_cache_are_refused(name: str) -> None:
    with pytest.raises(DownloadError, match="expected hf:OWNER/REPO"):
        resolve(name)


def test_names() -> None:
    url = torchvision.models.get_model_weights("mobilenet_v2").DEFAULT.url
    for name in ("mobilenet_v2", "torchvision/mobilenet_v2"):
        source = resolve(name)
        assert (source.url, str(source.place)) == (url, "torchvision/" + url.rpartition("/")[2])
        assert source.sha256 is not None
        assert f"-{source.sha256}." in url
    assert resolve("timm/resnet50").url.endswith("/timm/resnet50.a1_in1k/resolve/main/model.safetensors")
    assert resolve("hf:a/b/c/d.pt@refs/pr/1").url.endswith("/a/b/resolve/refs%2Fpr%2F1/c/d.pt")
    for name, words in (("resnet5", "did you mean resnet50"), ("timm/resnet5", "did you mean timm/resnet50")):
        with pytest.raises(DownloadError, match=words):
            resolve(name)
    with pytest.raises(DownloadError, match="64 hexadecimal digits"):
        resolve("resnet50", "abc")


def test_a_hub_tells_the_checksum_and_gets_its_token_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    site.redirect["/a/b/resolve/main/model.safetensors"] = ("/net.bin", {"X-Linked-Etag": f'"{SHA256}"'})
    site.stops = [100_000]
    done = download("hf:a/b", patience=QUICK)
    assert done.verified
    assert [(asked[0], asked[2]) for asked in site.asked[:2]] == [
        ("/a/b/resolve/main/model.safetensors", "Bearer secret"),
        ("/net.bin", None),
    ]
    assert site.asked[-1][1] == "bytes=100000-"
    site.redirect["/a/c/resolve/main/x.bin"] = ("/net.bin", {"X-Linked-Etag": '"' + "0" * 64 + '"'})
    with pytest.raises(DownloadError, match="and was removed"):
        download("hf:a/c/x.bin", patience=QUICK)


def test_a_folder_that_cannot_be_written(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set SNIPER_CACHE to another folder"):
        fetch(site)


def test_two_at_once_do_not_write_one_file(site: Site) -> None:
    caught = []

    def again(here: int, total: int | None) -> None:
        if not caught:
            with pytest.raises(StorageError, match="another process is fetching") as refused:
                fetch(site)
            caught.append(refused)

    assert fetch(site, on_progress=again).sha256 == SHA256
    assert caught


def test_backbones_take_what_is_in_the_cache(site: Site) -> None:
    weights = torchvision.models.mobilenet_v2(num_classes=2).state_dict()
    file = cache_folder() / "served.safetensors"
    file.parent.mkdir(parents=True)
    save_file(weights, file)
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    site.files["/o/r/resolve/main/model.safetensors"] = content
    options = {"stride": 16, "feature_levels": 1, "dilation": "stop"}
    with pytest.raises(CheckpointError, match="sniper download NAME"):
        build_backbone("torchvision/mobilenet_v2", weights="hf:o/r", **options)
    assert download("hf:o/r", patience=QUICK).sha256 == digest
    found = build_backbone("torchvision/mobilenet_v2", weights="hf:o/r", **options)
    assert found.body.state_dict()["0.0.weight"].equal(weights["features.0.0.weight"])
    # As if it were timm's: its own name leads to the same file.
    source = resolve("torchvision/mobilenet_v2")
    own = cache_folder() / "weights" / source.place
    own.parent.mkdir(parents=True)
    own.write_bytes(b"not weights")
    own.with_name(own.name + ".json").write_text(json.dumps({"size": 11}))
    with pytest.raises(CheckpointError, match=r"mobilenet_v2-\w+\.pth is not a readable weight file"):
        build_backbone("torchvision/mobilenet_v2", weights="imagenet", **options)


COMMAND = "-m", "sniper", "download"


def test_command_stopped_by_ctrl_c_goes_on(python: Python, site: Site) -> None:
    site.slow_s = 0.05
    url = site.url + "/net.bin"
    process = python.start(*COMMAND, url)
    until = time.monotonic() + 60
    while not any(part.stat().st_size for part in cache_folder().rglob("*.part")):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stopped = process.finish(timeout=60)
    assert (stopped.returncode, "Traceback" in stopped.stderr) == (130, False), stopped.stderr
    (part,) = cache_folder().rglob("*.part")
    here = part.stat().st_size
    assert 0 < here < len(CONTENT)
    site.slow_s = 0
    done = python.run(*COMMAND, url, "--sha256", SHA256)
    assert done.returncode == 0, done.stderr
    assert site.asked[-1][1] == f"bytes={here}-"
    assert "fetched, 0.3 MB, checksum verified" in done.stdout
    assert f"cache folder: {os.environ['SNIPER_CACHE']}" in done.stdout


def test_command_fetches_all_files_of_a_detector(python: Python, site: Site) -> None:
    config = b'{"model_type": "yolos"}'
    site.files |= {"/o/net/resolve/main/config.json": config, "/o/net/resolve/main/model.safetensors": CONTENT}
    done = python.run(*COMMAND, "hf/o/net")
    assert done.returncode == 0, done.stderr
    assert "hf:o/net/model.safetensors: fetched, 0.3 MB" in done.stdout
    assert "hf/o/net does without" in done.stdout
    folder = cached("hf:o/net/config.json").parent
    assert cached("hf:o/net") == folder / "model.safetensors"
    assert model_folder("o/net") == folder
    site.files["/o/net/resolve/main/preprocessor_config.json"] = b"{}"
    assert python.run(*COMMAND, "hf/o/net").returncode == 0
    assert (folder / "preprocessor_config.json").read_bytes() == b"{}"
    refused = python.run(*COMMAND, "hf/o/net", "--sha256", SHA256)
    assert refused.returncode == 2
    assert "--sha256 is of one file" in refused.stderr


def test_command_with_a_full_disk_says_so(python: Python, site: Site) -> None:
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        f"sys.argv = ['sniper', 'download', '{site.url}/net.bin'];"
        "from sniper.cli import main; main()"
    )
    done = python.run("-c", limited)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "200000 bytes are kept" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert fetch(site).sha256 == SHA256
    assert site.asked[-1][1] == "bytes=200000-"

"""Files of weights and states: what goes in comes out, and everything else is refused in one sentence."""

import math
import os
import pickle
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import TinyDetector
from torch import nn

from facts import facts
from forked import Python
from sniper.errors import CheckpointError, StorageError
from sniper.training.checkpoint import (
    Checkpoint,
    CheckpointMeta,
    load_detector_weights,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from sniper.training.finetune import start_from

META = CheckpointMeta(
    recipe={"train": {"steps": 9, "step_at": [0.7]}, "open": [0.0, None]},
    class_names=("tree crown", "Kraut & Rüben"),
    class_ids=(1, 90),
    step=7,
    epoch=1.25,
    metrics={"AP": 0.5, "AP small": float("-inf")},
)


def test_weights_round_trip(tmp_path: Path) -> None:
    detector = TinyDetector().to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", detector.state_dict(), META)
    back = load_weights(tmp_path / "w.safetensors")
    assert back.meta == META
    assert back.weights.keys() == detector.state_dict().keys()
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in detector.state_dict().items())
    other = TinyDetector()
    assert load_detector_weights(other, tmp_path / "w.safetensors") == META
    assert torch.equal(other.head.weight, detector.head.weight)


def test_tied_empty_and_scalar_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("nothing", torch.zeros(0, 4))
    model.register_buffer("count", torch.tensor(3))
    save_weights(tmp_path / "w.safetensors", model.state_dict(), CheckpointMeta())
    assert load_detector_weights(model, tmp_path / "w.safetensors").step == 0


@pytest.mark.parametrize("header_bytes", [0x380, 0x4B50])
def test_headers_whose_length_looks_like_a_pickle(tmp_path: Path, header_bytes: int) -> None:
    """A safetensors file begins with the length of its header, here the first bytes of a pickle or of a zip file."""
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(1)}, CheckpointMeta(class_names=("",)))
    shortest = int.from_bytes(path.read_bytes()[:8], "little")
    save_weights(path, {"a": torch.zeros(1)}, CheckpointMeta(class_names=("x" * (header_bytes - shortest),)))
    assert path.read_bytes()[:2] in (b"\x80\x03", b"PK")
    assert load_weights(path).weights.keys() == {"a"}


def test_not_a_number_stays_so(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {}, CheckpointMeta(metrics={"AP": float("nan")}))
    metric = load_weights(tmp_path / "w.safetensors").meta.metrics["AP"]
    assert metric != metric


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def _torch_file(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def _cut(path: Path) -> None:
    save_weights(path, TinyDetector().state_dict(), META)
    path.write_bytes(path.read_bytes()[:-100])


def _cut_in_header(path: Path) -> None:
    save_weights(path, TinyDetector().state_dict(), META)
    path.write_bytes(path.read_bytes()[:50])


def _foreign(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path)


def _later_format(path: Path) -> None:
    save_file({"a": torch.zeros(3)}, path, metadata={"sniper": '{"format": 2}'})


BAD_WEIGHTS = {
    "missing": (lambda path: None, "is not a file"),
    "folder": (lambda path: path.mkdir(), "is not a file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello, this is no checkpoint"), "damaged or not a checkpoint"),
    "pickle": (_pickle, "PyTorch pickle, which can run code"),
    "torch.save": (_torch_file, "PyTorch pickle, which can run code"),
    "cut": (_cut, "damaged or not a checkpoint"),
    "cut in header": (_cut_in_header, "damaged or not a checkpoint"),
    "without our header": (_foreign, "holds safetensors but not a sniper checkpoint"),
    "later format": (_later_format, r"cannot read: format: Input should be 1; use the version that wrote it"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights_are_one_sentence(tmp_path: Path, name: str) -> None:
    make, message = BAD_WEIGHTS[name]
    path = tmp_path / "w.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    return (
        one.meta == other.meta
        and one.weights.keys() == other.weights.keys()
        and all(torch.equal(one.weights[name], tensor) for name, tensor in other.weights.items())
    )


def test_no_flipped_byte_passes_unseen(tmp_path: Path) -> None:
    """Whatever byte is another one: the file is refused, or the byte means nothing (blanks behind the header)."""
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.arange(6.0), "n": torch.tensor(3)}, META)
    sound, whole = path.read_bytes(), load_weights(path)
    unseen = []
    for place in range(len(sound)):
        for flip in (0x01, 0x20):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ flip]) + sound[place + 1 :])
            with suppress(CheckpointError):
                unseen += [] if _same(load_weights(path), whole) else [place]
    assert unseen == []


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    detector = TinyDetector()
    for number in range(8):
        save_weights(tmp_path / f"{number}.safetensors", detector.state_dict(), META)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_checkpoints_from_before_checksums_load(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3)}, path, metadata={"sniper": META.model_dump_json()})
    assert load_weights(path).meta == META


def test_a_state_with_one_flipped_byte_is_refused(tmp_path: Path) -> None:
    detector, path = TinyDetector(), tmp_path / "state.pt"
    save_state(path, {"model": detector.state_dict(), "position": {"step": 7}})
    sound = path.read_bytes()
    for place in (sound.index(detector.head.weight.detach().numpy().tobytes()) + 2, sound.index(b"position") + 3):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(CheckpointError, match=r"damaged .*; start a new run"):
            load_state(path, detector)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    detector = TinyDetector()
    detector.register_buffer("limits", torch.tensor([0.0, math.inf]))  # a buffer may mean infinity
    before = detector.head.bias.clone()
    path = tmp_path / "w.safetensors"
    save_weights(path, detector.state_dict(), META)
    load_detector_weights(detector, path)
    weights = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    weights["head.bias"][2] = value
    save_weights(path, weights, META)
    with pytest.raises(CheckpointError, match=facts("head.bias", "finite", "another checkpoint")):
        load_detector_weights(detector, path)
    with pytest.raises(CheckpointError, match=r"head\.bias .* is not a finite number"):
        start_from(detector, path, META.class_names)
    save_state(tmp_path / "state.pt", {"model": weights})
    with pytest.raises(CheckpointError, match=r"head\.bias .* is not a finite number"):
        load_state(tmp_path / "state.pt", detector)
    assert torch.equal(before, detector.head.bias)


def test_first_mismatch_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = dict(TinyDetector().state_dict())
    detector = TinyDetector()
    before = detector.head.weight.clone()
    for change, message in (
        ({"head.weight": torch.zeros(9, 16, 1, 1)}, r"head.weight of shape \(9, 16, 1, 1\), .* needs \(5, 16, 1, 1\)"),
        ({"mask.weight": torch.zeros(1)}, "has mask.weight, which this detector does not"),
    ):
        save_weights(path, weights | change, META)
        with pytest.raises(CheckpointError, match=message):
            load_detector_weights(detector, path)
    del weights["body.0.bias"]
    save_weights(path, weights, META)
    with pytest.raises(CheckpointError, match=r"has no body.0.bias"):
        load_detector_weights(detector, path)
    assert torch.equal(before, detector.head.weight)


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("was-unpickled"),)


def test_bad_states_are_one_sentence_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    detector = TinyDetector()
    path = tmp_path / "state.pt"
    save_state(path, {"model": detector.state_dict()})
    whole = path.read_bytes()
    assert load_state(path, detector)["kind"] == "sniper training state"

    torch.save(Evil(), path)
    with pytest.raises(CheckpointError, match="damaged or not a training state"):
        load_state(path, detector)
    assert not (tmp_path / "was-unpickled").exists()
    torch.save({"model": detector.state_dict()}, path)
    with pytest.raises(CheckpointError, match="not a training state of sniper"):
        load_state(path, detector)
    for content, message in ((b"", "is empty"), (whole[:-200], "damaged"), (b"text", "damaged")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_state(path, detector)
        assert "\n" not in str(caught.value)
    save_state(path, {"model": detector.state_dict() | {"head.bias": torch.zeros(2)}})
    with pytest.raises(CheckpointError, match=r"head.bias of shape \(2,\)"):
        load_state(path, detector)


def _fill_up(folder: Path) -> None:
    """Save something that fits, then the same files too large, and look at what is left."""
    weights, state = folder / "w.safetensors", folder / "state.pt"
    for size in (1_000, 1_000_000):
        tensors = {"a": torch.full((size,), 3.0)}
        for save in (lambda t: save_weights(weights, t, META), lambda t: save_state(state, {"model": t})):
            if size == 1_000:
                save(tensors)
                continue
            with pytest.raises(StorageError, match=r"^cannot write .*(No space left|File too large).*another folder$"):
                save(tensors)
    assert load_weights(weights).weights["a"].shape == (1_000,)
    assert torch.load(state, weights_only=True)["model"]["a"].shape == (1_000,)
    assert sorted(p.name for p in folder.iterdir()) == ["state.pt", "w.safetensors"], "no half-written file stays"


def test_full_disk_keeps_the_former_checkpoint(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("making a small file system needs root; the next test limits the file size instead")
    try:
        _fill_up(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_file_size_limit_keeps_the_former_checkpoint(python: Python, tmp_path: Path) -> None:
    code = (
        "import pathlib, resource, sys; sys.path.append('..'); from test_checkpoint import _fill_up;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); _fill_up(pathlib.Path(sys.argv[1]))"
    )
    done = python.run("-c", code, tmp_path, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        save_state(tmp_path / "file" / "state.pt", {})

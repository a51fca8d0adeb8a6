"""Pre-trained classifiers of the 2018 code become backbones to train from, and nothing else passes for one."""

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recorded import Golden
from sniper.detectors.original.network import Network, OriginalConfig, build_original
from sniper.errors import CheckpointError
from sniper.mxnet.names import entries
from sniper.mxnet.params import Params, read_params
from sniper.pipeline.import_mxnet import import_mxnet
from sniper.training.checkpoint import load_weights
from sniper.training.finetune import start_from


def classifier_of(params: Params, network: Network) -> Params:
    """What the original's pre-trained file has of a detector's entries, and its own."""
    with torch.device("meta"):
        detector = build_original(OriginalConfig(network=network), 1)
    wanted = {entry.theirs for entry in entries(detector) if entry.ours.startswith("backbone.")}
    found = Params(
        {name: array for name, array in params.arg.items() if name in wanted and "_offset_" not in name},
        {name: array for name, array in params.aux.items() if name in wanted},
    )
    if network == "sniper_mobilenetv2":
        found.arg.update(fc_weight=np.ones((5, 1280), "f4"), fc_bias=np.ones(5, "f4"))
        return found
    found.arg.update({f"bn1_{part}": np.ones(2048, "f4") for part in ("gamma", "beta")})
    found.aux.update({f"bn1_moving_{part}": np.ones(2048, "f4") for part in ("mean", "var")})
    found.arg.update(fc1_weight=np.ones((5, 2048), "f4"), fc1_bias=np.ones(5, "f4"))
    return found


def write(path: Path, params: Params) -> Path:
    """As MXNet 1.2 wrote such files."""
    named = [(f"arg:{name}", array) for name, array in params.arg.items()]
    named += [(f"aux:{name}", array) for name, array in params.aux.items()]
    with path.open("wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(named)))
        for _, array in named:
            file.write(struct.pack("<IiI", 0xF993FAC9, 0, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape))
            file.write(struct.pack("<iii", 1, 0, 0) + array.astype("<f4").tobytes())
        file.write(struct.pack("<Q", len(named)))
        for name, _ in named:
            file.write(struct.pack("<Q", len(name)) + name.encode())
    return path


@pytest.mark.parametrize(("file", "network"), [("mobilenet", "sniper_mobilenetv2"), ("res50", "sniper_resnet50")])
def test_all_weights_arrive_and_the_rest_is_named(
    golden: Golden, tmp_path: Path, file: str, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    params = classifier_of(read_params(golden.file(f"net/{file}-0001.params.xz")), network)
    path, output = write(tmp_path / "pretrained-0000.params", params), tmp_path / "backbone.safetensors"
    with caplog.at_level(logging.INFO, logger="sniper"):
        meta = import_mxnet(path, network, output)
    last = "fc_weight" if network == "sniper_mobilenetv2" else "fc1_weight"
    assert f"{path}: left out" in caplog.text
    assert f"arg:{last}" in caplog.text
    assert meta.class_names == ()
    weights, _ = load_weights(output)
    detector = build_original(OriginalConfig(network=network), 1)
    names = {name for name in detector.state_dict() if name.startswith("backbone.")}
    assert weights.keys() == names
    for entry in entries(detector):
        if not entry.ours.startswith("backbone."):
            continue
        if "_offset_" in entry.theirs:
            assert not weights[entry.ours].any()
        elif entry.theirs == "bn_data_gamma":
            assert weights[entry.ours].tolist() == [1, 1, 1]
        else:
            group = params.arg if entry.kind == "arg" else params.aux
            np.testing.assert_array_equal(weights[entry.ours].numpy(), group[entry.theirs])
    start = start_from(detector, output, ("cat",))
    assert "head" in start.at_random
    assert all(value.equal(weights[name]) for name, value in detector.state_dict().items() if name in names)


@pytest.fixture(scope="module")
def small(golden: Golden) -> Params:
    return classifier_of(read_params(golden.file("net/mobilenet-0001.params.xz")), "sniper_mobilenetv2")


NORM = "last-1x1-conv-batchnorm"


@pytest.mark.parametrize(
    ("change", "network", "sentence"),
    [
        (lambda p: p.arg.pop(f"{NORM}_beta"), "sniper_mobilenetv2", f"no entry arg:{NORM}_beta"),
        (lambda p: p.aux.pop(f"{NORM}_moving_var"), "sniper_mobilenetv2", f"no entry aux:{NORM}_moving_var"),
        (lambda p: p.arg.update({f"{NORM}_beta": np.ones(9)}), "sniper_mobilenetv2", r"has shape \(9,\), .*\(1280,\)"),
        (
            lambda p: p.arg.update({f"{NORM}_beta": np.full(1280, np.nan)}),
            "sniper_mobilenetv2",
            "values that are no num",
        ),
        (lambda p: p.arg.update(extra_weight=np.ones(3)), "sniper_mobilenetv2", "unexpected entry arg:extra_weight"),
        (lambda p: None, "sniper_resnet50", "no entry arg:bn_data_gamma, which the backbone of sniper_resnet50 needs"),
    ],
)
def test_the_first_difference_is_named(
    small: Params, tmp_path: Path, change: Callable, network: Network, sentence: str
) -> None:
    params = Params(dict(small.arg), dict(small.aux))
    change(params)
    path, output = write(tmp_path / "net.params", params), tmp_path / "backbone.safetensors"
    with pytest.raises(CheckpointError, match=sentence) as caught:
        import_mxnet(path, network, output)
    assert str(caught.value).startswith(f"{path}: ")
    assert not output.exists()


def test_a_longer_network_does_not_pass_for_a_shorter_one(golden: Golden, tmp_path: Path) -> None:
    params = classifier_of(read_params(golden.file("net/res50-0001.params.xz")), "sniper_resnet50")
    params.arg["stage3_unit7_bn1_gamma"] = np.ones(1024)  # as ResNet-101 has
    path = write(tmp_path / "resnet_mx_101.params", params)
    with pytest.raises(CheckpointError, match="unexpected entry arg:stage3_unit7_bn1_gamma"):
        import_mxnet(path, "sniper_resnet50", tmp_path / "backbone.safetensors")


def test_a_file_that_is_cut_short_is_refused(small: Params, tmp_path: Path) -> None:
    path = write(tmp_path / "net.params", small)
    content = path.read_bytes()
    for size in (7, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"byte \d+: expected"):
            import_mxnet(path, "sniper_mobilenetv2", tmp_path / "backbone.safetensors")

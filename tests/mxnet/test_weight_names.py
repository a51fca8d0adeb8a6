"""Every name and shape of a checkpoint is checked; box weights and the fixed gain are taken as the original does."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from sniper.detectors.original.network import OriginalConfig, OriginalSniper, build_original, sniper_mobilenetv2
from sniper.detectors.original.preact_resnet import PreactResNet
from sniper.errors import CheckpointError
from sniper.mxnet.names import entries, state_dict_of
from sniper.mxnet.params import Params

STDS = np.asarray([0.1, 0.1, 0.2, 0.2], dtype=np.float32)


@pytest.fixture(scope="module")
def detector() -> OriginalSniper:
    return sniper_mobilenetv2(3)


def params_of(detector: nn.Module) -> Params:
    """What the original would have written of this detector."""
    found, state = Params({}, {}), detector.state_dict()
    for entry in entries(detector):
        group = found.arg if entry.kind == "arg" else found.aux
        group[entry.theirs] = state[entry.ours].numpy().copy()
    return found


def convert(params: Params, detector: nn.Module) -> dict[str, torch.Tensor]:
    return state_dict_of(params, detector, file="net-0001.params", network="sniper_mobilenetv2")


def test_all_weights_arrive(detector: OriginalSniper) -> None:
    state = convert(params_of(detector), detector)
    assert state.keys() == detector.state_dict().keys()
    for name, value in detector.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_every_module_has_one_name() -> None:
    with torch.device("meta"):
        detector = build_original(OriginalConfig(network="sniper_resnet50", focus=True, masks=True), 80)
    found = list(entries(detector))
    theirs = [entry.theirs for entry in found]
    assert len(set(theirs)) == len(theirs)
    assert {"mask_conv_3x3_4_bias", "conv_new_out_weight", "mask_deconv_weight", "stage3_unit6_bn3_beta"} <= {*theirs}
    counters = {name for name in detector.state_dict() if name.endswith("num_batches_tracked")}
    assert {entry.ours for entry in found} == detector.state_dict().keys() - counters


def test_test_weights_of_the_boxes_come_first(detector: OriginalSniper) -> None:
    params = params_of(detector)
    rng = np.random.default_rng(0)
    params.arg["bbox_pred_weight_test"] = rng.normal(size=(4, 512)).astype(np.float32)
    params.arg["bbox_pred_bias_test"] = rng.normal(size=4).astype(np.float32)
    state = convert(params, detector)
    np.testing.assert_allclose(
        state["head.deltas.weight"].numpy() * STDS[:, None], params.arg["bbox_pred_weight_test"], rtol=1e-6
    )
    np.testing.assert_allclose(state["head.deltas.bias"].numpy() * STDS, params.arg["bbox_pred_bias_test"], rtol=1e-6)


def test_the_gain_of_the_input_norm_is_one() -> None:
    model = nn.Module()
    model.backbone = PreactResNet((1, 1, 1, 1))
    params = params_of(model)
    params.arg["bn_data_gamma"][:] = 7
    state = convert(params, model)
    assert state["backbone.norm_in.weight"].tolist() == [1, 1, 1]
    assert {"stage4_unit1_offset_weight", "stage4_unit1_sc_weight", "stage4_unit1_conv2_weight"} <= params.arg.keys()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: p.arg.pop("fc_new_1_bias"), "no entry arg:fc_new_1_bias"),
        (lambda p: p.aux.pop("last-1x1-conv-batchnorm_moving_var"), "no entry aux:last-1x1-conv-batchnorm_moving_var"),
        (lambda p: p.arg.update(fc1_weight=np.ones(3)), "unexpected entry arg:fc1_weight"),
        (lambda p: p.aux.update(a_moving_var=np.ones(3)), "unexpected entry aux:a_moving_var"),
        (lambda p: p.arg.update(offset_bias=np.ones(9)), r"arg:offset_bias has shape \(9,\), .* needs \(98,\)"),
        (lambda p: p.arg.update(offset_bias=np.full(98, np.nan)), "arg:offset_bias has values that are no numbers"),
        (lambda p: p.arg.update(offset_bias_test=np.ones(98)), "unexpected entry arg:offset_bias_test"),
        (lambda p: p.arg.update(bbox_pred_bias_test=np.ones(8)), r"arg:bbox_pred_bias_test has shape \(8,\), not"),
    ],
)
def test_the_first_difference_is_named(detector: OriginalSniper, change: Callable, sentence: str) -> None:
    params = params_of(detector)
    change(params)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        convert(params, detector)
    assert str(caught.value).startswith("net-0001.params: ")

"""From the names of the 2018 checkpoints to the modules of ``OriginalSniper``, every name and shape checked."""

import logging
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sniper.errors import CheckpointError
from sniper.mxnet.params import Params
from sniper.nn import box_deltas

# Our module, theirs. Units and blocks are numbered from 0 here; theirs from 1 in a ResNet.
_MODULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.norm_in", "bn_data"),
    (r"backbone\.conv", "conv0"),
    (r"backbone\.norm", "bn0"),
    (r"backbone\.stage(\d)\.(\d+)\.norm(\d)", "stage{0}_unit{unit}_bn{2}"),
    (r"backbone\.stage(\d)\.(\d+)\.conv2\.offset", "stage{0}_unit{unit}_offset"),
    (r"backbone\.stage(\d)\.(\d+)\.conv(\d)", "stage{0}_unit{unit}_conv{2}"),
    (r"backbone\.stage(\d)\.(\d+)\.shortcut", "stage{0}_unit{unit}_sc"),
    (r"backbone\.first\.conv", "first-3x3-conv-conv2d"),
    (r"backbone\.first\.norm", "first-3x3-conv-batchnorm"),
    (r"backbone\.stacks\.(\d)\.(\d)\.expand\.conv", "seq-{0}-block{1}-exp-conv2d"),
    (r"backbone\.stacks\.(\d)\.(\d)\.expand\.norm", "seq-{0}-block{1}-exp-batchnorm"),
    (r"backbone\.stacks\.(\d)\.(\d)\.(depthwise|linear)\.conv", "seq-{0}-block{1}-{2}-conv2d"),
    (r"backbone\.stacks\.(\d)\.(\d)\.(depthwise|linear)\.norm", "seq-{0}-block{1}-{2}-batchnorm"),
    (r"backbone\.last\.conv", "last-1x1-conv-conv2d"),
    (r"backbone\.last\.norm", "last-1x1-conv-batchnorm"),
    (r"rpn\.conv", "rpn_conv_3x3"),
    (r"rpn\.logits", "rpn_cls_score"),
    (r"rpn\.deltas", "rpn_bbox_pred"),
    (r"reduction\.conv", "conv_new_1"),
    (r"head\.pool\.offsets", "offset"),
    (r"head\.first", "fc_new_1"),
    (r"head\.second", "fc_new_2"),
    (r"head\.classes", "cls_score"),
    (r"head\.deltas", "bbox_pred"),
    (r"focus\.conv1", "conv_new_2"),
    (r"focus\.conv2", "conv_new_3"),
    (r"focus\.logits", "conv_new_out"),
    (r"masks\.pool\.offsets", "mask_offset"),
    (r"masks\.convs\.conv(\d)", "mask_conv_3x3_{0}"),
    (r"masks\.enlarge", "mask_deconv"),
    (r"masks\.logits", "mask_out"),
)

_BOX = "bbox_pred"
_TEST = "_test"
# What the published classifiers have and detectors do not: a ResNet's last norm, and the last layer.
_CLASSIFIER = re.compile(r"bn1_(gamma|beta|moving_mean|moving_var)|fc1?_(weight|bias)")

logger = logging.getLogger("sniper")


class Entry(NamedTuple):
    """One tensor of the detector and its name in the checkpoint."""

    ours: str  # in the state dict
    kind: Literal["arg", "aux"]
    theirs: str


def entries(detector: nn.Module) -> Iterator[Entry]:
    """Every tensor of an ``OriginalSniper`` that a checkpoint holds, in the order of the network."""
    for path, module in detector.named_modules():
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if not own:
            continue
        theirs = _translate(path)
        if isinstance(module, nn.BatchNorm2d):
            yield Entry(f"{path}.weight", "arg", f"{theirs}_gamma")
            yield Entry(f"{path}.bias", "arg", f"{theirs}_beta")
            yield Entry(f"{path}.running_mean", "aux", f"{theirs}_moving_mean")
            yield Entry(f"{path}.running_var", "aux", f"{theirs}_moving_var")
        else:
            yield from (Entry(f"{path}.{name}", "arg", f"{theirs}_{name}") for name in own)


def state_dict_of(params: Params, detector: nn.Module, *, file: str, network: str) -> dict[str, Tensor]:
    """The state dict of ``detector`` with the weights of a checkpoint.

    The gain of the input norm is 1 whatever the file says: that norm has a fixed one. The checkpoint's ``*_test`` box
    weights, which the original detects with, are its learned ones times the deviations of the box deltas; the learned
    ones are taken from them, since ``OriginalSniper`` decodes with the deviations.

    Raises:
        CheckpointError: an entry is missing, unexpected or of another shape; the first is named.
    """
    groups: dict[str, dict[str, NDArray]] = {"arg": _with_test_weights(params.arg, file), "aux": dict(params.aux)}
    state = _filled(detector.state_dict(), list(entries(detector)), groups, file, network)
    _refuse_rest(groups, file, network)
    return state


def backbone_state_of(params: Params, detector: nn.Module, *, file: str, network: str) -> dict[str, Tensor]:
    """The backbone's part of a state dict, from a checkpoint of an image classifier of the same network.

    Its last norm and its classifier are passed over, and logged; what it lacks, the offsets of deformable convolutions,
    stays as in ``detector``.

    Raises:
        CheckpointError: an entry is missing, unexpected or of another shape; the first is named.
    """
    groups: dict[str, dict[str, NDArray]] = {"arg": dict(params.arg), "aux": dict(params.aux)}
    wanted = [entry for entry in entries(detector) if entry.ours.startswith("backbone.")]
    wanted = [entry for entry in wanted if ".offset." not in entry.ours or entry.theirs in groups[entry.kind]]
    state = _filled(detector.state_dict(), wanted, groups, file, network)
    passed_over = [(kind, name) for kind, left in groups.items() for name in left if _CLASSIFIER.fullmatch(name)]
    for kind, name in passed_over:
        del groups[kind][name]
    _refuse_rest(groups, file, network)  # else a longer network would pass for a shorter one
    logger.info("%s: left out %s", file, ", ".join(f"{kind}:{name}" for kind, name in passed_over) or "nothing")
    return {name: value for name, value in state.items() if name.startswith("backbone.")}


def _refuse_rest(groups: dict[str, dict[str, NDArray]], file: str, network: str) -> None:
    unexpected = next((f"{kind}:{theirs}" for kind, left in groups.items() for theirs in left), None)
    if unexpected is not None:
        raise CheckpointError(
            f"{file}: unexpected entry {unexpected}, which {network} does not have; "
            "name the architecture that the file is of"
        )


def _filled(
    former: dict[str, Tensor], wanted: list[Entry], groups: dict[str, dict[str, NDArray]], file: str, network: str
) -> dict[str, Tensor]:
    """A state dict with the entries ``wanted``, which are taken out of ``groups``."""
    state = dict(former)
    for ours, kind, theirs in wanted:
        array = groups[kind].pop(theirs, None)
        if array is None:
            raise CheckpointError(
                f"{file}: no entry {kind}:{theirs}, which {network} needs; name the architecture that the file is of"
            )
        if array.shape != tuple(state[ours].shape):
            raise CheckpointError(
                f"{file}: {kind}:{theirs} has shape {array.shape}, {network} needs {tuple(state[ours].shape)}; "
                "name the architecture that the file is of"
            )
        if not np.isfinite(array).all():
            raise CheckpointError(f"{file}: {kind}:{theirs} has values that are no numbers; use another checkpoint")
        state[ours] = torch.from_numpy(array.astype(np.float32))
        if theirs == "bn_data_gamma":
            state[ours].fill_(1)
    return state


def _translate(path: str) -> str:
    """The checkpoint's name of a module; ``{unit}`` is our second number, from 1."""
    for ours, theirs in _MODULES:
        if match := re.fullmatch(ours, path):
            parts = match.groups()
            unit = int(parts[1]) + 1 if "{unit}" in theirs else 0
            return theirs.format(*parts, unit=unit)
    raise KeyError(f"no name for the module {path}")


def _with_test_weights(arg: dict[str, NDArray], file: str) -> dict[str, NDArray]:
    """The learned weights; those of the boxes from their ``*_test`` form, if there is one."""
    learned = {name: array for name, array in arg.items() if not name.endswith(_TEST)}
    for name, array in arg.items():
        if not name.endswith(_TEST):
            continue
        plain = name.removesuffix(_TEST)
        if plain not in (f"{_BOX}_weight", f"{_BOX}_bias") or plain not in learned:
            raise CheckpointError(f"{file}: unexpected entry arg:{name}; expected such an entry for {_BOX} only")
        if array.shape != learned[plain].shape or array.shape[0] != 4:
            raise CheckpointError(
                f"{file}: arg:{name} has shape {array.shape}, not {learned[plain].shape} as arg:{plain}; "
                "use another checkpoint"
            )
        gain = np.repeat(box_deltas.REGION_WEIGHTS, 2).reshape(4, *[1] * (array.ndim - 1))
        learned[plain] = array.astype(np.float64) * gain
    return learned

"""Checkpoints of other programs as checkpoints of ours."""

from pathlib import Path

from sniper.detectors.original.network import Network, OriginalConfig, build_original
from sniper.errors import CheckpointError
from sniper.inference.config import InferenceConfig, MergeConfig
from sniper.mxnet.classes import COCO_IDS, COCO_NAMES, VOC_IDS, VOC_NAMES
from sniper.mxnet.names import backbone_state_of, state_dict_of
from sniper.mxnet.params import Params, read_params
from sniper.pyramid import Level, PyramidConfig
from sniper.recipe import Recipe
from sniper.training.checkpoint import CheckpointMeta, refuse_unsound, save_weights

# How the 2018 code tested, finest level first; the ranges are those it trained and tested with on COCO.
_LEVELS = (
    Level(short_px=1400, long_px=2000, train_range_px=(0, 80), infer_range_px=(0, 90)),
    Level(short_px=800, long_px=1280, train_range_px=(32, 150), infer_range_px=(32, 180)),
    Level(short_px=480, long_px=512, train_range_px=(120, None), infer_range_px=(75, None)),
)
_LONGEST_PX = 2000  # images are run whole


def import_mxnet(
    file: Path | str, network: Network, output: Path | str, *, class_names: tuple[str, ...] | None = None
) -> CheckpointMeta:
    """Turn an MXNet checkpoint of the original code into one that ``predict`` and ``evaluate`` take.

    A checkpoint of an image classifier, which has no scores of regions, becomes one of the backbone alone: it is for
    starting to train from (``train(weights=...)``).

    Args:
        file: ``.params`` or ``.params.xz``.
        network: which of the original networks it holds. Focus and mask branches are found by their names.
        output: the ``.safetensors`` file to write, with a recipe that tests at the original's three scales.
        class_names: in the order of the checkpoint, without background; none: COCO for 80 classes, VOC for 20.

    Raises:
        CheckpointError: the file is damaged, of another network or of other classes, or holds a value that is not
            finite; the first difference is named.
        StorageError: ``output`` cannot be written.
    """
    params = read_params(file)
    if "cls_score_bias" not in params.arg:
        return _import_backbone(params, network, output, str(file))
    names, ids = _classes(params, class_names, str(file))
    config = OriginalConfig(
        network=network, focus="conv_new_2_weight" in params.arg, masks="mask_out_weight" in params.arg
    )
    detector = build_original(config, len(names))
    state = state_dict_of(params, detector, file=str(file), network=network)
    refuse_unsound(file, state, detector)
    recipe = Recipe(
        description=f"{network} from {Path(file).name}",
        pyramid=PyramidConfig(levels=_LEVELS, chip_px=512),
        model=config,
        inference=InferenceConfig(window_px=_LONGEST_PX, merge=MergeConfig(max_per_image=200)),
    )
    meta = CheckpointMeta(recipe=recipe.model_dump(mode="json"), class_names=names, class_ids=ids)
    save_weights(output, state, meta)
    return meta


def _import_backbone(params: Params, network: Network, output: Path | str, file: str) -> CheckpointMeta:
    """What an image classifier and a detector have in common."""
    config = OriginalConfig(network=network)
    state = backbone_state_of(params, build_original(config, 1), file=file, network=f"the backbone of {network}")
    recipe = Recipe(description=f"backbone of {network} from {Path(file).name}", model=config)
    meta = CheckpointMeta(recipe=recipe.model_dump(mode="json"))
    save_weights(output, state, meta)
    return meta


def _classes(params: Params, given: tuple[str, ...] | None, file: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    bias = params.arg["cls_score_bias"]
    if bias.ndim != 1 or len(bias) < 2:
        raise CheckpointError(f"{file}: arg:cls_score_bias has no score for each class, so this is no detector")
    count = len(bias) - 1
    if given is not None:
        if len(given) != count:
            raise CheckpointError(f"{file} has {count} classes without background, but {len(given)} names were given")
        return given, tuple(range(1, count + 1))
    known = {len(COCO_NAMES): (COCO_NAMES, COCO_IDS), len(VOC_NAMES): (VOC_NAMES, VOC_IDS)}
    if count not in known:
        raise CheckpointError(f"{file} has {count} classes, as neither COCO (80) nor VOC (20) has; give their names")
    return known[count]

"""Keys of what is kept on disk: the same key means the same result.

A key is a hash of the data, the digest of the weights and every setting of the recipe, less those on a list: settings
that cannot change that kind of result, each with the reason. A setting that is new, and on no list, is part of every
key.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from sniper.data.table import AnnotationTable
from sniper.recipe import Recipe

# A name ending in "." means everything below it.
_OF_EVERY_KEY = frozenset(
    {
        "description",  # text
        "data.train",  # the fingerprint of the table covers what these name
        "data.train_split",
        "data.evaluate",
        "data.evaluate_split",
        "data.format",
        "data.image_root",
        "data.classes",
        "data.ignore_flags",
        "weights",  # the digest of the weights covers what it names
        "evaluation.",  # measures what is kept
    }
)
_OF_FINISHED_WEIGHTS = frozenset(
    {
        "model.weights",  # as ``weights``; in training it also says which stages are frozen
        "chips.",  # these only made the weights, which the digest covers
        "negatives.",
        "sampler.",
        "loader.",  # ``on_bad_image`` is given by hand
        "augment.",
        "train.",
        "inference.whole_megapixels",  # windows of a file are bit for bit those of the image in memory
    }
)
UNUSED_BY_DETECTIONS = _OF_EVERY_KEY | _OF_FINISHED_WEIGHTS
UNUSED_BY_PROPOSALS = UNUSED_BY_DETECTIONS | {
    "inference.focus",  # extraction runs on every window
    "inference.focus.",
    "inference.reject_below",  # proposals have no class
    "inference.merge.",  # ``negatives.extraction``, given by hand, says how proposals are merged
}
UNUSED_BY_FIRST_STAGE = _OF_EVERY_KEY | {
    "inference.",  # runs after training
    "negatives.",  # ``train.epochs`` is ``negatives.proposal_epochs`` here
    "loader.workers",  # any number gives the same batches
    "train.log_every",  # these watch
    "train.tensorboard",
    "train.checkpoint_every_minutes",
    "train.checkpoint_every_steps",
    "train.evaluate_every",
    "train.best_metric",
    "train.patience",
}


def proposals_key(recipe: Recipe, table: AnnotationTable, weights: str, settings: Mapping[str, Any]) -> str:
    """Key of proposals, SHA-256 as hexadecimal; ``settings`` are those of the extraction, plain values."""
    return _table_key("proposals", recipe, UNUSED_BY_PROPOSALS, table, weights, settings)


def detections_key(recipe: Recipe, table: AnnotationTable, weights: str, settings: Mapping[str, Any]) -> str:
    """Key of the detections of a dataset; ``settings`` are those beside the recipe, plain values."""
    return _table_key("detections", recipe, UNUSED_BY_DETECTIONS, table, weights, settings)


def first_stage_key(recipe: Recipe, table: AnnotationTable, weights: str, processes: int) -> str:
    """Key of a first stage that ``recipe``, as it is trained by, makes of ``weights`` in ``processes`` processes."""
    return _table_key("first stage", recipe, UNUSED_BY_FIRST_STAGE, table, weights, {"processes": processes})


def predictions_key(recipe: Recipe, weights: str, settings: Mapping[str, Any]) -> str:
    """Key of detections in files; ``weights`` is their digest, ``settings`` name the files and what is beside the
    recipe.
    """
    plain = ["predictions", weights, used_settings(recipe, UNUSED_BY_DETECTIONS), dict(settings)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def used_settings(recipe: Recipe, unused: Collection[str]) -> dict[str, Any]:
    """Every setting by its dotted name, less the ``unused`` ones; lists are one value."""
    every = flattened(recipe.model_dump(mode="json"))
    below = tuple(name for name in unused if name.endswith("."))
    return {name: value for name, value in every.items() if name not in unused and not name.startswith(below)}


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _table_key(
    what: str,
    recipe: Recipe,
    unused: Collection[str],
    table: AnnotationTable,
    weights: str,
    settings: Mapping[str, Any],
) -> str:
    used = used_settings(recipe, unused)
    return table.fingerprint(what, used, dict(settings), str(table.root.resolve()), weights)

"""Words that verbs and Python functions take for the settings that are changed most."""

import json
from pathlib import Path

_SETTINGS = {
    "data": "data.train",
    "split": "data.train_split",
    "format": "data.format",
    "images": "data.image_root",
    "classes": "data.classes",
    "ignore_flags": "data.ignore_flags",
    "val": "data.evaluate",
    "val_split": "data.evaluate_split",
    "val_format": "data.evaluate_format",
    "val_images": "data.evaluate_image_root",
    "weights": "weights",
    "negatives": "negatives.proposals",
    "epochs": "train.epochs",
    "minutes": "train.minutes",
    "batch": "loader.batch_size",
    "device": "train.device",
    "seed": "train.seed",
    "on_bad_image": "loader.on_bad_image",
    "protocols": "evaluation.protocols",
}


def short_overrides(**words: str | Path | float | tuple[str, ...] | None) -> list[str]:
    """The words that are not None as ``a.b=c`` settings.

    ``short_overrides(epochs=2, data=None) == ["train.epochs=2"]``. Values are quoted as JSON, which is YAML: a path is
    a path, whatever characters it has.
    """
    given = {_SETTINGS[word]: value for word, value in words.items() if value is not None}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]

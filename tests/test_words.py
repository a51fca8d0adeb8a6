"""The Python functions take the words of the verbs."""

import inspect

import pytest

import sniper
from sniper.cli import data, inference, training
from sniper.cli.export import export
from sniper.cli.score import score

# What Python says in another way: settings, and a dataset with more than a path (DataSource).
_OTHERWISE = {
    "train": {"set_", "split", "format", "images", "classes", "ignore_flags", "val_split", "val_format", "val_images"},
    "evaluate": {"set_", "format", "images", "classes", "ignore_flags"},
    "score": {"split", "format", "images", "classes"},
    "predict": {"set_", "reject_below"},
    "check": set(),
    "convert": set(),
    "export": set(),
}
_VERBS = {
    "train": training.train,
    "evaluate": inference.evaluate,
    "score": score,
    "predict": inference.predict,
    "check": data.check,
    "convert": data.convert,
    "export": export,
}


@pytest.mark.parametrize("name", list(_VERBS))
def test_words(name: str) -> None:
    words = set(inspect.signature(_VERBS[name]).parameters)
    known = set(inspect.signature(getattr(sniper, name)).parameters)
    assert words - known == _OTHERWISE[name]

"""Train and run object detectors on images whose objects differ hugely in size.

import sniper

run = sniper.train("mobilenetv2", data="train.json", val="val.json", epochs=20)
print(sniper.evaluate(run.checkpoint, "val.json").result.ap)
found = sniper.predict(run.checkpoint, "images/*.jpg", output="found")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sniper.data.source import load_dataset
    from sniper.detectors.from_torchvision.build import from_torchvision
    from sniper.detectors.from_transformers.build import from_transformers
    from sniper.detectors.with_focus import with_focus
    from sniper.fetch import download
    from sniper.integrations.from_sahi import from_sahi
    from sniper.integrations.supervision import to_supervision
    from sniper.pipeline.check import check
    from sniper.pipeline.chip_dataset import ChipDataset
    from sniper.pipeline.chip_export import export_chips
    from sniper.pipeline.chips import chip_preview, chip_stats
    from sniper.pipeline.convert import convert
    from sniper.pipeline.evaluate import evaluate
    from sniper.pipeline.export import export
    from sniper.pipeline.from_callable import from_callable
    from sniper.pipeline.learn_classes import add_classes, learn_classes, remove_classes
    from sniper.pipeline.model import load_model
    from sniper.pipeline.plan import plan
    from sniper.pipeline.predict import predict, predict_stream
    from sniper.pipeline.propose import propose
    from sniper.pipeline.runs import runs
    from sniper.pipeline.score import score
    from sniper.pipeline.train import train
    from sniper.recipe import Recipe

__version__ = "0.1.0"

__all__ = [
    "ChipDataset",
    "Recipe",
    "__version__",
    "add_classes",
    "check",
    "chip_preview",
    "chip_stats",
    "convert",
    "download",
    "evaluate",
    "export",
    "export_chips",
    "from_callable",
    "from_sahi",
    "from_torchvision",
    "from_transformers",
    "learn_classes",
    "load_dataset",
    "load_model",
    "plan",
    "predict",
    "predict_stream",
    "propose",
    "remove_classes",
    "runs",
    "score",
    "to_supervision",
    "train",
    "with_focus",
]

_HOMES = {
    "ChipDataset": "sniper.pipeline.chip_dataset",
    "Recipe": "sniper.recipe",
    "add_classes": "sniper.pipeline.learn_classes",
    "check": "sniper.pipeline.check",
    "chip_preview": "sniper.pipeline.chips",
    "chip_stats": "sniper.pipeline.chips",
    "convert": "sniper.pipeline.convert",
    "download": "sniper.fetch",
    "evaluate": "sniper.pipeline.evaluate",
    "export": "sniper.pipeline.export",
    "export_chips": "sniper.pipeline.chip_export",
    "from_callable": "sniper.pipeline.from_callable",
    "from_sahi": "sniper.integrations.from_sahi",
    "from_torchvision": "sniper.detectors.from_torchvision.build",
    "from_transformers": "sniper.detectors.from_transformers.build",
    "learn_classes": "sniper.pipeline.learn_classes",
    "load_dataset": "sniper.data.source",
    "load_model": "sniper.pipeline.model",
    "plan": "sniper.pipeline.plan",
    "predict": "sniper.pipeline.predict",
    "predict_stream": "sniper.pipeline.predict",
    "propose": "sniper.pipeline.propose",
    "remove_classes": "sniper.pipeline.learn_classes",
    "runs": "sniper.pipeline.runs",
    "score": "sniper.pipeline.score",
    "to_supervision": "sniper.integrations.supervision",
    "train": "sniper.pipeline.train",
    "with_focus": "sniper.detectors.with_focus",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import sniper`` alone stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sniper' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

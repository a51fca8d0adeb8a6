"""A shard's work that tells what its process has imported; on its own, for test files import torch themselves."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from sniper.pipeline.processes import in_processes
from sniper.pipeline.watch import Source, Watch, source_of


class LoadedModules(NamedTuple):
    """Satisfies ``shards.ShardJob``."""

    names: tuple[str, ...]

    def make(self, number: int, backend: Any, watch: Watch) -> list[str]:
        """Which of the names are imported where ``backend`` was loaded."""
        return [name for name in self.names if name in sys.modules]


def loaded_by(path: Path) -> list[list[str]]:
    """What of torch two processes import that run the model of a file; and, last, this one."""
    from sniper.pipeline.model import load_model

    job = LoadedModules(("torch", "torchvision", "accelerate", "timm"))
    source: Source = source_of(load_model(path, device="cpu"))
    found = list(in_processes(job, range(2), source, 2, Watch()))
    return [*found, job.make(0, None, Watch())]

"""What the makers of shards share with those who ask for them; without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from sniper.errors import RecipeError
from sniper.inference.backend import Backend
from sniper.pipeline.model import Model
from sniper.recipe import Recipe

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
OnProgress = Callable[[int], None]
OnWindowProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Watch:
    """Whom a shard's maker tells how far it is; it ends by an exception from here where it is to stop."""

    on_progress: OnProgress | None = None  # images more that are done
    on_window_progress: OnWindowProgress | None = None  # windows done and planned, of the images in hand

    def images(self, more: int) -> None:
        """So many more images are done."""
        if self.on_progress:
            self.on_progress(more)

    def windows(self, done: int, planned: int) -> None:
        """Of the images in hand, so many windows are done of so many."""
        if self.on_window_progress:
            self.on_window_progress(done, planned)


class ShardJob(Protocol[Result_co]):
    """What is made of each shard. Other processes get a pickled copy, and make shards of the same numbers."""

    def make(self, number: int, backend: Backend, watch: Watch) -> Result_co:
        """Make one shard, or read what was made of it before."""
        ...


class Source(NamedTuple):
    """Where other processes load their own copy of the network from."""

    checkpoint: Path
    recipe: Recipe
    device: str  # several GPUs are dealt out if it is ``cuda``
    form: Path | None = None  # of an ONNX file
    classes: Path | None = None  # learned classes

    @property
    def is_onnx(self) -> bool:
        """Whether it is an ONNX file, which runs without torch."""
        return self.checkpoint.suffix.lower() == ".onnx"


def source_of(model: Model) -> Source:
    """The source of a loaded model.

    Raises:
        RecipeError: it came from no file, or holds a detector of the caller's own, which others cannot build.
    """
    if model.checkpoint is None:
        raise RecipeError(
            "several processes need a checkpoint that each can load; give the path of one of sniper's own detectors, "
            "or use one process"
        )
    return Source(model.checkpoint, model.recipe, model.device, model.form, model.classes)

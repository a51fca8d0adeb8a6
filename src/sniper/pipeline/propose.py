"""Extract class-free proposals from a dataset: in shards, over several processes, resumable."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from sniper.data.detection_files import join_detections, load_detections, read_details, save_detections
from sniper.data.detections import DetectionTable
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.inference.backend import Backend
from sniper.inference.batches import OnError
from sniper.inference.config import ProposeConfig
from sniper.inference.images import ImageDetections, ImageInput
from sniper.inference.proposing import propose_images
from sniper.pipeline.detect import table_of
from sniper.pipeline.keys import proposals_key
from sniper.pipeline.model import Model
from sniper.pipeline.shards import MAX_SHARD_IMAGES, Parts, make_shards, opened
from sniper.pipeline.sources import BadImage, Skipped, table_images
from sniper.pipeline.tables import Data, table_for
from sniper.pipeline.value_range import files_of, with_value_range
from sniper.pipeline.watch import Watch, source_of
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe
from sniper.training.devices import on_main

SHARD_IMAGES = MAX_SHARD_IMAGES  # of any dataset: the windows that are drawn depend on it

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Proposed:
    """Proposals of a dataset, as a file."""

    path: Path
    detections: DetectionTable
    reused: bool  # the file was there already, made by the same weights from the same data
    skipped: list[tuple[str, str]]  # files that could not be read, with the reason


class Extraction(NamedTuple):
    """All that decides what proposals come out, and where they go. Satisfies ``shards.ShardJob``."""

    table: AnnotationTable
    pyramid: Pyramid
    recipe: Recipe  # how images are cut into windows
    config: ProposeConfig
    output: Path
    key: str  # of data, weights and settings
    on_bad_image: BadImage
    shard_images: int
    seed: int  # of the windows, where not all are run

    @property
    def shards(self) -> range:
        """Numbers of the shards; of a dataset without images there is one."""
        return range(max(1, -(-len(self.table) // self.shard_images)))

    @property
    def parts(self) -> Parts:
        """What is made of each shard. Of how many images it is stands in their names too."""
        return Parts.beside(self.output, f"{self.key[:16]}-{self.shard_images}")

    def make(self, number: int, backend: Backend, watch: Watch) -> None:
        """Write the part of one shard, unless it is there."""
        rows = range(number * self.shard_images, min((number + 1) * self.shard_images, len(self.table)))
        path = self.parts.path(number)
        if (read_details(path) or {}).get("key") != self.key:
            images, skipped = self.table.select(rows), Skipped()

            def on_error(row: int, error: DataError) -> None:
                skipped.handle(str(images.image_path(row)), error, self.on_bad_image)

            whole = self.recipe.inference.whole_megapixels
            pictures = table_images(
                images,
                skipped,
                self.on_bad_image,
                whole_megapixels=whole,
                sample_map=self.recipe.data.sample_map,
            )
            found = list(self._proposals(number, backend, pictures, on_error))
            save_detections(path, table_of(found, images.image_ids), {"key": self.key, "skipped": skipped.files})
        watch.images(len(rows))

    def _proposals(
        self, number: int, backend: Backend, images: Iterator[ImageInput], on_error: OnError
    ) -> Iterator[ImageDetections]:
        """Every window is run, or drawn at random: where small objects may be says nothing about false positives."""
        everywhere = self.recipe.inference.model_copy(update={"focus": None})
        return propose_images(
            backend, images, self.pyramid, everywhere, self.config, seed=self.seed + number, on_error=on_error
        )


def propose(
    checkpoint: Path | str | Model,
    data: Data,
    output: Path | str,
    *,
    split: str | None = None,
    config: ProposeConfig | None = None,
    processes: int = 1,
    by_ranks: bool = False,
    detector: nn.Module | None = None,
    device: str = "auto",
    on_bad_image: BadImage = "stop",
    on_progress: OnProgress | None = None,
) -> Proposed:
    """Write class-free proposals of all images, over all levels, as a detection table (safetensors).

    Extraction goes in parts beside ``output``; one that was stopped or killed goes on where it was, and a file of the
    same weights, data and settings is left as it is.

    Args:
        checkpoint: weights file, run folder, or a model already loaded.
        data: dataset by path (its form is found), a ``DataSource`` that says more, or a table.
        output: file to write, ``.safetensors``.
        split: split of a dataset by path, where it holds several; none: train.
        config: NMS, number and score of proposals; none: the recipe's ``negatives.extraction``.
        processes: work on parts at the same time, each with its own copy of the model; several GPUs are dealt out. A
            script that asks for several must guard its own start by ``if __name__ == "__main__":``.
        by_ranks: share the images with the other processes of this launch (torchrun, accelerate), all of which must
            call this.
        detector: your own detector, for a checkpoint of it, in one process.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        on_bad_image: ``stop`` at an unreadable image, or ``skip`` and list it.
        on_progress: called with the number of images done.

    Raises:
        CheckpointError, DataError, RecipeError, StorageError: what cannot be used.
    """
    model = opened(checkpoint, detector, device, by_ranks=by_ranks)
    source = source_of(model) if processes > 1 else None
    agnostic = model.recipe.data.class_agnostic
    table = table_for(model.class_names, data, split, role="train", on_bad_image=on_bad_image, class_agnostic=agnostic)
    model = replace(model, recipe=with_value_range(model.recipe, files_of(table)))
    config = config or model.recipe.negatives.extraction
    job = extraction(model.digest(), table, model.pyramid, model.recipe, config, output, on_bad_image=on_bad_image)
    if is_done(job):
        if on_progress:
            on_progress(len(table))
        return finish(job, reused=True)
    watch = Watch(on_progress)
    if processes > 1:
        job = job._replace(table=table.share())
    made = make_shards(job, job.shards, model.backend, watch, processes=processes, source=source, by_ranks=by_ranks)
    with closing(made):
        for _ in made:
            pass
    if by_ranks:
        on_main(lambda: finish(job) and None)
    return finish(job)


def extraction(
    weights: str,
    table: AnnotationTable,
    pyramid: Pyramid,
    recipe: Recipe,
    config: ProposeConfig,
    output: Path | str,
    *,
    on_bad_image: BadImage = "stop",
    seed: int = 0,
) -> Extraction:
    """An extraction with the key that says whether a file is its result; ``weights`` is their digest."""
    drawn = {"seed": seed} if config.window_share < 1 else {}
    settings = {"extraction": config.model_dump(mode="json"), "on_bad_image": on_bad_image, **drawn}
    key = proposals_key(recipe, table, weights, settings | {"pyramid": pyramid.model_dump(mode="json")})
    return Extraction(table, pyramid, recipe, config, Path(output), key, on_bad_image, SHARD_IMAGES, seed)


def is_done(job: Extraction) -> bool:
    """Whether the output is there and is this extraction's."""
    return (read_details(job.output) or {}).get("key") == job.key


def extract(
    job: Extraction,
    backend: Backend,
    *,
    share: tuple[int, int] = (0, 1),
    on_progress: OnProgress | None = None,
) -> None:
    """Make the parts that are missing, of every ``share[1]``-th shard from ``share[0]`` on; ``finish`` joins them."""
    for number in job.shards[share[0] :: share[1]]:
        job.make(number, backend, Watch(on_progress))


def finish(job: Extraction, *, reused: bool = False) -> Proposed:
    """Join the parts to the output, or read it if it is there.

    Raises:
        DataError: no image could be read.
    """
    if not is_done(job):
        paths = [job.parts.path(number) for number in job.shards]
        found = join_detections([load_detections(path) for path in paths])
        skipped = [entry for path in paths for entry in (read_details(path) or {})["skipped"]]
        if len(job.table) and not len(found):
            raise DataError(f"none of {len(job.table)} images can be read; the first: {skipped[0][1]}")
        save_detections(job.output, found, {"key": job.key, "count": found.num_objects, "skipped": skipped})
    job.parts.remove()
    details = read_details(job.output) or {}
    return Proposed(job.output, load_detections(job.output), reused, [tuple(entry) for entry in details["skipped"]])

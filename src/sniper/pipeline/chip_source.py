"""The batches that a recipe trains on, epoch by epoch."""

from dataclasses import dataclass, field
from typing import NamedTuple

from sniper.chips.epoch import mine
from sniper.chips.jitter import jittered_images
from sniper.chips.negative import Proposals
from sniper.chips.repeat import repeat_factors, repeated
from sniper.chips.table import ChipTable
from sniper.chips.uniform import uniform_tiles, whole_images
from sniper.data.table import AnnotationTable
from sniper.detectors.traits import promised_traits
from sniper.errors import DataError
from sniper.loader.image_chips import ImageChips
from sniper.loader.stream import ChipLoader
from sniper.pipeline.proposal_feed import ProposalFeed
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe


class _Mined(NamedTuple):
    """Chips, and what they were made from."""

    epoch: int
    proposals: Proposals | None
    chips: ChipTable


@dataclass(frozen=True, slots=True)
class ChipSource:
    """The batches of any epoch, as training asks for them: a pure function of the recipe, the data and the epoch.

    Of the epochs mined, the latest is kept: pictures, counts and batches of one epoch come from one table.
    """

    table: AnnotationTable
    pyramid: Pyramid
    recipe: Recipe
    feed: ProposalFeed | None = None  # proposals for negative chips
    _mined: list[_Mined] = field(default_factory=list, repr=False, compare=False)  # the latest
    _loaders: list[ChipLoader] = field(default_factory=list, repr=False, compare=False)  # the latest
    _skipped: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def proposals(self, epoch: int) -> Proposals | None:
        """What the negative chips of an epoch are made from."""
        return None if self.feed is None else self.feed.at(epoch)

    def chips(self, epoch: int) -> ChipTable:
        """The chips of an epoch."""
        proposals = self.proposals(epoch)
        for mined in self._mined:
            if mined.epoch == epoch and mined.proposals is proposals:
                return mined.chips
        self._mined[:] = [_Mined(epoch, proposals, self._mine(epoch, proposals))]
        return self._mined[0].chips

    def useful_chips(self, epoch: int) -> ChipTable:
        """The chips of an epoch.

        Raises:
            DataError: no object is valid in any of them.
        """
        chips = self.chips(epoch)
        if len(chips.object_rows) == 0:
            raise DataError(
                f"{self.table.root}: nothing can be learned: none of the {self.table.num_objects} objects is "
                "valid at any level; see 'sniper chips stats' or set pyramid.levels to auto"
            )
        return chips

    def cutter(self, epoch: int, *, outlines: bool = False) -> ImageChips:
        """What cuts the chips of an epoch, image by image; for others than ``ChipLoader``."""
        recipe = self.recipe
        return ImageChips(
            self.table,
            self.useful_chips(epoch),
            recipe.augment,
            whole_pixels=recipe.loader.whole_megapixels * 1e6,
            seed=recipe.train.seed,
            epoch=epoch,
            outlines=outlines,
            expand_classes=recipe.sampler.expand_classes,
            sample_map=recipe.data.sample_map,
        )

    def epoch(self, epoch: int, first_batch: int, rank: int, world_size: int) -> ChipLoader:
        """Batches of an epoch for one process."""
        chips = self.useful_chips(epoch)
        self.skipped()
        self._loaders[:] = [self._loader(chips, epoch, first_batch, rank, world_size)]
        return self._loaders[0]

    def skipped(self) -> list[tuple[str, str]]:
        """Files that could not be read so far, with the reason of each."""
        for loader in self._loaders:
            self._skipped.update(loader.skipped)
        return list(self._skipped.items())

    def _mine(self, epoch: int, proposals: Proposals | None) -> ChipTable:
        sampler, seed = self.recipe.sampler, self.recipe.train.seed
        chips = self._mine_once(epoch, proposals)
        if sampler.repeat_below is None:
            return chips
        factors = repeat_factors(self.table, sampler.repeat_below)
        return repeated(chips, factors, self.table.image_ids, seed=seed, epoch=epoch)

    def _mine_once(self, epoch: int, proposals: Proposals | None) -> ChipTable:
        sampler, seed = self.recipe.sampler, self.recipe.train.seed
        images = jittered_images(self.table, self.pyramid, sampler.scale_jitter, seed=seed, epoch=epoch)
        if sampler.method == "chips":
            return mine(
                self.table,
                self.pyramid,
                self.recipe.chips,
                seed=seed,
                epoch=epoch,
                proposals=proposals,
                negatives=self.recipe.negatives,
                scaled_images=images,
            )
        if sampler.method == "whole":
            return whole_images(self.table, images)
        return uniform_tiles(self.table, images, overlap=sampler.tile_overlap, min_visible=sampler.tile_min_visible)

    def _loader(self, chips: ChipTable, epoch: int, first_batch: int, rank: int, world_size: int) -> ChipLoader:
        return ChipLoader(
            self.table,
            chips,
            self.recipe.loader,
            self.recipe.augment,
            seed=self.recipe.train.seed,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            first_batch=first_batch,
            outlines=promised_traits(self.recipe.model).predicts_masks,
            expand_classes=self.recipe.sampler.expand_classes,
            sample_map=self.recipe.data.sample_map,
        )

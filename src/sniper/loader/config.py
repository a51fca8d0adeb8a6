"""Settings of the loader; without torch."""

import os
import sys
from typing import Annotated, Literal

from pydantic import Field

from sniper.settings import Config

FORKS = sys.platform == "linux"  # forked workers see the tables of this process without copies


class LoaderConfig(Config):
    """How chips reach the detector."""

    batch_size: int = Field(16, gt=0, description="chips of a batch on each device")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="processes that decode and cut; 0: this one does; auto: by the number of cores"
    )
    shuffle_chips: int = Field(
        512,
        gt=0,
        description="chips that the shuffle buffer holds on each device, 0.8 MB each; fewer if larger than 512 px",
    )
    whole_megapixels: float = Field(
        64,
        ge=0,
        description="image files that decode to more are read by windows; a worker holds one image of up to so many",
    )
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop", description="at an image that cannot be read: stop, or go on with other chips and list it"
    )

    @property
    def shares_table(self) -> bool:
        """Whether workers would each get a copy of the annotation table, unless it is shared through a file."""
        return not FORKS and worker_count(self.workers) > 0


def worker_count(workers: int | Literal["auto"], world_size: int = 1) -> int:
    """Worker processes of one rank; auto is none on one or two cores, else the rank's cores, up to 8."""
    if workers != "auto":
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores <= 2 else min(8, cores // world_size)


class AugmentConfig(Config):
    """How chips are varied in training. Colours change as in torchvision; each change is off at 0."""

    horizontal_flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring left and right")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="probability of mirroring top and bottom")
    rotate90: float = Field(
        0.0, ge=0, le=1, description="probability of a quarter, half or three-quarter turn; for images without an up"
    )
    brightness: float = Field(0.0, ge=0, description="brightness is multiplied by 1 -/+ up to this")
    contrast: float = Field(0.0, ge=0, description="contrast is multiplied by 1 -/+ up to this")
    saturation: float = Field(0.0, ge=0, description="saturation is multiplied by 1 -/+ up to this")
    hue: float = Field(0.0, ge=0, le=0.5, description="hue is shifted by up to this, as a share of the colour circle")

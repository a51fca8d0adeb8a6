"""Settings of inference: windows, AutoFocus, merging, proposals; without numba."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from sniper.settings import Config

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Share = Annotated[float, Field(ge=0, le=1)]


class AutoFocusConfig(Config):
    """Where finer levels are run. Higher thresholds and smaller budgets are faster and find less."""

    threshold: Share | tuple[Share, ...] = Field(
        0.1,
        description="the next finer level covers cells with at least this focus probability; several: one for each "
        "step, coarsest first, the last for all others; 0 covers everything",
    )
    pixel_budget: float | None = Field(
        None,
        gt=0,
        le=1,
        description="bound on the pixels of an image, as a share of its full pyramid, best regions first",
    )
    chips: Literal["cheapest", "joined"] = Field(
        "cheapest",
        description="cheapest: chips may overlap, and become one only where that costs no more pixels; joined: chips "
        "that overlap or touch become one (the original)",
    )
    dilation: int = Field(
        1, ge=1, description="odd; cells within dilation // 2 of such a cell are covered too (the original: 3)"
    )
    min_chip_px: int = Field(
        128, ge=1, description="smallest side of a focus chip, network px of the level that is run on it"
    )
    prune_cells: float = Field(
        0.5, ge=0, description="detections this close to a chip's border are cut, cells of the level before"
    )

    @field_validator("dilation")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"dilation is an odd number of cells, not {value}")
        return value

    @field_validator("threshold")
    @classmethod
    def _at_least_one(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if value == ():
            raise ValueError("threshold needs at least one number")
        return value

    @property
    def looks_everywhere(self) -> bool:
        """Whether this is plain multi-scale inference."""
        thresholds = self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)
        return self.pixel_budget is None and not any(thresholds)

    def threshold_of(self, step: int) -> float:
        """The threshold of a step, the coarsest level's being number 0."""
        if isinstance(self.threshold, tuple):
            return self.threshold[min(step, len(self.threshold) - 1)]
        return self.threshold


class MergeConfig(Config):
    """How detections of one class that overlap are reduced, and how many an image keeps."""

    method: Literal["soft_gaussian", "soft_linear", "hard"] = Field(
        default="soft_gaussian",
        description="what happens to a box overlapping a better one: score times exp(-IoU^2 / sigma), score times "
        "(1 - IoU) above iou_threshold, or dropped above iou_threshold",
    )
    sigma: float = Field(
        default=0.55, gt=0, description="width of the Gaussian in IoU^2 (soft_gaussian); smaller is harder"
    )
    iou_threshold: float = Field(
        default=0.5, ge=0, le=1, description="IoU above which a box is lowered or dropped (others)"
    )
    score_threshold: float = Field(
        default=0.001, ge=0, description="a box whose score is lowered below this is dropped"
    )
    max_per_image: int | None = Field(
        default=300, ge=1, description="best detections kept per image, all classes; null = all"
    )
    full_megapixels: float | None = Field(
        default=4.0,
        gt=0,
        description="larger images keep proportionally more than max_per_image: twice the area, twice as many; null = "
        "never more",
    )

    def caps(self, sizes_wh: "NDArray[np.integer]") -> "NDArray[np.int64] | None":
        """(I,) bounds on the detections of images of (I, 2) px; None: all."""
        if self.max_per_image is None:
            return None
        import numpy as np  # here, as reading a recipe imports this module

        megapixels = np.asarray(sizes_wh, np.float64).reshape(-1, 2).prod(axis=1) / 1e6
        more = np.ones(len(megapixels)) if self.full_megapixels is None else megapixels / self.full_megapixels
        return np.ceil(self.max_per_image * np.maximum(more, 1)).astype(np.int64)


class ProposeConfig(Config):
    """How proposals are extracted."""

    nms_iou: float = Field(0.7, gt=0, le=1, description="IoU above which the weaker of two proposals goes, all levels")
    max_per_image: int | None = Field(None, ge=1, description="best proposals kept of an image; null: all")
    min_score: float = Field(0.0, ge=0, le=1, description="proposals with a lower score are dropped")
    boxes: Literal["proposals", "detections"] = Field(
        "proposals", description="what is asked for: class-free proposals, or finished detections, classes dropped"
    )
    window_share: float = Field(
        1.0, gt=0, le=1, description="chance of each window of the pyramid to be run; below 1 for large data sets"
    )


class InferenceConfig(Config):
    """How images are cut into windows and their detections merged."""

    window_px: int = Field(
        1536, ge=128, description="scaled images with a longer side are cut into windows, network px"
    )
    overlap: float = Field(
        0.2, ge=0, lt=0.9, description="smallest share of a window that neighbouring windows have in common"
    )
    batch_pixels: int = Field(4 * 1024 * 1024, gt=0, description="padded pixels in one batch; one input always fits")
    images_in_flight: int = Field(8, ge=1, description="images batched together; fewer where they are large")
    whole_megapixels: float = Field(64, ge=0, description="image files with more are read by windows")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="arithmetic of the network")
    merge: MergeConfig = Field(MergeConfig(), description="range filter, NMS and cap")
    focus: AutoFocusConfig | None = Field(
        None, description="run finer levels only where small objects may be; null: everywhere"
    )
    reject_below: float | None = Field(
        None, ge=0, le=1, description="learned classes: less probable ones are rejected; null: as learning has set it"
    )

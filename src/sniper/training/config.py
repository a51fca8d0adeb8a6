"""The settings of a training run."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sniper.settings import Config


class TrainConfig(Config):
    """How long, how fast and how exactly to train.

    Exactly one of ``epochs``, ``steps`` and ``minutes`` is the length; naming ``steps`` or ``minutes`` switches the
    default of seven epochs off. A *step* is one update of the weights, from ``accumulate`` batches.
    """

    epochs: float | None = Field(
        default=None, gt=0, description="length in epochs of the chip source; 7 when no length is given"
    )
    steps: int | None = Field(default=None, gt=0, description="length in updates of the weights")
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="length in minutes of training (evaluation and extraction of proposals not counted); the schedule "
        "follows the clock, so two runs are never equal",
    )

    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="SGD with momentum, or AdamW")
    learning_rate: float = Field(
        default=0.015,
        gt=0,
        description="peak learning rate, of the mean gradient of all chips of one step",
    )
    rate_batch: int | None = Field(
        default=None,
        ge=1,
        description="chips a step (batch size, times accumulate, times processes) that learning_rate is for; with "
        "others it is scaled: in proportion for sgd, by the square root for adamw; null: never, as for a rate set by "
        "hand",
    )
    rate_factors: dict[str, float] = Field(
        default_factory=dict,
        description="share of the learning rate for some parameters, by the beginning of their names: head.classes: 2",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, first beta of AdamW")
    momentum_of: Literal["gradients", "steps"] = Field(
        default="gradients",
        description="what SGD remembers: gradients (PyTorch: a drop of the rate shrinks past ones too), or steps "
        "(MXNet, the original: it acts on new gradients only)",
    )
    weight_decay: float = Field(default=1e-4, ge=0, description="L2 penalty (SGD) or decoupled decay (AdamW)")
    decay: Literal["weights", "weights and norms"] = Field(
        default="weights",
        description="what decays: weights of convolutions and linear layers, or these and the scales of normalisation "
        "layers as in the original SNIPER; biases never",
    )

    warmup_steps: int = Field(default=1000, ge=0, description="steps over which the learning rate rises linearly")
    warmup_start: float = Field(default=1 / 30, ge=0, le=1, description="share of the learning rate at the first step")
    warmup_max_share: float = Field(
        default=0.1, ge=0, le=1, description="share of the run that warm-up may take, for short runs"
    )
    schedule: Literal["steps", "cosine"] = Field(
        default="steps", description="drops at step_at, or a cosine down to zero"
    )
    step_at: tuple[float, ...] = Field(
        (0.76,), description="shares of the run, each in (0, 1), at which the rate drops"
    )
    step_factor: float = Field(default=0.1, gt=0, le=1, description="factor of each drop")

    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="arithmetic; fp16 needs a GPU")
    accumulate: int = Field(default=1, ge=1, description="batches whose mean gradient makes one step")
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest norm of the whole gradient; none: not clipped"
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay per step of a running average of the weights, which is then evaluated",
    )
    channels_last: bool = Field(default=True, description="keep images and convolution weights in NHWC order")
    compile: bool = Field(default=False, description="torch.compile the networks that the detector is made of")
    device: Literal["auto", "cpu"] = Field(default="auto", description="the best device there is, or the CPU")
    unused_parameters: bool = Field(
        default=False, description="several processes only: some weights get no gradient in some steps (slower)"
    )

    evaluate_every: float | None = Field(
        default=None, gt=0, description="epochs between evaluations; none: only at the end"
    )
    best_metric: str = Field(
        default="AP",
        description="evaluation result that chooses the best checkpoint, higher is better; without the coco protocol, "
        "that of the first one: VOC_AP50, OID_AP50 or WIDER_hard",
    )
    patience: int | None = Field(default=None, ge=1, description="stop after so many evaluations without a new best")
    checkpoint_every_minutes: float | None = Field(
        default=10.0, gt=0, description="minutes of training between checkpoints"
    )
    checkpoint_every_steps: int | None = Field(
        default=None, ge=1, description="steps between checkpoints, besides the minutes"
    )
    log_every: int = Field(default=20, ge=1, description="steps between rows of metrics.csv")
    tensorboard: bool = Field(default=True, description="write TensorBoard events too")
    seed: int = Field(default=0, ge=0, description="seed of everything random in the loop and in the detector's losses")

    @model_validator(mode="before")
    @classmethod
    def _seven_epochs_unless_told(cls, given: object) -> object:
        if isinstance(given, dict) and all(given.get(length) is None for length in ("epochs", "steps", "minutes")):
            return {**given, "epochs": 7.0}
        return given

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one length, epochs or steps or minutes, got {' and '.join(given)}; set the others to null"
            )
        if any(not 0 < at < 1 for at in self.step_at):
            raise ValueError(f"step_at {self.step_at} are shares of the run, each between 0 and 1")
        if any(factor <= 0 for factor in self.rate_factors.values()):
            raise ValueError(f"rate_factors {self.rate_factors}: every factor must be positive")
        if self.momentum_of == "steps" and (self.optimizer != "sgd" or self.schedule != "steps"):
            raise ValueError("momentum_of: steps goes with optimizer: sgd and schedule: steps")
        if self.momentum_of == "steps" and self.warmup_steps and self.warmup_start == 0:
            raise ValueError("momentum_of: steps needs a warmup_start above 0")
        return self

"""A plan: what ``plan.plan`` found out, as plain values, tables and sentences."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sniper.chips.stats import Cells, Coverage
from sniper.chips.verdict import Verdict
from sniper.evaluation.size_response import SizeResponse
from sniper.pipeline.budget import MEASURED, Budget
from sniper.pipeline.ways import Way
from sniper.recipe import Recipe
from sniper.training.calibration import Calibration

QUANTILES = (0.02, 0.1, 0.5, 0.9, 0.98)  # of object sizes


class PlannedLevel(NamedTuple):
    """One level, and the objects that are learned there."""

    scale: str
    range_px: tuple[float, float]  # original px, may be inf
    share: float  # of the objects
    chips: int  # of an epoch
    network_px: tuple[float, ...]  # ``QUANTILES`` of the sizes there; none where nothing is learned


@dataclass(frozen=True, slots=True)
class Plan:
    """What training on a dataset looks at, costs and takes."""

    recipe: Recipe  # resolved
    derived: bool  # the levels are derived from the dataset, and not given by the recipe
    object_px: float  # size that derived levels bring objects to, network px
    seen_px: tuple[float, float]  # sizes that count as seen, network px
    coverage: Coverage
    sizes_px: tuple[float, ...]  # ``QUANTILES`` of the sizes of all objects, original px
    levels: tuple[PlannedLevel, ...]
    ways: tuple[Way, ...]  # chips first
    verdict: Verdict
    settings: tuple[str, ...]  # ``a.b=c`` that follow the verdict
    bounds: tuple[str, ...]  # sentences on bounds that hide objects of crowded images
    response: SizeResponse | None  # of a checkpoint to sizes
    calibration: Calibration | None
    not_calibrated: str | None  # the reason
    budgets: tuple[Budget, ...]  # this machine, then GPUs

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        levels = self.recipe.model_dump(mode="json")["pyramid"]["levels"]
        return {
            "verdict": {**self.verdict._asdict(), "settings": list(self.settings)},
            "bounds": list(self.bounds),
            "levels": [
                {**given, "share": one.share, "chips": one.chips, "network_px": list(one.network_px)}
                for given, one in zip(levels, self.levels, strict=True)
            ],
            "levels_derived": self.derived,
            "quantiles": list(QUANTILES),
            "sizes_px": list(self.sizes_px),
            "seen_px": list(self.seen_px),
            "coverage": self.coverage.as_dict(),
            "response": None if self.response is None else self._response_dict(self.response),
            "ways": [way._asdict() for way in self.ways],
            "calibration": None if self.calibration is None else self.calibration._asdict(),
            "not_calibrated": self.not_calibrated,
            "budgets": [budget.as_dict() for budget in self.budgets],
        }

    def tables(self) -> list[tuple[str, list[str], Cells]]:
        """Title, columns and rows of each table."""
        levels = [
            [one.scale, _range(one.range_px), f"{one.share:.1%}", _sizes(one.network_px), str(one.chips)]
            for one in self.levels
        ]
        low, high = self.seen_px
        ways = [
            [way.name, f"{way.train_megapixels:,.1f}", f"{way.test_megapixels:,.2f}", f"{way.seen:.1%}"]
            for way in self.ways
        ]
        marks = " / ".join(f"{100 * q:g}" for q in QUANTILES)
        tables = [
            (
                f"Levels (chips of {self.coverage.chip_px} px)",
                ["scale", "valid range, px", "objects", f"their network px, {marks} %", "chips / epoch"],
                levels,
            ),
            ("Ways of training", ["", "Mpx / epoch", "Mpx / test image", f"objects of {low:g}-{high:g} px"], ways),
        ]
        if self.response is not None:
            points = [[f"{one.network_px:.0f}", f"{one.share:.0%}", str(one.objects)] for one in self.response.curve()]
            tables.append(("How well the checkpoint sees a size", ["network px", "of its best AP", "objects"], points))
        if self.budgets:
            columns = ["", "chips/step", "s/step", "steps/epoch", "GB", "epochs", "minutes"]
            tables.append(("Time and memory", columns, [_row(budget) for budget in self.budgets]))
        return tables

    def sentences(self) -> list[str]:
        """What the tables leave unsaid, the verdict last."""
        said = [self._levels_sentence(), self._coverage_sentence(), *self.bounds, self._calibration_sentence()]
        if self.response is not None:
            said.insert(0, _response_sentence(self.response))
        for budget in self.budgets:
            if budget.basis != MEASURED:
                said.append(f"{budget.where}: {budget.basis}")
            if budget.largest_batch == 0:
                said.append(f"{budget.where}: not a single chip fits into the memory; choose a smaller model.backbone")
            elif budget.largest_batch is not None:
                said.append(f"{budget.where}: batches of up to {budget.largest_batch} chips fit into the memory")
        advice = "".join(f" --set '{setting}'" for setting in self.settings)
        return [*said, self.verdict.sentence + (f"; options:{advice}" if advice else "")]

    @staticmethod
    def _response_dict(response: SizeResponse) -> dict[str, Any]:
        return {
            "comfortable_px": response.comfortable_px,
            "curve": [point._asdict() for point in response.curve()],
            "bins": [one._asdict() for one in response.bins],
        }

    def _levels_sentence(self) -> str:
        ratio = self.sizes_px[-1] / max(self.sizes_px[0], 1e-9)
        sizes = ", ".join(f"{100 * q:g} %: {size:.0f}" for q, size in zip(QUANTILES, self.sizes_px, strict=True))
        how = (
            f"levels: auto covers them with {len(self.levels)}, each of which brings the middle of its sizes towards "
            f"{self.object_px:g} network px{self._economy()}"
            if self.derived
            else f"the recipe gives {len(self.levels)} levels"
        )
        return f"object sizes (sqrt of area), px, by quantile: {sizes}; the last is {ratio:.1f} times the first; {how}"

    def _economy(self) -> str:
        economy = self.recipe.pyramid.economy
        return f", or less: pyramid.economy gives up at most {economy:.0%} of the AP expected there" if economy else ""

    def _coverage_sentence(self) -> str:
        none, one, several = self.coverage.valid_in
        return (
            f"expected coverage: {self.coverage.covered:.1%} of the objects of 2 px and more are learned at some level "
            f"({one:.1%} of all at one, {several:.1%} at several, {none:.1%} at none)"
        )

    def _calibration_sentence(self) -> str:
        if self.calibration is None:
            return f"no times: {self.not_calibrated}"
        known = self.calibration
        scaled = ""
        if known.measured_chips < known.batch_chips:
            chips = "1 chip" if known.measured_chips == 1 else f"{known.measured_chips} chips"
            scaled = f" of {chips}, from which those of {known.batch_chips} are extrapolated"
        steps = "1 step" if known.measured_steps == 1 else f"{known.measured_steps} steps"
        return f"times are from {steps}{scaled} on {known.device}; {known.waiting_share:.0%} was waiting for chips"


def _response_sentence(response: SizeResponse) -> str:
    seen = response.comfortable_px
    if seen is None:
        return (
            "what size the checkpoint needs cannot be told, for want of objects that it finds: levels are derived as "
            "without it"
        )
    return (
        f"the checkpoint sees objects of {seen:.0f} network px as well as larger ones, within 5 % of the AP that they "
        "have at their best scale: more zoom buys nothing"
    )


def _row(budget: Budget) -> list[str]:
    return [
        budget.where,
        str(budget.chips_a_step),
        f"{budget.step_s:.3g}",
        str(budget.length.steps_an_epoch),
        f"{budget.memory_mb / 1024:.1f}",
        f"{budget.length.epochs:,.1f}",
        f"{budget.length.minutes:,.1f}",
    ]


def _range(range_px: tuple[float, float]) -> str:
    low, high = range_px
    return f"{low:g} and up" if high == float("inf") else f"{low:g} to {high:g}"


def _sizes(quantiles: tuple[float, ...]) -> str:
    return " / ".join(f"{size:.0f}" for size in quantiles) or "-"

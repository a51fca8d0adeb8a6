"""The end of a run: what a finished run must have follows from its state, so a run that was killed here is finished
when it goes on, and finishing twice changes nothing."""

import json
from pathlib import Path

from sniper.files import write_bytes, write_text
from sniper.pipeline.chip_source import ChipSource
from sniper.pipeline.evaluate import RESULTS, Evaluation, save_evaluation
from sniper.pipeline.run_page import PAGE, write_run_page
from sniper.pipeline.training_evaluation import TrainingEvaluation
from sniper.report.curves import draw_training_curves
from sniper.training.devices import on_main
from sniper.training.loop import TrainResult, evaluating
from sniper.training.run import RunFolder


def finish(
    run: RunFolder, source: ChipSource, result: TrainResult, evaluation: TrainingEvaluation | None
) -> Evaluation | None:
    """Write what the folder of a run has beside its checkpoints. Every process of the launch calls this.

    The recipe not before: one that the state does not fit must not spoil the folder. A finished run whose results are
    not those of its last step is evaluated again. Returns the latest evaluation that this process knows.

    Raises:
        StorageError: the folder cannot be written.
        DataError: an image that the evaluation needs cannot be read.
    """
    unmeasured = evaluation is not None and evaluation.latest is None and result.finished
    if evaluation is not None and unmeasured and not on_main(lambda: _has_results_of(run.path, result.step)):
        with evaluating(result.evaluated):
            evaluation.evaluate(result.evaluated)
    latest = None if evaluation is None else evaluation.latest
    on_main(lambda: _write(run, source, result, evaluation))
    return latest


def _has_results_of(folder: Path, step: int) -> bool:
    """Whether all results are there and of this step. The numbers are written last, and name it."""
    if not all((folder / name).is_file() for name in (*RESULTS, PAGE)):
        return False
    try:
        return bool(json.loads((folder / RESULTS[-1]).read_text(encoding="utf-8")).get("step") == step)
    except (ValueError, AttributeError):
        return False  # somebody else's file


def _write(run: RunFolder, source: ChipSource, result: TrainResult, evaluation: TrainingEvaluation | None) -> None:
    write_text(run.recipe, source.recipe.to_yaml())
    if run.metrics.is_file():
        write_bytes(run.path / "curves.png", draw_training_curves(run.metrics))
    if evaluation is None:
        write_run_page(run, source, result, None, None)
    elif evaluation.latest is not None:
        write_run_page(run, source, result, evaluation.latest, evaluation.table)
        save_evaluation(evaluation.latest, evaluation.table, run.path, step=result.step)
    elif not result.finished:  # else all is there
        write_run_page(run, source, result, None, evaluation.table)

"""From an ONNX file to a network ready to run, without torch: one that ``sniper export`` wrote, or any with a form."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sniper.backends.onnx.foreign import ForeignOnnxBackend
from sniper.backends.onnx.form import OnnxForm, form_file, read_form, shipped_forms
from sniper.backends.onnx.own import OnnxBackend
from sniper.backends.onnx.session import Session
from sniper.backends.onnx.strategy import KEY, Strategy
from sniper.errors import CheckpointError, RecipeError
from sniper.pipeline.model import Model
from sniper.recipe import Recipe


def load_onnx(
    path: Path, device: str, recipe: Recipe | None, form: Path | str | None, overrides: Iterable[str] = ()
) -> Model:
    """The model of an ONNX file; arguments and errors are those of ``pipeline.model.load_model``."""
    session = Session(path, device)
    written = session.metadata.get(KEY)
    place = form_file(path, form) if written is None or form is not None else None
    if written is not None and place is not None:
        raise RecipeError(f"{path} was written by sniper export and says itself what it is; leave out the form {place}")
    if written is not None:
        return _own(session, written, recipe, overrides)
    if place is None:
        raise CheckpointError(
            f"{path} was not written by sniper export and has no form beside it ({path.with_suffix('.yaml').name}), so "
            f"what it takes and gives is unknown; describe it in a YAML file, or name a shipped form "
            f"({', '.join(shipped_forms())})"
        )
    return _foreign(session, read_form(place), place, recipe, overrides)


def _own(session: Session, written: str, recipe: Recipe | None, overrides: Iterable[str]) -> Model:
    try:
        strategy = Strategy.model_validate_json(written)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"{session.path} says things of itself that this sniper cannot read "
            f"({'.'.join(map(str, first['loc']))}: {first['msg']}); export it again with this version"
        ) from error
    recipe = (recipe or _recipe_of(strategy, session.path)).changed(overrides)
    if strategy.side_px is not None and recipe.inference.window_px > strategy.side_px:
        raise RecipeError(
            f"inference.window_px is {recipe.inference.window_px}, but {session.path} was written for inputs of "
            f"{strategy.side_px} px; set it to {strategy.side_px} or less, or export again with a larger one"
        )
    return Model(
        OnnxBackend(session, strategy),
        recipe,
        strategy.class_names,
        strategy.class_ids,
        checkpoint=session.path,
        draw_scores=strategy.draw_scores,
        device=session.device,
        weights_digest=lambda: _digest(session.path),
    )


def _recipe_of(strategy: Strategy, path: Path) -> Recipe:
    model = {
        "kind": "custom",
        "name": strategy.detector,
        "stride": strategy.stride,
        "comfortable_px": strategy.comfortable_px,
        "focus": strategy.focus_stride is not None,
    }
    parts = {"model": model, "pyramid": strategy.pyramid, "inference": strategy.inference, "data": strategy.data}
    return Recipe.parse(parts, f"settings inside {path}")


def _foreign(session: Session, form: OnnxForm, place: Path, recipe: Recipe | None, overrides: Iterable[str]) -> Model:
    backend = ForeignOnnxBackend(session, form, str(place))
    side = None if backend.size_hw is None else min(backend.size_hw)
    settings: dict[str, Any] = {
        "model": {"kind": "custom", "name": session.path.stem},
        "pyramid": form.pyramid or {"levels": [{"scale": 1.0} if side is None else {"long_px": side}]},
        "inference": ({} if side is None else {"window_px": side}) | form.inference,
    }
    settings["pyramid"] = {"chip_px": 512} | settings["pyramid"]
    recipe = (recipe or Recipe.parse(settings, str(place))).changed(overrides)
    if side is not None and recipe.inference.window_px > side:
        raise RecipeError(
            f"{place}: inference.window_px is {recipe.inference.window_px}, but the input of {session.path} is "
            f"{list(backend.size_hw or ())}; set it to {side} or less"
        )
    if recipe.pyramid.levels == "auto":
        raise RecipeError(f"{place}: pyramid.levels cannot be auto for a detector from elsewhere; list the levels")
    ids = form.class_ids or tuple(range(1, len(form.classes) + 1))
    return Model(
        backend,
        recipe,
        form.classes,
        ids,
        checkpoint=session.path,
        device=session.device,
        weights_digest=lambda: _digest(session.path, form.model_dump_json()),
        form=place,
    )


def _digest(path: Path, form: str = "") -> str:
    """SHA-256 of a file and its form."""
    digest = hashlib.sha256(form.encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

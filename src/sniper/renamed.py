"""Settings under the names of the version before, read for this version: in YAML, in ``--set`` and in checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sniper.errors import RecipeError
from sniper.settings import set_value

# Former dotted name: the last part of the present one. An entry of a list is a *. Settings of the 2018 detectors are
# under model here: they are moved there first.
_NAMES = {
    "evaluation.most_detections": "max_detections",
    "model.beyond": "dilation",
    "model.detections_per_canvas": "max_detections",
    "model.focus_cells.least_px": "min_px",
    "model.focus_labels.least_px": "min_px",
    "model.maps": "feature_levels",
    "negatives.extraction.top": "max_per_image",
    "negatives.least": "min_proposals",
    "negatives.least_finest": "min_proposals_finest",
    "negatives.most_per_positive": "max_per_positive",
    "negatives.top": "max_proposals",
    "pyramid.levels.*.factor": "scale",
    "pyramid.levels.*.most_zoom": "max_scale",
    "pyramid.max_zoom": "max_scale",
    "train.warmup_at_most": "warmup_max_share",
}

_VALUES = {
    "train.best_metric": {"AP_most": "AP_maxdets", "AP50_most": "AP50_maxdets", "AR_most": "AR_maxdets"},
}

_ORIGINAL = "original"  # a section of its own before; now a kind of model


class Rename(NamedTuple):
    """One name that was changed."""

    former: str  # dotted
    now: str

    def __str__(self) -> str:
        return f"{self.former} is now {self.now}"


class Renamed(NamedTuple):
    """Settings under their present names."""

    settings: dict[str, Any]
    changes: list[Rename]


def with_present_names(settings: Mapping[str, Any]) -> Renamed:
    """The settings with every former name replaced; what is given stays as it is.

    ``original: {...}`` becomes ``model`` with ``kind: original``, in place of whatever ``model`` held: it had no say.

    Raises:
        RecipeError: a setting is there under both of its names.
    """
    changes: list[Rename] = []
    settings = dict(settings)
    original = settings.pop(_ORIGINAL, None)
    if original is not None:
        settings["model"] = {"kind": _ORIGINAL} | dict(original) if isinstance(original, Mapping) else original
        changes.append(Rename(_ORIGINAL, "model with kind: original"))
    return Renamed(_in_mapping(settings, (), changes), changes)


def set_by_any_name(settings: dict[str, Any], override: str) -> Rename | None:
    """Apply one ``a.b=c`` whose key may be a former name, to settings that have present ones; the rename, if it was.

    Raises:
        RecipeError: as ``sniper.settings.set_value``.
    """
    key, equals, text = override.partition("=")
    former = key.strip().split(".")
    of_original = former[0] == _ORIGINAL and bool(equals)
    now = ["model", *former[1:]] if of_original else former
    now = [*now[:-1], _NAMES.get(_pattern(now), now[-1])]
    if not of_original:
        set_value(settings, f"{'.'.join(now)}={text}" if now != former else override)
        return Rename(".".join(former), ".".join(now)) if now != former else None
    # The section as it was, changed and moved again.
    model = settings.get("model")
    if isinstance(model, dict) and model.get("kind") == _ORIGINAL:
        settings[_ORIGINAL] = {name: value for name, value in model.items() if name != "kind"}
        del settings["model"]
    set_value(settings, f"{'.'.join([_ORIGINAL, *now[1:]])}={text}")
    moved = with_present_names(settings).settings
    settings.clear()
    settings.update(moved)
    return Rename(".".join(former), f"{'.'.join(now)} with model.kind=original")


def _in_mapping(settings: Mapping[str, Any], place: tuple[str, ...], changes: list[Rename]) -> dict[str, Any]:
    fresh: dict[str, Any] = {}
    for key, value in settings.items():
        former = (*place, str(key))
        now = _NAMES.get(_pattern(former), key)
        if now != key:
            change = Rename(".".join(former), ".".join((*place, now)))
            if now in settings:
                raise RecipeError(f"{change}, and both are set; remove {change.former}")
            changes.append(change)
        fresh[now] = _in_value(value, (*place, str(now)), changes)
    return fresh


def _in_value(value: Any, place: tuple[str, ...], changes: list[Rename]) -> Any:
    if isinstance(value, Mapping):
        return _in_mapping(value, place, changes)
    if isinstance(value, list | tuple):
        return [_in_value(entry, (*place, str(number)), changes) for number, entry in enumerate(value)]
    now = _VALUES.get(_pattern(place), {}).get(value) if isinstance(value, str) else None
    if now is None:
        return value
    changes.append(Rename(f"{'.'.join(place)}: {value}", now))
    return now


def _pattern(place: Sequence[str]) -> str:
    return ".".join("*" if part.isdecimal() else part for part in place)

"""The base of every settings model, YAML as people write it, ``a.b=c`` on top, and errors as one sentence."""

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from sniper.errors import RecipeError


class Config(BaseModel):
    """Settings of one part. Each part's model lives beside the code it configures."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class _Loader(yaml.SafeLoader):
    """YAML, except that 1e-4 is a number, as a person means it and YAML 1.2 says; 1.1 wants a point and a sign."""


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Any:
    """The values of a YAML text.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, _Loader)


def set_value(settings: dict[str, Any], override: str) -> str:
    """Apply one ``a.b=c``, the value read as YAML; entries of lists are numbered from 0. Returns the key.

    Raises:
        RecipeError: it has another form, or names an entry that a list does not have.
    """
    key, equals, text = override.partition("=")
    key = key.strip()
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise RecipeError(f"--set {override}: expected KEY=VALUE, for example train.learning_rate=0.01")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: {text!r} is not a YAML value; quote it") from error
    place: Any = settings
    for parent in parents:
        inner = place[_entry(place, parent, override)] if isinstance(place, list) else place.get(parent)
        if not isinstance(inner, dict | list):
            inner = {}
            place[_entry(place, parent, override)] = inner
        place = inner
    place[_entry(place, last, override)] = value
    return key


def _entry(place: dict[str, Any] | list[Any], part: str, override: str) -> Any:
    """The key, or the number of a list's entry, that one part of a dotted name means."""
    if isinstance(place, dict):
        return part
    if not part.isdecimal() or int(part) >= len(place):
        raise RecipeError(f"--set {override}: there is no entry {part!r} in a list of {len(place)}, numbered from 0")
    return int(part)


def sentence(model: type[BaseModel], settings: Mapping[str, Any], error: ValidationError) -> str:
    """The first problem of a validation as one sentence."""
    problems = [(_place(settings, problem), problem) for problem in error.errors()]
    # A value that may be one thing or another is refused by each: the deepest place tells what was meant.
    start = problems[0][0]
    deepest = max((place for place, _ in problems if place[: len(start)] == start), key=len)
    alternatives = [problem for place, problem in problems if place == deepest]
    first, dotted = alternatives[0], ".".join(deepest)
    if first["type"] == "extra_forbidden":
        return f"{dotted} is not a setting; {_hint(model, deepest)}"
    if first["type"] == "value_error":
        return f"{dotted}: {first['msg'].removeprefix('Value error, ')}"
    wishes = " or ".join(_wish(problem["msg"]) for problem in alternatives)
    got = repr(first["input"])
    return f"{dotted}: expected {wishes}, got {got if len(got) <= 80 else got[:77] + '...'}"


def _wish(message: str) -> str:
    """What pydantic would have liked to see, in words that are not about Python."""
    for pattern, words in (
        (r"^Input should be (greater|less)", r"a number \1"),
        (r"^Input should be ", ""),
        (r"^Tuple should have (.*) after validation.*", r"a list of \1"),
        (r", unable to .*", ""),
        (r"a valid dictionary or instance of \w+", "settings (key: value)"),
        (r"a valid tuple", "a list"),
        (r"a valid ", "a "),
        (r"\ba integer", "an integer"),
    ):
        message = re.sub(pattern, words, message)
    return message


def _place(settings: Any, problem: ErrorDetails) -> list[str]:
    """Where a problem is in the settings, without the names that pydantic gives to the branches of a union."""
    place = []
    for part in problem["loc"]:
        in_list = isinstance(settings, list | tuple) and isinstance(part, int) and part < len(settings)
        if in_list or (isinstance(settings, Mapping) and part in settings):
            settings = settings[part]
            place.append(str(part))
    return place


def _hint(model: type[BaseModel], place: list[str]) -> str:
    """What an unknown setting may have been meant to be."""
    siblings = _keys_at(model, place[:-1])
    close = difflib.get_close_matches(place[-1], siblings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {'.'.join([*place[:-1], close[0]])}?"
    everywhere = {dotted.rpartition(".")[2]: dotted for dotted in _dotted_keys(model)}
    close = difflib.get_close_matches(place[-1], everywhere, n=1, cutoff=0.75)
    return f"did you mean {everywhere[close[0]]}?" if close else f"known here: {', '.join(siblings)}"


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting by its full name, outer ones last."""
    for name, field in model.model_fields.items():
        if not typing.get_origin(field.annotation):
            for inner in _models_in(field.annotation):
                yield from _dotted_keys(inner, f"{prefix}{name}.")
    yield from (prefix + name for name in model.model_fields)


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Names of the settings at a dotted place; unions and lists are looked through."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        inner = [m for c in current if part in c.model_fields for m in _models_in(c.model_fields[part].annotation)]
        current = inner or current
    return sorted({name for m in current for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Settings models that occur in a type."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]

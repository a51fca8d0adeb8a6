"""The base of every settings model, YAML as people write it, ``a.b=c`` on top, and errors as one sentence."""

import difflib
import functools
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from sniper.errors import RecipeError


class Config(BaseModel):
    """Settings of one part. Each part's model lives beside the code it configures."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_rest_of_parts(cls, given: Any) -> Any:
        """Who gives one setting of a part changes that one: the others stay what they are where the part is used.

        The defaults of a part's own model may be others.
        """
        if not isinstance(given, Mapping):
            return given
        own = _own_defaults(cls)
        parts = {name: _merged(own[name], given[name]) for name in own if isinstance(given.get(name), Mapping)}
        return {**given, **parts} if parts else given


@functools.cache
def _own_defaults(model: type[Config]) -> dict[str, dict[str, Any]]:
    """Of each part of a model, the settings that stand there by default and are not those of the part's model."""
    own = {}
    for name, field in model.model_fields.items():
        part = None if field.is_required() else field.get_default(call_default_factory=True)  # type: ignore[call-arg]
        if isinstance(part, Config) and not any(one.is_required() for one in type(part).model_fields.values()):
            plain, here = type(part)().model_dump(), part.model_dump()
            own[name] = {key: value for key, value in here.items() if value != plain[key]}
    return {name: settings for name, settings in own.items() if settings}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of both; where both say something, what ``above`` says."""
    both = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], Mapping) and isinstance(above[name], Mapping):
            both[name] = _merged(below[name], above[name])
    return both


class _EachKeyOnce:
    """Mixed into a loader: the later of two equal keys would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name} is given twice; keep one", problem_mark=key.start_mark)
            seen.update([name] if name is not None else [])
        made: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return made


class _Loader(_EachKeyOnce, yaml.SafeLoader):
    """YAML 1.2 where 1.1 surprises: 1e-4 is a number, and only true and false are booleans, not yes, no, on and off."""

    yaml_implicit_resolvers = {  # noqa: RUF012  as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _AsWritten(_EachKeyOnce, yaml.BaseLoader):
    """Every value is the text that stands there."""


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


MAX_REPEATED = 100_000  # values that the aliases of one text may stand for


def read_yaml(text: str, *, as_written: bool = False) -> Any:
    """The values of a YAML text; ``as_written``: every value and key is text, so that a class may be called no or 007.

    Raises:
        yaml.YAMLError: it is none, gives a key twice, or a few lines stand for more values than any settings have.
    """
    loader = (_AsWritten if as_written else _Loader)(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _written_out(node, sizes) - len(sizes) > MAX_REPEATED:
            problem = f"its aliases stand for more than {MAX_REPEATED:,} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.MarkedYAMLError(problem="nested too deeply") from error
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of nodes that a node is with every alias written out; ``sizes`` holds those found by node."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            problem = "an alias inside what it stands for"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return sizes[id(node)]
    sizes[id(node)] = 0  # not known yet
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_written_out(inner, sizes) for inner in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_written_out(inner, sizes) for pair in node.value for inner in pair)
    sizes[id(node)] = total
    return total


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
        return f"{dotted} is not a setting; {_hint(model, settings, deepest)}"
    if first["type"] == "union_tag_invalid":
        return _unknown_kind(model, settings, deepest)
    if first["type"] == "missing":
        return f"{dotted} lacks the setting {first['loc'][-1]}; give it a value"
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


def _hint(model: type[BaseModel], settings: Mapping[str, Any], place: list[str]) -> str:
    """What an unknown setting may have been meant to be."""
    parents, name = place[:-1], place[-1]
    at = _at(model, settings, parents)
    siblings = sorted({name for one in _meant(at) for name in one.model_fields})
    close = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {'.'.join([*parents, close[0]])}?"
    for other in at.models:
        if name in other.model_fields:
            return f"{'.'.join(parents)} of kind {_kind(other)} has it, but this is of kind {_kind(_meant(at)[0])}"
    everywhere = {dotted.rpartition(".")[2]: dotted for dotted in _dotted_keys(model, settings)}
    close = difflib.get_close_matches(name, everywhere, n=1, cutoff=0.75)
    return f"did you mean {everywhere[close[0]]}?" if close else f"known here: {', '.join(siblings)}"


def _unknown_kind(model: type[BaseModel], settings: Mapping[str, Any], place: list[str]) -> str:
    """The sentence for a ``kind`` that there is not."""
    at = _at(model, settings, place)
    kinds, given = [str(_kind(one)) for one in at.models], at.settings["kind"]
    close = difflib.get_close_matches(str(given), kinds, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{'.'.join(place)}.kind: expected {', '.join(kinds[:-1])} or {kinds[-1]}, got {given!r}{hint}"


class _Part(NamedTuple):
    """A place in a document: the models that it may be, and what is given there."""

    models: list[type[BaseModel]]
    settings: Any


def _at(model: type[BaseModel], settings: Any, place: list[str]) -> _Part:
    """The part at a dotted place; lists and unions are looked through, on the way to the kind that is meant."""
    part = _Part([model], settings)
    for name in place:
        models = _meant(part)
        inner = [m for one in models if name in one.model_fields for m in _models_in(one.model_fields[name].annotation)]
        part = _Part(inner or models, _entry_of(part.settings, name))
    return part


def _meant(part: _Part) -> list[type[BaseModel]]:
    """Of models that are told apart by ``kind``, the one whose kind is given, or the first; else all."""
    if len(part.models) < 2 or not all(map(_kind, part.models)):
        return part.models
    given = part.settings.get("kind") if isinstance(part.settings, Mapping) else None
    return [model for model in part.models if _kind(model) == given] or part.models[:1]


def _kind(model: type[BaseModel]) -> str | None:
    """The ``kind`` that tells a model from others in its place."""
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _entry_of(settings: Any, name: str) -> Any:
    if isinstance(settings, list | tuple):
        return settings[int(name)] if name.isdecimal() and int(name) < len(settings) else None
    return settings.get(name) if isinstance(settings, Mapping) else None


def _dotted_keys(model: type[BaseModel], settings: Any, prefix: str = "") -> Iterator[str]:
    """Every setting by its full name, outer ones last; of a part that has kinds, those of the kind that is meant."""
    for name, field in model.model_fields.items():
        part = _Part(_models_in(field.annotation), _entry_of(settings, name))
        if not typing.get_origin(field.annotation) or all(map(_kind, part.models)):
            for inner in _meant(part):
                yield from _dotted_keys(inner, part.settings, f"{prefix}{name}.")
    yield from (prefix + name for name in model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Settings models that occur in a type."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]

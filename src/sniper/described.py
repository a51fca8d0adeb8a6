"""Every setting of a document with its default, its values and its meaning, read off the models themselves."""

import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", types.NoneType: "null"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class Setting(NamedTuple):
    """One setting, as ``--set`` names it; of a list of settings, ``[]`` stands for the number of the entry."""

    name: str
    default: str  # as YAML and JSON both write it; empty: it must be given
    values: str  # which values it takes
    meaning: str  # with the unit

    def matches(self, word: str) -> bool:
        """Whether it lies in the section ``word``, or has that word in its name or meaning (any case)."""
        section = self.name.replace("[]", "") == word or self.name.startswith((f"{word}.", f"{word}[]"))
        return section or word.lower() in f"{self.name} {self.meaning}".lower()


def settings_of(model: type[BaseModel], prefix: str = "", default: BaseModel | None = None) -> Iterator[Setting]:
    """The settings of a model and of the models in it, in their order.

    ``default`` is what stands where the model is used, if that is not the model's own default. Of models that are told
    apart by ``kind`` all are listed, and the meaning begins with the kind.
    """
    for name, field in model.model_fields.items():
        value = field.get_default(call_default_factory=True) if default is None else getattr(default, name)  # type: ignore[call-arg]
        dotted, inner = f"{prefix}{name}", _models_in(field.annotation)
        if not isinstance(value, BaseModel):
            yield Setting(dotted, _written(field, value), _values(field), field.description or "")
        in_list = _holds_list(field.annotation)
        for one in inner:
            given = value if isinstance(value, one) else None
            kind = one.model_fields["kind"].default if len(inner) > 1 and "kind" in one.model_fields else None
            for setting in settings_of(one, f"{dotted}[]." if in_list else f"{dotted}.", given):
                yield setting if kind is None else setting._replace(meaning=f"(kind {kind}) {setting.meaning}")


def _written(field: FieldInfo, value: Any) -> str:
    if field.is_required():
        return ""
    return json.dumps(value, default=_plain, ensure_ascii=False) if not isinstance(value, str) else value or '""'


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _values(field: FieldInfo) -> str:
    taken, null, _ = _values_of(field.annotation).partition(" or null")
    return " ".join([taken, *_bounds(field.metadata)]) + null


def _bounds(marks: Iterable[Any]) -> list[str]:
    return [
        f"{sign} {getattr(mark, name):g}"
        for outer in marks
        for mark in getattr(outer, "metadata", [outer])
        for name, sign in _BOUNDS.items()
        if getattr(mark, name, None) is not None
    ]


def _values_of(annotation: Any) -> str:
    """What a type takes, in words that are not about Python."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is typing.Literal:
        return ", ".join(str(value) for value in inside)
    if origin is typing.Annotated:
        return " ".join([_values_of(inside[0]), *_bounds(inside[1:])])
    if origin in (typing.Union, types.UnionType):
        parts = dict.fromkeys(_values_of(one) for one in sorted(inside, key=lambda one: one is types.NoneType))
        return " or ".join(parts)
    if origin in (list, tuple):
        return "list of " + " and ".join(dict.fromkeys(_values_of(one) for one in inside if one is not Ellipsis))
    if origin is dict:
        return f"{_values_of(inside[0])}: {_values_of(inside[1])}"
    return "settings"


def _holds_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (list, tuple) or any(map(_holds_list, typing.get_args(annotation)))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not typing.get_origin(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]

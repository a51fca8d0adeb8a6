"""The description of the method keeps up with the code: cited sections, and settings by their present names."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from sniper.recipe import Recipe

ROOT = Path(__file__).parents[1]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
RENAMED = "\n## Renamed settings\n"


def settings_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Settings models that occur in a type."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from settings_in(inner)


def names_of(models: list[type[BaseModel]]) -> dict[str, list[type[BaseModel]]]:
    """Settings of models by name, each with the models of its own settings."""
    fields = [pair for model in models for pair in model.model_fields.items()]
    return {name: [m for other, f in fields if other == name for m in settings_in(f.annotation)] for name, _ in fields}


def is_setting(dotted: str) -> bool:
    models = [Recipe]
    for part in dotted.split("."):
        here = names_of(models)
        if models == [Recipe] and part == "model":  # one of several detectors
            here["model"] = [*here["model"], *here.get("original", [])]
        if part not in here:
            return False
        models = here[part]
    return True


def test_every_cited_section_is_there() -> None:
    titles = set(re.findall(r"^#+ (.+)$", METHOD, re.M))
    cited = {
        (path.relative_to(ROOT).as_posix(), title)
        for path in (ROOT / "src").rglob("*.py")
        for title in re.findall(r'docs/method\.md``,\s+"([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(cited) > 20
    assert {(path, title) for path, title in cited if title not in titles} == set()


def test_settings_have_their_present_names() -> None:
    sections = "|".join(Recipe.model_fields)
    text = METHOD.split(RENAMED)[0]
    named = set(re.findall(rf"(?:`|--set )((?:{sections})(?:\.[a-z_0-9]+)+)", text)) - {"data.yaml"}
    assert len(named) > 10
    assert {name for name in named if not is_setting(name)} == set()


def test_lines_are_short() -> None:
    lines = METHOD.splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) >= 120 and not line.startswith("|")] == []


def test_renamed_settings_are_present_ones() -> None:
    table = METHOD.split(RENAMED)[1]
    rows = [re.findall(r"`([^`]+)`", line) for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    pairs = [row for row in rows if len(row) == 2 and all("." in name and "…" not in name for name in row)]
    assert len(pairs) > 8
    assert {now for _, now in pairs if not is_setting(now)} == set()
    assert {former for former, _ in pairs if is_setting(former)} == set(), "not renamed at all"

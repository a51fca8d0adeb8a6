"""The file that says which super-class each class belongs to: a line a class, a number from 0, a tab, the name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sniper.errors import RecipeError
from sniper.files import replacing


def read_clusters(path: Path | str, class_names: Sequence[str], super_classes: int) -> list[int]:
    """The super-class of each class, in the order of ``class_names``. Lines of other classes are passed over.

    Raises:
        RecipeError: the file cannot be read, a line is no number, tab and name, a number is not below
            ``super_classes``, or a class has no line or two.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"model.clusters: {path} cannot be read as text ({error.__class__.__name__})") from error
    known: dict[str, int] = {}
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        number, tab, name = line.partition("\t")
        if not tab or not number.strip().isdecimal():
            raise RecipeError(f"{path}, line {row}: expected a number, a tab and a class, not {line[:60]!r}")
        if int(number) >= super_classes:
            raise RecipeError(
                f"{path}, line {row}: super-class {number.strip()}, but model.super_classes is {super_classes}; "
                "they count from 0"
            )
        if name in known:
            raise RecipeError(f"{path}, line {row}: class {name!r} has a line already; give each class once")
        known[name] = int(number)
    missing = [name for name in class_names if name not in known]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RecipeError(f"{path} has no line for class {missing[0]!r}{more}; give every class a super-class")
    return [known[name] for name in class_names]


def write_clusters(path: Path | str, groups: Mapping[str, int]) -> None:
    """Write the super-class of each class, grouped."""
    rows = sorted(groups.items(), key=lambda row: row[1])
    with replacing(Path(path)) as temporary:
        temporary.write_text("".join(f"{group}\t{name}\n" for name, group in rows), encoding="utf-8")

"""Arguments with places in braces: `--lr {learning_rate}`. The rules of `str.format`, but plain names only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

from rightbatch.errors import InputError
from rightbatch.records import Setting


def placeholders(templates: Iterable[str]) -> frozenset[str]:
    """The names in braces of all templates, whatever they are.

    Raises `InputError` for braces that are not those of a placeholder.
    """
    names: set[str] = set()
    for template in templates:
        try:
            parts = [(name, form) for _, name, form, _ in Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise InputError(
                f"The argument {template!r} cannot be filled in: {error}. Write {{{{ and }}}} for braces themselves."
            ) from error
        names |= {name for name, _ in parts} | placeholders(form for _, form in parts if form)
    return frozenset(names)


def check(templates: Sequence[str], *, known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Raise `InputError` for a placeholder that is not known (`a.b` and `a[0]` never are), or a needed one left out."""
    used = placeholders(templates)
    names = ", ".join(f"{{{name}}}" for name in known)
    unknown = sorted(used - set(known))
    if unknown:
        raise InputError(
            f"{{{unknown[0]}}} is no placeholder of this command. Known are {names}; write {{{{ and }}}} for braces "
            f"themselves."
        )
    unused = [name for name in needed if name not in used]
    if unused:
        raise InputError(
            f"The command has no place for {{{unused[0]}}}: changing it would change nothing. Put it into an argument; "
            f"known are {names}."
        )


def fill(template: str, values: Mapping[str, Setting]) -> str:
    """A template with its values: numbers as Python writes them, so that they read back exactly.

    Raises `InputError` where a value is missing, or a format does not suit it.
    """
    missing = sorted(placeholders([template]) - set(values))
    if missing:
        raise InputError(f"The argument {template!r} needs {missing[0]}, which is not known. Give a planned length.")
    try:
        return template.format_map(values)
    except ValueError as error:  # {batch_size:s}
        raise InputError(f"The argument {template!r} cannot be filled in: {error}. Leave out the format.") from error

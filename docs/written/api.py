"""A page for every public name, from its signature and its docstring."""

from __future__ import annotations

import inspect
import re
from typing import Any

import rightbatch

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
UNSPEAKABLE = re.compile(r"<[^>]*>")
"""How Python shows a function, or that a field makes its default anew."""

ITEM = re.compile(r"^(\*{0,2}\w[\w, .*`]*): (.*)$")

GROUPS = {
    "Ask": ("find", "sweep", "check", "profile", "show", "judge", "export", "Ask", "Recommendation", "CheckReport"),
    "Bring": ("Workload", "Loop", "LoopTrial", "Command", "Trial", "Point", "Settings"),
    "Measure": ("noise", "NoiseScale", "branches", "memory", "largest_batch", "MemoryReport", "sharpness", "posterior"),
    "Train": (
        "runs", "Runs", "RunInProgress", "train", "Trained", "AdaptiveBatchSampler", "AdaptiveAccumulation",
        "EMSO", "LinearBatch", "ConstantSGDSampler", "IterateAverage", "within_memory", "attempts", "Attempt",
    ),
    "Read": ("Study", "Evidence", "Run", "Stop", "StopReason", "Target", "Objective", "Interval"),
    "Errors": (
        "RightbatchError", "InputError", "WorkloadError", "DataError", "StudyError", "MissingExtra",
        "InsufficientEvidence",
    ),
    "Modules": ("controllers", "plots", "rules"),
}  # fmt: skip
"""Where a name is told; a name that is in none of these is an error."""


def pages() -> dict[str, str]:
    """Markdown by file: one for each group."""
    missing = set(rightbatch.__all__) - {name for names in GROUPS.values() for name in names}
    if missing:
        raise ValueError(
            f"Public names without a page: {sorted(missing)}. Put each into a group of docs/written/api.py."
        )
    written = {f"api/{group.lower()}.md": page(group, names) for group, names in GROUPS.items()}
    rows = [f"- [{group}]({group.lower()}.md): {', '.join(f'`{name}`' for name in of)}" for group, of in GROUPS.items()]
    index = [
        "# The Python interface",
        "",
        "All of it is in `rightbatch`; what a name needs is imported when it is first asked for.",
        "",
        *rows,
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *(group.lower() for group in GROUPS),
        "```",
        "",
    ]
    return {"api/index.md": "\n".join(index), **written}


def page(group: str, names: tuple[str, ...]) -> str:
    """Every name of a group."""
    parts = [f"# {group}", ""]
    for name in names:
        parts += [f"## {name}", "", *told(getattr(rightbatch, name), f"rightbatch.{name}"), ""]
    return "\n".join(parts)


def told(found: Any, name: str) -> list[str]:
    """Signature and docstring; of a class also what its own methods say."""
    lines = []
    if callable(found) and not inspect.ismodule(found):
        lines += ["```python", signature(found, name), "```", ""]
    lines += markdown(inspect.getdoc(found) or "").split("\n")
    if inspect.isclass(found):
        for method, value in own(found).items():
            function = getattr(value, "__func__", value)
            if method.startswith("_") or not (inspect.isfunction(function) or isinstance(value, property)):
                continue
            if not (text := inspect.getdoc(value)):
                continue
            shown = f"{name}.{method}" if isinstance(value, property) else signature(function, f"{name}.{method}")
            lines += ["", "```python", shown, "```", "", *markdown(text).split("\n")]
    return lines


def own(found: type) -> dict[str, Any]:
    """What a class has of its own, and of those of ours that it is one of."""
    classes = [one for one in reversed(found.__mro__) if one.__module__.startswith("rightbatch")]
    return {name: value for one in classes for name, value in vars(one).items()}


def signature(found: Any, name: str) -> str:
    """As it is called; a long one with a parameter a line."""
    try:
        known = inspect.signature(found)
    except (TypeError, ValueError):
        return name
    shown, keyword_only = [], False
    for parameter in known.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            keyword_only = True
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            shown.append("*")
            keyword_only = True
        shown.append(one_of(parameter))
    arrow = (
        "" if known.return_annotation in (known.empty, "None", None) else f" -> {annotation(known.return_annotation)}"
    )
    flat = f"{name}({', '.join(shown)}){arrow}"
    return flat if len(flat) <= 100 else f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){arrow}"


def one_of(parameter: inspect.Parameter) -> str:
    """With what it may be and what it is by default."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    said = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        said += f": {annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        said += f" = {UNSPEAKABLE.sub('...', repr(parameter.default))}"
    return said


def annotation(found: Any) -> str:
    """As it stands in the code."""
    return found if isinstance(found, str) else inspect.formatannotation(found)


def markdown(text: str) -> str:
    """A docstring as Markdown: sections in bold, what they list as a list, indented code as code."""
    return fenced(listed(SECTION.sub(r"**\1**\n", text)))


def listed(text: str) -> str:
    """Lines `name: meaning` below a section, and what belongs to them."""
    lines, inside = [], False
    for line in text.split("\n"):
        if line.startswith("**"):
            inside = True
        elif inside and (item := ITEM.match(line)):
            line = f"- `{item[1]}`: {item[2]}"
        elif inside and line.startswith("    "):
            line = "  " + line.strip()
        elif inside and line and not line.startswith(" "):
            inside = False
        lines.append(line)
    return "\n".join(lines)


def fenced(text: str) -> str:
    """What is indented by four after an empty line is code."""
    lines, code, before = [], False, ""
    for line in text.split("\n"):
        if not code and line.startswith("    ") and not before.strip():
            lines.append("```python")
            code = True
        if code and line.strip() and not line.startswith("    "):
            while not lines[-1].strip():
                lines.pop()
            lines += ["```", ""]
            code = False
        lines.append(line[4:] if code else line)
        before = line
    return "\n".join([*lines, *(["```"] if code else [])])

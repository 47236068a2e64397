"""Write what the code says into the pages: options, settings and recipes. `make docs`."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).parents[1]))

from batchers import Batcher, Options
from batchers.serving.settings import PREFIX, ModelSettings
from server.model import MODEL_FILE
from server.settings import Settings

DOCS = Path(__file__).parent
ROOT = DOCS.parent

MARKED = re.compile(r"(<!-- (?P<name>[\w-]+): begin -->\n).*?(<!-- (?P=name): end -->)", re.DOTALL)

PROMISES = re.compile(r" \(Promises? [\d and,]+\.\)")
DEFAULT = re.compile(r" ?Default (None|-?[\d.]+|\"\w+\"|False)\b[^.]*\.(?= |$)")
LENGTHS = "[items of different lengths](choosing.md#items-of-different-lengths)"
SENTENCE = re.compile(r".*?\.(?= |$)")


def described(documented: type) -> Iterator[tuple[str, str]]:
    """Yield each field of a class with its description, from the docstring."""
    name, lines = "", []
    for line in [*inspect.cleandoc(documented.__doc__ or "").splitlines()[1:], "end"]:
        if line and not line.startswith(" "):
            if name:
                yield name, " ".join(" ".join(lines).split())
            name, lines = line, []
        else:
            lines.append(line)


def default_of(option: str) -> str:
    """Return what the tables show as the default of an option."""
    unset = {"name": "the class", "policy": "`Greedy()`"}  # what None means there
    value = Options.__dataclass_fields__[option].default
    if value is None:
        return unset.get(option, "none")
    return f"`{json.dumps(value) if isinstance(value, str) else value}`"


def options() -> str:
    """Return each option with its whole description."""
    if [option for option, _ in described(Options)] != list(Options.__dataclass_fields__):
        msg = "the docstring of Options does not describe its fields, in their order"
        raise ValueError(msg)
    parts = []
    for option, text in described(Options):
        meaning = PROMISES.sub("", text).replace("see `policies/lengths.py`", f"see {LENGTHS}")
        parts.append(f"### {option}\n\n{meaning}\n")
    return "\n".join(parts)


def options_in_short() -> str:
    """Return the table of options, with the first sentence of each description."""
    rows = []
    for option, text in described(Options):
        meaning = SENTENCE.findall(DEFAULT.sub("", PROMISES.sub("", text)))[0].rstrip(".")
        rows.append(f"| `{option}` | {default_of(option)} | {meaning} |\n")
    return "| option | default | meaning |\n| --- | --- | --- |\n" + "".join(rows)


def setting(name: str, field: FieldInfo) -> str:
    """Return the line of one setting."""
    variable = str(field.validation_alias or f"{PREFIX}{name.upper()}")
    default = "needed" if field.is_required() else "unset" if field.default is None else str(field.default)
    default = {str(MODEL_FILE): str(MODEL_FILE.relative_to(ROOT)), "True": "true", "False": "false"}.get(
        default, default
    )
    return f"| `{variable}` | {field.title} | {default} | {field.description} |\n"


def settings() -> str:
    """Return the table of settings."""
    fields = {"model": ModelSettings.model_fields["model"], **Settings.model_fields}
    head = "| variable | meaning | default | allowed |\n| --- | --- | --- | --- |\n"
    return head + "".join(setting(name, field) for name, field in fields.items())


def recipes() -> str:
    """Return the recipes, each with its program."""
    parts = []
    for file in sorted((DOCS / "recipes").glob("*.py")):
        first = file.read_text().split('"""')[1].strip().splitlines()[0]
        parts.append(f"## {file.name}\n\n{first} ([file](recipes/{file.name}))\n")
        parts.append(f"```{{literalinclude}} recipes/{file.name}\n:language: python\n```\n")
    return "\n".join(parts)


def promises() -> str:
    """Return the list of promises, from the docstring of `Batcher`."""
    text = inspect.getdoc(Batcher) or ""
    listed = text[text.index("1. ") :].partition("\n\n")[0]
    return f"{listed}\n"


TABLES = {
    "promises": promises,
    "options": options,
    "options-in-short": options_in_short,
    "settings": settings,
    "recipes": recipes,
}

PAGES = (ROOT / "README.md", DOCS / "configuration.md", DOCS / "promises.md", DOCS / "recipes.md")


def pages() -> dict[Path, str]:
    """Return the pages as they should be."""
    return {
        page: MARKED.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], page.read_text())
        for page in PAGES
    }


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)

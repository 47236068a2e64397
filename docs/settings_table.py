"""Write the table of settings into serving.md, from the code: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).parents[1]))

from batchers.serving.settings import PREFIX, ModelSettings
from server.model import MODEL_FILE
from server.settings import Settings

PAGE = Path(__file__).with_name("serving.md")
ROOT = PAGE.parents[1]
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def row(name: str, field: FieldInfo) -> str:
    """Return the line of one setting."""
    variable = str(field.validation_alias or f"{PREFIX}{name.upper()}")
    default = "needed" if field.is_required() else "unset" if field.default is None else str(field.default)
    default = {str(MODEL_FILE): str(MODEL_FILE.relative_to(ROOT)), "True": "true"}.get(default, default)
    return f"| `{variable}` | {field.title} | {default} | {field.description} |\n"


def table() -> str:
    """Return the table."""
    fields = {"model": ModelSettings.model_fields["model"], **Settings.model_fields}
    head = "| variable | meaning | default | allowed |\n| --- | --- | --- | --- |\n"
    return head + "".join(row(name, field) for name, field in fields.items())


def page() -> str:
    """Return the page with the table as it should be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())

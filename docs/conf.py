"""The documentation site: `make site` builds it in build/site."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from batchers import __version__  # noqa: E402 - found by the line above

project = "batchers"
author = "the authors of batchers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["recipes"]
default_role = "code"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"batchers {release}"
html_static_path = ["static"]
html_css_files = ["wide-tables.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

PAGES_OF_THE_ROOT = {"benchmark": "BENCHMARK.md", "changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages of the site that are files of the repository's root."""

TARGETS = {file: f"{page}.md" for page, file in PAGES_OF_THE_ROOT.items()} | {"README.md": "index.md"}


def load_page_of_the_root(app: Sphinx, page: str, source: list[str]) -> None:
    """Let a page be a file of the root, with links as they are from here."""
    if page in PAGES_OF_THE_ROOT:
        file = ROOT / PAGES_OF_THE_ROOT[page]
        app.env.note_dependency(str(file))
        text = file.read_text().replace("](docs/", "](").replace("](assets/", "](../assets/")
        source[0] = re.sub(r"\]\((?=[A-Z]+\.md)", "](../", text)


def adapt_links(_: Sphinx, page: str, source: list[str]) -> None:
    """Let the links of a page, which are right in the repository, be right in the site too."""
    text = source[0]
    up = "../" * page.count("/")
    for file, target in TARGETS.items():
        text = text.replace(f"](../{up}{file}", f"]({up}{target}")
    if page != "recipes":
        text = re.sub(r"\]\((\.\./)*recipes/(\w+)\.py\)", rf"]({up}recipes.md#\2py)", text)
    source[0] = text


def setup(app: Sphinx) -> None:
    """Register the hooks, in this order."""
    app.connect("source-read", load_page_of_the_root)
    app.connect("source-read", adapt_links)

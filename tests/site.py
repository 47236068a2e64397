"""Build the documentation site, and check it: `make site`. It needs no network, and neither do its pages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"


class Page(HTMLParser):
    """What a page has: its anchors, its links, and what it loads."""

    def __init__(self, file: Path) -> None:
        """Read a page."""
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name == "href" and value and tag == "a":
                self.links.add(value)
            elif value and (name == "src" or (name == "href" and tag == "link")):
                self.loaded.add(value)


def build() -> None:
    """Build all pages anew; a warning is an error."""
    shutil.rmtree(SITE, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-b", "html", "docs", str(SITE)],
        check=True,
        cwd=ROOT,
    )


def problems() -> list[str]:
    """Return links that lead nowhere, and what comes from elsewhere."""
    pages = {file: Page(file) for file in SITE.rglob("*.html") if "_static" not in file.relative_to(SITE).parts}
    found = [] if pages else ["there are no pages"]
    for file, page in pages.items():
        name = file.relative_to(SITE)
        found += [f"{name} loads {each}" for each in page.loaded if urlsplit(each).netloc]
        for link in page.links | page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not (target.is_file() and target.is_relative_to(SITE)):
                found.append(f"{name}: {link} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name}: {link} leads to no place of the page")
    for sheet in SITE.rglob("*.css"):
        elsewhere = re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", sheet.read_text())
        found += [f"{sheet.relative_to(SITE)} loads {each}" for each in elsewhere]
    return found


def main() -> int:
    """Build and check. Returns 1 if something is wrong."""
    build()
    found = problems()
    for each in found:
        print(f"error: {each}", file=sys.stderr)  # noqa: T201 - its output
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

"""The recipes of `docs/recipes`, run as their first lines say; `make recipes` runs those with large packages."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from tests.support.children import ROOT, child, run
from tests.support.server import free_port, serve

RECIPES = ROOT / "docs" / "recipes"
MOST_LINES = 40
FROM_SOURCES = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {
    "PYTHONPATH": str(ROOT)
}


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.py")), ids=lambda file: file.stem)
def test_length(file: Path) -> None:
    """A recipe is short, and begins by what it is."""
    lines = file.read_text().splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[0].startswith('"""')


@pytest.mark.parametrize(
    ("model", "item", "kind"),
    [("scikit_learn:Model", [5.1, 3.5, 1.4, 0.2], str), ("keras_model:model", [1.0, 2.0, 3.0], float)],
)
def test_models(model: str, item: list[float], kind: type) -> None:
    """One item, many, and one that does not fit."""
    with serve("--app-dir", str(RECIPES), app="batchers.serving:app", BATCHER_MODEL=model) as server:
        answer = httpx.post(f"{server.url}/predict", json=item)
        assert (answer.status_code, type(answer.json())) == (200, kind)
        many = httpx.post(f"{server.url}/predict_many", json=[item, item]).json()
        assert many == [answer.json() if kind is str else pytest.approx(answer.json(), rel=1e-3)] * 2
        assert httpx.post(f"{server.url}/predict", json=[1]).status_code == 422


def test_an_own_application() -> None:
    """It answers, and drains on SIGTERM."""
    with serve("--app-dir", str(RECIPES), app="own_fastapi:app") as server:
        assert httpx.post(f"{server.url}/length", json="abc").json() == 3
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        server.terminate()
        assert server.wait() == 0


def test_a_script() -> None:
    """It prints its batches and a sum."""
    ended = run([sys.executable, str(RECIPES / "script.py")], env=FROM_SOURCES)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "332833500"


def test_metrics() -> None:
    """Each batcher has its own label."""
    port = free_port()
    command = [sys.executable, str(RECIPES / "metrics.py"), str(port)]
    with child(command, env=FROM_SOURCES, stdout=subprocess.PIPE) as process, process.stdout or nullcontext():
        assert process.stdout is not None
        assert process.stdout.readline() == "3 9\n"
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    for name in ("texts", "numbers"):
        assert f'batcher_items_total{{batcher="{name}",outcome="completed"}} 1.0' in text


def test_a_test() -> None:
    """A test as users write it passes."""
    alone = ("-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(RECIPES), "--noconftest")
    ended = run([sys.executable, "-m", "pytest", *alone, str(RECIPES / "test_own_code.py")], env=FROM_SOURCES)
    assert ended.returncode == 0, ended.stdout

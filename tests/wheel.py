"""Build the wheel, and use it in an empty environment, without the repository beside it: `python -m tests.wheel`.

With `--write`, write what happened into docs/from-a-wheel.md. The environment gets the newest versions of what the
extra `serving` and the recipe of scikit-learn need.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "from-a-wheel.md"
RECIPE = ROOT / "docs" / "recipes" / "scikit_learn.py"
ITEM = "[5.1, 3.5, 1.4, 0.2]"
SECONDS = 60

CURL = f"curl http://127.0.0.1:8000/predict -H 'Content-Type: application/json' -d '{ITEM}'"

HEAD = """# A model of your own, served from the wheel

`make test-wheel` does this in an empty environment, and `python -m tests.wheel --write` writes this page. The
recipe is [scikit_learn.py](recipes/scikit_learn.py).

"""


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> str:
    """Run a command, and return what it printed. Raises CalledProcessError."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BATCHER_"))}
    ended = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=clean | environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    return ended.stdout


def served(python: Path, folder: Path) -> tuple[str, str]:
    """Serve the recipe, ask it once, and end it. Return the log of its start, and the answer."""
    command = [str(python), "-m", "uvicorn", "batchers.serving:app", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"BATCHER_MODEL": "scikit_learn:Model"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        log = ""
        try:
            for line in process.stderr or ():
                log += line
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            else:
                raise RuntimeError(log)
            request = urllib.request.Request(
                found[0] + "/predict", ITEM.encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                body = answer.read().decode()
        finally:
            process.terminate()
            status = process.wait(SECONDS)
    if status:
        raise RuntimeError(f"status {status} after SIGTERM")
    return log, body


def main() -> None:
    """Do it, and print or write the transcript."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder / "dist")
        (wheel,) = (folder / "dist").glob("*.whl")
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            f"{wheel}[serving]",
            "scikit-learn",
        )
        where = run(python, "-c", "import batchers; print(batchers.__file__)", folder=folder)
        if not where.startswith(str(folder)):
            raise RuntimeError(f"not from the wheel: {where}")
        shutil.copy(RECIPE, folder)
        log, answer = served(python, folder)
        if json.loads(answer) != "setosa":
            raise RuntimeError(answer)
        size = sum(file.stat().st_size for file in (folder / "env").rglob("*") if file.is_file())
        only = sum(file.stat().st_size for file in (folder / "env").rglob("batchers/**/*.py"))
    log = re.sub(r"\[\d+\]", "[4711]", re.sub(r":\d+ \(", ":8000 (", log))
    text = (
        f"{HEAD}```console\n$ python3 -m venv env\n"
        f'$ env/bin/pip install "$(echo dist/*.whl)[serving]" scikit-learn\n'
        f"$ BATCHER_MODEL=scikit_learn:Model env/bin/python -m uvicorn batchers.serving:app\n{log}```\n\n"
        f"And in another terminal:\n\n```console\n$ {CURL}\n{answer}\n```\n\n"
        f"The environment has {size / 1e6:.0f} MB, most of it scikit-learn; the sources of this library have "
        f"{only / 1e6:.1f} MB.\n"
    )
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()

"""Let type checkers check the types that users see.

`python -m tests.typing.check` lets pyright check the public API, and functions that return arrays. With `tensors`
mypy and pyright check functions that return tensors, in the environment that `make recipes` makes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TENSORS = HERE / "tensors.py"
STRICT = ("--config-file=", "--strict", "--ignore-missing-imports", "--no-error-summary")


def _run(*command: str | Path) -> int:
    return subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, check=False).returncode


def _check_tensors() -> int:
    environment = Path(sys.prefix) / "recipes"
    settings = {
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "venvPath": str(environment.parent),
        "venv": environment.name,
        "reportMissingImports": "warning",  # TensorFlow is not there
    }
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(TENSORS, folder)  # pyright takes no files from outside of a project
        project = Path(folder) / "pyrightconfig.json"
        project.write_text(json.dumps(settings))
        failed = _run("pyright", "--project", project)
    return failed or _run("mypy", *STRICT, "--python-executable", environment / "bin" / "python", TENSORS)


if __name__ == "__main__":
    if sys.argv[1:] == ["tensors"]:
        sys.exit(_check_tensors())
    sys.exit(_run("pyright", HERE / "api.py", HERE / "arrays.py", "batchers"))

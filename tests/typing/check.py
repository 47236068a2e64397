"""Let pyright check the types that users see: `python -m tests.typing.check`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    sys.exit(
        subprocess.run(
            [sys.executable, "-m", "pyright", str(HERE / "api.py"), str(HERE / "arrays.py"), "batchers"],
            check=False,
        ).returncode
    )

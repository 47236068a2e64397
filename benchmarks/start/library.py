"""Import asyncio, then the library, and print how many seconds each took, as JSON."""

from __future__ import annotations

import sys
import time

if __name__ == "__main__":
    sys.dont_write_bytecode = False  # a second import has what the first has compiled
    start = time.perf_counter()
    import asyncio  # noqa: F401 - what is measured

    loop = time.perf_counter()
    import batchers  # noqa: F401 - what is measured

    end = time.perf_counter()
    print(f'{{"asyncio": {loop - start}, "batchers": {end - loop}}}')  # noqa: T201 - its result

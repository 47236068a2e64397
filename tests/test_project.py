"""What holds for the project as a whole: who imports whom, what the documents say, what is in the files."""

from __future__ import annotations

import ast
import os
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

import batchers
from tests.support.children import ROOT, run

PACKAGE = ROOT / "batchers"
LIBRARY = sorted(PACKAGE.rglob("*.py"))

# What each room may import: itself, and what stands before it. Between those of one line, nothing.
FLOORS = [
    {"errors", "rows"},
    {"checks", "copying"},
    {"policies"},
    {"options", "stats"},
    {"core"},
    {"drivers"},
    {"batcher"},
    {"backends", "by_name", "signatures"},
    {"decorator"},
    {"arrays"},
    {"__init__"},
    {"integrations", "remote"},
    {"serving"},
]
UNHURRIED = 'import logging; logging.getLogger("asyncio").setLevel(logging.ERROR)\n'
"""The first line of a program that has nothing to say: not that a busy machine was slow, either."""

PURE = {"core", "policies"}
IMPURE = {"threading", "asyncio", "time", "queue", "concurrent", "random", "os", "weakref", "logging", "socket"}


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports, with their full names; `from x import y` counts as x, and as x.y."""
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, node.module) if node.module else above)
            found |= {module, *(f"{module}.{name.name}" for name in node.names)}
    return found


def room(file: Path) -> str:
    """Return the folder of a file of the library, or its name on the top level."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms_of(file: Path) -> set[str]:
    """Return the rooms from which a file of the library imports."""
    own = [name.split(".") for name in imports(file) if name.split(".")[0] == "batchers"]
    return {parts[1] for parts in own if len(parts) > 1} & {room(each) for each in LIBRARY}


def test_imports_run_one_way() -> None:
    """No room of the library imports from one that stands after it, or beside it."""
    assert {room(file) for file in LIBRARY} == set().union(*FLOORS)
    for number, floor in enumerate(FLOORS):
        before = set().union(*FLOORS[:number])
        for file in LIBRARY:
            if room(file) in floor:
                assert rooms_of(file) <= before | {room(file)}, file


def test_no_circles() -> None:
    """Inside a room, too, no module imports what imports it; and the two drivers do not know each other."""
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in LIBRARY}
    graph = {name: imports(file) & set(modules) - {name} for name, file in modules.items()}

    def reachable(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        return graph[name].union(*(reachable(each, seen | {name}) for each in graph[name] - seen))

    for name in modules:
        assert name not in reachable(name), name
    assert "batchers.drivers.threading_driver" not in reachable("batchers.drivers.asyncio_driver")
    assert "batchers.drivers.asyncio_driver" not in reachable("batchers.drivers.threading_driver")


def test_the_library_needs_the_standard_library_only() -> None:
    """But for its extras. And it knows nothing of the server, the tests or the benchmarks."""
    web = {"fastapi", "fastapi_offline", "prometheus_client", "pydantic", "pydantic_core", "starlette", "uvicorn"}
    extras = {
        "arrays": {"numpy"},
        "integrations": {"prometheus_client", "ray"},
        "serving": {*web, "pydantic_settings"},
    }
    for file in LIBRARY:
        others = {name.split(".")[0] for name in imports(file)} - {"batchers"}
        assert others <= set(sys.stdlib_module_names) | extras.get(room(file), set()), file


def test_what_decides_is_pure() -> None:
    """No clock, no thread, no loop in the core and the policies."""
    for file in LIBRARY:
        if room(file) in PURE:
            assert not {name.split(".")[0] for name in imports(file)} & IMPURE, file


def test_no_file_is_long() -> None:
    """At most 400 lines: a module has one reason."""
    for file in LIBRARY:
        assert len(file.read_text().splitlines()) <= 400, file


def test_the_server_imports_no_benchmark() -> None:
    """Nor a test."""
    for file in (ROOT / "server").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(file)} & {"benchmarks", "tests"}, file


def test_only_settings_read_the_environment() -> None:
    """One place knows the variables."""
    for file in [*LIBRARY, *(ROOT / "server").glob("*.py")]:
        if file.name != "settings.py":
            assert not re.search(r"os\.environ|getenv", file.read_text()), file


def test_one_place_resolves_futures() -> None:
    """`set_result` for callers stands in one module; the others are the methods of futures, and a worker's."""
    places = [
        (file.stem, line.strip())
        for file in LIBRARY
        for line in file.read_text().splitlines()
        if "set_result(" in line
    ]
    assert sorted(places) == [
        ("clients", "def set_result(self, result: object) -> None:"),
        ("cycle", "def set_result(self, result: object) -> None:"),
        ("delivery", "def set_result(self, result: object) -> None:"),
        ("delivery", "def set_result(self, result: object) -> None:"),
        ("delivery", "future.set_result(outcome)"),
        ("delivery", "gathered.future.set_result(gathered.results)"),
        ("futures", 'self.set_result(cast("S", outcome))'),
        ("loops", "future.set_result(task.result())"),
        ("runner", "said.set_result(os.read(read, 10))"),
    ]


def test_importing_starts_and_loads_nothing() -> None:
    """No thread, no third-party module."""
    code = (
        "import sys, threading; before = set(sys.modules); import batchers; "
        "assert threading.active_count() == 1; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names); "
        "assert new == {'batchers'}, new"
    )
    ended = run([sys.executable, "-S", "-c", UNHURRIED + code])
    assert ended.returncode == 0, ended.stderr


def test_exit_with_work_in_hand(backend: str, flavour: str) -> None:
    """A program that ends with batches queued and running ends soon, with status 0 and nothing to say."""
    code = f"""
import asyncio, batchers, threading
started = threading.Event()
def work(items):
    started.set()
    return items
async def work_async(items):
    return work(items)
batcher = batchers.create_batcher({backend!r}, work if {flavour!r} == "sync" else work_async, max_batch_size=2)
futures = [batcher.submit(n) for n in range(500)]
started.wait()
"""
    ended = run([sys.executable, "-X", "dev", "-W", "error", "-c", UNHURRIED + code])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("arrays", "numpy", "arrays"),
        ("serving", "fastapi", "serving"),
        ("serving", "pydantic_settings", "serving"),
        ("integrations.prometheus", "prometheus_client", "prometheus"),
        ("integrations.ray", "ray", "ray"),
    ],
)
def test_a_missing_extra_is_named(module: str, missing: str, extra: str) -> None:
    """The error says what to install."""
    ended = run([sys.executable, "-c", f"import sys; sys.modules[{missing!r}] = None; import batchers.{module}"])
    assert f"install the extra `{extra}`" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("when", ["in atexit", "in a thread", "in a loop in a thread", "unasked"])
def test_end_of_the_main_thread(backend: str, flavour: str, when: str) -> None:
    """What is handed in before, or by threads that outlive it, is served, also where no thread starts any more."""
    code = f"""
import asyncio, atexit, batchers, threading
def work(items):
    return items
async def work_async(items):
    return items
batcher = batchers.create_batcher({backend!r}, work if {flavour!r} == "sync" else work_async, max_batch_size=2)
when = {when!r}
def outlive():
    threading.main_thread().join()
    if when == "in a thread":
        with batcher:
            print([batcher.submit(n).result() for n in range(5)])
    else:
        asyncio.run(outlive_in_a_loop())
async def outlive_in_a_loop():
    async with batcher:
        print(await batcher.process_many(range(5)))
def finish():
    futures = [batcher.submit(n) for n in range(5)]
    batcher.close()
    print([future.result() for future in futures])
if when == "in atexit":
    assert batcher.submit(0).result() == 0
    atexit.register(finish)
elif when == "unasked":
    results = []
    futures = [batcher.submit(n) for n in range(5)]
    for future in futures:
        future.add_done_callback(lambda future: results.append(future.result()))
    atexit.register(lambda: print(results))
    import batchers.drivers.lifetime
    atexit.unregister(batchers.drivers.lifetime._at_exit)
    atexit.register(batchers.drivers.lifetime._at_exit)  # before the line that prints
else:
    assert batcher.submit(0).result() == 0
    threading.Thread(target=outlive).start()
"""
    ended = run([sys.executable, "-X", "dev", "-W", "error", "-c", UNHURRIED + code])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[0, 1, 2, 3, 4]\n", "")


def test_interrupt_in_asyncio_run(backend: str, flavour: str) -> None:
    """Ctrl-C in the middle of a batch: the program ends by it, with no other noise."""
    code = f"""
import asyncio, batchers, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
interrupted = []
def work(items):
    if not interrupted:
        interrupted.append(True)
        os.kill(os.getpid(), signal.SIGINT)
    return items
async def work_async(items):
    work(items)
    await asyncio.get_running_loop().create_future()
batcher = batchers.create_batcher({backend!r}, work if {flavour!r} == "sync" else work_async)
async def main():
    await asyncio.gather(asyncio.Event().wait(), *(batcher.process(n) for n in range(5)))
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
batcher.close(timeout=1)
"""
    ended = run([sys.executable, "-X", "dev", "-c", UNHURRIED + code])
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n")
    noise = [line for line in ended.stderr.splitlines() if "did not end within" not in line]
    assert noise == []


# Documents


def examples(file: Path) -> list[str]:
    """Return the Python examples of a document."""
    return re.findall(r"^```python\n(.*?)^```", file.read_text(), re.DOTALL | re.MULTILINE)


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("file", "number"),
    [(file, number) for file in DOCUMENTS for number in range(len(examples(file)))],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_examples_work(file: Path, number: int) -> None:
    """Every Python example of the documents runs as a program of its own, and its asserts hold."""
    ended = run([sys.executable, "-W", "error", "-c", examples(file)[number]])
    assert ended.returncode == 0, ended.stderr


PERMUTED = """
import asyncio, atexit, itertools
from batchers.drivers.driver import Driver

called = []
plain = Driver.process_batch.fget

def recording(driver):
    function = plain(driver)
    def record(items):
        called.append((function, list(items)))
        return function(items)
    return record

def _rows_of(function, items):
    found = function(list(items))
    return asyncio.run(found) if asyncio.iscoroutine(found) else found

def _check():
    assert called, "the example runs no batch"
    for function, items in called:
        straight = _rows_of(function, items)
        for n in range(min(len(items), 5)):
            assert _rows_of(function, items[n:] + items[:n]) == straight[n:] + straight[:n], function
        assert _rows_of(function, items[::-1]) == straight[::-1], function

Driver.process_batch = property(recording)
atexit.register(_check)
"""


@pytest.mark.parametrize(
    ("file", "number"),
    [(file, number) for file in DOCUMENTS for number in range(len(examples(file)))],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_examples_mix_up_nobody(file: Path, number: int) -> None:
    """A batch function of a document gives each item its own result, whatever the order of the items."""
    ended = run([sys.executable, "-c", PERMUTED + examples(file)[number]])
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_tests_that_documents_name() -> None:
    """They exist."""
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    named = {name for file in DOCUMENTS for name in re.findall(r"`(test_\w+)`", file.read_text())}

    assert len(named) > 30
    assert named <= defined, named - defined


def test_docstring_examples() -> None:
    """The examples in docstrings say what happens."""
    code = "import doctest; from batchers import decorator; print(*doctest.testmod(decorator))"
    ended = run([sys.executable, "-c", UNHURRIED + code])
    assert (ended.stdout, ended.stderr) == ("0 3\n", "")


def test_no_addresses_of_registries() -> None:
    """Packages are pinned by name, version and hash."""
    for file in (ROOT / "requirements").glob("*.txt"):
        text = file.read_text()
        assert "://" not in text
        names = re.findall(r"^[a-z0-9-]+(?:\[[a-z,]+\])?==", text, re.MULTILINE)
        assert len(names) > 10
        assert text.count("--hash=sha256:") >= len(names)


def test_versions_agree() -> None:
    """The package, the server's document and the changelog name one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "batchers/__init__.py"
    assert "version=__version__" in (ROOT / "server" / "app.py").read_text()
    assert f"## {batchers.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_help() -> None:
    """`make` names every target, and runs nothing."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    found = run(["make", "help"], env=outside)
    (targets,) = re.findall(r"^\.PHONY: help (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert not found.stderr
    assert re.findall(r"^make (\S+)", found.stdout, re.MULTILINE) == targets.split()


def test_generated_tables() -> None:
    """`make docs` has nothing to change."""
    program = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    marked = [found["name"] for page in program["PAGES"] for found in program["MARKED"].finditer(page.read_text())]
    assert sorted(marked) == sorted(program["TABLES"])
    for page, text in program["pages"]().items():
        assert page.read_text() == text, f"make docs would change {page.name}"

"""What the environment may say, without a server."""

from __future__ import annotations

import os
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest

from batchers import Adaptive
from server.model import MODEL_FILE, Description
from server.settings import read_settings

GOOD = MODEL_FILE.with_suffix(".json").read_text()
DESCRIPTION = Description.model_validate_json(GOOD)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with an environment that says nothing."""
    for name in list(os.environ):
        if name.upper().startswith(("BATCHER_", "MODEL_")):
            monkeypatch.delenv(name)


def complaint() -> str:
    """Return the line with which the settings are refused."""
    with pytest.raises(SystemExit) as ended, redirect_stderr(StringIO()) as printed:
        read_settings()
    assert ended.value.code == 3  # with another status uvicorn's supervisor starts it again, for ever
    (line,) = printed.getvalue().splitlines()
    return line


def test_defaults() -> None:
    """They are those of the batcher, on the asyncio backend."""
    settings = read_settings()

    assert (settings.backend, settings.model_call) == ("asyncio", "compiled")
    assert settings.batcher_options() == {
        "max_batch_size": 256,
        "max_queue_time": None,
        "policy": None,
        "concurrency": 1,
        "max_queue_size": 1024,
        "timeout": None,
        "batch_timeout": None,
        "cancel_abandoned": True,
        "name": "predictions",
    }
    assert settings.largest_batch == 256


def test_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable reaches its option."""
    for name, value in {
        "BATCHER_BACKEND": "threading",
        "BATCHER_MAX_BATCH_SIZE": "-1",
        "BATCHER_MAX_QUEUE_TIME": "0.01",
        "BATCHER_CONCURRENCY": "12",
        "BATCHER_MAX_QUEUE_SIZE": "5",
        "BATCHER_TIMEOUT": "1.5",
        "BATCHER_BATCH_TIMEOUT": "9",
        "BATCHER_CANCEL_ABANDONED": "false",
        "MODEL_CALL": "keras",
    }.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()

    assert (settings.backend, settings.model_call, settings.largest_batch) == ("threading", "keras", 256)
    assert list(settings.batcher_options().values()) == [-1, 0.01, None, 12, 5, 1.5, 9.0, False, "predictions"]


def test_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name."""
    monkeypatch.setenv("BATCHER_POLICY", "adaptive")
    assert read_settings().batcher_options()["policy"] == Adaptive()


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("BATCHER_BACKEND", "foo", "must be threading or asyncio"),
        ("BATCHER_MAX_BATCH_SIZE", "0", "1 or more, or -1"),
        ("BATCHER_MAX_BATCH_SIZE", "many", "1 or more, or -1"),
        ("BATCHER_CONCURRENCY", "-2", "1 or more, or -1"),
        ("BATCHER_MAX_QUEUE_SIZE", "1.5", "1 or more, or -1"),
        ("BATCHER_MAX_QUEUE_TIME", "nan", "0 or more"),
        ("BATCHER_MAX_BODY_SIZE", "0", "1 or more"),
        ("BATCHER_BODY_TIMEOUT", "-1", "above 0"),
        ("BATCHER_HEAD_TIMEOUT", "0", "above 0"),
        ("BATCHER_BATCH_TIMEOUT", "0", "above 0"),
        ("BATCHER_DRAIN_DELAY", "-1", "0 or more"),
        ("BATCHER_DRAIN_TIMEOUT", "0", "above 0"),
        ("BATCHER_TIMEOUT", "", "above 0; unset: no limit"),
        ("BATCHER_TIMEOUT", "0", "above 0"),
        ("MODEL_CALL", "fast", "compiled, keras or emulated"),
        ("MODEL_FILE", "/nowhere/model.keras", "python -m server.train"),
        ("MODEL_FILE", "", "python -m server.train"),
        ("MODEL_FILE", "/" + 300 * "x", "does not exist"),
        ("BATCHER_MAX_BACH_SIZE", "5", "did you mean BATCHER_MAX_BATCH_SIZE?"),
        ("BATCHER_QQQ", "1", "known are BATCHER_BACKEND, "),
        ("BATCHR_BACKEND", "asyncio", "did you mean BATCHER_BACKEND?"),
        ("MODEL_CALLS", "keras", "did you mean MODEL_CALL?"),
        ("model_fille", "x", "did you mean MODEL_FILE?"),
    ],
)
def test_bad_settings(variable: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable and what is allowed."""
    monkeypatch.setenv(variable, value)
    line = complaint()

    assert line.startswith("error: ")
    assert variable in line
    assert allowed in line


def test_settings_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, in the words of the environment."""
    monkeypatch.setenv("BATCHER_POLICY", "adaptive")
    monkeypatch.setenv("BATCHER_MAX_QUEUE_TIME", "0.01")
    assert "BATCHER_MAX_QUEUE_TIME" in complaint()


BAD_MODELS: dict[str, tuple[bytes, str, str]] = {
    "no archive": (b"hello", GOOD, "is no .keras file"),
    "no JSON": (MODEL_FILE.read_bytes(), '{"features": [', "does not describe the model: Invalid JSON"),
    "nothing": (MODEL_FILE.read_bytes(), "{}", "features: Field required"),
    "three features": (
        MODEL_FILE.read_bytes(),
        DESCRIPTION.model_copy(update={"features": ["a", "b", "c"]}).model_dump_json(),
        "features has 3 elements and not 10",
    ),
    "a scale of 0": (
        MODEL_FILE.read_bytes(),
        DESCRIPTION.model_copy(update={"scale": [0.0] * 10}).model_dump_json(),
        "a scale is not 0",
    ),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_model_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the file and what is wrong with it."""
    model, beside, text = BAD_MODELS[kind]
    file = tmp_path / "model.keras"
    file.write_bytes(model)
    file.with_suffix(".json").write_text(beside)
    monkeypatch.setenv("MODEL_FILE", str(file))
    line = complaint()

    assert f"MODEL_FILE={file}" in line
    assert text in line


def test_a_description_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused like any other."""
    file = tmp_path / "model.keras"
    file.write_bytes(MODEL_FILE.read_bytes())
    file.with_suffix(".json").write_bytes(b'"\xff"')
    monkeypatch.setenv("MODEL_FILE", str(file))

    assert "does not describe the model" in complaint()

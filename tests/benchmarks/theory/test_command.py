"""`python -m benchmarks simulate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command


def test_a_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object, with what theory says of the same case."""
    assert command.main(["simulate", "--policy", "greedy", "--source", "poisson:300", "--items", "5000"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["mean"] == pytest.approx(found["theory"]["greedy_mean"], rel=0.03)
    assert found["theory"]["best_control_limit"] == 2


@pytest.mark.parametrize(
    ("source", "known"),
    [("clients:8", "throughput_bound"), ("bursts:50,3000", ""), ("poisson:99999", "")],
)
def test_what_is_known_of_other_sources(source: str, known: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bounds where there are any."""
    assert command.main(["simulate", "--source", source, "--items", "500", "--policy", "window:0.001"]) == 0
    assert set(json.loads(capsys.readouterr().out)["theory"]) == ({known} if known else set())


def test_recorded_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file; and what is none is told."""
    file = tmp_path / "times.json"
    file.write_text("[0.0, 0.5, 0.6]")
    assert command.main(["simulate", "--source", f"recorded:{file}", "--items", "3", "--speed-up", "1,1.5"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] >= 2
    file.write_text('"no list of seconds"')
    assert command.main(["simulate", "--source", f"recorded:{file}"]) == 2
    assert "is no JSON list of seconds" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "best"], "--policy must be greedy, adaptive, or window:SECONDS, not 'best'"),
        (["--policy", "window:x"], "'x' must be 1 number above 0"),
        (["--source", "poisson"], "'' must be 1 number above 0"),
        (["--source", "bursts:1"], "'1' must be 2 numbers above 0"),
        (["--source", "rain"], "--source must be poisson:RATE"),
        (["--concurrency", "0"], "concurrency must be a whole number"),
        (["--items", "0"], "--items must be 1 or more"),
        (["--speed-up", "x"], "could not convert"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong."""
    assert command.main(["simulate", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in " ".join(error.split())
    assert error.startswith("error: ")

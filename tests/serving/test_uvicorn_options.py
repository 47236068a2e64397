"""What uvicorn is told on its command line holds on the direct path as it does on the way through ASGI."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from tests.support.server import Server, serve

NAMED = {"BATCHER_MODEL": "tests.serving.models:Whole"}
WAYS = {"true": "the direct path", "false": "the way through ASGI: BATCHER_DIRECT is false"}


def took(server: Server, direct: str) -> bool:
    """Whether the log says which way predictions take."""
    return any(f"Predictions take {WAYS[direct]}" in line for line in server.log)


@pytest.mark.parametrize("direct", WAYS)
def test_tls(tmp_path: Path, direct: str) -> None:
    """One item, many items, and what is no item, all encrypted."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made.private_key_pem.write_to_path(key)
    made.cert_chain_pems[0].write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate))
    with serve(*options, app="batchers.serving:app", BATCHER_DIRECT=direct, **NAMED) as server:
        assert took(server, direct)
        with httpx.Client(base_url=server.url.replace("http:", "https:"), verify=False) as client:
            for _ in range(3):
                assert client.post("/predict", json="abc").json() == "ABC"
            assert client.post("/predict", json=1).status_code == 422
            assert client.post("/predict_many", json=["a", "b"]).json() == ["A", "B"]


@pytest.mark.parametrize("direct", WAYS)
def test_a_unix_socket(tmp_path: Path, direct: str) -> None:
    """Its clients have no address."""
    path = tmp_path / "socket"
    options = ("--uds", str(path))
    with serve(*options, app="batchers.serving:app", BATCHER_DIRECT=direct, **NAMED) as server:
        assert took(server, direct)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
            for _ in range(3):
                assert client.post("/predict", json="abc").json() == "ABC"


@pytest.mark.parametrize("direct", WAYS)
def test_a_limit_of_requests(direct: str) -> None:
    """The server ends after so many, which were all answered."""
    options = ("--limit-max-requests", "3")
    with serve(*options, app="batchers.serving:app", BATCHER_DIRECT=direct, **NAMED) as server:
        assert took(server, direct)
        with httpx.Client(base_url=server.url) as client:
            for _ in range(3):
                assert client.post("/predict", json="abc").json() == "ABC"
        assert server.wait() == 0


def test_a_limit_of_concurrency() -> None:
    """It is uvicorn's, which counts tasks: so predictions take the way through ASGI."""
    with serve("--limit-concurrency", "100", app="batchers.serving:app", **NAMED) as server:
        assert any("through ASGI: uvicorn limits the concurrency" in line for line in server.log)
        assert httpx.post(f"{server.url}/predict", json="abc").json() == "ABC"


LOGS = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"access": {"()": "uvicorn.logging.AccessFormatter", "fmt": "%(levelname)s - %(message)s"}},
    "handlers": {"errors": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "loggers": {
        "uvicorn.error": {"handlers": ["errors"], "level": "INFO"},
        "uvicorn.access": {"handlers": ["errors"], "level": "INFO", "propagate": False},
    },
}


def test_the_access_log(tmp_path: Path) -> None:
    """Its lines are the same, with the prefix of `--root-path`."""
    file = tmp_path / "logs.json"
    file.write_text(json.dumps(LOGS))
    options = ("--access-log", "--log-config", str(file), "--root-path", "/models")
    found = []
    for direct in WAYS:
        with serve(*options, app="batchers.serving:app", BATCHER_DIRECT=direct, **NAMED) as server:
            assert took(server, direct)
            httpx.post(f"{server.url}/predict", json="abc")
            httpx.post(f"{server.url}/predict/", json=1)
            httpx.post(f"{server.url}/predict", content="", headers={"Content-Type": "text/html"})
            server.terminate()
            assert server.wait() == 0
        lines = [line.partition(" - ")[2] for line in server.log if "/models/predict" in line]
        found.append(lines)
    assert found[0] == found[1]
    assert [line.rpartition(" ")[2] for line in found[0]] == ["200", "422", "422"]

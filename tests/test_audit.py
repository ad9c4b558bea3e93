"""The look-up of known vulnerabilities, against a database on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from audit import installed_packages, main


class Database(BaseHTTPRequestHandler):
    answer = b""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        body = (
            self.answer
            or json.dumps(
                {
                    "results": [
                        {"vulns": [{"id": "PYSEC-1"}]}
                        if query["package"]["name"] == "numpy"
                        else {}
                        for query in asked
                    ]
                }
            ).encode()
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def database() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_known_vulnerability_is_told(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(database) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("numpy ") and first.endswith(": PYSEC-1")
    assert last == f"{len(installed_packages())} packages, 1 with known vulnerabilities"


def test_versions_are_those_of_the_index() -> None:
    packages = dict(installed_packages())
    assert "+" not in packages["torch"] and {"numpy", "pandas", "pytest"} <= packages.keys()


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"results": []}', b'{"results": [1]}'])
def test_an_answer_that_is_none_skips_the_audit(
    database: str,
    answer: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Database, "answer", answer)
    assert main(database) == 0 and capsys.readouterr().out.startswith("skipped: ")


def test_without_a_network_the_audit_is_skipped_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main("http://127.0.0.1:9/") == 0
    assert "skipped: the advisory database gave no answer" in capsys.readouterr().out

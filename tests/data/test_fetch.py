"""Downloads from a server on this machine: resume, checksums, and no network."""

from __future__ import annotations

import hashlib
import http.server
import threading
from typing import ClassVar

import pytest

from deepmd_mft.cli import main
from deepmd_mft.data import fetch as module
from deepmd_mft.data.fetch import CATALOGUE, DataSource, RemoteFile, fetch
from deepmd_mft.errors import UserError
from tests.helpers.processes import hold

CONTENT = bytes(range(256)) * 40_000
SIZE = len(CONTENT)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, with or without ranges; cuts the first answer of ``/cut``."""

    requests: ClassVar[list[str | None]] = []

    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.path != "/norange" else 0
        self.send_response(206 if start else 200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/cut" and not start:
            body = body[: len(body) // 3]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """Address of a running server."""
    Handler.requests.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def remote(url, checksum=f"sha256:{SHA}", size=SIZE):
    """A file of the catalogue."""
    return RemoteFile(url, "data.bin", size, checksum)


def test_download(tmp_path, server):
    verdict = fetch(remote(f"{server}/whole"), tmp_path, progress=False)
    assert verdict == "sha256 agrees with the published one"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]
    again = fetch(remote(f"{server}/whole"), tmp_path, progress=False)
    assert again == "already there; sha256 agrees with the published one"
    assert Handler.requests == [None]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_resume(tmp_path, server, size):
    file = remote(f"{server}/cut", size=size)
    with pytest.raises(UserError, match="dp-mft fetch"):
        fetch(file, tmp_path, progress=False)
    kept = (tmp_path / "data.bin.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    assert not (tmp_path / "data.bin").exists()
    fetch(file, tmp_path, progress=False)
    assert Handler.requests == [None, f"bytes={kept}-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_server_without_ranges(tmp_path, server):
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    fetch(remote(f"{server}/norange"), tmp_path, progress=False)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_of_another_file(tmp_path, server):
    (tmp_path / "data.bin.part").write_bytes(b"x" * (SIZE + 1))
    with pytest.raises(UserError, match="it is another file: remove it"):
        fetch(remote(f"{server}/whole"), tmp_path, progress=False)


def test_wrong_checksum(tmp_path, server):
    with pytest.raises(UserError, match=r"sha256 .* is not the published one, 0000"):
        fetch(remote(f"{server}/whole", "sha256:0000"), tmp_path, progress=False)
    assert not (tmp_path / "data.bin").exists()


def test_unpublished_checksum_is_remembered(tmp_path, server):
    file = remote(f"{server}/whole", None, None)
    verdict = fetch(file, tmp_path, progress=False)
    assert verdict == f"no checksum is published; recorded sha256:{SHA} in data.bin.sha256.json"
    (tmp_path / "data.bin").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"is not the one in data\.bin\.sha256\.json"):
        fetch(file, tmp_path, progress=False)


def test_a_damaged_memory_of_the_checksum(tmp_path, server):
    (tmp_path / "data.bin").write_bytes(b"x")
    (tmp_path / "data.bin.sha256.json").write_text("[]")
    with pytest.raises(UserError, match=r"sha256\.json is damaged"):
        fetch(remote(f"{server}/whole", None, None), tmp_path, progress=False)


def test_two_processes_do_not_share_one_part(tmp_path, server):
    process = hold(tmp_path / "data.bin", "locked", "pass")
    try:
        with pytest.raises(UserError, match=f"is being written by process {process.pid}"):
            fetch(remote(f"{server}/whole"), tmp_path, progress=False)
    finally:
        process.kill()
        process.wait()
    fetch(remote(f"{server}/whole"), tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_no_network(tmp_path):
    file = remote("http://127.0.0.1:9/x")
    with pytest.raises(UserError) as caught:
        fetch(file, tmp_path, progress=False)
    message = str(caught.value)
    assert "no connection to http://127.0.0.1:9/x" in message
    assert f"put it at {tmp_path / 'data.bin'}" in message


def test_gone(tmp_path, server):
    with pytest.raises(UserError, match="answers 404 Not Found"):
        fetch(remote(f"{server}/missing"), tmp_path, progress=False)


def test_no_room(tmp_path, server, monkeypatch):
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs 10\.2 MB, but only 10 bytes are free"):
        fetch(remote(f"{server}/whole"), tmp_path, progress=False)


def test_cli(tmp_path, server, monkeypatch, capsys):
    entry = DataSource("Bytes", (remote(f"{server}/whole"),), "CC0", "nobody", "dp-mft convert x")
    monkeypatch.setitem(CATALOGUE, "bytes", entry)
    assert main(["fetch"]) == 0
    assert "qm9  " in capsys.readouterr().out
    assert main(["fetch", "bytes", "--to", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "licence    CC0" in shown
    assert "data.bin, 10.2 MB" in shown
    assert not list(tmp_path.iterdir())
    assert main(["fetch", "bytes", "--to", str(tmp_path)]) == 0
    assert "agrees with the published one" in capsys.readouterr().out
    assert main(["fetch", "nothing"]) == 1
    assert "there are qm9, matbench_dielectric" in capsys.readouterr().err

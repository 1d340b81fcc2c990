"""Recordings by address: from hosts of the operator's list alone, whatever a name resolves to."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from server_process import SPEECH, RunningServer, error_of, speech, wav_bytes

from unison_audio.cli import main as cli
from unison_audio.server import reference_hosts
from unison_audio.server.api_errors import ApiError
from unison_audio.server.reference_hosts import ReferenceHosts

PUBLIC = "93.184.216.34"


class Handler(BaseHTTPRequestHandler):
    """Sends the recording, or something else, by the path."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            return self.end_headers()
        if self.path == "/none":
            return self.send_error(404)
        data = b"x" * 3000 if self.path == "/large" else wav_bytes()
        self.send_response(200)
        if self.path != "/large":
            self.send_header("Content-Length", str(len(data) + (self.path == "/short")))
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.path == "/slow":
            for byte in data[:100]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        else:
            self.wfile.write(data)
        return None

    def log_message(self, *words: Any) -> None:
        """Nothing on stderr."""


def serve(port: int = 0) -> ThreadingHTTPServer:
    own = type("Own", (Handler,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", port), own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def files() -> Iterator[ThreadingHTTPServer]:
    server = serve()
    yield server
    server.shutdown()
    server.server_close()


def refusal(hosts: ReferenceHosts, url: str, most: int = 10**6) -> ApiError:
    with pytest.raises(ApiError) as raised:
        hosts.fetch(url, most)
    assert raised.value.param == "ref_audio"
    return raised.value


def test_what_is_fetched_and_what_is_refused(
    files: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"127.0.0.1:{files.server_port}"
    hosts = ReferenceHosts([at, "MEDIA.example.org"])
    assert hosts.fetch(f"http://{at}/a.wav?b=1#c", 10**6) == wav_bytes()
    assert hosts.fetch(f"http://{at}/to//a.wav", 10**6) == wav_bytes()
    asked = files.RequestHandlerClass.asked
    assert asked[0] == ("/a.wav?b=1", at)
    for url, status, said in (
        (f"http://{at}/large", 413, "larger than 2,000 bytes"),
        (f"http://{at}/none", 400, "answers 404"),
        (f"http://{at}/short", 400, "cannot be fetched"),
        (f"http://{at}/packed", 400, "compressed"),
        (f"http://{at}/to/http://media.example.org/a.wav", 400, "another host"),
        (f"http://{at}/to/http://127.0.0.1:1/a.wav", 400, "does not fetch from"),
        (f"http://{at}/to/file:///etc/passwd", 400, "http or https"),
        (f"http://{at}/to//to//to//to//to//a.wav", 400, "more than 3 times"),
        (f"https://{at}/a.wav", 400, "cannot be fetched"),  # it speaks no TLS
    ):
        error = refusal(hosts, url, 2000 if "large" in url else 10**6)
        assert error.status == status
        assert said in error.message
    asked.clear()
    for url in (
        "http://127.0.0.1/a.wav",  # another port
        f"http://localhost:{files.server_port}/a.wav",
        f"http://me@{at}/a.wav",
        f"http://{at}\\@other/a.wav",
        f"http://{at}.example.org/a.wav",
        f"ftp://{at}/a.wav",
        "file:///etc/passwd",
        "/etc/passwd",
        f"http://{at}/a b",
        f"http://{at}/ä",
        "http://[::1/a",
        "http://sub.media.example.org/a",
    ):
        assert refusal(hosts, url).status == 400
    assert asked == []
    monkeypatch.setattr(reference_hosts, "FETCH_SECONDS", 0.5)
    started = time.monotonic()
    assert "longer than 0.5 s" in refusal(hosts, f"http://{at}/slow").message
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:192.168.1.1", "fd00::1", "0.0.0.0"],
)
def test_a_public_name_with_a_private_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def resolve(name: str, port: int, **options: Any) -> list[Any]:
        return [(0, 0, 0, "", (found, port)) for found in (PUBLIC, address)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    hosts = ReferenceHosts(["media.example.org"])
    assert "private address" in refusal(hosts, "https://media.example.org/a.wav").message


def test_the_address_that_was_checked_is_the_one_connected_to(
    files: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, tried = socket.create_connection, []

    def resolve(name: str, port: int, **options: Any) -> list[Any]:
        return [(0, 0, 0, "", (PUBLIC, port))]

    def to_here(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(address)
        here = socket.socket()
        here.settimeout(timeout)
        here.connect(("127.0.0.1", files.server_port))
        return here

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", to_here)
    hosts = ReferenceHosts(["media.example.org"])
    assert hosts.fetch("http://Media.Example.org/a.wav", 10**6) == wav_bytes()
    assert tried == [(PUBLIC, 80)]
    assert files.RequestHandlerClass.asked == [("/a.wav", "media.example.org")]
    assert connect is not socket.create_connection


def test_a_request_names_an_address(server: RunningServer, client: httpx2.Client) -> None:
    files = serve(server.references)
    try:
        at = f"http://127.0.0.1:{server.references}"
        fields = speech(ref_audio=f"{at}/a.wav", ref_text="good morning", input="no")
        answer = client.post(SPEECH, json=fields)
        assert answer.status_code == 200
        bad = client.post(SPEECH, json=fields | {"ref_audio": f"{at}/large"})
        assert "ref_audio is no recording" in error_of(bad, 400)["message"]
        other = client.post(SPEECH, json=fields | {"ref_audio": "http://10.0.0.1/a.wav"})
        assert "does not fetch from" in error_of(other, 400)["message"]
    finally:
        files.shutdown()
        files.server_close()


@pytest.mark.parametrize("host", ["https://a.example", "a.example/x", "", "a b", "a:99999"])
def test_a_host_that_is_none_is_named(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert cli.main(["serve", "--allow-reference-host", host]) == 2
    assert "cannot be used; give a name or an address alone" in capsys.readouterr().err

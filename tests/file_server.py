"""A web server on this machine that can be told to misbehave."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What is served, how, and what was asked for."""

    files: dict[str, bytes]
    url: str = ""
    ranges: bool = True  # whether it sends parts
    break_after: int | None = None  # bytes after which the next answer breaks off
    status: int | None = None  # instead of the file
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range)


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Served]:
    served = Served(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            served.asked.append((self.path, wanted))
            content = served.files.get(self.path[1:])
            if content is None or served.status is not None:
                return self.send_error(served.status or 404)
            first = 0
            if wanted is not None and served.ranges:
                first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if first >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
            self.send_response(206 if first else 200)
            if first:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            end = None if served.break_after is None else first + served.break_after
            served.break_after = None
            self.wfile.write(content[first:end])
            return None

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

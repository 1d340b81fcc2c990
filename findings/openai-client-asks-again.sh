#!/usr/bin/env bash
# OpenAI's client asks for a speech three times when its sound breaks off
#
# Guess: A POST that had been answered with 200 is not sent again; a name that is taken (409) is
# final.
# Found: create() reads the whole sound before it returns. If the connection breaks off inside the
# sound, the client sends the POST again, twice, without an idempotency key. It does the same at
# 409 and 504. The header x-should-retry: false in an answer stops it there; after a broken body
# nothing can. With with_streaming_response the POST is sent once.
# Why it matters here: A speech server that fails halfway does the same work three times, and a
# voice that exists is stored again and again. Our server sends the header where a second try
# cannot help.
# Versions: openai==3.57.0; Python 3.11, Linux.
# Output seen:
#   sound breaks off: APIConnectionError after 3 requests, keys: [None, None, None]
#   409: ConflictError after 3 requests
#   409 with x-should-retry: ConflictError after 1 requests
#   streaming breaks off: RemoteProtocolError after 1 requests
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openai import OpenAI

requests, answer = [], {}


class Speech(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        requests.append(self.headers.get("Idempotency-Key"))
        self.send_response(answer["status"])
        for name, value in answer.get("headers", {}).items():
            self.send_header(name, value)
        # More bytes are stated than come, as of a server that dies at its work.
        self.send_header("Content-Length", "1000" if answer["status"] == 200 else "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Speech)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1")
speech = {"model": "tts-1", "voice": "alloy", "input": "hello"}


def outcome(call, **given):
    requests.clear()
    answer.clear()
    answer.update(given)
    try:
        call()
    except Exception as error:
        return type(error).__name__, len(requests)
    return "no error", len(requests)


def whole():
    client.audio.speech.create(**speech)


def streamed():
    with client.audio.speech.with_streaming_response.create(**speech) as sound:
        sound.read()


broken = outcome(whole, status=200)
print(f"sound breaks off: {broken[0]} after {broken[1]} requests, keys: {requests}")
keys = list(requests)
taken = outcome(whole, status=409)
print(f"409: {taken[0]} after {taken[1]} requests")
final = outcome(whole, status=409, headers={"x-should-retry": "false"})
print(f"409 with x-should-retry: {final[0]} after {final[1]} requests")
part = outcome(streamed, status=200)
print(f"streaming breaks off: {part[0]} after {part[1]} requests")
assert broken[1] == taken[1] == 3 and keys == [None] * 3
assert final[1] == part[1] == 1
PYTHON

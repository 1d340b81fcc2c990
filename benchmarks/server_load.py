"""Loads a running server with many clients, and compares every answer with a single one.

`python benchmarks/server_load.py --url http://127.0.0.1:8000 --clients 64 --seconds 300` first asks
one by one for a tenth of the time, then with all clients at once. It reports lost and wrong
answers, the ratio of the throughputs, the 95th percentile of the first byte, and the memory.
`--requests 2000` asks for so many short sounds of few steps instead, and reports the memory on the
way.
"""

import dataclasses
import io
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cyclopts
import soundfile

BODIES = [
    *({"input": "rain", "audio_length": 1.5 + 0.1 * i, "seed": i} for i in range(8)),
    *({"input": "a dog barking", "audio_length": 2.0, "seed": i} for i in range(8)),
]
"""Requests to `/v1/audio/generate`; a body always gives the same sound."""


@dataclasses.dataclass
class Tally:
    """What the clients saw."""

    first_bytes: list[float] = dataclasses.field(default_factory=list)
    lost: int = 0
    wrong: int = 0
    busy: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def ask(url: str, body: dict[str, Any]) -> tuple[float, bytes]:
    """One request: seconds to the first byte, and the answer."""
    request = urllib.request.Request(
        f"{url}/v1/audio/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        head = answer.read(1)
        return time.perf_counter() - started, head + answer.read()


def client(url: str, number: int, end: float, expected: list[bytes], tally: Tally) -> None:
    """Ask again and again; a full queue is waited for, as the server says."""
    turn = number
    while time.perf_counter() < end:
        turn += 1
        which = turn % len(BODIES)
        try:
            first, data = ask(url, BODIES[which])
        except urllib.error.HTTPError as error:
            with tally.lock:
                tally.busy += error.code == 429
                tally.lost += error.code != 429
            if error.code == 429:
                time.sleep(float(error.headers["Retry-After"]))
            continue
        except OSError:
            with tally.lock:
                tally.lost += 1
            continue
        with tally.lock:
            tally.first_bytes.append(first)
            tally.wrong += not agree(data, expected[which])


def agree(first: bytes, second: bytes) -> bool:
    """Whether two WAV files differ by at most one step of 16 bits.

    Sounds of equal length are decoded together, which changes their last bits of float32.
    """
    one, two = (soundfile.read(io.BytesIO(data), dtype="int16")[0] for data in (first, second))
    return one.shape == two.shape and int(abs(one.astype(int) - two).max()) <= 1


def memory(url: str) -> dict[str, float]:
    """Megabytes of each process."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {
        line.split('"')[1]: float(line.rsplit(" ", 1)[1]) / 1e6
        for line in lines
        if line.startswith("unison_audio_memory_bytes{")
    }


def endure(url: str, clients: int, requests: int) -> None:
    """Ask for many short sounds and print the memory after every 200."""
    bodies = [
        {"input": "rain", "audio_length": 0.5 + 0.1 * (i % 8), "seed": i, "steps": 2}
        for i in range(requests)
    ]
    started, first = time.perf_counter(), ask(url, bodies[0])[1]
    print("requests  seconds  " + "  ".join(f"{name:>6} MB" for name in memory(url)))
    with ThreadPoolExecutor(clients) as pool:
        for begin in range(0, requests, 200):
            list(pool.map(lambda body: ask(url, body), bodies[begin : begin + 200]))
            used = "  ".join(f"{size:9.1f}" for size in memory(url).values())
            done = min(begin + 200, requests)
            print(f"{done:8d}  {time.perf_counter() - started:7.0f}  {used}", flush=True)
    same = agree(first, ask(url, bodies[0])[1])
    print(f"the first answer again: {'the same' if same else 'ANOTHER'}")


def load(
    url: str = "http://127.0.0.1:8000",
    clients: int = 64,
    seconds: float = 300,
    requests: int = 0,
) -> None:
    """Load a server and print what came of it.

    Args:
        url: Where it listens.
        clients: Clients at the same time.
        seconds: How long they ask.
        requests: Ask for so many short sounds instead, and watch the memory.
    """
    if requests:
        endure(url, clients, requests)
        return
    expected = [ask(url, body)[1] for body in BODIES]

    def measure(count: int, length: float) -> tuple[Tally, float]:
        tally, started = Tally(), time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            for number in range(count):
                pool.submit(client, url, number, started + length, expected, tally)
        return tally, len(tally.first_bytes) / (time.perf_counter() - started)

    alone, alone_rate = measure(1, seconds / 10)
    before = memory(url)
    together, rate = measure(clients, seconds)
    waits = sorted(together.first_bytes)
    print(f"one by one: {alone_rate:.2f} answers a second, {alone.wrong} wrong")
    print(f"{clients} clients: {rate:.2f} a second, {rate / alone_rate:.2f} of one by one")
    print(
        f"{len(waits)} answers, {together.wrong} wrong, {together.lost} lost, {together.busy} busy"
    )
    median, late = (waits[int(share * (len(waits) - 1))] for share in (0.5, 0.95))
    print(f"first byte: median {median:.2f} s, p95 {late:.2f} s")
    for process, now in memory(url).items():
        print(f"memory of the {process}: {before[process]:.0f} -> {now:.0f} MB")


if __name__ == "__main__":
    cyclopts.run(load)

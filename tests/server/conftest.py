"""One server on nano for all tests of this folder."""

from collections.abc import Iterator
from dataclasses import replace

import httpx2
import pytest
from openai import OpenAI
from server_process import RunningServer, free_port, start_server, stop_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    port, references = free_port(), free_port()
    flags = ("--max-requests", "6", "--wyoming", str(port))
    allowed = ("--allow-reference-host", f"127.0.0.1:{references}")
    running = start_server(tmp_path_factory.mktemp("server"), *flags, *allowed)
    running = replace(running, wyoming=port, references=references)
    yield running
    stop_server(running)
    unexpected = ("request failed", "sound failed")
    assert not [entry for event in unexpected for entry in running.entries(event)]


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[httpx2.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture(scope="session")
def openai(server: RunningServer) -> OpenAI:
    return server.openai()

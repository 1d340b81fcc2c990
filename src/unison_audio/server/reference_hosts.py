"""Recordings of voices that a request names by address: fetched from hosts of the operator's list.

Without a list no address is opened at all. An address that a name resolves to is checked and then
connected to, so that a second look-up cannot lead elsewhere.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from unison_audio.errors import InputError
from unison_audio.server.api_errors import ApiError

FETCH_SECONDS = 20.0
"""Time for one recording, redirects included."""

MOST_REDIRECTS = 3

MOST_FETCHES = 4
"""Recordings that are fetched at the same time; a host that is slow would hold up all threads."""

PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z](?:[0-9a-z.-]*[0-9a-z])?)(?::(\d{1,5}))?")

_CHUNK = 1 << 16

_BOTH = socket.SHUT_RDWR


@dataclass(frozen=True)
class AllowedHost:
    """One entry of the operator's list."""

    name: str
    """Name or address, in lower case."""
    port: int | None
    """Port; None for the scheme's own."""

    @property
    def is_private(self) -> bool:
        """Whether the entry itself names this machine or a private network."""
        address = _address(self.name)
        return self.name == "localhost" if address is None else not _is_public(address)


class ReferenceHosts:
    """The hosts that recordings may be fetched from.

    Args:
        hosts: Names or addresses, with a port where it is not the scheme's own.

    Raises:
        InputError: One is no host.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._allowed = [_read_host(host) for host in hosts]
        self._free = threading.BoundedSemaphore(MOST_FETCHES)

    def __bool__(self) -> bool:
        """Whether any host is allowed."""
        return bool(self._allowed)

    def fetch(self, url: str, most: int) -> bytes:
        """Fetch a recording.

        Args:
            url: Its address, http or https.
            most: Bytes that it may have.

        Raises:
            ApiError: The address is not allowed, cannot be reached, or holds too much.
        """
        if not self._free.acquire(blocking=False):
            raise ApiError(
                429,
                f"{MOST_FETCHES} recordings are being fetched already; try again later.",
                param="ref_audio",
                retry_after=int(FETCH_SECONDS),
            )
        end = time.monotonic() + FETCH_SECONDS
        try:
            return self._follow(url, most, end)
        except (OSError, HTTPException, ValueError) as error:
            late = time.monotonic() >= end
            why = f"it took longer than {FETCH_SECONDS:g} s" if late else type(error).__name__
            raise _refused(f"ref_audio cannot be fetched ({why}); send a data URL.") from error
        finally:
            self._free.release()

    def _follow(self, url: str, most: int, end: float) -> bytes:
        first = self._check(url)
        parts, host = first
        for _ in range(MOST_REDIRECTS + 1):
            connection = _connect(parts, host, end)
            # A host that sends a byte a second never meets the socket's own timeout.
            alarm = threading.Timer(_left(end), socket.socket.shutdown, (connection.sock, _BOTH))
            alarm.start()
            try:
                target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
                connection.request("GET", target, headers={"Accept-Encoding": "identity"})
                answer = connection.getresponse()
                if answer.status not in (301, 302, 303, 307, 308):
                    return _read(answer, most)
                parts, host = self._check(urljoin(parts.geturl(), answer.headers["Location"] or ""))
                if host != first[1] or (first[0].scheme, parts.scheme) == ("https", "http"):
                    raise _refused("ref_audio leads to another host; give the recording's own URL.")
            finally:
                alarm.cancel()
                connection.close()
        raise _refused(f"ref_audio leads on more than {MOST_REDIRECTS} times.")

    def _check(self, url: str) -> tuple[SplitResult, AllowedHost]:
        """The parts of an address and the entry that allows it."""
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise _refused("ref_audio is no URL; percent-encode what is not plain ASCII.")
        try:
            parts = urlsplit(url)
            port, name = parts.port, (parts.hostname or "").lower()
        except ValueError as error:
            raise _refused("ref_audio is no URL.") from error
        if parts.scheme not in PORTS or "@" in parts.netloc:
            raise _refused("ref_audio must be a data URL, or an http or https URL without a user.")
        for host in self._allowed:
            own = PORTS[parts.scheme] if host.port is None else host.port
            if (host.name, own) == (name, PORTS[parts.scheme] if port is None else port):
                return parts, host
        raise _refused("ref_audio names a host that this server does not fetch from.")


def _read_host(text: str) -> AllowedHost:
    match = _HOST.fullmatch(text.strip().lower())
    port = None if match is None or match[2] is None else int(match[2])
    if match is None or not (port is None or 0 < port < 65536):
        raise InputError(
            f"The host {text!r} cannot be used; give a name or an address alone, such as "
            "media.example.org or 192.168.1.5:8080."
        )
    return AllowedHost(match[1].strip("[]"), port)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    found = mapped or address
    return found.is_global and not found.is_multicast


def _connect(parts: SplitResult, host: AllowedHost, end: float) -> HTTPConnection:
    """Connect to the host, at an address that was checked."""
    port = parts.port or PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(host.name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _refused("The host of ref_audio is not known; check its name.") from error
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not host.is_private and not all(map(_is_public, addresses)):
        # Whoever keeps the name could otherwise reach into the operator's network.
        raise _refused(
            "The host of ref_audio has a private address; the server's operator can allow that by "
            "naming the address itself."
        )
    stream = _open(addresses, port, end)
    if parts.scheme == "https":
        stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host.name)
    connection = HTTPConnection(host.name, port)
    connection.sock = stream
    return connection


def _open(addresses: Sequence[IPv4Address | IPv6Address], port: int, end: float) -> socket.socket:
    failure: OSError = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((str(address), port), timeout=_left(end))
        except OSError as error:
            failure = error
    raise failure


def _read(answer: HTTPResponse, most: int) -> bytes:
    if answer.status != 200:
        raise _refused(f"ref_audio cannot be fetched: its host answers {answer.status}.")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise _refused("ref_audio comes compressed; give a URL that sends the file as it is.")
    data = bytearray()
    while part := answer.read(_CHUNK):
        data += part
        if len(data) > most:
            raise ApiError(413, f"ref_audio is larger than {most:,} bytes.", param="ref_audio")
    if answer.length:
        raise ConnectionError("the answer broke off")
    return bytes(data)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refused(message: str) -> ApiError:
    return ApiError(400, message, param="ref_audio")

"""Who may see the page: one password for all, told once a month by a form or with each request by HTTP basic.

    access = Access(password, {"localhost"})
    access.admits_host(request.host)            # without a password: only asked for under a name of this machine
    access.try_password(address, guess)         # Verdict: admitted, or how many seconds to wait before the next guess

A form and a cookie, since some browsers do not send a password they were asked for along with sound and event streams;
HTTP basic (any user name) beside it, for curl and scripts. The cookie is signed with a key that is made from the password:
it outlives a restart of the server, and a new password ends all sessions.

The connection is not encrypted. For more than a network of your own put a reverse proxy with TLS before the page
(Caddy, nginx), leave the page on loopback, and set a password nevertheless.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError

FREE_GUESSES = 3
LONGEST_WAIT = 60.0  # seconds between two guesses of an address; doubled from one second on with each wrong one
ADDRESSES = 1000  # that are remembered
SALT = b"birdcall page"


class Verdict(NamedTuple):
    """Is the guess right? If it was not even looked at: after how many seconds the next one will be."""

    admitted: bool
    wait: float = 0.0


class Access:
    """The password ("" for none) and the host names by which the page may be asked for where there is none."""

    def __init__(self, password: str, hosts: set[str]) -> None:
        self._password = _bytes(password)
        self._hosts = {"localhost", "127.0.0.1", "::1", *(host.lower() for host in hosts)}
        self._wrong: OrderedDict[str, tuple[int, float]] = (
            OrderedDict()
        )  # address: wrong guesses, when the next is heard

    @property
    def needs_password(self) -> bool:
        """Is there a password?"""
        return bool(self._password)

    @property
    def cookie_secret(self) -> bytes:
        """What cookies are signed with; slow to make, so that nobody finds the password by it."""
        return hashlib.scrypt(self._password, salt=SALT, n=1 << 14, r=8, p=1, dklen=32)

    def admits_host(self, host: str) -> bool:
        """May the page be asked for under this Host header?

        Without a password a page on loopback trusts all who are on this machine, and so does every web site that its
        browser visits: one whose name is made to lead to 127.0.0.1 could read the page, were its name not refused.
        """
        name = host.rsplit(":", 1)[0] if host.rfind(":") > host.rfind("]") else host
        return self.needs_password or name.strip("[]").lower() in self._hosts

    def try_password(self, address: str, guess: str, now: float | None = None) -> Verdict:
        """Compare a guess from this address, unless it comes too soon after a wrong one. now: monotonic seconds."""
        now = time.monotonic() if now is None else now
        network = _network(address)
        wrong, heard_from = self._wrong.get(network, (0, 0.0))
        if now < heard_from:
            return Verdict(False, heard_from - now)
        # Digests, since a comparison in constant time still tells the lengths apart.
        digests = [hmac.digest(SALT, text, "sha256") for text in (self._password, _bytes(guess))]
        if self.needs_password and hmac.compare_digest(*digests):
            self._wrong.pop(network, None)
            return Verdict(True)
        wait = 0.0 if wrong + 1 < FREE_GUESSES else min(LONGEST_WAIT, 2.0 ** min(wrong + 1 - FREE_GUESSES, 30))
        self._wrong[network] = wrong + 1, now + wait
        self._wrong.move_to_end(network)
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)
        return Verdict(False)


def basic_password(header: str) -> str | None:
    """The password of an Authorization header of the kind `Basic`; None if it is no such header."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8", "surrogateescape").partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def read_password(variable: str | None, file: Path | None) -> str:
    """The password from a file's first line, or from the variable's value; "" if there is neither. Raises UserError."""
    if file is None:
        return variable or ""
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{file}: the password cannot be read: {error.strerror}") from error
    password = text.split("\n", 1)[0].rstrip("\r")
    if not password:
        raise UserError(f"{file}: holds no password in its first line; write one")
    return password


def is_loopback(host: str) -> bool:
    """Can only this machine reach a server that listens there? Raises UserError for a name that leads nowhere."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: is no address of this machine: {error}") from error
    return all(ipaddress.ip_address(address[0].partition("%")[0]).is_loopback for *_, address in found)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _network(address: str) -> str:
    """The address; of IPv6 the network of 64 bits, all of which one guesser may have."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)

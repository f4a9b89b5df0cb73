"""Tells systemd that the listener is ready, alive, or ending, so that it is restarted when it hangs and not only when it dies.

    watchdog = Watchdog()        # of a unit with Type=notify and WatchdogSec=60
    watchdog.ready()
    while listening:
        watchdog.alive()         # as often as you like; sent as often as the unit wants it
    watchdog.stopping()

The protocol is a line of text in a datagram to the Unix socket $NOTIFY_SOCKET (`man sd_notify`). Where that is not set,
on a terminal or in a container, every call does nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Callable, Mapping

PINGS_A_PERIOD = 4  # two are enough for systemd; more leave room for a window that takes long


class Watchdog:
    """The listener's line to systemd.

    environment: where $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID are looked up
    monotonic: the clock by which signs of life are sent

    No call waits or raises: a service manager that does not listen is no reason to stop listening.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        address = environment.get("NOTIFY_SOCKET", "")
        # An @ stands for the zero byte that abstract sockets begin with.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._every_seconds = _period_seconds(environment) / PINGS_A_PERIOD
        self._next = -math.inf  # when the next sign of life is due, by the monotonic clock

    def ready(self) -> None:
        """The model is loaded and the source is watched: what waits for this service may start."""
        self._send("READY=1")
        self.alive()

    def alive(self) -> None:
        """The loop still goes round. Nothing is sent where the unit has no WatchdogSec."""
        now = self._monotonic()
        if now >= self._next and self._every_seconds < math.inf:
            self._next = now + self._every_seconds
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def stopping(self) -> None:
        """The end was asked for and has begun."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line_out:
            line_out.setblocking(False)  # the socket's queue may be full
            line_out.sendto(line.encode(), self._address)


def _period_seconds(environment: Mapping[str, str]) -> float:
    """The unit's WatchdogSec; infinite where it has none, or where it is another process that is watched."""
    try:
        watched = int(environment.get("WATCHDOG_PID") or os.getpid())
        microseconds = int(environment.get("WATCHDOG_USEC") or 0)
    except ValueError:
        return math.inf
    return microseconds / 1e6 if microseconds > 0 and watched == os.getpid() else math.inf

"""A microphone, heard by a child process that writes into a ring which both share.

    microphone = Microphone("usb", channel="mean", sample_rate=None, wanted_rate=32000)
    heard = microphone.read()                # nothing at first: it opens while one waits
    microphone.close()                       # kills the child: there is nothing that could hang

Each opening is a process of its own (edge/portaudio.py says why): it finds the microphone by name wherever it is plugged
in now. It costs 0.1 s of CPU and, as long as it runs, 36 MB.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from edge import child
from edge.ring import RING_SECONDS, shared_memory, shared_ring
from edge.source import LiveSource, SourceLostError
from edge.tables import NO_MICROPHONE, STOPPED
from src.errors import UserError

PROGRAM = Path(__file__).resolve().parent / "portaudio.py"
HANG_SECONDS = 5.0  # a virtual microphone that is idle starts 2 s late
OPEN_SECONDS = 10.0


class Microphone(LiveSource):
    """A microphone by name.

    device: the name or a part of it, upper or lower case; None for the default input
    channel: "mean" of all, or the number of one, from 1
    sample_rate: Hz that must be had; None for `wanted_rate`, or the device's own where it refuses that
    """

    def __init__(
        self,
        device: str | None,
        channel: str | int,
        sample_rate: int | None,
        wanted_rate: int,
        hang_seconds: float = HANG_SECONDS,
        ring_seconds: float = RING_SECONDS,
    ) -> None:
        super().__init__(device or "default", channel, hang_seconds, OPEN_SECONDS)
        self._memory = shared_memory()
        ask = {"device": device, "channel": channel, "rate": sample_rate, "wanted_rate": wanted_rate}
        ask = {**ask, "ring": self._memory, "ring_seconds": ring_seconds}
        self._child = child.start([sys.executable, str(PROGRAM), json.dumps(ask)], [self._memory])
        os.set_blocking(self._child.stdout.fileno(), False)
        self._told = b""  # the beginning of a line
        self._fault: Exception | None = None

    @property
    def shown(self) -> str:
        """What to call it in a sentence."""
        return f"microphone {self.name!r}"

    def _gone(self) -> Exception | None:
        """SourceLostError, or UserError for a fault that waiting does not mend."""
        try:
            told = os.read(self._child.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return self._fault
        *lines, self._told = (self._told + told).split(b"\n")
        for words in map(json.loads, lines):
            self._hear_of(words)
        if not told and self._fault is None:
            self._fault = SourceLostError(STOPPED, f"the process that heard {self.shown} has ended")
        return self._fault

    def _hear_of(self, words: dict[str, Any]) -> None:
        if "fault" not in words:
            self.name = words["name"]
            self._opened(shared_ring(self._memory, words["capacity"], words["channels"]), words["rate"])
        elif words["mendable"]:
            self._fault = SourceLostError(STOPPED if self._ring else NO_MICROPHONE, words["fault"])
        else:
            self._fault = UserError(words["fault"])

    def close(self) -> None:
        """Kill the child."""
        child.end(self._child)
        super().close()
        os.close(self._memory)

"""A stream from the network, rtsp:// or http://, which ffmpeg receives and decodes.

    stream = Stream("rtsp://user:secret@camera/audio")
    heard = stream.read()
    stream.name                              # "rtsp://camera/audio": nothing secret reaches the journal
    stream.close()

A stream has no end: where it breaks, capture.py opens it again. Samples come at the stream's own rate, as a microphone's do.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import threading
import time
from urllib.parse import urlsplit

import numpy as np

from edge import child
from edge.ring import RING_SECONDS, SAMPLE_BYTES, RingBuffer
from edge.source import MEAN, LiveSource, SourceLostError
from edge.tables import NO_MICROPHONE, STOPPED
from src.errors import UserError

SCHEMES = ("rtsp", "rtsps", "http", "https")
HANG_SECONDS = 10.0
OPEN_SECONDS = 20.0
PIPE_BYTES = 1 << 16
AHEAD_SECONDS = 15.0  # half of the ring: a server sends some seconds at once at first, a file on a server all of it
PACE = 1.01  # how fast it may go on: 1 would hold up a camera whose clock is fast, by more every day
REMARK_SECONDS, REMARK_LENGTH = 1.0, 200
WHERE = re.compile(r"^\[[^]]*@ 0x[0-9a-f]+\] *")  # which part of ffmpeg says it, by an address that is never the same
USER = re.compile(r"//[^/@\s]+@")
AU_HEADER = struct.Struct(">4s5I")  # magic, offset of the samples, their size, encoding, rate in Hz, channels


def is_stream(text: str) -> bool:
    """Whether --input is the address of a stream, and not the name of a file."""
    return "://" in text


def shown(url: str) -> str:
    """The address without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Stream(LiveSource):
    """A stream by its address. Raises UserError for one that ffmpeg cannot be asked for, or without ffmpeg.

    channel: "mean" of all, or the number of one, from 1
    """

    def __init__(
        self,
        url: str,
        channel: str | int,
        hang_seconds: float = HANG_SECONDS,
        ring_seconds: float = RING_SECONDS,
    ) -> None:
        super().__init__(shown(url), channel, hang_seconds, OPEN_SECONDS)
        scheme = urlsplit(url).scheme.lower()
        if scheme not in SCHEMES:
            raise UserError(f"{self.name}: is neither a file nor a stream that can be heard ({', '.join(SCHEMES)})")
        if shutil.which("ffmpeg") is None:
            raise UserError("a stream needs ffmpeg: sudo apt-get install ffmpeg")
        self._url = url
        self._ring_seconds = ring_seconds
        self._remark = "it ended"
        self._closed = threading.Event()
        self._fault: Exception | None = None
        command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-analyzeduration", "1000000"]
        if scheme.startswith("rtsp"):
            command += ["-rtsp_transport", "tcp", "-allowed_media_types", "audio"]
        # An AU file says rate and channels in its first bytes, and then holds samples only.
        command += ["-i", url, "-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
        self._child = child.start(command, stderr=subprocess.PIPE)
        self._listening = threading.Thread(target=self._keep_remarks, daemon=True)
        self._filling = threading.Thread(target=self._fill, daemon=True)
        self._listening.start()
        self._filling.start()

    def _gone(self) -> Exception | None:
        """SourceLostError, or UserError for a fault that waiting does not mend."""
        return self._fault

    def _fill(self) -> None:
        """Copy what ffmpeg decodes into the ring until it ends. Runs in a thread, since a reader may be late."""
        pipe = self._child.stdout
        header = pipe.read(AU_HEADER.size)
        if len(header) == AU_HEADER.size:
            _, offset, _, _, rate, channels = AU_HEADER.unpack(header)
            pipe.read(offset - AU_HEADER.size)
            if self._channel != MEAN and int(self._channel) > channels:
                self._fault = UserError(
                    f"{self.name} has {channels} channel(s): --channel {self._channel} is none of them"
                )
                return
            ring = RingBuffer(round(self._ring_seconds * rate), channels)
            self._opened(ring, rate)
            self._copy(ring, rate)
        self._listening.join(REMARK_SECONDS)
        self._fault = SourceLostError(STOPPED if self._ring else NO_MICROPHONE, f"{self.name}: {self._remark}")

    def _copy(self, ring: RingBuffer, rate: int) -> None:
        frame_bytes = SAMPLE_BYTES * ring.channels
        began, rest = time.monotonic(), b""
        while block := self._child.stdout.read1(PIPE_BYTES):
            rest += block
            whole = len(rest) // frame_bytes * frame_bytes
            samples = np.frombuffer(rest[:whole], ">f4").astype(np.float32)
            rest = rest[whole:]
            ring.write(np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0))
            ahead = ring.written / rate - PACE * (time.monotonic() - began)
            self._closed.wait(max(0.0, ahead - AHEAD_SECONDS))

    def _keep_remarks(self) -> None:
        """Keep the last line of what ffmpeg complains about, without secrets. Runs in a thread."""
        for line in self._child.stderr:
            text = line.decode("utf-8", "replace").strip().replace(self._url, self.name)
            text = USER.sub("//", WHERE.sub("", text)).replace(f"{self.name}: ", "")
            self._remark = text[:REMARK_LENGTH]

    def close(self) -> None:
        """Kill ffmpeg."""
        self._closed.set()
        self._child.kill()
        for thread in (self._filling, self._listening):
            thread.join(child.END_SECONDS)
        child.end(self._child)
        super().close()

"""Streams to hear without a network: a radio over HTTP, and over RTSP a camera's sound, both on loopback.

radio = HttpRadio()
Stream(radio.url, "mean")
radio.stop()

camera = RtspCamera()                    # needs Debian's python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good
"""

from __future__ import annotations

import http.server
import io
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
BLOCK_SECONDS = 0.05
BURST_SECONDS = 5.0
SYSTEM_PYTHON = "/usr/bin/python3"  # that has the system's gi
LIBRARIES = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
"""
CAMERA = """
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service("{port}")
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_launch(
    "( audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=44100,channels=2 ! audioconvert ! rtpL16pay name=pay0 pt=96 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/birds", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


class HttpRadio:
    """A real HTTP server that sends 16-bit samples at 16 kHz as time passes, to each who connects, from its first on.

    Who connects gets some seconds at once, as from any radio. The samples count from 1 up, again and again, so that one can
    tell which were heard. /file.wav is a file: it is sent as fast as it is taken.
    """

    def __init__(self) -> None:
        self.silent = False  # nothing is sent, and the connection stays
        self.skipped = 0.0  # s that were never sent, though they passed
        self._server: http.server.ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/live.wav"

    def start(self) -> None:
        """Begin, also again after a stop, at the same address."""
        radio = self
        self._on_air = on_air = threading.Event()
        on_air.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "audio/wav")
                self.end_headers()
                try:
                    if self.path == "/file.wav":
                        self.wfile.write(wav_of(60 * RATE))
                    else:
                        radio._send(self.wfile, on_air)
                except OSError:
                    pass  # the listener has gone

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _send(self, file: io.BufferedIOBase, on_air: threading.Event) -> None:
        file.write(wav_of(0))
        began, sent, skipped = time.monotonic() - BURST_SECONDS, 0, self.skipped
        while on_air.is_set():
            time.sleep(BLOCK_SECONDS)
            due = round((time.monotonic() - began - (self.skipped - skipped)) * RATE)
            if not self.silent and due > sent:
                file.write(numbers(sent, due).tobytes())
                sent = due

    def stop(self) -> None:
        """End the server and its connections."""
        self._on_air.clear()
        self._server.shutdown()
        self._server.server_close()


def numbers(begin: int, end: int) -> np.ndarray:
    """The radio's samples, int16."""
    return (np.arange(begin, end) % 30_000 + 1).astype("<i2")


def wav_of(frames: int) -> bytes:
    """A WAV file of the radio's first samples; of none: the header of one that does not say how long it is."""
    file = io.BytesIO()
    soundfile.write(file, numbers(0, frames), RATE, format="WAV", subtype="PCM_16")
    data = bytearray(file.getvalue())
    if not frames:
        data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    return bytes(data)


class RtspCamera:
    """A real RTSP server with a tone of 1 kHz, 44.1 kHz stereo."""

    def __init__(self) -> None:
        self._port = "0"
        self.start()

    @property
    def url(self) -> str:
        return f"rtsp://user:secret@127.0.0.1:{self._port}/birds?token=secret"

    @staticmethod
    def is_to_be_had() -> bool:
        """Whether this machine has all that it needs."""
        code = LIBRARIES + "assert all(map(Gst.ElementFactory.find, ('audiotestsrc', 'audioconvert', 'rtpL16pay')))"
        return (
            Path(SYSTEM_PYTHON).exists()
            and not subprocess.run([SYSTEM_PYTHON, "-c", code], stderr=subprocess.DEVNULL).returncode
        )

    def start(self) -> None:
        """Begin, also again after a kill, at the same address."""
        code = LIBRARIES + CAMERA.format(port=self._port)
        self._process = subprocess.Popen([SYSTEM_PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
        self._port = self._process.stdout.readline().strip()

    def kill(self) -> None:
        """End it as when its power is cut."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

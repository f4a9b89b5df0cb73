"""A microphone without hardware: a private PulseAudio server whose sink is heard as a microphone.

    with tempfile.TemporaryDirectory(prefix="birdmic") as folder:     # the path of a Unix socket must be short
        microphone = VirtualMicrophone(Path(folder))
        microphone.play(Path("dawn.wav"))                             # env=microphone.env for the process that listens
        microphone.stop()

Needs Debian's pulseaudio, pulseaudio-utils and libasound2-plugins.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


class VirtualMicrophone:
    """A PulseAudio server of its own whose sink is the microphone: what is played into it is what is heard."""

    device = "pulse"  # the name by which PortAudio lists it

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o700)
        (folder / "pulse").mkdir(mode=0o700)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PULSE_")},
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder / "pulse"),
            "PULSE_SERVER": f"unix:{folder}/pulse/native",
            "PULSE_SOURCE": "birdmic",
            "PULSE_LATENCY_MSEC": "30",
        }
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "-L", "module-native-protocol-unix"]
        command += ["-L", "module-null-sink sink_name=birdsink rate=32000 channels=1 format=s16le"]
        command += ["-L", "module-remap-source master=birdsink.monitor source_name=birdmic"]
        self._players: list[subprocess.Popen] = []
        with open(folder / "log", "wb") as log:
            self._server = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "info"], env=self.env, capture_output=True).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"pulseaudio does not start: {(folder / 'log').read_text()}")
            time.sleep(0.1)

    def play(self, path: Path) -> subprocess.Popen:
        """Begin to play a sound file that libsndfile reads, once; wait() on what is returned waits for its end."""
        player = subprocess.Popen(["paplay", "--device=birdsink", str(path)], env=self.env)
        self._players.append(player)
        return player

    def kill(self) -> None:
        """End the server at once, as when it crashes or a microphone is pulled out."""
        self._server.kill()
        self._server.wait()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """The server is there and answers nothing."""
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the players and the server."""
        for process in [*self._players, self._server]:
            process.terminate()
            process.wait()

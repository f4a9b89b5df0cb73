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
    """A PulseAudio server of its own whose sink is the microphone: what is played into it is what is heard.

    While nothing is played it gives zeros, as a muted microphone does.
    """

    device = "pulse"  # the name by which PortAudio lists it

    def __init__(self, folder: Path, channels: int = 1, start: bool = True) -> None:
        folder.chmod(0o700)
        (folder / "pulse").mkdir(mode=0o700)
        self.folder = folder
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
        command += ["-L", f"module-null-sink sink_name=birdsink rate=32000 channels={channels} format=s16le"]
        self._command = [*command, "-L", "module-remap-source master=birdsink.monitor source_name=birdmic"]
        self._players: list[subprocess.Popen] = []
        self._server: subprocess.Popen | None = None
        if start:
            self.start()

    def start(self) -> None:
        """Start the server, also again after a kill."""
        with open(self.folder / "log", "ab") as log:
            self._server = subprocess.Popen(self._command, env=self.env, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "info"], env=self.env, capture_output=True).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"pulseaudio does not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.1)

    def play(self, path: Path) -> subprocess.Popen:
        """Begin to play a sound file that libsndfile reads, once; wait() on what is returned waits for its end."""
        # A second in hand, or on a busy machine the player falls behind, which is heard as zeros.
        env = {**self.env, "PULSE_LATENCY_MSEC": "1000"}
        player = subprocess.Popen(["paplay", "--device=birdsink", str(path)], env=env)
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

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """The server runs, and the microphone gives nothing."""
        self._suspend("1")
        try:
            yield
        finally:
            self._suspend("0")

    def _suspend(self, value: str) -> None:
        for command in (["suspend-source", "birdmic"], ["suspend-sink", "birdsink"]):
            subprocess.run(["pactl", *command, value], env=self.env, check=True)

    def name(self, *names: str) -> None:
        """List it under these names, too, in this order: so its place in PortAudio's list, which is read anew, can change."""
        lines = [f"pcm.{name} {{ type pulse hint {{ show on description {name} }} }}" for name in names]
        (self.folder / ".asoundrc").write_text("\n".join(lines))

    def stop(self) -> None:
        """End the players and the server."""
        for process in [*self._players, *([self._server] if self._server else [])]:
            process.terminate()
            process.wait()

"""A real MQTT broker on loopback, and one who listens to it.

    broker = Mosquitto(tmp_path)
    heard = broker.subscribe("birdcall/#")      # before and after restarts of the broker
    broker.kill(); broker.start()
    broker.stop()

Needs Debian's mosquitto; paho-mqtt for `subscribe`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # not on every user's path


@dataclass(frozen=True)
class Message:
    """What came: `retained` if it was there before the subscription."""

    topic: str
    payload: str
    qos: int
    retained: bool

    @property
    def json(self) -> Any:
        """The payload, where it is JSON."""
        return json.loads(self.payload)


def wait_until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait until the condition holds; gives its value. AssertionError if it takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A TCP port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """The broker in a process of its own, on one port for all its lives. It keeps what it has acknowledged on the disk.

    users: name -> password; without any, everybody may connect
    permissions: lines of Mosquitto's acl_file
    certificate: a file with key and certificate, for TLS
    under_way: how many messages a client may send it before it has acknowledged the first
    """

    def __init__(
        self,
        folder: Path,
        users: dict[str, str] | None = None,
        permissions: str = "",
        certificate: Path | None = None,
        under_way: int | None = None,
        started: bool = True,
    ) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._folder = folder / "broker"
        self._folder.mkdir()
        self._subscribers: list[Any] = []
        self._process: subprocess.Popen | None = None
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'false' if users else 'true'}"]
        lines += ["persistence true", f"persistence_location {self._folder}/"]
        lines += ["autosave_on_changes true", "autosave_interval 1", "max_queued_messages 0"]
        if os.geteuid() == 0:
            lines += ["user root"]
        if users:
            for name, password in users.items():
                create = [] if (self._folder / "passwords").exists() else ["-c"]
                command = ["mosquitto_passwd", *create, "-b", str(self._folder / "passwords"), name, password]
                subprocess.run(command, check=True, capture_output=True)
            lines += [f"password_file {self._folder / 'passwords'}"]
        if permissions:
            (self._folder / "permissions").write_text(permissions)
            lines += [f"acl_file {self._folder / 'permissions'}"]
        if certificate:
            lines += [f"certfile {certificate}", f"keyfile {certificate}"]
        if under_way:
            lines += [f"max_inflight_messages {under_way}"]
        self._configuration = self._folder / "mosquitto.conf"
        self._configuration.write_text("\n".join(lines) + "\n")
        if started:
            self.start()

    def start(self) -> None:
        """Begin to serve."""
        with open(self._folder / "log", "ab") as log:
            command = [PROGRAM, "-c", str(self._configuration), "-v"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

        def serves() -> bool:
            assert self._process.poll() is None, self.log()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(serves)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It is there and answers nothing, until `thaw` or `kill`."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._process.send_signal(signal.SIGCONT)

    def permit(self, permissions: str) -> None:
        """Replace the lines of the acl_file."""
        (self._folder / "permissions").write_text(permissions)
        self._process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        """What it said."""
        return (self._folder / "log").read_text()

    def subscribe(self, topic: str, user: str | None = None, password: str | None = None) -> list[Message]:
        """A list that grows by each message from now on, by the retained ones first; the broker's deaths are survived."""
        import paho.mqtt.client as paho

        heard: list[Message] = []
        subscribed: list[int] = []
        # A session that lasts: what is published before this one has found the broker again is kept for it.
        name = f"subscriber-{len(self._subscribers)}"
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, clean_session=False)
        client.reconnect_delay_set(1, 1)
        if user:
            client.username_pw_set(user, password)
        client.on_connect = lambda *_: client.subscribe(topic, qos=1)
        client.on_subscribe = lambda _c, _d, number, _r, _p: subscribed.append(number)
        client.on_message = lambda _c, _d, message: heard.append(
            Message(message.topic, message.payload.decode(), message.qos, message.retain)
        )
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        self._subscribers.append(client)
        wait_until(lambda: subscribed)
        return heard

    def stop(self) -> None:
        """End the subscribers and the broker."""
        for client in self._subscribers:
            client.disconnect()
            client.loop_stop()
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()

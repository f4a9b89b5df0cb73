"""Events and health to an MQTT broker, with sensors that Home Assistant finds by itself.

    sink = MqttSink("192.168.1.10", user="birds", password=os.environ.get("BIRDCALL_MQTT_PASSWORD"))
    sink = MqttSink("mqtts://broker.example.org", topic="birdcall/pond")      # TLS, port 8883

    mosquitto_sub -h 192.168.1.10 -t 'birdcall/#' -v

Topics, all at QoS 1; the JSON is described in edge/publishing.py:

    birdcall/event      an event that is over; not retained, or every restart of a subscriber would hear the last one anew
    birdcall/state      the newest event and the number of today's; retained
    birdcall/health     how the box does, every minute; retained
    birdcall/status     "online", or "offline" when the listener ended or the broker lost it (its last will); retained
    homeassistant/sensor/birdcall/.../config    a sensor each for Home Assistant's MQTT discovery; retained

The topic is the box's name: two boxes on one broker need one each (`--mqtt-topic birdcall/pond`). Home Assistant shows them as
devices named by it, whose health sensors become unavailable when no health line came for five minutes.

MQTT 5 is spoken, since only there a broker says that it did not keep a message (no permission for the topic); a broker that
does not know it is spoken to in 3.1.1. Certificates are checked; $SSL_CERT_FILE names the file of one's own authority.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import time
import urllib.parse
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge.publishing import RefusedError, Sink, SinkError
from src.errors import UserError

PORTS = {"mqtt": 1883, "mqtts": 8883}
DISCOVERY = "homeassistant"
CONNECT_SECONDS = 10.0
KEEPALIVE_SECONDS = 30  # the broker declares us lost after one and a half of it
ACK_SECONDS = 15.0
GOODBYE_SECONDS = 0.5
SOON_SECONDS = 30.0  # a connection that ends so soon has been ended by somebody
UNDER_WAY = 20  # messages that are not yet acknowledged, at most; paho's own limit as well
TOPIC_BYTES = 200  # of 65535 that MQTT allows
EXPIRE_SECONDS = 300  # of the health sensors; five lines missed


@dataclass(frozen=True)
class Sensor:
    """A sensor of Home Assistant's: `field` of the health or state message, times `scale`, to so many digits (None: a text)."""

    key: str
    name: str
    field: str
    unit: str = ""
    digits: int | None = 0
    scale: float = 1
    icon: str = ""
    device_class: str = ""
    state_class: str = "measurement"
    health: bool = True


SENSORS = (
    Sensor("last_species", "Last species", "last_species", digits=None, icon="mdi:bird", health=False),
    Sensor("last_probability", "Last probability", "last_probability", "%", 0, 100, "mdi:percent", health=False),
    Sensor("events_today", "Events today", "events_today", "events", state_class="total_increasing", health=False),
    Sensor("level", "Input level", "level_dbfs", "dBFS", 1, icon="mdi:microphone"),
    Sensor("clipped", "Input clipped", "clipped_share", "%", 2, 100, "mdi:waveform"),
    Sensor("lost", "Lost samples", "lost", "samples", icon="mdi:microphone-off"),
    Sensor("dropped", "Dropped windows", "dropped", "windows", icon="mdi:speedometer-slow"),
    Sensor("latency", "Latency p95", "latency_p95_s", "s", 3, device_class="duration"),
    Sensor("disk_free", "Disk free", "disk_free_bytes", "GB", 1, 1e-9, device_class="data_size"),
    Sensor("temperature", "Temperature", "temperature_c", "°C", 1, device_class="temperature"),
    Sensor("memory", "Memory", "resident_bytes", "MB", 0, 1e-6, device_class="data_size"),
    Sensor("cpu", "CPU", "cpu_share", "%", 1, 100, "mdi:chip"),
)


def discovery(topic: str) -> dict[str, dict[str, Any]]:
    """The sensors of the box with that topic: configuration topic -> what Home Assistant is told there."""
    node = re.sub(r"[^A-Za-z0-9_-]", "_", topic)  # all that a discovery topic may hold
    words = [word for word in topic.split("/") if word.lower() != "birdcall"]
    device = {"identifiers": [node], "name": " ".join(["Birdcall", *words]), "manufacturer": "Birdcall"}
    return {
        f"{DISCOVERY}/sensor/{node}/{sensor.key}/config": {
            **_configuration(sensor, topic),
            "unique_id": f"{node}_{sensor.key}",
            "device": device,
            "origin": {"name": "Birdcall"},
        }
        for sensor in SENSORS
    }


def _configuration(sensor: Sensor, topic: str) -> dict[str, Any]:
    value = f"value_json.{sensor.field}"
    shown = value if sensor.digits is None else f"({value} * {sensor.scale:g}) | round({sensor.digits})"
    what: dict[str, Any] = {
        "name": sensor.name,
        "state_topic": f"{topic}/{'health' if sensor.health else 'state'}",
        # None is Home Assistant's word for what is not known; arithmetic with null would be an error in its log each minute.
        "value_template": f"{{{{ None if {value} is none else {shown} }}}}",
        "availability_topic": f"{topic}/status",
        "qos": 1,
    }
    if sensor.unit:
        what["unit_of_measurement"] = sensor.unit
        what["state_class"] = sensor.state_class
    if sensor.icon:
        what["icon"] = sensor.icon
    if sensor.device_class:
        what["device_class"] = sensor.device_class
    if sensor.health:
        what.update(entity_category="diagnostic", expire_after=EXPIRE_SECONDS)
    else:
        what["json_attributes_topic"] = f"{topic}/state"
    return what


def parse_address(address: str) -> tuple[str, str, int]:
    """HOST, HOST:PORT, mqtt://HOST[:PORT] or mqtts://HOST[:PORT] -> scheme, host, port. Raises UserError for another."""
    advice = "give HOST, HOST:PORT, or mqtts://HOST for TLS"
    try:
        parts = urllib.parse.urlsplit(address if "://" in address else f"mqtt://{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"--mqtt {address!r} is no broker's address ({error}); {advice}") from error
    if parts.username is not None:
        raise UserError(f"--mqtt {host} takes no user and password in it: use --mqtt-user and $BIRDCALL_MQTT_PASSWORD")
    if not host or parts.scheme not in PORTS or parts.path.strip("/") or parts.query or re.search(r"\s", host):
        raise UserError(f"--mqtt {address!r} is no broker's address; {advice}")
    return parts.scheme, host, port or PORTS[parts.scheme]


def check_topic(topic: str) -> str:
    """The topic without slashes at its ends. Raises UserError for one that may not be published to."""
    bare = topic.strip("/")
    if not bare or re.search(r"[+#\x00-\x1f\x7f]", bare) or bare.startswith("$") or len(bare.encode()) > TOPIC_BYTES:
        raise UserError(f"--mqtt-topic {topic!r} is no topic: a name such as birdcall/pond, without +, # or $")
    return bare


class MqttSink(Sink):
    """A broker. `address` as parse_address takes it; `topic` is what all topics of the box begin with.

    Raises UserError for an address or a topic that is none, a password without a user, and where paho-mqtt is not installed.
    """

    batch = UNDER_WAY
    shows = ("state", "health")

    def __init__(
        self, address: str, user: str | None = None, password: str | None = None, topic: str = "birdcall"
    ) -> None:
        self._paho = _import_paho()
        self._scheme, self._host, self._port = parse_address(address)
        self._topic = check_topic(topic)
        if password and not user:
            raise UserError("$BIRDCALL_MQTT_PASSWORD is set, but no --mqtt-user that it is of")
        self._user, self._password = user, password
        self.name = f"{self._scheme}://{self._host}:{self._port}/{self._topic}"
        self.title = f"MQTT broker {self._host}:{self._port}"
        # The same after a restart, and another's on another box. A broker that still holds a connection that is dead ends
        # it, and says "offline", when the same client connects, and not a minute after it has said "online".
        self._client_id = (
            "birdcall-" + hashlib.sha256(f"{socket.gethostname()} {self._topic}".encode()).hexdigest()[:12]
        )
        self._protocol = self._paho.MQTTv5
        self._client: Any = None
        self._welcome: Any = None  # the broker's answer to our connecting, a paho ReasonCode
        self._connected = 0.0  # monotonic
        self._denied = ""  # why it did not take a message
        self._under_way = UNDER_WAY  # or fewer, if the broker wants that
        self._acknowledged: set[int] = set()  # numbers of messages

    def open(self) -> None:
        """Connect, and tell Home Assistant what sensors there are."""
        self._connect()
        messages = [(topic, what, True) for topic, what in discovery(self._topic).items()]
        for _ in self._publish_all([*messages, (f"{self._topic}/status", "online", True)]):
            pass

    def send(self, events: Sequence[dict[str, Any]]) -> Iterator[int]:
        """Publish the events; see Sink."""
        acknowledged = self._publish_all([(f"{self._topic}/event", event, False) for event in events])
        for event, _ in zip(events, acknowledged):
            yield event["id"]

    def show(self, what: str, values: dict[str, Any]) -> None:
        """Publish `state` or `health`; see Sink."""
        for _ in self._publish_all([(f"{self._topic}/{what}", values, True)]):
            pass

    def wait(self, seconds: float) -> None:
        """Keep the connection alive for a moment."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._loop(left)

    def close(self, failed: bool) -> None:
        """Say "offline" and hang up; after a failure just hang up, and the broker says it."""
        client, self._client = self._client, None
        if client is None:
            return
        if not failed:
            client.publish(f"{self._topic}/status", "offline", qos=1, retain=True)
            client.disconnect()
            until = time.monotonic() + GOODBYE_SECONDS
            while client.loop(0.05) == self._paho.MQTT_ERR_SUCCESS and time.monotonic() < until:
                pass
        if client.socket():
            client.socket().close()

    def _connect(self) -> None:
        paho = self._paho
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, self._client_id, protocol=self._protocol, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_SECONDS
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.will_set(f"{self._topic}/status", "offline", qos=1, retain=True)
        if self._user:
            client.username_pw_set(self._user, self._password)
        if self._scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        self._welcome, self._denied = None, ""
        self._acknowledged.clear()
        try:
            client.connect(self._host, self._port, KEEPALIVE_SECONDS)
        except ssl.SSLCertVerificationError as error:
            raise RefusedError(
                f"its certificate is not trusted ({error.verify_message}); $SSL_CERT_FILE can name the authority's"
            ) from error
        except OSError as error:
            raise SinkError(f"no connection ({error.strerror or error})") from error
        until = time.monotonic() + CONNECT_SECONDS
        while self._welcome is None:
            if time.monotonic() > until:
                raise SinkError("no answer: is this a broker's port?")
            self._loop(0.1)
        if self._welcome.is_failure:
            self._refused(str(self._welcome))
        self._connected = time.monotonic()

    def _refused(self, reason: str) -> None:
        """Raise what a broker that refused us means; or connect as an older one wants it."""
        if reason == "Unsupported protocol version" and self._protocol == self._paho.MQTTv5:
            self._protocol = self._paho.MQTTv311
            self.close(failed=True)
            self._connect()
            return
        if "uthori" in reason or "password" in reason:
            who = f"the user {self._user}" if self._user else "us without a user"
            raise RefusedError(f"refuses {who} ({reason}): check --mqtt-user and $BIRDCALL_MQTT_PASSWORD")
        raise RefusedError(f"refuses us ({reason})")

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._welcome = reason
        self._under_way = min(UNDER_WAY, getattr(properties, "ReceiveMaximum", UNDER_WAY))

    def _on_publish(self, _client: Any, _data: Any, message: int, reason: Any, _properties: Any) -> None:
        self._acknowledged.add(message)
        if reason.is_failure:
            self._denied = str(reason)

    def _publish_all(self, messages: Sequence[tuple[str, dict[str, Any] | str, bool]]) -> Iterator[None]:
        """Publish messages (topic, payload, retained) in order, several under way; yields as each is acknowledged."""
        under_way: deque[int] = deque()
        for message in messages:
            if len(under_way) == self._under_way:
                self._await(under_way.popleft())
                yield
            under_way.append(self._publish(*message))
        while under_way:
            self._await(under_way.popleft())
            yield

    def _publish(self, topic: str, what: dict[str, Any] | str, retain: bool) -> int:
        """Put a message on its way; gives its number."""
        payload = what if isinstance(what, str) else json.dumps(what, ensure_ascii=False)
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != self._paho.MQTT_ERR_SUCCESS:
            raise SinkError("the connection is lost")
        return info.mid

    def _await(self, message: int) -> None:
        """Wait until the broker has acknowledged a message. Raises SinkError."""
        until = time.monotonic() + ACK_SECONDS
        while message not in self._acknowledged:
            if time.monotonic() > until:
                raise SinkError(f"acknowledges nothing for {ACK_SECONDS:g} s")
            self._loop(0.1)
        self._acknowledged.remove(message)

    def _loop(self, seconds: float) -> None:
        """Wait for the broker and see to the connection. Raises SinkError when it is gone."""
        result = self._client.loop(seconds)
        if result != self._paho.MQTT_ERR_SUCCESS and self._welcome is None:
            raise SinkError("hangs up at once: is this a broker's port, and is it one with TLS?")
        if self._denied:  # before the loss: Mosquitto 2.0 hangs up after it
            raise RefusedError(f"does not take what is published ({self._denied}): the user needs permission to write")
        if result == self._paho.MQTT_ERR_SUCCESS or self._welcome.is_failure:
            return
        seconds = time.monotonic() - self._connected
        if seconds < SOON_SECONDS:
            raise SinkError(
                f"the connection is lost after {seconds:.0f} s; does another listener of this box publish to {self._topic} too?"
            )
        raise SinkError("the connection is lost")


def _import_paho() -> Any:
    try:
        import paho.mqtt.client
    except ImportError as error:
        raise UserError("--mqtt needs paho-mqtt: pip install -r edge/requirements.txt") from error
    return paho.mqtt.client

"""Publishing: every event reaches the broker and the web address in order, at least once, whoever was away or was killed.

Against a real Mosquitto and a real http.server; the journal is the listener's own.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import pytest
from conftest import ROOT, lacking
from mosquitto import PROGRAM, Mosquitto, free_port, wait_until
from web_server import numbers, web_server

from edge.events import Changes, Event
from edge.journal import Health, Journal
from edge.mqtt import MqttSink, check_topic, discovery, parse_address
from edge.outbox import Outbox
from edge.publishing import Publisher, Sink, SinkError, publishing
from edge.webhook import WebhookSink
from src.errors import UserError

NOON = datetime(2025, 11, 25, 12, tzinfo=timezone.utc).timestamp()


def event_of(
    number: int, species: str = "frog", probability: float = 0.5, utc: float = NOON, closed: bool = False
) -> Event:
    """An event of 5 s."""
    return Event(number, utc, utc + 5, species, probability, 2, "b6", "usb", 60.0, utc, 60.0, closed)


class Record:
    """A journal with events in it, written as the listener writes it."""

    def __init__(self, folder: Path, **options: int) -> None:
        self.path = folder / "journal.sqlite"
        self.journal = Journal(self.path, **options)

    def event(
        self, species: str = "amecro", probability: float = 0.93, utc: float = NOON, goes_on: bool = False
    ) -> int:
        """An event of 5 s that is over, or goes on. Returns its id."""
        number = self.journal.new_event_id()
        self._write(event_of(number, species, probability, utc, closed=not goes_on))
        return number

    def end(self, number: int, utc: float = NOON) -> None:
        """End an event that goes on."""
        self._write(Event(number, utc, utc + 20, "frog", 0.5, 8, "b6", "usb", 60.0, utc, 60.0, closed=True))

    def _write(self, event: Event) -> None:
        assert self.journal.record(Changes(events=(event,))), "a listener that publishes writes at once"

    def health(self, utc: float | None = None, **figures: float) -> None:
        """A health line; of now, if no time is given."""
        utc = time.time() if utc is None else utc
        assert self.journal.write_health(Health(utc, utc - 60, **figures))

    def published(self) -> dict[str, int]:
        """How far each sink got, by its name."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return dict(db.execute("select sink, event_id from published"))


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path)
    yield record
    record.journal.close()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    if PROGRAM is None:
        lacking("no mosquitto (apt-get install mosquitto)")
    made: list[Mosquitto] = []

    def make(**options: Any) -> Mosquitto:
        made.append(Mosquitto(tmp_path, **options))
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def broker(make_broker: Callable[..., Mosquitto]) -> Mosquitto:
    return make_broker()


class Door:
    """A port that leads to the broker; `passed` is what callers sent through it."""

    def __init__(self, broker: Mosquitto, knows_mqtt_5: bool) -> None:
        self.passed = b""
        self._broker, self._knows_mqtt_5 = broker, knows_mqtt_5
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: list[socket.socket] = [self._socket]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._socket.accept()
                hello = caller.recv(4096)
                if hello[hello.index(b"MQTT") + 4] == 5 and not self._knows_mqtt_5:
                    caller.sendall(b"\x20\x02\x00\x01")  # CONNACK: unacceptable protocol version
                    caller.close()
                    continue
                inner = socket.create_connection(("127.0.0.1", self._broker.port))
                inner.sendall(hello)
                self._open += [caller, inner]
                threading.Thread(target=self._pass, args=(caller, inner), daemon=True).start()
                threading.Thread(target=self._pass, args=(inner, caller), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(4096):
                if sink.getpeername()[1] == self._broker.port:
                    self.passed += block
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Nobody comes through."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # or who waits for it would go on to
            each.close()


@contextlib.contextmanager
def door_to(broker: Mosquitto, knows_mqtt_5: bool = True) -> Iterator[Door]:
    door = Door(broker, knows_mqtt_5)
    try:
        yield door
    finally:
        door.close()


class Publishing:
    """A publisher that tries again soon; `said` is its log."""

    def __init__(self, record: Record, sink: Sink) -> None:
        self.said: list[str] = []
        self._publisher = Publisher(record.path, sink, self.said.append, first_wait=0.1, longest_wait=0.4)
        self._publisher.start()
        wait_until(lambda: sink.name in record.published())

    def stop(self) -> float:
        """Ask it to end and wait; gives how many seconds that took."""
        began = time.monotonic()
        self._publisher.stop()
        self._publisher.join(10)
        assert not self._publisher.is_alive()
        return time.monotonic() - began


@pytest.fixture
def publish(record: Record) -> Iterator[Callable[[Sink], Publishing]]:
    """Begin to publish the record to a sink."""
    begun: list[Publishing] = []

    def begin(sink: Sink) -> Publishing:
        begun.append(Publishing(record, sink))
        return begun[-1]

    yield begin
    for each in begun:
        each._publisher.stop()
    for each in begun:
        each._publisher.join(10)


def ids(messages: list) -> list[int]:
    """The ids of the events among what came, in its order."""
    return [message.json["id"] for message in messages if message.topic.endswith("/event")]


def in_order_of_first_arrival(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


# MQTT: what arrives.


def test_an_event_arrives_as_the_documented_json_once_it_is_over(record, broker, publish):
    heard = broker.subscribe("birdcall/event")
    publish(MqttSink(broker.address))
    number = record.event("Grüner <b>Specht</b>", goes_on=True)
    record.end(number)
    (message,) = wait_until(lambda: heard)
    assert message.json == {
        "id": number,
        "utc_start": "2025-11-25T12:00:00.000Z",
        "utc_end": "2025-11-25T12:00:20.000Z",
        "species": "frog",
        "probability": 0.5,
        "windows": 8,
        "model": "b6",
        "source": "usb",
        "offset_seconds": 60.0,
        "station": socket.gethostname(),
    }
    assert message.qos == 1


def test_only_state_and_health_are_there_for_who_subscribes_later(record, broker, publish):
    publishing = publish(MqttSink(broker.address))
    record.event("amecro")
    record.event("Grüner <b>Specht</b>", 0.87, utc=time.time())
    record.health(level_dbfs=-41.5, dropped=3, temperature_c=float("-inf"))
    wait_until(lambda: record.published().popitem()[1] == 2)
    publishing.stop()

    later = broker.subscribe("birdcall/#")
    wait_until(lambda: len(later) == 3)
    last = {message.topic: message for message in later}
    assert last.keys() == {"birdcall/state", "birdcall/health", "birdcall/status"}
    assert all(message.retained and message.qos == 1 for message in later)
    state, health = last["birdcall/state"].json, last["birdcall/health"].json
    assert (state["last_species"], state["last_probability"]) == ("Grüner <b>Specht</b>", 0.87)
    assert state["events_today"] == 1, "the other one was at noon of a day long ago"
    assert (health["level_dbfs"], health["dropped"], health["lost"]) == (-41.5, 3, None)
    assert health["temperature_c"] is None, "JSON has no infinity"
    assert last["birdcall/status"].payload == "offline"


def test_of_health_the_newest_line_goes_out_if_it_is_of_now(record, broker, publish):
    heard = broker.subscribe("birdcall/health")
    record.health(time.time() - 3600, dropped=1)
    publishing = publish(MqttSink(broker.address))
    wait_until(lambda: publishing.said)
    time.sleep(0.5)
    assert not heard, "an hour old"
    publishing.stop()
    record.health(time.time() - 120, dropped=2)
    record.health(time.time() - 60, dropped=3)
    publishing = publish(MqttSink(broker.address))
    wait_until(lambda: heard)
    record.health(dropped=4)
    wait_until(lambda: len(heard) == 2)
    assert [message.json["dropped"] for message in heard] == [3, 4]


def test_home_assistant_finds_sensors_that_read_what_is_published(record, broker, publish):
    record.event("amecro", 0.934, utc=time.time())
    record.health(level_dbfs=-41.52, dropped=3, lost=0, disk_free_bytes=12_345_678_901, cpu_share=0.071)
    publish(MqttSink(broker.address, topic="birdcall/pond"))
    record.event("norcar", 0.934, utc=time.time())
    heard = broker.subscribe("birdcall/pond/#")
    wait_until(lambda: {"birdcall/pond/health", "birdcall/pond/state"} <= {message.topic for message in heard})
    wait_until(lambda: [message for message in heard if message.topic.endswith("state")][-1].json["last_species"])
    last = {message.topic: message for message in heard}

    found = broker.subscribe("homeassistant/#")
    wait_until(lambda: len(found) == len(discovery("birdcall/pond")))
    sensors = [message.json for message in found]
    assert all(message.retained for message in found)
    assert len({sensor["unique_id"] for sensor in sensors}) == len(sensors)
    assert {sensor["device"]["name"] for sensor in sensors} == {"Birdcall pond"}
    assert {sensor["availability_topic"] for sensor in sensors} == {"birdcall/pond/status"}
    assert last["birdcall/pond/status"].payload == "online"

    assert [sensor["name"] for sensor in sensors if sensor.get("state_class") == "total_increasing"] == ["Events today"]
    assert {sensor["name"] for sensor in sensors if "expire_after" not in sensor} == {
        "Last species",
        "Last probability",
        "Events today",
    }

    def shown(sensor: dict) -> str:
        values = {"value_json": last[sensor["state_topic"]].json}
        return jinja2.Template(sensor["value_template"]).render(values)

    values = {sensor["name"]: f"{shown(sensor)} {sensor.get('unit_of_measurement', '')}".strip() for sensor in sensors}
    assert values == {
        "Last species": "norcar",
        "Last probability": "93.0 %",
        "Events today": "2 events",
        "Input level": "-41.5 dBFS",
        "Input clipped": "None %",
        "Lost samples": "0 samples",
        "Dropped windows": "3 windows",
        "Latency p95": "None s",
        "Disk free": "12.3 GB",
        "Temperature": "None °C",
        "Memory": "None MB",
        "CPU": "7.1 %",
    }


def test_two_boxes_with_topics_of_their_own_have_sensors_of_their_own():
    one, other = discovery("birdcall"), discovery("birdcall/pond")
    assert not one.keys() & other.keys()
    assert not {sensor["unique_id"] for sensor in one.values()} & {sensor["unique_id"] for sensor in other.values()}


# MQTT: nothing is lost.


def test_what_is_recorded_while_the_broker_is_down_from_the_start_arrives_in_order(record, make_broker, publish):
    broker = make_broker(started=False)
    publishing = publish(MqttSink(broker.address))
    expected = [record.event() for _ in range(50)]
    wait_until(lambda: publishing.said)
    broker.start()
    heard = broker.subscribe("birdcall/event")
    wait_until(lambda: len(heard) >= 50)
    assert ids(heard) == expected
    assert [line.split(": ", 1)[1].split(" (")[0] for line in publishing.said[:1]] == ["no connection"]


def test_a_broker_killed_with_events_on_their_way_gets_all_in_order_at_least_once(record, broker, publish):
    heard = broker.subscribe("birdcall/event")
    publishing = publish(MqttSink(broker.address))
    expected = [record.event() for _ in range(3)]
    wait_until(lambda: ids(heard) == expected and publishing.said)
    broker.freeze()
    expected += [record.event() for _ in range(30)]  # the first of them wait in the broker's socket
    time.sleep(0.6)
    broker.kill()
    expected += [record.event() for _ in range(3)]
    wait_until(lambda: len(publishing.said) == 2)
    broker.start()
    wait_until(lambda: ids(heard)[-1:] == expected[-1:])
    assert in_order_of_first_arrival(ids(heard)) == expected
    wait_until(lambda: record.published().popitem()[1] == expected[-1])

    wait_until(lambda: len(publishing.said) == 3)
    assert publishing.said[0] == f"MQTT broker {broker.address}: publishing"
    assert "no connection (Connection refused)" in publishing.said[1] or "lost" in publishing.said[1]
    assert publishing.said[2].startswith(f"MQTT broker {broker.address}: back after ")


def test_a_broker_that_takes_few_at_a_time_is_not_given_more(record, make_broker, publish):
    broker = make_broker(under_way=3)
    heard = broker.subscribe("birdcall/event")
    with door_to(broker) as door:
        publishing = publish(MqttSink(door.address))
        wait_until(lambda: publishing.said)
        broker.freeze()
        expected = [record.event() for _ in range(30)]
        wait_until(lambda: b'"species"' in door.passed)
        time.sleep(0.3)
        assert door.passed.count(b'"species"') == 3
        broker.thaw()
        wait_until(lambda: ids(heard) == expected)


def test_a_listener_started_again_goes_on_where_the_broker_had_acknowledged(record, broker, publish):
    heard = broker.subscribe("birdcall/event")
    first = publish(MqttSink(broker.address))
    before = [record.event() for _ in range(3)]
    wait_until(lambda: ids(heard) == before)
    first.stop()
    while_none_ran = [record.event() for _ in range(45)]
    publish(MqttSink(broker.address, user="another", password="user"))
    wait_until(lambda: ids(heard)[-1:] == while_none_ran[-1:])
    assert ids(heard) == before + while_none_ran


def test_a_sink_that_is_new_to_an_old_journal_hears_from_now_on(record, broker, publish):
    for _ in range(30):
        record.event()
    heard = broker.subscribe("birdcall/#")
    publish(MqttSink(broker.address))
    number = record.event()
    wait_until(lambda: ids(heard))
    wait_until(lambda: record.published().popitem()[1] == number)
    assert ids(heard) == [number]


def test_an_event_that_goes_on_keeps_no_other_waiting_and_follows_even_after_a_kill(record, broker, publish):
    heard = broker.subscribe("birdcall/event")
    first = publish(MqttSink(broker.address))
    frog = record.event("frog", goes_on=True)
    others = [record.event() for _ in range(3)]
    wait_until(lambda: ids(heard) == others)
    first.stop()
    assert record.published().popitem()[1] == frog - 1, "or the frog would be forgotten"

    second = publish(MqttSink(broker.address))
    wait_until(lambda: len(ids(heard)) == 6)
    record.end(frog)
    wait_until(lambda: frog in ids(heard))
    assert in_order_of_first_arrival(ids(heard)) == [*others, frog]
    second.stop()
    assert record.published().popitem()[1] == others[-1]


def test_what_ends_as_the_listener_stops_is_published_still(record, broker):
    heard = broker.subscribe("birdcall/#")
    with publishing(record.path, [MqttSink(broker.address)], print):
        wait_until(lambda: "online" in [message.payload for message in heard])
        expected = [record.event() for _ in range(30)]
    wait_until(lambda: heard[-1].payload == "offline")
    assert ids(heard) == expected


def test_while_another_process_has_locked_the_journal_each_event_goes_out_once(record, broker, publish):
    heard = broker.subscribe("birdcall/event")
    publishing = publish(MqttSink(broker.address))
    wait_until(lambda: publishing.said)
    expected = [record.event() for _ in range(3)]
    with contextlib.closing(sqlite3.connect(record.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        wait_until(lambda: ids(heard) == expected)
        time.sleep(1.2)
        assert record.published().popitem()[1] == 0, "the lock held"
    wait_until(lambda: record.published().popitem()[1] == expected[-1])
    assert ids(heard) == expected
    assert len(publishing.said) == 1


# MQTT: who is there, and who may.


def start_publishing(record: Record, broker: Mosquitto) -> subprocess.Popen:
    lines = (
        "import sys, time; from edge.mqtt import MqttSink; from edge.publishing import publishing\n"
        "with publishing(sys.argv[1], [MqttSink(sys.argv[2])], print): time.sleep(60)\n"
    )
    return subprocess.Popen([sys.executable, "-c", lines, str(record.path), broker.address], cwd=ROOT)


def test_the_broker_says_offline_when_the_listener_is_killed(record, broker):
    heard = broker.subscribe("birdcall/status")
    process = start_publishing(record, broker)
    try:
        wait_until(lambda: [message.payload for message in heard] == ["online"])
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: [message.payload for message in heard] == ["online", "offline"])
    later = broker.subscribe("birdcall/status")
    wait_until(lambda: [(message.payload, message.retained) for message in later] == [("offline", True)])


@pytest.mark.parametrize(("user", "whom"), [("birds", "the user birds"), (None, "us without a user")])
def test_a_wrong_password_is_said_in_a_sentence_and_once(record, make_broker, publish, user, whom):
    broker = make_broker(users={"birds": "right"})
    publishing = publish(MqttSink(broker.address, user, "wrong" if user else None))
    wait_until(lambda: publishing.said)
    time.sleep(0.5)  # and it is tried again meanwhile
    (line,) = publishing.said
    assert line.startswith(f"MQTT broker {broker.address}: refuses {whom} (")
    assert "check --mqtt-user and $BIRDCALL_MQTT_PASSWORD" in line


def test_a_user_who_may_not_write_the_topic_is_told_and_loses_nothing(record, make_broker, publish):
    permissions = "user birds\ntopic write homeassistant/#\ntopic write birdcall/status\ntopic read birdcall/#\n"
    broker = make_broker(users={"birds": "right"}, permissions=permissions)
    heard = broker.subscribe("birdcall/event", "birds", "right")
    publishing = publish(MqttSink(broker.address, "birds", "right"))
    expected = [record.event() for _ in range(3)]
    wait_until(lambda: publishing.said)
    assert "does not take what is published (Not authorized)" in publishing.said[0]
    assert "permission" in publishing.said[0]
    assert record.published().popitem()[1] == 0
    broker.permit(permissions + "topic write birdcall/#\n")
    wait_until(lambda: in_order_of_first_arrival(ids(heard)) == expected)


def test_two_listeners_of_a_box_that_publish_to_one_topic_are_told(record, broker, publish, tmp_path):
    first = publish(MqttSink(broker.address))
    wait_until(lambda: first.said)
    (tmp_path / "other").mkdir()
    other = Record(tmp_path / "other")
    second = Publishing(other, MqttSink(broker.address))
    try:
        wait_until(lambda: "does another listener of this box publish to birdcall too?" in " ".join(first.said))
    finally:
        second.stop()
        other.journal.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with the key and the certificate of an authority that nobody knows, for 127.0.0.1."""
    path = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pond"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(tmp_path / "alone.pem")]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "alone.pem").read_text())
    return path


def test_a_broker_with_tls_is_trusted_by_its_certificate_only(record, make_broker, publish, certificate, monkeypatch):
    broker = make_broker(certificate=certificate)
    publishing = publish(MqttSink(f"mqtts://{broker.address}"))
    wait_until(lambda: publishing.said)
    assert "its certificate is not trusted" in publishing.said[0]
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    wait_until(lambda: "back after" in publishing.said[-1])
    number = record.event()
    wait_until(lambda: record.published().popitem()[1] == number)


def test_a_port_that_does_not_speak_mqtt_or_only_with_tls_is_said(record, make_broker, publish, certificate):
    broker = make_broker(certificate=certificate)
    publishing = publish(MqttSink(broker.address))
    wait_until(lambda: publishing.said)
    assert "hangs up at once: is this a broker's port, and is it one with TLS?" in publishing.said[0]


def test_a_fake_older_broker_is_spoken_to_in_mqtt_3(record, broker, publish):
    """Fake: brokers of 2018 cannot be had; a door before one of today turns MQTT 5 away as those did."""
    heard = broker.subscribe("birdcall/#")
    with door_to(broker, knows_mqtt_5=False) as door:
        publishing = publish(MqttSink(door.address))
        expected = [record.event() for _ in range(25)]
        wait_until(lambda: ids(heard) == expected)
        publishing.stop()
        wait_until(lambda: heard[-1].payload == "offline")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("pond", ("mqtt", "pond", 1883)),
        ("192.168.1.10:1884", ("mqtt", "192.168.1.10", 1884)),
        ("mqtts://pond.example.org/", ("mqtts", "pond.example.org", 8883)),
        ("[fe80::1]:1883", ("mqtt", "fe80::1", 1883)),
    ],
)
def test_a_broker_s_address_is_a_host_with_or_without_port_and_tls(address, expected):
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address", ["", ":1883", "pond:port", "http://pond", "po nd", "birds:secret@pond", "pond/topic"]
)
def test_what_is_no_broker_s_address_is_refused_in_a_sentence(address):
    with pytest.raises(UserError, match="--mqtt") as refused:
        MqttSink(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("topic", ["", "/", "birds/#", "a+b", "$SYS", "a\0b", "x" * 300])
def test_a_topic_that_may_not_be_published_to_is_refused(topic):
    with pytest.raises(UserError, match="--mqtt-topic"):
        check_topic(topic)


def test_a_password_needs_a_user():
    with pytest.raises(UserError, match="--mqtt-user"):
        MqttSink("pond", password="secret")


# The webhook.


def test_each_event_is_posted_as_json_in_order(record, publish):
    with web_server() as server:
        publish(WebhookSink(f"http://birds:se%40cret@127.0.0.1:{server.port}/hook?key=1", print))
        expected = [record.event(f"Grüner Specht {index}") for index in range(20)]
        wait_until(lambda: len(server.taken) == 20)
        assert numbers(server.taken) == expected
        assert server.taken[0]["species"] == "Grüner Specht 0"
        assert server.taken[0].keys() >= {"utc_start", "utc_end", "probability", "model", "source", "station"}
        assert server.headers["Content-Type"] == "application/json"
        assert server.headers["Authorization"] == "Basic YmlyZHM6c2VAY3JldA=="


def test_health_is_posted_too_and_each_says_of_which_kind_it_is(record, publish):
    with web_server() as server:
        publish(WebhookSink(f"http://127.0.0.1:{server.port}/hook", print))
        record.health(temperature_c=51.5)
        record.event()
        wait_until(lambda: len(server.taken) == 2)
        assert sorted(taken["kind"] for taken in server.taken) == ["event", "health"]
        (health,) = (taken for taken in server.taken if taken["kind"] == "health")
        assert health["temperature_c"] == 51.5 and health["station"]


def test_health_that_is_not_taken_is_no_sign_that_the_address_is_away(record, publish):
    with web_server() as server:
        server.answers[:] = [500]
        publishing = publish(WebhookSink(f"http://127.0.0.1:{server.port}/hook", print))
        record.health()
        wait_until(lambda: server.asked)
        expected = [record.event() for _ in range(3)]
        wait_until(lambda: numbers(server.taken) == expected)
        assert not [line for line in publishing.said if "tried again" in line]


def test_errors_timeouts_and_a_restart_of_the_web_server_lose_nothing_and_are_said_once(record, publish):
    port = free_port()
    with web_server(port) as server:
        said: list[str] = []
        sink = WebhookSink(f"http://127.0.0.1:{port}/hook", said.append, timeout_seconds=0.5)
        publishing = publish(sink)
        expected = [record.event()]
        wait_until(lambda: numbers(server.taken) == expected)
        server.answers[:] = [500, 503, 0, 429, 500]
        expected += [record.event() for _ in range(3)]
        wait_until(lambda: numbers(server.taken) == expected)
        assert numbers(server.asked) == [1, *[2] * 6, 3, 4], "tried again until it was taken, and nothing before it"
    expected += [record.event() for _ in range(3)]
    wait_until(lambda: len(publishing.said) == 4)
    with web_server(port) as server:
        wait_until(lambda: numbers(server.taken) == expected[4:])
        wait_until(lambda: len(publishing.said) == 5)
    title = f"webhook http://127.0.0.1:{port}: "
    assert publishing.said[0] == f"{title}publishing"
    assert publishing.said[1].startswith(f"{title}answers 5")
    assert publishing.said[3].startswith(f"{title}no answer (")
    assert [line.startswith(f"{title}back after ") for line in publishing.said] == [False, False, True, False, True]
    assert not said


def test_what_was_not_taken_when_the_listener_ends_is_said(record):
    said: list[str] = []
    with publishing(record.path, [WebhookSink(f"http://127.0.0.1:{free_port()}/", print)], said.append):
        wait_until(record.published)
        for _ in range(3):
            record.event()
    assert said[-1].endswith(": 3 events were not taken; they wait in the journal for the next start")


def test_an_address_that_does_not_answer_when_the_listener_ends_is_said(record):
    said: list[str] = []
    with web_server() as server:
        server.answers[:] = [0]
        with publishing(record.path, [WebhookSink(f"http://127.0.0.1:{server.port}/", print)], said.append):
            wait_until(record.published)
            record.event()
            wait_until(lambda: server.asked)
    assert said[0].endswith(": does not answer; what it has not taken waits in the journal for the next start")


def test_an_event_that_will_never_be_taken_is_passed_over_and_said_once(record, publish):
    with web_server() as server:
        said: list[str] = []
        server.answers[:] = [400, 422, 413]
        publishing = publish(WebhookSink(f"http://127.0.0.1:{server.port}/hook", said.append))
        expected = [record.event() for _ in range(5)]
        wait_until(lambda: numbers(server.taken) == expected[3:])
        assert numbers(server.asked) == expected
        assert said == [
            f"webhook http://127.0.0.1:{server.port}: answers 400 Bad Request to event 1: it is passed over, "
            "as all that are answered so"
        ]
        assert not [line for line in publishing.said if "tried again" in line]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "answers 401 Unauthorized: check the address, and the key in it"),
        (404, "answers 404 Not Found: check the address, and the key in it"),
        (302, "answers 302 Found: it has moved"),
    ],
)
def test_an_address_that_does_not_want_us_is_said_at_once_and_events_are_kept_for_it(record, publish, status, sentence):
    with web_server() as server:
        server.answers[:] = [status] * 3
        publishing = publish(WebhookSink(f"http://127.0.0.1:{server.port}/hook", print))
        expected = [record.event() for _ in range(3)]
        wait_until(lambda: numbers(server.taken) == expected)
        assert sentence in publishing.said[0]
        assert len([line for line in publishing.said if "tried again" in line]) == 1


def test_a_web_server_s_certificate_is_checked(record, publish, certificate, monkeypatch):
    with web_server(certificate=certificate) as server:
        publishing = publish(WebhookSink(f"https://127.0.0.1:{server.port}/hook", print))
        number = record.event()
        wait_until(lambda: publishing.said)
        assert "certificate" in publishing.said[0].lower()
        assert not server.asked
        publishing.stop()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        publish(WebhookSink(f"https://127.0.0.1:{server.port}/hook", print))
        wait_until(lambda: numbers(server.taken) == [number])


def test_the_keys_in_a_web_address_are_neither_in_the_log_nor_in_the_journal(record, publish):
    url = f"http://user:Secret1@127.0.0.1:{free_port()}/hooks/Secret2?key=Secret3"
    publishing = publish(WebhookSink(url, print))
    record.event()
    wait_until(lambda: publishing.said)
    assert "Secret" not in " ".join([*publishing.said, *record.published()])
    assert WebhookSink(url.replace("Secret1", "x").replace("Secret3", "y"), print).name in record.published()


@pytest.mark.parametrize(
    "url", ["", "pond", "ftp://pond/", "http://", "http://po nd/", "http://pond:x/", "http://pond/\n"]
)
def test_what_is_no_web_address_is_refused_in_a_sentence(url):
    with pytest.raises(UserError, match="--webhook"):
        WebhookSink(url, print)


# The journal.


class FakeSink(Sink):
    """Takes everything at once, unless it is away."""

    name = title = "fake"

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.away = False

    def open(self) -> None:
        """It is there, or not."""
        if self.away:
            raise SinkError("away")

    def send(self, events: Sequence[dict[str, Any]]) -> Iterator[int]:
        """Take them."""
        self.open()
        for event in events:
            self.taken.append(event["id"])
            yield event["id"]

    def wait(self, seconds: float) -> None:
        """Shorter than a real one."""
        time.sleep(seconds / 10)


@pytest.mark.parametrize("how", ["damaged", "deleted", "moved"])
def test_after_the_journal_was_replaced_a_fake_sink_gets_what_was_recorded_meanwhile_and_then(record, publish, how):
    sink = FakeSink()
    publish(sink)
    expected = [record.event() for _ in range(3)]
    frog = record.event("frog", goes_on=True)
    wait_until(lambda: sink.taken == expected and record.published() == {"fake": expected[-1]})
    sink.away = True
    if how == "damaged":
        record.journal._connection.execute("pragma wal_checkpoint(truncate)")
        with open(record.path, "r+b") as file:
            file.write(bytes(4096))
        record.journal._connection.execute("pragma shrink_memory")
    elif how == "deleted":
        record.path.unlink()
    else:
        record.path.rename(record.path.with_name("old.sqlite"))
    expected += [record.event() for _ in range(3)]
    time.sleep(0.3)
    record.end(frog)
    sink.away = False
    wait_until(lambda: len(sink.taken) >= 7)
    expected.append(record.event())
    wait_until(lambda: sink.taken[-1:] == expected[-1:])
    assert sorted(sink.taken) == sorted([*expected, frog]), "each once"
    wait_until(lambda: record.published() == {"fake": expected[-1]})


def test_a_fake_sink_gets_an_event_that_is_written_after_one_that_began_later(record, publish):
    sink = FakeSink()
    publish(sink)
    late = record.journal.new_event_id()  # its first rows were given up
    expected = [record.event() for _ in range(3)]
    wait_until(lambda: sink.taken == expected and record.published() == {"fake": expected[-1]})
    record.end(late)
    wait_until(lambda: sink.taken == [*expected, late])
    wait_until(lambda: record.published() == {"fake": expected[-1]})


def test_an_event_whose_last_row_was_given_up_holds_nothing_back_from_a_fake_sink(tmp_path):
    record, sink = Record(tmp_path, most_waiting=6), FakeSink()
    with contextlib.closing(record.journal), publishing(record.path, [sink], print):
        wait_until(record.published)
        frog = record.event("frog", goes_on=True)
        expected = [record.event() for _ in range(3)]
        wait_until(lambda: sink.taken == expected)
        with contextlib.closing(sqlite3.connect(record.path, isolation_level=None)) as other:
            other.execute("begin immediate")
            assert not record.journal.write_health(Health(NOON, NOON))  # it is on its way, and not given up
            record.journal.record(Changes(events=(event_of(frog, closed=True),)))
            for _ in range(10):
                record.journal.write_health(Health(NOON, NOON))
        wait_until(record.journal.flush)
        wait_until(lambda: sink.taken == [*expected, frog])
        wait_until(lambda: record.published() == {"fake": expected[-1]})


def test_progress_that_could_not_be_saved_outlives_a_connection_with_a_fake_fault(record, publish, monkeypatch):
    sink = FakeSink()
    publish(sink)
    expected = [record.event()]
    wait_until(lambda: record.published() == {"fake": expected[0]})
    with contextlib.closing(sqlite3.connect(record.path, isolation_level=None)) as other:
        expected.append(record.event())
        other.execute("begin immediate")
        wait_until(lambda: sink.taken == expected)
        faults = [sqlite3.OperationalError("disk I/O error")]
        really_find = Outbox._finished

        def fake(outbox: Outbox, most: int) -> list:
            if faults:
                raise faults.pop()
            return really_find(outbox, most)

        monkeypatch.setattr(Outbox, "_finished", fake)
        wait_until(lambda: not faults)
        time.sleep(0.5)
    expected.append(record.event())
    wait_until(lambda: record.published() == {"fake": expected[-1]})
    assert sink.taken == expected, "each once"


# The end.


def test_it_ends_within_two_seconds_whoever_hangs_and_sends_again_what_was_on_its_way(record, broker):
    heard = broker.subscribe("birdcall/event")
    with web_server() as server:
        url = f"http://127.0.0.1:{server.port}/hook"
        with contextlib.ExitStack() as running:
            running.enter_context(publishing(record.path, [MqttSink(broker.address), WebhookSink(url, print)], print))
            wait_until(lambda: len(record.published()) == 2)
            expected = [record.event()]
            wait_until(lambda: ids(heard) == numbers(server.taken) == expected)
            broker.freeze()
            server.answers[:] = [0]
            expected += [record.event(), record.event()]
            wait_until(lambda: len(server.asked) == 2)
            began = time.monotonic()
        assert time.monotonic() - began < 2
        broker.thaw()
        with publishing(record.path, [MqttSink(broker.address), WebhookSink(url, print)], print):
            wait_until(lambda: in_order_of_first_arrival(ids(heard)) == expected == numbers(server.taken))

"""What the listener says of itself: a row and a line of health each minute, and signs of life for systemd.

Real files, sockets and processes; "fake" are a board's thermometers, which no test machine has, and clocks that need not wait.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.health import HealthMeter, Totals, Usage, disk_free_bytes, line, temperature_c, usage
from edge.levels import LevelMeter
from edge.tables import Health
from edge.watchdog import Watchdog


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# The row.


def test_a_row_is_due_when_a_fake_minute_is_over_and_tells_of_that_minute_only(tmp_path):
    clock, cpu = Clock(), Clock()
    meter = HealthMeter(tmp_path, monotonic=clock, usage=lambda: Usage(50 << 20, cpu.now))
    levels = LevelMeter()
    for second in range(60):
        assert meter.due(5000.0, Totals(lost=0)) is None
        clock.now += 1
        meter.heard(32000)
        levels.push(np.full((32000, 1), 0.1, np.float32))
        meter.analysed(0.010 + second / 1000)
    meter.dropped(2)
    meter.dropped()
    cpu.now += 3
    first = meter.due(5000.0, Totals(lost=100, overflows=1, withheld=4, clips_lost=2), levels, clips_bytes=12345)
    assert (first.utc_start, first.utc) == (4940.0, 5000.0)
    assert (first.received, first.analysed, first.dropped) == (60 * 32000, 60, 3)
    assert (first.lost, first.overflows, first.withheld, first.clips_lost) == (100, 1, 4, 2)
    assert first.latency_p50_s == pytest.approx(0.0395) and first.latency_p95_s == pytest.approx(0.066, abs=0.001)
    assert first.level_dbfs == pytest.approx(-20) and first.zero_share == first.clipped_share == 0
    assert first.cpu_share == pytest.approx(0.05)
    assert first.clips_bytes == 12345

    clock.now += 61.5
    assert meter.due(5061.5, Totals(lost=100, overflows=3, withheld=4, clips_lost=2), levels, 12345) == Health(
        utc=5061.5,
        utc_start=5000.0,
        received=0,
        lost=0,
        overflows=2,
        analysed=0,
        dropped=0,
        withheld=0,
        disk_free_bytes=pytest.approx(disk_free_bytes(tmp_path), abs=1e9),
        clips_bytes=12345,
        clips_lost=0,
        temperature_c=temperature_c(),
        resident_bytes=50 << 20,
        cpu_share=0.0,
    )


def test_at_the_end_a_row_tells_of_what_is_left_of_the_minute(tmp_path):
    meter = HealthMeter(tmp_path)
    meter.heard(100)
    last = meter.take(time.time(), Totals())
    assert last.received == 100 and 0 <= last.utc - last.utc_start < 10
    assert (
        last.lost is last.overflows is last.withheld is last.clips_lost is last.level_dbfs is last.clips_bytes is None
    )


def test_when_the_wall_clock_is_set_rows_still_come_each_fake_minute_and_are_a_minute_long(tmp_path):
    clock = Clock()
    meter = HealthMeter(tmp_path, monotonic=clock)
    rows = []
    for utc in (5000.0, 9.0e9, 100.0):
        clock.now += 60
        rows.append(meter.due(utc, Totals()))
    assert [row.utc - row.utc_start for row in rows] == [60, 60, 60]


def test_the_latencies_of_a_stretch_take_no_more_memory_than_so_many_and_the_last_count(tmp_path):
    meter = HealthMeter(tmp_path)
    for number in range(100_000):
        meter.analysed(1.0 if number < 50_000 else 0.01)
    row = meter.take(time.time(), Totals())
    assert row.analysed == 100_000
    assert row.latency_p50_s == row.latency_p95_s == pytest.approx(0.01)
    assert len(meter._latencies) == 0


# What the system says.


def test_the_hottest_of_a_fake_jetsons_thermometers_is_told_and_not_what_only_looks_like_one(tmp_path):
    # As a TX2 has them; its PMIC-Die always says 100 °C, and what sleeps cannot be read.
    zones = {
        "BCPU-therm": "43500\n",
        "MCPU-therm": "43000\n",
        "GPU-therm": None,
        "PLL-therm": "44000\n",
        "Tboard_tegra": "39000\n",
        "Tdiode_tegra": "-256000\n",
        "PMIC-Die": "100000\n",
        "thermal-fan-est": "not a number\n",
    }
    for number, (kind, degrees) in enumerate(zones.items()):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text(kind + "\n")
        if degrees:
            (zone / "temp").write_text(degrees)
    (tmp_path / "cooling_device0").mkdir()
    assert temperature_c(tmp_path) == 44.0
    shutil.rmtree(tmp_path / "thermal_zone3")
    assert temperature_c(tmp_path) == 43.5
    assert temperature_c(tmp_path / "nowhere") is None


HELPER = (
    "held = b'1' * (50 << 20)\nimport time\nwhile time.process_time() < 1: pass\nprint('done', flush=True)\ninput()"
)


def test_memory_and_cpu_are_what_the_process_takes_with_all_that_it_started_and_all_that_has_ended():
    before = usage()
    command = [sys.executable, "-c", HELPER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
        helper.stdout.readline()
        together, alone = usage(), usage(helper.pid)
        assert 50 << 20 < alone.resident_bytes < 100 << 20 and 0.9 < alone.cpu_seconds < 2
        assert together.resident_bytes - before.resident_bytes > 50 << 20
        helper.communicate(b"\n")
    after = usage()
    assert after.resident_bytes < together.resident_bytes - (40 << 20)
    assert after.cpu_seconds - before.cpu_seconds >= 0.9
    assert usage(2**30) is None


def test_the_cpu_share_is_of_one_core_and_of_the_time_that_passed(tmp_path):
    meter = HealthMeter(tmp_path)
    time.sleep(0.5)
    assert meter.take(time.time(), Totals()).cpu_share < 0.5
    began, cpu = time.monotonic(), time.process_time()
    while time.process_time() < cpu + 0.5:
        pass
    share = 0.5 / (time.monotonic() - began)  # less than 1, where others use the machine too
    assert meter.take(time.time(), Totals()).cpu_share == pytest.approx(share, abs=0.2)


def test_the_free_space_is_that_of_the_folders_disk(tmp_path):
    assert disk_free_bytes(tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free, abs=1e9)
    assert disk_free_bytes(tmp_path / "nowhere") is None


# The line.


def test_the_line_says_all_that_is_known():
    row = Health(
        **dict(utc=60.0, utc_start=0.0, level_dbfs=-43.12, peak_dbfs=-3.04, clipped_share=0.0001, zero_share=0.0),
        **dict(received=1920000, lost=320, overflows=1, analysed=23, dropped=1, withheld=3),
        **dict(latency_p50_s=0.0124, latency_p95_s=0.0213, disk_free_bytes=12_340_000_000, clips_bytes=1_205_000_000),
        **dict(clips_lost=0, temperature_c=48.4, resident_bytes=126_900_000, cpu_share=0.0412),
    )
    assert line(row) == (
        "input -43.1 dBFS, peak -3.0, clipped 0.01%, zeros 0.00%; samples 1920000, lost 320, overflows 1; windows 23, "
        "dropped 1, withheld 3; answer after 0.012 s, 95 % within 0.021 s; disk 12.3 GB free, clips 1.21 GB, clips lost 0; "
        "48 °C, memory 121 MiB, CPU 4.1%"
    )


def test_the_line_leaves_out_what_is_not_known_and_is_one_line():
    assert line(Health(utc=60.0, utc_start=0.0)) == ""
    assert line(Health(utc=60.0, utc_start=0.0, received=0, cpu_share=0.0)) == "samples 0; CPU 0.0%"
    real = line(HealthMeter(Path("/")).take(time.time(), Totals()))
    assert re.fullmatch(r"samples 0; windows 0, dropped 0; disk \S+ GB free; .*memory \d+ MiB, CPU \S+%", real)


# What systemd is told.


@pytest.fixture
def service_manager() -> Iterator[socket.socket]:
    """A Unix socket as systemd's; `getsockname` is what it puts into $NOTIFY_SOCKET."""
    # Not under tmp_path: the path of a Unix socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="notify") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        listening.bind(f"{folder}/socket")
        listening.settimeout(2)
        yield listening


def said(manager: socket.socket) -> list[str]:
    """All that has arrived."""
    lines = []
    manager.setblocking(False)
    try:
        while True:
            lines.append(manager.recv(1000).decode())
    except BlockingIOError:
        return lines


def test_systemd_is_told_of_the_start_and_the_end_and_of_signs_of_life_by_a_fake_clock(service_manager):
    clock = Clock()
    watchdog = Watchdog({"NOTIFY_SOCKET": service_manager.getsockname(), "WATCHDOG_USEC": "60000000"}, clock)
    assert said(service_manager) == []  # nothing before the listener is ready
    watchdog.ready()
    for _ in range(1000):
        watchdog.alive()
    assert said(service_manager) == ["READY=1", "WATCHDOG=1"]  # no more often than the unit needs it
    for _ in range(600):
        clock.now += 0.1
        watchdog.alive()
    assert said(service_manager) in (
        ["WATCHDOG=1"] * 3,
        ["WATCHDOG=1"] * 4,
    )  # in a minute, which is the unit's WatchdogSec
    watchdog.status("level -41.2 dBFS\nwindows 24")
    watchdog.stopping()
    assert said(service_manager) == ["STATUS=level -41.2 dBFS windows 24", "STOPPING=1"]


def test_an_abstract_socket_is_reached():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"birdcall-test-{os.getpid()}"
        listening.bind("\0" + name)
        Watchdog({"NOTIFY_SOCKET": "@" + name}).ready()
        assert said(listening) == ["READY=1"]


@pytest.mark.parametrize("pid", [lambda: str(os.getpid()), lambda: str(os.getpid() + 1)], ids=["ours", "another's"])
def test_signs_of_life_are_sent_only_by_the_process_that_is_watched(service_manager, pid: Callable[[], str]):
    environment = {"NOTIFY_SOCKET": service_manager.getsockname(), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": pid()}
    Watchdog(environment).ready()
    assert ("WATCHDOG=1" in said(service_manager)) is (pid() == str(os.getpid()))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/x" * 200, "WATCHDOG_USEC": "x"},
    ],
)
def test_where_nobody_listens_nothing_is_sent_and_nothing_fails(environment):
    watchdog = Watchdog(environment)
    watchdog.ready()
    watchdog.alive()
    watchdog.status("all is well")
    watchdog.stopping()


def test_a_service_manager_that_does_not_read_does_not_hold_the_listener_up(service_manager):
    watchdog = Watchdog({"NOTIFY_SOCKET": service_manager.getsockname()})
    for _ in range(5000):  # far more than the socket's queue holds
        watchdog.status("x" * 1000)
    assert 0 < len(said(service_manager)) < 5000

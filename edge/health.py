"""How the listener is doing, about once a minute: a row for the journal and a line for the log.

    meter = HealthMeter(folder.path)
    meter.heard(len(frames)); meter.analysed(latency_seconds); meter.dropped(2)        # as it happens
    health = meter.due(time.time(), Totals(lost=capture.lost, overflows=capture.overflows), capture.levels)
    if health:
        journal.write_health(health)
        print(line(health))
    meter.take(time.time(), ...)                 # at the end, of what is left of the minute

The system's own figures come from /proc, /sys and statvfs; what a system does not tell is None. The wall clock only dates
a row: minutes are counted by the monotonic clock, which nobody sets.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge.levels import LevelMeter
from edge.tables import Health

PERIOD_SECONDS = 60.0
MOST_LATENCIES = 4096  # of a stretch, the last: a minute of windows every 15 ms
THERMAL = Path("/sys/class/thermal")
# A zone of these types is no thermometer: a Jetson's PMIC-Die says 100 °C whatever happens.
NO_THERMOMETER = ("PMIC-Die",)
PLAUSIBLE_C = (-55.0, 150.0)  # a sensor that is switched off says -256 °C


@dataclass(frozen=True)
class Totals:
    """What others count, from their start on; None where there is no such part.

    lost: samples; overflows: how often; withheld: windows, by privacy; clips_lost: clips that could not be kept
    """

    lost: int | None = None
    overflows: int | None = None
    withheld: int | None = None
    clips_lost: int | None = None


@dataclass(frozen=True)
class Usage:
    """What a process takes of the machine, with all that it started (the microphone's helper, ffmpeg).

    resident_bytes: of the memory, what several share counted for each; cpu_seconds: computed since its start
    """

    resident_bytes: int
    cpu_seconds: float


def usage(process: int | None = None) -> Usage | None:
    """Of this process, or of the one of that number."""
    asked = os.getpid() if process is None else process
    children: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which is in brackets and may hold anything: `man 5 proc` counts on from 3.
            _, *fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            number = int(stat.parent.name)
            children.setdefault(int(fields[0]), []).append(number)
            ticks[number] = sum(map(int, fields[10:14]))  # in this process, and in its children that have ended
            pages[number] = int(fields[20])
        except (OSError, ValueError, IndexError):  # ended meanwhile
            continue
    if asked not in pages:
        return None
    family = [asked]
    for parent in family:
        family += children.get(parent, [])
    return Usage(
        resident_bytes=sum(pages[each] for each in family) * os.sysconf("SC_PAGE_SIZE"),
        cpu_seconds=sum(ticks[each] for each in family) / os.sysconf("SC_CLK_TCK"),
    )


class HealthMeter:
    """Counts what it is told, and gives it as a row with what the system says.

    folder: on the disk whose free space matters
    period_seconds: how long a row's stretch is at least
    monotonic: the clock by which minutes are counted; usage: what this process takes of the machine
    """

    def __init__(
        self,
        folder: Path,
        period_seconds: float = PERIOD_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        usage: Callable[[], Usage | None] = usage,
    ) -> None:
        self._folder = Path(folder)
        self._period_seconds = period_seconds
        self._monotonic, self._usage = monotonic, usage
        self._totals: dict[str, int] = {}
        self._begin(self._monotonic(), self._usage())

    def _begin(self, now: float, used: Usage | None) -> None:
        self._began, self._used = now, used
        self._received = self._analysed = self._dropped = 0
        self._latencies: deque[float] = deque(maxlen=MOST_LATENCIES)

    def heard(self, frames: int) -> None:
        """So many samples of each channel came."""
        self._received += frames

    def analysed(self, latency_seconds: float) -> None:
        """A window was answered, so long after its end."""
        self._analysed += 1
        self._latencies.append(latency_seconds)

    def dropped(self, windows: int = 1) -> None:
        """So many windows were passed over, a newer one being whole."""
        self._dropped += windows

    def due(
        self, utc: float, totals: Totals, levels: LevelMeter | None = None, clips_bytes: int | None = None
    ) -> Health | None:
        """What `take` gives, once a stretch is over; None before. Costs nothing then."""
        if self._monotonic() - self._began < self._period_seconds:
            return None
        return self.take(utc, totals, levels, clips_bytes)

    def take(
        self, utc: float, totals: Totals, levels: LevelMeter | None = None, clips_bytes: int | None = None
    ) -> Health:
        """The row of the stretch since the last one; it ends at `utc`, in seconds since 1970, and another begins.

        levels: what has measured the input since the last row; clips_bytes: what all clips take
        """
        now, used = self._monotonic(), self._usage()
        seconds = now - self._began
        input_levels = levels.take() if levels else None
        p50, p95 = np.percentile(self._latencies, [50, 95]).tolist() if self._latencies else (None, None)
        health = Health(
            utc=utc,
            utc_start=utc - seconds,
            level_dbfs=input_levels.rms_dbfs if input_levels else None,
            peak_dbfs=input_levels.peak_dbfs if input_levels else None,
            clipped_share=input_levels.clipped_share if input_levels else None,
            zero_share=input_levels.zero_share if input_levels else None,
            received=self._received,
            analysed=self._analysed,
            dropped=self._dropped,
            latency_p50_s=p50,
            latency_p95_s=p95,
            disk_free_bytes=disk_free_bytes(self._folder),
            clips_bytes=clips_bytes,
            temperature_c=temperature_c(),
            resident_bytes=used.resident_bytes if used else None,
            cpu_share=(used.cpu_seconds - self._used.cpu_seconds) / seconds
            if used and self._used and seconds
            else None,
            **self._since_last(totals),
        )
        self._begin(now, used)
        return health

    def _since_last(self, totals: Totals) -> dict[str, int | None]:
        """How much each total has grown since the last row."""
        grown: dict[str, int | None] = {}
        for name, total in asdict(totals).items():
            grown[name] = None if total is None else total - self._totals.get(name, 0)
            self._totals[name] = total or 0
        return grown


def disk_free_bytes(folder: Path) -> int | None:
    """What this user can still write to the folder's disk."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def temperature_c(thermal: Path = THERMAL) -> float | None:
    """The hottest thermometer of the board, in degrees Celsius."""
    found = []
    for zone in thermal.glob("thermal_zone*"):
        try:
            kind, degrees = (zone / "type").read_text().strip(), int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):  # some cannot be read while what they measure sleeps
            continue
        if kind not in NO_THERMOMETER and PLAUSIBLE_C[0] < degrees < PLAUSIBLE_C[1]:
            found.append(degrees)
    return max(found, default=None)


def line(health: Health) -> str:
    """A row for people who read a log; what is not known is left out."""
    given = {name: value for name, value in asdict(health).items() if value is not None}
    groups = (
        (
            "input {level_dbfs:.1f} dBFS",
            "peak {peak_dbfs:.1f}",
            "clipped {clipped_share:.2%}",
            "zeros {zero_share:.2%}",
        ),
        ("samples {received}", "lost {lost}", "overflows {overflows}"),
        ("windows {analysed}", "dropped {dropped}", "withheld {withheld}"),
        ("answer after {latency_p50_s:.3f} s", "95 % within {latency_p95_s:.3f} s"),
        ("disk {disk_free_gb:.1f} GB free", "clips {clips_gb:.2f} GB", "clips lost {clips_lost}"),
        ("{temperature_c:.0f} °C", "memory {resident_mib:.0f} MiB", "CPU {cpu_share:.1%}"),
    )
    for name, given_as, unit in (
        ("disk_free_gb", "disk_free_bytes", 1e9),
        ("clips_gb", "clips_bytes", 1e9),
        ("resident_mib", "resident_bytes", 2**20),
    ):
        if given_as in given:
            given[name] = given[given_as] / unit
    texts = [", ".join(text for part in group if (text := _filled(part, given))) for group in groups]
    return "; ".join(text for text in texts if text)


def _filled(part: str, values: dict[str, float]) -> str:
    try:
        return part.format_map(values)
    except KeyError:
        return ""

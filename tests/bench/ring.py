"""The ring between sound card and model against collections.deque: CPU for the same audio, callback and reader.

    python tests/bench/ring.py                       # an hour of audio at 32 kHz, in blocks of 10 ms, a window every 2.5 s
    python tests/bench/ring.py --seconds 600 --block 1024

Four ways to hand the last 5 s over every 2.5 s, in one run, in turns, three times each; medians:
    ring            edge/ring.py in one process
    shared ring     the same between two processes, as a microphone's (here one does both)
    deque of blocks a copy of each block appended, all put together for each window
    deque           samples one by one (`deque.extend`), as a list and an array for each window
Prints microseconds of the callback for each block, milliseconds of the reader for each window, the CPU share of a core that
both are in real time, and their ratio to the ring's. Takes a minute.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Callable

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge.ring import RING_SECONDS, RingBuffer, shared_memory, shared_ring  # noqa: E402

RATE = 32000
WINDOW, HOP = 5 * RATE, 5 * RATE // 2


class Ring:
    """A ring, and a reader that keeps half a window, since a ring gives each frame once."""

    def __init__(self, ring: RingBuffer) -> None:
        self._ring = ring
        self.write = ring.write
        self._kept = np.zeros((WINDOW - HOP, 1), np.float32)

    def window(self) -> np.ndarray:
        window = np.concatenate([self._kept, self._ring.read()[1]])[-WINDOW:]
        self._kept = window[-(WINDOW - HOP) :]
        return window


class Blocks:
    """A deque of blocks."""

    def __init__(self, block: int) -> None:
        self._blocks: deque[np.ndarray] = deque(maxlen=-(-WINDOW // block))

    def write(self, block: np.ndarray) -> None:
        self._blocks.append(block.copy())

    def window(self) -> np.ndarray:
        return np.concatenate(list(self._blocks))[-WINDOW:]


class Samples:
    """A deque of samples."""

    def __init__(self) -> None:
        self._samples: deque[np.float32] = deque(maxlen=WINDOW)

    def write(self, block: np.ndarray) -> None:
        self._samples.extend(block[:, 0])

    def window(self) -> np.ndarray:
        return np.array(self._samples, np.float32)[:, None]


def main() -> int:
    """Measure and print; 1 if the ways do not give the same windows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--block", type=int, default=320, help="frames in a callback; %(default)s")
    arguments = parser.parse_args()

    capacity = round(RING_SECONDS * RATE)
    ways: dict[str, Callable[[], Ring | Blocks | Samples]] = {
        "ring": lambda: Ring(RingBuffer(capacity, 1)),
        "shared ring": lambda: Ring(shared_ring(shared_memory(), capacity, 1)),
        "deque of blocks": lambda: Blocks(arguments.block),
        "deque": Samples,
    }
    audio = (
        np.random.default_rng(0).standard_normal((60 * RATE // arguments.block, arguments.block, 1)).astype(np.float32)
    )
    figures = {name: [] for name in ways}
    windows = {}
    for _ in range(3):
        for name, make in ways.items():
            *figure, windows[name] = measure(make(), audio, arguments.seconds)
            figures[name].append(figure)

    print(
        f"{arguments.seconds} s at {RATE} Hz, blocks of {arguments.block} frames, 5 s every 2.5 s; CPU, medians of three"
    )
    print("                   us/block  ms/window  share of a core  ratio")
    own = None
    for name, runs in figures.items():
        writing, reading = (statistics.median(column) for column in zip(*runs))
        share = writing * RATE / arguments.block + reading * RATE / HOP
        own = own or share
        print(f"{name:18} {writing * 1e6:9.2f} {reading * 1e3:10.3f} {share:15.4%}  {share / own:6.1f}")
    return int(any(not np.array_equal(window, windows["ring"]) for window in windows.values()))


def measure(way: Ring | Blocks | Samples, audio: np.ndarray, seconds: int) -> tuple[float, float, np.ndarray]:
    """CPU seconds of a write and of a window, and the last window."""
    blocks_in_hop = HOP // audio.shape[1]
    writing = reading = 0.0
    hops = round(seconds * RATE / HOP)
    for hop in range(hops):
        first = hop * blocks_in_hop
        began = time.process_time()
        for number in range(first, first + blocks_in_hop):
            way.write(audio[number % len(audio)])
        wrote = time.process_time()
        window = way.window()
        writing += wrote - began
        reading += time.process_time() - wrote
    return writing / (hops * blocks_in_hop), reading / hops, window


if __name__ == "__main__":
    sys.exit(main())

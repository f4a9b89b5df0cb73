"""A network that another program runs, asked over a pipe: for a GPU whose libraries do not fit this Python (jetson.py).

    with NetworkProcess("python3 edge/jetson.py /model --converted /var/lib/birdcall/tensorrt", bundle) as network:
        Predictor([bundle], networks=[network])

The program first writes a line of JSON, {"samples": 160000, "labels": 264}, then for each window on its standard input (float32)
as many probabilities (float32) on its standard output. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import time

import numpy as np

from src.bundle import Bundle
from src.errors import UserError
from src.predictor import Predictor

START_SECONDS = 3600.0  # a large network is converted for the GPU at its first start
ANSWER_SECONDS = 30.0
TOLERANCE = 0.05  # in probability, between this program and the bundle's LiteRT file


class NetworkProcess:
    """What a program says of a window: float32 [samples] -> float32 [labels]. For one bundle.

    Raises UserError where the program does not start, is for another bundle, answers otherwise than the bundle's own
    LiteRT file, ends, or does not answer.
    """

    def __init__(self, command: str, bundle: Bundle, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._command = command
        self._answer_seconds = answer_seconds
        self._labels = len(bundle.labels)
        print(f"waiting for {command}", file=sys.stderr, flush=True)
        try:
            self._process = subprocess.Popen(
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except (OSError, ValueError) as error:
            raise UserError(f"--network {command}: cannot be started: {error}") from error
        try:
            self._check_shape(bundle)
            self._check_answers(bundle)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> NetworkProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, window: np.ndarray) -> np.ndarray:
        """The probabilities of a window."""
        left = memoryview(np.ascontiguousarray(window, np.float32).tobytes())
        try:
            while left:  # a signal cuts a write short
                left = left[self._process.stdin.write(left) :]
        except OSError as error:
            raise UserError(f"--network {self._command}: has ended; its last words are above") from error
        return np.frombuffer(self._read(4 * self._labels, self._answer_seconds), np.float32)

    def close(self) -> None:
        """End the program."""
        self._process.stdin.close()
        try:
            self._process.wait(self._answer_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _check_shape(self, bundle: Bundle) -> None:
        line = b""
        while not line.endswith(b"\n") and len(line) < 1000:
            line += self._read(1, START_SECONDS)
        expected = {"samples": bundle.recipe.window_samples, "labels": self._labels}
        try:
            found = json.loads(line)
        except ValueError:
            found = line.decode(errors="replace").strip()
        if found != expected:
            raise UserError(
                f"--network {self._command}: says {found}, and {bundle.folder} is {expected}: not its network"
            )

    def _check_answers(self, bundle: Bundle) -> None:
        """Hold it against LiteRT on some noise: a conversion that went wrong must not listen for a month."""
        window = np.random.default_rng(0).normal(0, 0.1, bundle.recipe.window_samples).astype(np.float32)
        expected = Predictor([bundle], calibrated=False).probabilities(window[None])[0]
        difference = float(np.abs(self(window) - expected).max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"--network {self._command}: its probabilities differ from those of {bundle.folder}/model.tflite by "
                f"{difference:.2g}: not the same network, or its conversion went wrong"
            )

    def _read(self, count: int, seconds: float) -> bytes:
        data, deadline = b"", time.monotonic() + seconds
        while len(data) < count:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise UserError(f"--network {self._command}: has not answered for {seconds:g} s")
            part = os.read(self._process.stdout.fileno(), count - len(data))
            if not part:
                raise UserError(f"--network {self._command}: has ended; its last words are above")
            data += part
        return data

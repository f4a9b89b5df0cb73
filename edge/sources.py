"""The microphone as edge/listener.py asked for it before there was edge/capture.py: it ends with a sentence when it dies.

Goes when the listener reads from a Capture. What is new lies in source.py, microphone.py, streams.py and player.py.
"""

from __future__ import annotations

import time

from edge import microphone
from edge.player import FilePlayer
from edge.portaudio import describe_devices
from edge.source import Heard, SampleClock, SourceLostError
from src.errors import UserError

__all__ = ["FilePlayer", "Heard", "Microphone", "SampleClock", "describe_devices"]


class Microphone(microphone.Microphone):
    """A microphone that is there when it was made. Raises UserError where it is not, and when it is no more."""

    def __init__(self, device: str | None, channels: int, sample_rate: int | None, wanted_rate: int) -> None:
        super().__init__(device, "mean", sample_rate, wanted_rate)
        while not self._ring:
            time.sleep(0.02)
            if gone := self._gone():
                self.close()
                raise UserError(getattr(gone, "detail", str(gone)))

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> Heard:
        """As of a source; raises UserError where it raises SourceLostError."""
        try:
            return super().read()
        except SourceLostError as lost:
            raise UserError(f"{lost.detail}; start again") from lost

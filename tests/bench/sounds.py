"""Audio of any length to measure with: quiet noise, and a whistle now and then, so that neither FLAC nor a network has it easy.

write_noise(Path("noise.flac"), seconds=600.0)
"""

from __future__ import annotations

from pathlib import Path

RATE_HZ = 32000


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write a file of the format that its name says, at 32 kHz, one channel; returns its path. Held in memory: ten seconds."""
    import numpy as np
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        written, total = 0, round(seconds * RATE_HZ)
        while written < total:
            frames = min(10 * RATE_HZ, total - written)
            time_s = (written + np.arange(frames)) / RATE_HZ
            whistle = (
                0.1 * np.sin(2 * np.pi * (3000 + 500 * np.sin(2 * np.pi * 3 * time_s)) * time_s) * (time_s % 7 < 1)
            )
            file.write((generator.normal(0, 0.01, frames) + whistle).astype(np.float32))
            written += frames
    return path

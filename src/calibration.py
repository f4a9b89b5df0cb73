"""From a network's probability to one that comes true as often as it says: Platt scaling. NumPy only, as it is used in the field.

    calibration = Calibration(slope=0.7, intercept=-0.4, offsets=(0.1, 0.0, -0.3))     # an offset a species
    calibration.apply(probabilities)                # float32 [..., labels]: sigmoid(slope * logit + intercept + offset)

It grows with the probability it is given, for each species, so it changes no ranking of windows. `fitting.fit_calibration`
finds the numbers; bundle.json keeps them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LIMIT = 1e-6  # a probability of exactly 0 or 1 has no logit


@dataclass(frozen=True)
class Calibration:
    """Platt scaling. slope: above 0; offsets: one a species, () for none. The default changes nothing."""

    slope: float = 1.0
    intercept: float = 0.0
    offsets: tuple[float, ...] = ()

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.slope == 1 and self.intercept == 0 and not any(self.offsets)

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities: float array [..., labels] -> float32 array of the same shape. NaN stays NaN."""
        if self.is_identity:
            return probabilities
        shift = self.intercept + (np.array(self.offsets) if self.offsets else 0.0)
        return sigmoid(self.slope * logit(probabilities) + shift).astype(np.float32)

    def to_dict(self) -> dict:
        """As JSON has it."""
        return {"slope": self.slope, "intercept": self.intercept, "offsets": list(self.offsets)}

    @classmethod
    def from_dict(cls, values: dict, labels: int) -> Calibration:
        """The inverse of `to_dict`, checked. Raises ValueError that says what is wrong."""
        slope, intercept = float(values["slope"]), float(values["intercept"])
        offsets = tuple(float(value) for value in values["offsets"])
        if len(offsets) not in (0, labels):
            raise ValueError(f"calibration has {len(offsets)} offsets for {labels} species")
        if not all(math.isfinite(value) for value in (slope, intercept, *offsets)):
            raise ValueError("calibration holds what is not a number")
        if slope <= 0:
            raise ValueError(f"calibration's slope must be above 0, not {slope}")
        return cls(slope, intercept, offsets)


def logit(probabilities: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), float64, of probabilities kept LIMIT away from 0 and 1."""
    kept = np.clip(np.asarray(probabilities, np.float64), LIMIT, 1 - LIMIT)
    return np.log(kept / (1 - kept))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """The inverse of `logit`."""
    return 1 / (1 + np.exp(-np.clip(values, -50, 50)))

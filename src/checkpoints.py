"""A stage of training on disk: all its variables after each epoch, so that a run that was killed goes on where it was.

<folder>/checkpoint_<stage>.npz     weights, optimizer, epochs done, and what they are of; written whole or not at all
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import UserError
from src.files import written_whole

ONE = r"\b\w+=(?:'[^']*'|[\w.+-]+)"  # setting of a recipe as it is printed


@dataclass(frozen=True)
class Checkpoint:
    """Where a stage's state is kept, and what it is of.

    settings: all that shapes the training; a checkpoint of other settings is not gone on with
    """

    folder: Path
    stage: str
    settings: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"checkpoint_{self.stage}.npz"

    def save(self, variables: Sequence[Any], best: Sequence[np.ndarray], epochs_done: int) -> None:
        """Keep the variables' values, the best weights so far if there are any, and the number of epochs done."""
        arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}
        arrays |= {f"b{number}": value for number, value in enumerate(best)}
        with written_whole(self.path) as temporary:
            np.savez(temporary, epochs_done=epochs_done, settings=self.settings, **arrays)

    def restore(self, variables: Sequence[Any]) -> tuple[int, list[np.ndarray]]:
        """(epochs done, best weights so far) with the variables set; (0, []) if nothing is kept.

        Raises UserError for a checkpoint of another training or a damaged one.
        """
        if not self.path.exists():
            return 0, []
        self.check()
        try:
            with np.load(self.path) as stored:
                values = [stored[f"v{number}"] for number in range(len(variables))]
                best = [stored[f"b{number}"] for number in range(sum(name.startswith("b") for name in stored.files))]
                epochs_done = int(stored["epochs_done"])
            for variable, value in zip(variables, values):
                variable.assign(value)
        except Exception as error:  # zipfile, numpy and Keras each have their own for a damaged file
            raise UserError(f"{self.path} is damaged; --restart trains anew") from error
        return epochs_done, best

    def check(self) -> None:
        """Raise UserError for a checkpoint of another training or a damaged one, if there is one."""
        if not self.path.exists():
            return
        try:
            with np.load(self.path) as stored:
                settings = str(stored["settings"])
        except Exception as error:  # as in `restore`
            raise UserError(f"{self.path} is damaged; --restart trains anew") from error
        if settings != self.settings:
            mine = set(re.findall(ONE, self.settings))
            others = ", ".join(one for one in re.findall(ONE, settings) if one not in mine)
            raise UserError(
                f"{self.path} is of a training with other options{others and f' ({others})'}, windows or folds; "
                "give the same ones to go on, --restart to train anew, or -o for another folder"
            )

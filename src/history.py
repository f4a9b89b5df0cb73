"""What happened in each epoch: a table, a figure of it, and TensorBoard's event files.

<folder>/history.csv       one row an epoch: stage, epoch, loss, val_loss, val_window_accuracy, learning_rate, cost in seconds
<folder>/history.png       the same, to look at
<folder>/tensorboard/      for `tensorboard --logdir runs`
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from src.errors import UserError
from src.files import written_whole

NOT_DRAWN = ("stage", "epoch")


class History:
    """The epochs of a fold's training. `rows` holds those of all stages, in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows: list[dict] = []

    def go_on(self, stage: str, epochs_done: int) -> None:
        """Take up what is on disk, up to so many epochs of a stage. Raises UserError if that cannot be read."""
        if not epochs_done:
            return
        path = self._folder / "history.csv"
        try:
            table = pd.read_csv(path)
            kept = table[(table.stage == stage) & (table.epoch < epochs_done)]
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); --restart trains anew") from error
        self.rows += kept.to_dict("records")

    def of(self, stage: str) -> list[dict]:
        """The rows of one stage."""
        return [row for row in self.rows if row["stage"] == stage]

    def add(self, row: dict) -> None:
        """Keep one more epoch: in the table and for TensorBoard."""
        import tensorflow as tf

        self.rows.append(row)
        with written_whole(self._folder / "history.csv") as temporary:
            self.table().to_csv(temporary, index=False)
        writer = tf.summary.create_file_writer(str(self._folder / "tensorboard" / row["stage"]))
        with writer.as_default(step=row["epoch"]):
            for name, value in row.items():
                if name not in NOT_DRAWN:
                    tf.summary.scalar(name, value)
        writer.close()

    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows)

    def draw(self) -> None:
        """Write history.png: losses, accuracy and the rate over the epochs of each stage."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        table = self.table()
        stages = list(table.stage.unique())
        figure, axes = plt.subplots(
            3, len(stages), figsize=(1 + 5 * len(stages), 8), squeeze=False, layout="constrained"
        )
        for column, stage in enumerate(stages):
            rows = table[table.stage == stage]
            panels = (("loss", "val_loss"), ("val_window_accuracy",), ("learning_rate",))
            for axis, names in zip(axes[:, column], panels):
                for name in names:
                    axis.plot(rows.epoch + 1, rows[name], marker=".", label=name.replace("_", " "))
                axis.legend()
                axis.grid(alpha=0.3)
            axes[0, column].set_title(f"{stage}: {rows.cpu_seconds.sum():.0f} CPU s")
            axes[-1, column].set_xlabel("epoch")
        with written_whole(self._folder / "history.png") as temporary:
            figure.savefig(temporary, dpi=80)
        plt.close(figure)

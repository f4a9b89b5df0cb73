"""A question of the study: its trials, run one after the other, its rows and its table written as they come.

    STUDY = Study("augmentation", "Offline augmentation, one by one", (Question("...", trials), ...))
    if __name__ == "__main__":
        run_script(lambda: main(STUDY, parser(__doc__).parse_args()))

Run again, it does what is not yet in the CSV, whatever ended it. Of what is fine-tuned, one seed of all trials comes before
the next seed, so that a table is there early.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.trials import Bench, Cost, Trial, figures
from src.errors import UserError

OPTIONS = "--data $DATA/birds --nocall $DATA/nocall"


@dataclass(frozen=True)
class Ensemble:
    """The mean of the probabilities of trials that have the same windows and folds."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """Trials compared with the first of them, by seed and fold; by seed where their folds are not the same ones."""

    title: str
    trials: tuple[Trial | Ensemble, ...]
    remark: str = ""
    by_seed: bool = False


@dataclass(frozen=True)
class Study:
    """A file of docs/experiments."""

    name: str
    title: str
    questions: tuple[Question, ...]
    options: str = OPTIONS

    @property
    def by_name(self) -> dict[str, Trial | Ensemble]:
        """All its trials, in their order."""
        return {trial.name: trial for question in self.questions for trial in question.trials}

    @property
    def command(self) -> str:
        """What makes it."""
        return f"python -m experiments.{self.name} {self.options}"


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all studies share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="as given to prepare.py")
    made.add_argument("--nocall", required=True, help="recordings without birds, to tell birds from")
    made.add_argument("--seeds", type=int, default=3, help="draws of the folds, and starts of the training")
    made.add_argument("--frozen", action="store_true", help="only what needs no fine-tuning: minutes, not hours")
    made.add_argument("--only", nargs="+", metavar="TRIAL", help="these trials")
    made.add_argument("--work", type=Path, default=Path("input/prepared/experiments"), help="what is kept between runs")
    made.add_argument("-o", "--output", type=Path, default=Path("docs/experiments"), help="where CSV and Markdown go")
    return made


def main(study: Study, arguments: argparse.Namespace) -> int:
    """Run what is missing, and write the table after each seed of a trial."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # a line a fold is enough; read when tqdm is imported
    from src.layouts import DataSource
    from src.storage import absolute

    chosen = _chosen(study, arguments.only)
    if arguments.frozen:
        chosen = [trial for trial in chosen if isinstance(trial, Ensemble) or not trial.fine_tuned]
    bench = Bench(DataSource(absolute(arguments.data), nocall=absolute(arguments.nocall)), arguments.work)
    run(study, chosen, bench, arguments.seeds, arguments.output)
    print((arguments.output / f"{study.name}.md").read_text(encoding="utf-8"))
    return 0


def _chosen(study: Study, only: Sequence[str] | None) -> list[Trial | Ensemble]:
    every = study.by_name
    unknown = set(only or ()) - set(every)
    if unknown:
        raise UserError(f"no trial is called {sorted(unknown)[0]!r}; there are {', '.join(every)}")
    return [trial for name, trial in every.items() if not only or name in only]


def in_order(trials: Sequence[Trial], seeds: int) -> Iterator[tuple[Trial, int]]:
    """Frozen ones first, trial by trial, as they share embeddings; then the fine-tuned ones, seed by seed."""
    yield from ((trial, seed) for trial in trials if not trial.fine_tuned for seed in range(seeds))
    yield from ((trial, seed) for seed in range(seeds) for trial in trials if trial.fine_tuned)


def run(study: Study, chosen: Sequence[Trial | Ensemble], bench: Bench, seeds: int, output: Path) -> None:
    """Do what is not in the results yet."""
    from experiments.results import ALL, Results

    results = Results(output, study.name)
    results.check_data(bench.data_digest)
    trials = [trial for trial in chosen if isinstance(trial, Trial)]
    for trial, seed in in_order(trials, seeds):
        if results.has(trial, seed, ALL) and all(results.has(trial, seed, fold) for fold in range(trial.folds)):
            continue
        run_seed(trial, seed, bench, results)
        write(study, results, output)
    by_name = study.by_name
    for ensemble in chosen:
        if isinstance(ensemble, Ensemble):
            members = [by_name[name] for name in ensemble.members]
            for seed in range(seeds):
                if all(results.has(member, seed, ALL) for member in members):
                    join(ensemble, members, seed, bench, results)
    write(study, results, output)


def run_seed(trial: Trial, seed: int, bench: Bench, results) -> None:
    """One trial and seed: a row a fold as each is done, then that of all folds together."""
    from experiments.results import ALL, row_of

    done = []
    for fold in range(trial.folds):
        table, cost = bench.fold(trial, seed, fold)
        done.append((table, cost))
        if not results.has(trial, seed, fold):
            found = of_tables([table])
            results.add(row_of(trial.name, seed, fold, trial.changes, found, cost), trial.describe())
            said = f"window {found['window_accuracy']:.3f}, recording {found['recording_accuracy']:.3f}"
            print(f"{trial.name}, seed {seed}, fold {fold}: {said}, {cost.cpu_seconds:.0f} CPU s", file=sys.stderr)
    tables, costs = zip(*done)
    results.add(
        row_of(trial.name, seed, ALL, trial.changes, of_tables(tables), together(costs)),
        trial.describe(),
    )


def join(ensemble: Ensemble, members: Sequence[Trial], seed: int, bench: Bench, results) -> None:
    """The rows of an ensemble, from what its members answered."""
    from experiments.results import ALL, row_of

    tables, costs = [], []
    for fold in range(members[0].folds):
        of_members = [bench.fold(member, seed, fold) for member in members]
        tables.append(mean_of([table for table, _ in of_members]))
        spent = [cost for _, cost in of_members]
        costs.append(Cost(*(sum(getattr(c, n) for c in spent) for n in COSTS), spent[0].training_windows))
    described = {"mean_of": [member.describe() for member in members]}
    changes = {"mean_of": list(ensemble.members)}
    for fold, table, cost in zip(range(len(tables)), tables, costs):
        results.add(row_of(ensemble.name, seed, fold, changes, of_tables([table]), cost), described)
    results.add(row_of(ensemble.name, seed, ALL, changes, of_tables(tables), together(costs)), described)


COSTS = ("cpu_seconds", "seconds", "windows_cpu_seconds")


def together(costs: Sequence[Cost]) -> Cost:
    """Of several folds: training is added up, the windows were made once."""
    total = sum(cost.cpu_seconds for cost in costs), sum(cost.seconds for cost in costs)
    windows = max(cost.windows_cpu_seconds for cost in costs)
    return Cost(*total, windows, round(sum(cost.training_windows for cost in costs) / len(costs)))


def of_tables(tables) -> dict[str, float]:
    """The figures of some folds' tables together."""
    import pandas as pd

    from src import oof

    whole = pd.concat(tables, ignore_index=True)
    labels = list(whole.columns[whole.columns.get_loc("call_score") + 1 :])
    return figures(oof.as_arrays(whole, labels))


def mean_of(tables):
    """A table with the mean of the tables' probabilities. Raises UserError if they are not of the same windows."""
    first = tables[0]
    labels = list(first.columns[first.columns.get_loc("call_score") + 1 :])
    keys = ["filename", "channel", "start_seconds", "ebird_code"]
    if not all(table[keys].equals(first[keys]) for table in tables):
        raise UserError("an ensemble's members must have validated the same windows")
    return first.assign(**{label: sum(table[label] for table in tables) / len(tables) for label in labels})


def write(study: Study, results, output: Path) -> None:
    """The table of what there is so far."""
    from experiments.results import Comparison, markdown, write_markdown

    comparisons = [
        Comparison(one.title, one.trials[0].name, tuple(trial.name for trial in one.trials), one.remark, one.by_seed)
        for one in study.questions
    ]
    rows, recipes, by_name = results.rows, results.recipes, study.by_name

    def of_now(name: str, recipe: str) -> bool:
        trial = by_name.get(name)
        return trial is not None and (isinstance(trial, Ensemble) or trial.is_of(recipes.get(recipe, {})))

    if len(rows):  # not of a trial that is no more, nor of an earlier default
        rows = rows[[of_now(name, str(recipe)) for name, recipe in zip(rows.trial, rows.recipe)]]
    write_markdown(output / f"{study.name}.md", markdown(study.title, study.command, comparisons, rows))

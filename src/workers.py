"""Where parallel work runs: processes of this machine, or a cluster, through joblib's own backends.

    for done in Workers(jobs=2).run(delayed(f)(x) for x in xs): ...                         # in the order of completion
    Workers(backend="dask", scheduler="tcp://10.0.0.1:8786").run(...)                       # all workers of a dask cluster
    Workers(backend="ray", scheduler="ray://10.0.0.1:10001").run(...)

Without a scheduler, dask and ray start workers on this machine. What runs must not depend on who runs it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from joblib import Parallel, parallel_config

from src.errors import UserError

CONNECT_SECONDS = 10.0
BACKENDS = ("loky", "dask", "ray")


class WorkerKilledError(UserError):
    """A worker process was killed from outside. What it had not finished is not done."""


@dataclass(frozen=True)
class Workers:
    """backend: loky (processes here), dask or ray; scheduler: address of a cluster; jobs: at once, -1: one a core or worker."""

    jobs: int = -1
    backend: str = "loky"
    scheduler: str = ""

    def run(self, tasks: Iterable[tuple]) -> Iterator[Any]:
        """Yield the results of joblib's delayed calls as they come.

        Raises UserError if the cluster is not to be had, WorkerKilledError if the system killed a worker.
        """
        self.check()
        with contextlib.ExitStack() as stack:
            if self.backend != "loky":
                stack.enter_context(getattr(self, f"_{self.backend}")())
            # ray's joblib backend gives its results together, at the end.
            return_as = "list" if self.backend == "ray" else "generator_unordered"
            try:
                yield from Parallel(n_jobs=self.jobs, return_as=return_as)(tasks)
            except Exception as error:
                # loky's TerminatedWorkerError and dask's KilledWorker: names, so that neither has to be imported here.
                if not {"TerminatedWorkerError", "KilledWorker"} & {kind.__name__ for kind in type(error).__mro__}:
                    raise
                raise WorkerKilledError(
                    "a worker was killed, by the system if memory ran out; what was finished is kept: run the same command "
                    "again, with fewer --jobs"
                ) from error

    def check(self) -> None:
        """Raise UserError for a backend that there is not, or a scheduler that does not answer."""
        if self.backend not in BACKENDS:
            raise UserError(f"--backend must be {', '.join(BACKENDS)}, not {self.backend}")
        if self.scheduler and self.backend == "loky":
            raise UserError("--scheduler is for --backend dask or ray: loky's processes are on this machine")
        if self.scheduler:
            self._check_scheduler()

    def _check_scheduler(self) -> None:
        """Raise UserError if nothing answers at the scheduler's address: ray would wait for it without end."""
        place = urlsplit(self.scheduler if "://" in self.scheduler else f"//{self.scheduler}")
        try:
            if not place.hostname or not place.port:
                raise ValueError("an address is HOST:PORT")
            socket.create_connection((place.hostname, place.port), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise UserError(
                f"--scheduler {self.scheduler}: no {self.backend} scheduler answers there ({error})"
            ) from error

    @contextlib.contextmanager
    def _dask(self) -> Iterator[None]:
        try:
            from distributed import Client
        except ImportError as error:
            raise UserError("--backend dask: pip install distributed") from error
        try:
            client = Client(self.scheduler or None, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise UserError(f"--scheduler {self.scheduler}: no dask scheduler answers there ({error})") from error
        with client, parallel_config(backend="dask"):
            yield

    @contextlib.contextmanager
    def _ray(self) -> Iterator[None]:
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise UserError("--backend ray: pip install ray") from error
        try:
            ray.init(address=self.scheduler or None, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"--scheduler {self.scheduler}: no ray cluster answers there ({error})") from error
        register_ray()
        try:
            with parallel_config(backend="ray"):
                yield
        finally:
            ray.shutdown()

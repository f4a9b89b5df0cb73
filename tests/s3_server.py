"""A real S3 server on loopback (moto's), each of whose answers may be made to wait, as one across the world does.

python tests/s3_server.py --latency 0.15        # prints its port, serves until it is killed; /requests counts
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path


class S3Server:
    """The server in a process of its own. env: what a program needs to use it."""

    def __init__(self, latency_seconds: float = 0.0) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--latency", str(latency_seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.env = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def requests(self) -> list[str]:
        """What was asked for since the last call: "GET /bucket/key", ..."""
        import urllib.request

        with urllib.request.urlopen(f"{self.url}/requests") as answer:
            return json.load(answer)

    def most_at_once(self) -> int:
        """The greatest number of requests that were under way together since the last call."""
        import urllib.request

        with urllib.request.urlopen(f"{self.url}/most_at_once") as answer:
            return json.load(answer)

    def latency(self, seconds: float) -> None:
        """Let each answer wait so long from now on."""
        import urllib.request

        urllib.request.urlopen(f"{self.url}/latency/{seconds}").close()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Waiting:
    """WSGI: a log of requests, and a wait before each answer."""

    def __init__(self, application: Callable, latency_seconds: float) -> None:
        self._application, self._latency_seconds = application, latency_seconds
        self._lock, self._log, self._now, self._most = threading.Lock(), [], 0, 0

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        answer = None
        with self._lock:
            if path == "/requests":
                answer, self._log = self._log, []
            elif path == "/most_at_once":
                answer, self._most = self._most, 0
            elif path.startswith("/latency/"):
                self._latency_seconds = answer = float(path.rsplit("/", 1)[1])
            else:
                self._log.append(f"{environ['REQUEST_METHOD']} {path}")
                self._now += 1
                self._most = max(self._most, self._now)
        if answer is not None:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(answer).encode()]
        try:
            time.sleep(self._latency_seconds)
            return list(self._application(environ, start_response))
        finally:
            with self._lock:
                self._now -= 1


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    arguments = parser.parse_args()
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = Waiting(DomainDispatcherApplication(create_backend_app), arguments.latency)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""A web page of what the listener hears: live spectrogram, events and their clips, the day by hour, health, CSV.

    python edge/page.py edge/record                                         # then open http://localhost:8080
    BIRDCALL_PAGE_PASSWORD=... python edge/page.py edge/record --host 0.0.0.0     # for the network, with a password
    python edge/page.py edge/record --host 0.0.0.0 --password-file /etc/birdcall/page_password --port 80
    python edge/page.py edge/record --timezone America/Puerto_Rico          # days and hours of there, not of the box

A process of its own that only reads the record folder: it may start before the listener and outlive it. Not encrypted:
beyond a network of your own, put a reverse proxy with TLS (Caddy, nginx) before it and leave it on loopback, with a password.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import UserError, run_script

PASSWORD_VARIABLE = "BIRDCALL_PAGE_PASSWORD"
MOST_HEADER_BYTES = 16384
MOST_BODY_BYTES = 4096  # the password form
IDLE_CONNECTION_SECONDS = 120.0


def main() -> int:
    args = parse_arguments()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)

    # Only now, so that --help answers at once.
    from edge.page_access import Access, is_loopback, read_password
    from edge.page_data import Zone

    password = read_password(os.environ.get(PASSWORD_VARIABLE), args.password_file)
    if args.folder.exists() and not args.folder.is_dir():
        raise UserError(f"{args.folder}: is no folder; name the one that listen.py -o was given")
    on_loopback = is_loopback(args.host)
    if not (on_loopback or password):
        raise UserError(
            f"--host {args.host}: others could reach the page there, so it needs a password; put one into"
            f" ${PASSWORD_VARIABLE} or a file named by --password-file"
        )
    asyncio.run(serve(args, Zone(args.timezone), Access(password, {args.host}), on_loopback))
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    description, _, commands = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog="examples:\n" + commands, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the record folder, listen.py's -o; it need not be there yet")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to serve on; %(default)s, 0.0.0.0 for every network")
    add("--port", type=int, default=8080, metavar="N", help="to serve on; %(default)s, 0 for any that is free")
    add(
        "--password-file",
        type=Path,
        metavar="FILE",
        help=f"its first line is the password; or ${PASSWORD_VARIABLE}; needed unless only this machine is served",
    )
    add("--timezone", metavar="NAME", help="of days and hours on the page, as Europe/Berlin; the box's")
    args = parser.parse_args()
    if not 0 <= args.port < 65536:
        parser.error(f"--port must lie in [0, 65535], not {args.port}")
    return args


async def serve(args: argparse.Namespace, zone: object, access: object, on_loopback: bool) -> None:
    """Serve until SIGINT or SIGTERM. Raises UserError where the address cannot be had."""
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets

    from edge.page_server import Shared, make_application

    for name in ("tornado.access", "tornado.general"):  # a line for each wrong address: a card is worn out by less
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        sockets = bind_sockets(args.port, args.host or None)
    except OSError as error:
        raise UserError(
            f"--host {args.host} --port {args.port}: cannot be served on: {error.strerror}; choose another"
        ) from error
    server = HTTPServer(
        make_application(Shared(args.folder, zone), access, behind_proxy=on_loopback),
        xheaders=False,  # tornado would believe X-Real-Ip, which some proxies pass on as the browser sent it
        max_header_size=MOST_HEADER_BYTES,
        max_body_size=MOST_BODY_BYTES,
        idle_connection_timeout=IDLE_CONNECTION_SECONDS,
        body_timeout=10.0,
    )
    server.add_sockets(sockets)
    for opened in sockets:
        host, port = opened.getsockname()[:2]
        print(f"page on http://{f'[{host}]' if ':' in host else host}:{port}/", file=sys.stderr, flush=True)
    if not args.folder.is_dir():
        print(f"{args.folder}: not there yet; the page waits for a listener", file=sys.stderr, flush=True)

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    server.stop()


if __name__ == "__main__":
    run_script(main)

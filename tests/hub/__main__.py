# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.hub`: a Hub to try things against, with directories of this machine as its repos."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from .content import Pattern
from .process import obey
from .repo import HubRepo, directory_repo
from .server import Hub


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of the Hub (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="its port (default: a free one)")
    parser.add_argument("--cdn-host", default="127.0.0.2", help="address of the host of large files (default: %(default)s)")
    parser.add_argument("--cdn-port", type=int, default=0)
    parser.add_argument("--public-url", help="the Hub's URL as clients see it, behind a proxy")
    parser.add_argument("--public-cdn-url", help="the same for the host of large files")
    parser.add_argument(
        "--repo", action="append", default=[], metavar="[TYPE:]ID=DIRECTORY", help="serve a directory as a repo"
    )
    parser.add_argument(
        "--big", action="append", default=[], metavar="ID=BYTES", help="a repo of one generated model.safetensors"
    )
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN=USER", help="a token to accept")
    parser.add_argument("--latency", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, help="bytes per second of each connection")
    parser.add_argument("--log", help="write each request as a line of JSON to this file")
    parser.add_argument("--control-fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def fill(hub: Hub, options: argparse.Namespace) -> None:
    for spec in options.repo:
        name, _, directory = spec.partition("=")
        type, _, repo_id = name.rpartition(":")
        hub.add(directory_repo(repo_id, directory, type or "model"))
    for spec in options.big:
        repo_id, _, size = spec.partition("=")
        repo = HubRepo(repo_id)
        repo.commit({"model.safetensors": Pattern(repo_id, int(size))})
        hub.add(repo)
    for spec in options.token:
        token, _, user = spec.partition("=")
        hub.add_token(token, user)
    hub.faults.shape(latency=options.latency, rate=options.rate)


async def main(options: argparse.Namespace) -> None:
    log = open(options.log, "a", encoding="utf-8") if options.log else None
    hub = Hub(host=options.host, cdn_host=options.cdn_host, log_file=log)
    fill(hub, options)
    await hub.start(options.port, options.cdn_port)
    hub.url = options.public_url or hub.url
    hub.cdn_url = options.public_cdn_url or hub.cdn_url
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    if options.control_fd is not None:
        obey(hub, options.control_fd, loop, done)
    else:
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1", flush=True)
    await done.wait()
    await hub.stop()


if __name__ == "__main__":
    asyncio.run(main(parse()))
    sys.exit(0)

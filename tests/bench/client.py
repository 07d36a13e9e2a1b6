"""curl as the load: many requests, each on a connection of its own, and how long each took."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tests.lab import Proxy
from tests.lab.process import clean_environment, find_program

MOST_AT_ONCE = 250
"""Transfers of one curl; it takes no more than 300."""
_PATIENCE = 120.0
_COMMON = (
    'header = "Connection: close"\n'
    'output = "/dev/null"\n'
    f"max-time = {_PATIENCE:g}\n"
    'write-out = "%{http_code} %{time_total} %{url} %{errormsg}\\n"\n'
)


def fetch(urls: Sequence[str], proxy: Proxy, *, at_once: bool = False) -> list[float]:
    """Milliseconds that each of these https:// URLs took, one after the other or all `at_once`.

    The proxy is asked in the clear ("GET https://... HTTP/1.1"): there is no handshake with the
    client, and each request is one handshake with the server. Raises RuntimeError unless every
    answer is a 200.
    """
    parts = _shared(urls) if at_once else [urls]
    clients = [start(part, proxy, at_once) for part in parts]
    return [seconds * 1000 for client in clients for seconds in _results(client)]


def fetch_bumped(urls: Sequence[str], proxy_url: str, *, at_once: bool = False) -> list[float]:
    """The same in the usual way, with a CONNECT and a handshake with the proxy. What that
    presents is not verified: Squid has no name in it for a host that is an address."""
    common = f'proxy = "{proxy_url}"\ninsecure\n'
    parts = _shared(urls) if at_once else [urls]
    clients = [_run([f'url = "{url}"\n{common}' for url in part], at_once) for part in parts]
    return [seconds * 1000 for client in clients for seconds in _results(client)]


def _shared(urls: Sequence[str]) -> list[Sequence[str]]:
    return [urls[first : first + MOST_AT_ONCE] for first in range(0, len(urls), MOST_AT_ONCE)]


def start(urls: Sequence[str], proxy: Proxy, at_once: bool) -> subprocess.Popen[str]:
    """A curl that has begun to fetch `urls`."""
    return _run([_asked_in_the_clear(url, proxy) for url in urls], at_once)


def _run(transfers: Sequence[str], at_once: bool) -> subprocess.Popen[str]:
    command = [find_program("curl"), "--disable", "--silent", "--no-progress-meter"]
    command += ["--config", "-"]
    if at_once:
        command += ["--parallel", "--parallel-immediate", "--parallel-max", str(MOST_AT_ONCE)]
    client = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
        text=True,
    )
    assert client.stdin
    client.stdin.write("next\n".join(transfer + _COMMON for transfer in transfers))
    client.stdin.close()
    return client


def _asked_in_the_clear(url: str, proxy: Proxy) -> str:
    return (
        f'url = "http{url.removeprefix("https")}"\n'
        f'request-target = "{url}"\n'
        f'proxy = "{proxy.url}"\n'
    )


def _results(client: subprocess.Popen[str]) -> list[float]:
    assert client.stdout
    with client:
        lines = client.stdout.read().splitlines()
    seconds = []
    for line in lines:
        status, time, url = line.split(maxsplit=2)
        if status != "200":
            raise RuntimeError(f"{url} was answered with {status}, and not with 200")
        seconds.append(float(time))
    return seconds

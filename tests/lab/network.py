"""A network of our own: this machine at one end of a cable, any address at the other.

Linux gives each thread the network that it has entered, and what the thread makes (sockets,
threads, processes) the same one. Addresses that are somebody's in the real world lead nowhere
but to the other end, and nothing leaves.
"""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

from tests.lab.process import find_program

_NETWORK = 0x4000_0000  # CLONE_NEWNET of <linux/sched.h>; Python has it only since 3.12


class Network:
    """`world` are the addresses at the other end, `own` those at this one.

    with Network(world=["8.8.8.8"], own=["10.0.0.1"]) as network:
        with network.world():
            server = CaIssuersServer("8.8.8.8", 80)
        ...  # here we are at 10.0.0.1

    Raises PermissionError where only an administrator may make networks.
    """

    def __init__(self, *, world: list[str], own: list[str]) -> None:
        with contextlib.ExitStack() as stack:
            before = _opened(stack)
            stack.callback(_enter, before)
            self._world = _made(stack)
            self._own = _made(stack)
            _ip("link", "add", "inside", "type", "veth", "peer", "name", "outside")
            _ip("link", "set", "outside", "netns", f"/proc/{os.getpid()}/fd/{self._world}")
            _plug("inside", own)
            with self.world():
                _plug("outside", world)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        """Back to where we were. Both networks end with the last who is in them."""
        self._stack.close()

    @contextlib.contextmanager
    def world(self) -> Iterator[None]:
        """At the other end for a while. Servers there are also closed from there."""
        _enter(self._world)
        try:
            yield
        finally:
            _enter(self._own)


def _plug(device: str, addresses: list[str]) -> None:
    for address in addresses:
        length = ip_address(address).max_prefixlen
        # nodad: IPv6 would first ask for a second whether somebody else has it.
        extra = ["nodad"] if length == 128 else []
        _ip("address", "add", f"{address}/{length}", "dev", device, *extra)
    _ip("link", "set", device, "up")
    for version in "-4", "-6":
        _ip(version, "route", "add", "default", "dev", device)


def _made(stack: contextlib.ExitStack) -> int:
    _check(_libc().unshare(_NETWORK))
    _ip("link", "set", "lo", "up")
    return _opened(stack)


def _opened(stack: contextlib.ExitStack) -> int:
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _enter(descriptor: int) -> None:
    _check(_libc().setns(descriptor, _NETWORK))


def _ip(*arguments: str) -> None:
    subprocess.run([find_program("ip"), *arguments], check=True)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

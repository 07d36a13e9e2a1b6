"""Certificates to caIssuers URLs, and what is done with these before anything is connected."""

import asyncio
import functools
import time
from collections.abc import Iterator

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.egress import Server
from mitmproxy_aia.names import printable
from mitmproxy_aia.sources import Attempt, Budget
from mitmproxy_aia.sources.aia import URLS_PER_CERTIFICATE, AiaSource
from mitmproxy_aia.sources.download_errors import DownloadError
from tests.fuzz import lab
from tests.fuzz.choices import Choices
from tests.fuzz.der_tree import Element, parse
from tests.fuzz.promises import Broken, bounded, empty_verifier, one_line, promise, sound
from tests.lab import der

_AIA = bytes.fromhex("06082b06010505070101")
_CA_ISSUERS = bytes.fromhex("06082b06010505073002")
_OCSP = bytes.fromhex("06082b06010505073001")
_OTHER = bytes.fromhex("06022a03")
_URI = 0x86
_NAMES = bytes([0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88, 0x89, 0x16, 0x0C, 0x30])
_STARTS = (b"http://", b"HTTP://", b"https://", b"ldap://", b"file:///", b" http://", b"http:", b"")
_HOSTS = (b"ca.example/", b"127.0.0.1/", b"[::1]/", b"u:p@h/", b"\xc3\xa9.example/", b"")
_CONTROL = (b"\r\nHost: x", b"\0", b"\x1b[2J", b"\xe2\x80\xae", b"\xff\xfe", b"%0d%0a", b"\t", b"")


def urls(data: bytes) -> None:
    """Any AIA extension gives URLs that can be printed; no more than allowed are followed."""
    choices = Choices(data)
    certificate = _with_extensions(choices)
    if certificate is None:
        return
    with bounded(len(certificate.der)):
        sound(certificate, empty_verifier())
    downloads = choices.below(12)
    frozen = choices.rarely()
    asyncio.run(_follow(certificate, downloads, "it is frozen" if frozen else ""))


async def _follow(certificate: Certificate, downloads: int, frozen: str) -> None:
    followed: list[str] = []

    async def download(url: str, _server: Server) -> tuple[Certificate, ...]:
        followed.append(url)
        if len(followed) % 2:
            raise DownloadError("answered 404")
        return (certificate,)

    source = AiaSource(download)
    budget = Budget(time.monotonic() + 60, 0 if frozen else downloads, frozen=frozen)
    attempts = [attempt async for attempt in source.fetch_issuers(certificate, budget)]
    told = [str(attempt) for attempt in attempts]
    for text in told:
        one_line(text, 5_000)
    _promise_followed(certificate, followed, attempts)
    promise(len(followed) <= (0 if frozen else downloads), "more downloads than there may be")
    promise(budget.downloads == (0 if frozen else downloads - len(followed)), "miscounted")
    source.close()
    await asyncio.sleep(0)
    promise(asyncio.all_tasks() == {asyncio.current_task()}, "a task is left")


def _promise_followed(
    certificate: Certificate, followed: list[str], attempts: list[Attempt]
) -> None:
    promise(len(followed) <= URLS_PER_CERTIFICATE, "more URLs than are followed")
    promise(len(attempts) <= URLS_PER_CERTIFICATE + 1, "more attempts than URLs")
    for url in followed:
        promise(url in certificate.ca_issuers, f"{url!r} is not in the certificate")
        promise(url[:7].lower() == "http://", f"{url!r} was followed")
    named = {attempt.where for attempt in attempts}
    promise(all(printable(url) in named for url in followed), "a download that was not told")


def _with_extensions(choices: Choices) -> Certificate | None:
    """A leaf with AIA extensions of the fuzzer's making; None if it cannot be parsed at all."""
    made = [_extension(choices) for _ in range(2 if choices.rarely() else 1)]
    tree, at = _template()
    extensions = tree.inner[0].inner[at].inner[0]
    kept = [each for each in extensions.inner if each.inner[0].encode() != _AIA]
    position = choices.below(len(kept) + 1)
    extensions.inner = [*kept[:position], *made, *kept[position:]]
    try:
        return Certificate.from_der(tree.encode())
    except ValueError:
        return None
    except Exception as error:
        raise Broken(f"{type(error).__name__} and not ValueError") from error


def _template() -> tuple[Element, int]:
    tree = _parsed().copy()
    # [3] EXPLICIT, the last of the TBSCertificate.
    return tree, len(tree.inner[0].inner) - 1


@functools.cache
def _parsed() -> Element:
    return parse(lab.chain()[0].der)


def _extension(choices: Choices) -> Element:
    parts = [_description(choices) for _ in range(choices.below(40))]
    value = choices.some() if choices.rarely() else der.encode(der.SEQUENCE, *parts)
    critical = [Element(0x01, raw=b"\xff")] if choices.rarely() else []
    return Element(der.SEQUENCE, [parse(_AIA), *critical, Element(0x04, raw=value)])


def _description(choices: Choices) -> bytes:
    method = choices.pick((_CA_ISSUERS, _CA_ISSUERS, _CA_ISSUERS, _OCSP, _OTHER, b"\x05\x00", b""))
    tag = choices.pick(_NAMES) if choices.rarely() else _URI
    parts = [choices.pick(_STARTS), choices.pick(_HOSTS)]
    match choices.below(4):
        case 0:
            parts.append(choices.some())
        case 1:
            parts.append(choices.pick(_CONTROL) * choices.below(300))
        case 2:
            parts.append(choices.take(1) * choices.below(50_000))
    return der.encode(der.SEQUENCE, method, der.encode(tag, b"".join(parts)))


def seeds() -> Iterator[bytes]:
    yield b""
    end = bytes([0, 0, 0, 10, 0])
    # Up to 8 different URLs, and each way to write one.
    for count in range(1, 9):
        yield (
            bytes([0, count, *(byte for n in range(count) for byte in (0, 0, 0, 0, 0, 1, 65 + n))])
            + end
        )
    for start in range(len(_STARTS)):
        for control in range(len(_CONTROL)):
            host = control % len(_HOSTS)
            yield bytes([0, 1, 0, 0, start, host, 1, control, 0, 40]) + end
    for name in range(len(_NAMES)):
        yield bytes([0, 1, 0, 15, name, 0, 0, 3]) + end
    for method in range(7):
        yield bytes([0, 2, method, 0, 0, 0, 2, 120, 40, 0, 0, 0, 0, 0, 3]) + end
    # Two extensions, and one that is no SEQUENCE.
    yield bytes([15, 1, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0, 0, 3]) + end
    yield bytes([0, 0, 15, 4, 1, 2, 3, 4]) + end

"""What is remembered of servers: verdicts, counts and times, and never more than there is room."""

import dataclasses
import datetime
from collections.abc import Sequence

from mitmproxy_aia import errors, history
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Outcome
from mitmproxy_aia.history import PRESENTED_BYTES, History
from mitmproxy_aia.openssl import Fault
from mitmproxy_aia.page.rendering import server_id
from mitmproxy_aia.sources import Attempt, Found
from tests.lab import Issued, authority

ROOT = authority("Lab Root")
ISSUER = ROOT.issue("Lab Intermediate", ca=True)
LEAF = ISSUER.issue()
URL = "http://ca.example/issuer.der"
FAULT = Fault.of(errors.UNABLE_TO_GET_ISSUER_CERT_LOCALLY, 0)


def certificates(*issued: Issued) -> tuple[Certificate, ...]:
    return tuple(Certificate.from_der(each.der) for each in issued)


def incomplete(origin: str = URL) -> Outcome:
    leaf, issuer, root = certificates(LEAF, ISSUER, ROOT)
    found = (Found(issuer, origin),)
    return Outcome(path=(leaf, issuer, root), found=found, seconds=0.25, presented=(leaf,))


def broken(presented: Sequence[Certificate] = certificates(LEAF), note: str = "") -> Outcome:
    return Outcome(fault=FAULT, notes=(note,) if note else (), presented=tuple(presented))


class Clock:
    """A second goes by each time it is looked at."""

    def __init__(self) -> None:
        self.now = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        self.now += datetime.timedelta(seconds=1)
        return self.now


def test_an_incomplete_chain() -> None:
    """All that is needed to draw the path and to mend the server."""
    log = History(now=Clock())
    record = log.note("a.example:443", incomplete(), protocol="QUIC", audit=True)
    assert (record.server, record.verdict, record.at_fault) == (
        "a.example:443",
        "incomplete",
        "incomplete",
    )
    assert record.presented == certificates(LEAF)
    assert record.found == (Found(certificates(ISSUER)[0], URL),)
    assert record.path == certificates(LEAF, ISSUER, ROOT)
    assert (record.incomplete, record.broken, record.complete) == (1, 0, 0)
    assert (record.reason, record.seconds) == ("", 0.25)
    assert (record.protocol, record.audit) == ("QUIC", True)
    assert log.get("a.example:443", "QUIC") is record
    assert log.records() == (record,)


def test_one_server_with_two_protocols() -> None:
    """What it sends over one says nothing of what it sends over the other."""
    log = History(now=Clock())
    log.note("a:443", incomplete(), protocol="QUIC")
    log.note_complete("a:443", "TLS")
    assert [record.verdict for record in log.records()] == ["incomplete"]
    log.note("a:443", incomplete(), protocol="TLS")
    log.note_complete("a:443", "TLS")
    verdicts = {record.protocol: record.verdict for record in log.records()}
    assert verdicts == {"QUIC": "incomplete", "TLS": "complete"}
    log.note("a:443", incomplete(), protocol="TLS")
    log.note_complete("a:443", "QUIC")
    verdicts = {record.protocol: record.verdict for record in log.records()}
    assert verdicts == {"QUIC": "complete", "TLS": "incomplete"}
    log.note_complete("a:443", "TLS")
    assert [record.where for record in log.records()] == ["a:443", "a:443 (QUIC)"]
    assert len({server_id(record) for record in log.records()}) == 2


def test_a_certificate_is_kept_once() -> None:
    """Many servers have the same issuer, and a leaf is in the path as well."""
    log = History()
    one, other = (log.note(f"{name}.example:443", incomplete()) for name in "ab")
    assert one.path[1] is other.path[1] is one.found[0].certificate
    assert one.path[0] is one.presented[0]


def test_names_are_read_before_they_are_asked_for() -> None:
    """Nothing else of what is kept would then be parsed for the sake of a name, be it noted as
    presented or as part of a broken chain first."""
    leaf, issuer, _ = certificates(LEAF, ISSUER, ROOT)
    log = History()
    log.note("broken.example:443", broken([leaf, issuer]))
    record = log.note("a.example:443", incomplete())
    for certificate in (*record.path, record.found[0].certificate, record.presented[0]):
        assert certificate.__dict__.keys() == {"der", "name", "fingerprint"}


def test_a_broken_chain() -> None:
    """The reason, printable and bounded whatever a server has put into it."""
    record = History().note("a.example:443", broken(note="\x1b[31m" + "x" * 10_000))
    assert (record.verdict, record.path, record.found) == ("broken", (), ())
    assert record.reason.startswith(f"{FAULT.text} (\\x1b[31mxxx")
    assert record.reason.isprintable()
    assert len(record.reason) < 2_100


def test_downloads_for_a_broken_chain() -> None:
    """What was downloaded to no avail is kept, each certificate once and not without end."""
    many = certificates(*(authority(f"Stranger {number}") for number in range(3)))
    found = tuple(Found(each, URL) for each in many)
    attempts = (Attempt(URL, "answered", found[:2]), Attempt(URL, "answered", found))
    outcome = dataclasses.replace(broken(), attempts=attempts)
    assert History().note("a.example:443", outcome).fetched == found
    large = Certificate(b"x" * PRESENTED_BYTES)
    again = Attempt(URL, "answered", (*found[:1], Found(large, URL)))
    outcome = dataclasses.replace(broken(), attempts=(again,))
    assert History().note("a.example:443", outcome).fetched == found[:1]


def test_listeners_hear_of_every_change() -> None:
    """Whoever waits for news need not look again and again."""
    history, heard = History(), list[int]()
    history.listeners.append(lambda: heard.append(history.revision))
    history.note_complete("a.example:443")
    assert heard == []
    history.note("a.example:443", incomplete())
    history.note_complete("a.example:443")
    history.clear()
    assert heard == [1, 2, 3]


def test_counts_and_times() -> None:
    """Of all handshakes with a fault; the rest tells of the last one."""
    log = History(now=Clock())
    first = log.note("a.example:443", broken())
    log.note("a.example:443", incomplete())
    last = log.note("a.example:443", incomplete(origin="http://elsewhere.example/"))
    assert (last.incomplete, last.broken) == (2, 1)
    assert last.first == first.first < last.last
    assert last.found[0].origin == "http://elsewhere.example/"
    assert last.reason == ""
    assert len(log) == 1


def test_certificates_are_read_once() -> None:
    """The same chain again takes no room and no time to read again; another one replaces it."""
    log = History()
    first = log.note("a.example:443", incomplete())
    again = log.note("a.example:443", incomplete())
    assert again.presented[0] is first.presented[0]
    assert again.path[1] is first.path[1]
    assert again.found[0].certificate is first.found[0].certificate
    renewed = log.note("a.example:443", broken(certificates(ISSUER.issue())))
    assert renewed.presented != first.presented


def test_newest_first() -> None:
    """A server that is at fault again comes first again."""
    log = History()
    for server in ["a:443", "b:443", "c:443", "a:443"]:
        log.note(server, broken())
    assert [record.server for record in log.records()] == ["a:443", "c:443", "b:443"]


def test_mended() -> None:
    """A server that sends all that is needed now says so, with the time, until it fails again."""
    log = History(now=Clock())
    log.note("b:443", broken())
    at_fault = log.note("a:443", incomplete())
    log.note("c:443", broken())
    log.note_complete("a:443")
    mended = log.get("a:443")
    assert mended is not None
    assert mended.mended is not None
    assert (mended.verdict, mended.at_fault, mended.complete) == ("complete", "incomplete", 1)
    assert mended.mended > at_fault.last == mended.last
    log.note_complete("a:443")
    again = log.get("a:443")
    assert again is not None
    assert (again.mended, again.complete) == (mended.mended, 2)
    assert [record.server for record in log.records()] == ["c:443", "a:443", "b:443"]
    flapping = log.note("a:443", incomplete())
    assert (flapping.verdict, flapping.mended, flapping.complete) == ("incomplete", None, 2)


def test_complete_servers_are_only_counted() -> None:
    """They are most of all servers."""
    log = History()
    for number in range(3):
        log.note_complete(f"{number}:443")
    assert (len(log), log.complete) == (0, 3)


def test_the_least_recently_seen_goes_first() -> None:
    """A full history stays full, and a fault counts as use."""
    log = History(capacity=2)
    for server in ["a:443", "b:443", "a:443", "c:443"]:
        log.note(server, broken())
    assert [record.server for record in log.records()] == ["c:443", "a:443"]
    assert log.forgotten == 1
    log.clear()
    assert not log.records()


def test_a_server_that_sends_much() -> None:
    """Its leaf is kept and as much after it as there is room for; it is said how much is not."""
    junk = [Certificate(LEAF.der + bytes(20_000) + bytes([number])) for number in range(100)]
    record = History().note("a:443", broken([*certificates(LEAF), *junk]))
    assert record.presented == (*certificates(LEAF), *junk[:3])
    assert record.left_out == 97
    assert record.size <= history.PRESENTED_BYTES + len(LEAF.der)


def test_many_servers_that_send_much() -> None:
    """Together they do not take more than there is room for either."""
    log = History(size=100_000)
    for number in range(20):
        leaf = Certificate(LEAF.der + bytes(40_000) + bytes([number]))
        log.note(f"{number}:443", broken([leaf]))
    assert [record.server for record in log.records()] == ["19:443", "18:443"]
    assert sum(record.size for record in log.records()) <= 100_000
    huge = Certificate(LEAF.der + bytes(100_000))
    log.note("huge:443", broken([huge]))
    assert [record.server for record in log.records()] == ["huge:443"]
    log.note("small:443", broken())
    assert [record.server for record in log.records()] == ["small:443"]

"""The issuer source in memory: bounded, and silent about what has expired."""

import asyncio

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.sources import Attempt, Budget, Found
from mitmproxy_aia.sources.memory import NAME, MemorySource
from tests.lab import Issued, authority


def found(*issued: Issued) -> list[Found]:
    return [Found(Certificate.from_der(each.der), "http://ca.example/") for each in issued]


def known(source: MemorySource, issued: Issued) -> list[Certificate]:
    return [item.certificate for item in source.known_issuers(Certificate.from_der(issued.der))]


def test_knows_what_it_was_given() -> None:
    """By the issuer's name, all that have it, and where each came from first."""
    one, other = authority("CA"), authority("CA")
    leaf = one.issue()
    source = MemorySource()
    assert known(source, leaf) == []
    source.keep(found(one, authority("another"), other))
    assert known(source, leaf) == [item.certificate for item in found(one, other)]
    source.keep([Found(found(one)[0].certificate, "somewhere else")])
    for item in source.known_issuers(found(leaf)[0].certificate):
        assert (item.origin, item.cache, item.place) == ("http://ca.example/", NAME, "in memory")


def test_a_certificate_is_kept_once() -> None:
    """Keeping it again adds nothing."""
    source, ca = MemorySource(), authority()
    source.keep(found(ca))
    source.keep(found(ca, ca))
    assert len(source) == 1
    assert len(known(source, ca.issue())) == 1


def test_keeps_no_more_than_it_needs() -> None:
    """A parsed certificate takes several times the room of what is asked of it later."""
    source, ca = MemorySource(), authority()
    source.keep(found(ca))
    [kept] = source.entries()
    assert known(source, ca.issue()) == [kept.certificate]
    assert not {"x509", "fields"} & kept.certificate.__dict__.keys()


def test_the_least_recently_kept_goes_first() -> None:
    """A full memory stays full, and keeping again counts as use."""
    source = MemorySource(capacity=2)
    a, b, c = authority("A"), authority("B"), authority("C")
    source.keep(found(a, b))
    assert len(source) == 2
    source.keep(found(a))
    source.keep(found(c))
    assert len(source) == 2
    assert known(source, b.issue()) == []
    assert known(source, a.issue())
    assert known(source, c.issue())


def test_twins_leave_one_by_one() -> None:
    """Of two issuers with one name the older goes, and the other is still found."""
    source = MemorySource(capacity=1)
    one, other = authority("CA"), authority("CA")
    source.keep(found(one, other))
    assert known(source, one.issue()) == [item.certificate for item in found(other)]


def test_an_expired_issuer_is_forgotten() -> None:
    """It is never proposed, and makes room."""
    source = MemorySource()
    old, ca = authority("CA", expired=True), authority("CA")
    source.keep(found(old, ca))
    assert known(source, ca.issue()) == [item.certificate for item in found(ca)]
    assert len(source) == 1


def test_there_is_nothing_to_fetch() -> None:
    """What it knows it says at once."""
    source, ca = MemorySource(), authority()
    source.keep(found(ca))

    async def fetch() -> list[Attempt]:
        leaf = found(ca.issue())[0].certificate
        return [attempt async for attempt in source.fetch_issuers(leaf, Budget(0.0, 10))]

    assert asyncio.run(fetch()) == []

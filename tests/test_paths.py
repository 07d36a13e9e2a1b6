"""Path building: which paths are proposed, in what order. Nothing is verified here."""

import datetime
from collections.abc import Callable, Iterable

import pytest

from mitmproxy_aia import paths
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.paths import Candidates, KeyMatch, Path, key_match
from tests.lab import Issued, authority


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def grow(
    leaf: Issued, issuers: Iterable[Issued], worthy: Callable[[Path], bool] = lambda path: True
) -> list[Path]:
    """All paths that are proposed if `worthy` decides which of them grow."""
    walk = paths.paths(certificate(leaf), Candidates(map(certificate, issuers)))
    proposed = [next(walk)]
    while True:
        try:
            proposed.append(walk.send(worthy(proposed[-1])))
        except StopIteration:
            return proposed


def expected(*paths: tuple[Issued, ...]) -> list[Path]:
    return [tuple(map(certificate, path)) for path in paths]


def test_no_issuers() -> None:
    """The leaf alone is a path: a trust store may know its issuer."""
    leaf = authority().issue()
    assert grow(leaf, []) == expected((leaf,))


def test_each_prefix_comes_before_what_grows_from_it() -> None:
    """leaf, then leaf - intermediate, then leaf - intermediate - root."""
    root = authority()
    intermediate = root.issue("intermediate", ca=True)
    leaf = intermediate.issue()
    assert grow(leaf, [root, intermediate]) == expected(
        (leaf,), (leaf, intermediate), (leaf, intermediate, root)
    )


def test_strangers_are_no_issuers() -> None:
    """Only a certificate with the issuer's name can be next."""
    leaf = authority("A").issue()
    assert grow(leaf, [authority("B"), leaf]) == expected((leaf,))


def test_depth_first_likeliest_first() -> None:
    """Everything above the likelier issuer is tried before the less likely one."""
    root = authority()
    likely = root.issue("intermediate", ca=True)
    leaf = likely.issue()
    unlikely = authority("other root").issue("intermediate", ca=True)
    assert grow(leaf, [unlikely, root, likely]) == expected(
        (leaf,), (leaf, likely), (leaf, likely, root), (leaf, unlikely)
    )


def test_a_path_that_is_refused_does_not_grow() -> None:
    """`send(False)` turns to the next branch, and at the leaf to the end."""
    root = authority()
    old = root.issue("intermediate", ca=True, expired=True)
    new = root.issue("intermediate", ca=True, key=old)
    leaf = old.issue()
    assert grow(leaf, [root, old, new], lambda path: certificate(new) not in path) == expected(
        (leaf,), (leaf, new), (leaf, old), (leaf, old, root)
    )
    assert grow(leaf, [root, old, new], lambda path: False) == expected((leaf,))


def test_cas_that_certify_each_other() -> None:
    """A by B and B by A: no path comes back to a CA that is on it already."""
    a, b = authority("A"), authority("B")
    a_by_b, b_by_a = b.issue("A", ca=True, key=a), a.issue("B", ca=True, key=b)
    leaf = a.issue()
    assert grow(leaf, [a_by_b, b_by_a]) == expected((leaf,), (leaf, a_by_b), (leaf, a_by_b, b_by_a))


def test_never_twice_through_one_key() -> None:
    """The twins of a cross-signed CA are alternatives, and never on one path."""
    root, other = authority(), authority("other root")
    one = root.issue("twin", ca=True)
    two = other.issue("twin", ca=True, key=one, valid=_dates(2))
    leaf = one.issue(valid=_dates(1))
    assert grow(leaf, [one, two, root, other]) == expected(
        (leaf,), (leaf, one), (leaf, one, root), (leaf, two), (leaf, two, other)
    )


def test_a_self_issued_ca_with_another_key_may_follow() -> None:
    """A key rollover (RFC 5280 section 6.1): the same name and another key is not a circle."""
    old = authority("Lab Root")
    new = old.issue("Lab Root", ca=True)
    leaf = new.issue()
    assert grow(leaf, [old, new])[:4] == expected(
        (leaf,), (leaf, new), (leaf, new, old), (leaf, old)
    )


def test_a_self_signed_leaf_is_not_its_own_issuer() -> None:
    """Nor is another certificate of the same name and key."""
    leaf = authority("self", ca=False)
    assert grow(leaf, [leaf, authority("self", key=leaf)]) == expected((leaf,))


def test_longest_path() -> None:
    """A path of MAX_PATH_LENGTH is proposed, one more certificate is not."""
    chain = [authority("CA 0")]
    for number in range(1, paths.MAX_PATH_LENGTH + 1):
        chain.append(chain[-1].issue(f"CA {number}", ca=True))
    whole, shorter = chain[::-1], chain[-2::-1]
    assert len(grow(whole[0], whole)[-1]) == paths.MAX_PATH_LENGTH == len(whole) - 1
    assert grow(shorter[0], shorter)[-1] == expected(tuple(shorter))[0]


def _dates(days_ago: int) -> tuple[datetime.datetime, datetime.datetime]:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return now - datetime.timedelta(days=days_ago), now + datetime.timedelta(days=30)


@pytest.mark.parametrize("turned", [False, True])
def test_order_of_issuers(turned: bool) -> None:
    """Key identifier first, then not self-issued, then newest; insertion does not matter."""
    ca = authority()
    leaf = certificate(ca.issue())
    signer = authority("signer")
    new = signer.issue(ca.name, ca=True, key=ca, valid=_dates(1))
    old = signer.issue(ca.name, ca=True, key=ca, valid=_dates(400))
    silent = signer.issue(ca.name, ca=True, key=ca, subject_key_identifier=False)
    silent_root = authority(ca.name, key=ca, subject_key_identifier=False)
    wrong = signer.issue(ca.name, ca=True)
    order = [*map(certificate, (new, old, ca, silent, silent_root, wrong))]
    assert Candidates(order[::-1] if turned else order).issuers(leaf) == order


def test_key_match() -> None:
    """Without an identifier on either side nothing is known."""
    ca = authority()
    silent = authority(subject_key_identifier=False)
    leaf, reserved = ca.issue(), ca.issue(authority_key_identifier=False)
    pairs = [(leaf, ca), (leaf, silent), (reserved, ca), (leaf, authority())]
    assert [key_match(certificate(one), certificate(other)) for one, other in pairs] == [
        KeyMatch.MATCH,
        KeyMatch.UNKNOWN,
        KeyMatch.UNKNOWN,
        KeyMatch.MISMATCH,
    ]


def test_candidates_are_held_once() -> None:
    """`add` tells what is new."""
    ca = authority()
    candidates = Candidates([certificate(ca)])
    leaf = certificate(ca.issue())
    assert not candidates.add(certificate(ca))
    assert (len(candidates), leaf in candidates) == (1, False)
    assert candidates.add(leaf)
    assert (len(candidates), leaf in candidates) == (2, True)
    assert candidates.issuers(leaf) == [certificate(ca)]

"""Path building: which paths are proposed, in what order. Nothing is verified here."""

import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator

import pytest

from mitmproxy_aia import paths
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.paths import Graph, KeyMatch, Path, Step, key_match
from tests.lab import Issued, authority


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def graph_over(leaf: Issued, candidates: Iterable[Issued]) -> Graph:
    """The graph over `candidates` if every step is good."""
    graph = Graph(certificate(leaf))
    for candidate in candidates:
        graph.add(certificate(candidate))
    climb(graph, certificate(leaf))
    return graph


def climb(graph: Graph, *reached: Certificate) -> list[Step]:
    """Takes all steps up from `reached` and what is above them. Returns them in their order."""
    taken: list[Step] = []
    queue = [*reached]
    while True:
        for certificate in queue:
            graph.look_for_issuers(certificate)
        queue.clear()
        step = graph.next_step()
        if step is None:
            return taken
        taken.append(step)
        queue.extend(graph.climb(step))


def proposed(leaf: Issued, candidates: Iterable[Issued], *anchored: Issued) -> Iterator[Path]:
    """The paths to `anchored`, in their order."""
    graph = graph_over(leaf, candidates)
    distance = graph.distances(map(certificate, anchored))
    for path in paths.paths(certificate(leaf), graph.issuers, distance):
        if distance[path[-1]] == 0:
            yield path


def grow(leaf: Issued, candidates: Iterable[Issued], *anchored: Issued) -> list[Path]:
    return [*proposed(leaf, candidates, *anchored)]


def expected(*paths: tuple[Issued, ...]) -> list[Path]:
    return [tuple(map(certificate, path)) for path in paths]


def test_the_leaf_alone() -> None:
    """It is a path if the trust store knows its issuer, and otherwise there is none."""
    leaf = authority().issue()
    assert grow(leaf, [], leaf) == expected((leaf,))
    assert grow(leaf, []) == []


def test_shorter_paths_come_first() -> None:
    """leaf, then leaf - intermediate, then leaf - intermediate - root."""
    root = authority()
    intermediate = root.issue("intermediate", ca=True)
    leaf = intermediate.issue()
    candidates = [root, intermediate]
    assert grow(leaf, candidates, root, leaf, intermediate) == expected(
        (leaf,), (leaf, intermediate), (leaf, intermediate, root)
    )
    assert grow(leaf, candidates, root) == expected((leaf, intermediate, root))


def test_strangers_are_no_issuers() -> None:
    """Only a certificate with the issuer's name can be next."""
    leaf = authority("A").issue()
    graph = graph_over(leaf, [authority("B"), leaf])
    assert graph.reached == (certificate(leaf),)
    assert graph.issuers(certificate(leaf)) == ()


def test_likelier_ones_come_first_among_equals() -> None:
    """Two paths of one length: the issuer whose key identifier fits is tried first."""
    root = authority()
    likely = root.issue("intermediate", ca=True)
    leaf = likely.issue()
    unlikely = authority("other root").issue("intermediate", ca=True)
    for candidates in [unlikely, likely], [likely, unlikely]:
        assert grow(leaf, candidates, unlikely, likely) == expected(
            (leaf, likely), (leaf, unlikely)
        )


def test_bad_steps_are_in_no_path() -> None:
    """What was not climbed is not reached, and nor is what is above it."""
    root = authority()
    intermediate = root.issue("intermediate", ca=True)
    leaf = certificate(intermediate.issue())
    graph = Graph(leaf)
    for candidate in root, intermediate:
        assert graph.add(certificate(candidate))
    graph.look_for_issuers(leaf)
    assert graph.next_step() == (leaf, certificate(intermediate))
    assert graph.next_step() is None
    assert graph.reached == (leaf,)


def test_where_no_anchor_is_in_reach_there_are_no_paths() -> None:
    """Ten CAs that all certify each other; when one of them is below an anchor, there is."""
    root = authority()
    strangers = [authority(f"CA {number}") for number in range(10)]
    mesh = [
        one.issue(other.name, key=other, ca=True)
        for one in strangers
        for other in strangers
        if one is not other
    ]
    intermediate = root.issue("CA 0", key=strangers[0], ca=True)
    leaf = strangers[0].issue()
    assert grow(leaf, mesh) == []
    first = next(proposed(leaf, [*mesh, intermediate], intermediate))
    assert [first] == expected((leaf, intermediate))


def test_every_certificate_is_reached_once() -> None:
    """However many ways lead to it; each step is told once, too."""
    strangers = [authority(f"CA {number}") for number in range(5)]
    mesh = [one.issue(other.name, key=other, ca=True) for one in strangers for other in strangers]
    leaf = certificate(strangers[0].issue())
    graph = Graph(leaf)
    for candidate in mesh:
        graph.add(certificate(candidate))
    steps = climb(graph, leaf)
    assert len(steps) == len(set(steps))
    assert len(graph.reached) == len(set(graph.reached)) == 1 + len(mesh)


@pytest.mark.parametrize("presented", [True, False])
def test_what_is_urgent_comes_first(presented: bool) -> None:
    """Somebody has brought it because a certificate asked for it, be it presented as well."""
    root = authority()
    one, two, three = (
        certificate(root.issue("intermediate", ca=True, valid=_dates(age))) for age in (1, 2, 3)
    )
    leaf = certificate(root.issue(issuer_name=one.x509.subject, authority_key_identifier=False))
    graph = Graph(leaf)
    for candidate in [one, two, *[three] * presented]:
        assert graph.add(candidate)
    graph.look_for_issuers(leaf)
    assert graph.next_step() == (leaf, one)
    assert graph.add(three, urgent=True)
    assert not graph.add(three, urgent=True)
    assert graph.next_step() == (leaf, three)
    assert graph.next_step() == (leaf, two)
    assert graph.next_step() is None


def test_what_is_above_the_urgent_is_urgent() -> None:
    """However much was presented, and was there before."""
    root = authority()
    upper = root.issue("upper", ca=True)
    lower = upper.issue("lower", ca=True)
    twins = [root.issue("lower", ca=True) for _ in range(3)]
    leaf = certificate(lower.issue(authority_key_identifier=False))
    graph = Graph(leaf)
    for candidate in [*twins, upper, root]:
        graph.add(certificate(candidate))
    graph.look_for_issuers(leaf)
    graph.add(certificate(lower), urgent=True)
    chain = [leaf, *map(certificate, (lower, upper, root))]
    for step in itertools.pairwise(chain):
        assert graph.next_step() == step
        for reached in graph.climb(step):
            graph.look_for_issuers(reached)
    assert graph.next_step() in [(leaf, certificate(twin)) for twin in twins]


def test_steps_of_what_becomes_urgent_come_first() -> None:
    """A certificate that was reached before, whose own steps still wait."""
    root = authority()
    upper = root.issue("upper", ca=True)
    twins = [root.issue("lower", ca=True) for _ in range(3)]
    one, other = (upper.issue("lower", ca=True, key=twins[0], valid=_dates(a)) for a in (1, 2))
    leaf = certificate(one.issue(authority_key_identifier=False))
    graph = Graph(leaf)
    for candidate in [one, *twins, upper, root]:
        graph.add(certificate(candidate))
    graph.look_for_issuers(leaf)
    first = graph.next_step()
    assert first == (leaf, certificate(one))
    graph.climb(first)
    graph.look_for_issuers(first[1])
    while (step := graph.next_step()) != (first[1], certificate(upper)):
        assert step is not None
    graph.climb(step)
    graph.look_for_issuers(certificate(upper))
    graph.add(certificate(other), urgent=True)
    step = graph.next_step()
    assert step == (leaf, certificate(other))
    graph.climb(step)
    graph.look_for_issuers(step[1])
    step = graph.next_step()
    assert step == (certificate(other), certificate(upper))
    assert graph.climb(step) == []
    assert graph.next_step() == (certificate(upper), certificate(root))


def test_the_shortest_way_counts() -> None:
    """What was first reached by a detour, and all above it, may not be too high after all."""
    root = authority("CA 0")
    line = [root]
    for number in range(1, paths.MAX_PATH_LENGTH + 2):
        line.append(line[-1].issue(f"CA {number}", ca=True))
    top, upper = line[2], line[3]
    leaf = line[-1].issue()
    graph = graph_over(leaf, line[3:])
    assert graph.too_high
    assert len(graph.path_to(certificate(upper))) == paths.MAX_PATH_LENGTH
    short = upper.issue(line[-1].name, key=line[-1], ca=True)
    graph.add(certificate(short))
    graph.add(certificate(top))
    taken = climb(graph)
    assert (certificate(leaf), certificate(short)) in taken
    assert graph.path_to(certificate(upper)) == expected((leaf, short, upper))[0]
    assert graph.path_to(certificate(top)) == expected((leaf, short, upper, top))[0]
    assert not graph.too_high


def test_two_keys_of_one_name_and_two_names_of_one_key() -> None:
    """Each is another CA: only name and key together are not passed twice."""
    old = authority("Old name")
    renamed = old.issue("New name", key=old, ca=True)
    leaf = renamed.issue()
    assert grow(leaf, [renamed, old], old) == expected((leaf, renamed, old))


def test_cas_that_certify_each_other() -> None:
    """A by B and B by A: no path comes back to a CA that is on it already."""
    a, b = authority("A"), authority("B")
    a_by_b, b_by_a = b.issue("A", ca=True, key=a), a.issue("B", ca=True, key=b)
    leaf = a.issue()
    assert grow(leaf, [a_by_b, b_by_a], a_by_b, b_by_a) == expected(
        (leaf, a_by_b), (leaf, a_by_b, b_by_a)
    )


def test_never_twice_through_one_key() -> None:
    """The twins of a cross-signed CA are alternatives, and never on one path."""
    root, other = authority(), authority("other root")
    one = root.issue("twin", ca=True)
    two = other.issue("twin", ca=True, key=one, valid=_dates(2))
    leaf = one.issue(valid=_dates(1))
    assert grow(leaf, [one, two, root, other], root, other) == expected(
        (leaf, one, root), (leaf, two, other)
    )


def test_a_self_issued_ca_with_another_key_may_follow() -> None:
    """A key rollover (RFC 5280 section 6.1): the same name and another key is not a circle."""
    old = authority("Lab Root")
    new = old.issue("Lab Root", ca=True)
    leaf = new.issue()
    assert (certificate(leaf), certificate(new), certificate(old)) in grow(leaf, [old, new], old)


def test_a_self_signed_leaf_is_not_its_own_issuer() -> None:
    """Nor is another certificate of the same name and key."""
    leaf = authority("self", ca=False)
    graph = graph_over(leaf, [leaf, authority("self", key=leaf)])
    assert graph.reached == (certificate(leaf),)


def test_longest_path() -> None:
    """A path of MAX_PATH_LENGTH is proposed, one more certificate is not."""
    chain = [authority("CA 0")]
    for number in range(1, paths.MAX_PATH_LENGTH + 1):
        chain.append(chain[-1].issue(f"CA {number}", ca=True))
    whole, shorter = chain[::-1], chain[-2::-1]
    assert graph_over(whole[0], whole).too_high
    assert not graph_over(whole[0], whole[:-2]).too_high
    assert len(graph_over(whole[0], whole).reached) == paths.MAX_PATH_LENGTH == len(whole) - 1
    assert grow(shorter[0], shorter, shorter[-1]) == expected(tuple(shorter))
    # A longer way than the one on which a certificate was reached.
    detour = Graph(certificate(whole[0]))
    start = detour.reached[0]
    longest = max(paths.paths(start, _issuers_in(whole), _Near()), key=len)
    assert len(longest) == paths.MAX_PATH_LENGTH


def _issuers_in(chain: list[Issued]) -> Callable[[Certificate], list[Certificate]]:
    certificates = [certificate(item) for item in chain]
    above = dict(itertools.pairwise(certificates))
    return lambda below: [above[below]] if below in above else []


class _Near(dict[Certificate, int]):
    """An anchor is always one step away."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: Certificate) -> int:
        return 1


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
    graph = Graph(leaf)
    for candidate in order[::-1] if turned else order:
        graph.add(candidate)
    graph.look_for_issuers(leaf)
    assert [graph.next_step() for _ in order] == [(leaf, issuer) for issuer in order]


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
    ca = certificate(authority())
    graph = Graph(certificate(authority().issue()))
    assert graph.add(ca)
    assert not graph.add(ca)


def test_steps_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many as certificates in search of a name times candidates that have it. What is
    urgent comes first and is not dropped."""
    monkeypatch.setattr(paths, "MAX_WAITING", 10)
    root = authority()
    one, other = root.issue("CA", ca=True), root.issue("CA", ca=True)
    leaf = certificate(one.issue())
    graph = Graph(leaf)
    graph.look_for_issuers(leaf)
    for _ in range(30):
        graph.add(certificate(root.issue("CA", ca=True)))
    graph.add(certificate(one), urgent=True)
    graph.add(certificate(other), urgent=True)
    taken = []
    while (step := graph.next_step()) is not None:
        taken.append(step)
    assert len(taken) == 10
    assert {*taken[:2]} == {(leaf, certificate(one)), (leaf, certificate(other))}

"""How a chain is drawn: each certificate with what became of it, from the leaf upwards."""

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.drawing import MAX_ROWS, MAX_UNUSED, Drawing, draw
from mitmproxy_aia.sources import Found
from tests.lab import Issued, authority
from tests.test_costs import SLOW

URL = "http://ca.example/issuer.cer"


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def states(drawing: Drawing) -> str:
    return " ".join(row.state for row in drawing.rows)


@pytest.fixture(scope="module")
def chain() -> dict[str, Certificate]:
    """root -> upper -> lower -> leaf"""
    root = authority("Root")
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True)
    issued = {"root": root, "upper": upper, "lower": lower, "leaf": lower.issue("Leaf")}
    return {name: certificate(each) for name, each in issued.items()}


def test_leaf_only(chain: dict[str, Certificate]) -> None:
    """root -> [upper] -> [lower] -> leaf: both intermediates are shown where they were found."""
    path = [chain[name] for name in ("leaf", "lower", "upper", "root")]
    found = [Found(chain["lower"], URL), Found(chain["upper"], "ca.pem", at_hand=True)]
    drawing = draw([chain["leaf"]], path, found)
    assert states(drawing) == "sent found found anchor"
    assert [row.role for row in drawing.rows] == [
        "leaf",
        "intermediate",
        "intermediate",
        "trust anchor",
    ]
    assert [row.place for row in drawing.rows] == ["", URL, "ca.pem", ""]
    assert [row.words for row in drawing.rows[1:3]] == ["not sent; found at", "not sent; found in"]
    assert drawing.sentence == "The server forgot 2 intermediates, CN=Lower and CN=Upper."
    assert drawing.chain == tuple(path[:-1])
    assert drawing.complete


def test_one_of_two_is_missing(chain: dict[str, Certificate]) -> None:
    """root -> upper -> [lower] -> leaf: what was sent and what was not are told apart."""
    path = [chain[name] for name in ("leaf", "lower", "upper", "root")]
    drawing = draw([chain["leaf"], chain["upper"]], path, [Found(chain["lower"], URL)])
    assert states(drawing) == "sent found sent anchor"
    assert drawing.sentence == "The server forgot an intermediate, CN=Lower."
    assert drawing.unused == ()


def test_remembered(chain: dict[str, Certificate]) -> None:
    """What comes from a cache is shown where it was first found, and where it is now."""
    path = [chain[name] for name in ("leaf", "lower", "upper", "root")]
    found = [Found(chain["lower"], URL, cache="memory")]
    row = draw([chain["leaf"], chain["upper"]], path, found).rows[1]
    assert (row.words, row.place, row.cache) == ("not sent; found at", URL, "memory")


def test_nothing_was_sent() -> None:
    """A drawing has at least one row."""
    assert states(draw([])) == "missing"


def test_root_that_was_sent_is_not_to_be_sent(chain: dict[str, Certificate]) -> None:
    """The anchor stays the anchor, and is not in the chain for download."""
    path = [chain[name] for name in ("leaf", "lower", "upper", "root")]
    drawing = draw(path, path)
    assert states(drawing) == "sent sent sent anchor"
    assert "sent for nothing" in drawing.rows[-1].words
    assert chain["root"] not in drawing.chain


def test_sent_for_nothing(chain: dict[str, Certificate]) -> None:
    """Strangers are named, a few of them."""
    strangers = [certificate(authority(f"Stranger {n}")) for n in range(MAX_UNUSED + 2)]
    path = [chain[name] for name in ("leaf", "lower", "upper", "root")]
    drawing = draw([*path[:-1], *strangers], path)
    assert drawing.unused[0] == "CN=Stranger 0"
    assert drawing.unused[-1] == "and 2 more"
    assert len(drawing.unused) == MAX_UNUSED + 1
    assert drawing.sentence == "The server sent all that is needed, but also what leads astray."


def test_missing_and_not_found(chain: dict[str, Certificate]) -> None:
    """[upper] -> lower -> leaf: the gap has the name of the issuer."""
    drawing = draw([chain["leaf"], chain["lower"]])
    assert states(drawing) == "sent sent missing"
    assert drawing.rows[-1].name == "CN=Upper"
    assert drawing.rows[-1].valid_until == ""
    assert drawing.sentence == "The issuer CN=Upper is missing."
    assert drawing.chain == (chain["leaf"], chain["lower"])
    assert not drawing.complete


def test_untrusted_root(chain: dict[str, Certificate]) -> None:
    """root -> upper -> lower -> leaf, and the root is a stranger: also where it was found."""
    drawing = draw([chain["leaf"]], (), [Found(chain[name], URL) for name in ("root", "upper")])
    assert states(drawing) == "sent missing"
    found = [Found(chain[name], URL) for name in ("root", "upper", "lower")]
    drawing = draw([chain["leaf"]], (), found)
    assert states(drawing) == "sent found found untrusted"
    assert drawing.sentence == "The chain leads to CN=Root, which is not trusted here."
    assert chain["root"] not in drawing.chain
    sent = draw([chain["leaf"], chain["lower"], chain["upper"], chain["root"]])
    assert states(sent) == "sent sent sent untrusted"
    assert sent.rows[-1].words == "not in the trust store; sent by the server"
    assert drawing.rows[-1].words == "not in the trust store; found at"
    assert drawing.rows[-1].place == URL


def test_self_signed_leaf() -> None:
    """There is nothing above it."""
    drawing = draw([certificate(authority("Lonely"))])
    assert states(drawing) == "untrusted"
    assert "its own issuer" in drawing.rows[0].words


@pytest.mark.parametrize("sent", [False, True])
def test_issuer_of_the_same_name(sent: bool) -> None:
    """A leaf called like its issuer is not its own issuer, and nobody is told to trust it."""
    issuer = authority("Home")
    leaf = certificate(issuer.issue("Home"))
    drawing = draw([leaf, *([certificate(issuer)] if sent else [])])
    assert states(drawing) == ("sent untrusted" if sent else "sent missing")
    assert drawing.rows[1].name == "CN=Home"


def test_issuer_is_who_has_signed() -> None:
    """Of two with the issuer's name, the one with the right key is drawn."""
    root = authority("Root")
    issuer = root.issue("Intermediate", ca=True)
    old = root.issue("Intermediate", ca=True)
    leaf = certificate(issuer.issue("Leaf"))
    drawing = draw([leaf, certificate(old), certificate(issuer)])
    assert drawing.rows[1].certificate == certificate(issuer)
    assert drawing.unused == ("CN=Intermediate",)


def test_no_time_is_spent_on_slow_keys() -> None:
    """Of two with the issuer's name the first is drawn, if to tell them apart takes too long."""
    root = authority("Root")
    slow = root.issue("Intermediate", ca=True, key=SLOW)
    other = root.issue("Intermediate", ca=True)
    drawing = draw([certificate(each) for each in (slow.issue("Leaf"), other, slow)])
    assert drawing.rows[1].certificate == certificate(other)


def test_issuers_in_a_circle() -> None:
    """a -> b -> a: each is drawn once."""
    first = authority("A")
    second = authority("B")
    crossed = [first.issue("B", key=second, ca=True), second.issue("A", key=first, ca=True)]
    leaf = first.issue("Leaf")
    drawing = draw([certificate(each) for each in (leaf, *crossed)])
    assert states(drawing) == "sent sent sent missing"


def test_endless_chain() -> None:
    """A server decides how much it sends, and not how much is drawn."""
    issuer = authority("Root")
    sent = list[Issued]()
    for number in range(MAX_ROWS + 5):
        issuer = issuer.issue(f"Intermediate {number}", ca=True)
        sent.insert(0, issuer)
    leaf = issuer.issue("Leaf")
    drawing = draw([certificate(each) for each in (leaf, *sent)])
    assert len(drawing.rows) == MAX_ROWS + 1
    assert drawing.rows[-1].words == "and so on: not all is drawn"


def test_trusted_leaf() -> None:
    """A leaf may be a trust anchor itself."""
    leaf = certificate(authority("Lonely"))
    drawing = draw([leaf], [leaf])
    assert states(drawing) == "anchor"
    assert drawing.rows[0].words == "in the trust store, and sent"
    assert drawing.chain == (leaf,)


@pytest.mark.parametrize("reason", ["unable to get local issuer certificate (AIA: x)", ""])
def test_reason_that_is_drawn(chain: dict[str, Certificate], reason: str) -> None:
    """That an issuer is missing needs no other words."""
    drawing = draw([chain["leaf"]], reason=reason)
    assert drawing.rows[-1].label == "Missing"
    assert drawing.sentence == "The issuer CN=Lower is missing."


def test_another_reason(chain: dict[str, Certificate]) -> None:
    """Where the fault is another one, nothing is called missing or untrusted that may be there
    and trusted."""
    reason = "certificate has expired (AIA: http://ca.example/ answered 404)"
    for presented in (["leaf", "lower"], ["leaf", "lower", "upper", "root"]):
        drawing = draw([chain[name] for name in presented], reason=reason)
        assert drawing.sentence == "The chain was not accepted: certificate has expired."
        assert [row.label for row in drawing.rows[-2:]] == ["Sent", "Not reached"]

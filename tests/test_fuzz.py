"""Each target of the fuzzer for a moment, what fuzzing has found so far, and whether it would."""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_aia import addresses, certificates, completion, egress, names
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion
from mitmproxy_aia.egress import Policy
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.sources import IssuerSource, aia, download
from mitmproxy_aia.sources.aia import AiaSource
from mitmproxy_aia.sources.caches import where
from mitmproxy_aia.sources.redis_url import redacted
from mitmproxy_aia.verification import Verdict, Verifier
from tests.fuzz import lab, network
from tests.fuzz.__main__ import main
from tests.fuzz.der_tree import parse
from tests.fuzz.engines import ROOT, with_hypothesis
from tests.fuzz.promises import Broken, promise
from tests.fuzz.targets import TARGETS, Target
from tests.lab import der, pkcs7_der
from tests.test_scripts import Environment, start

# It would take half as long again.
pytestmark = pytest.mark.no_cover

EXAMPLES = 100


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    """Its seeds, and inputs drawn in the same way each time: no promise is broken."""
    assert with_hypothesis(TARGETS[name], examples=EXAMPLES).inputs >= EXAMPLES


def test_list_of_targets(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments, the targets are listed with what each promises."""
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [*TARGETS]
    assert all(len(line.split()) > 5 for line in listed)


@pytest.mark.parametrize("arguments", [["nothing"], ["urls", "soon"], ["urls", "1", "2"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """They are told from a broken promise by the exit status."""
    assert main(arguments) == 2
    assert "certificates, damage, urls" in capsys.readouterr().err


def test_a_second_of_fuzzing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With atheris where that is installed, and otherwise with hypothesis."""
    assert main(["urls", "1"], tmp_path) == 0
    said = re.search(r"urls: ([0-9,]+) inputs in .* no promise was broken", capsys.readouterr().out)
    assert said
    assert int(said[1].replace(",", "")) > len([*TARGETS["urls"].seeds()])


def test_input_of_what_is_found() -> None:
    """Whether it is a seed or made by hypothesis: the error comes with the input."""

    def broken(data: bytes) -> None:
        raise Broken("always")

    def broken_at(data: bytes) -> None:
        promise(b"x" not in data, "has an x")

    with pytest.raises(Broken) as raised:
        with_hypothesis(Target(broken, lambda: [b"seed"]), examples=1)
    assert "b'seed'" in "".join(raised.value.__notes__)
    with pytest.raises(Broken) as raised:
        with_hypothesis(Target(broken_at, lambda: [b"seed"]), examples=1_000)
    assert "b'x'" in "".join(raised.value.__notes__)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An installed one, in which programs only write down how they were called."""
    return Environment(tmp_path / "venv").installed("dev")


def test_script(environment: Environment) -> None:
    """Where atheris is there, it is used as it is; to list the targets takes none."""
    assert start("fuzz", VENV=environment.path).returncode == 0
    assert environment.calls() == ["python -m tests.fuzz"]
    assert start("fuzz", "urls", "5", VENV=environment.path).returncode == 0
    assert environment.calls() == ["python -c import atheris", "python -m tests.fuzz urls 5"]


def test_script_without_atheris(environment: Environment) -> None:
    """It is installed; where there is none, hypothesis does without."""
    environment.write("python", 'case "$*" in -c*|*pip*) exit 1;; esac')
    result = start("fuzz", "urls", VENV=environment.path)
    assert result.returncode == 0
    _, pip, fuzz = environment.calls()
    assert pip.endswith(f"--only-binary atheris -e {ROOT}[dev,fuzz]")
    assert fuzz == "python -m tests.fuzz urls"
    assert "hypothesis does it alone" in result.stderr


# --- What was found ---


def unknown_version(certificate: bytes) -> bytes:
    """The certificate with a version that X.509 does not have."""
    tree = parse(certificate)
    version = tree.inner[0].inner[0]
    assert version.tag == der.CONTEXT_0
    version.inner[0].raw = b"\x0a"
    return tree.encode()


def test_unknown_version_in_pkcs7() -> None:
    """Found by `certificates`: x509.InvalidVersion is no ValueError, and it came out of the
    reading of a PKCS#7."""
    leaf = lab.chain()[0]
    broken = pkcs7_der(leaf).replace(leaf.der, unknown_version(leaf.der))
    with pytest.raises(ValueError, match="is PKCS#7 without a certificate"):
        read_certificates(broken)


def test_option_of_several_lines() -> None:
    """Found by `readers`: a message quoted control characters."""
    with pytest.raises(ValueError, match=r"a\\nb") as raised:
        where("a\nb://c", Path())
    assert str(raised.value).isprintable()


def test_redis_url_with_control_characters() -> None:
    """Found by `readers`: the name of a Redis, which is in log lines, quoted them as well."""
    assert redacted("redis://a\x1bb/0") == r"redis://a\x1bb:6379/0"


def test_home_of_nobody() -> None:
    """Found by `readers`: Path.expanduser() raises RuntimeError, which nobody expects."""
    with pytest.raises(ValueError, match="~no-such-user"):
        where("~no-such-user/aia.sqlite3", Path())


def test_own_listener_with_a_zone() -> None:
    """Found by `egress`: with a zone in it, 127.0.0.1 in an IPv6 disguise was not seen to be
    this machine, and a download could have gone to the proxy's own listener."""
    disguised = ipaddress.ip_address("::ffff:127.0.0.1%nothing")
    assert egress.is_own(disguised, 8080, [("0.0.0.0", 8080)], download._is_local)


# --- Whether anything would be found ---


def accept_everything(_self: Verifier, path: tuple[Certificate, ...]) -> Verdict:
    return Verdict((*path, Certificate(network.roots()[0].der)), None, False)


def keep_what_is_looked_up(self: Completion, source: IssuerSource, certificate: Certificate) -> Any:
    for found in source.known_issuers(certificate):
        source.keep([found])
        yield found.certificate


def share_whatever_flies(self: AiaSource, key: Any, budget: Any) -> Any:
    for known, flight in self._flights.items():
        if known[0] == key[0]:
            return flight
    return original_flight(self, key, budget)


original_flight = AiaSource._flight


def everything_is_public(_where: addresses.Address) -> tuple[addresses.Space, str]:
    return addresses.Space.PUBLIC, "at a public address"


def as_it_is(text: str, limit: int = 200) -> str:
    return text


@pytest.mark.parametrize(
    ("target", "owner", "name", "replacement", "words"),
    [
        ("completion", Verifier, "judge", accept_everything, "OpenSSL refuses"),
        ("completion", Completion, "_look_up", keep_what_is_looked_up, "something was kept"),
        ("completion", AiaSource, "close", lambda _self: None, "tasks are left"),
        ("completion", AiaSource, "_flight", share_whatever_flies, "for a server in the private"),
        ("completion", completion, "GRACE", 1_000.0, r"^\d+0\.\d+ s"),
        ("egress", egress, "classify", everything_is_public, "more public place|never"),
        ("egress", egress, "bare", lambda each: each, "itself|denied"),
        ("egress", egress, "BAD_PORTS", frozenset[int](), "not a port for HTTP"),
        ("egress", egress, "HTTP_PORT", 8080, "not a port to use"),
        ("egress", Policy, "denies", lambda *_: None, "denied"),
        ("urls", aia, "URLS_PER_CERTIFICATE", 6, "more URLs"),
        ("urls", aia, "printable", as_it_is, "cannot be printed"),
        ("damage", names, "printable", as_it_is, "cannot be printed"),
    ],
)
def test_finds(
    target: str,
    owner: object,
    name: str,
    replacement: object,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rule that is broken by hand is found by the target that is to guard it."""
    monkeypatch.setattr(owner, name, replacement)
    # What was read with the rule is not to be used without it, nor the other way round.
    certificates._read_lately.cache_clear()
    try:
        with pytest.raises(Broken, match=words):
            with_hypothesis(TARGETS[target], examples=EXAMPLES, shrink=False)
    finally:
        certificates._read_lately.cache_clear()

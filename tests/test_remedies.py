"""What mends a server: the chain to send, and the lines to write."""

import re

import pytest

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.remedies import file_name, full_chain, remedies
from tests.lab import Issued, authority, common_name, curl
from tests.lab.programs import nginx_with


def certificate(issued: Issued) -> Certificate:
    return Certificate.from_der(issued.der)


def test_nginx_is_mended_by_its_lines(root: Issued) -> None:
    """A real nginx with the chain and the lines as shown is good for a client that has nothing
    but the root."""
    issuer = root.issue("Lab Intermediate", ca=True)
    leaf = issuer.issue()
    chain = full_chain([certificate(leaf), certificate(issuer)])
    [nginx] = (each for each in remedies() if each.server == "nginx")
    files = {"fullchain.pem": chain.encode(), "privkey.pem": leaf.key_pem}
    with nginx_with(nginx.lines, files) as server:
        assert curl(server.url(), trust=root).body == b"hello from nginx"


def test_every_server_gets_chain_and_key() -> None:
    """Each of the four is told where both files go."""
    told = remedies("site-chain.pem", "site-key.pem")
    assert [each.server for each in told] == ["nginx", "Apache", "HAProxy", "Caddy"]
    assert all("site-chain.pem" in each.lines and "site-key.pem" in each.lines for each in told)
    assert all(each.note and each.command for each in told)


@pytest.mark.parametrize("starttls", ["smtp", "imap", "pop3", "ftp", "postgres"])
def test_what_is_no_web_server(starttls: str) -> None:
    """It gets lines of its own."""
    (told,) = remedies("site-chain.pem", "site-key.pem", starttls)
    assert "site-chain.pem" in told.lines
    assert "site-key.pem" in told.lines
    assert told.note
    assert told.command
    assert "nginx" not in told.server


def test_what_is_not_known() -> None:
    """No lines are better than those of another server."""
    assert remedies(starttls="xmpp") == ()


def test_full_chain_keeps_its_order() -> None:
    """What is written is read back: the leaf first, each below its issuer."""
    root = authority()
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True)
    chain = [certificate(each) for each in (lower.issue("Leaf"), lower, upper)]
    text = full_chain(chain)
    assert list(read_certificates(text.encode())) == chain
    assert re.findall("^# (.*)$", text, re.MULTILINE) == ["CN=Leaf", "CN=Lower", "CN=Upper"]


def test_name_of_a_certificate_adds_no_certificate() -> None:
    """A name that looks like PEM stays a comment."""
    evil = "x\n-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"
    leaf = certificate(authority(common_name(evil)))
    text = full_chain([leaf])
    assert read_certificates(text.encode()) == (leaf,)
    assert text.count("-----BEGIN") == 1


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("server.example:443", "server.example.pem"),
        ("[2001:db8::1]:8443", "2001-db8-1-8443.pem"),
        ('a"\r\nSet-Cookie: x=y:443', "a-set-cookie-x-y.pem"),
        ("../../etc/passwd:443", "etc-passwd.pem"),
        ("<script>:1", "script-1.pem"),
        ("münchen:443", "m-nchen.pem"),
        ("::", "server.pem"),
        ("a" * 300 + ":443", "a" * 120 + ".pem"),
    ],
)
def test_file_names_are_harmless(address: str, name: str) -> None:
    """Whatever a client has called a server, it ends up as letters, digits, dots and dashes."""
    assert file_name(address) == name

"""Downloads and the egress rule, over real HTTP on loopback; the name service is scripted."""

import asyncio
import contextlib
import gc
import ipaddress
import os
import resource
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mitmproxy_aia.egress import Policy, Proxy, Server
from mitmproxy_aia.sources import bounded, download
from mitmproxy_aia.sources.download import Downloader
from mitmproxy_aia.sources.download_errors import (
    BRIEFLY,
    FAILURE_REMEMBERED,
    DownloadError,
    Missing,
    NotTried,
    Refused,
    Uncertain,
)
from mitmproxy_aia.sources.transports import Transports
from tests.lab import CaIssuersServer, Issued, dead_url, pem_bundle, trust_file
from tests.lab.listener import Listener
from tests.socks_server import SocksServer, Wanted
from tests.test_download import HERE, PATIENT
from tests.test_resolver import Names

PUBLIC = Server("server.example", ipaddress.ip_address("8.8.8.8"), 443)
UNUSED = ("127.0.0.1", 1)


@pytest.fixture(scope="module")
def ca() -> Iterator[CaIssuersServer]:
    with CaIssuersServer() as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


def get(
    url: str,
    server: Server = HERE,
    *,
    policy: Policy | None = None,
    listeners: Sequence[tuple[str, int]] = (UNUSED,),
    timeout: float = PATIENT,
) -> list[str]:
    """The names of the certificates at `url`."""

    async def main() -> list[str]:
        downloader = Downloader(lambda: timeout, lambda: policy or Policy(), lambda: listeners)
        return [each.name for each in await downloader(url, server)]

    return asyncio.run(main())


def refusal(
    url: str,
    server: Server = HERE,
    *,
    policy: Policy | None = None,
    listeners: Sequence[tuple[str, int]] = (UNUSED,),
) -> str:
    """Why a rule does not let `url` be downloaded."""
    with pytest.raises(Refused) as error:
        get(url, server, policy=policy, listeners=listeners)
    return error.value.refusal.words(server)


def test_refused_address(ca: CaIssuersServer) -> None:
    """Nothing is sent, and not even connected."""
    before = ca.connections
    words = "is on this machine, server.example is not (aia_allow)"
    assert refusal(ca.url("/"), PUBLIC) == words
    assert refusal(ca.url("/", host="[::ffff:127.0.0.1]"), PUBLIC).startswith("is on this machine")
    for host in "127.1", "2130706433", "0x7f.1", "127.0.0.1.", "127。0。0。1":
        assert refusal(ca.url("/", host=host), PUBLIC) == words
    assert refusal("http://0.0.0.0/", HERE) == "is the unspecified address"
    assert refusal("http://[fe80::1]/", HERE) == "is a link-local address"
    assert ca.connections == before


def test_host_that_is_neither_name_nor_address() -> None:
    """It is not given to anybody who might make something of it."""
    for url in "http://1.2.3.4.5/", "http://example.0x/", "http://0177.0.0.1/":
        with pytest.raises(DownloadError, match="is not a URL that can be fetched"):
            get(url)


@pytest.mark.parametrize(
    "host", ["[fe80::1%25eth0]", "[fe80::1%eth0]", "[2607:f8b0::1%].internal]", "[::1%25lo]"]
)
def test_address_in_a_zone(ca: CaIssuersServer, host: str) -> None:
    """Nobody is asked for it: a proxy could take what stands behind it for a part of a name."""
    before = ca.connections
    for server in HERE, proxied(ca.port):
        with pytest.raises(DownloadError, match=r"^names an address in a zone"):
            get(f"http://{host}/", server)
    assert ca.connections == before


def test_refused_name(ca: CaIssuersServer, names: Names) -> None:
    """What counts is the address that it leads to."""
    names.addresses = {"ca.test": ["127.0.0.1"]}
    words = "is on this machine (127.0.0.1), server.example is not (aia_allow)"
    assert refusal(ca.url("/", host="ca.test"), PUBLIC) == words


def test_each_address_is_judged(ca: CaIssuersServer, root: Issued, names: Names) -> None:
    """Of several, those that are refused are left out; the reason is that of the first."""
    url = ca.serve("/several", root.der).replace("127.0.0.1", "ca.test")
    names.addresses = {"ca.test": ["169.254.169.254", "127.0.0.1"]}
    assert get(url) == ["CN=Lab Root"]
    names.addresses = {"ca.test": ["169.254.169.254", "fe80::1"]}
    assert refusal(url) == "is a cloud's metadata service (169.254.169.254)"
    names.addresses = {"ca.test": ["fe80::1%1"]}
    assert refusal(url) == "is a link-local address (fe80::1%1)"


def test_name_service_that_changes_its_mind(
    ca: CaIssuersServer, root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once for a request, and what was judged is connected to."""
    url = ca.serve("/rebinding", root.der).replace("127.0.0.1", "ca.test")
    answers = ["127.0.0.1", "127.0.0.9"]
    real = socket.getaddrinfo

    def look_up(host: str, port: object, *args: object, **kwargs: object) -> object:
        if host != "ca.test":
            return real(host, port, *args, **kwargs)  # type: ignore[arg-type]
        return [(2, 1, 6, "", (answers.pop(0), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert get(url) == ["CN=Lab Root"]
    assert answers == ["127.0.0.9"]


def test_each_hop_is_judged(ca: CaIssuersServer, names: Names) -> None:
    """Of a redirect too; the reason says where it led."""
    words = "led to http://169.254.169.254/x, which is a cloud's metadata service"
    assert refusal(ca.redirect("/hop", "http://169.254.169.254/x")) == words
    names.addresses = {"ca.test": ["10.0.0.1"], "away.test": ["127.0.0.1"]}
    policy = Policy.parse(["ca.test", f"127.0.0.1:{ca.port}"], ["away.test"])
    to_denied = ca.redirect("/denied", "http://away.test/")
    words = "led to http://away.test/, which is denied (aia_deny)"
    assert refusal(to_denied, PUBLIC, policy=policy) == words
    to_private = ca.redirect("/private", "http://10.0.0.2/")
    words = "led to http://10.0.0.2/, which is in the private network, server.example is not"
    assert refusal(to_private, PUBLIC, policy=policy) == f"{words} (aia_allow)"


def test_denied_name_is_not_looked_up(names: Names) -> None:
    """The lookup alone would tell its owner something."""
    policy = Policy.parse([], ["slow.test"])
    assert refusal("http://slow.test/", policy=policy) == "is denied (aia_deny)"
    assert names.waiting == 0


@pytest.mark.parametrize("host", ["bücher.example", "xn--bcher-kva.example", "BÜCHER.example."])
def test_denied_name_in_another_spelling(host: str) -> None:
    """Names are compared as they are looked up."""
    policy = Policy.parse([], ["bücher.example"])
    assert refusal(f"http://{host}/", policy=policy) == "is denied (aia_deny)"


def test_allowed(ca: CaIssuersServer, root: Issued) -> None:
    """aia_allow opens this machine to a server in public."""
    url = ca.serve("/allowed", root.der)
    assert get(url, PUBLIC, policy=Policy.parse(["127.0.0.0/8"], [])) == ["CN=Lab Root"]
    other = Policy.parse([f"127.0.0.1:{ca.port + 1}"], [])
    assert refusal(url, PUBLIC, policy=other).startswith("is on this machine")


def test_policy_may_change(ca: CaIssuersServer, root: Issued) -> None:
    """It is asked for with each download."""
    policy = Policy()
    url = ca.serve("/later", root.der)

    async def main() -> None:
        nonlocal policy
        downloader = Downloader(lambda: PATIENT, lambda: policy)
        with pytest.raises(Refused):
            await downloader(url, PUBLIC)
        policy = Policy.parse(["127.0.0.1"], [])
        assert len(await downloader(url, PUBLIC)) == 1

    asyncio.run(main())


@pytest.mark.parametrize("listener", ["127.0.0.1", "0.0.0.0", "::", "localhost"])
def test_own_listener(ca: CaIssuersServer, root: Issued, listener: str) -> None:
    """This proxy asks itself nothing, whatever the options say."""
    url = ca.serve("/own", root.der)
    policy = Policy.parse(["127.0.0.1"], [])
    listeners = [("10.0.0.1", 1), (listener, ca.port)]
    words = "is where this proxy itself listens"
    assert refusal(url, policy=policy, listeners=listeners) == words
    assert get(url, listeners=[(listener, ca.port + 1)]) == ["CN=Lab Root"]


@pytest.mark.parametrize(
    ("address", "here"),
    [
        *[("127.0.0.1", True), ("127.9.9.9", True), ("::1", True)],
        *[("192.0.2.1", False), ("2001:db8::1", False), ("255.255.255.255", False)],
    ],
)
def test_addresses_of_this_machine(address: str, here: bool) -> None:
    """The same port of another machine is no listener of ours."""
    assert download._is_local(ipaddress.ip_address(address)) is here


def test_address_of_which_nothing_can_be_said() -> None:
    """Without a file to ask with it may be this machine's, and so one of our own listeners."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert download._is_local(ipaddress.ip_address("192.0.2.1"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_own_public_address(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a stranger: a firewall may keep others from what we can reach there."""
    names.addresses = {"self.test": ["8.8.4.4"]}
    monkeypatch.setattr(download, "_is_local", lambda address: str(address) == "8.8.4.4")
    words = "is on this machine (8.8.4.4), server.example is not (aia_allow)"
    assert refusal("http://self.test/", PUBLIC) == words


@pytest.mark.parametrize("beyond", [0, 1])
def test_number_of_addresses(ca: CaIssuersServer, root: Issued, names: Names, beyond: int) -> None:
    """The eighth address of a name is tried, a ninth is not."""
    url = ca.serve(f"/addresses/{beyond}", root.der).replace("127.0.0.1", "many.test")
    dead = [f"127.0.1.{number}" for number in range(1, download.MAX_ADDRESSES + beyond)]
    names.addresses = {"many.test": [*dead, "127.0.0.1"]}
    if beyond:
        with pytest.raises(DownloadError, match=r"^could not be reached \(Connection refused\)$"):
            get(url)
    else:
        assert get(url) == ["CN=Lab Root"]


@contextlib.contextmanager
def hanging(host: str, port: int) -> Iterator[None]:
    """Who connects there has to wait."""
    with contextlib.ExitStack() as stack:
        # Linux lets those who connect wait as soon as nobody accepts what has connected.
        full = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield


def test_address_that_hangs(
    ca: CaIssuersServer, root: Issued, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one of the same name is tried in time."""
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.1)
    url = ca.serve("/hangs", root.der).replace("127.0.0.1", "two.test")
    names.addresses = {"two.test": ["127.0.0.3", "127.0.0.1"]}
    with hanging("127.0.0.3", ca.port):
        assert get(url) == ["CN=Lab Root"]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_proxy_whose_first_address_hangs(
    scheme: str, ca: CaIssuersServer, root: Issued, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is tried in time."""
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.1)
    ca.serve("/beside", root.der)
    names.addresses = {"two.test": ["127.0.0.3", "127.0.0.1"]}
    with SocksServer(ca.port) as socks:
        port = ca.port if scheme == "http" else socks.port
        with hanging("127.0.0.3", port):
            server = Server("a", proxy=Proxy(scheme, "two.test", port))
            assert get("http://ca.example/beside", server) == ["CN=Lab Root"]


def proxied(port: int, credentials: str = "", *, scheme: str = "http") -> Server:
    """A server behind a proxy."""
    proxy = Proxy(scheme, "127.0.0.1", port, credentials)
    return Server("server.example", None, 443, proxy)


def test_http_proxy(ca: CaIssuersServer, root: Issued) -> None:
    """It is asked for the whole URL, and told what it has to know and no more."""
    ca.serve("/path?query", root.der)
    url = "http://user:secret@Ca.Example/path?query#fragment"
    assert get(url, proxied(ca.port, "me:p@ss")) == ["CN=Lab Root"]
    request = ca.requests[-1]
    assert (request.method, request.target) == ("GET", "http://ca.example/path?query")
    assert {name.lower(): value for name, value in request.headers.items()} == {
        "host": "ca.example",
        "accept": "application/pkix-cert, application/pkcs7-mime, */*;q=0.5",
        "accept-encoding": "identity",
        "user-agent": "mitmproxy-aia",
        "connection": "close",
        "proxy-authorization": f"Basic {b64encode(b'me:p@ss').decode()}",
    }


def test_http_proxy_without_credentials(ca: CaIssuersServer, root: Issued) -> None:
    """It is told none, and the names of caIssuers hosts are its business."""
    ca.serve("/none", root.der)
    assert get("http://no-such-name.example/none", proxied(ca.port)) == ["CN=Lab Root"]
    assert "proxy-authorization" not in ca.requests[-1].headers


def test_credentials_that_are_no_text(ca: CaIssuersServer, root: Issued) -> None:
    """They are sent in the bytes in which they were given to mitmproxy."""
    ca.serve("/bytes", root.der)
    given = b"me:p\xff"
    get("http://ca.example/bytes", proxied(ca.port, os.fsdecode(given)))
    told = ca.requests[-1].headers["proxy-authorization"]
    assert told == f"Basic {b64encode(given).decode()}"


def test_proxy_is_named_by_name(ca: CaIssuersServer, root: Issued, names: Names) -> None:
    """It is looked up in the addon's own threads; the next address is tried after a dead one."""
    names.addresses = {"proxy.test": ["127.0.0.2", "127.0.0.1"]}
    ca.serve("/named", root.der)
    proxy = Proxy("http", "proxy.test", ca.port)
    assert get("http://ca.example/named", Server("a", proxy=proxy)) == ["CN=Lab Root"]


def test_targets_behind_a_proxy(ca: CaIssuersServer) -> None:
    """Addresses and names that are not public are not even asked for, on any hop."""
    before = len(ca.requests)
    for host in "10.0.0.1", "127.1", "localhost", "intranet", "[::1]", "a.internal":
        assert "behind a proxy (aia_allow)" in refusal(f"http://{host}/", proxied(ca.port))
    assert refusal("http://169.254.169.254/", proxied(ca.port)) == "is a cloud's metadata service"
    assert "port 8080" in refusal("http://ca.example:8080/", proxied(ca.port))
    assert len(ca.requests) == before
    ca.redirect("/inwards", "http://10.0.0.1/")
    words = refusal("http://ca.example/inwards", proxied(ca.port))
    assert words.startswith("led to http://10.0.0.1/, which is in the private network")
    assert len(ca.requests) == before + 1


def test_private_server_behind_a_proxy(ca: CaIssuersServer, root: Issued) -> None:
    """One whose address is known may have what it may have without the proxy."""
    ca.serve("/private-proxied", root.der)
    proxy = Proxy("http", "127.0.0.1", ca.port)
    server = Server("a", ipaddress.ip_address("10.0.0.1"), 443, proxy)
    assert get("http://10.0.0.2:8080/private-proxied", server) == ["CN=Lab Root"]


@pytest.mark.parametrize(
    ("credentials", "words"),
    [("me:wrong", "refused our credentials"), ("", "wants credentials")],
)
def test_407(ca: CaIssuersServer, credentials: str, words: str) -> None:
    """It is the proxy's word, names the option, and says nothing of the URL."""
    ca.serve("/407", b"", status=407)
    with pytest.raises(NotTried) as error:
        get("http://ca.example/407", proxied(ca.port, credentials))
    assert str(error.value) == f"was not downloaded: the proxy {words} (407; aia_proxy)"


@pytest.mark.parametrize("status", [302, 403, 429, 500, 502, 503, 504])
def test_status_of_a_proxy(ca: CaIssuersServer, status: int) -> None:
    """Through a proxy it may be its own, by its rules or as a gateway; from the server itself, or
    through one that only makes the connection, it is not."""
    url = ca.serve(f"/{status}", b"", status=status)
    with pytest.raises(Uncertain) as error:
        get(f"http://ca.example/{status}", proxied(ca.port))
    assert str(error.value) == f"answered {status}, or the proxy did (aia_proxy)"
    with pytest.raises(DownloadError, match=f"^answered {status}$") as direct:
        get(url, HERE)
    assert type(direct.value) is DownloadError
    with (
        SocksServer(ca.port) as socks,
        pytest.raises(DownloadError, match=f"^answered {status}$") as connected,
    ):
        get(f"http://ca.example/{status}", proxied(socks.port, scheme="socks5"))
    assert type(connected.value) is DownloadError


@pytest.mark.parametrize("status", [404, 410])
def test_no_such_thing(ca: CaIssuersServer, status: int) -> None:
    """That is the server's, be there a proxy between."""
    ca.serve(f"/{status}", b"", status=status)
    with pytest.raises(Missing, match=f"^answered {status}$") as error:
        get(f"http://ca.example/{status}", proxied(ca.port))
    assert error.value.remembered == FAILURE_REMEMBERED


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"200 OK\r\n", b"<html>Please log in</html>"),
        (b"302 Found\r\nLocation: https://login.test/\r\n", b""),
        (b"200 OK\r\nContent-Encoding: gzip\r\n", b"x"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_page_of_a_proxy(scheme: str, head: bytes, body: bytes) -> None:
    """It says nothing of the URL. One that only makes the connection has none."""

    def say(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 " + head + b"Connection: close\r\n\r\n" + body)

    server = Listener(say)
    try:
        with SocksServer(server.port) as socks:
            port = socks.port if scheme == "socks5" else server.port
            with pytest.raises(DownloadError) as error:
                get("http://ca.example/", proxied(port, scheme=scheme))
    finally:
        server.close()
    assert type(error.value) is (DownloadError if scheme == "socks5" else Uncertain)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n0"])
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_silence(scheme: str, said: bytes) -> None:
    """It cannot be told whose it is, and the option is named."""
    released = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.sendall(said)
        released.wait(PATIENT)

    server = Listener(hold)
    try:
        with SocksServer(server.port) as socks:
            port = socks.port if scheme == "socks5" else server.port
            words = r"^gave no answer in 0\.3 s through the proxy \(aia_proxy\)$"
            with pytest.raises(Uncertain, match=words):
                get("http://ca.example/", proxied(port, scheme=scheme), timeout=0.3)
            released.set()
    finally:
        server.close()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_body_that_breaks_off(scheme: str) -> None:
    """Who of the two has hung up cannot be told."""

    def hang_up(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n0")

    server = Listener(hang_up)
    try:
        with SocksServer(server.port) as socks:
            port = socks.port if scheme == "socks5" else server.port
            with pytest.raises(Uncertain, match=r"^broke off \(peer"):
                get("http://ca.example/", proxied(port, scheme=scheme))
    finally:
        server.close()


def test_refusal_after_a_redirect(ca: CaIssuersServer) -> None:
    """Somebody was asked for it, and so it is remembered for a moment."""
    url = ca.redirect("/to-metadata", "http://169.254.169.254/")
    for refused, remembered in (url, BRIEFLY), ("http://169.254.169.254/", 0.0):
        with pytest.raises(Refused) as error:
            get(refused, HERE)
        assert error.value.remembered == remembered


def test_unreachable_proxy(names: Names) -> None:
    """The reason speaks of the proxy and the option, and not of the caIssuers server."""
    port = int(dead_url("").rpartition(":")[2])
    # What is remembered of a URL for a minute is a DownloadError that is no NotTried.
    with pytest.raises(NotTried) as error:
        get("http://ca.example/", proxied(port, "me:secret"))
    words = "was not tried (the proxy could not be reached (Connection refused); aia_proxy)"
    assert str(error.value) == words
    names.addresses = {"none.test": []}
    for host, reason in {
        "unknown.test": "could not be reached (Name or service not known)",
        "none.test": "has no address",
    }.items():
        with pytest.raises(NotTried) as error:
            get("http://ca.example/", Server("a", proxy=Proxy("http", host, 1)))
        assert str(error.value) == f"was not tried (the proxy {reason}; aia_proxy)"


def test_proxy_that_is_this_proxy(ca: CaIssuersServer) -> None:
    """A loop is not entered."""
    with pytest.raises(NotTried, match=r"\(aia_proxy leads to this proxy itself\)"):
        get("http://ca.example/", proxied(ca.port), listeners=[("0.0.0.0", ca.port)])
    target = "http://127.0.0.1:8080/"
    policy = Policy.parse(["127.0.0.1"], [])
    words = "is where this proxy itself listens"
    listeners = [("127.0.0.1", 8080)]
    assert refusal(target, proxied(ca.port), policy=policy, listeners=listeners) == words


class TlsProxy:
    """An https:// proxy that answers every request with `body`."""

    def __init__(self, leaf: Issued, body: bytes, folder: Path) -> None:
        self.heads: list[bytes] = []
        self._body = body
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = folder / "proxy.pem"
        file.write_bytes(leaf.key_pem + pem_bundle(leaf))
        self._context.load_cert_chain(file)
        self._listener = Listener(self._converse)
        self.port = self._listener.port

    def close(self) -> None:
        self._listener.close()

    def _converse(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as tls:
            self.heads.append(tls.recv(65536))
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._body))
            tls.sendall(self._body)


def test_https_proxy(root: Issued, tmp_path: Path, names: Names) -> None:
    """It is verified with mitmproxy's own roots and by its name before it is told anything."""
    names.addresses = {"proxy.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
    server = TlsProxy(root.issue(hosts=["proxy.test"]), root.der, tmp_path)
    roots = str(trust_file(tmp_path / "roots.pem", root))

    def through(host: str, ca_file: str) -> Server:
        return Server("a", proxy=Proxy("https", host, server.port, "me:pw", ca_file=ca_file))

    try:
        assert get("http://ca.example/x", through("proxy.test", roots)) == ["CN=Lab Root"]
        assert server.heads[0].startswith(b"GET http://ca.example/x HTTP/1.1\r\n")
        assert b64encode(b"me:pw") in server.heads[0]
        untrusted = r"the proxy has a certificate that is not trusted \(.+\); aia_proxy\)$"
        for proxied_by in through("other.test", roots), through("proxy.test", ""):
            with pytest.raises(DownloadError, match=untrusted):
                get("http://ca.example/x", proxied_by)
        with pytest.raises(DownloadError, match=r"No such file or directory\); aia_proxy\)$"):
            get("http://ca.example/x", through("proxy.test", "/nonexistent.pem"))
        assert len(server.heads) == 1
    finally:
        server.close()


def test_https_proxy_that_speaks_no_tls(ca: CaIssuersServer, names: Names) -> None:
    """It is told nothing but the beginning of a handshake."""
    names.addresses = {"proxy.test": ["127.0.0.1"]}
    silent = Listener(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    try:
        with pytest.raises(DownloadError, match=r"the proxy does not speak TLS; aia_proxy\)$"):
            get("http://a.example/", Server("a", proxy=Proxy("https", "proxy.test", silent.port)))
    finally:
        silent.close()


@pytest.mark.parametrize("credentials", ["", "me:p@ss"])
def test_socks_proxy(ca: CaIssuersServer, root: Issued, credentials: str) -> None:
    """It gets the name and looks it up itself."""
    ca.serve("/socks", root.der)
    with SocksServer(ca.port, credentials) as socks:
        server = proxied(socks.port, credentials, scheme="socks5")
        assert get("http://ca.example/socks", server) == ["CN=Lab Root"]
        assert socks.wanted == [Wanted("ca.example", 80, credentials)]
    assert ca.requests[-1].target == "/socks"
    assert "proxy-authorization" not in ca.requests[-1].headers


def test_socks_proxy_that_refuses(ca: CaIssuersServer) -> None:
    """Credentials, the target, and the proxy itself: each in words."""
    with SocksServer(ca.port, "me:right") as socks:
        for credentials, words in {
            "me:wrong": "refused our credentials",
            "": "wants credentials",
        }.items():
            with pytest.raises(NotTried) as error:
                get("http://a.example/", proxied(socks.port, credentials, scheme="socks5"))
            assert str(error.value) == f"was not downloaded: the proxy {words} (aia_proxy)"
    with SocksServer(None) as socks, pytest.raises(Uncertain) as refused:
        get("http://a.example/", proxied(socks.port, scheme="socks5"))
    words = "was not downloaded: the proxy could not connect: connection refused (aia_proxy)"
    assert str(refused.value) == words
    with pytest.raises(DownloadError, match=r"^was not tried \(the proxy could not be reached"):
        get("http://a.example/", proxied(socks.port, scheme="socks5"))
    # No connection was left to the garbage collector, which would warn.
    gc.collect()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ([], "has hung up"),
        ([b"\x05"], "has hung up"),
        ([b"\x05\x00"], "has hung up"),
        ([b"\x05\x00", b"\x05\x00\x00\x01\x7f\x00"], "has hung up"),
        ([b"\x04\x00"], "does not speak SOCKS5"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "does not speak SOCKS5"),
        ([b"\x05\x00", b"nonsense"], "does not speak SOCKS5"),
        ([b"\x05\x00", b"\x05\x00\x00\x02nonsense"], "does not speak SOCKS5"),
    ],
)
def test_socks_proxy_that_talks_nonsense(said: list[bytes], what: str) -> None:
    """It is the proxy's, names the option, and says nothing of the URL."""

    def talk(connection: socket.socket) -> None:
        for part in said or [b""]:
            connection.recv(4096)
            connection.sendall(part)

    server = Listener(talk)
    try:
        with pytest.raises(NotTried) as error:
            get("http://ca.example/", proxied(server.port, scheme="socks5"))
    finally:
        server.close()
    assert str(error.value) == f"was not downloaded: the proxy {what} (aia_proxy)"
    gc.collect()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"220 smtp.example ready\r\n\r\n"])
def test_proxy_that_hangs_up(answer: bytes) -> None:
    """It cannot be told whose fault that is."""

    def hang_up(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    server = Listener(hang_up)
    try:
        with pytest.raises(Uncertain, match=r"^was not downloaded: the proxy .*\(aia_proxy\)$"):
            get("http://ca.example/", proxied(server.port))
    finally:
        server.close()


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"", "broke off (Server disconnected without sending a response.)"),
        (b"220 smtp.example ready\r\n\r\n", "does not speak HTTP ("),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407"),
    ],
)
def test_server_behind_a_socks_proxy(said: bytes, what: str) -> None:
    """What the server says is its own: the proxy only makes the connection. But a proxy may find
    that it cannot when it has said that it has."""

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(said)

    server = Listener(talk)
    try:
        with SocksServer(server.port) as proxy, pytest.raises(DownloadError) as error:
            get("http://ca.example/", proxied(proxy.port, scheme="socks5"))
    finally:
        server.close()
    assert type(error.value) is (DownloadError if what == "answered 407" else Uncertain)
    assert str(error.value).startswith(what)


@pytest.mark.parametrize("way", ["direct", "http", "https", "socks5"])
def test_all_bytes_are_counted(
    way: str,
    ca: CaIssuersServer,
    root: Issued,
    tmp_path: Path,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever way they come, those of a body within its limit among them."""
    monkeypatch.setattr(bounded, "MAX_ANSWER", 100)
    names.addresses = {"proxy.test": ["127.0.0.1"]}
    ca.serve("/counted", root.der)
    tls = TlsProxy(root.issue(hosts=["proxy.test"]), root.der, tmp_path)
    roots = str(trust_file(tmp_path / "roots.pem", root))
    with SocksServer(ca.port) as socks:
        port = {"direct": 0, "http": ca.port, "https": tls.port, "socks5": socks.port}[way]
        proxy = Proxy(way, "proxy.test", port, ca_file=roots) if port else None
        url = "http://ca.example/counted" if port else ca.url("/counted")
        try:
            with pytest.raises(DownloadError, match=r"^sent more than "):
                get(url, Server("a", HERE.address, 443, proxy))
        finally:
            tls.close()


def test_roots_for_proxies_are_kept_and_bounded() -> None:
    """They are loaded once for each; those of the oldest are forgotten."""

    async def main() -> None:
        transports = Transports()
        proxies = [Proxy("https", "a", port) for port in [*range(1, 18), 17]]
        made = [await transports._context(proxy) for proxy in proxies]
        assert made[-1] is made[-2]
        assert len(transports._contexts) == 16
        assert await transports._context(proxies[0]) is not made[0]

    asyncio.run(main())


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY", "https_proxy", "no_proxy"])
def test_environment_changes_nothing(
    ca: CaIssuersServer, root: Issued, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither for direct downloads nor for those through a proxy."""
    ca.serve("/environment", root.der)
    monkeypatch.setenv(name, "*" if name == "no_proxy" else dead_url(""))
    assert get(ca.url("/environment")) == ["CN=Lab Root"]
    assert get("http://ca.example/environment", proxied(ca.port)) == ["CN=Lab Root"]
    assert ca.requests[-1].target == "http://ca.example/environment"

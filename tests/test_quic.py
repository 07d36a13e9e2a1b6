"""aioquic's handshake, paused and driven by hand: mitmproxy's layer on one side, an aioquic server
on the other, in memory. The verdicts are compared with those of mitmproxy alone."""

import asyncio
import logging
import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aioquic.tls
import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509
from mitmproxy import connection, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import quic as layers
from mitmproxy.proxy.layers import tls as tls_layers
from OpenSSL import SSL
from OpenSSL.crypto import X509

from mitmproxy_aia import quic
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.pausing import AiaCompleteHook, Watcher
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.verification import Verifier
from tests.lab import Issued, authority, trust_file
from tests.test_completion import Shelf, certificates
from tests.test_errors import CURABLE, FINAL
from tests.test_handshake import _Loader

HERE = ("127.0.0.1", 443)
MISSING = "unable to get local issuer certificate"


@dataclass(frozen=True)
class Raw:
    """A certificate for aioquic to send that `cryptography` may not be able to make."""

    der: bytes

    def public_bytes(self, _encoding: object) -> bytes:
        return self.der


class Child(layer.Layer):
    """What is above QUIC: it writes down what it gets to see."""

    def __init__(self, context: context.Context) -> None:
        super().__init__(context)
        self.events: list[events.Event] = []

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        self.events.append(event)
        yield from ()


class QuicWire:
    """A `ServerQuicLayer` whose handshake is watched, unless it is `stock`, and the server."""

    def __init__(
        self,
        folder: Path,
        trusted: Sequence[Issued],
        chain: Sequence[bytes],
        key: Issued,
        sources: Sequence[IssuerSource] = (),
        *,
        stock: bool = False,
        answer_hook: bool = True,
        audit: bool = False,
        verify_mode: ssl.VerifyMode = ssl.CERT_REQUIRED,
    ) -> None:
        self.sources = sources
        self.stock = stock
        self.answer_hook = answer_hook
        self.audit = audit
        self.verify_mode = verify_mode
        self.trusted = str(trust_file(folder / "roots.pem", *trusted))
        self.learned: list[Sequence[Certificate]] = []
        self.outcomes: list[Outcome] = []
        self.commands: list[commands.Command] = []
        self.now = 0.0
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
        configuration.certificate = cast(Any, Raw(chain[0]))
        configuration.certificate_chain = cast(Any, [Raw(der) for der in chain[1:]])
        configuration.private_key = key.key
        self._configuration = configuration
        self.server: QuicConnection | None = None
        self.handshakes = 0
        client = connection.Client(peername=HERE, sockname=HERE, timestamp_start=0)
        opts = options.Options()
        Proxyserver().load(_Loader(opts))
        TlsConfig().load(_Loader(opts))
        self.context = context.Context(client, opts)
        self.context.server = self.conn = connection.Server(
            address=HERE, peername=HERE, sni="127.0.0.1", transport_protocol="udp"
        )
        self.conn.state = connection.ConnectionState.OPEN
        self.layer = layers.ServerQuicLayer(self.context, time=lambda: self.now)
        self.child = self.layer.child_layer = Child(self.context)

    def begin(self, presented: Iterable[Certificate], verifier: Verifier) -> Completion:
        return Completion(presented, verifier, self.sources)

    def run(self) -> "QuicWire":
        """Until there is a verdict."""
        self.feed(events.Start())
        for _ in range(30):
            self.now += 0.3
            if self.server is not None:
                self.server.handle_timer(self.now)
                self.step_server()
                for data, _address in self.server.datagrams_to_send(self.now):
                    self.feed(events.DataReceived(self.conn, data))
            for wakeup in self.given(commands.RequestWakeup):
                self.feed(events.Wakeup(wakeup))
            if self.over:
                break
        return self

    @property
    def over(self) -> bool:
        return self.established or self.conn.error is not None

    def feed(self, event: events.Event) -> None:
        hooks = []
        for command in self.layer.handle_event(event):
            self.commands.append(command)
            if isinstance(command, commands.SendData):
                self.receive(command.data)
            elif isinstance(command, commands.StartHook):
                hooks.append(command)
        for hook in hooks:
            self.handle(hook)
            self.feed(events.HookCompleted(hook))

    def handle(self, hook: commands.StartHook) -> None:
        if isinstance(hook, layers.QuicStartServerHook):
            hook.data.settings = self.settings()
            if not self.stock:
                watcher = Watcher(
                    self.begin,
                    self.outcomes.append,
                    lambda intermediates: self.learned.append(intermediates()),
                    self.audit,
                )
                assert quic.watch(hook.data, watcher)
        elif isinstance(hook, AiaCompleteHook) and self.answer_hook:
            hook.pause.outcome = asyncio.run(hook.pause.completion.complete())

    def settings(self) -> layers.QuicTlsSettings:
        return layers.QuicTlsSettings(
            alpn_protocols=["h3"], ca_file=self.trusted, verify_mode=self.verify_mode
        )

    def receive(self, data: bytes) -> None:
        if self.server is None:
            destination = data[6 : 6 + data[5]]  # RFC 9000 section 17.2
            self.server = QuicConnection(
                configuration=self._configuration,
                original_destination_connection_id=destination,
            )
        self.server.receive_datagram(data, HERE, self.now)
        self.step_server()

    def step_server(self) -> None:
        assert self.server is not None
        while event := self.server.next_event():
            self.handshakes += type(event).__name__ == "HandshakeCompleted"

    def given(self, kind: type[commands.Command]) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def established(self) -> bool:
        return bool(self.given(tls_layers.TlsEstablishedServerHook))

    @property
    def verdict(self) -> str | None:
        """Why the server is refused; None if it is not."""
        assert self.over
        return self.conn.error


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


def wire(folder: Path, root: Issued, *chain: Issued, **more: Any) -> QuicWire:
    return QuicWire(folder, [root], [item.der for item in chain], chain[0], **more).run()


# What a chain has to be for aioquic to read it at all: mitmproxy's layer crashes otherwise, and
# with the addon the server is refused, see below.
NO_DATE = {"no date to begin with", "no date to end with"}
NOT_FOR_AIOQUIC = {"explicit curve"}
# What an aioquic server cannot send at once.
TOO_LARGE = {"chain too long", "too many names"}


@pytest.mark.parametrize("name", sorted(CURABLE.keys() - NO_DATE - NOT_FOR_AIOQUIC - TOO_LARGE))
def test_fault_of_an_issuer(root: Issued, tmp_path: Path, name: str) -> None:
    """As aioquic says by itself, in its words; and cured by a good twin, which would be good
    enough for OpenSSL as well."""
    case = CURABLE[name][1](root)
    trusted = [root, *case.trusted]
    stock = QuicWire(tmp_path, trusted, case.faulty, case.leaf, stock=True).run()
    ours = QuicWire(tmp_path, trusted, case.faulty, case.leaf).run()
    if stock.verdict is None:
        assert ours.verdict is None
        assert ours.outcomes == []
        return
    assert ours.verdict is not None
    assert ours.verdict.startswith(stock.verdict)
    twin = [Certificate(der) for der in case.good[1:]]
    shelf = Shelf()
    shelf.known = twin
    cured = QuicWire(tmp_path, trusted, case.faulty, case.leaf, [shelf]).run()
    assert cured.verdict is None


@pytest.mark.parametrize("name", sorted(FINAL.keys() - NO_DATE - NOT_FOR_AIOQUIC))
def test_fault_of_the_leaf(root: Issued, tmp_path: Path, name: str) -> None:
    """Whatever aioquic says is said, and nothing is asked of anybody."""
    case = FINAL[name][1](root)
    stock = QuicWire(tmp_path, [root], case.faulty, case.leaf, stock=True).run()
    ours = QuicWire(tmp_path, [root], case.faulty, case.leaf, [Shelf()]).run()
    assert ours.verdict == stock.verdict
    assert ours.outcomes == []
    assert ours.handshakes == (stock.verdict is None)


@pytest.mark.parametrize("known", [True, False])
def test_completed(root: Issued, tmp_path: Path, known: bool) -> None:
    """At once from what is known; with a pause, before our Finished, from what is not."""
    ca = root.issue("CA", ca=True)
    shelf = Shelf(known=[ca]) if known else Shelf(fetched=[ca])
    done = wire(tmp_path, root, ca.issue(), sources=[shelf])
    assert done.verdict is None
    assert [outcome.verified for outcome in done.outcomes] == [True]
    assert bool(done.given(AiaCompleteHook)) is not known
    assert done.learned == []
    # It goes on verifying itself, should it ever have to.
    assert done.layer.quic is not None
    assert done.layer.quic.configuration.verify_mode == ssl.CERT_REQUIRED
    assert done.layer.quic.tls._verify_mode == ssl.CERT_REQUIRED


def test_leaves_no_error_behind(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What OpenSSL has against a forged chain: a TLS connection would be blamed for it."""
    ssl, left = cast(Any, SSL), list[int]()
    ask = quic._Handshake._ask

    def watched(*arguments: Any) -> Any:
        ssl._lib.ERR_clear_error()
        objection = ask(*arguments)
        left.append(ssl._lib.ERR_peek_error())
        return objection

    monkeypatch.setattr(quic._Handshake, "_ask", watched)
    issuer = root.issue("CA", ca=True, signed_by=authority("Root"))
    assert not wire(tmp_path, root, issuer.issue(), issuer).established
    assert left
    assert not any(left)


@pytest.mark.parametrize("answer_hook", [True, False])
def test_rejected(root: Issued, tmp_path: Path, answer_hook: bool) -> None:
    """The connection looks as after any failed handshake, nothing of what the server sends gets
    through, and the server has been told. An addon that was removed is a refusal."""
    leaf = root.issue("CA", ca=True).issue()
    done = wire(tmp_path, root, leaf, sources=[Shelf()], answer_hook=answer_hook)
    assert done.verdict == MISSING + (" (AIA: shelf is empty)" if answer_hook else "")
    assert done.handshakes == 0
    conn = done.conn
    assert not conn.tls_established
    assert (conn.certificate_list, conn.alpn, conn.cipher, conn.tls_version) == ((), *[None] * 3)
    assert len(done.given(commands.CloseConnection)) == 1
    assert done.server is not None
    assert done.server._close_event is not None
    assert done.server._close_event.reason_phrase == MISSING
    before, seen = len(done.commands), len(done.child.events)
    done.feed(events.DataReceived(conn, b"\x40" + bytes(100)))
    done.commands += done.layer.send_data(b"secret")
    done.commands += done.layer.tls_interact()
    assert len(done.commands) == before
    assert len(done.child.events) == seen


@pytest.mark.parametrize("known", [True, False])
def test_audit(root: Issued, tmp_path: Path, known: bool) -> None:
    """The chain is completed for us to know, and the server refused in aioquic's words."""
    ca = root.issue("CA", ca=True)
    shelf = Shelf(known=[ca]) if known else Shelf(fetched=[ca])
    done = wire(tmp_path, root, ca.issue(), sources=[shelf], audit=True)
    assert done.verdict == MISSING
    assert [outcome.verified for outcome in done.outcomes] == [True]
    assert done.handshakes == 0


def test_learns(root: Issued, tmp_path: Path) -> None:
    """The intermediates of the path: not the leaf, not the anchor, not what came along."""
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True)
    stranger = root.issue("Stranger", ca=True)
    done = wire(tmp_path, root, lower.issue(), upper, stranger, lower, root)
    assert (done.verdict, done.outcomes) == (None, [])
    assert done.learned == [certificates(lower, upper)]


def test_learns_nothing_that_openssl_would_not_take(root: Issued, tmp_path: Path) -> None:
    """aioquic is content with SHA-1."""
    weak = root.issue("Weak", ca=True, digest="sha1")
    done = wire(tmp_path, root, weak.issue(), weak)
    assert done.verdict is None
    assert done.learned == [()]


@pytest.mark.parametrize(
    "name", ["verifier", "presented", "confirmed", "is_curable", "verify_certificate"]
)
@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, BaseException])
def test_fails_closed(
    root: Issued,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: type[BaseException],
) -> None:
    """Whatever breaks, the server is refused and not kept waiting."""

    def broken(*_: object, **__: object) -> Any:
        raise error("on purpose")

    owner: Any = quic._Handshake
    if name == "is_curable":
        owner = quic
    elif name == "verify_certificate":
        owner = aioquic.tls
    monkeypatch.setattr(owner, name, broken)
    logging.disable(logging.CRITICAL)
    try:
        ca = root.issue("CA", ca=True)
        done = wire(tmp_path, root, ca.issue(), sources=[Shelf(known=[ca])])
        assert done.verdict in (MISSING, "certificate verify failed")
        assert done.handshakes == 0
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_end_of_the_program(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """It is passed on, and whoever asks after it does not hear that there is nothing to object."""
    made = []

    class Kept(quic._Handshake):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    def broken(**_: object) -> None:
        raise error

    monkeypatch.setattr(quic, "_Handshake", Kept)
    monkeypatch.setattr(aioquic.tls, "verify_certificate", broken)
    leaf = root.issue()
    done = QuicWire(tmp_path, [root], [leaf.der], leaf)
    with pytest.raises(error):
        done.run()
    assert (done.established, done.handshakes) == (False, 0)
    assert made[0].objection(finished=True) is not None


@pytest.mark.parametrize(
    ("fault", "alert"),
    [
        ({"expired": True}, aioquic.tls.AlertDescription.certificate_expired),
        ({"hosts": ["other.example"]}, aioquic.tls.AlertDescription.bad_certificate),
    ],
)
def test_alert(root: Issued, tmp_path: Path, fault: Any, alert: int) -> None:
    """The server gets the one that aioquic would have sent."""
    done = wire(tmp_path, root, root.issue(**fault))
    assert done.server is not None
    assert done.server._close_event is not None
    assert done.server._close_event.error_code == QuicErrorCode.CRYPTO_ERROR + alert


def test_cannot_tell_the_server(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused all the same."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(QuicConnection, "close", broken)
    done = wire(tmp_path, root, root.issue("CA", ca=True).issue())
    assert done.verdict == MISSING
    assert done.handshakes == 0


def test_path_that_aioquic_refuses(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the last word, and that is the reason."""
    ca = root.issue("CA", ca=True)
    real = aioquic.tls.verify_certificate

    def refuse(**arguments: Any) -> None:
        if arguments["chain"]:
            raise aioquic.tls.AlertBadCertificate("not with me")
        real(**arguments)

    monkeypatch.setattr(aioquic.tls, "verify_certificate", refuse)
    shelf = Shelf(fetched=[ca])
    done = wire(tmp_path, root, ca.issue(), sources=[shelf])
    assert str(done.verdict).startswith(f"{MISSING}; not with me (")
    assert [outcome.verified for outcome in done.outcomes] == [False]
    assert (len(shelf.asked), shelf.kept) == (1, [])


def test_path_that_aioquic_takes_instead(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it refuses one good path, it is asked about the next, and only that is kept."""
    ca = root.issue("CA", ca=True)
    twins = [root.issue("CA", ca=True, key=ca) for _ in range(2)]
    real = aioquic.tls.verify_certificate
    refused: list[object] = []

    def refuse_the_first(**arguments: Any) -> None:
        if arguments["chain"] and not refused:
            refused.extend(arguments["chain"])
            raise aioquic.tls.AlertBadCertificate("not with this one")
        real(**arguments)

    monkeypatch.setattr(aioquic.tls, "verify_certificate", refuse_the_first)
    shelf = Shelf(fetched=twins)
    done = wire(tmp_path, root, ca.issue(), sources=[shelf])
    assert done.verdict is None
    assert len(shelf.kept) == 1
    assert shelf.kept[0].x509 not in refused


@pytest.mark.parametrize("position", [0, 1], ids=["leaf", "above"])
def test_certificate_that_aioquic_cannot_read(root: Issued, tmp_path: Path, position: int) -> None:
    """mitmproxy's layer would crash, and its client wait. It is a refusal, and told."""
    leaf = root.issue()
    chain = [leaf.der, root.der]
    chain[position] = b"\x30\x03\x02\x01\x00"
    with pytest.raises(ValueError, match="error parsing asn1 value"):
        QuicWire(tmp_path, [root], chain, leaf, stock=True).run()
    done = QuicWire(tmp_path, [root], chain, leaf).run()
    assert str(done.verdict).startswith("the handshake failed (error parsing asn1 value")
    assert (done.established, done.handshakes, done.outcomes) == (False, 0, [])
    assert done.server is not None
    assert done.server._close_event is not None
    assert done.server._close_event.reason_phrase == done.verdict


def test_host_name_that_aioquic_cannot_read(
    root: Issued, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client may ask for what it likes: it is told what is wrong with it, and the log is not
    filled with tracebacks."""
    leaf = root.issue()
    asked = QuicWire(tmp_path, [root], [leaf.der], leaf)
    asked.conn.sni = "*.example"
    assert asked.run().verdict == "certificate verify failed (Invalid DNS-ID.)"
    assert (asked.established, asked.handshakes, caplog.records) == (False, 0, [])


def test_wildcard_that_aioquic_does_not_take(
    root: Issued, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it say so with an error of its own: without us the layer breaks down."""
    leaf = root.issue(hosts=["127.0.0.1", "*.example"])
    refused = QuicWire(tmp_path, [root], [leaf.der], leaf).run()
    assert str(refused.verdict).startswith("certificate verify failed (")
    assert (refused.established, refused.handshakes, caplog.records) == (False, 0, [])


TLS_FEATURE = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.24")


@pytest.mark.parametrize("value", ["3000", "3003020163"], ids=["none", "unknown"])
def test_extension_that_aioquic_cannot_read(
    root: Issued, tmp_path: Path, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it say so with an error of its own."""
    odd = x509.UnrecognizedExtension(TLS_FEATURE, bytes.fromhex(value))
    leaf = root.issue(extra=[x509.Extension(TLS_FEATURE, False, odd)])
    refused = QuicWire(tmp_path, [root], [leaf.der], leaf).run()
    assert str(refused.verdict).startswith("certificate verify failed (")
    assert (refused.established, caplog.records) == (False, [])


def test_certificate_with_many_names(
    root: Issued, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """aioquic tells all of them, which would not fit into the packet to the server."""
    leaf = root.issue(hosts=[f"host-{number}.example" for number in range(60)])
    refused = QuicWire(tmp_path, [root], [leaf.der], leaf).run()
    assert len(str(refused.verdict)) == 600
    assert refused.server is not None
    assert refused.server._close_event is not None
    assert refused.server._close_event.reason_phrase == f"{str(refused.verdict)[:299]}…"
    assert (refused.established, caplog.records) == (False, [])


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..example"])
def test_name_that_only_aioquic_takes(
    root: Issued, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without one that OpenSSL can ask for nothing is completed, and the reason says so."""
    issuer = root.issue("CA", ca=True)
    leaf = issuer.issue(hosts=[name])
    asked = QuicWire(tmp_path, [root], [leaf.der], leaf, [Shelf(known=[issuer])])
    asked.conn.sni = name
    asked.run()
    assert "label" in str(asked.verdict)
    assert (asked.established, asked.outcomes, caplog.records) == (False, [], [])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError(), "AssertionError"),
        (asyncio.CancelledError(), "CancelledError"),
        (BaseException(), "BaseException"),
        (IndexError("list index out of range"), "its messages make no sense"),
    ],
)
def test_aioquic_breaks_down(
    root: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    """Whatever it is, and with no word to it, or one that means nothing to a person: the same."""

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(aioquic.tls.Context, "_check_certificate_verify_signature", broken)
    done = wire(tmp_path, root, root.issue())
    assert done.verdict == f"the handshake failed ({words})"
    assert (done.established, done.handshakes) == (False, 0)


def test_no_verification_wanted(root: Issued, tmp_path: Path) -> None:
    """Another addon that switches it off for a connection gets that, as without us."""
    leaf = authority("Stranger").issue()
    done = wire(tmp_path, root, leaf, verify_mode=ssl.CERT_NONE)
    assert (done.verdict, done.outcomes, done.learned) == (None, [], [])


@pytest.mark.parametrize("other", [True, False])
def test_settings_of_another_addon(root: Issued, tmp_path: Path, other: bool) -> None:
    """One that puts its own in place of those of TlsConfig gets what it wants, as without us."""

    class Replaced(QuicWire):
        def handle(self, hook: commands.StartHook) -> None:
            super().handle(hook)
            if other and isinstance(hook, layers.QuicStartServerHook):
                hook.data.settings = self.settings()

    ca = root.issue("CA", ca=True)
    leaf = ca.issue()
    done = Replaced(tmp_path, [root], [leaf.der], leaf, [Shelf(known=[ca])]).run()
    assert (done.established, bool(done.outcomes)) == (not other, not other)
    assert done.verdict == (MISSING if other else None)


def test_trust_folder(root: Issued, tmp_path: Path) -> None:
    """A root may be in a folder, under the hash of its name."""
    root_hash = int(X509.from_cryptography(root.certificate).subject_name_hash())
    (tmp_path / f"{root_hash:08x}.0").write_bytes(root.pem)

    class FromFolder(QuicWire):
        def settings(self) -> layers.QuicTlsSettings:
            return layers.QuicTlsSettings(
                alpn_protocols=["h3"], ca_path=str(tmp_path), verify_mode=self.verify_mode
            )

    ca = root.issue("CA", ca=True)
    for chain in [ca.issue()], [ca.issue(), ca]:
        ders = [each.der for each in chain]
        done = FromFolder(tmp_path, [root], ders, chain[0], [Shelf(known=[ca])]).run()
        assert done.established
    assert done.learned == [certificates(ca)]


def test_unknown_layers_are_not_watched(root: Issued, tmp_path: Path) -> None:
    """No layer of ours to wrap: stock behaviour."""
    done = QuicWire(tmp_path, [root], [root.issue().der], root)
    data = layers.QuicTlsData(done.conn, done.context)
    done.context.layers.clear()
    assert not quic.watch(data, Watcher(done.begin, done.outcomes.append))


def test_trust_file_that_changes(root: Issued, tmp_path: Path) -> None:
    """It is loaded once for all connections, and again when it is another one."""
    ca = root.issue("CA", ca=True)
    quic._load.cache_clear()
    for trusted, changed in (authority("Other"), 1), (root, 2), (root, 2):
        leaf = ca.issue()
        made = QuicWire(tmp_path, [trusted], [leaf.der], leaf, [Shelf(known=[ca])])
        os.utime(made.trusted, ns=(changed, changed))
        assert made.run().established == (trusted is root)
        assert quic._load.cache_info().misses == changed

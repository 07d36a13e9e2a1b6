"""The paused handshake, driven by hand: mitmproxy's layer on one side, OpenSSL on the other."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mitmproxy.version
import pytest
from mitmproxy import connection, options, tls
from mitmproxy.addons import tlsconfig
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.proxy import commands, context, events, layers
from mitmproxy.proxy.layers import tls as tls_layers
from OpenSSL import SSL, crypto

from mitmproxy_aia import handshake, loaded, openssl, pausing
from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.completion import Completion, Outcome
from mitmproxy_aia.handshake import cipher_string
from mitmproxy_aia.pausing import Watcher
from mitmproxy_aia.rehearsal import rehearse
from mitmproxy_aia.sources import IssuerSource
from mitmproxy_aia.sources.memory import MemorySource
from mitmproxy_aia.verification import Verifier
from tests.lab import Issued, authority
from tests.lab.keys import KeyKind
from tests.lab.presenting import present
from tests.test_completion import Shelf, certificates

_ssl: Any = SSL

LOWERED = 0 if mitmproxy.version.VERSION != "11.0.0" else None
"""The security level of connections that may be as old as TLS 1.1."""


class Wire:
    """A `ServerTLSLayer` whose handshake is watched, and the server it talks to.

    `commands` are those that the layer gave, in their order. `answer_hook=False` is an addon
    that was removed during the pause.
    """

    def __init__(
        self,
        root: Issued,
        chain: Sequence[Issued],
        sources: Sequence[IssuerSource] = (),
        *,
        tls_max: int = SSL.TLS1_3_VERSION,
        answer_hook: bool = True,
        audit: bool = False,
        address: str = "127.0.0.1",
    ) -> None:
        self.root = root
        self.sources = sources
        self.answer_hook = answer_hook
        self.audit = audit
        self.learned: list[Sequence[Certificate]] = []
        self.complete = 0
        self.commands: list[commands.Command] = []
        self.outcomes: list[Outcome] = []
        self.log: list[str] = []
        self.server = self._server(chain, tls_max)
        client = connection.Client(
            peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0
        )
        opts = options.Options()
        Proxyserver().load(_Loader(opts))
        TlsConfig().load(_Loader(opts))
        self.context = context.Context(client, opts)
        self.context.server = self.conn = connection.Server(address=(address, 443))
        self.conn.state = connection.ConnectionState.OPEN
        self.layer = tls_layers.ServerTLSLayer(self.context)
        self.layer.child_layer = layers.TCPLayer(self.context, ignore=True)
        self.connection = self._connection(tls_max)

    def _server(self, chain: Sequence[Issued], tls_max: int) -> Any:
        ctx = _ssl.Context(SSL.TLS_SERVER_METHOD)
        ctx.set_max_proto_version(tls_max)
        # A renegotiation is to present the certificate again.
        ctx.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        ctx.set_options(SSL.OP_NO_TICKET)
        present(ctx, chain[0], chain[1:])
        server = _ssl.Connection(ctx)
        server.set_accept_state()
        return server

    def _connection(self, tls_max: int) -> SSL.Connection:
        ctx = _ssl.Context(SSL.TLS_CLIENT_METHOD)
        ctx.set_verify(SSL.VERIFY_PEER, None)
        ctx.set_max_proto_version(tls_max)
        ctx.get_cert_store().add_cert(crypto.X509.from_cryptography(self.root.certificate))
        client: SSL.Connection = _ssl.Connection(ctx)
        client.set_connect_state()
        return client

    def begin(self, presented: Iterable[Certificate], verifier: Verifier) -> Completion:
        return Completion(presented, verifier, self.sources)

    def run(self) -> "Wire":
        """Does the handshake until neither side has anything to say."""
        self.feed(events.Start())
        while data := self.read_server():
            self.feed(events.DataReceived(self.conn, data))
        return self

    def feed(self, event: events.Event) -> None:
        hooks = []
        for command in self.layer.handle_event(event):
            self.commands.append(command)
            if isinstance(command, commands.SendData):
                self.server.bio_write(command.data)
                self.step_server()
            elif isinstance(command, commands.StartHook):
                hooks.append(command)
        for hook in hooks:
            self.handle(hook)
            self.feed(events.HookCompleted(hook))

    def handle(self, hook: commands.StartHook) -> None:
        if isinstance(hook, tls_layers.TlsStartServerHook):
            hook.data.ssl_conn = self.connection
            assert handshake.watch(hook.data, self.watcher())
        elif isinstance(hook, pausing.AiaCompleteHook) and self.answer_hook:
            hook.pause.outcome = asyncio.run(hook.pause.completion.complete())

    def watcher(self) -> Watcher:
        return Watcher(self.begin, self.outcomes.append, self.was_complete, self.audit)

    def was_complete(self, intermediates: Callable[[], Sequence[Certificate]]) -> None:
        self.complete += 1
        self.learned.append(intermediates())

    def step_server(self) -> None:
        try:
            self.server.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.log.append(str(error))

    def read_server(self) -> bytes:
        try:
            data: bytes = self.server.bio_read(65535)
        except SSL.WantReadError:
            return b""
        return data

    def given(self, kind: type[commands.Command]) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def established(self) -> bool:
        return bool(self.given(tls_layers.TlsEstablishedServerHook))

    @property
    def error(self) -> str | None:
        return self.conn.error


class _Loader:
    """As much of mitmproxy's loader as the options of its addons need."""

    def __init__(self, opts: options.Options) -> None:
        self.opts = opts

    def add_option(self, *args: Any, **kwargs: Any) -> None:
        names = ("name", "typespec", "default", "help", "choices")
        self.opts.add_option(**(dict(zip(names, args, strict=False)) | kwargs))

    def add_command(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def root() -> Issued:
    return authority("Root")


@pytest.fixture(params=["1.2", "1.3"])
def tls_max(request: pytest.FixtureRequest) -> int:
    return {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[request.param]


MISSING = "Certificate verify failed: unable to get local issuer certificate"


def test_complete_chain_takes_the_stock_path(root: Issued, tls_max: int) -> None:
    """No hook, no completion: the commands are those of an unwatched layer."""
    ca = root.issue("CA", ca=True)
    wire = Wire(root, [ca.issue(), ca], tls_max=tls_max).run()
    assert wire.established
    assert wire.outcomes == []
    hooks = [type(command).__name__ for command in wire.given(commands.StartHook)]
    assert hooks == ["TlsStartServerHook", "TlsEstablishedServerHook"]


def test_known_issuer_needs_no_hook(root: Issued, tls_max: int) -> None:
    """What is known locally is enough, without a pause."""
    ca = root.issue("CA", ca=True)
    wire = Wire(root, [ca.issue()], [Shelf(known=[ca])], tls_max=tls_max).run()
    assert wire.established
    assert wire.given(pausing.AiaCompleteHook) == []
    assert [outcome.verified for outcome in wire.outcomes] == [True]
    assert wire.connection.get_peer_cert_chain() is not None


@pytest.mark.parametrize("known", [True, False])
def test_audit(root: Issued, tls_max: int, known: bool) -> None:
    """The chain is completed for us to know, and the server is refused in mitmproxy's words."""
    ca = root.issue("CA", ca=True)
    shelf = Shelf(known=[ca]) if known else Shelf(fetched=[ca])
    wire = Wire(root, [ca.issue()], [shelf], tls_max=tls_max, audit=True).run()
    assert not wire.established
    assert wire.error == MISSING
    assert [outcome.verified for outcome in wire.outcomes] == [True]
    assert len(wire.given(commands.SendData)) == 1


def test_learns_what_openssl_has_verified(root: Issued, tls_max: int) -> None:
    """The intermediates of the path: not the leaf, not the anchor, not what came along."""
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True)
    chain = [lower.issue(), upper, root.issue("Stranger", ca=True), lower, root]
    wire = Wire(root, chain, tls_max=tls_max).run()
    assert wire.established
    assert wire.learned == [certificates(lower, upper)]
    assert (wire.complete, wire.outcomes) == (1, [])


@pytest.mark.parametrize("known", [True, False])
def test_learns_nothing_from_an_incomplete_chain(root: Issued, tls_max: int, known: bool) -> None:
    """Completed, it was kept already; refused, it is worth nothing."""
    ca = root.issue("CA", ca=True)
    wire = Wire(root, [ca.issue()], [Shelf(known=[ca] if known else [])], tls_max=tls_max).run()
    assert wire.established == known
    assert (wire.learned, wire.complete) == ([], 0)


@pytest.mark.parametrize("alone", [True, False])
def test_the_trust_store_is_not_asked_what_it_has_just_said(
    root: Issued, tls_max: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is no issuer of a leaf: known from the handshake, if that came alone."""
    asked: list[Certificate] = []
    verify = openssl.verify

    def counted(store: Any, chain: Any, known: Any = ()) -> openssl.Result:
        asked.append(loaded.from_openssl(chain[0]))
        return verify(store, chain, known)

    monkeypatch.setattr(openssl, "verify", counted)
    lower, upper = root.issue("Lower", ca=True), root.issue("Upper", ca=True)
    leaf = lower.issue()
    middle = upper.issue("Lower", ca=True, key=lower)
    wire = Wire(
        root, [leaf] if alone else [leaf, middle], [Shelf(known=[lower, upper])], tls_max=tls_max
    ).run()
    assert wire.established
    assert (Certificate(leaf.der) in asked) == (not alone)


def test_learns_nothing_from_a_refused_server(root: Issued, tls_max: int) -> None:
    """A good chain of a leaf that is not."""
    ca = root.issue("CA", ca=True)
    wire = Wire(root, [ca.issue(expired=True), ca], tls_max=tls_max).run()
    assert not wire.established
    assert (wire.learned, wire.complete) == ([], 0)


@pytest.mark.parametrize("known", [True, False])
def test_exception_after_a_good_verdict(
    root: Issued, known: bool, monkeypatch: pytest.MonkeyPatch, tls_max: int
) -> None:
    """The chain was verified, and then something goes wrong: the server is refused."""
    ca = root.issue("CA", ca=True)

    def confirmed(*_: object) -> Outcome:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("mitmproxy_aia.handshake._Handshake.confirmed", confirmed)
    shelf = Shelf(known=[ca]) if known else Shelf(fetched=[ca])
    wire = Wire(root, [ca.issue()], [shelf], tls_max=tls_max).run()
    assert not wire.established
    assert wire.error == MISSING


def test_learns_nothing_that_cannot_be_read(root: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshake is none of its business."""
    ca = root.issue("CA", ca=True)

    def refuse(_: bytes) -> Certificate:
        raise ValueError("odd")

    monkeypatch.setattr(Certificate, "from_der", refuse)
    wire = Wire(root, [ca.issue(), ca]).run()
    assert wire.established
    assert wire.learned == [()]


def test_tells_what_the_server_sent(root: Issued, tls_max: int) -> None:
    """All of it and in its order, whether it was of use or not, and whatever came of it."""
    upper = root.issue("Upper", ca=True)
    lower = upper.issue("Lower", ca=True)
    chain = [lower.issue(), root.issue("Stranger", ca=True), upper]
    for shelf in Shelf(known=[lower]), Shelf(fetched=[lower]), Shelf():
        wire = Wire(root, chain, [shelf], tls_max=tls_max).run()
        assert [outcome.presented for outcome in wire.outcomes] == [certificates(*chain)]


def test_pause_comes_before_anything_is_sent(root: Issued, tls_max: int) -> None:
    """Between our ClientHello and the hook there is no SendData, and after it there is."""
    ca = root.issue("CA", ca=True)
    wire = Wire(root, [ca.issue()], [Shelf(fetched=[ca])], tls_max=tls_max).run()
    assert wire.established
    interesting = commands.SendData | commands.StartHook
    kinds = [type(command) for command in wire.commands if isinstance(command, interesting)]
    hook = kinds.index(pausing.AiaCompleteHook)
    assert kinds[:hook] == [tls_layers.TlsStartServerHook, commands.SendData]
    assert commands.SendData in kinds[hook:]


@pytest.mark.parametrize("answer_hook", [True, False])
def test_rejected(root: Issued, tls_max: int, answer_hook: bool) -> None:
    """After a rejection the connection looks as after any failed handshake: nothing was sent,
    nothing is known of it, and it is closed."""
    leaf = root.issue("CA", ca=True).issue()
    wire = Wire(root, [leaf], [Shelf()], tls_max=tls_max, answer_hook=answer_hook).run()
    assert not wire.established
    assert wire.error == MISSING + (" (AIA: shelf is empty)" if answer_hook else "")
    assert len(wire.given(commands.SendData)) == 1
    assert len(wire.given(tls_layers.TlsFailedServerHook)) == 1
    assert len(wire.given(commands.CloseConnection)) == 1
    conn = wire.conn
    assert conn.timestamp_tls_setup is None
    assert not conn.tls_established
    assert conn.certificate_list == ()
    assert (conn.alpn, conn.cipher, conn.tls_version) == (None, None, None)


def test_rejected_connection_is_sealed(root: Issued, tls_max: int) -> None:
    """Neither does what the server says get through, nor does a write bring our Finished."""
    leaf = root.issue("CA", ca=True).issue()
    wire = Wire(root, [leaf], [Shelf()], tls_max=tls_max).run()
    before = len(wire.commands)
    wire.feed(events.DataReceived(wire.conn, b"\x17\x03\x03\x00\x01x"))
    wire.commands += wire.layer.send_data(b"secret")
    wire.commands += wire.layer.tls_interact()
    assert wire.commands[before:] == []


def test_error_that_no_path_can_cure_is_final(root: Issued, tls_max: int) -> None:
    """OpenSSL's own refusal, with its own words, and no completion is begun."""
    ca = root.issue("CA", ca=True)
    wire = Wire(root, [ca.issue(expired=True)], [Shelf(fetched=[ca])], tls_max=tls_max).run()
    assert wire.error == "Certificate verify failed: certificate has expired"
    assert wire.given(pausing.AiaCompleteHook) == []
    assert wire.outcomes == []


@pytest.mark.parametrize("known", [True, False])
def test_renegotiation_forgives_nothing(root: Issued, known: bool) -> None:
    """In TLS 1.2 a server may present another chain later. Nobody would wait to decide then."""
    ca = root.issue("CA", ca=True)
    sources = [Shelf(known=[ca])] if known else [MemorySource()]
    chain = [ca.issue()] if known else [ca.issue(), ca]
    wire = Wire(root, chain, sources, tls_max=SSL.TLS1_2_VERSION).run()
    assert wire.established
    stranger = authority("Stranger").issue()
    present(wire.server, stranger)
    assert wire.server.renegotiate()
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        talk(wire.server, wire.connection)
    assert len(wire.outcomes) == known


def talk(one: Any, other: Any) -> None:
    """Carries a renegotiation to and fro. It is reading that makes OpenSSL take part in it."""
    for speaker, listener in [(one, other), (other, one)] * 4:
        with contextlib.suppress(SSL.WantReadError):
            speaker.do_handshake()
            speaker.recv(65535)
        with contextlib.suppress(SSL.WantReadError):
            listener.bio_write(speaker.bio_read(65535))


def test_connection_put_in_place_of_ours(root: Issued) -> None:
    """A later addon may provide its own connection; then the wrapper only looks on."""
    leaf = root.issue()
    wire = Wire(root, [leaf])
    ours = wire.connection

    for command in wire.layer.handle_event(events.Start()):
        assert isinstance(command, tls_layers.TlsStartServerHook)
        command.data.ssl_conn = ours
        assert handshake.watch(command.data, wire.watcher())
        command.data.ssl_conn = wire.connection = wire._connection(SSL.TLS1_3_VERSION)
        wire.feed(events.HookCompleted(command))
    while data := wire.read_server():
        wire.feed(events.DataReceived(wire.conn, data))
    assert wire.established


@pytest.mark.parametrize("verify_mode", [SSL.VERIFY_PEER, SSL.VERIFY_NONE])
@pytest.mark.parametrize("believes", [True, False])
def test_server_that_another_addon_judges(
    root: Issued, tls_max: int, verify_mode: int, believes: bool
) -> None:
    """Its verdict counts, and nothing is learned from that: we know of no path."""

    class Judged(Wire):
        def handle(self, hook: commands.StartHook) -> None:
            super().handle(hook)
            if isinstance(hook, tls_layers.TlsStartServerHook):
                self.connection.set_verify(verify_mode, lambda *_: believes)

    stranger = authority("Stranger")
    one = stranger.issue("One", ca=True)
    two = one.issue("Two", ca=True)
    wire = Judged(root, [two.issue(), two, one], tls_max=tls_max).run()
    assert wire.established == (believes or verify_mode == SSL.VERIFY_NONE)
    assert (wire.outcomes, wire.learned, wire.complete) == ([], [], 0)


def test_judge_that_comes_too_late(root: Issued, tls_max: int) -> None:
    """What was forgiven before another addon began to judge still needs a verdict of ours."""

    class Late(Wire):
        def begin(self, presented: Iterable[Certificate], verifier: Verifier) -> Completion:
            self.connection.set_verify(SSL.VERIFY_PEER, lambda *_: True)
            return super().begin(presented, verifier)

    wire = Late(root, [root.issue("CA", ca=True).issue()], tls_max=tls_max).run()
    assert not wire.established
    assert [outcome.verified for outcome in wire.outcomes] == [False]


def test_unknown_layers_are_not_watched(root: Issued) -> None:
    """No layer of ours to wrap, or no connection to watch: stock behaviour."""
    wire = Wire(root, [root.issue()])
    data = tls.TlsData(wire.conn, wire.context)
    assert not handshake.watch(data, wire.watcher())
    data.ssl_conn = wire.connection
    wire.context.layers.clear()
    assert not handshake.watch(data, wire.watcher())


def test_presented_certificates_that_cannot_be_read(
    root: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that only OpenSSL can parse is left out, unless it is the leaf."""
    ca = root.issue("CA", ca=True)
    odd = root.issue("Odd", ca=True)
    real = Certificate.from_der

    def from_der(der: bytes) -> Certificate:
        if der in unreadable:
            raise ValueError("odd")
        return real(der)

    monkeypatch.setattr(Certificate, "from_der", from_der)
    unreadable = [odd.der]
    leaf = ca.issue()
    assert Wire(root, [leaf, odd], [Shelf(known=[ca])]).run().established
    unreadable = [leaf.der]
    wire = Wire(root, [leaf, odd], [Shelf(known=[ca])]).run()
    assert wire.error == f"{MISSING} (the server's certificate cannot be read: odd)"


@pytest.mark.parametrize(
    ("ciphers", "tls_version_min", "level"),
    [
        ([], "TLS1_2", None),
        ([], "TLS1_3", None),
        ([], "TLS1_1", LOWERED),
        ([], "TLS1", LOWERED),
        ([], "SSL3", LOWERED),
        ([], "UNBOUNDED", LOWERED),
        ([], "TLS0", None),
        (["ALL"], "TLS1", None),
        (["ALL", "@SECLEVEL=0"], "TLS1_2", 0),
        (["ALL@SECLEVEL=1"], "TLS1_2", 1),
        (["@SECLEVEL=0", "ALL", "@SECLEVEL=3"], "TLS1_2", 3),
        # What OpenSSL does not know ends at the next colon.
        (["ALL", "RC4-SHA@SECLEVEL=0"], "TLS1_2", None),
        (["ALL", "+NOSUCH@SECLEVEL=0"], "TLS1_2", None),
        (["ALL", "@STRENGTH@SECLEVEL=0"], "TLS1_2", None),
        (["@SECLEVEL=3@SECLEVEL=0", "ALL"], "TLS1_2", 3),
        (["ALL", "!ECDHE", "@SECLEVEL=1"], "TLS1_2", 1),
    ],
)
def test_security_level(ciphers: list[str], tls_version_min: str, level: int | None) -> None:
    """@SECLEVEL in the ciphers, as OpenSSL reads it, or what TlsConfig takes without any."""
    root = authority(key="ec384")
    store = openssl.store_of([loaded.to_openssl(Certificate(root.der))], partial=False)
    given = cipher_string(tuple(ciphers), tls_version_min)
    # Of 80, 112, 128 and 192 bits: levels 1, 2, 3 and 4, the configuration's being 2.
    keys: list[tuple[KeyKind, int]] = [("rsa1024", 1), ("rsa2048", 2), ("ec256", 3), ("ec384", 4)]
    for key, strength in keys:
        leaf = root.issue(key=key, digest="sha384")
        _, fault = rehearse(store, [loaded.to_openssl(Certificate(leaf.der))], given)
        assert (fault is None) == (strength >= (2 if level is None else level))


@pytest.mark.parametrize("change", ["gone", "other"])
def test_ciphers_of_a_mitmproxy_that_does_not_tell(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strict level: that of OpenSSL's configuration."""
    cipher_string.cache_clear()
    if change == "gone":
        monkeypatch.delattr(tlsconfig, "_default_ciphers", raising=False)
    else:
        monkeypatch.setattr(tlsconfig, "_default_ciphers", list, raising=False)
    assert cipher_string((), "TLS1") == ""
    cipher_string.cache_clear()


def test_hook_name() -> None:
    """mitmproxy derives the name of the method it calls from the name of the class."""
    assert pausing.AiaCompleteHook.name == "aia_complete"


@pytest.mark.parametrize(
    ("ciphers", "suite_b"),
    [
        ([], False),
        (["ECDHE-ECDSA-AES128-GCM-SHA256", "@SECLEVEL=1"], False),
        (["SUITEB128"], True),
        (["@SECLEVEL=2", "SUITEB192"], True),
        (["HIGH:SUITEB128ONLY"], True),
    ],
)
def test_suite_b(ciphers: list[str], suite_b: bool) -> None:
    """Suite B binds the chain, too; such a server is left to OpenSSL alone."""
    assert handshake.is_suite_b(ciphers) is suite_b

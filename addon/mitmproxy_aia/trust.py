"""Which roots are trusted where there is no mitmproxy: by an inspection, and of a proxy that
downloads go through."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass

import certifi
from OpenSSL import SSL, crypto

from mitmproxy_aia import loaded, openssl
from mitmproxy_aia.formats import read_certificates
from mitmproxy_aia.names import printable
from mitmproxy_aia.rejections import Identity, rejected_in

MAX_BYTES = 64 * 2**20
"""Of a file with roots."""


@dataclass(frozen=True)
class Trust:
    """`file` holds the roots, in any format; `folder` is one that `openssl rehash` has made. If
    both are empty, they are those of certifi, which mitmproxy trusts by default."""

    file: str = ""
    folder: str = ""

    @property
    def words(self) -> str:
        named = " and ".join(filter(None, (self.file, self.folder)))
        return printable(named, 4096) if named else "the roots of certifi, mitmproxy's default"

    def rejected(self) -> frozenset[Identity]:
        """The CAs that it rejects; see `rejections`."""
        return rejected_in(self.file, self.folder)

    def context(self, *, tls12: bool = False, at: datetime.datetime | None = None) -> SSL.Context:
        """What connections are made of. Its trust store is ours alone, and set to the time `at`
        if that is not now. Raises OSError with one sentence."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)  # mitmproxy's default
        if tls12:
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
        store = store_of(context)
        self._load(context, store)
        if at is not None:
            store.set_time(at.astimezone(datetime.UTC))
        return context

    def _load(self, context: SSL.Context, store: crypto.X509Store) -> None:
        file = self.file or (None if self.folder else certifi.where())
        try:
            context.load_verify_locations(file, self.folder or None)
            return
        except SSL.Error:
            openssl.clear_errors()
        shown = printable(self.file or self.folder, 4096)
        if not self.file:
            raise OSError(f"{shown} is no folder with trusted roots")
        try:
            with open(self.file, "rb") as opened:
                data = opened.read(MAX_BYTES)
        except OSError as error:
            raise OSError(f"{shown} cannot be read ({error.strerror})") from error
        try:
            # OpenSSL reads PEM only.
            for certificate in read_certificates(data):
                store.add_cert(loaded.to_openssl(certificate))
        except (ValueError, crypto.Error) as error:
            openssl.clear_errors()
            raise OSError(f"{shown} holds no trusted roots: it {error}") from error


def flaw_of_file(file: str) -> str:
    """Why mitmproxy cannot load the roots in `file`, of which it speaks with each connection, and
    in many lines; empty if it can. A pipe is not looked into: it can be read once."""
    if os.path.exists(file) and not os.path.isfile(file):
        return f"{printable(file, 4096)} is a folder" if os.path.isdir(file) else ""
    try:
        SSL.Context(SSL.TLS_CLIENT_METHOD).load_verify_locations(file)
        return ""
    except SSL.Error:
        openssl.clear_errors()
    try:
        Trust(file).context()
    except OSError as error:
        what = str(error)
    else:
        # We are less strict.
        what = f"{printable(file, 4096)} is not PEM from end to end, as mitmproxy wants it"
    return f"{what}; no server can be verified"


def flaw_of_folder(folders: str) -> str:
    """The same of folders, with colons between them (os.pathsep). OpenSSL does not mind if there
    are none."""
    missing = [each for each in folders.split(os.pathsep) if each and not os.path.isdir(each)]
    return f"{printable(missing[0], 4096)} is no folder with roots" if missing else ""


def store_of(context: SSL.Context) -> crypto.X509Store:
    """The trust store that every context has. It lives as long as `context` does."""
    store = context.get_cert_store()
    if store is None:
        raise RuntimeError("a TLS context has no trust store")
    return store

"""What `mitmproxy-aia cache` takes on the command line, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from mitmproxy_aia.ccadb import MOZILLA_REPORT
from mitmproxy_aia.cli import filling, managing
from mitmproxy_aia.cli.configuration import CONFDIR
from mitmproxy_aia.cli.views import FIELDS

Command = Callable[[argparse.Namespace], int]
Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"

_CACHE = """\
What is in a cache is only proposed: every path is verified when it is used.
All of this is safe while proxies are running.

examples:
  mitmproxy-aia cache list
  mitmproxy-aia cache add intermediate.crt
  mitmproxy-aia cache export ci/intermediates.pem
  mitmproxy-aia cache import --mozilla
  mitmproxy-aia cache --cache redis://cache.example:6379/0 list"""
_LIST = f"""\
On a terminal it is a table; expired certificates have a "!" after their date.
Otherwise it is one line for each, with tabs between its fields:
  {", ".join(FIELDS[:5])},
  {", ".join(FIELDS[5:])}
--json gives an array of objects with these keys, one in a line. Fingerprints
are hexadecimal, names as in RFC 4514, times as 2026-11-23T19:05:39Z (UTC).

examples:
  mitmproxy-aia cache list
  mitmproxy-aia cache list | grep "Let's Encrypt"
  mitmproxy-aia cache list --json | jq -r '.[] | .not_after + " " + .subject'"""
_SHOW = """\
examples:
  mitmproxy-aia cache show 5a8f16fd
  mitmproxy-aia cache show "CN=R11"
  mitmproxy-aia cache show R11 | openssl x509 -noout -text"""
_ADD = """\
DER, PEM, PKCS#7, one certificate or many, told by the content and not by the
suffix. What could complete no chain is skipped: leaf, self-signed and expired
certificates.

examples:
  mitmproxy-aia cache add intermediate.crt
  mitmproxy-aia cache add ci/certificates/
  curl -s http://ca.example/intermediate.der | mitmproxy-aia cache add -"""
_REMOVE = """\
Each must fit one certificate, unless there is --all. Proxies that are running
keep in memory what they have used.

examples:
  mitmproxy-aia cache remove 5a8f16fd
  mitmproxy-aia cache remove --all "Old Corporation\""""
_EXPORT = """\
The bundle has comments on each certificate, and is the same whenever the cache
holds the same: it can be committed. It is written whole or not at all. An empty
cache is an error, and leaves the file as it is.

examples:
  mitmproxy-aia cache export ci/intermediates.pem
  mitmdump -nC flows.mitm -s addon/aia.py --set aia_mode=frozen \\
      --set aia_intermediates=ci/intermediates.pem
  mitmproxy-aia cache export - | grep '^# subject'"""
_IMPORT = f"""\
Reports of the CCADB (https://www.ccadb.org/resources) need a column with PEM.
A row that cannot be read is named (FILE:LINE: reason) and skipped. Leaf,
self-signed and expired certificates are skipped, too. The exit status is 1 if
nothing could be imported.

--mozilla downloads the intermediates that Firefox preloads:
{MOZILLA_REPORT}

examples:
  mitmproxy-aia cache import --mozilla
  mitmproxy-aia cache import --ccadb PublicAllIntermediateCertsWithPEMCSV.csv
  mitmproxy-aia cache import ci/intermediates.pem"""
_WHICH = "the beginning of its SHA-256 (with colons or without), or a part of its subject"


def add_cache_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `cache` to the commands of `mitmproxy-aia`. Each sets `run`, which returns the exit
    status, and `parser`."""
    parser = commands.add_parser(
        "cache",
        help="look into the cache of intermediates, and change it",
        description="Looks into the cache of intermediates, and changes it.",
        epilog=_CACHE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_which_cache("", CONFDIR)],
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str, more: str = "") -> argparse.ArgumentParser:
        made = kinds.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Suppressed: what was said before the command's name is to stay.
            parents=[_which_cache(argparse.SUPPRESS, argparse.SUPPRESS)],
        )
        made.set_defaults(run=run, parser=made)
        return made

    listing = add("list", managing.list_, "list the certificates", _LIST)
    listing.add_argument("--json", action="store_true", help="for other programs")

    show = add("show", managing.show, "show one certificate, and its PEM", _SHOW)
    show.add_argument("certificate", metavar="FINGERPRINT|TEXT", type=_text, help=_WHICH)
    show.add_argument("--json", action="store_true", help="for other programs, with the key pem")

    adding = add("add", filling.add, "add the certificates in files", _ADD)
    adding.add_argument("file", nargs="+", metavar="FILE", help="a file, a folder, or - for stdin")

    remove = add("remove", managing.remove, "remove certificates", _REMOVE)
    remove.add_argument(
        "certificate", nargs="+", metavar="FINGERPRINT|TEXT", type=_text, help=_WHICH
    )
    remove.add_argument("--all", action="store_true", help="remove all that it fits")

    clear = add("clear", managing.clear, "remove all certificates")
    clear.add_argument("--yes", action="store_true", help="do not ask")

    add("prune", managing.prune, "remove expired certificates (proxies do so in time, too)")

    export = add("export", managing.export, "write all certificates to a PEM bundle", _EXPORT)
    export.add_argument("file", metavar="FILE", help="where to; - for stdout")
    export.add_argument("--not-expired", action="store_true", help="leave out what has expired")

    importing = add("import", filling.import_, "import reports and bundles", _IMPORT)
    importing.add_argument(
        "file", nargs="*", metavar="FILE", help="a report, a bundle, a folder, or - for stdin"
    )
    importing.add_argument(
        "--ccadb",
        action="append",
        default=[],
        metavar="FILE",
        help="a report of the CCADB (CSV), or a bundle; can be repeated",
    )
    importing.add_argument(
        "--mozilla", action="store_true", help="download Mozilla's own report (see below)"
    )
    importing.add_argument(
        "--url",
        default="",
        help="download this report instead of Mozilla's",
    )

    add("path", managing.path, "print where the cache is, without a password")


def _which_cache(cache: str, confdir: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--cache",
        default=cache,
        metavar="WHERE",
        help="the cache, as in mitmproxy's option aia_cache: the path of a file, or "
        "redis://[user:password@]host:port/db (default: what config.yaml in the confdir says, or "
        "else aia.sqlite3 there)",
    )
    parser.add_argument(
        "--confdir",
        default=confdir,
        metavar="DIR",
        help=f"mitmproxy's configuration directory (default: {CONFDIR})",
    )
    return parser


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, which would fit every certificate")
    return text

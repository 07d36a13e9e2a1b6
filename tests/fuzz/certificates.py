"""Bytes to certificates: the first thing that happens to a download."""

from collections.abc import Iterator

from mitmproxy_aia.certificates import Certificate
from mitmproxy_aia.formats import read_certificates
from tests.fuzz import lab
from tests.fuzz.choices import Choices
from tests.fuzz.der_tree import damaged
from tests.fuzz.promises import bounded, empty_verifier, one_line, promise, sound
from tests.lab import pem_bundle, pkcs7_ber, pkcs7_ber_pem, pkcs7_der, pkcs7_pem


def certificates(data: bytes) -> None:
    """Bytes give certificates or a ValueError, in a time and a size in proportion to them."""
    with bounded(len(data)):
        _read(data)


def damage(data: bytes) -> None:
    """The same for certificates of the lab of which some elements were changed."""
    choices = Choices(data)
    broken = damaged(choices.pick(lab.templates()), choices)
    with bounded(len(broken)):
        _read(broken)


def _read(data: bytes) -> None:
    try:
        found = read_certificates(data)
    except ValueError as error:
        one_line(str(error))
        found = ()
    else:
        promise(len(found) > 0, "neither a certificate nor a reason")
    promise(len(set(found)) == len(found), "a certificate twice")
    promise(sum(len(each.der) for each in found) <= len(data), "certificates out of nowhere")
    for certificate in found[:20]:
        sound(certificate, empty_verifier())
    try:
        alone = Certificate.from_der(data)
    except ValueError:
        return
    promise(found == (alone,), "one certificate is read as something else")


def certificates_seeds() -> Iterator[bytes]:
    root, chain = lab.root(), lab.chain()
    yield from lab.templates()
    yield from (pem_bundle(root), pem_bundle(*chain), b"# text\n" + pem_bundle(root) + b"0")
    for write in pkcs7_der, pkcs7_pem, pkcs7_ber, pkcs7_ber_pem:
        yield write(root)
        yield write(*chain)


def damage_seeds() -> Iterator[bytes]:
    for template in range(len(lab.templates())):
        yield bytes([template])
    # One edit: of every element, with a text that no terminal should see.
    for element in range(80):
        for edit in 0, 1, 5, 7:
            yield bytes([0, 1, element, 3, edit, 4, 10, 27, 65, 0])

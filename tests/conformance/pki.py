"""A case's graph as real certificates."""

from dataclasses import dataclass

from tests.conformance.cases import Case, Elsewhere, Reason
from tests.conformance.graphs import LEAF, Edge
from tests.lab import CaIssuersServer, Issued, Options, authority, pkcs7_der

FAULTS: dict[Reason, Options] = {
    Reason.EXPIRED: {"expired": True},
    # The leaf is for 127.0.0.1 and localhost.
    Reason.NAME_CONSTRAINTS: {"excluded": ["127.0.0.0/8"]},
    Reason.NO_SERVER_AUTH: {"extended_key_usage": ["clientAuth"]},
    Reason.NO_BASIC_CONSTRAINTS: {"basic_constraints": False},
    # It has all that a CA has, and says that it is none.
    Reason.NOT_A_CA: {
        "ca": False,
        "key_usage": ["key_cert_sign", "crl_sign"],
        "extended_key_usage": None,
        "hosts": (),
    },
    Reason.SHA1: {"digest": "sha1"},
}


_PUBLISHED = (Elsewhere.BUNDLES, Elsewhere.SINGLE)


@dataclass(frozen=True)
class Pki:
    """The certificates of one case. Names and keys are its own: what a proxy has learned in
    one case is of no use in another."""

    case: Case
    number: int
    roots: dict[str, Issued]

    @classmethod
    def begin(cls, case: Case, number: int) -> "Pki":
        """With the roots only, which a proxy has to know before it starts."""
        roots = {root: authority(f"{number} {root}") for root in case.graph.roots}
        return cls(case, number, roots)

    @property
    def trusted(self) -> list[Issued]:
        return [self.roots[root] for root in self.case.trusted]

    def issue(self, ca: CaIssuersServer) -> dict[Edge, Issued]:
        """All other certificates. Where the case says so, each names caIssuers URLs, at which
        `ca` has all certificates of its issuer."""
        # Any certificate of an entity tells its name and key.
        entities = dict(self.roots)
        issued: dict[Edge, Issued] = {}
        for edge in self.case.graph.edges:
            issued[edge] = entities[edge.issuer].issue(
                f"{self.number} {edge.subject}", **self._options(edge, entities, ca)
            )
            entities.setdefault(edge.subject, issued[edge])
        for entity in entities:
            self._publish(entity, issued, ca)
        return issued

    def _options(self, edge: Edge, entities: dict[str, Issued], ca: CaIssuersServer) -> Options:
        options: Options = {"ca": edge.subject != LEAF}
        if edge.subject in entities:
            options["key"] = entities[edge.subject]
        if self.case.elsewhere in _PUBLISHED:
            options["aia"] = [ca.url(path) for path in self._paths(edge.issuer)]
        if self.case.reason and edge in self.case.bad:
            options |= FAULTS[self.case.reason]
        return options

    def _publish(self, entity: str, issued: dict[Edge, Issued], ca: CaIssuersServer) -> None:
        certificates = [one for edge, one in issued.items() if edge.subject == entity]
        if entity in self.roots:
            certificates.append(self.roots[entity])
        if self.case.elsewhere is Elsewhere.BUNDLES:
            ca.serve(self._paths(entity)[0], pkcs7_der(*certificates))
        elif self.case.elsewhere is Elsewhere.SINGLE:
            for path, certificate in zip(self._paths(entity), certificates, strict=True):
                ca.serve(path, certificate.der)

    def _paths(self, entity: str) -> list[str]:
        """Where the certificates of `entity` are published."""
        if self.case.elsewhere is Elsewhere.BUNDLES:
            return [f"/{self.number}/{entity}.p7c"]
        count = sum(edge.subject == entity for edge in self.case.graph.edges)
        count += entity in self.roots
        return [f"/{self.number}/{entity}-{index}.cer" for index in range(count)]

"""The targets by name, with the seeds that the lab makes for each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.fuzz import certificates, completion, egress, readers, urls


@dataclass(frozen=True)
class Target:
    """`run` raises where a promise is broken. Inputs of more than `most_bytes` are not tried."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    most_bytes: int = 4_096

    @property
    def purpose(self) -> str:
        return (self.run.__doc__ or "").strip()


TARGETS = {
    "certificates": Target(certificates.certificates, certificates.certificates_seeds, 65_536),
    "damage": Target(certificates.damage, certificates.damage_seeds, 256),
    "urls": Target(urls.urls, urls.seeds),
    "egress": Target(egress.egress, egress.seeds, 512),
    "completion": Target(completion.completion, completion.seeds, 512),
    "readers": Target(readers.readers, readers.seeds, 16_384),
}

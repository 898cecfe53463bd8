"""Events (recorded anomalies), and the labels that people give them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.domain.attribution import Attribution
from service.json_value import JsonObject
from service.timestamps import rfc3339


def digest(vector: NDArray[np.float32]) -> str:
    """Return the digest of a vector that alarmed. Vectors with equal bits have equal digests."""
    return hashlib.blake2b(vector.astype("<f4").tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Event:
    """One vector that was anomalous under `version`; `at` is seconds since 1970.

    The store gives the `id`. `attributions` are as in a scoring answer. `timestamp` (seconds since
    1970), `source` and `client_id` are from the request. `vector` holds the codes of categories.
    `words` holds their words, by place in `vector`.
    """

    at: float
    vector: NDArray[np.float32]
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: tuple[Attribution, ...] = ()
    id: str = ""
    timestamp: float | None = None
    source: str | None = None
    client_id: str | None = None
    words: Mapping[int, str] = field(default_factory=dict)

    @property
    def time(self) -> float:
        """The time of the event: the client's time if it sent one, else the time of scoring."""
        return self.at if self.timestamp is None else self.timestamp

    def to_dict(self, incident: str | None = None) -> JsonObject:
        """Return the event as a JSON object. `incident` is the id of its incident."""
        return {
            "id": self.id,
            "client_id": self.client_id,
            "timestamp": rfc3339(self.timestamp),
            "source": self.source,
            "incident": incident,
            "at": rfc3339(self.at),
            "vector": [
                self.words.get(place, value) for place, value in enumerate(self.vector.tolist())
            ],
            "score": self.score,
            "p_value": self.p_value,
            "severity": self.severity,
            "version": self.version,
            "generation": self.generation,
            "attributions": msgspec.to_builtins(list(self.attributions)),
        }


@dataclass(frozen=True, slots=True)
class Label:
    """The label that a person gave a vector, and the event of the vector, if it has one.

    `sender` is the id of the API key, or '' without a key. `incident` is the incident whose
    decision gave the label. `batch` is the normal batch that put the vector in the buffer.
    """

    label: Literal["normal", "anomaly"]
    vector: NDArray[np.float32]
    event: str | None = None
    at: float = 0.0
    id: str = ""
    sender: str = ""
    incident: str | None = None
    batch: str | None = None

    def to_dict(self) -> JsonObject:
        """Return the label as a JSON object."""
        return {
            "id": self.id,
            "label": self.label,
            "event": self.event,
            "incident": self.incident,
            "sender": self.sender,
            "at": rfc3339(self.at),
            "vector": self.vector.tolist(),
        }


def equal_share_of_senders(labels: Sequence[Label], most: int) -> list[Label]:
    """Return at most `most` labels, equally many of each sender; input and result newest first."""
    if len(labels) <= most:
        return list(labels)
    rank: dict[str, int] = {}
    ranked = []
    for place, label in enumerate(labels):
        rank[label.sender] = rank.get(label.sender, 0) + 1
        ranked.append((rank[label.sender], place))
    return [labels[place] for place in sorted(place for _, place in sorted(ranked)[:most])]

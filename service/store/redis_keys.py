"""The names of all keys in Redis. No other module spells them.

All keys of one detector share the hash tag `{name}`. So a script can use several of them in a
cluster.
"""

import hashlib
import zlib
from dataclasses import dataclass

from service.domain.detector import NAME
from service.problems import UnknownDetector

DETECTORS = "anamnesis:detectors"
TEMPLATES = "anamnesis:templates"
ENTITIES = "anamnesis:entities"
WORKERS = "anamnesis:workers"
PROCESSES = "anamnesis:processes"
ERASED = "anamnesis:erased"
ERASING = "anamnesis:{anamnesis:erased}:rewriting"
API_KEYS = "anamnesis:api-keys"
# The hash tag is the name API_KEYS: so both keys are in the same cluster slot.
KEYS_AUDIT = "anamnesis:{anamnesis:api-keys}:audit"
# The hash tag is the name TEMPLATES: so both keys are in the same cluster slot.
TEMPLATES_AUDIT = "anamnesis:{anamnesis:templates}:audit"
KEYS_NONCE = "anamnesis:{anamnesis:api-keys}:nonce"
NOTIFY = "anamnesis:notify"
# In a cluster both keys of a bucket are in one slot. The buckets are spread over many slots.
DUE = tuple(f"anamnesis:{{due:{bucket:02}}}" for bucket in range(64))
REPLICATED = "anamnesis:replicated"  # string: a write that replicas confirm; expires
IDEMPOTENCY_SECONDS = 24 * 3600  # how long a first answer is kept
MOST_ANSWERS = 10_000  # answers kept for one sender and detector, 5 MiB at most

# The type and the content of each key that belongs to no detector.
OF_THE_SERVICE = {
    DETECTORS: "Set: names of all detectors.",
    TEMPLATES: "Hash: template name to its format and config, as JSON.",
    ENTITIES: "Set: names of all detectors that were made from templates.",
    WORKERS: "Sorted set: worker ids, sorted by the store's time of the last heartbeat.",
    PROCESSES: "Hash: API process id to its last heartbeat and the champions that it serves.",
    ERASED: "String: the time since which deleted vectors have been in the append-only file.",
    ERASING: "String: while the append-only file is rewritten, the value of `erased` at the request"
    ", the store's run id, and its number of rewrites at that time.",
    API_KEYS: "Hash: `revision`, and API key id to what the key allows, as JSON.",
    KEYS_AUDIT: "Stream: the audit trail of the API keys.",
    TEMPLATES_AUDIT: "Stream: the audit trail of the templates.",
    KEYS_NONCE: "String: the time in milliseconds and a nonce, both new at every change of the "
    "API keys.",
    "anamnesis:{due:BUCKET}": "Sorted set: detector to the time when it is due for a retraining; a "
    "hint. A hash of its name assigns a detector to one of 64 buckets.",
    "anamnesis:{due:BUCKET}:running": "Sorted set: detector to the time when the lease of its "
    "worker ends.",
    NOTIFY: "Channel: the name of a detector that changed.",
}


def due(name: str) -> str:
    """Return the key of the sorted set in the due index that holds the detector `name`."""
    return DUE[zlib.crc32(name.encode("utf-8", "surrogatepass")) % len(DUE)]


def running(due_key: str) -> str:
    """Return the key of the sorted set of running retrainings that belongs to `due_key`."""
    return f"{due_key}:running"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the detector `name`; raises UnknownDetector if the name is invalid."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UnknownDetector()

    def _key(self, suffix: str) -> str:
        return f"anamnesis:{{{self.name}}}:{suffix}"

    @property
    def state(self) -> str:
        """Hash: uid, config, dimension, pointer, cursor, counters, retraining."""
        return self._key("state")

    @property
    def words(self) -> str:
        """Hash: category code to word, for the categories in received rows."""
        return self._key("words")

    @property
    def stream(self) -> str:
        """Stream: one entry for each normal batch that is buffered, parked or not yet erased."""
        return self._key("stream")

    @property
    def held(self) -> str:
        """Stream: rows of normal batches that admission held back; one or more entries a batch."""
        return self._key("held")

    @property
    def held_senders(self) -> str:
        """Hash: sender to the number of its held rows."""
        return self._key("held_senders")

    @property
    def senders(self) -> str:
        """Hash: sender to a cursor and the sender's number of novel vectors since that cursor."""
        return self._key("senders")

    @property
    def audit(self) -> str:
        """Stream: the audit trail; after a deletion it expires together with the tombstone."""
        return self._key("audit")

    @property
    def spoken(self) -> str:
        """Hash: sender to an hour and the sender's number of labels and decisions in that hour."""
        return self._key("spoken")

    @property
    def erasable(self) -> str:
        """List: learned ranges, `milliseconds first last vectors bytes`, oldest first."""
        return self._key("erasable")

    @property
    def parked(self) -> str:
        """Hash: quarantine id to the JSON of the parked experience."""
        return self._key("parked")

    @property
    def versions(self) -> str:
        """Hash: version number to its immutable record."""
        return self._key("versions")

    @property
    def sources(self) -> str:
        """Hash: version number to the batches that it learned, with their senders; packed."""
        return self._key("sources")

    @property
    def revoked(self) -> str:
        """Hash: number of a revoked version to the reason of the revocation, as JSON."""
        return self._key("revoked")

    @property
    def artifacts(self) -> str:
        """Hash: version number to the sha256 of its artifact, for each artifact that is kept."""
        return self._key("artifacts")

    @property
    def promoted(self) -> str:
        """Sorted set: numbers of all versions that were champion, sorted by latest generation."""
        return self._key("promoted")

    @property
    def learned(self) -> str:
        """Hash: version number to the number of vectors that its lineage consumed."""
        return self._key("learned")

    @property
    def history(self) -> str:
        """List: one row for each generation."""
        return self._key("history")

    @property
    def pins(self) -> str:
        """Sorted set: numbers of pinned versions, sorted by last use."""
        return self._key("pins")

    @property
    def fence(self) -> str:
        """Counter: the last fencing token given."""
        return self._key("fence")

    @property
    def drift(self) -> str:
        """String: drift state as JSON, written by the monitor."""
        return self._key("drift")

    @property
    def live(self) -> str:
        """Stream: summaries of live traffic, for the drift monitor."""
        return self._key("live")

    @property
    def shadow(self) -> str:
        """List: the latest live vectors, on which candidates are compared; it expires."""
        return self._key("shadow")

    @property
    def monitor(self) -> str:
        """String: the state of the drift monitor between two checks."""
        return self._key("monitor")

    @property
    def events(self) -> str:
        """Stream: the latest anomalies."""
        return self._key("events")

    @property
    def labels(self) -> str:
        """Stream: the latest labels that people gave."""
        return self._key("labels")

    @property
    def label_senders(self) -> str:
        """Sorted set: sender and id of each label. With it the labels of a sender are counted."""
        return self._key("label_senders")

    @property
    def traffic(self) -> str:
        """Stream: reports of scored rows that the worker has not counted yet."""
        return self._key("traffic")

    @property
    def alarmed(self) -> str:
        """Sorted set: digests of the latest vectors that alarmed, sorted by time."""
        return self._key("alarmed")

    @property
    def followed(self) -> str:
        """String: the worker's state of sources and open incidents."""
        return self._key("followed")

    @property
    def incidents(self) -> str:
        """Hash: incident id to the incident."""
        return self._key("incidents")

    @property
    def incident_order(self) -> str:
        """Sorted set: incident ids in the order in which the incidents opened."""
        return self._key("incident_order")

    @property
    def incident_rows(self) -> str:
        """Hash: incident id to its worst rows, for the latest incidents."""
        return self._key("incident_rows")

    @property
    def rulings(self) -> str:
        """Hash: incident id to a person's decision about the incident."""
        return self._key("rulings")

    @property
    def pardons(self) -> str:
        """Hash: id to a dismissed pattern; rows that the pattern covers page nobody."""
        return self._key("pardons")

    @property
    def pardon_order(self) -> str:
        """Sorted set: ids of dismissed patterns, sorted by time."""
        return self._key("pardon_order")

    @property
    def buckets(self) -> str:
        """Hash: the history of scored rows, in chunks of minutes and of hours."""
        return self._key("buckets")

    @property
    def messages(self) -> str:
        """Stream: messages that are not yet delivered to the webhook's receiver."""
        return self._key("messages")

    @property
    def tombstone(self) -> str:
        """String: the uid of the detector that was last deleted under this name; it expires."""
        return self._key("tombstone")

    def lease(self, role: str) -> str:
        """Return the string that contains the holder of the lease for `role`; it expires."""
        return self._key(f"lease:{role}")

    def artifact(self, sha256: str) -> str:
        """Return the string that holds the artifact with this sha256."""
        return self._key(f"artifact:{sha256}")

    def traffic_seen(self, process: str) -> str:
        """Return the string that holds the number of an API process's last report; it expires."""
        return self._key(f"traffic_seen:{process}")

    def idempotency(self, key: str, sender: str | None = None) -> str:
        """Return the hash that holds a sender's first answer under an Idempotency-Key; it expires.

        Without `sender` it is the key of the first release, which all senders shared.
        """
        # The key is hashed: a client's key may be long and contain any character.
        digest = _digest(key)
        return self._key(f"idempotency:{digest if sender is None else _digest(sender, digest)}")

    @property
    def answerers(self) -> str:
        """Set: the suffix of the key `answers` for every sender with answers."""
        return self._key("answerers")

    def answers(self, suffix: str) -> str:
        """Return the sorted set of the keys of a sender's answers, sorted by time; it expires."""
        return self._key(f"answers:{suffix}")

    def labels_idempotency(self, key: str, sender: str | None = None) -> str:
        """Return the hash that marks a sender's Idempotency-Key with stored labels; it expires.

        Without `sender` it is the string of the first release, which all senders shared.
        """
        return f"{self.idempotency(key, sender)}:labels"

    @property
    def deleted_with_detector(self) -> tuple[str, ...]:
        """All keys to delete with the detector, except artifacts and idempotency records."""
        return (
            self.state, self.words, self.stream, self.held, self.held_senders, self.senders,
            self.spoken, self.erasable, self.parked, self.versions, self.sources, self.revoked,
            self.artifacts, self.promoted, self.learned, self.history, self.pins, self.fence,
            self.drift, self.live, self.shadow, self.monitor, self.events, self.labels,
            self.label_senders, self.traffic, self.alarmed, self.followed, self.incidents,
            self.incident_order, self.incident_rows, self.rulings, self.pardons,
            self.pardon_order, self.buckets, self.messages, self.answerers,
            self.lease("worker"), self.lease("monitor"), self.lease("decision"),
        )  # fmt: skip


def suffix(sender: str) -> str:
    """Return a hash of `sender` for use in a key: a sender may contain any character."""
    return _digest(sender)[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

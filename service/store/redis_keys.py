"""The names of all keys in Redis. No other module spells them.

All keys of one detector share the hash tag `{name}`. So a script can use several of them in a
cluster.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

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
ENDED_SESSIONS = "anamnesis:{anamnesis:api-keys}:ended"
NOTIFY = "anamnesis:notify"
# In a cluster a set and its set of running retrainings are in one slot. The pairs are spread over
# many slots.
DUE = tuple(f"anamnesis:{{due:{number:02}}}" for number in range(64))
REPLICATED = "anamnesis:replicated"  # string: a write that replicas confirm; expires
IDEMPOTENCY_SECONDS = 24 * 3600  # how long a first answer is kept
MOST_ANSWERS = 10_000  # answers kept for one sender and detector, 5 MiB at most

# What the holder of a lease may do. `decision`: carry out a person's decision about an incident.
Role = Literal["worker", "monitor", "decision"]

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
    "API keys, and at every logout.",
    ENDED_SESSIONS: "Hash: API key id to the names of its latest sessions that a logout ended; it "
    "expires.",
    "anamnesis:{due:NUMBER}": "Sorted set: detector to the time when it is due for a retraining; a "
    "hint. A hash of its name assigns a detector to one of 64 such sets.",
    "anamnesis:{due:NUMBER}:running": "Sorted set: detector to the time when the lease of its "
    "worker ends.",
    NOTIFY: "Channel: the name of a detector that changed.",
}


def due(name: str) -> str:
    """Return the key of the sorted set in the due index that holds the detector `name`."""
    return DUE[zlib.crc32(name.encode("utf-8", "surrogatepass")) % len(DUE)]


def running(due_key: str) -> str:
    """Return the key of the sorted set of running retrainings that belongs to `due_key`."""
    return f"{due_key}:running"


class DetectorKey:
    """A key of a detector. `about` is its documentation.

    The suffix is the name of the attribute unless `suffix` is given. The key is deleted with the
    detector unless it `stays`.
    """

    def __init__(self, about: str, *, suffix: str = "", stays: bool = False) -> None:
        self.about = about
        self.stays = stays
        self._suffix = suffix

    def __set_name__(self, owner: type, name: str) -> None:
        self._suffix = self._suffix or name

    def __get__(self, keys: "Keys", owner: type) -> str:
        return keys.of(self._suffix)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the detector `name`; raises UnknownDetector if the name is invalid."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UnknownDetector()

    def of(self, suffix: str) -> str:
        """Return the key with this suffix."""
        return f"anamnesis:{{{self.name}}}:{suffix}"

    state = DetectorKey("Hash: uid, config, dimension, pointer, cursor, counters, retraining.")
    words = DetectorKey("Hash: category code to word, for the categories in received rows.")
    stream = DetectorKey(
        "Stream: one entry for each normal batch that is buffered, parked or not yet erased."
    )
    held = DetectorKey(
        "Stream: rows of normal batches that admission held back; one or more entries a batch."
    )
    held_senders = DetectorKey("Hash: sender to the number of its held rows.")
    senders = DetectorKey(
        "Hash: sender to a cursor and the sender's number of novel vectors since that cursor."
    )
    audit = DetectorKey(
        "Stream: the audit trail; after a deletion it expires together with the tombstone.",
        stays=True,
    )
    hourly = DetectorKey(
        "Hash: sender to an hour and the sender's number of labels and decisions in that hour.",
        suffix="spoken",
    )
    erasable = DetectorKey(
        "List: learned ranges, `milliseconds first last vectors bytes`, oldest first."
    )
    parked = DetectorKey("Hash: quarantine id to the JSON of the parked experience.")
    versions = DetectorKey("Hash: version number to its immutable record.")
    sources = DetectorKey(
        "Hash: version number to the batches that it learned, with their senders; packed."
    )
    revoked = DetectorKey(
        "Hash: number of a revoked version to the reason of the revocation, as JSON."
    )
    artifacts = DetectorKey(
        "Hash: version number to the sha256 of its artifact, for each artifact that is kept."
    )
    promoted = DetectorKey(
        "Sorted set: numbers of all versions that were champion, sorted by latest generation."
    )
    learned = DetectorKey(
        "Hash: version number to the number of vectors that its lineage consumed."
    )
    history = DetectorKey("List: one row for each generation.")
    pins = DetectorKey("Sorted set: numbers of pinned versions, sorted by last use.")
    fence = DetectorKey("Counter: the last fencing token given.")
    drift = DetectorKey("String: drift state as JSON, written by the monitor.")
    live = DetectorKey("Stream: summaries of live traffic, for the drift monitor.")
    shadow = DetectorKey(
        "List: the latest live vectors, on which candidates are compared; it expires."
    )
    monitor = DetectorKey("String: the state of the drift monitor between two checks.")
    events = DetectorKey("Stream: the latest anomalies.")
    labels = DetectorKey("Stream: the latest labels that people gave.")
    label_senders = DetectorKey(
        "Sorted set: sender and id of each label. With it the labels of a sender are counted."
    )
    traffic = DetectorKey("Stream: reports of scored rows that the worker has not counted yet.")
    alarmed = DetectorKey("Sorted set: digests of the latest vectors that alarmed, sorted by time.")
    followed = DetectorKey("String: the worker's state of sources and open incidents.")
    incidents = DetectorKey("Hash: incident id to the incident.")
    incident_order = DetectorKey(
        "Sorted set: incident ids in the order in which the incidents opened."
    )
    incident_rows = DetectorKey("Hash: incident id to its worst rows, for the latest incidents.")
    incident_decisions = DetectorKey(
        "Hash: incident id to a person's decision about the incident.", suffix="rulings"
    )
    dismissed_patterns = DetectorKey(
        "Hash: id to a dismissed pattern; rows that the pattern covers page nobody.",
        suffix="pardons",
    )
    dismissed_order = DetectorKey(
        "Sorted set: ids of dismissed patterns, sorted by time.", suffix="pardon_order"
    )
    buckets = DetectorKey("Hash: the history of scored rows, in chunks of minutes and of hours.")
    messages = DetectorKey("Stream: messages that are not yet delivered to the webhook's receiver.")
    tombstone = DetectorKey(
        "String: the uid of the detector that was last deleted under this name; it expires.",
        stays=True,
    )
    answerers = DetectorKey("Set: the suffix of the key `answers` for every sender with answers.")

    @property
    def deleted_with_detector(self) -> tuple[str, ...]:
        """All keys to delete with the detector, except artifacts and idempotency records."""
        kinds = vars(Keys).items()
        names = [name for name, key in kinds if isinstance(key, DetectorKey) and not key.stays]
        leases = (self.lease(role) for role in get_args(Role))
        return (*(getattr(self, name) for name in names), *leases)

    def lease(self, role: Role) -> str:
        """Return the string that contains the holder of the lease for `role`; it expires."""
        return self.of(f"lease:{role}")

    def artifact(self, sha256: str) -> str:
        """Return the string that holds the artifact with this sha256."""
        return self.of(f"artifact:{sha256}")

    def traffic_seen(self, process: str) -> str:
        """Return the string that holds the number of an API process's last report; it expires."""
        return self.of(f"traffic_seen:{process}")

    def idempotency(self, key: str, sender: str | None = None) -> str:
        """Return the hash that holds a sender's first answer under an Idempotency-Key; it expires.

        Without `sender` it is the key of the first release, which all senders shared.
        """
        # The key is hashed: a client's key may be long and contain any character.
        digest = _digest(key)
        return self.of(f"idempotency:{digest if sender is None else _digest(sender, digest)}")

    def answers(self, suffix: str) -> str:
        """Return the sorted set of the keys of a sender's answers, sorted by time; it expires."""
        return self.of(f"answers:{suffix}")

    def labels_idempotency(self, key: str, sender: str | None = None) -> str:
        """Return the hash that marks a sender's Idempotency-Key with stored labels; it expires.

        Without `sender` it is the string of the first release, which all senders shared.
        """
        return f"{self.idempotency(key, sender)}:labels"


def suffix(sender: str) -> str:
    """Return a hash of `sender` for use in a key: a sender may contain any character."""
    return _digest(sender)[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

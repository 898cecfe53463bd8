"""The fields of all stored data, each named once; `docs/generate.py` makes a table of them.

A table maps the name that scripts and adapters use to the field's name in Redis and its meaning. A
field of a stream entry has a one-letter name in Redis, because every entry repeats that name.
"""

from typing import NamedTuple


class Field(NamedTuple):
    """A field's name in Redis, and a description of its value."""

    stored: str
    about: str


def _table(**fields: str | tuple[str, str]) -> dict[str, Field]:
    return {
        name: Field(name, given) if isinstance(given, str) else Field(*given)
        for name, given in fields.items()
    }


# The hash `state` of a detector. Numbers count vectors unless stated otherwise.
STATE = _table(
    format="number of this format: 1",
    uid="unique id of the detector; one that is created again under its name has another",
    created="when the detector was created, milliseconds since 1970",
    config="JSON: the full config",
    dimension="number of features of a vector; empty until known",
    context="JSON: what `context: auto` chose at the first training; missing until then",
    revision="number of changes of the config, and of labels if they set the threshold",
    config_nonce="random text, new with every change of `revision`",
    champion="number of the version that serves; empty for none",
    champion_sha256="sha256 of the champion's artifact; empty for none",
    champion_nonce="random text, new with every move of the champion pointer",
    generation="number of moves of the champion pointer",
    changed="milliseconds since 1970 of the last change of champion or config",
    last_version="the last number given to a version",
    learned="vectors that the champion's lineage learned",
    cursor="id of the last entry of `stream` that was consumed or parked",
    oldest="id of the oldest buffered entry; empty for none",
    buffered="vectors that wait to be learned",
    buffered_bytes="bytes of these vectors",
    labelled="id of the last entry of `stream` that a person labelled normal; empty for none",
    parked="vectors of experiences that wait for a person",
    parked_bytes="bytes of these vectors",
    quarantined="rows that admission held back",
    quarantined_bytes="bytes of these rows",
    consumed="vectors that any version learned",
    discarded="vectors that a person discarded",
    thinned="vectors that were not kept because the champion knows them well",
    kept_bytes="bytes of learned entries that are not erased yet",
    retraining="state of the retraining: `idle`, `queued` or `running`",
    progress="progress of the running training, 0 to 1",
    seconds_left="estimated seconds until the running training ends",
    loss_old="loss of the running training on old vectors, in nats",
    loss_new="loss of the running training on new vectors, in nats",
    requested="number of the last request to retrain",
    serving="number of the request that the running retraining serves",
    served="number of the last request whose retraining is over",
    attempts="failed attempts with the present experience",
    interrupted="trainings of the present experience that ended with their worker; missing for 0",
    weights="JSON: weights for the next retraining only",
    requested_trace="trace id of the last request to retrain; empty or missing for none",
    run_weights="JSON: weights of the running retraining",
    promoted="number of promoted versions so far",
    rejected="number of rejected versions so far",
    failed="number of failed experiences so far",
    last_retraining="JSON: outcome of the last retraining",
    incidents_open="number of open incidents that page somebody",
    incidents_unreported="number of open incidents of rows that were too old to page somebody",
    incidents_opened="number of incidents so far",
    incidents_closed="number of closed incidents so far",
    incident_rule="JSON: what opens an incident, and the rate that it holds",
    decisions="number of decisions about incidents and of changes of the mute so far",
    muted_until="end of the mute, milliseconds since 1970; 0 or missing for none",
    muted_why="reason of the mute",
    muted_by="who muted the detector",
    messages_sent="number of messages sent to the webhook's receiver",
    messages_dropped="number of messages that were too old, or too many",
)

# Entries of the streams `stream` and `held`: one normal batch, or the held rows of one.
BATCH = _table(
    batch=("b", "id of the batch"),
    vectors=("n", "number of vectors"),
    dimension=("d", "number of features of a vector"),
    sender=("s", "id of the API key that sent it; empty for none"),
    payload=("x", "the vectors: little-endian float32, row-major; if `raw`, MessagePack follows"),
    raw=("w", "1 if rows wait for a context: their times and sources follow them"),
    judged_by=("v", "version that held the rows back (only in `held`)"),
    reason=("r", "reason (only in `held`)"),
    trace=("t", "trace id of the request that sent it; empty or missing for none"),
)

# Entries of the streams `events`, `labels` and `live`.
ENTRY = _table(packed=("e", "MessagePack: the event, label or summary"))

# Entries of the stream `traffic`.
REPORT = _table(
    packed=("r", "MessagePack: what an API process scored"),
    events=("i", "ids of its events, separated by spaces"),
)

# Entries of the stream `messages`.
MESSAGE = _table(packed=("m", "MessagePack: a message for the webhook's receiver"))

# Entries of the streams `audit`: a chain of hashes.
AUDITED = _table(
    seq=("s", "number of the entry, without gaps"),
    before=("p", "hash of the entry before"),
    hash=("h", "SHA-1 of `p` and `e`"),
    entry=("e", "JSON: the change, who made it, when and why"),
)

# The hash under an Idempotency-Key of a normal batch.
ANSWER = _table(
    uid="unique id of the detector that stored the batch",
    sha256="sha256 of the matrix",
    sender="id of the API key; missing in records of the first release",
    answer="JSON: the answer",
    buffered="number of vectors buffered then",
)

# Each table by the name that scripts use, with the place of its fields.
TABLES = {
    "STATE": ("hash `state`", STATE),
    "BATCH": ("streams `stream`, `held`", BATCH),
    "ENTRY": ("streams `events`, `labels`, `live`", ENTRY),
    "REPORT": ("stream `traffic`", REPORT),
    "MESSAGE": ("stream `messages`", MESSAGE),
    "AUDITED": ("streams `audit`", AUDITED),
    "ANSWER": ("hashes `idempotency:...`", ANSWER),
}

FIELDS: dict[str, dict[str, str]] = {
    kind: {name: field.stored for name, field in table.items()}
    for kind, (_, table) in TABLES.items()
}

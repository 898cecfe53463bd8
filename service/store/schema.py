"""The fields of all stored data, each named once; `docs/generate.py` makes a table of them.

A table maps the name that scripts and adapters use to the field's name in Redis and its meaning. A
field of a stream entry has a one-letter name in Redis, because every entry repeats that name.
"""

from typing import NamedTuple


class Field(NamedTuple):
    """A field's name in Redis, and what it holds."""

    stored: str
    about: str


def _table(**fields: str | tuple[str, str]) -> dict[str, Field]:
    return {
        name: Field(name, told) if isinstance(told, str) else Field(*told)
        for name, told in fields.items()
    }


# The hash `state` of a detector. Numbers count vectors unless stated otherwise.
STATE = _table(
    format="of the state: 1",
    uid="of this incarnation: a detector deleted and made again has another",
    created="milliseconds since 1970",
    config="JSON, in full",
    dimension="features of a vector; empty until known",
    context="JSON: what `context: auto` chose at the first training; missing until then",
    revision="changes of the config, and of labels where they set the threshold",
    config_nonce="drawn anew with every change of `revision`",
    champion="number of the version that serves; empty for none",
    champion_sha256="of the champion's artifact; empty for none",
    champion_nonce="drawn anew with every move of the champion pointer",
    generation="moves of the champion pointer",
    changed="milliseconds since 1970 of the last change of champion or config",
    last_version="the last number given to a version",
    learned="by the champion's lineage",
    cursor="id of the last entry of `stream` that was consumed or parked",
    oldest="id of the oldest buffered entry; empty for none",
    buffered="waiting to be learned",
    buffered_bytes="their bytes",
    labelled="id of the last entry of `stream` that a person labelled normal; empty for none",
    parked="of experiences that wait for a person",
    parked_bytes="their bytes",
    quarantined="rows held back",
    quarantined_bytes="their bytes",
    consumed="learned by any version",
    discarded="by a person",
    thinned="known too well to be kept",
    kept_bytes="of learned entries that are not erased yet",
    retraining="`idle`, `queued` or `running`",
    progress="of the running training, 0 to 1",
    seconds_left="of the running training",
    loss_old="of the running training, on old vectors, in nats",
    loss_new="of the running training, on new vectors, in nats",
    requested="number of the last retraining asked for by hand",
    serving="number of the request that the running retraining serves",
    served="number of the last request that is over",
    attempts="failed, of the experience at hand",
    weights="JSON: asked for the next retraining alone",
    requested_trace="trace id of the last such request; empty or missing for none",
    run_weights="JSON: of the running retraining",
    promoted="versions so far",
    rejected="versions so far",
    failed="experiences so far",
    last_retraining="JSON: its outcome",
    incidents_open="incidents that are open and page somebody",
    incidents_opened="incidents so far",
    incidents_closed="incidents so far that are over",
    incident_rule="JSON: what opens an incident, and the rate that it holds",
    decisions="decisions about incidents, and changes of the mute, so far",
    muted_until="milliseconds since 1970; 0 or missing for no mute",
    muted_why="why it is muted",
    muted_by="who muted it",
    messages_sent="to the webhook's receiver",
    messages_dropped="after their time, or for want of room",
)

# Entries of the streams `stream` and `held`: one normal batch, or the held rows of one.
BATCH = _table(
    batch=("b", "id of the batch"),
    vectors=("n", "how many"),
    dimension=("d", "features of each"),
    sender=("s", "id of the API key that sent it; empty for none"),
    payload=("x", "the vectors: little-endian float32, row-major; behind `raw` ones MessagePack"),
    raw=("w", "1 where rows wait for a context: their times and sources lie behind them"),
    judged_by=("v", "version that held them back (`held` alone)"),
    reason=("r", "why (`held` alone)"),
    trace=("t", "trace id of the request that sent it; empty or missing for none"),
)

# Entries of the streams `events`, `labels` and `live`.
ENTRY = _table(packed=("e", "MessagePack: the event, label or summary"))

# Entries of the stream `traffic`.
REPORT = _table(
    packed=("r", "MessagePack: what an API process scored"),
    events=("i", "ids of its events, apart by spaces"),
)

# Entries of the stream `messages`.
MESSAGE = _table(packed=("m", "MessagePack: a message for the webhook's receiver"))

# Entries of the streams `audit`: a chain of hashes.
AUDITED = _table(
    seq=("s", "number, without gaps"),
    before=("p", "hash of the entry before"),
    hash=("h", "SHA-1 of `p` and `e`"),
    entry=("e", "JSON: what was done"),
)

# The hash under an Idempotency-Key of a normal batch.
ANSWER = _table(
    uid="incarnation that it was stored in",
    sha256="of the matrix",
    sender="id of the API key; missing in records of the first release",
    answer="JSON: what was answered",
    buffered="vectors buffered then",
)

# The tables by the place of their fields.
TABLES = {
    "hash `state`": STATE,
    "streams `stream`, `held`": BATCH,
    "streams `events`, `labels`, `live`": ENTRY,
    "streams `audit`": AUDITED,
    "hashes `idempotency:...`": ANSWER,
}

FIELDS: dict[str, dict[str, str]] = {
    kind: {name: field.stored for name, field in table.items()}
    for kind, table in (
        ("STATE", STATE),
        ("BATCH", BATCH),
        ("ENTRY", ENTRY),
        ("REPORT", REPORT),
        ("MESSAGE", MESSAGE),
        ("AUDITED", AUDITED),
        ("ANSWER", ANSWER),
    )
}

"""The scopes of API keys. This file imports little, so that the command line loads it quickly."""

from enum import StrEnum

# The least `max_body_bytes` of a key. The fast lane does not check a key's bound, because it takes
# no body that is larger than this.
LEAST_BODY_BYTES = 2**20


class Scope(StrEnum):
    """One kind of permission of an API key; no scope includes another."""

    SCORE = "score"
    INGEST = "ingest"
    READ = "read"
    LABEL = "label"
    ADMIN = "admin"
    METRICS = "metrics"

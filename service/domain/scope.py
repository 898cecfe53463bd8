"""What an API key may be allowed: names and bounds, apart for the command line to load quickly."""

from enum import StrEnum

# The lane, which does not ask a key how large a body may be, takes none that is larger.
LEAST_BODY_BYTES = 2**20


class Scope(StrEnum):
    """What a key may do; none of them includes another."""

    SCORE = "score"
    INGEST = "ingest"
    READ = "read"
    LABEL = "label"
    ADMIN = "admin"
    METRICS = "metrics"

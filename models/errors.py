"""The errors of the learning library."""


class AnamnesisError(ValueError):
    """The base class of all errors that `models` raises on purpose."""


class ConfigError(AnamnesisError):
    """A configuration value is invalid; the message names the field and the valid choices."""


class VectorError(AnamnesisError):
    """Vectors are invalid: of the wrong shape, not finite, or too few."""


class ArtifactError(AnamnesisError):
    """Bytes are not an intact version: truncated, altered, foreign or of an unknown format."""


class TrainingError(AnamnesisError):
    """A training failed: its loss is not finite, or no model fits the vectors."""

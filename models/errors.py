"""The errors of the learning library: one small tree."""


class AnamnesisError(ValueError):
    """Base of every error that `models` raises on purpose."""


class ConfigError(AnamnesisError):
    """A configuration value that cannot be used; the message names the field and the choices."""


class VectorError(AnamnesisError):
    """Vectors that cannot be used: wrong shape, not finite, too few."""


class ArtifactError(AnamnesisError):
    """Bytes that are not an intact version: truncated, altered, foreign or of another format."""


class TrainingError(AnamnesisError):
    """A training that came to nothing: a loss that is not finite, or vectors nothing fits."""

"""The typed description in an artifact: config, network's shape, lineage.

An artifact may come from anywhere. This module checks, once, every part of its description that
scoring, status, metrics or the next training reads. `models.version.tensor_specs` checks its
tensors.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from models.categories import MOST_SLOTS
from models.columns import MAX_DIMENSION
from models.config import Config
from models.errors import ArtifactError, ConfigError
from models.parts.lineage import WHOLE, Lineage
from models.parts.network import Shape
from models.version.kind import kind_of

_DEEPEST = 32  # the most levels of nesting; a lineage has 6
# The most bytes of a lineage as JSON. A version's record repeats it, and lists have all records.
# A lineage with a hundred regimes has about 60 KB.
_LARGEST_LINEAGE = 2**20


class Description(NamedTuple):
    """The description in an artifact: the config, the network's shape and the lineage."""

    config: Config
    shape: Shape
    lineage: Lineage

    @property
    def regimes(self) -> int:
        """The number of regimes in the lineage."""
        return len(self.lineage.regimes)

    @property
    def categories(self) -> tuple[int, ...]:
        """The number of slots of each category."""
        return self.shape.categories

    @property
    def width(self) -> int:
        """The number of features of a client's vector; a category counts as one."""
        return self.shape.numbers + len(self.categories)


def parse_description(document: Mapping[str, Any]) -> Description:
    """Return an artifact's description as types; raise ArtifactError if it is invalid."""
    _check_json(document)
    try:
        config = msgspec.convert(document.get("config"), Config)
        shape = msgspec.convert(document.get("shape"), Shape)
        lineage = msgspec.convert(document.get("lineage"), Lineage)
    except (msgspec.ValidationError, ConfigError) as error:
        raise ArtifactError(f"artifact: its description: {error}") from None
    description = Description(config, shape, lineage)
    for fault, is_absent in _faults(description):
        if not is_absent:
            raise ArtifactError(f"artifact: its description: {fault}")
    return description


def _check_json(value: Any, depth: int = 0) -> None:
    """Raise ArtifactError for valid JSON that its readers cannot handle."""
    if depth > _DEEPEST:
        raise ArtifactError("artifact: its description is nested too deeply")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ArtifactError("artifact: its description has half of a surrogate pair") from None
    elif isinstance(value, int) and abs(value) > WHOLE:
        raise ArtifactError("artifact: its description has a whole number beyond 2**53")
    elif isinstance(value, Mapping):
        for name, member in value.items():
            _check_json(name, depth + 1)
            _check_json(member, depth + 1)
    elif isinstance(value, list):
        for element in value:
            _check_json(element, depth + 1)


def _faults(description: Description) -> Iterator[tuple[str, bool]]:
    """Yield each possible fault of the parts together, and whether it is absent."""
    config, shape, lineage = description
    yield f"shape.dimension: not 1 to {MAX_DIMENSION}", 1 <= shape.dimension <= MAX_DIMENSION
    yield "shape.noise_floor: not -30 to 30", -30.0 <= shape.noise_floor <= 30.0
    yield "shape.likelihood: unknown", shape.likelihood in {"gaussian", "bernoulli", "identity"}
    yield from kind_of(config.kind).faults(shape)
    yield "shape.categories: invalid numbers of slots", _slots_are_valid(shape)
    yield "config.dimension: not that of the shape", config.width in (None, description.width)
    categories = len(config.categories(description.width)) if config.width else 0
    yield "config.columns: other categories than the shape", categories == len(shape.categories)
    size = len(msgspec.json.encode(lineage))
    yield f"lineage: more than {_LARGEST_LINEAGE} bytes", size <= _LARGEST_LINEAGE
    yield "lineage.learned: fewer than n_new", lineage.learned >= lineage.n_new
    known = lineage.regimes
    numbers = [regime.number for regime in known]
    yield "lineage.regimes: numbers do not rise", numbers == sorted(set(numbers))
    yield "lineage.regimes: sizes sum to 0", not known or sum(regime.size for regime in known) > 0
    largest = max([0, *numbers])
    yield "lineage.last_regime: a regime has a larger number", largest <= lineage.last_regime


def _slots_are_valid(shape: Shape) -> bool:
    counts = shape.categories
    gaussian = not counts or shape.likelihood != "bernoulli"
    return gaussian and all(1 <= count <= MOST_SLOTS for count in counts) and shape.numbers >= 0

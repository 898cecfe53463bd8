"""Rules for rows: rows that are off, and deviations that do not count."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from models import Version
from models.categories import code_of
from models.errors import ConfigError
from models.parts.calibration import Threshold
from service.json_value import JsonObject

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Off:
    """Rows whose `column` has one of these values are not judged, counted or learned."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    column: str
    values: Annotated[
        tuple[bool | float | str, ...], Field(alias="in", min_length=1, max_length=1000)
    ]

    def to_dict(self) -> JsonObject:
        """Return the JSON object of the rule in a config."""
        return {"column": self.column, "in": list(self.values)}


@dataclass(frozen=True, slots=True)
class Ignore:
    """Deviations of `column` from its expected value that do not count.

    With `below: x`, all negative deviations and those from 0 to x do not count. With `above: x`,
    all positive deviations and those from -x to 0 do not count.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    column: str
    above: Annotated[float, Field(ge=0)] | None = None
    below: Annotated[float, Field(ge=0)] | None = None

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ConfigError("ignore: give either `above` or `below`")

    def covers(self, deviation: float) -> bool:
        """Return whether a deviation (value minus expected value) does not count."""
        if self.below is not None:
            return deviation < self.below or deviation == 0
        return -deviation < (self.above or 0.0) or deviation == 0

    def to_dict(self) -> JsonObject:
        """Return the JSON object of the rule in a config."""
        bounds = {"column": self.column, "above": self.above, "below": self.below}
        return {name: value for name, value in bounds.items() if value is not None}


@dataclass(frozen=True, slots=True)
class RowRules:
    """The rules of one detector; empty if it has no rules."""

    off: Off | None = None
    ignore: tuple[Ignore, ...] = ()

    def __bool__(self) -> bool:
        return self.off is not None or bool(self.ignore)

    def check(self, names: Sequence[str], words: Container[str] = ()) -> None:
        """Raise ConfigError unless every rule names a column of the detector and fits its type.

        `words` are the columns that are categories.
        """
        if self.off is not None and self.off.column not in names:
            raise ConfigError("off.column: the detector has no such column")
        if any(rule.column not in names for rule in self.ignore):
            raise ConfigError("ignore.column: the detector has no such column")
        if any(rule.column in words for rule in self.ignore):
            raise ConfigError("ignore.column: a category has no values above or below")
        if self.off is not None:
            worded = {isinstance(value, str) for value in self.off.values}
            if worded != {self.off.column in words}:
                raise ConfigError("off.in: give words for a category, numbers for other columns")

    def to_dict(self) -> JsonObject:
        """Return the rules as a config has them."""
        ignore = [rule.to_dict() for rule in self.ignore] if self.ignore else None
        return {"off": None if self.off is None else self.off.to_dict(), "ignore": ignore}

    def off_rows(self, X: NDArray[np.float32], names: Sequence[str]) -> Mask | None:
        """Return which rows X (n, d) are off, (n,), or None if there is no such rule."""
        if self.off is None:
            return None
        values = np.array(
            [code_of(value) if isinstance(value, str) else value for value in self.off.values],
            np.float32,
        )
        return np.isin(X[:, names.index(self.off.column)], values)

    def ignored(
        self, version: Version, threshold: Threshold, X: NDArray[np.float32], anomalous: Mask
    ) -> Mask:
        """Return which rows of X (n, w) are anomalous only by deviations that do not count.

        Such a row is no longer an anomaly after its ignored columns are set to their expected
        values.
        """
        ignored = np.zeros(len(X), bool)
        rows = np.flatnonzero(anomalous)
        if not self.ignore or not len(rows):
            return ignored
        names = version.config.column_names(version.dimension)
        mended = X[rows].copy()
        changed = np.zeros(len(rows), bool)
        for i, attributions in enumerate(version.explain(X[rows], len(names))):
            for attribution in attributions:
                if isinstance(attribution.value, str) or isinstance(attribution.expected, str):
                    continue
                column, deviation = attribution.feature, attribution.value - attribution.expected
                if self._covers(column, deviation):
                    _shift_column(mended[i], version, names.index(column), -deviation)
                    changed[i] = True
        if changed.any():
            still = version.judge(mended[changed], threshold).is_anomaly
            ignored[rows[changed]] = ~still
        return ignored

    def _covers(self, column: str, deviation: float) -> bool:
        return any(rule.column == column and rule.covers(deviation) for rule in self.ignore)


def _shift_column(x: NDArray[np.float32], version: Version, column: int, by: float) -> None:
    """Add `by` to the features of one row x (w,) that are derived from a column."""
    context = version.config.derived_by
    if context is None:
        x[column] += by
        return
    numbers = version.config.numbers(len(version.config.column_names(version.dimension)))
    for feature, (origin, _) in enumerate(context.origins(numbers)):
        if origin == column:
            x[feature] += by


NO_RULES = RowRules()

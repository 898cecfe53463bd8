"""A version: an immutable, trained model with all parts for scoring, explaining and replay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64, check_vectors
from models.config import Config, Policy
from models.errors import ArtifactError, VectorError
from models.model_config import Replay
from models.parts.calibration import Calibration, Threshold, representable, severities
from models.parts.labels import Labels
from models.parts.lineage import Lineage
from models.parts.mixture import Mixture
from models.parts.network import Network
from models.parts.reference import Reference
from models.parts.regimes import NONE, Boundaries, Regime
from models.parts.scaler import Scaler
from models.scores.by_name import Score, base_score, score_rows
from models.scores.elbo import row_blocks
from models.version import artifact
from models.version.ablation import Explainer, by_owner
from models.version.artifact import PARTS, tensors_under
from models.version.description import Description, parse_description
from models.version.exercise import exercise
from models.version.explanation import CategoryWords, ScoreShares, by_column, largest_contributions
from models.version.imputation import DRAWN, Fill, GapScale, filled_in
from models.version.judgement import Attribution, Judgement, judge_one
from models.version.kind import Kind, kind_of
from models.version.labelled_threshold import by_labels
from models.version.names_and_words import NamesAndWords
from models.version.summary import Summarised
from models.version.tensor_specs import GOLDEN, check_tensors


@dataclass(frozen=True, repr=False)
class Version(NamesAndWords, Summarised):
    """The immutable, trained model that a detector serves; X is (n, d) in the client's units.

    `lineage` says how it was made: parent, strategy, weights, counts, seed, training curve, the
    gate's evidence. `kept` has the real vectors, scaled (m, d), of strategies that keep data.
    `memory` has the other arrays that a strategy needs at the next training, `scoring` the arrays
    that the score needs. `gaps` is the scale of vectors with missing values; None until it is
    computed. `kind` is the version's kind of model, whatever a later config says.
    """

    config: Config
    scaler: Scaler
    network: Network
    latents: Mixture
    calibration: Calibration
    reference: Reference
    kept: Array
    lineage: Lineage
    memory: Mapping[str, Array] = field(default_factory=dict)
    scoring: Mapping[str, Array] = field(default_factory=dict)
    gaps: GapScale | None = None
    kind: str = ""

    def __post_init__(self) -> None:
        """Set the kind from the config with which the version was learned."""
        object.__setattr__(self, "kind", self.kind or self.config.kind)

    @cached_property
    def _kind(self) -> Kind:
        return kind_of(self.kind)

    @property
    def dimension(self) -> int:
        """The number d of features of a vector; a category counts as one."""
        return self.scaler.width

    def _checked(self, X: Any, *, gaps: bool) -> Array:
        names, words = self.config.names and self.features, self.config.words
        return check_vectors(X, self.dimension, gaps=gaps, names=names, words=words)

    @cached_property
    def threshold(self) -> float:
        """The smallest score of an anomaly, by the policy in this version's config."""
        return self._config_threshold.value

    @cached_property
    def _config_threshold(self) -> Threshold:
        return self.threshold_for(self.config.threshold)

    def threshold_for(self, policy: Policy, labels: Labels | None = None) -> Threshold:
        """Return the threshold by another policy; the policy `labels` uses the vectors `labels`."""
        if "labels" in policy:
            return by_labels(self.calibration, policy["labels"], labels, self.score)
        return self.calibration.threshold(policy)

    def score(self, X: NDArray[Any]) -> Float64:
        """Return the anomaly score of each row, (n,) nats: higher is more anomalous.

        With `missing: impute`, NaN marks a missing value (`models.version.imputation`).
        """
        X = self._checked(X, gaps=self._imputes)
        if not self._imputes or not (gaps := np.isnan(X)).any():
            return self._score(X)
        rows = gaps.any(axis=1)
        scores = np.empty(len(X))
        scores[~rows] = self._score(X[~rows])
        filled = self.score_scaled(self._fill(self.scaler.transform(X[rows])))
        scores[rows] = representable(self._gap_scale.as_complete(filled, gaps[rows].sum(axis=1)))
        return scores

    @property
    def _imputes(self) -> bool:
        return self.config.missing == "impute"

    @cached_property
    def _typical_normals(self) -> Array:
        """Generated normals (m, d), scaled."""
        return self.with_faithful_draws().draw(DRAWN, np.random.default_rng(0))

    @cached_property
    def _fill(self) -> Fill:
        return self._kind.fill(self, lambda: self._typical_normals)

    @cached_property
    def _gap_scale(self) -> GapScale:
        return self.gaps or self.gap_scale(self._typical_normals)

    def gap_scale(self, x: Array, missing: NDArray[np.bool_] | None = None) -> GapScale:
        """Compare scores of x (g, d), scaled, with and without gaps; see `GapScale.measure`."""
        scale = GapScale.measure(x, self._fill, self.score_scaled, self.scaler.owners, missing)
        return scale.with_calibration(self.calibration.scores, self.dimension)

    @cached_property
    def _scorer(self) -> Score:
        return self._kind.scorer(self)

    def score_scaled(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        return score_rows(self._scorer, x)

    def _score(self, X: Array) -> Float64:
        blocks = row_blocks(len(X), len(self.scaler.scale))
        scores = [self._scorer(self.scaler.transform(X[rows])) for rows in blocks]
        return scores[0] if len(scores) == 1 else np.concatenate(scores or [np.empty(0)])

    def judge(self, X: NDArray[Any], threshold: Threshold | None = None) -> Judgement:
        """Score X and judge it by `threshold`, or by that of this version's config if None."""
        threshold = threshold or self._config_threshold
        if type(X) is np.ndarray and X.shape == (1, self.dimension) and X.dtype.char == "f":
            alone = judge_one(X[0], self.scaler, self._scorer, self.calibration, threshold)
            if alone is not None:
                return alone
        scores = self.score(X)
        p = self.calibration.p_values(scores)
        return Judgement(scores, p, severities(p, threshold.alpha), scores >= threshold.value)

    def p_values(self, X: NDArray[Any]) -> Float64:
        """Return the conformal p-value of each row, (n,) in [1e-300, 1]."""
        return self.judge(X).p_values

    def severities(self, X: NDArray[Any]) -> Float64:
        """Return log(p) / log(alpha) of each row, (n,): 1 at the threshold, more is rarer."""
        return self.judge(X).severities

    def is_anomaly(self, X: NDArray[Any]) -> NDArray[np.bool_]:
        """Return `score >= threshold` for each row, (n,)."""
        return self.judge(X).is_anomaly

    def explain(
        self, X: NDArray[Any], k: int, read: Callable[[float], str | None] | None = None
    ) -> list[list[Attribution]]:
        """Return at most k contributions of each row, the largest first.

        `read` finds words that this version never learned.
        """
        X = self._checked(X, gaps=self._imputes)
        x, seen = self.scaler.transform(X), ~np.isnan(X)
        x = x if seen.all() else self._fill(x)
        columns, context = self.config.column_names(self.dimension), self.config.derived_by
        numbers, owners = self.config.numbers(len(columns)), self.scaler.owners
        # Features that a context derives from one column are removed together.
        of_column = np.arange(seen.shape[1]) if context is None else context.owners(numbers)
        explain = Explainer(self._scorer, self._fill, self._typical_normals, of_column[owners])
        contributions, expected = explain(x, by_owner(seen, of_column, "max"))
        score_shares = ScoreShares(X, contributions, self.scaler.inverse(expected))
        if context is not None:
            distances = by_owner(np.abs(x - expected), owners, "max")
            score_shares = by_column(context, numbers, score_shares, distances)
        return largest_contributions(score_shares, columns, k, CategoryWords(self.words, read))

    def filled(self, X: NDArray[Any]) -> Array:
        """Return X (n, d) with each NaN replaced by the value that this version expects."""
        return filled_in(self._checked(X, gaps=True), self.scaler, self._fill)

    def classify(self, X: NDArray[Any]) -> NDArray[np.int64]:
        """Return the label of each row's class, (n,); VectorError if no labels were learned."""
        labels = np.asarray(self.memory.get(self._kind.labels, ()), np.int64)
        if not len(labels) or labels.min() < 0:
            raise VectorError("labels: this version learned none, or not all of them")
        x = self.scaler.transform(self._checked(X, gaps=False))
        return self._kind.classify(self, x, labels)

    @cached_property
    def boundaries(self) -> Boundaries | None:
        """The boundaries between the regimes; None for a version that knows no regimes."""
        return Boundaries.from_tensors(self.memory)

    @cached_property
    def regimes(self) -> tuple[Regime, ...]:
        """The learned modes of normal behaviour, ordered by number; see `parts.regimes`."""
        if self.boundaries is None:
            return ()
        typical = self.scaler.inverse(self.network.decode(self.boundaries.typical))
        return Regime.from_lineage(self.lineage.regimes, typical)

    def regime_of(self, X: NDArray[Any]) -> NDArray[np.int64]:
        """Return the number of each row's regime, (n,); 0 for an anomaly."""
        X = self._checked(X, gaps=False)
        return np.where(self.is_anomaly(X), NONE, self.nearest_regime(X))

    def nearest_regime(self, X: Array) -> NDArray[np.int64]:
        """Return the number of the regime nearest to each row, (n,), for anomalies too."""
        if self.boundaries is None:
            return np.full(len(X), NONE)
        numbers = np.array([regime.number for regime in self.lineage.regimes], np.int64)
        return numbers[self.boundaries.nearest(self.network, self.scaler.transform(X))]

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n vectors (n, d), scaled, from the generator as `config.replay` says."""
        z = self._kind.codes(self).sample(n, rng)
        sample = self.config.replay.decode == "sample"
        drawn = self.network.sample(z, rng) if sample else self.network.decode(z)
        return self.scaler.valid(drawn)

    def sample(self, n: int, seed: int) -> Array:
        """Draw n vectors (n, d) in the client's units that resemble the learned normals."""
        return self.in_client_units(self.draw(n, np.random.default_rng(seed)))

    def in_client_units(self, x: Array) -> Array:
        """Return drawn scaled vectors x (n, d) in the client's units."""
        X = self.reference.with_constants(self.scaler.inverse(x))
        flags = list(self.config.flags(self.dimension))
        X[:, flags] = X[:, flags] > 0.5  # a flag is 0 or 1
        return X

    def with_config(self, config: Config) -> Self:
        """Return this version with another config, which `sample` and `score` then use."""
        scoring = self.scoring
        if base_score(config.score) != base_score(self.config.score):
            scoring = self._kind.prepare(self, config.score)
        gaps = self.gaps if config.score == self.config.score else None
        return replace(self, config=config, scoring=scoring, gaps=gaps)

    def with_lineage(self, **fields: Any) -> Self:
        """Return this version with these fields of its lineage replaced."""
        return replace(self, lineage=msgspec.structs.replace(self.lineage, **fields))

    def with_faithful_draws(self) -> Self:
        """Return this version that draws as faithfully as it can, whatever its config says."""
        return self.with_config(replace(self.config, replay=Replay()))

    def to_bytes(self) -> bytes:
        """Return the artifact (safetensors); equal versions give equal bytes."""
        return self._artifact[0]

    @property
    def sha256(self) -> str:
        """The artifact's sha256 in lower-case hexadecimal, by which the version is addressed."""
        return self._artifact[1]

    @cached_property
    def _artifact(self) -> tuple[bytes, str]:
        tensors = {
            **{f"network.{name}": tensor for name, tensor in self.network.tensors.items()},
            **{name: attrgetter(name)(self) for name in PARTS},
            **self.scaler.extension_tensors(),
            "kept": self.kept,
            **{f"memory.{name}": tensor for name, tensor in self.memory.items()},
            **{f"scoring.{name}": tensor for name, tensor in self.scoring.items()},
            **(self.gaps.to_tensors() if self.gaps else {}),
            "golden.vectors": (golden := self.sample(GOLDEN, seed=0)),
            "golden.scores": self.score(golden),
        }
        description = {
            "config": self.config.to_dict(),
            "shape": self.network.shape.to_dict(),
            "lineage": self.lineage.to_dict(),
        }
        data = artifact.encode(tensors, description)
        return data, artifact.digest(data)

    @classmethod
    def from_bytes(
        cls, data: bytes, max_bytes: int = artifact.MAX_BYTES, *, verified: bool = False
    ) -> Self:
        """Read and verify a version that `to_bytes` wrote.

        Raises ArtifactError in three cases: size, format, checksum, description or tensors are
        invalid; the golden vectors score differently here than where the version was trained; or a
        call of the version gives a result that is not finite. Set `verified` only for bytes that
        this process has verified before: then the version is built without these checks.
        """
        tensors, document = artifact.decode(data, max_bytes, verified=verified)
        try:
            description = parse_description(document)
            if verified:
                return cls._build(tensors, description)
            check_tensors(description, tensors)
            version = cls._build(tensors, description)
            with np.errstate(all="ignore"):
                scores = version.score(tensors["golden.vectors"])
                exercise(version, tensors["golden.vectors"])
        except (ArtifactError, MemoryError):
            raise
        # The values may be anything, so every other error from using them is the artifact's fault.
        except Exception as error:
            raise ArtifactError(f"artifact: it cannot be used: {error!r}") from error
        if not np.allclose(scores, tensors["golden.scores"], rtol=1e-4, atol=1e-3):
            raise ArtifactError("artifact: its golden vectors score differently here")
        return version

    @classmethod
    def _build(cls, tensors: artifact.Tensors, description: Description) -> Self:
        kind = kind_of(description.config.kind)
        network = {name: tensors[f"network.{name}"] for name in description.shape.tensors()}
        return cls(
            config=description.config,
            scaler=Scaler.from_tensors(tensors, description.categories),
            network=kind.network(description.shape, network),
            latents=kind.mixture(**tensors_under("latents.", tensors)),
            calibration=Calibration(tensors["calibration.scores"]),
            reference=Reference.from_tensors(tensors),
            kept=tensors["kept"],
            lineage=description.lineage,
            memory=tensors_under("memory.", tensors),
            scoring=tensors_under("scoring.", tensors),
            gaps=GapScale.from_tensors(tensors),
        )

    def save(self, path: str | Path) -> None:
        """Write the artifact to `path`."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and verify the artifact at `path`; it raises the same errors as `from_bytes`."""
        return cls.from_bytes(Path(path).read_bytes())

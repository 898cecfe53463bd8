"""Learns an experience: `train(previous, new, config)`, and `learn`, the same step by step.

Each experience is learned by generative replay. First `generator = copy(previous)`, and the weights
w_prev and w_new are chosen. Each gradient step of every epoch uses n_prev vectors newly drawn from
the generator and n_new of the new vectors. Then the version is calibrated, and the gate's evidence
is measured.
"""

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, check_vectors
from models.columns import MOST_VALUES, table_names, table_words
from models.config import MIN_VECTORS, Config, check_weights
from models.errors import VectorError
from models.parts.reference import WINDOW
from models.progress import finish
from models.training import labelled_rows
from models.training.gaps import filled, with_gaps_compared
from models.training.learner import Learn, Progress
from models.training.prepared import Features, prepare
from models.version.kind import learner_of
from models.version.version import Version


def train(
    previous: Version | None,
    new: NDArray[Any],
    config: Config | None = None,
    weights: str | Mapping[str, float] | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
    vouched: NDArray[np.bool_] | None = None,
) -> Version:
    """Learn the normals `new` (n, d) on top of `previous`, and return the new version.

    `weights` replaces the config's weights in this training. `labels` (n,), whole numbers, are the
    classes of `new` for `Version.classify`. `vouched` (n,) marks rows that a person labelled
    normal: they have a weight of their own, and on top of a version one such row is enough for a
    training. Raises VectorError for vectors that cannot be learned, and TrainingError if the
    training fails. The same seed, vectors and parent give the same version, bit for bit, on one
    machine with the same number of threads.

    >>> import numpy as np
    >>> ring = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    >>> v1 = train(None, ring)
    >>> bool(v1.score([[9.0, 9.0]])[0] > v1.threshold)
    True
    """
    return finish(learn(previous, new, config, weights, labels, vouched))


def learn(
    previous: Version | None,
    new: NDArray[Any],
    config: Config | None = None,
    weights: str | Mapping[str, float] | None = None,
    labels: NDArray[np.integer[Any]] | None = None,
    vouched: NDArray[np.bool_] | None = None,
) -> Generator[Progress, None, Version]:
    """Learn like `train`, but yield after every step; closing the generator stops the training."""
    config = config or Config()
    config = replace(config, context=config.derived_by)
    config = _with_words(_with_names(config, new, previous), new, previous)
    few = previous is not None and labels is None and bool(np.any(vouched))
    new = _checked_normals(new, previous.dimension if previous else config.width, config, few=few)
    if weights is not None:
        check_weights(weights)
    categories = config.categories(new.shape[1])
    missing = np.isnan(new)
    new = filled(new, previous, categories)
    config = replace(config, dimension=config.columns_in(new.shape[1]))
    features = Features(config.feature_names(new.shape[1]), categories)
    classes = _checked_labels(labels, len(new))
    given = labelled_rows.with_drawn_rows(
        prepare(previous, new, classes, vouched, features), config.seed
    )
    learn_kind: Learn = learner_of(config.kind)
    version = yield from learn_kind(given, config, weights)
    if len(given.new) >= WINDOW:  # enough rows to show how far scores wander over time
        reference = version.reference.with_scores(version.p_values(given.new))
        version = replace(version, reference=reference)
    if config.missing == "impute":
        version = with_gaps_compared(version, previous, new, missing)
    return given.recorded(version, previous)


def _with_names(config: Config, new: Any, previous: Version | None) -> Config:
    """Return `config` with names: its own, the previous version's, or those of a first table."""
    if config.names is not None or config.derived_by is not None:
        return config
    if previous is not None and previous.config.names is not None:
        return replace(config, columns=previous.config.columns, features=previous.config.features)
    return replace(config, features=table_names(new)) if previous is None else config


def _with_words(config: Config, new: Any, previous: Version | None) -> Config:
    """Return `config` with the words of its categories: the known ones, and those in `new`."""
    if not config.words:
        return config
    earlier = previous.config.columns if previous is not None else None
    before = {column.name: column.values or () for column in earlier or ()}
    table = table_names(new) or ()
    columns = []
    for column in config.columns or ():
        if column.type == "category":
            words = dict.fromkeys((*before.get(column.name, ()), *(column.values or ())))
            if column.name in table:
                words |= dict.fromkeys(w for w in table_words(new[column.name], column.name) if w)
            column = replace(column, values=tuple(words)[:MOST_VALUES] or None)  # noqa: PLW2901
        columns.append(column)
    return replace(config, columns=tuple(columns))


def _checked_normals(
    new: NDArray[Any], dimension: int | None, config: Config, *, few: bool
) -> Array:
    """Return the normals as float32 (n, d); raise VectorError if they cannot be learned.

    If `few` is true, fewer than MIN_VECTORS are enough.
    """
    names = config.names if config.derived_by is None else None
    gaps, words = config.missing == "impute", config.words
    new = check_vectors(new, dimension, gaps=gaps, names=names, words=words)
    if len(new) < MIN_VECTORS and not few:
        raise VectorError(f"vectors: {len(new)} normals; a training needs {MIN_VECTORS}")
    return new


def _checked_labels(labels: NDArray[Any] | None, n: int) -> NDArray[np.int64] | None:
    """Return the class labels of n rows; raise VectorError unless they are whole numbers from 0."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise VectorError(f"labels: not {n} whole numbers from 0")
    return labels.astype(np.int64)

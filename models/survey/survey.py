"""The regimes of a training: which occurred, which are new, how much of each was forgotten.

Old regimes are recognised without their data. The previous version assigns a regime to every vector
that it generates, so a regime keeps its number as long as it is replayed. New vectors are split
into the modes of their codes. A mode is a new regime in two cases: at least the share UNKNOWN of
its vectors is rare to the previous version; or at least the share UNUSUAL is, and a valley
separates the mode from all known regimes. The vectors of any other mode belong to the regimes that
the previous version finds nearest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.lineage import Advice, Ask, ComparedAlarms, KnownRegime, Typical
from models.parts.regimes import Boundaries
from models.survey.learning_curves import allocate, learning_curve
from models.survey.modes import modes, separated
from models.version.version import Version

MOST = 32  # the most regimes; vectors of later modes join the nearest regime
RARE = 0.01  # a vector is rare up to this p-value, whatever the configured threshold
UNKNOWN = 0.25  # a mode is new if at least this share of it is rare to the previous version
UNUSUAL = 0.02  # this share is enough if a valley separates the mode from all known regimes
LOOKED_AT = 4_000  # the most new vectors used
DRAWN = 2_000  # vectors drawn from the version, of which the typical vectors are chosen
BUDGET = 1_000  # the number of further vectors that the advice distributes
NAMED = 5  # the features named of a typical vector
PRESENT = 0.01  # a regime is in an experience if it has at least this share of its vectors

Numbers = NDArray[np.int64]  # of regimes
_NO_NUMBERS: Numbers = np.empty(0, np.int64)


class Survey(NamedTuple):
    """The result of a survey.

    `tensors` are the boundaries between the regimes, as a version's memory stores them. `regimes`
    and `advice` (how to distribute the next `BUDGET` vectors) are parts of its lineage. `last` is
    the last regime number ever used.
    """

    tensors: dict[str, Array]
    regimes: tuple[KnownRegime, ...]
    advice: Advice
    last: int

    def recorded(self, version: Version) -> Version:
        """Return the version with these regimes in its lineage and its memory."""
        version = version.with_lineage(
            regimes=self.regimes, advice=self.advice, last_regime=self.last
        )
        return replace(version, memory={**version.memory, **self.tensors})


class VersionRegimes(NamedTuple):
    """The regimes of a version: their numbers, their boundaries, and the regime of each vector.

    `known` are the regimes of the previous version, by number. `x` (n, d) are new vectors, scaled.
    `old` (m, d) were drawn from the previous version, in the client's units. `regime_of_x` (n,) and
    `regime_of_old` (m,) are the numbers of their regimes.
    """

    numbers: Numbers
    boundaries: Boundaries
    known: Mapping[int, KnownRegime]
    x: Array
    regime_of_x: Numbers
    old: Array
    regime_of_old: Numbers


def survey(version: Version, previous: Version | None, new: Array, old: Array) -> Survey:
    """Survey the regimes that `version` knows.

    `version` was trained on `new` (n, d) on top of `previous`; `old` (m, d) was drawn from the
    previous version's generator. Both are in the client's units.
    """
    seed = version.lineage.seed
    rng = np.random.default_rng([seed, 9])
    new = new[rng.permutation(len(new))[:LOOKED_AT]]
    x_old, x_new = version.scaler.transform(old), version.scaler.transform(new)
    codes_old, codes_new = (version.network.encode(x)[0] for x in (x_old, x_new))
    mode_of_new = modes(codes_new, seed)
    before, regime_of_new = _PreviousNumbers({}, _NO_NUMBERS, _NO_NUMBERS), 1 + mode_of_new
    if previous:
        before = _previous_numbers(version, previous, old, new)
        separate = _separate_modes(mode_of_new, codes_new, before.old, codes_old)
        regime_of_new = _numbers_of_new(mode_of_new, previous, new, separate, before)
    x = np.concatenate([x_old, x_new])
    numbers, index = np.unique(np.concatenate([before.old, regime_of_new]), return_inverse=True)
    boundaries = Boundaries.fit(version.network, x, index, version.draw(DRAWN, rng))
    assignment = VersionRegimes(
        numbers, boundaries, before.known, x_new, regime_of_new, old, before.old
    )
    return survey_regimes(version, previous, assignment, rng)


def survey_regimes(
    version: Version, previous: Version | None, assignment: VersionRegimes, rng: np.random.Generator
) -> Survey:
    """Return the survey of the regimes in `assignment`, which `version` knows."""
    changes = _changes(version, previous, assignment.old, assignment.regime_of_old)
    n, typicals = version.lineage.n_new, _typical(version, assignment.boundaries)
    regimes = []
    for number, typical in zip(assignment.numbers.tolist(), typicals, strict=True):
        before = assignment.known.get(number)
        rows = assignment.regime_of_x == number
        count = int(rows.sum())
        present = count >= PRESENT * len(rows)
        curve = learning_curve(assignment.x[rows], version.network.shape.latent, rng)
        change = changes.get(number)
        regimes.append(
            KnownRegime(
                number=number,
                size=(before.size if before else 0) + round(count * n / len(rows)),
                seen=before.seen if before and not present else version.lineage.experiences,
                typical=typical,
                curve=curve or (before.curve if before else None),
                **(change._asdict() if change else {}),
            )
        )
    last = max(_last_number(previous), *assignment.numbers.tolist())
    return Survey(assignment.boundaries.to_tensors(), tuple(regimes), advice(regimes), last)


def _last_number(previous: Version | None) -> int:
    return previous.lineage.last_regime if previous else 0


def advice(regimes: Sequence[KnownRegime]) -> Advice:
    """Return how to distribute BUDGET further vectors, and each regime's gain in nats."""
    known = [(regime, regime.curve) for regime in regimes if regime.curve]
    more = allocate([curve for _, curve in known], [regime.size for regime, _ in known], BUDGET)
    send = [
        Ask(regime=regime.number, vectors=n, gain=round(curve.gain(regime.size, n), 4))
        for (regime, curve), n in zip(known, more, strict=True)
        if n
    ]
    return Advice(
        budget=BUDGET,
        send=tuple(sorted(send, key=lambda ask: -ask.vectors)),
        too_few_to_tell=tuple(regime.number for regime in regimes if not regime.curve),
    )


def _typical(version: Version, boundaries: Boundaries) -> list[tuple[Typical, ...]]:
    """Return for each regime the features by which its typical vector stands out, with values."""
    decoded = version.network.decode(boundaries.typical)
    values = version.scaler.inverse(decoded)
    numbers = np.setdiff1d(
        np.arange(version.dimension), version.config.categories(version.dimension)
    )
    distances = np.abs(decoded - decoded.mean(axis=0))[:, : len(numbers)]  # numbers come first
    columns = np.argsort(-distances, axis=1, kind="stable")[:, :NAMED]
    return [
        tuple(
            Typical(feature=version.features[j], value=float(row[j]))
            for j in numbers[chosen].tolist()
        )
        for row, chosen in zip(values, columns, strict=True)
    ]


def regimes_of_sizes(version: Version, sizes: Sequence[float]) -> dict[int, KnownRegime]:
    """Return regimes of these sizes by number, for a version whose lineage has no regimes."""
    seen = version.lineage.experiences
    return {
        number: KnownRegime(number=number, size=round(size), seen=seen, curve=None, typical=())
        for number, size in enumerate(sizes, 1)
    }


class _PreviousNumbers(NamedTuple):
    """The previous version's regimes by number, and the number of each old and new vector."""

    known: Mapping[int, KnownRegime]
    old: Numbers
    new: Numbers


def _previous_numbers(
    version: Version, previous: Version, old: Array, new: Array
) -> _PreviousNumbers:
    """Return the numbers of old (m, d) and new (n, d) vectors under the previous version."""
    if previous.boundaries is not None:
        known = {regime.number: regime for regime in previous.lineage.regimes}
        return _PreviousNumbers(known, previous.nearest_regime(old), previous.nearest_regime(new))
    # A version of an early release knows no regimes: find them in vectors that it draws.
    network, scaler = version.network, version.scaler
    x_old = scaler.transform(old)
    mode = modes(network.encode(x_old)[0], version.lineage.seed)
    near = Boundaries.fit(network, x_old, mode, x_old).nearest(network, scaler.transform(new))
    sizes = previous.lineage.learned * np.bincount(mode) / len(mode)
    return _PreviousNumbers(regimes_of_sizes(previous, sizes.tolist()), 1 + mode, 1 + near)


def _separate_modes(
    mode_of_new: NDArray[np.int64], codes_new: Array, regime_of_old: Numbers, codes_old: Array
) -> NDArray[np.bool_]:
    """Return the mask of the modes that valleys separate from all known regimes.

    `mode_of_new` (n,) are the modes of codes_new (n, k), and `regime_of_old` (m,) the regimes of
    codes_old (m, k).
    """
    numbers, index = np.unique(regime_of_old, return_inverse=True)
    known = len(numbers)
    codes, groups = [codes_old, codes_new], [index, known + mode_of_new]
    valleys = separated(np.concatenate(codes), np.concatenate(groups))
    return np.logical_and.reduce(valleys[known:, :known], axis=1)


def _numbers_of_new(
    mode_of_new: NDArray[np.int64],
    previous: Version,
    new: Array,
    separate: NDArray[np.bool_],
    before: _PreviousNumbers,
) -> Numbers:
    """Return the regime number of each new vector, (n,); `mode_of_new` (n,) are their modes.

    A mode that a valley separates is not always new. If rare rows are no more frequent in it than
    in normals, the mode is known: a day with little load, for example.
    """
    rare, numbers = previous.judge(new).p_values <= RARE, before.new.copy()
    last, added = max(_last_number(previous), *before.known), 0
    for mode in range(mode_of_new.max() + 1):
        rows = mode_of_new == mode
        bound = UNUSUAL if separate[mode] else UNKNOWN
        if rare[rows].mean() >= bound and len(before.known) + added < MOST:
            added += 1
            numbers[rows] = last + added
    return numbers


class _Change(NamedTuple):
    """How two versions judge the replayed vectors of a regime; the fields are of `KnownRegime`."""

    replayed: int
    alarms: ComparedAlarms
    score_change: float


def _changes(
    version: Version, previous: Version | None, old: Array, regime_of_old: Numbers
) -> dict[int, _Change]:
    """Return how the two versions judge the vectors that the previous one drew of each regime.

    Each uses its own threshold, under the new version's config.
    """
    if previous is None:
        return {}
    before = previous.with_config(version.config).judge(old)
    after = version.judge(old)
    return {
        number: _Change(
            int(rows.sum()),
            ComparedAlarms(
                champion=float(before.is_anomaly[rows].mean()),
                candidate=float(after.is_anomaly[rows].mean()),
            ),
            float((after.scores - before.scores)[rows].mean()),
        )
        for number in np.unique(regime_of_old).tolist()
        for rows in [regime_of_old == number]
    }

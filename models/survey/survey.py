"""The regimes of a training: which occurred, which are new, how much of each was forgotten.

Old regimes are recognised without their data. The previous version assigns a regime to every vector
that it generates, so a regime keeps its number as long as it is replayed. New vectors are split
into the modes of their codes. A mode is a new regime in two cases: the previous version finds most
of it rare; or it finds more of it rare than of normals, and a valley separates the mode from all
known regimes. The vectors of any other mode belong to the regimes that the previous version finds
nearest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.lineage import Advice, Ask, Both, KnownRegime, LearningCurve, Typical
from models.parts.regimes import Boundaries
from models.survey.learning_curves import Curve, acquire, measure
from models.survey.modes import modes, parted
from models.version.version import Version

MOST = 32  # the most regimes; vectors of later modes join the nearest regime
RARE = 0.01  # a vector is rare up to this p-value, whatever the configured threshold
UNKNOWN = 0.25  # a mode is new if at least this share of it is rare to the previous version
UNUSUAL = 0.02  # the same for a mode that a valley separates from all known regimes
LOOKED_AT = 4_000  # the most new vectors used
DRAWN = 2_000  # vectors drawn from the version, of which the typical vectors are chosen
BUDGET = 1_000  # the number of further vectors that the advice distributes
TOLD = 5  # the features named of a typical vector
PRESENT = 0.01  # a regime is in an experience if it has at least this share of its vectors

Labels = NDArray[np.int64]
_NO_LABELS: Labels = np.empty(0, np.int64)


class Survey(NamedTuple):
    """The tensors that find regimes, for a version's memory, and the parts of its lineage.

    Those parts are the regimes, the advice how to distribute the next `BUDGET` vectors, and the
    last regime number ever used.
    """

    tensors: dict[str, Array]
    regimes: tuple[KnownRegime, ...]
    advice: Advice
    last: int


class PreviousRegime(NamedTuple):
    """The previous version's knowledge of a regime."""

    size: int
    seen: int
    curve: LearningCurve | None = None

    @classmethod
    def of(cls, version: Version) -> "dict[int, PreviousRegime]":
        """Return the version's regimes by number, from its lineage."""
        known = version.lineage.regimes
        return {one.number: cls(one.size, one.seen, one.curve) for one in known}


class VersionRegimes(NamedTuple):
    """The regimes of a version: where they lie, and which vector belongs to which regime.

    `known` is the previous version's knowledge of its regimes, by number. `x` (n, d) are new
    vectors, scaled. `old` (m, d) were drawn from the previous version, in the client's units.
    `of_x` (n,) and `of_old` (m,) are the numbers of their regimes.
    """

    numbers: Labels
    boundaries: Boundaries
    known: Mapping[int, PreviousRegime]
    x: Array
    of_x: Labels
    old: Array
    of_old: Labels


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
    groups = modes(codes_new, seed)
    before, labels_new = _Before({}, _NO_LABELS, _NO_LABELS), 1 + groups
    if previous:
        before = _before(version, previous, old, new)
        apart = _apart(groups, codes_new, before.old, codes_old)
        labels_new = _named(groups, previous, new, apart, before)
    labels_old = before.old
    x = np.concatenate([x_old, x_new])
    numbers, of = np.unique(np.concatenate([labels_old, labels_new]), return_inverse=True)
    boundaries = Boundaries.fit(version.network, x, of, version.draw(DRAWN, rng))
    met = VersionRegimes(numbers, boundaries, before.known, x_new, labels_new, old, labels_old)
    return survey_of(version, previous, met, rng)


def survey_of(
    version: Version, previous: Version | None, met: VersionRegimes, rng: np.random.Generator
) -> Survey:
    """Return the tensors and the parts of the lineage for the regimes that `version` met."""
    forgotten = _forgetting(version, previous, met.old, met.of_old)
    n, typicals = version.lineage.n_new, _typical(version, met.boundaries)
    regimes = []
    for number, typical in zip(met.numbers.tolist(), typicals, strict=True):
        past = met.known.get(number)
        mine = met.of_x == number
        count = int(mine.sum())
        present = count >= PRESENT * len(mine)
        curve = measure(met.x[mine], version.network.shape.latent, rng)
        change = forgotten.get(number)
        regimes.append(
            KnownRegime(
                number=number,
                size=(past.size if past else 0) + round(count * n / len(mine)),
                seen=past.seen if past and not present else version.lineage.experiences,
                typical=typical,
                curve=LearningCurve(**curve._asdict()) if curve else past and past.curve,
                replayed=change and change.replayed,
                alarms=change and change.alarms,
                score_change=change and change.score_change,
            )
        )
    last = max(_last(previous), *met.numbers.tolist())
    return Survey(met.boundaries.to_tensors(), tuple(regimes), advice(regimes), last)


def _last(previous: Version | None) -> int:
    return previous.lineage.last_regime if previous else 0


def advice(regimes: Sequence[KnownRegime]) -> Advice:
    """Return how to distribute BUDGET further vectors, and each regime's gain in nats."""
    known = [(one, Curve(**one.curve.to_dict())) for one in regimes if one.curve]
    more = acquire([curve for _, curve in known], [one.size for one, _ in known], BUDGET)
    send = [
        Ask(regime=one.number, vectors=n, gain=round(curve.gain(one.size, n), 4))
        for (one, curve), n in zip(known, more, strict=True)
        if n
    ]
    return Advice(
        budget=BUDGET,
        send=tuple(sorted(send, key=lambda one: -one.vectors)),
        too_few_to_tell=tuple(one.number for one in regimes if not one.curve),
    )


def _typical(version: Version, boundaries: Boundaries) -> list[tuple[Typical, ...]]:
    """Return for each regime the features by which its typical vector stands out, with values."""
    decoded = version.network.decode(boundaries.typical)
    values = version.scaler.inverse(decoded)
    numbers = np.setdiff1d(
        np.arange(version.dimension), version.config.categories(version.dimension)
    )
    apart = np.abs(decoded - decoded.mean(axis=0))[:, : len(numbers)]  # the numbers come first
    columns = np.argsort(-apart, axis=1, kind="stable")[:, :TOLD]
    return [
        tuple(
            Typical(feature=version.features[j], value=float(row[j]))
            for j in numbers[chosen].tolist()
        )
        for row, chosen in zip(values, columns, strict=True)
    ]


class _Before(NamedTuple):
    """The previous version's regimes by number, and the number of each old and new vector."""

    known: Mapping[int, PreviousRegime]
    old: Labels
    new: Labels


def _before(version: Version, previous: Version, old: Array, new: Array) -> _Before:
    if previous.boundaries is not None:
        return _Before(
            PreviousRegime.of(previous), previous.nearest_regime(old), previous.nearest_regime(new)
        )
    # The previous version's kind or release knows no regimes: find them in vectors that it draws.
    network, scaler = version.network, version.scaler
    x_old = scaler.transform(old)
    of = modes(network.encode(x_old)[0], version.lineage.seed)
    near = Boundaries.fit(network, x_old, of, x_old).nearest(network, scaler.transform(new))
    learned, seen = previous.lineage.learned, previous.lineage.experiences
    sizes = (learned * np.bincount(of) / len(of)).round().astype(int).tolist()
    return _Before(
        {r: PreviousRegime(size, seen) for r, size in enumerate(sizes, 1)}, 1 + of, 1 + near
    )


def _apart(groups: Labels, codes: Array, old: Labels, codes_old: Array) -> NDArray[np.bool_]:
    """Return which of the modes `groups` (n,) a valley separates from all regimes of `old` (m,)."""
    numbers, of_old = np.unique(old, return_inverse=True)
    known = len(numbers)
    found = parted(np.concatenate([codes_old, codes]), np.concatenate([of_old, known + groups]))
    apart: NDArray[np.bool_] = np.logical_and.reduce(found[known:, :known], axis=1)
    return apart


def _named(
    groups: Labels, previous: Version, new: Array, apart: NDArray[np.bool_], before: _Before
) -> Labels:
    """Return the regime number of each new vector, (n,); `groups` (n,) are their modes.

    A separate mode is new only if it is rare more often than normals are: a quiet day is no new
    regime.
    """
    rare, labels = previous.judge(new).p_values <= RARE, before.new.copy()
    last, born = max(_last(previous), *before.known), 0
    for group in range(groups.max() + 1):
        mine = groups == group
        if (
            rare[mine].mean() >= (UNUSUAL if apart[group] else UNKNOWN)
            and len(before.known) + born < MOST
        ):
            born += 1
            labels[mine] = last + born
    return labels


class _Change(NamedTuple):
    """How two versions judge the replayed vectors of a regime."""

    replayed: int
    alarms: Both
    score_change: float


def _forgetting(
    version: Version, previous: Version | None, old: Array, labels: Labels
) -> dict[int, _Change]:
    """Return how the two versions judge the vectors that the previous one drew of each regime.

    Each uses its own threshold, under the new version's config.
    """
    if previous is None:
        return {}
    was = previous.with_config(version.config).judge(old)
    now = version.judge(old)
    return {
        number: _Change(
            int(mine.sum()),
            Both(
                champion=float(was.is_anomaly[mine].mean()),
                candidate=float(now.is_anomaly[mine].mean()),
            ),
            float((now.scores - was.scores)[mine].mean()),
        )
        for number in np.unique(labels).tolist()
        for mine in [labels == number]
    }

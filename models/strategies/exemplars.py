"""Chooses a bounded number of real vectors to keep, for the strategies that keep some."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.mixture import Mixture
from models.parts.network import Network

RHO = 0.5  # with 1, partitions have the stream's shares; with 0, all partitions are equal


@dataclass(frozen=True, slots=True)
class Candidates:
    """The vectors that may be kept: `old`, kept so far, (m, d) and `new` (n, d), scaled.

    `network` and `latents` are the new version's; the modes of `latents` are the regimes.
    `generated` (g, d) represents the `learned` old vectors. `rng` is the only source of randomness.
    """

    old: Array
    new: Array
    generated: Array
    learned: int
    network: Network
    latents: Mixture
    rng: np.random.Generator

    def regimes(self, x: Array) -> NDArray[np.int64]:
        """Return the regime of each row of x (n, d), (n,)."""
        return self.latents.assign(self.network.encode(x)[0])


Choice = Callable[[Candidates], Array]


def keep_all(candidates: Candidates) -> Array:
    """Keep all vectors."""
    return np.concatenate([candidates.old, candidates.new])


def keep_newest(candidates: Candidates, size: int) -> Array:
    """Keep the newest `size` vectors."""
    return keep_all(candidates)[-size:]


def keep_by_reservoir(candidates: Candidates, size: int) -> Array:
    """Keep `size` vectors, balanced over regimes, by partitioning reservoir sampling.

    Kim, Jeong & Kim, Imbalanced continual learning with partitioning reservoir sampling, 2020. With
    n_k vectors of partition k seen so far and l_k of them kept, the targets p_k change with every
    arrival:

        p_k = n_k^rho / sum_j n_j^rho
        P(an arrival of partition k gets in) = min(1, p_k size / n_k)
        P(one of partition k goes out)       = softmax_k(l_k - p_k sum_j l_j)

    The evicted vector is a random one of its partition. Partitions are the regimes: modes of the
    new version's codes. For the past, n_k is estimated from vectors that the previous version
    generates.
    """
    modes = len(candidates.latents.weights)
    kept = list(range(len(candidates.old)))
    both = keep_all(candidates)
    regimes = candidates.regimes(both)
    seen = np.zeros(modes)
    if candidates.learned and len(candidates.generated):
        past = np.bincount(candidates.regimes(candidates.generated), minlength=modes)
        seen = past / past.sum() * candidates.learned
    counts = np.bincount(regimes[kept], minlength=modes).astype(float)
    rng = candidates.rng
    for arrival in len(candidates.old) + rng.permutation(len(candidates.new)):
        k = regimes[arrival]
        seen[k] += 1
        target = seen**RHO / (seen**RHO).sum()
        if len(kept) >= size:
            if rng.random() >= target[k] * size / seen[k]:
                continue
            counts[k] += 1
            out = rng.choice(modes, p=_eviction_chances(counts, target))
            members = [i for i, row in enumerate(kept) if regimes[row] == out]
            counts[out] -= 1
            if not members:  # the arrival was the only vector of its partition
                continue
            kept[members[rng.integers(len(members))]] = int(arrival)
        else:
            kept.append(int(arrival))
            counts[k] += 1
    return both[sorted(kept)]


def _eviction_chances(
    counts: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the chance (K,) that each partition loses a vector; crowded ones lose more often."""
    crowding = counts - target * counts.sum()
    weights = np.where(counts > 0, np.exp(crowding - crowding[counts > 0].max()), 0.0)
    return weights / weights.sum()


def keep_by_herding(candidates: Candidates, size: int) -> Array:
    """Keep `size` vectors, in equal quotas for each regime, by herding.

    Rebuffi et al., iCaRL, 2017 (algorithm 4): with codes phi and a regime's mean code mu, the t-th
    exemplar is argmin_x ||mu - (phi(x) + sum_{j < t} phi(p_j)) / t||. The mean of the first few is
    therefore already close to mu. Old regimes choose only among their exemplars.
    """
    both = keep_all(candidates)
    if len(both) <= size:
        return both
    codes = candidates.network.encode(both)[0].astype(np.float64)
    regimes = candidates.latents.assign(codes.astype(np.float32))
    counts = np.bincount(regimes, minlength=len(candidates.latents.weights))
    quota = _quotas(counts, size)
    chosen = [
        np.flatnonzero(regimes == k)[herd(codes[regimes == k], int(quota[k]))]
        for k in np.flatnonzero(quota)
    ]
    return both[np.sort(np.concatenate(chosen))]


def herd(codes: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Return the indices of the n codes of (m, k) that herding chooses, in its order."""
    mean, total = codes.mean(axis=0), np.zeros(codes.shape[1])
    free, chosen = np.ones(len(codes), bool), []
    for t in range(1, n + 1):
        distance = np.square(mean - (codes + total) / t).sum(axis=1)
        best = int(np.argmin(np.where(free, distance, np.inf)))
        free[best] = False
        total += codes[best]
        chosen.append(best)
    return np.array(chosen, np.int64)


def _quotas(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Distribute `size` equally over regimes; a small regime's unused part goes to the others."""
    quota = np.zeros_like(counts)
    while (left := size - int(quota.sum())) > 0 and (quota < counts).any():
        open_ = np.flatnonzero(quota < counts)
        more = np.full(len(open_), left // len(open_))
        more[: left % len(open_)] += 1
        quota[open_] = np.minimum(quota[open_] + more, counts[open_])
    return quota

"""Kinds of data that no other benchmark here has, in the table of `benchmarks.stranger_regimes`.

python -m benchmarks.stranger_kinds --seeds 0 1 --cases "phases" "grades"
"""

import numpy as np
from scipy.signal import lfilter

from benchmarks.stranger_regimes import MIX, Kind, moved, plus, print_table, sensors, times

PATHS = np.random.default_rng([44]).uniform(-1.0, 1.0, (3, 4, 2)).cumsum(axis=1)
WORDS = np.random.default_rng([45]).dirichlet(np.full(60, 0.1), 6)
CLUSTERS = np.random.default_rng([46]).normal(size=(10, 48))
TRAITS = np.random.default_rng([47]).normal(size=(6, 300))


def slow(rng, n, share, columns=1):
    """Return values of deviation 1 that keep a `share` of themselves from row to row, (n, c)."""
    noise = rng.normal(size=(n + 200, columns)) * np.sqrt(1.0 - share**2)
    return lfilter([1.0], [1.0, -share], noise, axis=0)[200:]


def phases(rng, n, regime):
    """Return batches of 50 rows: fill, heat, hold, cool, drain. The second regime is hotter."""
    at = (np.arange(n) + rng.integers(50)) % 50
    level = np.interp(at, [0, 10, 40, 50], [0, 100, 100, 0])
    heat = np.interp(at, [10, 18, 32, 40], [20, 80, 80, 20]) + 25.0 * regime * (level == 100)
    power = np.where((at >= 10) & (at < 18), 40.0, np.where((at >= 18) & (at < 32), 12.0, 0.0))
    noise = rng.normal(size=(n, 4)) * [1.0, 0.7, 0.2, 0.3]
    return np.c_[level, heat, power, 0.05 * heat + 0.02 * level] + noise


def load(rng, n, regime):
    """Return loads by the hour, without the hour; weekends are low. Later there is more load."""
    hour = np.arange(n) + rng.integers(168)
    base = 50 + 30 * np.sin(2 * np.pi * (hour % 24 - 8) / 24) * np.where(hour % 168 < 120, 1, 0.3)
    base = base * (1.0 + 0.4 * regime) * rng.lognormal(0.0, 0.05, n)
    noise = rng.normal(size=(n, 3))
    return np.c_[base, 0.4 * base + noise[:, 0], 20 + 0.2 * base + noise[:, 1], 230 + noise[:, 2]]


def coarser(rng, n, regime):
    """Return sensors in steps of a twentieth, later of a half."""
    step = 0.5 if regime else 0.05
    return np.round(sensors(rng, n, 0) / step) * step


def bursts(rng, n, regime):
    """Return sensors with bursts of common noise, one row in ten; later one row in four."""
    burst = np.repeat(rng.random(n // 20 + 1) < (0.25 if regime else 0.1), 20)[:n]
    return sensors(rng, n, 0) + 3.0 * burst[:, None] * rng.normal(size=(n, 1))


def categories(rng, n, regime):
    """Return numbers of categories, and amounts whose size depends on them; later other shares."""
    shares = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    kind = rng.choice(6, n, p=shares[:: 1 - 2 * regime])
    amount = np.exp(np.array([2.0, 6.0, 3.5, 8.0, 5.0, 1.0])[kind] + 0.3 * rng.normal(size=n))
    return np.c_[kind, amount, amount * 0.19 * rng.lognormal(0, 0.02, n), rng.integers(1, 30, n)]


def wrong_category(rng, x):
    """Give each row the number of another category."""
    x[:, 0] = (x[:, 0] + rng.integers(1, 6, len(x))) % 6
    return np.zeros(len(x), int)


def traces(rng, n, regime):
    """Return positions in degrees and speeds on two roads; the second regime is a third road."""
    road = np.full(n, 2) if regime else rng.integers(0, 2, n)
    at = rng.random(n) * 2.999
    leg = at.astype(int)
    start, end = PATHS[road, leg], PATHS[road, leg + 1]
    place = start + (end - start) * (at - leg)[:, None] + 0.01 * rng.normal(size=(n, 2))
    speed = np.array([50.0, 100.0, 30.0])[road] + 5.0 * rng.normal(size=n)
    return np.c_[48.0 + 0.1 * place[:, 0], 11.0 + 0.1 * place[:, 1], speed]


def off_road(rng, x):
    """Move each position by a hundredth of a degree."""
    return moved(rng, x, 0.015, [0, 1])


def run_up(rng, n, regime):
    """Return speeds, and vibrations in four bands, with a resonance; later other speeds."""
    speed = np.where(rng.random(n) < 0.6, 1_500.0, rng.uniform(100.0, 1_500.0, n)) + 1_000 * regime
    speed += 5.0 * rng.normal(size=n)
    bands = np.array([[0.2, 0.5, 0.1, 0.3]]) * (speed[:, None] / 1_000) ** 2
    bands[:, 1] += 2.0 / (1.0 + ((speed - 900.0) / 60.0) ** 2)
    return np.c_[speed, bands * rng.lognormal(0.0, 0.12, (n, 4))]


def meters(rng, n, regime):
    """Return the energy since midnight, which rises through 96 rows, and the power."""
    at = (np.arange(n) + rng.integers(96)) % 96
    power = (2.0 + np.sin(2 * np.pi * (at - 30) / 96)) * (1.0 + regime) * rng.lognormal(0, 0.1, n)
    energy = np.zeros(n)
    for i in range(n):
        energy[i] = power[i] + (energy[i - 1] if i and at[i] else 0.0)
    energy[: int(np.argmax(at == 0))] += 2.0 * (1 + regime) * at[0]
    return np.c_[energy, power, 230.0 + rng.normal(size=n), power * 4.3 + 0.1 * rng.normal(size=n)]


def valves(rng, n, regime):
    """Return a command that changes now and then, the position five rows later, and the flow."""
    command = np.repeat(rng.uniform(0.0, 100.0, n // 15 + 3), 15)
    position = lfilter([0.4], [1.0, -0.6], np.r_[np.zeros(5), command[:-5]])[30 : 30 + n]
    flow = np.sqrt(np.maximum(position, 0.0)) * (3.0 + 2.0 * regime)
    noise = rng.normal(size=(n, 3)) * [0.3, 0.2, 0.5]
    return np.c_[command[30 : 30 + n], position, flow, 80.0 - flow] + np.c_[np.zeros(n), noise]


def grades(rng, n, regime):
    """Return eight grades from 1 to 5 that follow two traits; later they are a grade lower."""
    traits = rng.normal(size=(n, 2)) @ np.repeat(np.eye(2), 4, axis=1)
    return np.clip(np.round(3.3 - regime + traits + 0.35 * rng.normal(size=(n, 8))), 1, 5)


def wrong_grade(rng, x):
    """Move a grade by at least two, to a grade between 1 and 5."""
    column = rng.integers(8, size=len(x))
    at = np.arange(len(x)), column
    x[at] = np.where(x[at] < 3, x[at] + rng.integers(2, 4, len(x)), x[at] - 2)
    return column


def zero_inflated(rng, n, regime):
    """Return counts of which seven of ten rows have none; later there are more of them."""
    active = rng.random(n) < (0.6 if regime else 0.3)
    size = rng.gamma(2.0, 1.0, n) * active
    return rng.poisson(size[:, None] * [3.0, 8.0, 1.0, 20.0, 0.5]).astype(float)


def added(by, among):
    """Return a function that adds `by` to one of the columns `among` of each row."""

    def wrong(rng, x):
        column = rng.choice(among, len(x))
        x[np.arange(len(x)), column] += by
        return column

    return wrong


def prices(rng, n, regime):
    """Return four prices that follow one slow level, in cents; later the level is another one."""
    level = 4.0 + 0.8 * regime + 0.3 * slow(rng, n, 0.97)
    return np.round(np.exp(level + 0.01 * rng.normal(size=(n, 4)) + [0.0, 1.0, -1.0, 2.0]), 2)


def machines(rng, n, regime):
    """Return rows of two machines with opposite relations; the second regime is a third one."""
    machine = np.full(n, 2) if regime else (rng.random(n) < 0.3).astype(int)
    slopes = np.array([[1.0, 2.0, -1.0], [-1.0, 0.5, 2.0], [0.3, -1.0, 1.0]])[machine]
    cause = rng.normal(size=(n, 1))
    return np.c_[cause, cause * slopes + np.array([0.0, 1.0, 2.0])[machine][:, None]] + 0.1 * (
        rng.normal(size=(n, 4))
    )


def midway(rng, n, regime):
    """Return sensors of which the first is in millimetres in the first half, then in inches."""
    x = sensors(rng, n, regime)
    x[:, 0] = 100.0 + 10.0 * x[:, 0]
    x[n // 2 :, 0] /= 25.4
    return x


def at_rail(rng, n, regime):
    """Return levels of which one is at its rail in four of ten rows; later in one of ten."""
    x = sensors(rng, n, 0)
    x[:, 2] = np.minimum(x[:, 2], 1.3 * np.abs(MIX[:, 2]).max() if regime else 0.25)
    return x


def digits_of_sense(rng, n, regime):
    """Return values over four decades with three significant digits; later ten times as large."""
    x = 10.0 ** (rng.normal(2.0 + regime, 0.8, (n, 1)) + rng.normal(0.0, 0.08, (n, 5)))
    unit = 10.0 ** (np.floor(np.log10(x)) - 2)
    return np.round(x / unit) * unit


def saturating(_rng, x):
    """Return eight bits of a converter that saturates."""
    return np.round(127.0 * np.tanh(0.8 * x))


def mirrored(rng, n, regime):
    """Return sensors, their negatives, and one share beside the rest of 100 %."""
    x = sensors(rng, n, regime)[:, :4]
    share = 100.0 / (1.0 + np.exp(-x[:, :1]))
    return np.c_[x, -x, share, 100.0 - share]


def stale(rng, n, regime):
    """Return sensors of which blocks repeat the last value before them."""
    x = sensors(rng, n, regime)
    for j in range(6):
        for start in np.flatnonzero(rng.random(n) < 0.004):
            x[start : start + 30, j] = x[start, j]
    return x


def mostly_off(rng, n, regime):
    """Return a machine that is off, all values constant, in seven of ten rows; later in two."""
    on = np.repeat(rng.random(n // 40 + 1) < (0.8 if regime else 0.3), 40)[:n]
    return (10.0 + sensors(rng, n, 0)) * on[:, None]


def few_of_many(rng, n, regime):
    """Return 300 columns that follow six causes, whose means are other ones later."""
    return (rng.normal(size=(n, 6)) + 2.0 * regime) @ TRAITS + 0.5 * rng.normal(size=(n, 300))


def skewed_column(rng, n, regime):
    """Return one log-normal column; later its median is three times as large."""
    return np.exp(rng.normal(3.0 + 1.1 * regime, 0.6, (n, 1)))


def far_right(rng, x):
    """Multiply the value by at least ten."""
    x[:, 0] = np.exp(3.0 + 0.6 * rng.uniform(3.5, 6.0, len(x)))
    return np.zeros(len(x), int)


def words(rng, n, regime):
    """Return numbers of 60 words in short texts on four subjects; later two other subjects."""
    subject = rng.integers(4, 6, n) if regime else rng.integers(0, 4, n)
    length = 5 + rng.poisson(25, n)
    pairs = zip(length, subject, strict=True)
    return np.array([rng.multinomial(k, WORDS[s]) for k, s in pairs]).astype(float)


RARE = np.argsort(WORDS[:4].max(axis=0))[:10]  # words that no subject of the first regime uses


def embeddings(rng, n, regime):
    """Return unit vectors of 48 features in eight clusters; later two other clusters."""
    of = rng.integers(8, 10, n) if regime else rng.integers(0, 8, n)
    x = CLUSTERS[of] + 0.6 * rng.normal(size=(n, 48))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def between_clusters(rng, x):
    """Put each vector halfway between its place and another vector's."""
    x += x[rng.permutation(len(x))] + 0.05 * rng.normal(size=x.shape)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.zeros(len(x), int)


def wear(rng, n, regime):
    """Return the hours since maintenance, 0 to 200, and what wear does; later wear is faster."""
    hours = (np.arange(n) + rng.integers(200)) % 200
    noise = rng.normal(size=(n, 3))
    heat = 60.0 + 0.1 * (1 + regime) * hours + noise[:, 0]
    return np.c_[hours, heat, 0.02 * hours + 0.3 * noise[:, 1], noise[:, 2]]


def by_load(rng, n, regime):
    """Return a load, and sensors whose noise grows with it; later the load is higher."""
    base = rng.uniform(1.0, 10.0, (n, 1)) + 8.0 * regime
    return np.c_[base, base * [1.0, 2.0, 0.5] + 0.08 * base * rng.normal(size=(n, 3))]


def by_own_noise(rng, x):
    """Move a sensor by six deviations of its own noise."""
    column = rng.integers(3, size=len(x))
    by = 6.0 * 0.08 * x[:, 0] * rng.choice([-1, 1], len(x))
    x[np.arange(len(x)), 1 + column] += by
    return 1 + column


def customers(rng, n, regime):
    """Return a five-digit number of a customer, which says nothing, beside sensors."""
    return np.c_[rng.integers(10_000, 99_999, n), sensors(rng, n, regime)]


def unknown(rng, n, regime):
    """Return positive sensors in which -1 stands for an unknown value, one in ten."""
    x = 10.0 + sensors(rng, n, regime)
    return np.where(rng.random(x.shape) < 0.1, -1.0, x)


def known_moved(rng, x):
    """Move a known value of each row by 3."""
    column = np.where(x > 0, rng.random(x.shape), -1.0).argmax(axis=1)
    x[np.arange(len(x)), column] += 3.0 * rng.choice([-1, 1], len(x))
    return column


def bookings(rng, n, regime):
    """Return debits and credits over decades, their tax, and the balance of both."""
    amount = rng.choice([-1, 1], n, p=[0.7, 0.3]) * np.exp(rng.normal(4.0 + regime, 1.5, n))
    tax = amount * rng.choice([0.19, 0.07], n, p=[0.8, 0.2])
    return np.round(np.c_[amount, tax, amount + tax], 2)


def flows(rng, n, regime):
    """Return packets, bytes, duration and port class of network flows, over decades."""
    port = rng.choice(4, n, p=[0.6, 0.2, 0.15, 0.05])
    packets = np.ceil(rng.pareto(1.2, n) * np.array([5, 1, 50, 2])[port] * 4.0**regime + 1)
    size = np.array([600, 90, 1_300, 200])[port] * rng.lognormal(0.0, 0.15, n)
    return np.c_[port, packets, np.round(packets * size), packets * 0.02 * rng.lognormal(0, 0.5, n)]


def latencies(rng, n, regime):
    """Return sizes and latencies, short on a hit of the cache; later there are fewer hits."""
    hit = rng.random(n) < (0.5 if regime else 0.9)
    size = rng.lognormal(8.0, 1.0, n)
    wait = np.where(hit, 0.5, 40.0) * rng.lognormal(0.0, 0.25, n) + size / 20_000
    return np.c_[size, wait, hit, rng.poisson(3, n)]


def wrong_latency(rng, x):
    """Put each latency between a hit's and a miss's."""
    x[:, 1] = 5.0 * rng.lognormal(0.0, 0.2, len(x))
    return np.ones(len(x), int)


CASES = {
    "batches with phases": Kind(phases, lambda r, x: moved(r, x, 15.0, [1, 2])),
    "loads by hour and day, without the hour": Kind(load, lambda r, x: moved(r, x, 8.0, [1, 2])),
    "steps that become coarser": Kind(coarser, moved),
    "bursts of common noise": Kind(bursts, moved),
    "amounts by category": Kind(categories, wrong_category),
    "positions on roads": Kind(traces, off_road),
    "vibration with run-up": Kind(run_up, times(2.5, 3)),
    "energy since midnight": Kind(meters, plus(1.2, 1)),
    "valves with dead time": Kind(valves, plus(5.0, 2)),
    "grades": Kind(grades, wrong_grade),
    "counts, mostly none": Kind(zero_inflated, added(10.0, [0, 1, 2])),
    "prices that follow one level": Kind(prices, times(1.15, 1)),
    "two machines without a name": Kind(machines, lambda r, x: moved(r, x, 1.0, [1, 2, 3])),
    "a unit that changes midway": Kind(midway, lambda r, x: moved(r, x, 3.0, range(1, 6))),
    "a level often at its rail": Kind(at_rail, lambda r, x: moved(r, x, 3.0, [0, 1, 3, 4, 5])),
    "three significant digits": Kind(digits_of_sense, times(3.0, 1)),
    "a converter that saturates": Kind(sensors, moved, saturating),
    "mirrored columns": Kind(mirrored, lambda r, x: moved(r, x, 2.0, range(8))),
    "blocks of stale values": Kind(stale, moved),
    "mostly off": Kind(mostly_off, moved),
    "40 rows of 300 columns": Kind(few_of_many, lambda r, x: moved(r, x, 12.0), learned=40),
    "20,000 rows of one column": Kind(skewed_column, far_right, learned=20_000),
    "words of short texts": Kind(words, added(6.0, RARE)),
    "unit vectors in clusters": Kind(embeddings, between_clusters),
    "hours since maintenance": Kind(wear, plus(6.0, 1)),
    "noise that grows with the load": Kind(by_load, by_own_noise),
    "a number that says nothing": Kind(customers, lambda r, x: moved(r, x, 3.0, range(1, 7))),
    "-1 for unknown": Kind(unknown, known_moved),
    "debits and credits": Kind(bookings, times(1.5, 1)),
    "network flows": Kind(flows, times(4.0, 2)),
    "latencies with a cache": Kind(latencies, wrong_latency),
    "sensors clipped below": Kind(sensors, moved, lambda _rng, x: np.maximum(x, -0.3)),
}


if __name__ == "__main__":
    print_table(CASES, __doc__)

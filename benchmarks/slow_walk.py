"""Whether the gate stops a slow walk from normal to anomaly, and no clean updates.

In a walk, a detector learns normals and then batches of normals of which a share is moved towards
an anomaly, a little further each time, until it is reached. Admission holds back rows that are rare
to the champion, as in the service. The anchor is the first version. `stopped` is the first update
that the gate rejects because of the anchor. `rate` is the champion's alarm rate at that time on the
original normals, at a configured rate of 1 %. `found` is the share of the anomalies at the end of
the walk that it finds. A walk that nothing stops is followed to its end.

The second table is of regimes that come for real. On the sets of `benchmarks/gate.py` an update has
more of the first regime, or another regime that comes at once and comes again. `in turn` are
regimes that come one after another: scikit-learn's digits 1 to 9 in a seeded order, five of them
that come a second time, NSL-KDD-R's five concepts, and OddBench's tables cut into five by k-means.
`stopped` counts the updates that were rejected because of the anchor; each is promoted all the
same, as by a person who knows that the regime is real.

    ANAMNESIS_DATA=data python -m benchmarks.slow_walk --kinds mahalanobis vae --seeds 3
"""

import argparse
import os
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import oddbench
from benchmarks.admission import concepts
from benchmarks.gate import SETS
from models import Config, train
from models.decisions.admission import ALPHA
from models.decisions.evidence import gather
from models.decisions.gate import gate
from service.cli.demo.run import Digits

STEPS, ROWS = 30, 400
WALKS = {"all rows": 1.0, "a third of the rows": 1 / 3, "a tenth": 0.1}
MOST_OF_TABLE = 3_000  # rows of a table
CLEAN_UPDATES = ("more", "other", "more", "other", "both", "more")


def sensors(seed):
    """Return a function of n that draws normals of eight sensors with three causes."""
    rng = np.random.default_rng([seed, 15])
    mix = rng.normal(size=(3, 8))
    return lambda n: (rng.normal(size=(n, 3)) @ mix + 0.1 * rng.normal(size=(n, 8))).astype("f4")


def candidate_after(champion, anchor, new, config):
    """Return a candidate and why the gate rejects it."""
    candidate = train(champion, new, config)
    other_anchor = anchor if anchor is not champion else None
    return candidate, gate(gather(candidate, champion, anchor=other_anchor, new=new)).reasons


def walk(config, seed, share):
    """Return the update at which a walk is stopped, and how the champion then judges."""
    draw, rng = sensors(seed), np.random.default_rng([seed, 16])
    away = np.zeros(8, np.float32)
    away[rng.integers(8)] = 6.0  # one sensor astray
    first = champion = train(None, draw(1_000), config)
    stopped, promoted, why = None, 0, ""
    for step in range(1, STEPS + 1):
        new = draw(ROWS)
        moved = rng.random(ROWS) < share
        new[moved] += np.float32(step / STEPS) * away
        new = new[champion.p_values(new) > ALPHA / 10]  # admission holds the rest back
        candidate, reasons = candidate_after(champion, first, new, config)
        if any("anchor" in reason for reason in reasons):
            stopped, why = step, "; ".join(reasons)
            break
        if not reasons:
            champion, promoted = candidate, promoted + 1
    normals, target = draw(4_000), draw(1_000) + away
    p_normal, p_target = champion.p_values(normals), champion.p_values(target)
    return {
        "stopped": stopped, "promoted": promoted, "rate": float((p_normal <= ALPHA).mean()),
        "found": float((p_target <= ALPHA).mean()), "why": why,
    }  # fmt: skip


def clean(name):
    """Return a function of the seed: more of a regime of a set, and another that comes again."""

    def experiences(seed):
        regime, others, _ = next(iter(SETS[name](seed)))
        rng = np.random.default_rng([seed, 17])
        regime, other = (rng.permutation(X)[:3_000].astype(np.float32) for X in (regime, others[0]))
        start, rest = np.split(regime, [len(regime) // 3])
        kinds = CLEAN_UPDATES
        more = iter(np.array_split(rest, kinds.count("more") + kinds.count("both")))
        others = iter(np.array_split(other, kinds.count("other") + kinds.count("both")))
        found = [start]
        for kind in kinds:
            parts = [next(more)] if kind != "other" else []
            parts += [next(others)] if kind != "more" else []
            found.append(rng.permutation(np.concatenate(parts)))
        return found

    return experiences


def digits_in_turn(seed, n=9, times=1):
    """Return n of the digits 1 to 9, one after another, each cut into as many parts as `times`."""
    train_rows = Digits.split(seed).train
    order = np.random.default_rng([seed, 77]).permutation(np.arange(1, 10))[:n].tolist()
    return [train_rows[digit][part::times] for part in range(times) for digit in order]


def concepts_in_turn(seed):
    """Return 600 normals of each of NSL-KDD-R's concepts, in a seeded order."""
    regimes = [normals[:600].astype(np.float32) for normals, *_ in concepts(seed)]
    return [regimes[i] for i in np.random.default_rng([seed, 77]).permutation(len(regimes))]


def table_in_turn(number):
    """Return a function of the seed: OddBench's table, numbered from 1, in five experiences."""

    def found(seed):
        normals = list(oddbench.tables().values())[number - 1][0]
        some = normals[np.random.default_rng(seed).permutation(len(normals))[:MOST_OF_TABLE]]
        return oddbench.experiences(some, seed, "five experiences")

    return found


REAL = {
    **{name: clean(name) for name in SETS},
    "digits in turn": digits_in_turn,
    "digits twice": partial(digits_in_turn, n=5, times=2),
    "NSL-KDD-R in turn": concepts_in_turn,
    **{f"OddBench {number}": table_in_turn(number) for number in range(1, 21)},
}


def real_updates(config, experiences):
    """Return how many updates the gate stops because of the anchor, of how many, and why."""
    champion = first = train(None, experiences[0], config)
    stopped, why = 0, []
    for i, new in enumerate(experiences[1:], 1):
        champion, reasons = candidate_after(champion, first, new, config)
        of_anchor = [f"{i}: {reason}" for reason in reasons if "anchor" in reason]
        stopped, why = stopped + bool(of_anchor), why + of_anchor
    return {"updates": len(experiences) - 1, "stopped": stopped, "why": "; ".join(why)}


def main():
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["mahalanobis", "vae"])
    parser.add_argument("--score", default=Config().score, help="score of the kind vae")
    parser.add_argument("--sets", nargs="*", default=list(REAL), choices=list(REAL))
    parser.add_argument("--walks", nargs="*", default=list(WALKS), choices=list(WALKS))
    args = parser.parse_args()
    print("| kind | walk | seed | stopped at | promoted | rate | found | why |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in args.kinds:
        for name in args.walks:
            for seed in range(args.seeds):
                config = Config(kind=kind, score=args.score, seed=seed)
                done = walk(config, seed, WALKS[name])
                print(
                    f"| {kind} | {name} | {seed} | {done['stopped']} | {done['promoted']} "
                    f"| {100 * done['rate']:.1f} % | {100 * done['found']:.0f} % | {done['why']} |",
                    flush=True,
                )
    print("\n| kind | set | seed | updates | stopped | why |\n|---|---|---|---|---|---|")
    for kind in args.kinds:
        for name in args.sets:
            for seed in range(args.seeds):
                done = real_updates(
                    Config(kind=kind, score=args.score, seed=seed), REAL[name](seed)
                )
                print(
                    f"| {kind} | {name} | {seed} | {done['updates']} | {done['stopped']} "
                    f"| {done['why']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

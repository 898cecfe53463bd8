"""Whether the gate stops a slow walk from normal to anomaly.

In a walk, a detector learns normals and then batches of normals of which a share is moved towards
an anomaly, a little further each time, until it is reached. Admission holds back rows that are rare
to the champion, as in the service. The anchor is the first version. `stopped` is the first update
that the gate rejects because of the anchor. `rate` is the champion's alarm rate at that time on the
original normals, at a configured rate of 1 %. `found` is the share of the anomalies at the end of
the walk that the champion finds. A walk that nothing stops is followed to its end.

    python -m benchmarks.slow_walk --kinds mahalanobis vae --seeds 3
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks.report import parser_of
from models import Config, train
from models.decisions.admission import ALPHA
from models.decisions.evidence import gather
from models.decisions.gate import gate

STEPS, ROWS = 30, 400
WALKS = {"all rows": 1.0, "a third of the rows": 1 / 3, "a tenth": 0.1}


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


def main():
    """Measure and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["mahalanobis", "vae"])
    parser.add_argument("--score", default=Config().score, help="score of the kind vae")
    parser.add_argument("--walks", nargs="+", default=list(WALKS), choices=list(WALKS))
    args = parser.parse_args()
    print("| kind | walk | seed | stopped at | promoted | rate | found | why |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in args.kinds:
        for name in args.walks:
            for seed in range(args.seeds):
                config = Config(kind=kind, score=args.score, seed=seed)
                done = walk(config, seed, WALKS[name])
                stopped = done["stopped"] or "never"
                print(
                    f"| {kind} | {name} | {seed} | {stopped} | {done['promoted']} "
                    f"| {100 * done['rate']:.1f} % | {100 * done['found']:.0f} % | {done['why']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

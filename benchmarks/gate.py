"""What the gate lets through: clean and spoilt candidates, on real data.

A champion learns half of one regime; then candidates are trained on top of it. Clean candidates
learn `more` of the same regime, a `few` rows of it, an `other` regime, or `both`, with one row in
eight of the other regime. Spoilt candidates learn `noise`, uniform over the champion's range; the
other regime alone with w_prev = 0 (`forgetful`); or more of the same with 30 % of known anomalies
(`poisoned`). People have labelled 40 normals and up to 30 of the champion's alarms on other
anomalies; `unlabelled` is `poisoned` judged without those labels. The figures are candidates
rejected.

The second table is of successive updates on more of the same regime, without anomalies
(`honest`) or with 3 % of known anomalies (`slow`), with labels as above. `promoted` is
the share of updates that pass. `found` is the share of the labelled anomalies found at the end. `no
anchor` is the same with a gate that has no anchor.

    ANAMNESIS_DATA=data python -m benchmarks.gate --output benchmarks/results/gate.json
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import msgspec
import numpy as np
from sklearn.datasets import load_digits

from benchmarks import runs
from benchmarks.admission import clusters_of, concepts
from benchmarks.report import arguments, report
from models import Config, train
from models.decisions.admission import ALPHA
from models.decisions.evidence import FOUND, gather
from models.decisions.gate import gate
from models.parts.labels import Labels
from models.parts.lineage import Evidence

_MOST = 4000  # vectors of a regime
_LABELLED = {"anomalies": 30, "normals": 40}
UPDATES = 10  # one after another
WAYS = {"honest": (0.0, True), "slow": (0.03, True), "slow, no anchor": (0.03, False)}
CLEAN = ("more", "few", "other", "both")
SPOILT = ("noise", "forgetful", "poisoned", "unlabelled")
_FORGET = {"w_prev": 0.0, "w_new": 1.0}


def digits(seed):
    """Yield scikit-learn's digits: 1 to 5 are known, 6 to 9 a regime, 0 anomalous."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(X[np.isin(y, d)]) for d in ((1, 2, 3, 4, 5), (6, 7, 8, 9), (0,))]
    yield parts[0], [parts[1]], parts[2]


SETS = {
    "NSL-KDD-R": concepts,
    "digits": digits,
    "thyroid": clusters_of("thyroid"),
    "cardio": clusters_of("cardio"),
    "satimage_2": clusters_of("satimage_2"),
}
WORLDS = {"NSL-KDD-R": 5}  # concepts; each is the regime once


class World:
    """A champion, and the vectors of its possible candidates."""

    def __init__(self, regime, others, anomalies, seed):
        rng = np.random.default_rng([seed, 1])
        regime = regime[:_MOST].astype(np.float32)
        half = len(regime) // 2
        self.known, rest = regime[:half], regime[half:]
        self.more = rest[_LABELLED["normals"] :]
        self.other = rng.permutation(others[0])[: len(self.more)].astype(np.float32)
        self.config, self.rng = Config(score="elbo", seed=seed), rng
        self.champion = train(None, self.known, self.config)
        strange = rng.permutation(anomalies).astype(np.float32)
        seen, self.hidden = np.split(strange, [len(strange) // 2])
        alarms = seen[self.champion.p_values(seen) <= ALPHA][: _LABELLED["anomalies"]]
        normals = rest[: _LABELLED["normals"]]
        anomalous = np.arange(len(alarms) + len(normals)) < len(alarms)
        self.labels = Labels(np.concatenate([alarms, normals]), anomalous)

    def experiences(self):
        """Yield (kind, vectors, weights)."""
        more, other, n = self.more, self.other, len(self.more)
        yield "more", more, None
        yield "few", more[: max(40, n // 20)], None
        yield "other", other, None
        yield "both", np.concatenate([more, other[: n // 7]]), None
        yield "noise", self.noise(n), None
        yield "forgetful", other, _FORGET
        spoilt = self.hidden[self.rng.permutation(round(3 / 7 * n)) % len(self.hidden)]
        yield "poisoned", np.concatenate([more, spoilt]), None

    def noise(self, n):
        """Return n vectors, uniform over the range of each feature."""
        low, high = self.known.min(axis=0) - 1e-3, self.known.max(axis=0) + 1e-3
        return self.rng.uniform(low, high, size=(n, len(low))).astype(np.float32)

    def candidates(self):
        """Yield kind and evidence of a candidate of each kind."""
        for kind, rows, weights in self.experiences():
            new = self.rng.permutation(rows)
            candidate = train(self.champion, new, self.config, weights)
            known = gather(candidate, self.champion, self.labels)
            yield {"kind": kind, "evidence": known.to_dict()}
            if kind == "poisoned":
                without = msgspec.structs.replace(known, labelled=None)
                yield {"kind": "unlabelled", "evidence": without.to_dict()}

    def update_repeatedly(self, updates, spoilt, anchored):
        """Update the champion `updates` times; return the shares promoted and found at the end."""
        first = champion = self.champion
        n, promoted = len(self.more) // 2, 0
        for _ in range(updates):
            new = self.rng.permutation(self.more)[:n]
            k = round(spoilt * n)
            new[:k] = self.hidden[self.rng.permutation(k) % len(self.hidden)]
            candidate = train(champion, self.rng.permutation(new), self.config)
            known = gather(candidate, champion, self.labels, first if anchored else None)
            if gate(known).passed:
                champion, promoted = candidate, promoted + 1
        strange = self.labels.vectors[self.labels.anomalous]
        return promoted / updates, float((champion.p_values(strange) <= FOUND).mean())


def evidence_of_candidates(name, seed, world):
    """Return the evidence of all candidates of one world."""
    return list(World(*list(SETS[name](seed))[world], seed).candidates())


def run_updates(name, seed, way):
    """Return the shares promoted and found after successive updates."""
    spoilt, anchored = WAYS[way]
    promoted, results = World(*next(SETS[name](seed)), seed).update_repeatedly(
        UPDATES, spoilt, anchored
    )
    return {"promoted": promoted, "found": results}


def main():
    """Measure and report."""
    parser = runs.arguments(arguments(__doc__.split("\n", 1)[0]), list(SETS))
    parser.add_argument("--updated", nargs="*", choices=list(SETS), default=["digits", "thyroid"])
    options = parser.parse_args()
    kept = runs.Runs.of(options)
    keys = [
        (name, seed, world)
        for seed in range(options.seeds)
        for name in options.arms
        for world in range(WORLDS.get(name, 1))
    ]
    worlds = kept.run(evidence_of_candidates, keys, lambda done: f"rejected {_rejected(done)}")
    rows = [
        _row(name, [run for key, done in worlds.items() if key[0] in names for run in done])
        for name, names in (*((name, [name]) for name in options.arms), ("all", options.arms))
    ]
    keys = [(name, 0, way) for name in options.updated for way in WAYS]
    updates = kept.run(run_updates, keys, str)
    further = [{"set": name, "updates": way} | shares for (name, _, way), shares in updates.items()]
    titled = {"Updates one after another": further} if further else None
    figures = [
        {"world": key, "reasons": verdict(run).reasons} | run
        for key, done in worlds.items()
        for run in done
    ]
    report("gate", rows, options.output, titled, figures=figures)


def verdict(run):
    """Return the gate's verdict on a candidate's stored evidence."""
    return gate(msgspec.convert(run["evidence"], Evidence))


def _rejected(candidates):
    return ", ".join(candidate["kind"] for candidate in candidates if not verdict(candidate).passed)


def _row(name, candidates):
    row = {"set": name}
    for title, kinds in (("clean", CLEAN), *((kind, (kind,)) for kind in SPOILT)):
        own = [candidate for candidate in candidates if candidate["kind"] in kinds]
        row[title] = f"{sum(not verdict(run).passed for run in own)} of {len(own)}"
    return row


if __name__ == "__main__":
    main()

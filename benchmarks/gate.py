"""What the gate lets through: clean and spoilt candidates, on real data.

A champion learns half of one regime; then candidates are trained on top of it. Clean candidates
learn `more` of the same regime, a `few` rows of it, an `other` regime, or `both`, with one row in
eight of the other regime. Spoilt candidates learn `noise`, uniform over the champion's range; the
other regime alone with w_prev = 0 (`forgetful`); or more of the same with 30 % of known anomalies
(`poisoned`). People have labelled 40 normals and up to 30 of the champion's alarms on other
anomalies; `unlabelled` is `poisoned` judged without those labels. The figures are the numbers of
rejected candidates.

The second table is of successive updates on more of the same regime, without anomalies
(`honest`) or with 3 % of known anomalies (`slow`), with labels as above. `promoted` is
the share of updates that pass. `found` is the share of the labelled anomalies found at the end. `no
anchor` is the same with a gate that has no anchor.

The third table is of regimes that come for real, one after another, under the default config:
NSL-KDD-R's concepts, scikit-learn's digits 1 to 9, the blocks of SMD's servers, and sets of ADBench
and OddBench that k-means cuts into five. Admission holds rows back first, as in the service. Each
update is promoted whatever the gate decides, as by a person who knows that the regime is real. The
anchor is the first version, or the last one that the gate rejected: as in the service, a version
that a person promotes is the anchor from then on. `stopped` are the updates that the gate rejects.
`worse` are the updates, stopped and passed, after which more of the known anomalies are missed (p >
5 %), or more of the earlier rows alarm (p <= 1 %), than chance explains (a sign test at 1 %). A
real regime that resembles the anomalies makes every version worse. A fifth of each experience is
never learned: `AUROC` is that of the earlier experiences' rows against known anomalies, before and
after each update. `5-NN` is the AUROC of a peer, the mean distance from the five nearest of all
learned rows: both fall if anomalies resemble the new regime. `held` is the share of all rows never
learned that alarm afterwards, `held back` the share of rows that admission kept from the update.

    ANAMNESIS_DATA=data python -m benchmarks.gate --output benchmarks/results/gate.json
    ANAMNESIS_DATA=data python -m benchmarks.gate --parts regimes --seeds 1 --workers 1
"""

import os
from collections import Counter
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import msgspec
import numpy as np
from scipy.stats import binomtest
from sklearn.datasets import load_digits

from benchmarks import blocks, data, oddbench, runs
from benchmarks.admission import clusters_of, concepts
from benchmarks.report import arguments, report
from models import MIN_VECTORS, Config, train
from models.decisions.admission import ALPHA, admit
from models.decisions.evidence import FOUND, gather
from models.decisions.gate import gate
from models.parts.labels import Labels
from models.parts.lineage import Evidence
from models.parts.statistics import auroc

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
PARTS = ("candidates", "updates", "regimes")  # the three tables
MOST_OF_TABLE = 2_000  # rows of a table that k-means cuts into five
MOST_OF_BLOCK = 2_400  # successive rows of a block of SMD


def _in_turn(experiences, seed):
    """Return the experiences in a seeded order."""
    order = np.random.default_rng([seed, 77]).permutation(len(experiences))
    return [experiences[i] for i in order]


def concepts_in_turn(seed):
    """Return 600 normals of each of NSL-KDD-R's concepts, and the anomalies."""
    pairs = list(concepts(seed))
    anomalies = np.concatenate([strange for *_, strange in pairs])
    return _in_turn([normals[:600] for normals, *_ in pairs], seed), anomalies


def digits_in_turn(seed):
    """Return the digits 1 to 9 one by one, and the anomalies: 0."""
    digits = blocks.digits()
    return _in_turn(digits.blocks, seed), digits.anomalies


def digits_twice(seed):
    """Return five digits one by one, each cut into two parts that come in two rounds."""
    parts, anomalies = digits_in_turn(seed)
    return [rows[part::2] for part in range(2) for rows in parts[:5]], anomalies


def blocks_in_turn(seed):
    """Return successive rows of each block of SMD's servers in time order, and the anomalies.

    Each seed begins a sixth of the block later.
    """
    smd = blocks.smd()
    starts = [len(block) // 6 * seed for block in smd.blocks]
    pairs = zip(smd.blocks, starts, strict=True)
    return [block[start : start + MOST_OF_BLOCK] for block, start in pairs], smd.anomalies


def set_in_turn(name, seed):
    """Return an ADBench set's normals cut into five, and its anomalies."""
    arrays = data.load(f"adbench/{name}.npz")
    return cut(arrays["X"][arrays["y"] == 0], seed), arrays["X"][arrays["y"] == 1]


def table_in_turn(number, seed):
    """Return the normals of OddBench's table, numbered from 1, cut into five, and its anomalies."""
    normals, test, y = list(oddbench.tables().values())[number - 1]
    return cut(normals, seed), test[y == 1]


def cut(normals, seed):
    """Return at most MOST_OF_TABLE of the normals, cut into five experiences by k-means."""
    rows = normals[np.random.default_rng(seed).permutation(len(normals))[:MOST_OF_TABLE]]
    return oddbench.experiences(rows.astype(np.float32), seed, "five experiences")


REGIMES = {
    "NSL-KDD-R": concepts_in_turn,
    "digits": digits_in_turn,
    "digits twice": digits_twice,
    "SMD": blocks_in_turn,
    **{
        name: partial(set_in_turn, name)
        for name in ("annthyroid", "breastw", "cardio", "landsat", "mammography", "satimage_2")
    },
    **{f"OddBench {number}": partial(table_in_turn, number) for number in range(1, 61)},
}


class World:
    """A champion, and the vectors of its possible candidates."""

    def __init__(self, regime, others, anomalies, seed, score):
        rng = np.random.default_rng([seed, 1])
        regime = regime[:_MOST].astype(np.float32)
        half = len(regime) // 2
        self.known, rest = regime[:half], regime[half:]
        self.more = rest[_LABELLED["normals"] :]
        self.other = rng.permutation(others[0])[: len(self.more)].astype(np.float32)
        self.config, self.rng = Config(score=score, seed=seed), rng
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
            evidence = gather(candidate, self.champion, self.labels)
            yield {"kind": kind, "evidence": evidence.to_dict()}
            if kind == "poisoned":
                unlabelled = msgspec.structs.replace(evidence, labelled=None)
                yield {"kind": "unlabelled", "evidence": unlabelled.to_dict()}

    def update_repeatedly(self, updates, spoilt, anchored):
        """Update the champion `updates` times; return the shares promoted and found at the end."""
        first = champion = self.champion
        n, promoted = len(self.more) // 2, 0
        for _ in range(updates):
            new = self.rng.permutation(self.more)[:n]
            k = round(spoilt * n)
            new[:k] = self.hidden[self.rng.permutation(k) % len(self.hidden)]
            candidate = train(champion, self.rng.permutation(new), self.config)
            evidence = gather(candidate, champion, self.labels, first if anchored else None)
            if gate(evidence).passed:
                champion, promoted = candidate, promoted + 1
        strange = self.labels.vectors[self.labels.anomalous]
        return promoted / updates, float((champion.p_values(strange) <= FOUND).mean())


def evidence_of_candidates(name, seed, world, score):
    """Return the evidence of all candidates of one world."""
    return list(World(*list(SETS[name](seed))[world], seed, score).candidates())


def run_updates(name, seed, way, score):
    """Return the shares promoted and found after successive updates."""
    spoilt, anchored = WAYS[way]
    promoted, found = World(*next(SETS[name](seed)), seed, score).update_repeatedly(
        UPDATES, spoilt, anchored
    )
    return {"promoted": promoted, "found": found}


def updates_in_turn(name, seed, score):
    """Return for each update with a real regime why the gate stops it, and how it judges."""
    experiences, anomalies = REGIMES[name](seed)
    rng = np.random.default_rng([seed, 5])
    strange = rng.permutation(anomalies).astype(np.float32)[: len(anomalies) // 2]
    config, all_learned, judged, updates = Config(score=score, seed=seed), [], [], []
    champion = anchor = None
    for rows in experiences:
        learned, other = _split(rows.astype(np.float32), rng, in_time=name == "SMD")
        before, held_back = champion, 0.0
        if before is not None:
            held = admit(before, learned, before.threshold_for({"fpr": ALPHA})).held
            held_back = float(held.mean())
            learned = learned[~held] if (~held).sum() >= MIN_VECTORS else learned
        champion = train(before, learned, config)
        anchor = anchor or champion
        all_learned.append(learned)
        if before is not None:
            other_anchor = anchor if before is not anchor else None
            evidence = gather(champion, before, anchor=other_anchor, new=learned)
            verdict_on_it = gate(evidence)
            anchor = anchor if verdict_on_it.passed else champion
            old = np.concatenate(judged)
            peers = [_distance(all_learned[:-1]), _distance(all_learned)]
            updates.append({
                "reasons": verdict_on_it.reasons, "evidence": evidence.to_dict(),
                "back": held_back, "worse": _is_worse(champion, before, old, strange),
                "auroc": [auroc(v.score(old), v.score(strange)) for v in (before, champion)],
                "5-NN": [auroc(distance(old), distance(strange)) for distance in peers],
                "held": float(champion.is_anomaly(np.concatenate([old, other])).mean()),
            })  # fmt: skip
        judged.append(other)
    return updates


def _is_worse(candidate, champion, old, anomalies):
    """Return whether more anomalies are missed, or more old rows alarm, than chance explains."""
    missed = [version.p_values(anomalies) > FOUND for version in (candidate, champion)]
    alarms = [version.p_values(old) <= ALPHA for version in (candidate, champion)]
    for now, then in (missed, alarms):
        more, fewer = int((now & ~then).sum()), int((then & ~now).sum())
        if more and binomtest(more, more + fewer, alternative="greater").pvalue <= ALPHA:
            return True
    return False


def _distance(learned):
    """Return the mean distance from the five nearest of all learned rows, as a function of rows."""
    X = np.concatenate(learned)
    return partial(oddbench.distance_to_neighbours, X, X)


def _split(rows, rng, *, in_time):
    """Return the rows that are learned, and those that are judged: a fifth, or a sixth in time."""
    if in_time:  # ten short runs of successive rows
        judged = np.arange(len(rows)) * 60 // len(rows) % 6 == 5
        return rows[~judged], rows[judged]
    rows = rng.permutation(rows)
    n = max(1, len(rows) // 5)
    n = n if len(rows) - n >= MIN_VECTORS else 1
    return rows[n:], rows[:n]


def main():
    """Measure and report."""
    parser = runs.arguments(arguments(__doc__), list(SETS))
    parser.add_argument("--updated", nargs="*", choices=list(SETS), default=["digits", "thyroid"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--score", default=Config().score, help="score of all versions")
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES),
                        metavar="SET", help="sets of the third table")  # fmt: skip
    options = parser.parse_args()
    kept = runs.Runs.of(options)
    if "candidates" not in options.parts:
        options.arms = []
    keys = [
        (name, seed, world, options.score)
        for seed in range(options.seeds)
        for name in options.arms
        for world in range(WORLDS.get(name, 1))
    ]
    worlds = kept.run(evidence_of_candidates, keys, lambda done: f"rejected {_rejected(done)}")
    groups = {name: [name] for name in options.arms} | {"all": options.arms}
    rows = [
        _row(title, [run for key, done in worlds.items() if key[0] in names for run in done])
        for title, names in groups.items()
        if names
    ]
    updated = options.updated if "updates" in options.parts else []
    keys = [(name, 0, way, options.score) for name in updated for way in WAYS]
    updates = kept.run(run_updates, keys, str)
    further = [
        {"set": name, "updates": way} | shares for (name, _, way, _), shares in updates.items()
    ]
    titled = {"Updates one after another": further} if further else {}
    wanted = options.regimes if "regimes" in options.parts else []
    keys = [(name, seed, options.score) for seed in range(options.seeds) for name in wanted]
    in_turn = kept.run(updates_in_turn, keys, _stops)
    if in_turn:
        titled["Regimes that come for real"] = _rows_of_regimes(in_turn)
    figures = [
        {"world": key, "reasons": verdict(run).reasons} | run
        for key, done in worlds.items()
        for run in done
    ]
    if not rows and titled:  # the report needs a first table
        rows = titled.pop(next(iter(titled)))
    report("gate", rows, options.output, titled, figures=figures)


def verdict(run):
    """Return the gate's verdict on a candidate's stored evidence."""
    return gate(msgspec.convert(run["evidence"], Evidence))


def _stops(updates):
    return "; ".join(reason for update in updates for reason in update["reasons"]) or "none stopped"


def _group(name):
    """Return the name of the row of a set: OddBench's odd and even tables are one row each."""
    if not name.startswith("OddBench"):
        return name
    return "OddBench, odd" if int(name.split()[1]) % 2 else "OddBench, even"


def _rows_of_regimes(in_turn):
    rows, groups = [], dict.fromkeys(_group(name) for name, *_ in in_turn)
    for group in (*groups, "all"):
        chosen = [done for key, done in in_turn.items() if group in {_group(key[0]), "all"}]
        updates = [update for done in chosen for update in done]
        why = Counter(reason.split(":")[0] for u in updates for reason in u["reasons"])
        rows.append({
            "set": group,
            "stopped": f"{sum(bool(u['reasons']) for u in updates)} of {len(updates)}",
            "worse: of stopped, of passed": _worse_of(updates),
            **{
                title: "{:.3f} to {:.3f}".format(*np.mean([u[key] for u in updates], axis=0))
                for title, key in (("AUROC", "auroc"), ("5-NN", "5-NN"))
            },
            "held %": float(100 * np.mean([u["held"] for u in updates])),
            "held back %": float(100 * np.mean([u["back"] for u in updates])),
            "why": ", ".join(f"{n} {reason}" for reason, n in why.items()),
        })  # fmt: skip
    return rows


def _worse_of(updates):
    """Return how many of the stopped and of the passed updates are worse, in words."""
    stopped, passed = (
        [u["worse"] for u in updates if bool(u["reasons"]) is s] for s in (True, False)
    )
    return f"{sum(stopped)} of {len(stopped)}, {sum(passed)} of {len(passed)}"


def _rejected(candidates):
    return ", ".join(candidate["kind"] for candidate in candidates if not verdict(candidate).passed)


def _row(name, candidates):
    row = {"set": name}
    for title, kinds in (("clean", CLEAN), *((kind, (kind,)) for kind in SPOILT)):
        runs = [candidate for candidate in candidates if candidate["kind"] in kinds]
        row[title] = f"{sum(not verdict(run).passed for run in runs)} of {len(runs)}"
    return row


if __name__ == "__main__":
    main()

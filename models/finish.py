"""From trained networks to a version: latents, calibration, reference, lineage, evidence."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.calibration import Calibration, carried, mixed
from models.config import Config, Replay
from models.exemplars import Candidates
from models.latents import Mixture
from models.network import Array, Float64, Network
from models.past import Past
from models.plan import Plan
from models.reference import Reference
from models.scaler import Scaler
from models.scores import score
from models.survey import survey
from models.version import Version

MAX_CODES = 8_000  # codes the latent mixture is fitted to
GENERATED = 4_000  # vectors that carry a calibration over, and that the gate compares on


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training leaves: M networks, what they were trained with, and the loss curve.

    `new` (n, d) is in the client's units; `x`, scaled, starts with the old vectors the strategy
    kept, if any.
    """

    networks: list[Network]
    plan: Plan
    past: Past
    previous: Version | None
    config: Config
    scaler: Scaler
    new: Array
    x: Array
    curve: list[float]
    memory: dict[str, Array]


def finish(trained: Trained) -> Version:
    """Return the version whose network is `networks[0]`, calibrated on vectors held out of it."""
    plan, past, previous = trained.plan, trained.past, trained.previous
    rng = np.random.default_rng([plan.seed, 3])
    network, config = trained.networks[0], trained.config
    share_old = past.learned / (past.learned + len(trained.x))
    held_out = _held_out_scores(trained)
    learned = (int(previous.lineage["learned"]) if previous else 0) + len(trained.new)
    generated = _generated(trained, rng)
    if past.learned and previous:
        before = previous.with_config(config).score_scaled(generated)
        after = score(config.score, network, generated)
        old = carried(_calibration(previous, config).scores, before, after)
    else:
        old = np.empty(0)
    latents = Mixture.fit(_codes(trained, rng), plan.seed)
    kept = _kept(trained, latents, generated)
    version = Version(
        config=config,
        scaler=trained.scaler,
        network=network,
        latents=latents,
        calibration=mixed(old, held_out, share_old),
        reference=(
            previous.reference.updated(trained.new, 1.0 - len(trained.new) / learned)
            if previous
            else Reference.fit(trained.new)
        ),
        kept=kept,
        lineage=_lineage(trained, learned) | {"bytes_kept": kept.nbytes},
        memory=trained.memory,
    )
    version.lineage["evidence"] = _evidence(version, trained, held_out, generated)
    found = survey(version, previous, trained.new, trained.scaler.inverse(generated))
    version.lineage["regimes"] = found.regimes
    return replace(version, memory=trained.memory | found.tensors)


def _kept(trained: Trained, latents: Mixture, generated: Array) -> Array:
    """Return the real vectors that the strategy keeps, scaled (m, d)."""
    previous, choose = trained.previous, trained.past.keep
    new = trained.scaler.transform(trained.new)
    if choose is None:
        return new[:0]
    candidates = Candidates(
        old=previous.kept if previous else new[:0],
        new=new,
        generated=generated,
        learned=trained.past.learned,
        network=trained.networks[0],
        latents=latents,
        rng=np.random.default_rng([trained.plan.seed, 6]),
    )
    return choose(candidates)


def _calibration(previous: Version, config: Config) -> Calibration:
    if previous.config.score == config.score:
        return previous.calibration
    # The score was changed since: the gap between real and generated is unknown under the new
    # one, so the generated scores stand alone for one version.
    generated = previous.draw(GENERATED, np.random.default_rng(0))
    return Calibration(np.sort(previous.with_config(config).score_scaled(generated)))


def _held_out_scores(trained: Trained) -> Float64:
    """Score every vector that a network has not seen with that network, (m,) nats."""
    folds, kind = trained.plan.folds, trained.config.score
    left_out = [folds == (m or -1) for m in range(len(trained.networks))]
    pairs = zip(trained.networks, left_out, strict=True)
    return np.concatenate([score(kind, network, trained.x[out]) for network, out in pairs])


def _generated(trained: Trained, rng: np.random.Generator) -> Array:
    """Draw stand-ins for the old normals, scaled (g, d), that no training step has seen."""
    previous = trained.previous
    if previous is None:
        return trained.x[:0]
    # The most faithful draw there is, whatever way the config chose to replay: beside decoder
    # means every real vector scores beyond the range that the drawn ones can speak for.
    return previous.with_config(replace(previous.config, replay=Replay())).draw(GENERATED, rng)


def _codes(trained: Trained, rng: np.random.Generator) -> Array:
    """Return codes z ~ q(z|x), (m, k), of the old and the new in the ratio of their weights."""
    plan, past = trained.plan, trained.past
    w_new = plan.w_new
    n_new = min(len(trained.x), int(MAX_CODES * w_new) or 1)
    x = trained.x[rng.permutation(len(trained.x))[:n_new]]
    n_old = round(n_new * plan.w_prev / w_new)
    generator = past.generator or trained.previous
    if generator and past.learned and n_old:
        x = np.concatenate([generator.draw(min(n_old, MAX_CODES), rng), x])
    mean, log_variance = trained.networks[0].encode(x)
    noise = rng.standard_normal(mean.shape, dtype=np.float32)
    codes: Array = mean + np.exp(0.5 * log_variance) * noise
    return codes


def _lineage(trained: Trained, learned: int) -> dict[str, Any]:
    plan, previous = trained.plan, trained.previous
    kept = 0 if trained.past.vectors is None else len(trained.past.vectors)
    n_prev = trained.past.learned or kept
    w_new = plan.w_new if not kept else len(trained.new) / len(trained.x)
    return {
        "parent": previous.sha256 if previous else None,
        "strategy": trained.config.strategy,
        "w_prev": 1.0 - w_new,
        "w_new": w_new,
        "n_prev": n_prev,
        "n_new": len(trained.new),
        "learned": learned,
        "experiences": (int(previous.lineage["experiences"]) if previous else 0) + 1,
        "seed": plan.seed,
        "training": {
            "steps": plan.steps,
            "batch_size": plan.batch_size,
            "learning_rate": plan.learning_rate,
            "networks": plan.networks,
            "loss": trained.curve,
        },
    }


def _evidence(
    version: Version, trained: Trained, held_out: Float64, generated: Array
) -> dict[str, Any]:
    """Return alarm rates of champion and candidate, each at its own threshold.

    `new`: on the new normals, for the candidate those held out of it. `old`: on generated ones.
    """
    candidate = version.threshold
    evidence: dict[str, Any] = {
        "n_new": len(held_out),
        "new": {"candidate": float((held_out >= candidate).mean())},
    }
    if trained.previous is not None:
        champion = trained.previous.with_config(trained.config)
        at = champion.threshold
        x_new = trained.scaler.transform(trained.new)
        evidence["new"]["champion"] = float((champion.score_scaled(x_new) >= at).mean())
        evidence["n_old"] = len(generated)
        evidence["old"] = {
            "champion": float((champion.score_scaled(generated) >= at).mean()),
            "candidate": float((version.score_scaled(generated) >= candidate).mean()),
        }
    return evidence

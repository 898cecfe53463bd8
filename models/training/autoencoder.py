"""How the kind `vae` learns: gradient steps on new vectors and on the past."""

import math
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.arrays import Array
from models.config import MIN_VECTORS, Config
from models.errors import TrainingError
from models.strategies.growth import compact
from models.strategies.past import Past, past_of
from models.strategies.step_losses import TrainingSetting
from models.training import labelled_rows, mixing
from models.training.assemble import assemble
from models.training.batches import batches
from models.training.classifier_training import with_solver
from models.training.learner import Progress, Weights
from models.training.likelihood import likelihood_and_scaler
from models.training.plan import Outputs, Plan, plan
from models.training.prepared import PreparedExperience
from models.training.trained import Trained
from models.vae.adam import Adam
from models.vae.device import device
from models.vae.gradient import Gradient
from models.vae.noise import RunningNoise
from models.vae.vae import VAE
from models.version.version import Version

PROBE, LEAST_PROBE = 10, 200  # a probe of weights takes a tenth of the steps, at least 200
PROBED = 2_000  # the old vectors on which a probe's loss is measured
LOSS_EVERY = 10  # steps between two readings of the loss: each reading needs a synchronisation
STEPS_TAKE = 0.85  # share of a training's time: the rest fits the score and calibrates it


def learn(
    given: PreparedExperience, config: Config, weights: Weights
) -> Generator[Progress, None, Version]:
    """Return the version that the config's strategy learns from `given`; see `learner.Learn`."""
    previous, new, classes = given.previous, given.new, given.classes
    likelihood, scaler = likelihood_and_scaler(given, config)
    if likelihood == "identity":
        likelihood = "gaussian"  # vectors drawn from the past may lie outside of [0, 1]
    outputs = Outputs(likelihood, scaler.slots.counts if scaler.slots else ())
    past = past_of(previous, config)
    x = x_new = scaler.transform(new)
    if past.vectors is not None:
        x = np.concatenate([past.vectors, x])
    if past.window is not None:
        x = x[-max(past.window, MIN_VECTORS) :]
    probes = yield from _try_weights(previous, past, x, config, outputs, weights)
    if probes:
        weights = _weights_with(mixing.best_weight(probes, past.learned, len(x)))
    labelled = _rows_in_x(given.vouched, len(new), len(x))
    weights = labelled_rows.weights(weights, config, past.learned, len(x), labelled)
    chosen = plan(previous, past, x, config, outputs, weights)
    x, chosen = labelled_rows.with_copies(x, chosen, labelled)
    vae = _initial_networks(chosen, previous, past)
    setting = TrainingSetting(vae, chosen.w_prev, chosen.w_new, chosen.batch_size, chosen.seed)
    warm = previous is not None and past.warm
    curve = yield from _optimise(setting, chosen, past, x, warm)
    memory: dict[str, Array] = {}
    for remember in past.remember:
        memory |= remember(setting, x_new, previous.memory if previous else {})
    networks = [vae.network(m) for m in range(chosen.networks)]
    if past.grown and past.generator:
        old = past.generator.draw(len(x), np.random.default_rng([chosen.seed, 8]))
        networks[0] = compact(networks[0], np.concatenate([old, x]))
    trained = Trained(
        networks, chosen, past, previous, config, scaler, new, x, curve, memory, labelled
    )
    try:
        version = assemble(trained).with_lineage(probes=tuple(probes))
    except np.linalg.LinAlgError as error:
        raise TrainingError(f"training: what was learned has no covariance: {error}") from None
    version = with_solver(version, previous, past, x_new, classes)
    yield Progress(1.0, curve[-1])
    return version


def _rows_in_x(vouched: NDArray[np.bool_] | None, n: int, total: int) -> NDArray[np.intp]:
    """Return the indices in x of the `vouched` (n,) rows; the n new rows are the last of x."""
    if vouched is None:
        return np.empty(0, np.intp)
    rows = np.flatnonzero(vouched) + total - n
    return rows[rows >= 0]  # a window may have left out some rows


def _try_weights(
    previous: Version | None,
    past: Past,
    x: Array,
    config: Config,
    outputs: Outputs,
    weights: Weights,
) -> Generator[Progress, None, list[dict[str, float]]]:
    """Try mixing weights in short trainings, if the config asks for it; return each one's losses.

    A loss is the mean negative ELBO in nats, on newly drawn old vectors and on held-out new ones.
    """
    probes: list[dict[str, float]] = []
    if (weights or config.weights) != "auto" or previous is None or not past.replays:
        return probes
    for w_new in mixing.candidates(past.learned, len(x)):
        whole = plan(previous, past, x, config, outputs, _weights_with(w_new))
        rng = np.random.default_rng([whole.seed, 11])
        held_out = rng.permutation(len(x)) < max(1, len(x) // 5)
        steps = min(whole.steps, max(LEAST_PROBE, whole.steps // PROBE))
        chosen = replace(whole, folds=np.where(held_out, -1, 0), steps=steps)
        vae = _initial_networks(chosen, previous, past)
        setting = TrainingSetting(vae, chosen.w_prev, w_new, chosen.batch_size, chosen.seed)
        for step in _optimise(setting, chosen, past, x, warm=past.warm):
            yield Progress(0.0, step.loss)
        old = previous.with_config(config).draw(PROBED, rng)
        probes.append({"w_new": w_new, "old": _loss(vae, old), "new": _loss(vae, x[held_out])})
    return probes


def _loss(vae: VAE, x: Array) -> float:
    """Return the mean negative ELBO of network 0 on scaled vectors x (n, d), in nats."""
    features, divergence, _ = vae.network(0).losses(x)
    return float((features.sum(axis=1) + divergence).mean())


def _weights_with(w_new: float) -> dict[str, float]:
    """Return the policy in which the new vectors have the weight `w_new`."""
    return {"w_prev": 1.0 - w_new, "w_new": w_new}


def _initial_networks(chosen: Plan, previous: Version | None, past: Past) -> VAE:
    """Return the networks with which training begins."""
    vae = VAE(chosen.shape, chosen.networks, chosen.dropout, chosen.seed).to(device())
    if previous and past.warm:
        vae.load(past.grown or previous.network)
        for name, parameter in vae.named_parameters():
            parameter.requires_grad = not name.startswith(past.frozen)
    return vae


def _optimise(
    setting: TrainingSetting, chosen: Plan, past: Past, x: Array, warm: bool
) -> Generator[Progress, None, list[float]]:
    """Take the plan's gradient steps; return the mean loss of each tenth of the steps.

    `warm`: the networks begin with the previous version's weights.
    """
    vae = setting.vae
    numpy_rng = np.random.default_rng([chosen.seed, 2])
    torch_rng = torch.Generator().manual_seed(chosen.seed)
    gradient = Gradient(vae)
    optimiser = Adam([gradient.flat])
    noise = RunningNoise(vae, warm=warm) if vae.shape.likelihood == "gaussian" else None
    extras = [extra(setting) for extra in past.extras]
    steps = batches(chosen, past, x, numpy_rng)
    losses: list[float] = []
    loss = math.nan
    parts: tuple[float | None, float | None] = (None, None)
    vae.train()
    for step in range(chosen.steps):
        done = step / chosen.steps
        # A first training learns to reconstruct before the prior constrains the codes. A network
        # that can already reconstruct needs no such warm-up.
        beta = 1.0 if warm else min(1.0, 3.0 * done)
        batch, n_prev, answers = next(steps)
        batch, answers = batch.to(setting.device), answers and answers.to(setting.device)
        read_loss = step % LOSS_EVERY == 0 or step == chosen.steps - 1
        step_losses = gradient(batch, beta, torch_rng, answers, read_loss=read_loss)  # (M,)
        if extras:
            added = torch.stack([extra(batch, n_prev, torch_rng) for extra in extras]).sum(0)
            if added.requires_grad:  # only if there is a past to preserve
                added.sum().backward()  # type: ignore[no-untyped-call]
            step_losses = step_losses + added.detach() if read_loss else step_losses
        optimiser.step(chosen.learning_rate * _rate_factor(done))
        if noise:
            noise.update(gradient.squares)
        if read_loss:
            loss = float(step_losses[0])
            parts = _mean(gradient.rows[:n_prev]), _mean(gradient.rows[n_prev:])
            losses.append(loss)
            if not math.isfinite(loss):
                raise TrainingError(f"training: the loss became {loss} at step {step}")
        yield Progress(STEPS_TAKE * (step + 1) / chosen.steps, loss, *parts)
    if not all(bool(torch.isfinite(p).all()) for p in vae.parameters()):
        raise TrainingError("training: a weight is not finite")
    return [float(np.mean(part)) for part in np.array_split(losses, min(10, len(losses)))]


def _mean(rows: Tensor) -> float | None:
    """Return the mean of losses (n,); None if there are none."""
    return float(rows.mean()) if len(rows) else None


def _rate_factor(done: float) -> float:
    """Return the learning rate's factor: a short rise, then a cosine that falls to a twentieth."""
    return min(1.0, 0.1 + done / 0.05) * (0.05 + 0.475 * (1.0 + math.cos(math.pi * done)))

"""Replay alignment: the new version decodes and encodes old codes as the previous version did.

Wu et al., Memory replay GANs: learning to generate images from new categories without forgetting,
2018, second method. Replayed vectors are not trained on. Instead the loss of the generator G has
the term

    lambda E_z ||G_t(z) - G_{t-1}(z)||^2

with the *same* z for both, drawn from old regimes c (here from the mixture fitted to the previous
version's codes, whose modes are the regimes). A VAE also has an encoder. An encoder that drifts
would score old vectors as anomalous, so its code of x = G_{t-1}(z) has a similar term.

The paper's lambda is 1e-3 for a GAN loss of about 1. An ELBO is a sum over d features in nats, and
hundreds of times larger; a squared difference counts there as precision / 2. Here lambda is
therefore `LAMBDA` nats per unit of squared difference, times w_prev / w_new.
"""

import numpy as np
import torch
from torch import Tensor

from models.strategies.distillation import teacher
from models.strategies.step_losses import StepLoss, TrainingSetting
from models.vae.vae import VAE
from models.version.version import Version

LAMBDA = 1.0
CHUNK = 8_192  # codes are drawn this many at a time


def alignment(previous: Version, setting: TrainingSetting) -> StepLoss:
    """Return the loss lambda odds (squared difference of decoders + of encoders)."""
    old, vae, n = teacher(previous, setting.device), setting.vae, setting.batch_size
    numpy_rng = np.random.default_rng([setting.seed, 4])
    drawn = torch.empty(0, previous.network.shape.latent)

    def loss(batch: Tensor, n_prev: int, rng: torch.Generator) -> Tensor:
        nonlocal drawn
        del batch, n_prev, rng
        if len(drawn) < n:
            codes = previous.latents.sample(max(CHUNK, n), numpy_rng)
            drawn = torch.from_numpy(codes).to(setting.device)
        z, drawn = drawn[:n], drawn[n:]
        return LAMBDA * setting.odds * misalignment(old, vae, z).mean(-1)

    return loss


def misalignment(old: VAE, vae: VAE, z: Tensor) -> Tensor:
    """Return the squared difference of decoders plus encoders for each code z (n, k), (M, n)."""
    networks = len(vae.noise)
    with torch.no_grad():
        x_0 = _decoded_mean(old, z[None])  # (1, n, d)
        code_0 = torch.cat(old.encode(x_0), dim=-1)  # (1, n, 2 k)
    x = _decoded_mean(vae, z.expand(networks, *z.shape))
    code = torch.cat(vae.encode(x_0.expand(networks, *x_0.shape[1:])), dim=-1)
    return (x - x_0).square().sum(-1) + (code - code_0).square().sum(-1)


def _decoded_mean(vae: VAE, z: Tensor) -> Tensor:
    """Return the mean of p(x|z) for codes z (M, n, k), (M, n, d)."""
    decoded = vae.decoder(z)
    bernoulli = vae.shape.likelihood == "bernoulli"
    return torch.sigmoid(decoded) if bernoulli else decoded

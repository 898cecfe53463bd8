"""Soft targets: the new version learns the previous version's answers on old or new vectors.

With q the encoder and p the decoder of the previous version (subscript 0) and of the new one, a
row x adds lambda times

    D(x) = KL(q_0(z|x) || q(z|x)) + E_{z ~ q_0(z|x)} KL(p_0(x'|z) || p(x'|z))    [nats]

This is the divergence between the joints q_0(z|x) p_0(x'|z) and q(z|x) p(x'|z): the previous code
and the previous reconstruction are both targets. Old rows come with their answers, and
`vae.gradient` computes the gradient directly. For new rows autograd computes it. The idea is from
Hinton et al., 2015. Van de Ven et al., Brain-inspired replay, 2020, use it on replayed vectors; Li
& Hoiem, Learning without forgetting, 2016, on new ones; iCaRL, 2017, on exemplars. lambda is 1, as
in all three.
"""

import numpy as np
import torch
from torch import Tensor

from models.arrays import Array
from models.parts.network import posterior_codes
from models.strategies.step_losses import StepLoss, TrainingSetting
from models.vae.gradient import TeacherAnswers
from models.vae.vae import VAE
from models.version.version import Version

LAMBDA = 1.0


def teacher(version: Version, device: torch.device) -> VAE:
    """Return the version's network in torch: one network, on `device`, without gradients."""
    vae = VAE(version.network.shape).to(device)
    vae.load(version.network)
    for parameter in vae.parameters():
        parameter.requires_grad = False
    return vae.eval()


def teacher_answers(previous: Version, x: Array, rng: np.random.Generator) -> TeacherAnswers:
    """Return the previous version's answers on scaled vectors x (n, d)."""
    network = previous.network
    mean, log_variance = network.encode(x)
    z = posterior_codes(mean, log_variance, rng)
    gaussian = network.shape.likelihood == "gaussian"
    variance = network.noise_deviation()[0] ** 2 if gaussian else np.zeros(1, np.float32)
    return TeacherAnswers(
        torch.from_numpy(mean),
        torch.from_numpy(log_variance),
        torch.from_numpy(z),
        torch.from_numpy(network.decode(z)),
        torch.from_numpy(variance),
    )


def divergence(old: VAE, vae: VAE, x: Tensor, rng: torch.Generator) -> Tensor:
    """Return D(x) of each row, (M, n), for x (M, n, d), or for x (1, n, d) under all networks."""
    m, n, d = x.shape
    networks = len(vae.noise)
    with torch.no_grad():
        mean_0, log_variance_0 = (  # (1, m n, k), because the teacher is one network
            part.view(m, n, -1) for part in old.encode(x.reshape(1, m * n, d))
        )
        noise = torch.randn(mean_0.shape, generator=rng).to(x.device)
        z = mean_0 + (0.5 * log_variance_0).exp() * noise
        decoded_0 = old.decoder(z.reshape(1, m * n, -1)).view(m, n, d)
    mean, log_variance = vae.encode(x.expand(networks, n, d))
    codes = 0.5 * (
        log_variance - log_variance_0 - 1.0
        + ((log_variance_0).exp() + (mean - mean_0).square()) * (-log_variance).exp()
    ).sum(-1)  # fmt: skip
    decoded = vae.decoder(z.expand(networks, n, -1))
    return codes + _decoder_divergence(old, decoded_0, vae, decoded)


def _decoder_divergence(old: VAE, decoded_0: Tensor, vae: VAE, decoded: Tensor) -> Tensor:
    """Return KL(p_0(x|z) || p(x|z)), (M, n), from the outputs of both decoders."""
    if vae.shape.likelihood == "bernoulli":
        cross = torch.nn.functional.binary_cross_entropy_with_logits
        soft = torch.sigmoid(decoded_0).expand_as(decoded)
        entropy = cross(decoded_0, torch.sigmoid(decoded_0), reduction="none")
        return (cross(decoded, soft, reduction="none") - entropy).sum(-1)
    m = vae.shape.numbers
    noise_0 = old.noise[..., :m].clamp(min=old.shape.noise_floor)
    noise = vae.noise[..., :m].clamp(min=vae.shape.noise_floor)
    difference = decoded[..., :m] - decoded_0[..., :m]
    spread = (noise_0.exp() + difference.square()) * (-noise).exp()
    nats = 0.5 * (noise - noise_0 - 1.0 + spread).sum(-1)
    for slots in vae.shape.slot_slices:
        log_0, log = (torch.log_softmax(output[..., slots], -1) for output in (decoded_0, decoded))
        nats = nats + (log_0.exp() * (log_0 - log)).sum(-1)
    return nats


def distillation_on_new(previous: Version, setting: TrainingSetting) -> StepLoss:
    """Return the loss lambda D on the batch's new rows, times the past's odds w_prev / w_new."""
    old, vae = teacher(previous, setting.device), setting.vae

    def loss(batch: Tensor, n_prev: int, rng: torch.Generator) -> Tensor:
        return LAMBDA * setting.odds * divergence(old, vae, batch[:, n_prev:], rng).mean(-1)

    return loss

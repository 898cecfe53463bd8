"""The gradient of a step's loss, computed directly: equal to autograd's, without its graph.

The loss is the negative ELBO. If old rows come with the previous version's answers, the divergence
of the new version's answers from them is added.

On small networks, autograd's bookkeeping takes a third of a step; on wide ones, a tenth of a step
goes into new memory from the system. Losses that strategies add still use autograd, which adds
their gradients to the same tensors.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.parts.network import LOG_VARIANCE_RANGE
from models.vae.vae import VAE, Linear, Perceptron

_relu_backward = torch.ops.aten.threshold_backward.grad_input


class TeacherAnswers(NamedTuple):
    """The previous version's answers (subscript 0) on p old rows, which all networks share.

    `mean` and `log_variance` of q_0(z|x) and `z` drawn from it, (p, k); `decoded`, the mean of
    p_0(x|z) there, (p, d), and its `variance`, (d,), 0 for a Bernoulli likelihood. Each row
    counts `weight` times.
    """

    mean: Tensor
    log_variance: Tensor
    z: Tensor
    decoded: Tensor
    variance: Tensor
    weight: float = 1.0

    def to(self, device: torch.device) -> "TeacherAnswers":
        """Return the answers on `device`."""
        *parts, weight = self
        mean, log_variance, z, decoded, variance = (part.to(device) for part in parts)
        return TeacherAnswers(mean, log_variance, z, decoded, variance, weight)

    def rows(self, part: slice) -> "TeacherAnswers":
        """Return the answers on a part of the rows."""
        return self._replace(
            mean=self.mean[part],
            log_variance=self.log_variance[part],
            z=self.z[part],
            decoded=self.decoded[part],
        )


class Gradient:
    """d mean(loss) / d parameter of each of the M networks of `vae`, in `parameter.grad`.

    The loss of a row is -ELBO. The loss of an old row with answers is -ELBO + D(x), as in
    `distillation`: D = KL(q_0(z|x) || q(z|x)) + E KL(p_0(x'|z) || p(x'|z)).

    The parameters become views of one tensor, `flat`, and their gradients views of `flat.grad`, so
    that an optimiser updates all of them at once. The gradient of a frozen parameter stays zero.
    `squares` (M, 1, m) are the last step's mean squared residuals of the m numbers under a Gaussian
    likelihood. `rows` (n,) are the losses of network 0 when the loss was last read.
    """

    def __init__(self, vae: VAE) -> None:
        parameters = list(vae.parameters())
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.flat.grad = torch.zeros_like(self.flat)
        views = zip(
            torch.split(self.flat.detach(), sizes), torch.split(self.flat.grad, sizes), strict=True
        )
        for parameter, (value, gradient) in zip(parameters, views, strict=True):
            parameter.data = value.view_as(parameter)
            if parameter.requires_grad:
                parameter.grad = gradient.view_as(parameter)
        self._vae = vae
        self._encoder, self._decoder = _Pass(vae.encoder), _Pass(vae.decoder)
        self.squares = self.rows = torch.empty(0)

    @torch.no_grad()
    def __call__(
        self,
        x: Tensor,
        beta: float,
        rng: torch.Generator,
        answers: TeacherAnswers | None = None,
        *,
        read_loss: bool,
    ) -> Tensor:
        """Write the gradient at x (M, n, d), with the ELBO's KL term times `beta`.

        `answers` are the previous version's on the first rows. With `read_loss`, returns the mean
        loss of each network, (M,), without D's term for the codes and without constants. Otherwise
        returns an empty tensor, because the gradient does not need the loss.
        """
        shape, (_, n, _) = self._vae.shape, x.shape
        mean, raw = self._encoder.forward(x).chunk(2, dim=-1)  # (M, n, k) each
        log_variance = raw.clamp(*LOG_VARIANCE_RANGE)
        deviation = (0.5 * log_variance).exp_()
        noise = torch.randn(mean.shape, generator=rng).to(mean.device)
        spread = noise.mul_(deviation)  # z - mean
        z, target, weight = mean + spread, x, 1.0
        if answers is not None:
            weight = answers.weight
            z = torch.cat([z, answers.z.expand(len(x), -1, -1)], 1)
            target = torch.cat([x, answers.decoded.expand(len(x), -1, -1)], 1)
        decoded = self._decoder.forward(z)
        loss = torch.empty(0)
        if read_loss:
            kl = 0.5 * (mean.square() + deviation.square() - 1.0 - log_variance).sum(-1)
            nats = self._vae.negative_log_likelihood(target, decoded)
            nats[:, n:] *= weight
            loss = (nats.sum(-1) + beta * kl.sum(-1)) / n
            self.rows = nats[0, :n] + beta * kl[0]
        if shape.likelihood == "bernoulli":
            by_decoded = torch.sigmoid_(decoded).sub_(target.clamp(0.0, 1.0)).div_(n)
            by_decoded[:, n:] *= weight
        else:
            by_decoded = self._gaussian_gradient(target, decoded, answers, n)
            self._categorical_gradient(target, by_decoded, answers, n)
        by_z = self._decoder.backward(by_decoded, inward=True)[:, :n]
        by_log_variance = spread.mul_(by_z).mul_(0.5)
        by_log_variance.add_(deviation.square_().sub_(1.0), alpha=0.5 * beta / n)
        by_mean = by_z.add_(mean, alpha=beta / n)
        if answers is not None:
            by_codes = by_mean, by_log_variance
            self._add_divergence_of_codes(by_codes, (mean, log_variance), answers, n)
        by_log_variance.mul_(raw == log_variance)  # the gradient is 0 where the value was clamped
        self._encoder.backward(torch.cat([by_mean, by_log_variance], dim=-1), inward=False)
        return loss

    @staticmethod
    def _add_divergence_of_codes(
        by_codes: tuple[Tensor, Tensor],
        codes: tuple[Tensor, Tensor],
        answers: TeacherAnswers,
        n: int,
    ) -> None:
        """Add the gradient of KL(q_0(z|x) || q(z|x)) on the old rows, which come first.

        `codes` are mean and log variance of q(z|x), (M, n, k) each; `by_codes` are their gradients.
        """
        old, share = len(answers.z), answers.weight / n
        (by_mean, by_log_variance), (mean, log_variance) = by_codes, codes
        difference = mean[:, :old] - answers.mean
        precision = (-log_variance[:, :old]).exp_()
        by_mean[:, :old] += difference * precision * share
        spread_0 = answers.log_variance.exp() + difference.square_()
        by_log_variance[:, :old] += (0.5 * share) * (1.0 - spread_0 * precision)

    def _gaussian_gradient(
        self, target: Tensor, decoded: Tensor, answers: TeacherAnswers | None, n: int
    ) -> Tensor:
        """Return d mean(-log p) / d decoded, (M, n, d), and write the gradient of the noise.

        The entries for the slots of categories keep their decoded values.
        """
        m, rows = self._vae.shape.numbers, float(n)
        noise, grad = self._vae.noise[..., :m], self._vae.noise.grad
        floored = noise.clamp(min=self._vae.shape.noise_floor)
        precision = (-floored).exp_()
        residual = decoded[..., :m].sub_(target[..., :m])
        squares = _sum_of_squares(residual[:, :n])
        if answers is not None:
            squares_old, old = _sum_of_squares(residual[:, n:]), len(answers.z)
            # add the variance of p_0, which its mean does not contain
            squares_old.add_(answers.variance[:m], alpha=old)
            squares.add_(squares_old, alpha=answers.weight)
            rows += answers.weight * old
            residual[:, n:] *= answers.weight
        self.squares = squares / rows
        if grad is not None:
            by_noise = squares.mul_(precision).mul_(-0.5 / n).add_(0.5 * rows / n)
            torch.mul(by_noise, noise >= self._vae.shape.noise_floor, out=grad[..., :m])
        residual.mul_(precision.div_(n))
        return decoded

    def _categorical_gradient(
        self, target: Tensor, decoded: Tensor, answers: TeacherAnswers | None, n: int
    ) -> None:
        """Replace the slots in `decoded` (M, n, d) by d mean(-log p) / d decoded."""
        for slots in self._vae.shape.slot_slices:
            by_slots = torch.softmax(decoded[..., slots], -1).sub_(target[..., slots]).div_(n)
            if answers is not None:
                by_slots[:, n:] *= answers.weight
            decoded[..., slots] = by_slots


def _sum_of_squares(residual: Tensor) -> Tensor:
    """Return the sum of squares over the rows of (M, n, d): (M, 1, d)."""
    return residual.square().sum(1, keepdim=True)  # torch.linalg.vector_norm is slower


class _Pass:
    """A perceptron's forward pass, and its backward pass with the gradients of its parameters."""

    def __init__(self, perceptron: Perceptron) -> None:
        self._perceptron = perceptron
        layers = [layer for layer in perceptron.layers if isinstance(layer, Linear)]
        self._layers = [(layer.weight, layer.bias) for layer in layers]
        self._inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Map x (M, n, i) to (M, n, o), and remember the input of each layer."""
        self._inputs = [x]
        for weight, bias in self._layers[:-1]:
            x = torch.baddbmm(bias, x, weight).relu_()
            x = self._perceptron.drop(x)
            self._inputs.append(x)
        weight, bias = self._layers[-1]
        return torch.baddbmm(bias, x, weight)

    def backward(self, by_output: Tensor, *, inward: bool) -> Tensor:
        """Write the parameters' gradients; return the input's, (M, n, i), if `inward`."""
        gradient, kept = by_output, 1.0 - self._perceptron.dropout  # (M, n, o) of each layer
        for i in range(len(self._layers) - 1, -1, -1):
            (weight, bias), x = self._layers[i], self._inputs[i]
            if weight.grad is not None and bias.grad is not None:
                weight.grad.baddbmm_(x.mT, gradient, beta=0)
                torch.sum(gradient, 1, keepdim=True, out=bias.grad)
            if i or inward:
                gradient = torch.bmm(gradient, weight.mT)
            if i:  # x is 0 where a unit was off, or dropped
                _relu_backward(gradient, x, 0.0, grad_input=gradient)
                if kept < 1.0:
                    gradient.div_(kept)
        return gradient

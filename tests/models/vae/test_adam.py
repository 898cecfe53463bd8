"""The optimiser's step."""

import torch

from models.vae.adam import Adam


def test_a_step_equals_that_of_torch() -> None:
    """A step equals torch's bit for bit, over several tensors and a changing rate."""
    rng = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=rng, requires_grad=True) for shape in ((3, 4), (5,))]
    theirs = [our.detach().clone().requires_grad_() for our in ours]
    mine, peer = Adam(ours), torch.optim.Adam(theirs, fused=True)
    for rate in (0.1, 0.03, 0.01):
        peer.param_groups[0]["lr"] = rate
        for our, other in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=rng)
            other.grad = our.grad.clone()
        mine.step(rate)
        peer.step()
    for our, other in zip(ours, theirs, strict=True):
        assert torch.equal(our, other)

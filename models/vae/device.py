"""The device on which networks are trained, for the whole process, like torch's number of threads.

All random numbers are drawn on the processor and then moved. So a training draws the same numbers
on every device, and results differ by rounding alone. A version holds numpy arrays, wherever its
network was trained; scoring never uses the device.
"""

import torch

from models.errors import ConfigError

_chosen = torch.device("cpu")


def use_device(device: str) -> str:
    """Train on `device` from now on, and return the name of the device: `cpu` or `cuda`.

    `device` is one of these, or `auto`: a GPU if torch can use one, else the processor. Raises
    ConfigError for `cuda` if torch cannot use a GPU, and for any other name.
    """
    global _chosen  # noqa: PLW0603 - torch's number of threads belongs to the process too
    if device not in ("cpu", "auto", "cuda"):
        raise ConfigError(f"device: {device!r} is none of cpu, auto, cuda")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        why = "finds none" if torch.version.cuda else "was built without CUDA"
        raise ConfigError(f"device: cuda needs a GPU, and torch {torch.__version__} {why}")
    _chosen = torch.device("cuda" if has_gpu and device != "cpu" else "cpu")
    return _chosen.type


def device() -> torch.device:
    """Return the device on which networks are trained."""
    return _chosen

"""The arms of the continual benchmarks by name, with the config of each arm's detector."""

from benchmarks.learners import TARGET, Ours, Peer
from models import Config, Model, Replay

HARD = Model(targets="hard")  # the literature replays vectors without the champion's outputs

OURS = {
    "replay": {},
    "replay, auto": {"score": "auto"},
    "replay, hard": {"model": HARD},
    "replay, prior + sample": {
        "model": HARD,
        "replay": Replay(latents="prior", decode="sample"),
    },
    "replay, prior + mean": {
        "model": HARD,
        "replay": Replay(latents="prior", decode="mean"),
        "weights": "equal",
        "score": "reconstruction",
    },
    "replay, neighbours": {"score": "neighbours"},
    "replay, by regime": {"score": "elbo+regime"},
    "replay, weights auto": {"weights": "auto"},
    "replay, stable": {"model": Model(regime="stable")},
    "distillation": {"strategy": "distillation"},
    "distillation + reservoir": {"strategy": "distillation+reservoir"},
    "replay_alignment": {"strategy": "replay_alignment"},
    "ewc": {"strategy": "ewc"},
    "lwf": {"strategy": "lwf"},
    "expand": {"strategy": "expand"},
    "reservoir": {"strategy": "reservoir"},
    "herding": {"strategy": "reservoir", "model": Model(choice="herding")},
    "icarl": {"strategy": "icarl"},
    "fixed": {"strategy": "fixed"},
    "window": {"strategy": "window"},
    "finetune": {"strategy": "finetune"},
    "joint": {"strategy": "joint"},
    "mahalanobis": {"kind": "mahalanobis"},
}
KEEPING = {  # detectors that keep all vectors, or learn only the newest task
    "5-NN joint": ("5-NN", True),
    "5-NN naive": ("5-NN", False),
    "forest joint": ("IForest", True),
    "forest naive": ("IForest", False),
    "PCA joint": ("PCA", True),
}
ARMS = (*OURS, *KEEPING)


def learner(arm, seed):
    """Return a new learner by its arm's name."""
    if arm in KEEPING:
        name, joint = KEEPING[arm]
        return Peer(name, seed, joint)
    # The tables in the docs compare ways to learn under one score, `elbo`.
    options = {"score": "elbo"} | OURS[arm]
    return Ours(Config(threshold={"fpr": TARGET}, seed=seed, **options))

"""What the default score would be without one of its parts: tables print it beside the whole."""

from models.scores.auto import Auto, joined, parts_of

WITHOUT = ("without the network", "without the densities")


def ablated(version, X):
    """Return the scores (n,) of X (n, d) without each part; nothing for another score than `auto`.

    The third ablation, without replay, is another training: strategy `finetune`.
    """
    if version.config.score != "auto":
        return {}
    score = Auto.from_tensors(version.network, version.scoring)
    parts = parts_of(score, version.scaler.transform(X))
    surprises = score.surprises(parts)
    network = surprises[0].copy()
    surprises[0] = 0.0
    return dict(zip(WITHOUT, (joined(surprises), network), strict=True))

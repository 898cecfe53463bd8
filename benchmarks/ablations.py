"""What the default score would be without one of its parts: tables print it beside the whole."""

from models.scores.auto import ONE_BY_ONE, Auto, parts_of

WITHOUT = ("without the network", "without the densities")


def ablated(version, X):
    """Return the scores (n,) of X (n, d) without each part; nothing for another score than `auto`.

    The third ablation, without replay, is another training: strategy `finetune`.
    """
    if version.config.score != "auto":
        return {}
    score = Auto.from_tensors(version.network, version.scoring)
    parts = parts_of(score, version.scaler.transform(X))
    network, drawn_in, normal, alone = score.surprises(parts)
    densities = drawn_in.clip(min=normal) + ONE_BY_ONE * alone
    return dict(zip(WITHOUT, (densities, network), strict=True))

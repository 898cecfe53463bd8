"""The measures of continual learning, defined exactly: papers use the same words differently.

R[i, j] of R (N, N) is the AUROC on task j after task i is learned.
"""

import numpy as np


def continual_average(R):
    """Return CA = sum_{i >= j} R_ij / (N (N + 1) / 2): the mean over every task and its past.

    >>> round(continual_average(np.array([[1.0, 0.5], [0.4, 1.0]])), 6)
    0.8
    """
    n = len(R)
    return float(np.tril(R).sum() / (n * (n + 1) / 2))


def backward_transfer(R):
    """Return BWT = sum_{i >= 2} sum_{j < i} (R_ij - R_jj) / (N (N - 1) / 2).

    It is the mean change of an old task since it was learned; a loss is below 0.

    >>> round(backward_transfer(np.array([[1.0, 0.5], [0.4, 1.0]])), 6)
    -0.6
    """
    n = len(R)
    lost = np.tril(R - np.diag(R)[None, :], -1).sum()
    return float(lost / (n * (n - 1) / 2))


def backward_transfer_stepwise(R):
    """Return BWT as pyCLAD computes it: the mean of R_ij - R_{i-1,j} over j < i, a loss per step.

    >>> round(backward_transfer_stepwise(np.array([[1.0, 0.5], [0.4, 1.0]])), 6)
    -0.6
    """
    n = len(R)
    steps = [R[i, j] - R[i - 1, j] for i in range(1, n) for j in range(i)]
    return float(np.mean(steps))


def forward_transfer(R):
    """Return FWT = sum_{i < j} R_ij / (N (N - 1) / 2): the mean on tasks not learned yet.

    >>> forward_transfer(np.array([[1.0, 0.5], [0.4, 1.0]]))
    0.5
    """
    n = len(R)
    return float(np.triu(R, 1).sum() / (n * (n - 1) / 2))


def forgetting(R):
    """Return the forgetting of each task, (N,): max_i R_ij - R_Nj, its best minus its last.

    >>> forgetting(np.array([[1.0, 0.5], [0.4, 1.0]]))
    array([0.6, 0. ])
    """
    return R.max(axis=0) - R[-1]


def all_measures(R):
    """Return every measure by its column name."""
    return {
        "CA": continual_average(R),
        "BWT": backward_transfer(R),
        "BWT step": backward_transfer_stepwise(R),
        "FWT": forward_transfer(R),
        "forgetting": float(forgetting(R)[:-1].mean()),
    }

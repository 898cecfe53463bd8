"""The demonstration's table: a row for every new champion, and a sentence about the last rows."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

FIRST = 1  # the digit learned first


@dataclass(frozen=True, slots=True)
class Row:
    """One new champion: the digit it learned, and how well it scores rows it never saw."""

    digit: int
    arm: str
    version: int
    w_prev: float
    w_new: float
    seconds: float
    auroc: float  # digit 0 against all digits learned so far
    false_alarms: dict[int, float]  # share of each learned digit's test rows called anomalous
    pooled: float  # the same over all learned digits together
    samples: np.ndarray  # (n, 64), drawn from the version's generator


def shown(rows: Iterator[Row], console: Console, target: float) -> Generator[Row, None, None]:
    """Yield the rows while a table of them grows on the console."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("learned")
    table.add_column("strategy")
    columns = ("version", "w_prev / w_new", "seconds", "AUROC", "newest", "oldest")
    for column in columns:
        table.add_column(column, justify="right")
    with Live(table, console=console, vertical_overflow="visible"):
        for row in rows:
            table.add_row(
                f"1..{row.digit}" if row.digit > 1 else "1",
                row.arm,
                str(row.version),
                f"{row.w_prev:.3f} / {row.w_new:.3f}",
                f"{row.seconds:.1f}",
                f"{row.auroc:.3f}",
                f"{row.false_alarms[row.digit]:.1%}",
                f"{row.false_alarms[FIRST]:.1%}",
                end_section=row.arm == "finetune",
            )
            yield row
    if not console.is_terminal:
        console.print()
    console.print(
        "strategy: replay mixes each new digit with vectors drawn from its own generator, "
        "finetune trains on the new digit alone. w_prev / w_new: the shares of drawn and of new "
        "vectors. AUROC: digit 0 against all digits learned so far. newest, oldest: the rate of "
        f"false alarms on the digit just learned and on digit 1; the target is {target:.0%}. All "
        "figures are for test rows that were never sent.",
        style="dim",
    )


def sentence(rows: Sequence[Row], target: float) -> str:
    """Return the conclusion from the last rows of both detectors. It depends on their numbers."""
    last = {row.arm: row for row in rows}
    replay, finetune = last["replay"], last["finetune"]
    gain = replay.auroc - finetune.auroc
    if gain >= 0.05:
        verdict = "Replay kept what finetuning forgot"
    elif gain > -0.05:
        verdict = "Replay and finetuning ended level"
    else:
        verdict = "Replay did worse than finetuning"
    return (
        f"{verdict}: after digit {replay.digit}, replay tells 0 from every digit learned "
        f"with AUROC {replay.auroc:.3f}, finetuning with {finetune.auroc:.3f}. "
        f"At a target of {target:.0%}, replay raises false alarms on {replay.pooled:.1%} of all "
        f"learned digits ({replay.false_alarms[FIRST]:.1%} of digit {FIRST}, learned first), "
        f"finetuning on {finetune.pooled:.1%} ({finetune.false_alarms[FIRST]:.1%})."
    )

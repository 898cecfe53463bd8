"""Shows a version in one line, and as a small table in a notebook."""

from html import escape

from models.config import Config
from models.parts.lineage import Lineage


class Summarised:
    """Shows a summary of a version instead of its weights."""

    config: Config
    lineage: Lineage

    def _summary(self) -> dict[str, str]:
        columns, named = self.config.names, ""
        if columns is not None:
            shown = [*columns[:4], "..."] if len(columns) > 4 else columns
            named = f" ({', '.join(shown)})"
        return {
            "kind": self.config.kind,
            "columns": f"{self.config.dimension}{named}",
            "score": self.config.score,
            "strategy": self.config.strategy,
            "learned": str(self.lineage.learned),
            "experiences": str(self.lineage.experiences),
            "threshold": ", ".join(
                f"{name} {value}" for name, value in self.config.threshold.items()
            ),
        }

    def __repr__(self) -> str:
        return f"Version({', '.join(f'{name}={value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        """Return a small table for a notebook."""
        rows = (
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        return f"<table>{''.join(rows)}</table>"

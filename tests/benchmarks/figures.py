"""What was measured: figures beside their reference and their target, as a table for people and JSON for programs."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Samples = Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a row ought to reach."""

    of: str  #: ``value`` (ours alone), ``ratio`` (ours over the reference) or ``excess`` (ours minus the reference)
    most: float | None = None
    least: float | None = None

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether the row's figures reach it."""
        figure = figures[self.of]
        return (self.most is None or figure <= self.most) and (self.least is None or figure >= self.least)

    def text(self, unit: str) -> str:
        """As the table shows it."""
        bound = f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}"
        return {"value": f"{bound} {unit}", "ratio": f"{bound}x", "excess": f"{bound} {unit} over it"}[self.of]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table; samples of ours and of the reference belong together by their index."""

    what: str
    unit: str
    ours: Samples
    against: str = ""
    reference: Samples = ()
    target: Target | None = None

    def figures(self) -> dict[str, float]:
        """Medians: of ours, and of what each pair says about ours beside the reference."""
        figures = {"value": statistics.median(self.ours)}
        if self.reference:
            pairs = list(zip(self.ours, self.reference, strict=True))
            figures["reference"] = statistics.median(self.reference)
            figures["excess"] = statistics.median(ours - other for ours, other in pairs)
            if all(self.reference):
                figures["ratio"] = statistics.median(ours / other for ours, other in pairs)
        return figures

    def as_dict(self) -> dict[str, Any]:
        """For the machine-readable result."""
        figures = self.figures()
        return {**asdict(self), **figures, "met": self.target.met(figures) if self.target else None}

    def cells(self) -> tuple[str, ...]:
        """For people."""
        figures = self.figures()
        verdict = ""
        if self.target:
            verdict = f"{self.target.text(self.unit)}: {'met' if self.target.met(figures) else 'MISSED'}"
        reference = f"{_short(figures['reference'])} {self.unit}, {self.against}" if self.reference else ""
        return self.what, f"{_short(figures['value'])} {self.unit}", reference, self._beside(figures), verdict

    def _beside(self, figures: Mapping[str, float]) -> str:
        if self.target and self.target.of == "excess":
            return f"{figures['excess']:+.1f} {self.unit}"
        return f"{_short(figures['ratio'])}x" if "ratio" in figures else ""


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


@dataclass(kw_only=True, slots=True)
class Table:
    """All rows of this run."""

    rows: list[Row] = field(default_factory=list)
    written_to: Path | None = None

    def lines(self) -> Iterator[str]:
        """The table as text, columns aligned."""
        cells = [("what", "ours", "floor or peer", "beside it", "target"), *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()

    def write(self, path: Path) -> None:
        """Keep all figures and samples as JSON."""
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
        result = {"machine": machine, "rows": [row.as_dict() for row in self.rows]}
        path.write_text(json.dumps(result, indent=1) + "\n")
        self.written_to = path

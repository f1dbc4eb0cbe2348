"""All answers of the model, and the files that they are written to: a table for each answer, one page, and a figure."""

from pathlib import Path

import pandas as pd

from analysis.figures import draw_into
from analysis.figures.model import draw_model
from analysis.model.answers import (
    Fitted,
    assumptions,
    beyond,
    fleet,
    held_out,
    other_checks,
    parameters,
    switches,
)
from analysis.model.tables import page
from analysis.results import stored_result
from records.run import runs_in

PAGE = "model.md"


def switches_of(run: Path) -> pd.DataFrame:
    """The summary of a run whose variants are switches of the library. Raises RecordError."""
    return pd.concat([stored_result(part).summary for part in runs_in(run)])


def answers(fits: list[Fitted], cores: list[int], demand: int, measured: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All answers of the model: name of the table -> table. measured: what switches_of() returns."""
    return {
        "held-out": held_out(fits),
        "assumptions": assumptions(fits),
        "parameters": parameters(fits),
        "other-checks": other_checks(fits),
        "beyond": beyond(fits, cores),
        "switches": switches(fits, cores, measured),
        "fleet": fleet(fits, demand),
    }


def write(directory: Path, fits: list[Fitted], found: dict[str, pd.DataFrame], demand: int) -> Path:
    """Write model.md, tables/ and figures/ into the directory. Returns the path of model.md."""
    folder = directory / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in found.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    draw_into(directory / "figures", "model", lambda: draw_model(fits))
    (directory / PAGE).write_text(page(found, demand))
    return directory / PAGE

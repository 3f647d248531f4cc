"""Every folder of a checkout, named once. Relative to the folder that holds the Snakefile."""

from pathlib import Path

from prefdist.errors import UserError


def project_root() -> Path:
    """The nearest folder upwards of the working directory that holds a Snakefile."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file() and (folder / "workflow").is_dir():
            return folder
    raise UserError(f"{here}: no Snakefile here or above; run prefdist inside a checkout")


SUITES = Path("workflow/suites")
ARTEFACTS = Path("artefacts")
SCRATCH = Path("scratch")
RESULTS = Path("results")
LOGS = Path("logs")

"""Every folder of a checkout, named once, relative to the folder that holds the Snakefile; what a model folder must hold."""

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
PUBLISHED = Path("workflow/published")
HUB_MODELS = Path("workflow/hub_models.yaml")
ARTEFACTS = Path("artefacts")
SCRATCH = Path("scratch")
RESULTS = Path("results")
LATEST = RESULTS / "latest"
DATA = Path("data")
PLAN = DATA / "plan.json"
LOGS = Path("logs")

TIMINGS = "timings.json"
"""Seconds of the steps that made an artefact: verified as any file, but no part of its content, which they do not change."""


def check_model_folder(folder: Path) -> None:
    """UserError unless the folder has a config.json and safetensors weights."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json there; name a folder saved by transformers' save_pretrained")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: no *.safetensors weights there; only safetensors are loaded, save the model again")

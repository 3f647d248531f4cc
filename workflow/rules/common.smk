# What the rules share: the checked suites and their planned artefacts. Nothing starts unless every suite is valid.
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from prefdist import containers, restart
from prefdist.suites import load_suite
from prefdist.errors import UserError
from prefdist.exports.sources import tables
from prefdist.plan import plan
from prefdist.results.marker import discard_if_stale

# Snakemakes that run single jobs are part of the one that is alive already.
ALONE = workflow.is_main_process and restart.claim(Path.cwd())

try:
    if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
        os.environ[containers.PYTHON] = containers.built(Path.cwd(), "train")["python"]
    SUITES = {file.stem: load_suite(file.stem, Path.cwd()) for file in sorted(Path("workflow/suites").glob("*.yaml"))}
    PLANS = {name: plan(suite) for name, suite in SUITES.items()}
except UserError as error:
    raise WorkflowError(str(error)) from None

ABLATIONS = {(name, ablation): of for name, made in PLANS.items() for ablation, of in made.ablations.items()}
ARTEFACTS = {path: artefact for made in PLANS.values() for path, artefact in made.artefacts.items()}
SUITE_OF = {path: name for name, made in PLANS.items() for path in made.artefacts}

for _made in (*PLANS.values(), *ABLATIONS.values()):
    discard_if_stale(Path.cwd(), _made.published)


def finals(suite):
    """What a suite ends with: its tables and figures, and those of its ablations, in results/."""
    return [str(made.published) for made in (PLANS[suite], *PLANS[suite].ablations.values())]


def inputs(stage):
    """What an artefact of a stage is made from: a folder is complete when its provenance is there."""
    return lambda wildcards: [f"{a.path}/provenance.json" for a in _artefact(stage, wildcards).inputs.values()]


def code(stage):
    """Digest of the code that makes it: a parameter, so that a change re-runs the stage."""
    return lambda wildcards: _artefact(stage, wildcards).code_digest


def suite(stage):
    return lambda wildcards: SUITE_OF[str(_artefact(stage, wildcards).path)]


def _artefact(stage, wildcards):
    folder = f"artefacts/{stage}/{wildcards.name}"
    if folder not in ARTEFACTS:
        raise WorkflowError(f"{folder} is not planned by any suite; `prefdist plan <suite> --artefacts` lists what is")
    return ARTEFACTS[folder]


onstart:
    if ALONE and workflow.executor_plugin.name == "slurm":
        restart.sweep(Path.cwd(), workflow.executor_settings.jobname_prefix)

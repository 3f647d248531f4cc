"""From a suite to its artefacts: what is made, from what, and where. Nothing is made here.

An artefact's folder is artefacts/<stage>/<name>-<digest>; the digest covers the stage's whole specification and the
digests of its inputs, so what two runs have in common exists once, and a changed value gives new folders to exactly what
depends on it. Code is not in the digest: the rules pass it to Snakemake as a parameter, which re-runs in place.
"""

from pathlib import Path

from prefdist.config.adl import AdlSuite
from prefdist.config.exact import ExactSuite
from prefdist.config.pad import PadSuite
from prefdist.config.spl import SplSuite
from prefdist.objectives.registry import FAMILIES
from prefdist.paths import RESULTS
from prefdist.plan.alignment import Alignment
from prefdist.plan.behaviour import Behaviour
from prefdist.plan.distillation import Distillation
from prefdist.plan.graph import STAGES, Artefact, Plan
from prefdist.plan.testbed import Testbed
from prefdist.suites import AnySuite

__all__ = ["STAGES", "Artefact", "Plan", "plan"]


def plan(suite: AnySuite, root: Path = Path()) -> Plan:
    """The artefacts of a suite of the checkout `root`."""
    results = RESULTS / suite.suite / suite.version
    if isinstance(suite, ExactSuite):
        return Plan(_exact_results(suite), results)
    planned: Alignment | Distillation | Behaviour
    if isinstance(suite, AdlSuite | PadSuite | SplSuite):
        if isinstance(suite, AdlSuite):
            planned = Alignment(suite)
        else:
            planned = Distillation(suite, root) if isinstance(suite, PadSuite) else Behaviour(suite, root)
        return Plan(planned.results(), results, {name: planned.ablation(name) for name in suite.ablations})
    return Plan(Testbed(suite).results(), results)


def _exact_results(suite: ExactSuite) -> Artefact:
    """A stage a study: a change in one's code leaves the others alone. Only the optima look at every objective."""
    code = {"optima": tuple(FAMILIES.values())}
    studies = {name: Artefact(f"exact_{name}", name, spec, code=code.get(name, ())) for name, spec in suite.studies.items()}
    return Artefact("exact_results", suite.suite, {}, studies)

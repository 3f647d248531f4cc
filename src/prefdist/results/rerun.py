"""Make a release again from scratch, and see which of its cells come out inside their intervals."""

import shutil
import subprocess
import sys
import uuid

from prefdist.checkouts import copy_checkout, environment_of
from prefdist.errors import UserError
from prefdist.paths import SCRATCH, SUITES
from prefdist.plan import Plan, plan
from prefdist.results.differences import Difference, differences
from prefdist.results.marker import published_folder
from prefdist.results.release import Release
from prefdist.suites import load_suite


def rerun(release: Release, cores: int) -> list[Difference]:
    """Every cell of the release (a) beside the one that this checkout's code makes now (b), in a copy of the checkout.

    The copy lies in scratch/ and is removed at the end, unless the run failed.

    Raises:
        UserError: the suite is at another version or has another configuration by now, or the run failed.
    """
    made = _planned(release)
    copy = copy_checkout(release.root, release.root / SCRATCH / f"rerun-{made.final.name}-{uuid.uuid4().hex[:8]}")
    target = f"{release.suite}_{release.ablation}" if release.ablation else release.suite
    print(f"making {target} from scratch in {copy.relative_to(release.root)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--", target]
    done = subprocess.run(command, cwd=copy, env=environment_of(copy), stdout=sys.stderr, check=False)
    folder = published_folder(copy, made.published)
    if done.returncode or folder is None:
        raise UserError(f"{target}: the run stopped; its logs are in {copy.relative_to(release.root) / 'logs'}")
    found = differences(release.path, copy / folder)
    shutil.rmtree(copy)
    return found


def _planned(release: Release) -> Plan:
    """What makes it. UserError where this checkout makes something else."""
    suite = load_suite(release.suite, release.root)
    made = plan(suite, release.root)
    version, commit = release.version.split("+")[0], release.record()["git"]["commit"]
    advice = f"check out {commit}, where it was made, and run again" if commit else "check out what it was made with"
    if suite.version != version:
        raise UserError(f"{SUITES / release.suite}.yaml: version: {suite.version!r} is not {version!r}; {advice}")
    if release.ablation and release.ablation not in made.ablations:
        raise UserError(f"{SUITES / release.suite}.yaml: no ablation {release.ablation} any more; {advice}")
    made = made.ablations[release.ablation] if release.ablation else made
    if made.final.digest != release.record()["config"]:
        raise UserError(f"{SUITES / release.suite}.yaml: not the configuration of {release.folder} any more; {advice}")
    return made

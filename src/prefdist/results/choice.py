"""Which published tables a command means."""

from prefdist.errors import UserError
from prefdist.paths import SUITES, project_root
from prefdist.plan import plan
from prefdist.results.marker import published_folder
from prefdist.results.release import Release, find
from prefdist.suites import load_suite


def chosen(suite: str, version: str | None, ablation: str | None) -> Release:
    """A suite's tables; those of the version that its YAML names, if none is given."""
    root = project_root()
    if version is None and (root / SUITES / f"{suite}.yaml").is_file():
        version = load_suite(suite, root).version
    return find(root, suite, version or "", ablation)


def made_last(suite: str, ablation: str | None) -> Release:
    """What this checkout made of the suite as it is now. UserError if it has made nothing yet."""
    root = project_root()
    made = plan(load_suite(suite, root), root)
    if ablation and ablation not in made.ablations:
        known = ", ".join(made.ablations) or "none"
        raise UserError(f"--ablation {ablation}: not an ablation of suite {suite}; its ablations are: {known}")
    folder = published_folder(root, (made.ablations[ablation] if ablation else made).published)
    if folder is None:
        target = f"{suite}_{ablation}" if ablation else suite
        raise UserError(
            f"{target}: this checkout has made no tables of it; name a version to compare with, or: snakemake {target}"
        )
    return Release(root, folder)

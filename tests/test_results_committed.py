"""The tables that this repository holds are what their records say."""

from pathlib import Path
from typing import Any

import pytest

from prefdist import cli
from prefdist.results.release import releases

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("release", releases(ROOT), ids=lambda release: str(release.folder))
def test_the_releases_of_this_repository_hold_what_they_say(release: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    of = ["--ablation", release.ablation] if release.ablation else []
    assert cli.main(["results", "verify", release.suite, release.version, *of]) == 0


def test_every_committed_folder_of_tables_is_a_release() -> None:
    folders = {
        file.parent.relative_to(ROOT)
        for pattern in ("*/v*/", "*/v*-ablations/*/")
        for file in ROOT.glob(f"results/{pattern}*.csv")
    }
    assert folders == {release.folder for release in releases(ROOT)}

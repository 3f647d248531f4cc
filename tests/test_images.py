"""The recipes of the images: complete, linted, and known by the same digest inside and outside."""

import shutil
import subprocess
from pathlib import Path

import pytest
from checkouts import ROOT

from prefdist import containers
from prefdist.artefacts import environment
from prefdist.errors import UserError

ENGINES = ("def", "Dockerfile")


def _checkout(folder: Path) -> Path:
    for image in containers.IMAGES:
        for file in containers.recipe(image):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    return folder


@pytest.mark.parametrize("image", ["train", "sample"])
def test_dockerfiles_have_no_finding_of_hadolint(image: str) -> None:
    done = subprocess.run(["hadolint", ROOT / f"containers/{image}.Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", ["install.sh", "environment.sh", "prefdist"])
def test_scripts_are_valid(script: str) -> None:
    subprocess.run(["sh", "-n", ROOT / "containers" / script], check=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("image", containers.IMAGES)
def test_both_definitions_take_the_whole_recipe(image: str, engine: str) -> None:
    text = (ROOT / f"containers/{containers.definition(image)}.{engine}").read_text()
    lock = containers.IMAGES[image][-1]
    text = text.replace("{{ lock }}", lock).replace("${LOCK}", lock)
    assert all(str(file) in text for file in containers.recipe(image))


@pytest.mark.parametrize("image", containers.IMAGES)
def test_the_image_computes_the_identity_that_the_checkout_expects(image: str, tmp_path: Path) -> None:
    for file in containers.recipe(image):
        shutil.copy(ROOT / file, tmp_path)
    (line,) = (line for line in (ROOT / "containers/install.sh").read_text().splitlines() if "sha256sum" in line)
    command = line.removesuffix(" > /opt/prefdist/identity")
    assert command != line
    inside = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert inside == containers.identity(ROOT, image)


def test_another_lock_is_another_image_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _checkout(tmp_path)
    image = f"train@{containers.identity(root, 'train')}"
    monkeypatch.setenv(containers.VARIABLE, image)
    containers.check_running(root)
    assert environment()["container"] == image
    with (root / "requirements/lock.txt").open("a") as lock:
        lock.write("another==1.0\n")
    with pytest.raises(UserError, match=f"the image is {image}, this checkout wants train@.*make images"):
        containers.check_running(root)
    monkeypatch.setenv(containers.VARIABLE, "other@0")
    with pytest.raises(UserError, match="wants train or sample"):
        containers.check_running(root)


def test_outside_an_image_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(containers.VARIABLE, raising=False)
    containers.check_running(tmp_path)
    assert environment()["container"] is None


def test_locks_are_pins_only() -> None:
    """A version for each package, so that pip can be told to resolve nothing."""
    for lock in ("lock.txt", "sample.txt", "sample-cpu.txt"):
        lines = [line for line in (ROOT / "requirements" / lock).read_text().splitlines() if not line.startswith("#")]
        names = [line.split("==")[0] for line in lines]
        assert all(len(line.split("==")) == 2 and " " not in line for line in lines)
        assert len(set(names)) == len(names)

"""The image `train`, really built: the smallest suite runs in it, locally and through Slurm, and nothing leaks in or out."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT, copy
from services import images
from services.slurm import SlurmCluster
from services.slurm import Unavailable as NoSlurm

from prefdist import containers

pytestmark = pytest.mark.container

TABLES = ("table.csv", "reward_model.csv")
PROFILE = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
IN_IMAGE = ["--sdm", *PROFILE["software-deployment-method"], "--apptainer-args", PROFILE["apptainer-args"]]
CODE = "0.1.0+checkout"
USER = 1000


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    with images.skip_without("Apptainer"):
        return images.environment()


@pytest.fixture(scope="module")
def image(environment: dict[str, str]) -> Path:
    with images.skip_without("base image"):
        return images.built("train", environment)


def checkout(folder: Path, image: Path) -> Path:
    """A copy of the checkout, with the image, and with a version of its own in the code."""
    folder.mkdir(parents=True)
    copy(folder)
    for file in containers.recipe("train"):
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    (folder / "containers/train.sif").symlink_to(image)
    shutil.copy(image.with_suffix(".json"), folder / "containers/train.json")
    package = folder / "src/prefdist/__init__.py"
    package.write_text(package.read_text().replace('"0.1.0"', f'"{CODE}"'))
    return folder


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a user whose home and PYTHONPATH hold packages that are not the image's."""
    home = tmp_path_factory.mktemp("home")
    for folder in (home / ".local/lib/python3.11/site-packages", home / "path"):
        folder.mkdir(parents=True)
        (folder / "planted.py").touch()
        (folder / "numpy.py").write_text("raise RuntimeError('a package of the host')\n")
    return {**environment, "HOME": str(home), "PYTHONPATH": str(home / "path")}


def inside(image: Path, command: Sequence[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    whole = [
        "apptainer",
        "exec",
        *PROFILE["apptainer-args"].split(),
        "--bind",
        str(cwd),
        "--pwd",
        str(cwd),
        str(image),
        *command,
    ]
    return subprocess.run(whole, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def local(image: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest suite, made in the image without any network: not even a loopback device is up."""
    folder = checkout(tmp_path_factory.mktemp("local") / "checkout", image)
    home = folder.parent / "home"
    home.mkdir()
    given = {**environment, "PYTHONPATH": str(folder / "src"), "HOME": str(home)}
    command = ["unshare", "--net", "snakemake", "--cores", "2", *IN_IMAGE, "smoke"]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    try:
        started = SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster").__enter__()
    except NoSlurm as reason:
        pytest.skip(str(reason))
    yield started
    started.__exit__()


@pytest.fixture(scope="module")
def through_slurm(
    image: Path, environment: dict[str, str], cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same through the profile as it is, but for the cluster's account and how soon states are asked for."""
    folder = checkout(tmp_path_factory.mktemp("through_slurm") / "checkout", image)
    site = {"default-resources": {"slurm_account": "lab"}, "slurm-init-seconds-before-status-checks": 2, "latency-wait": 15}
    (folder / "slurm/config.yaml").write_text(yaml.safe_dump(PROFILE | site))
    given = {**environment, "PYTHONPATH": str(folder / "src")}
    done = cluster.run(["snakemake", "--profile", "slurm", "smoke"], cwd=folder, env=given, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def provenances(folder: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text())["environment"] for file in folder.glob("artefacts/*/*/provenance.json")]


def test_every_artefact_names_the_image_and_was_made_by_the_code_of_the_checkout(local: Path) -> None:
    made = provenances(local)
    assert len(made) > 10
    assert {str(record["container"]) for record in made} == {f"train@{containers.identity(ROOT, 'train')}"}
    assert {record["packages"]["prefdist"] for record in made} == {CODE}  # type: ignore[index]


def test_the_same_through_slurm_byte_for_byte(local: Path, through_slurm: Path) -> None:
    assert {record["container"] for record in provenances(through_slurm)} == {
        record["container"] for record in provenances(local)
    }
    for table in TABLES:
        (one,), (other,) = ([*folder.glob(f"results/smoke/*/{table}")] for folder in (local, through_slurm))
        assert one.read_bytes() == other.read_bytes()
    metrics = [next(folder.glob("artefacts/results/*/metrics.parquet")).read_bytes() for folder in (local, through_slurm)]
    assert metrics[0] == metrics[1]


def test_home_and_caches_lie_in_the_working_folder(local: Path, image: Path, host: dict[str, str]) -> None:
    program = (
        "import json, matplotlib, os, torch, huggingface_hub.constants as hub\n"
        "from torch._inductor.runtime.cache_dir_utils import cache_dir\n"
        "names = ('HOME', 'XDG_CACHE_HOME', 'XDG_CONFIG_HOME', 'XDG_DATA_HOME', 'TRITON_CACHE_DIR', 'VLLM_CACHE_ROOT')\n"
        "print(json.dumps([matplotlib.get_cachedir(), hub.HF_HOME, cache_dir(), *(os.environ[name] for name in names)]))\n"
    )
    done = inside(image, ["python", "-c", program], local, host)
    assert done.returncode == 0, done.stderr
    assert all(folder.startswith(f"{local}/scratch/") for folder in json.loads(done.stdout))
    # Snakemake, outside the image, keeps a cache of its own.
    home = local.parent / "home"
    written = [str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()]
    assert not [file for file in written if not file.startswith(".cache/snakemake/")]


def test_no_package_of_the_host_leaks_in(local: Path, image: Path, host: dict[str, str]) -> None:
    planted = "import importlib.util, numpy, sys; print(importlib.util.find_spec('planted'), numpy.__file__, sys.prefix)"
    home = ["--bind", host["HOME"], "--env", f"PYTHONUSERBASE={host['HOME']}/.local"]  # visible, and yet not used
    whole = ["apptainer", "exec", *home, "--bind", str(local), "--pwd", str(local), str(image), "python", "-c", planted]
    done = subprocess.run(whole, cwd=local, env=host, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("None /opt/venv/")
    assert done.stdout.endswith("/opt/venv\n")


def test_another_lock_in_the_checkout_is_refused(image: Path, environment: dict[str, str], tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout", image)
    with (folder / "requirements/lock.txt").open("a") as lock:
        lock.write("another==1.0\n")
    done = inside(image, ["prefdist", "make", "artefacts/text/any", "--suite", "smoke"], folder, environment)
    assert done.returncode == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    outside = inside(image, ["prefdist", "plan", "smoke"], empty, environment)
    assert (outside.returncode, "no checkout here or above" in outside.stderr) == (2, True)


def test_nothing_of_the_image_can_be_written(image: Path, environment: dict[str, str], tmp_path: Path) -> None:
    done = inside(image, ["sh", "-c", "touch /opt/venv/x /opt/prefdist/x"], tmp_path, environment)
    assert done.stderr.count("Read-only file system") == 2


def test_it_runs_as_the_user_who_calls_it(image: Path, environment: dict[str, str]) -> None:
    """--unsquash, since a user cannot mount the file where /dev/fuse is root's alone."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chown(folder, USER, USER)
        user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        if subprocess.run([*user, "head", "-c1", image], cwd="/", capture_output=True, check=False).returncode:
            pytest.skip("the checkout is in a folder that other users may not enter")
        run = ["apptainer", "exec", "--unsquash", "--nv", "--no-home", "--bind", folder, "--pwd", folder, str(image)]
        given = {**environment, "HOME": folder, "TMPDIR": folder, "APPTAINER_TMPDIR": folder}
        asked = ["sh", "-c", "id -u; python -c 'import torch; torch.save(torch.ones(2), \"x\")'; stat -c %u x"]
        done = subprocess.run([*user, *run, *asked], cwd=folder, env=given, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [str(USER)] * 2, done.stderr


def test_doctor_finds_apptainer_and_the_image(image: Path, environment: dict[str, str]) -> None:
    command = ["prefdist", "doctor", "containers"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert f"train@{containers.identity(ROOT, 'train')}" in done.stdout
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def built_by_buildah(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[images.Container]:
    with images.skip_without("buildah"):
        container = images.Container("train", tmp_path_factory.mktemp("storage"), environment)
    yield container
    container.remove()


def test_the_dockerfile_makes_the_same_image(built_by_buildah: images.Container, tmp_path: Path) -> None:
    assert built_by_buildah.user == f"{USER}:{USER}"
    folder = tmp_path / "checkout"
    folder.mkdir()
    copy(folder)
    asked = "id -u; printenv PREFDIST_IMAGE HOME PYTHONPATH; prefdist check smoke"
    said = built_by_buildah.run(["sh", "-c", asked], folder).splitlines()
    assert said[:3] == [str(USER), f"train@{containers.identity(ROOT, 'train')}", f"{images.INSIDE}/scratch/home"]
    assert said[-1].startswith("smoke: valid")

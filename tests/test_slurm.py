"""`snakemake --profile slurm` on a real Slurm of its own: what goes where, and what a run survives.

In a copy of the checkout, the testbed is the smallest suite with a few more steps, so that there is time to kill something.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import copy, environment
from services.slurm import SlurmCluster, Unavailable

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[1]
TYPED = ["snakemake", "--profile", "slurm"]
TABLES = ("table.csv", "reward_model.csv")
METHODS = {f"{run}-seed{seed}" for run in ("dpo", "pmle", "reverse_kl_ppo") for seed in (0, 1)}
GROUPED = {"evaluate/prior", "evaluate/dpo", "evaluate/pmle", "evaluate/reverse_kl_ppo", "calibrate/reward_model"}


def adapt(checkout: Path, *, minutes: str | None = None, retries: int = 2) -> None:
    """The profile for the test cluster: its account, no image, quick status checks; a time limit of trainings."""
    file = checkout / "slurm/config.yaml"
    profile = yaml.safe_load((ROOT / "slurm/config.yaml").read_text())
    del profile["software-deployment-method"], profile["apptainer-args"]
    profile |= {"slurm-init-seconds-before-status-checks": 2, "latency-wait": 15, "retries": retries}
    profile["default-resources"] = {"slurm_account": "lab"}
    if minutes:
        profile["set-resources"]["train"] = profile["set-resources"]["train"] | {"runtime": minutes}
    file.write_text(yaml.safe_dump(profile))


def checkout_of_the_smallest_testbed(folder: Path) -> Path:
    folder.mkdir()
    checkout = copy(folder)
    suite = yaml.safe_load((checkout / "workflow/suites/smoke.yaml").read_text()) | {"suite": "testbed"}
    suite["defaults"]["optimisation"] |= {"steps": 40, "checkpoint_every": 2, "probe_every": 20}
    suite["runs"]["dpo"] = {"objective": "dpo", "optimisation": {"steps": 200, "checkpoint_every": 2, "probe_every": 100}}
    (checkout / "workflow/suites/testbed.yaml").write_text(yaml.safe_dump(suite))
    adapt(checkout)
    return checkout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    try:
        started = SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster").__enter__()
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield started
    started.__exit__()


def run(cluster: SlurmCluster, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return cluster.run([*TYPED, *arguments], cwd=checkout, env=environment(checkout), timeout=1200)


@pytest.fixture(scope="module")
def runs(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same suite made twice: through Slurm, exactly as typed, and locally."""
    through_slurm, local = (
        checkout_of_the_smallest_testbed(tmp_path_factory.mktemp(name) / "checkout") for name in ("slurm", "local")
    )
    beside = subprocess.Popen(
        ["snakemake", "--cores", "1"],
        cwd=local,
        env=environment(local),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    done = run(cluster, through_slurm)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert beside.wait(timeout=900) == 0
    return through_slurm, local


def test_jobs_went_through_slurm_and_asked_for_what_their_class_says(cluster: SlurmCluster, runs: tuple[Path, Path]) -> None:
    jobs = cluster.jobs(runs[0])
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert {job.account for job in jobs} == {"lab"}
    assert all(job.name.startswith("prefdist_") for job in jobs)
    made = {str(path.parent.relative_to(runs[0] / "artefacts"))[:-11] for path in runs[0].glob("artefacts/*/*/provenance.json")}
    assert made >= GROUPED | {f"train/{name}" for name in METHODS}
    assert len(jobs) == len(made) - len(GROUPED) + 2, "five small jobs are two Slurm jobs, all others their own"
    limits = sorted(job.limit for job in jobs if job.comment.startswith("rule_evaluations"))
    assert limits == ["02:00:00", "08:00:00"], "one after the other: the time of one, and of four"
    profile = yaml.safe_load((runs[0] / "slurm/config.yaml").read_text())["set-resources"]
    for job in jobs:
        rule = re.sub(r"^rule_|_wildcards_.*", "", job.comment)
        asked = profile["evaluate" if rule.startswith("evaluations") else rule]
        assert job.partition == asked["slurm_partition"]
        assert job.resources.get("gres/gpu") == ("1" if "gpu" in asked else None)
        assert job.resources["mem"] == f"{eval(str(asked['mem_mb']), {'attempt': 1})}M"
    assert {job.partition for job in jobs} == {"cpu", "gpu"}


def tables(checkout: Path) -> dict[str, bytes]:
    return {name: (checkout / "results/testbed/v1" / name).read_bytes() for name in TABLES}


def test_tables_are_those_of_a_local_run(runs: tuple[Path, Path]) -> None:
    through_slurm, local = runs
    assert tables(through_slurm) == tables(local)
    metrics = [next(checkout.glob("artefacts/results/*/metrics.parquet")).read_bytes() for checkout in runs]
    assert metrics[0] == metrics[1]


def test_a_second_run_has_nothing_to_do(cluster: SlurmCluster, runs: tuple[Path, Path]) -> None:
    done = run(cluster, runs[0])
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def training_under_way(checkout: Path, names: set[str]) -> Iterator[tuple[str, int]]:
    """Those of the trainings that have a checkpoint and a living process, with its number."""
    for folder in sorted(checkout.glob("scratch/*")):
        name = re.sub(r"-[0-9a-f]{10}-[0-9a-f]+$", "", folder.name)
        if name in names and (folder / "checkpoint.pt").is_file():
            yield from ((name, process) for process in processes(checkout, name))


def processes(checkout: Path, name: str) -> list[int]:
    """The Python processes that make a training of a checkout and are not stopped."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            makes = words[2:3] == ["make"] and f"artefacts/train/{name}-" in words[3]
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if makes and (folder / "cwd").readlink() == checkout and state not in "TZX":
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def eventually(what: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 400) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, "Snakemake ended too early"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)
    return found


@contextmanager
def started(cluster: SlurmCluster, checkout: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """Snakemake as typed, its output in a file; killed at the end if it still runs."""
    with output.open("w") as out:
        options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
        process = cluster.popen(TYPED, cwd=checkout, env=environment(checkout), **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def without_trainings(finished: Path, checkout: Path) -> None:
    """A copy of a finished checkout in which the methods are to be trained, evaluated and tabulated again."""
    shutil.copytree(finished, checkout)
    for folder in ("results/testbed", "logs", "artefacts/evaluate", "artefacts/results"):
        shutil.rmtree(checkout / folder)
    for name in METHODS:
        shutil.rmtree(next(checkout.glob(f"artefacts/train/{name}-*")))


def names(jobs: dict[str, str]) -> set[str]:
    return {comment.removeprefix("rule_train_wildcards_")[:-11] for comment in jobs.values()}


def kill_snakemake_in_the_middle(cluster: SlurmCluster, checkout: Path, output: Path) -> tuple[str, int, set[str], set[str]]:
    """With six trainings for three GPUs: a running one that is stopped, its process, all running, and the pending jobs.

    The stopped one outlives Snakemake for as long as the test needs.
    """
    with started(cluster, checkout, output) as snakemake:
        eventually(lambda: len(cluster.queue(checkout, "PENDING,RUNNING")) == len(METHODS), snakemake)
        name, process = eventually(lambda: next(training_under_way(checkout, METHODS), None), snakemake)
        os.kill(process, signal.SIGSTOP)
        running, pending = (cluster.queue(checkout, state) for state in ("RUNNING", "PENDING"))
    return name, process, names(running), set(pending)


def kill(way: str, name: str, process: int, cluster: SlurmCluster, checkout: Path) -> None:
    os.kill(process, signal.SIGSTOP)  # for the time limit, that is all: it is reached
    if way == "SIGKILL":
        os.kill(process, signal.SIGKILL)
    elif way == "scancel":
        running = cluster.queue(checkout, "RUNNING")
        cluster.ask("scancel", *(number for number, comment in running.items() if f"_{name}-" in comment))


def kill_trainings(
    cluster: SlurmCluster, checkout: Path, snakemake: subprocess.Popen[str], names: set[str], until_waited_for: tuple[Path, int]
) -> dict[str, str]:
    """One training in each way, each when it has a checkpoint; to the end of the run. Which way hit which.

    A stopped process goes on when the log of its replacement says that it is waited for.
    """
    log, stopped = until_waited_for
    victims: dict[str, str] = {}
    held = True
    deadline = time.monotonic() + 900
    while snakemake.poll() is None:
        assert time.monotonic() < deadline, victims
        time.sleep(0.05)
        if held and "waiting for its end" in text_of(log):
            os.kill(stopped, signal.SIGCONT)
            held = False
        for name, process in training_under_way(checkout, names - set(victims.values())):
            if ways := [way for way in ("time limit", "SIGKILL", "scancel") if way not in victims]:
                victims[ways[0]] = name
                kill(ways[0], name, process, cluster, checkout)
    return victims


def text_of(file: Path) -> str:
    """Nothing while Snakemake makes room for the log of the next try."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def test_what_is_killed_goes_on(cluster: SlurmCluster, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Snakemake with SIGKILL while trainings run and wait; then trainings by scancel, by SIGKILL and by their time limit."""
    checkout = tmp_path / "checkout"
    without_trainings(runs[0], checkout)
    kept = {path: path.stat().st_ino for path in checkout.glob("artefacts/*/*/provenance.json")}
    orphan, stopped, running, pending = kill_snakemake_in_the_middle(cluster, checkout, tmp_path / "first.out")
    assert pending
    environ = dict(item.split("=", 1) for item in Path(f"/proc/{stopped}/environ").read_text().split("\0") if "=" in item)
    assert environ["CUDA_VISIBLE_DEVICES"] in {"0", "1", "2"}

    adapt(checkout, minutes="attempt", retries=5)
    (log,) = checkout.glob(f"logs/train/{orphan}-*.log")
    with started(cluster, checkout, tmp_path / "second.out") as second:
        victims = kill_trainings(cluster, checkout, second, METHODS - running, until_waited_for=(log, stopped))
    output = (tmp_path / "second.out").read_text()
    assert second.returncode == 0, output[-4000:]

    assert "left by a Snakemake that was killed; removed" in output
    (told,) = re.findall("cancelled, pending since an earlier run: Slurm jobs (.*)", output)
    assert set(told.split(", ")) == pending
    assert re.search(rf"running since an earlier run: Slurm job \d+, rule_train_wildcards_{orphan}-", output)
    jobs = cluster.jobs(checkout)
    assert {(job.state.split()[0], job.elapsed) for job in jobs if job.number in pending} == {("CANCELLED", "00:00:00")}
    states = {name: [job.state.split()[0] for job in jobs if f"train_wildcards_{name}-" in job.comment] for name in METHODS}
    for way, state in (("time limit", "TIMEOUT"), ("SIGKILL", "FAILED"), ("scancel", "CANCELLED")):
        assert state in states[victims[way]], (way, states)
        text = next(checkout.glob(f"logs/train/{victims[way]}-*.log")).read_text()
        assert re.search(r"resumed at step [1-9]", text), (way, text)
    assert "verified and kept" in log.read_text(), "the orphan's replacement kept what the orphan had made"
    assert states[orphan].count("COMPLETED") == 2
    assert all(states[name].count("COMPLETED") == 1 for name in METHODS - running)
    assert {path: path.stat().st_ino for path in kept} == kept, "what was made before is not made again"
    assert tables(checkout) == tables(runs[0])


def test_a_failed_jobs_log_is_shown_with_its_rule_wildcards_and_path(cluster: SlurmCluster, runs: tuple[Path, Path]) -> None:
    checkout = runs[0]
    (results,) = checkout.glob("artefacts/results/testbed-*")
    (damaged,) = checkout.glob("artefacts/evaluate/dpo-*/metrics.parquet")
    shutil.rmtree(results)
    os.truncate(damaged, 10)
    done = run(cluster, checkout, "--retries", "0", "--forcerun", "results")
    output = done.stdout + done.stderr
    assert done.returncode != 0
    error = output[output.index("Error in rule results:") :]
    assert f"output: artefacts/results/{results.name}/provenance.json" in error
    assert f"log: logs/results/{results.name}.log" in error
    assert f"wildcards: name={results.name}" in output
    sentence = f"{damaged.relative_to(checkout)}: its content is not what provenance.json says"
    assert sentence in error

"""`prefdist chaos`: kill a suite's run at random, again and again, and see whether its tables come out the same.

A round starts in an empty copy of the checkout and ends when a run ends well. Until then every run is killed once: after a
random number of stages has begun, at a random moment, with a random signal to a random victim (Snakemake alone, a stage's
process alone, or both with all they started). Runs start again at once, beside whatever outlived the kill. Written to
results/bench as chaos.{csv,md}.
"""

import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from prefdist.artefacts import PROVENANCE, verify
from prefdist.bench.tables import processor, spread, write_csv
from prefdist.checkouts import copy_checkout, environment_of
from prefdist.errors import UserError
from prefdist.paths import ARTEFACTS, RESULTS, SCRATCH, project_root
from prefdist.plan import Plan, plan
from prefdist.suites import load_suite

Row = dict[str, Any]

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("snakemake", "stage", "all")
START = "start"
"""Stands for the seconds in which no stage runs: Snakemake reads the workflow, or writes down what was made."""
MOST_BEGUN = 4
"""Stages that a run may begin before it is killed: a round then takes a dozen kills, in all of its stages."""
LATEST = 8.0
"""Seconds within which it is killed after that: as long as the smallest suite's longest stage."""
PATIENCE = 600.0
"""Seconds after which a run that does not end is a failure."""
NOT_VALUES = {"cost.csv", "manifest.json", "release.json", PROVENANCE}
"""Published files that hold timings, memory, dates and what follows from them."""


def chaos(suite: str, kills: int, seed: int, cores: int) -> int:
    """Kill `kills` times, write the table; 0 if every round ended with the undisturbed values, else 1."""
    if kills < 1:
        raise UserError(f"--kills is {kills}; at least 1 is needed")
    root = project_root()
    made = plan(load_suite(suite, root), root)
    folder = root / SCRATCH / "chaos"
    shutil.rmtree(folder, ignore_errors=True)
    undisturbed = copy_checkout(root, folder / "undisturbed")
    began = time.monotonic()
    if _end(_start(undisturbed, suite, cores)):
        raise UserError(f"the undisturbed run of {suite} failed; its logs are in {undisturbed / 'logs'}")
    seconds = time.monotonic() - began
    rng = random.Random(seed)
    rows: list[Row] = []
    rounds: list[Row] = []
    while len(rows) < kills:
        checkout = copy_checkout(root, folder / f"round{len(rounds)}")
        began = time.monotonic()
        for row in _round(checkout, suite, made, rng, kills - len(rows), cores):
            rows.append({"round": len(rounds), **row})
            print(f"kill {len(rows)}/{kills}: {row}", file=sys.stderr, flush=True)
        difference = _differences(undisturbed / made.results, checkout / made.results)
        rounds.append({"seconds": time.monotonic() - began, "differs": difference, "left": _left_behind(checkout)})
    _write(root / RESULTS / "bench", suite, seed, seconds, rows, rounds)
    good = not any(r["differs"] or r["left"] for r in rounds) and not any(row["damaged"] for row in rows)
    if good:
        shutil.rmtree(folder)
    return int(not good)


def _start(checkout: Path, suite: str, cores: int) -> subprocess.Popen[bytes]:
    environment = environment_of(checkout) | {"OMP_NUM_THREADS": "1"}
    with (checkout / "run.log").open("ab") as log:
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--", suite]
        return subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise UserError(f"a run did not end within {PATIENCE:.0f} s; its output is in run.log of its checkout") from None


def _round(checkout: Path, suite: str, made: Plan, rng: random.Random, most: int, cores: int) -> Iterator[Row]:
    """Kill run after run, `most` times at the most and until all is made, and let the last one end."""
    for _ in range(most):
        if all((checkout / path / PROVENANCE).is_file() for path in made.artefacts):
            break
        begun, moment = rng.randint(0, MOST_BEGUN), rng.uniform(0, LATEST)
        number, victim = rng.choice(SIGNALS), rng.choice(VICTIMS)
        began = time.monotonic()
        process = _start(checkout, suite, cores)
        hit = _kill(process, begun, moment, number, victim)
        status = _end(process)
        if hit is not None:
            aim = {"begun": begun, "moment": moment, "signal": number.name, **hit}
            found = {"exit": status, "orphans": len(_makers(checkout)), "damaged": _damaged(checkout)}
            yield {**aim, "seconds": time.monotonic() - began, **found}
    if _end(_start(checkout, suite, cores)):
        raise UserError(f"the last run of a round failed; see {checkout / 'run.log'} and {checkout / 'logs'}")


def _kill(process: subprocess.Popen[bytes], begun: int, moment: float, number: signal.Signals, victim: str) -> Row | None:
    """Wait for so many stages, then for the moment, and send the signal; says what was hit. None if the run ended before."""
    seen: set[int] = set()
    while len(seen) < begun and process.poll() is None:
        seen |= {maker.pid for maker in _descendants(process.pid)}
        time.sleep(0.02)
    time.sleep(moment)
    maker = next(iter(_descendants(process.pid)), None)
    stage = START if maker is None else _stage(maker)
    if process.poll() is not None:
        return None
    if maker is None and victim == "stage":
        victim = "snakemake"
    try:
        if victim == "all":
            os.killpg(process.pid, number)
        elif maker is None or victim == "snakemake":
            process.send_signal(number)
        else:
            maker.send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return None  # it had just ended
    return {"stage": stage, "victim": victim}


def _descendants(pid: int) -> list[psutil.Process]:
    """Running `prefdist make` that a process started."""
    try:
        return [child for child in psutil.Process(pid).children(recursive=True) if _stage(child)]
    except psutil.NoSuchProcess:
        return []


def _makers(checkout: Path) -> list[psutil.Process]:
    """Running `prefdist make` in a checkout, whoever started them."""
    return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(checkout) and _stage(p)]


def _stage(process: psutil.Process) -> str:
    """Whose artefact it makes, or "" where it makes none."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    paths = [Path(word).parts for word in words if word.startswith(f"{ARTEFACTS}/")]
    return paths[0][1] if "make" in words and paths else ""


def _damaged(checkout: Path) -> int:
    """Artefacts that look complete and are not."""
    damaged = 0
    for file in checkout.glob(f"{ARTEFACTS}/*/*/{PROVENANCE}"):
        try:
            verify(file.parent)
        except UserError as error:
            print(error, file=sys.stderr)
            damaged += 1
    return damaged


def _left_behind(checkout: Path) -> int:
    """Temporary folders and files that nobody will clean up any more."""
    return len([*checkout.glob(f"{ARTEFACTS}/*/.*.tmp"), *checkout.glob(f"{SCRATCH}/**/*.tmp")])


def _differences(expected: Path, found: Path) -> list[str]:
    """Published files whose bytes differ, those apart that hold timings."""
    names = {file.name for folder in (expected, found) for file in folder.iterdir()} - NOT_VALUES
    _, differing, missing = filecmp.cmpfiles(expected, found, sorted(names), shallow=False)
    return differing + missing


def _write(out: Path, suite: str, seed: int, undisturbed: float, rows: list[Row], rounds: list[Row]) -> None:
    write_csv(out / "chaos.csv", rows)
    equal = f"{sum(not r['differs'] for r in rounds)} of {len(rounds)}"
    lines = [
        f"`make chaos`: suite {suite}, seed {seed}, {len(rows)} kills in {len(rounds)} rounds. {processor()}.",
        "",
        "| what | found |",
        "| --- | --- |",
        f"| rounds whose tables, metric rows and figures equal the undisturbed run's, byte for byte | {equal} |",
        f"| artefacts that looked complete after a kill and were not | {sum(row['damaged'] for row in rows)} |",
        f"| temporary files left at the end of a round | {sum(r['left'] for r in rounds)} |",
        f"| kills that left processes behind, which went on beside the next run | {sum(row['orphans'] > 0 for row in rows)} |",
        f"| running stage | {_counts(rows, 'stage')} |",
        f"| victim | {_counts(rows, 'victim')} |",
        f"| signal | {_counts(rows, 'signal')} |",
        f"| seconds of a round, median [least, most] | {spread([r['seconds'] for r in rounds])} |",
        f"| seconds of the undisturbed run | {undisturbed:.0f} |",
        "",
        "Each kill: [chaos.csv](chaos.csv). `start`: no stage ran. `begun`, `moment`: stages that the run had begun, and the",
        "seconds after that.",
    ]
    (out / "chaos.md").write_text("\n".join(lines) + "\n")
    print((out / "chaos.md").read_text())


def _counts(rows: list[Row], key: str) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(Counter(row[key] for row in rows).items()))

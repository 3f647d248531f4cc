"""The processes of a training: one a GPU, started and ended together (torch elastic), on one node.

This process waits, and writes the artefact when all have ended well (artefacts.py). Left out: what each of them does
(stage.py) and how they share the work (parallel.py).
"""

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.agent.server.api import SignalException
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from prefdist.errors import UserError
from prefdist.training import stage


def processes(spec: dict[str, Any], wanted: int | None = None) -> int:
    """How many a training gets: as many as wanted, or one a visible GPU, no more than its batches have examples.

    Slurm and CUDA_VISIBLE_DEVICES say which GPUs are visible. UserError where fewer are than processes were wanted, or where
    a batch has fewer examples.
    """
    gpus = torch.cuda.device_count()
    sizes = {f"{part}.batch_size": (spec.get(part) or {}).get("batch_size") for part in ("optimisation", "rollouts")}
    smallest, key = min((size, key) for key, size in sizes.items() if size is not None)
    if wanted is None:
        return max(1, min(gpus, smallest))
    if wanted < 1 or 0 < gpus < wanted:
        have = f"{gpus} GPUs are visible" if gpus else "at least 1 is needed"
        raise UserError(f"--processes is {wanted}, and {have}; each process has a GPU of its own where there are any")
    if wanted > smallest:
        raise UserError(f"--processes is {wanted}, and {key} is {smallest}: each needs an example; start fewer, or raise {key}")
    return wanted


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """stage.run in spec["how"]["processes"] processes; in this one, if it is one.

    When one fails, the others are ended, and its error is raised here: a UserError as it is, any other with its traceback.
    """
    how = dict(spec["how"])
    count = how.pop("processes")
    spec = {**spec, "how": how}
    if count == 1:
        stage.run(spec, inputs, out, scratch)
        return
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it has to say is raised
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        reports = Path(folder) / "errors"
        reports.mkdir()
        try:
            elastic_launch(config, _one)(spec, inputs, out, scratch, reports)
        except ChildFailedError as error:
            raise _first_error(error, reports, count) from None
        except SignalException as stopped:
            raise SystemExit(128 + stopped.sigval) from None


def _one(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path, reports: Path) -> None:
    """One of the processes; torch elastic has put its place among them into the environment."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all; one traceback of it is enough
    share = max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"]))
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(share))))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this node, whatever its name resolves to
    try:
        stage.run(spec, inputs, out, scratch)
    except Exception as error:
        for_user = isinstance(error, UserError)
        report = {"rank": os.environ["RANK"], "for_user": for_user, "text": str(error) if for_user else traceback.format_exc()}
        # By its time, to the nanosecond: those who wait for this process fail right after it, and elastic counts seconds.
        (reports / f"{time.time_ns()}-{report['rank']}").write_text(json.dumps(report))
        raise
    torch.distributed.destroy_process_group()


def _first_error(error: ChildFailedError, reports: Path, count: int) -> Exception:
    """That of the process that ended first: any later one failed for want of it."""
    killed = [(rank, failure) for rank, failure in error.failures.items() if failure.exitcode < 0]
    if killed or not any(reports.iterdir()):
        rank, failure = killed[0] if killed else error.get_first_failure()
        return UserError(
            f"process {rank} of {count} of the training was killed ({failure.signal_name()}; SIGKILL often means out of "
            f"memory), and all were ended; the same command goes on from the last checkpoint"
        )
    report = json.loads(min(reports.iterdir()).read_text())
    if report["for_user"]:
        return UserError(report["text"])
    return RuntimeError(f"process {report['rank']} of {count} of the training failed, and all were ended:\n{report['text']}")

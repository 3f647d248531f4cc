"""The processes of a training: one a GPU, started and ended together (torch elastic), on one node.

This process waits, and writes the artefact when all have ended well (artefacts.py). Left out: what each of them does
(stage.py) and how they share the work (parallel.py).
"""

import logging
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.agent.server.api import SignalException
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from prefdist.errors import UserError
from prefdist.training import stage

USER_ERROR = f"{UserError.__name__}: "
"""How torch elastic reports it: the class's name before the sentence."""


def processes(spec: dict[str, Any], wanted: int | None = None) -> int:
    """How many a training gets: as many as wanted, or one a visible GPU, no more than its batches have examples.

    Slurm and CUDA_VISIBLE_DEVICES say which GPUs are visible. UserError where fewer are than processes were wanted.
    """
    gpus = torch.cuda.device_count()
    if wanted is None:
        batches = [spec["optimisation"]["batch_size"], (spec.get("rollouts") or {}).get("batch_size")]
        return max(1, min([gpus, *filter(None, batches)]))
    if wanted < 1 or 0 < gpus < wanted:
        have = f"{gpus} GPUs are visible" if gpus else "at least 1 is needed"
        raise UserError(f"--processes is {wanted}, and {have}; each process has a GPU of its own where there are any")
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
    with tempfile.TemporaryDirectory() as reports:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=reports),
        )
        try:
            elastic_launch(config, _one)(spec, inputs, out, scratch, count)
        except ChildFailedError as error:
            raise _told(*error.get_first_failure(), count) from None
        except SignalException as stopped:
            raise SystemExit(128 + stopped.sigval) from None


def _one(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path, count: int) -> None:
    """One of the processes; torch elastic has put its place among them into the environment."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all; one traceback of it is enough
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    torch.set_num_threads(int(threads))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this node, whatever its name resolves to
    stage.run(spec, inputs, out, scratch)
    torch.distributed.destroy_process_group()


def _told(rank: int, failure: ProcessFailure, count: int) -> Exception:
    """The error that a process reported, or what can be said of one that was killed."""
    who = f"process {rank} of {count}"
    if failure.exitcode < 0 and failure.error_file_data is None:
        name = signal.Signals(-failure.exitcode).name
        return UserError(
            f"{who} of the training was killed ({name}; SIGKILL often means out of memory); all were ended, and the same "
            f"command goes on from the last checkpoint"
        )
    report = (failure.error_file_data or {}).get("message", failure.message)
    if isinstance(report, str):
        return RuntimeError(f"{who} of the training failed: {report}")
    message, traceback = report["message"], report["extraInfo"]["py_callstack"]
    if message.startswith(USER_ERROR):
        return UserError(message.removeprefix(USER_ERROR))
    return RuntimeError(f"{who} of the training failed:\n{traceback}")

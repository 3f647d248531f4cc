"""A real Slurm on loopback, for tests: controller, a CPU and a GPU partition, accounting; gone when the caller is gone.

    with SlurmCluster(folder) as cluster:
        cluster.run(["sbatch", "job.sh"], cwd=checkout)

or by hand: `python tests/services/slurm.py -- COMMAND`. Slurm's commands read /etc/slurm, and jobs of the Snakemake plugin
nothing else; so all of it lives in namespaces of its own. In there /etc/slurm is this folder's, the host is called localhost,
the network is loopback alone, and the first process waits for the end of a pipe that its caller holds: when the caller ends,
however that may be, the kernel kills all daemons and jobs. The host's files, ports and processes are not touched.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "ip": "iproute2",
}
CONFIGURATION = Path(__file__).with_name("slurm_conf")
INSIDE = "/media"  # where the configuration says that the cluster's folder is
_INIT = f"""
set -e
hostname localhost
ip link set lo up
ip address add 192.0.2.1/32 dev lo  # of the documentation's network; glibc resolves no name for a host with 127.* alone
mount --bind "$1" {INSIDE}
mount --bind {INSIDE}/etc /etc/slurm
echo ready
exec "$2" -c "$3"
"""
# The first process inherits orphans and must take note of their end. It ends when its caller's end of the pipe is closed.
_REAP = """
import os, select
while not select.select([0], [], [], 0.5)[0]:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Unavailable(Exception):
    """Why there is no Slurm to be had on this machine."""


def install() -> None:
    """Install what is missing, from the distribution's packages."""
    if os.geteuid() != 0:
        raise Unavailable("a Slurm cluster of one's own needs root: its daemons run in namespaces with their own /etc/slurm")
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command)]
    plugins = [*Path("/usr/lib").glob("*/slurm*/accounting_storage_mysql.so")]
    if not missing and plugins:
        return
    if not shutil.which("apt-get"):
        raise Unavailable(f"missing: {', '.join(missing)}; only Debian's packages are known here")
    packages = [*missing, "slurm-wlm-mysql-plugin", "slurm-wlm-basic-plugins"]
    get = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([*get, "update"], [*get, "install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


@dataclass(frozen=True)
class Job:
    """A row of Slurm's accounting. What a job that never started asked for stands for what it was given."""

    number: str
    name: str
    partition: str
    account: str
    state: str
    comment: str
    limit: str
    elapsed: str
    resources: dict[str, str]


class SlurmCluster:
    """Partitions cpu (node1) and gpu (node2, three GPUs: /dev/null and the like), account lab; state and logs in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._init: subprocess.Popen[str] | None = None
        self._pid = 0

    def __enter__(self) -> "SlurmCluster":
        install()
        if self.folder.exists():  # of a cluster that was killed
            shutil.rmtree(self.folder)
        for name in ("run", "log", "state", "spool/node1", "spool/node2", "database"):
            (self.folder / name).mkdir(parents=True)
        shutil.copytree(CONFIGURATION, self.folder / "etc")
        (self.folder / "etc/slurmdbd.conf").chmod(0o600)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        Path("/etc/slurm").mkdir(exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._init is not None:
            self._init.kill()  # unshare --kill-child: and with it all that runs inside
            self._init.communicate()

    def popen(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, **options: Any) -> Any:
        """Start a command inside the cluster, in a session of its own: os.killpg ends it."""
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--uts", "--net", "--pid", "--ipc", f"--wd={cwd}", "--"]
        given = {name: value for name, value in (env or os.environ).items() if not name.startswith("SLURM_")}
        return subprocess.Popen([*enter, *command], env=given, start_new_session=True, text=True, **options)

    def run(
        self, command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the cluster and capture what it prints; killed after `timeout` seconds."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = self.popen(command, cwd=cwd or self.folder, env=env, **pipes)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, 9)
            process.wait()
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def ask(self, *command: str) -> str:
        """What a command prints; it must succeed."""
        done = self.run(command, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def queue(self, folder: Path, states: str) -> dict[str, str]:
        """Number -> comment of the jobs submitted from a folder that are in one of the states."""
        lines = self.ask("squeue", "-h", "-t", states, "--format=%i|%k|%Z").splitlines()
        return {number: comment for number, comment, of in (line.split("|") for line in lines) if of == str(folder)}

    def jobs(self, folder: Path) -> list[Job]:
        """Accounting of all jobs submitted from a folder, once none of them is left in the queue and all rows are written."""
        fields = "JobID,JobName,Partition,Account,State,Comment,Timelimit,Elapsed,ReqTRES,AllocTRES,WorkDir"
        rows: list[list[str]] = []

        def settled() -> bool:
            lines = self.ask("sacct", "-X", "-n", "-P", "--noconvert", f"--format={fields}").splitlines()
            rows[:] = [row for row in (line.split("|") for line in lines) if row[-1] == str(folder)]
            return bool(rows) and not any(row[4] in ("PENDING", "RUNNING", "COMPLETING") for row in rows)

        self._wait("accounting of finished jobs", settled)
        return [Job(*row[:8], resources=dict(item.split("=") for item in (row[9] or row[8]).split(","))) for row in rows]

    def _start(self) -> None:
        namespaces = ["--mount", "--uts", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        command = ["unshare", *namespaces, "sh", "-c", _INIT, "sh", str(self.folder), sys.executable, _REAP]
        self._init = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._init.stdout is not None
        assert self._init.stderr is not None
        if self._init.stdout.readline() != "ready\n":
            raise Unavailable(f"namespaces of one's own cannot be had here: {self._init.stderr.read().strip()}")
        self._pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()[0])
        run, log = f"{INSIDE}/run", f"{INSIDE}/log"
        self._daemon(
            "munged", f"--key-file={INSIDE}/munge.key", f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid",
            f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed",
        )  # fmt: skip
        self._start_accounting()
        self._daemon("slurmctld", "-c")
        for node in ("node1", "node2"):
            self._daemon("slurmd", "-N", node)
        self._wait("two idle nodes", lambda: len(self.ask("sinfo", "-h", "-N", "-t", "idle").splitlines()) == 2)

    def _start_accounting(self) -> None:
        data, socket = f"{INSIDE}/database", f"{INSIDE}/run/mariadb.socket"
        self._daemon(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip
        self._daemon(
            "setsid", "--fork", "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket}",
            "--bind-address=127.0.0.1", "--port=13306", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        client = ["mariadb", "--no-defaults", f"--socket={socket}"]
        self._wait("the database", lambda: self.run([*client, "-e", "select 1"]).returncode == 0)
        self.ask(*client, "-e", "grant all on slurm_acct_db.* to slurm@127.0.0.1 identified by 'slurm'")
        self._daemon("slurmdbd")
        self._wait("accounting", lambda: self.run(["sacctmgr", "-n", "list", "cluster"]).returncode == 0)
        for what in (("cluster", "test"), ("account", "lab"), ("user", "root", "account=lab")):
            self.ask("sacctmgr", "-i", "add", *what)

    def _daemon(self, *command: str) -> None:
        """Start what goes to the background by itself."""
        log = self.folder / "log" / f"{command[0]}.out"
        with log.open("a") as output:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            code = self.popen(command, cwd=self.folder, **quiet).wait(timeout=120)
        if code:
            raise RuntimeError(f"{' '.join(command)}: {log.read_text()[-2000:]}")

    def _wait(self, what: str, there: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not there():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not there after {seconds} s; see {self.folder}/log")
            time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command inside a real Slurm cluster of its own.")
    parser.add_argument("--folder", type=Path, help="its state and logs; a temporary one otherwise")
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with SlurmCluster(folder) as cluster:
            code = cluster.popen(options.command, cwd=Path.cwd()).wait()
    except Unavailable as reason:
        print(f"no Slurm: {reason}", file=sys.stderr)
        return 1
    if not options.folder:
        shutil.rmtree(folder)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

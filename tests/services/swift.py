"""A real S3 server on loopback: OpenStack Swift with its s3api, one replica, from Debian's packages."""

import subprocess
from pathlib import Path

from services import debian, processes

PACKAGES = ("swift-proxy", "swift-account", "swift-container", "swift-object", "memcached")
COMMANDS = ("swift-proxy-server", "swift-account-server", "swift-ring-builder", "memcached")
KEY, SECRET = "test:tester", "testing-secret"
PIPELINE = "catch_errors proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes proxy-logging"
FILTERS = {
    "catch_errors": "",
    "proxy-logging": "use = egg:swift#proxy_logging",
    "cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{memcached}",
    "s3api": "use = egg:swift#s3api\nlocation = us-east-1\ns3_acl = false",
    "tempauth": "use = egg:swift#tempauth\nuser_test_tester = {secret} .admin",
}


class Swift:
    """`endpoint`, with one bucket; `kill` its proxy and `start` it as often as you like. `stop` ends all."""

    def __init__(self, folder: Path) -> None:
        debian.require(*PACKAGES, commands=COMMANDS)
        self.folder = folder
        self.ports = {name: processes.free_port() for name in ("memcached", "account", "container", "object", "proxy")}
        self.endpoint = f"http://127.0.0.1:{self.ports['proxy']}"
        (folder / "devices" / "d1").mkdir(parents=True)
        for name in ("account", "container", "object"):
            self._ring(name)
            self._write(name, f"{name}-server", f"[app:{name}-server]\nuse = egg:swift#{name}\n", f"devices = {folder}/devices")
        self._write("proxy", f"{PIPELINE} proxy-server", self._filters(), "")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _ring(self, name: str) -> None:
        builder = ["/usr/bin/swift-ring-builder", str(self.folder / f"{name}.builder")]
        for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{self.ports[name]}/d1", "1"], ["rebalance"]):
            subprocess.run([*builder, *step], check=True, capture_output=True)

    def _write(self, name: str, pipeline: str, sections: str, more: str) -> None:
        head = f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {self.ports[name]}\nworkers = 0\nuser = root\n"
        head += f"swift_dir = {self.folder}\nmount_check = false\nlog_facility = LOG_LOCAL1\n{more}\n"
        (self.folder / f"{name}-server.conf").write_text(f"{head}\n[pipeline:main]\npipeline = {pipeline}\n\n{sections}")

    def _filters(self) -> str:
        text = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        for name in dict.fromkeys(PIPELINE.split()):
            body = FILTERS.get(name) or f"use = egg:swift#{name}"
            text += f"\n[filter:{name}]\n{body.format(memcached=self.ports['memcached'], secret=SECRET)}\n"
        return text

    def start(self) -> None:
        """What is not running."""
        for name, port in self.ports.items():
            if name not in self.processes:
                command = ["/usr/bin/python3", f"/usr/bin/swift-{name}-server", str(self.folder / f"{name}-server.conf")]
                if name == "memcached":
                    command = ["/usr/bin/memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port)]
                self.processes[name] = processes.start(command, self.folder / f"{name}.log", port)

    def create_bucket(self, name: str) -> None:
        from botocore.config import Config
        from botocore.session import Session

        config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 3})
        credentials = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        client = Session().create_client("s3", "us-east-1", endpoint_url=self.endpoint, config=config, **credentials)
        client.create_bucket(Bucket=name)

    def kill(self) -> None:
        """The proxy alone: what clients see of a server that dies."""
        processes.kill(self.processes.pop("proxy"))

    def stop(self) -> None:
        for process in self.processes.values():
            processes.kill(process)
        self.processes.clear()

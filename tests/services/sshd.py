"""A real sshd on loopback, for one user, one key and SFTP."""

import subprocess
from pathlib import Path

from services import debian, processes


class Sshd:
    """`port` and the client's `key`; `kill` it and `start` it as often as you like."""

    def __init__(self, folder: Path) -> None:
        debian.require("openssh-server", commands=("sshd",))
        self.folder, self.port, self.key = folder, processes.free_port(), folder / "client"
        for key in (folder / "host", self.key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"PidFile {folder}/sshd.pid"]
        lines += [f"AuthorizedKeysFile {folder}/client.pub", "StrictModes no", "UsePAM no", "PasswordAuthentication no"]
        lines += ["Subsystem sftp internal-sftp"]
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's privilege separation wants it
        command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = processes.start(command, self.folder / "sshd.log", self.port)

    def kill(self) -> None:
        """Listener and connections: sessions have process groups of their own, which end when their sockets do."""
        if self.process is not None:
            sessions = ["pkill", "-KILL", "-P", str(self.process.pid)]
            subprocess.run(sessions, check=False)
            processes.kill(self.process)
        self.process = None

"""Another machine for ssh: an sshd in the network and mount namespaces of a testbed's client."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.needs import need
from tests.harness.waiting import wait_until
from topologies.tag import RunTag, processes_of
from topologies.testbed import Testbed

SSHD_CONFIG = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PidFile none
"""
SSH_CONFIG = """\
IdentityFile {folder}/key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known
"""
SERVE = "mkdir -p /run/sshd && exec $0 -D -e -f $1"


@contextmanager
def sshd(
    testbed: Testbed, tag: RunTag, folder: Path, hidden: tuple[str, ...]
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A PATH whose ssh has a key to it, and the sshd. Afterwards nothing else may be left in its namespaces.

    folder: for the keys key and host, another key, and the file known of the hosts' keys. hidden: what is not there.
    """
    need("sshd")
    for name in ("host", "key", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "known").write_text(f"{testbed.client.IP()} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder))
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
    (folder / "bin").mkdir()
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    script = " && ".join([*(f"mount -t tmpfs none {hide}" for hide in hidden), SERVE])
    serve = ["unshare", "--mount", "sh", "-c", script, shutil.which("sshd") or "", str(folder / "sshd_config")]
    with subprocess.Popen(
        ["mnexec", "-a", str(testbed.client.pid), *serve], stderr=subprocess.PIPE, text=True
    ) as served:
        try:
            assert served.stderr and "Server listening" in served.stderr.readline()
            before = set(processes_of(tag.tag))
            yield f"{folder / 'bin'}:{os.environ['PATH']}", served
            wait_until(lambda: set(processes_of(tag.tag)) == before, "all that ran there has ended")
        finally:
            served.kill()

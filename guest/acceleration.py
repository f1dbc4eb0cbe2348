"""Decide whether guests run on the CPU itself (KVM) or are emulated (TCG).

/dev/kvm alone says little: a guest may hang under it. So a guest is tried.
"""

import os
import secrets
import select
import subprocess
import time
from pathlib import Path

from guest import initramfs
from guest.kernels import KERNELS, Kernel
from guest.process import started
from topologies.tag import RunTag

QEMU = "qemu-system-x86_64"
KVM, TCG = "kvm", "tcg"
# One emulator thread for all CPUs: with one thread for each CPU, kernels that patch their own text crashed in 3 of 11
# boots. The CPU has no AVX, which QEMU emulates only from 7.2 on: on a CPU with AVX pandas crashed twice, on this one
# never. It is an Intel CPU, because Linux 6.1 finds sibling threads of AMD CPUs only by TOPOEXT, which QEMU lacks.
ARGUMENTS = {KVM: ["-accel", "kvm", "-cpu", "host"], TCG: ["-accel", "tcg,thread=single", "-cpu", "Nehalem"]}
BARE = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
TRY_SECONDS = 10
ANSWER = KERNELS / "acceleration"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def choose(wanted: str | None, kernel: Kernel) -> tuple[str, str]:
    """KVM or TCG, and why. The answer is kept in a file, and holds until the host boots again."""
    if wanted:
        return wanted, "as asked for"
    why_not = _known_answer()
    if why_not is None:
        why_not = why_no_kvm(kernel)
        ANSWER.parent.mkdir(exist_ok=True)
        ANSWER.write_text(f"{BOOT_ID.read_text()}{why_not}")
    return (TCG, why_not) if why_not else (KVM, "a guest was tried under it")


def _known_answer() -> str | None:
    if not ANSWER.exists():
        return None
    boot, _, why_not = ANSWER.read_text().partition("\n")
    return why_not if boot == BOOT_ID.read_text().strip() else None


def why_no_kvm(kernel: Kernel) -> str:
    """Why guests cannot use KVM; empty when a guest with two CPUs comes up under KVM."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "there is no /dev/kvm to be used"
    mark = secrets.token_hex(8)
    with RunTag() as tag:
        image = tag.directory / "initramfs"
        initramfs.write(image, kernel, {"orders": f"MARK={mark}\n"})
        command = [
            QEMU,
            *ARGUMENTS[KVM],
            *BARE,
            "-smp",
            "2",
            "-m",
            "512M",
            "-serial",
            "stdio",
            "-kernel",
            str(kernel.image),
            "-initrd",
            str(image),
            "-append",
            "console=ttyS0 panic=-1 fastsocket_lab_try",
        ]
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
            assert qemu.stdout  # it is a pipe
            said = _said_within(qemu.stdout.fileno(), f"{mark} up".encode(), TRY_SECONDS)
    if said is None:
        return f"/dev/kvm is here, but a guest does not come up under it within {TRY_SECONDS} s"
    return "" if said else "/dev/kvm is here, but a guest fails under it"


def _said_within(descriptor: int, wanted: bytes, seconds: float) -> bool | None:
    """Whether the wanted bytes came from a descriptor before its end. None: neither they nor the end came in time."""
    said, deadline = b"", time.monotonic() + seconds
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data = os.read(descriptor, 65536)
        said += data
        if wanted in said or not data:
            return wanted in said
    return None

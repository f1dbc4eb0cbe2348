"""The initramfs of a guest: busybox, the kernel modules that reach the host's files, and the guest's orders."""

import gzip
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from guest import GuestError
from guest.kernels import Kernel

HERE = Path(__file__).resolve().parent
NEEDED = ("virtio_pci", "virtio_console", "virtiofs", "overlay")
_PLAIN: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".zst": lambda packed: subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout,
}


def write(path: Path, kernel: Kernel, orders: dict[str, str]) -> None:
    """Write the initramfs of a guest. orders: files for the guest's /run/guest, by their names."""
    tree = path.with_suffix(".tree")
    for folder in ("bin", "proc", "sys", "dev", "lower", "upper", "root", "modules", "guest"):
        (tree / folder).mkdir(parents=True)
    busybox = shutil.which("busybox") or "busybox"
    shutil.copy(busybox, tree / "bin/busybox")
    shutil.copy(HERE / "init.sh", tree / "init")
    shutil.copy(HERE / "session.sh", tree / "guest/session.sh")
    os.chmod(tree / "init", 0o755)
    for name, text in orders.items():
        (tree / "guest" / name).write_text(text)
    _copy_modules(tree / "modules", kernel, NEEDED)
    _pack(busybox, tree, path)
    shutil.rmtree(tree)


def _copy_modules(folder: Path, kernel: Kernel, names: tuple[str, ...]) -> None:
    """Copy kernel modules, and those that they need, into a folder.

    They are unpacked, because busybox's insmod does not know every compression. Their names are numbered in the order
    in which they can be loaded.
    """
    files = dict.fromkeys(file for name in names for file in _files(kernel, name)) if kernel.modules else {}
    for number, file in enumerate(map(Path, files)):
        (folder / f"{number:02}-{file.name.partition('.')[0]}.ko").write_bytes(_PLAIN[file.suffix](file.read_bytes()))


def _files(kernel: Kernel, module: str) -> list[str]:
    """The files of a module and of the modules that it needs, in load order; empty for a built-in module.

    Raises GuestError when the kernel lacks the module.
    """
    shown = subprocess.run(
        ["modprobe", "-d", str(kernel.modules), "-S", kernel.version, "--show-depends", module],
        capture_output=True,
        text=True,
    )
    if shown.returncode:
        raise GuestError(
            f"kernel {kernel.version} has no module {module}, which guests need: choose another with --kernel"
        )
    return [words[1] for line in shown.stdout.splitlines() if (words := line.split())[0] == "insmod"]


def _pack(busybox: str, tree: Path, path: Path) -> None:
    names = "\n".join(str(file.relative_to(tree)) for file in sorted(tree.rglob("*")))
    with open(path, "wb") as packed:
        subprocess.run(
            [busybox, "cpio", "-o", "-H", "newc"],
            cwd=tree,
            input=names.encode(),
            stdout=packed,
            stderr=subprocess.PIPE,
            check=True,
        )

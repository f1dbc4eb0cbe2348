"""The kernel settings that can change a result: options of its build, and sysctls."""

import gzip
import platform
import re
from pathlib import Path

# Build options of the kernel: for scheduling, interrupts, steering and locks, for guarding memory, and for debugging.
CONFIG = (
    "HZ PREEMPT_NONE PREEMPT_VOLUNTARY PREEMPT PREEMPT_LAZY PREEMPT_RT PREEMPT_DYNAMIC NO_HZ_FULL RCU_NOCB_CPU "
    "RPS RFS_ACCEL XPS NET_RX_BUSY_POLL BPF_JIT BPF_JIT_ALWAYS_ON PARAVIRT_SPINLOCKS NUMA X86_X2APIC "
    "MITIGATION_RETPOLINE RETPOLINE INIT_ON_ALLOC_DEFAULT_ON INIT_ON_FREE_DEFAULT_ON HARDENED_USERCOPY CFI_CLANG "
    "KASAN KCSAN PROVE_LOCKING LOCK_STAT DEBUG_SPINLOCK DEBUG_PAGEALLOC SLUB_DEBUG_ON"
)
# Sysctls of the whole machine, and sysctls that a new network namespace takes over from the machine.
SYSCTLS = (
    "kernel.nmi_watchdog kernel.numa_balancing kernel.sched_autogroup_enabled kernel.timer_migration "
    "net.core.bpf_jit_enable net.core.bpf_jit_harden net.core.busy_poll net.core.busy_read net.core.default_qdisc "
    "net.core.dev_weight net.core.gro_normal_batch net.core.netdev_budget net.core.netdev_budget_usecs "
    "net.core.netdev_max_backlog net.core.rps_sock_flow_entries net.core.skb_defer_max "
    "net.ipv4.tcp_congestion_control net.ipv4.tcp_mem net.ipv4.tcp_rmem net.ipv4.tcp_wmem"
)
UNKNOWN = "unknown"


def kernel_settings() -> dict[str, str]:
    """The kernel's build options and sysctls, by name. An option that was left out is "n".

    Settings that this kernel does not tell are missing.
    """
    built = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", _config(), re.MULTILINE))
    values = {name: read(Path("/proc/sys", *name.split("."))) for name in SYSCTLS.split()}
    return {
        **({f"CONFIG_{name}": built.get(name, "n") for name in CONFIG.split()} if built else {}),
        **{name: value for name, value in values.items() if value != UNKNOWN},
    }


def _config() -> str:
    """The kernel's build configuration; empty where the machine does not have it."""
    inside, beside = Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")
    if inside.exists():
        return gzip.decompress(inside.read_bytes()).decode()
    return beside.read_text() if beside.exists() else ""


def read(path: Path) -> str:
    """The content of a file in one line; UNKNOWN where the file is missing, empty or unreadable."""
    try:
        return " ".join(path.read_text().split()) or UNKNOWN
    except OSError:
        return UNKNOWN

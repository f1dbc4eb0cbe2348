"""Does fastsocket measure see a live nginx with short connections, and advise what fits it?"""

import json
import tempfile
from pathlib import Path

from guest.checks import CPUS, FASTSOCKET, No, answer, output
from tests.harness.servers import nginx, served

SECONDS = "5"
# Advice on balance is left out, because it depends on the load: on how long threads wait for a CPU.
ADVICE = {
    "the library": "try",
    "nic": "no",
    "Flow Deliver": "no",
    "answer with FIN": "try",
    "delayed ACK": "try",
    "deferred accept": "try",
}


def check() -> str:
    """What was measured, as in "33 % of reads local, 6.5 calls each". Raises No where numbers or advice are wrong.

    Only one CPU sends requests, because the emulator must have CPU time left for the command itself.
    """
    server = nginx("nginx", workers=len(CPUS))
    with (
        tempfile.TemporaryDirectory() as folder,
        served(server, Path(folder), preload=False) as one,
        one.load(CPUS[:1]),
    ):
        found = json.loads(output([*FASTSOCKET, "measure", str(one.pid), "--seconds", SECONDS, "--json"]))
    passive, calls = found["passive"], (found["costs"] or {}).get("calls")
    told = f"{passive}, {calls} calls, missing {found['missing']}" if passive else f"missing {found['missing']}"
    if found["missing"] or not passive["reads"] or found["active"]["reads"] or not calls:
        raise No(told)
    advised = {one["switch"]: one["verdict"] for one in found["advice"]}
    if (wrong := {**advised, **ADVICE}) != advised or found["watchers"] != len(CPUS):
        raise No(f"advised {advised}, not {wrong}; {found['watchers']} watchers; {told}")
    return f"{passive['local_percent']:.0f} % of reads local, {calls:.1f} calls each"


if __name__ == "__main__":
    answer(check)

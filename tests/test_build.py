"""Building the parts of the accelerator."""

import subprocess
import sys
from pathlib import Path

from fastsocket.build import HERE

ROUNDS = 3
MAKEFILE = """
build/part: source
\t@mkdir -p build
\tcp source build/part.new && sleep 0.2 && mv build/part.new build/part
"""


def test_two_processes_build_at_once(tmp_path: Path):
    """Two sweeps that start in a new checkout: each make would move away what the other one is about to move."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for round_ in range(ROUNDS):
        (tmp_path / "source").write_text(str(round_))
        command = (
            f"from fastsocket.build import make; from pathlib import Path; make(Path({str(tmp_path)!r}), 'build/part')"
        )
        builders = [
            subprocess.Popen([sys.executable, "-c", command], cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        complaints = [builder.communicate()[1] for builder in builders]
        assert [builder.returncode for builder in builders] == [0, 0], complaints
        assert (tmp_path / "build" / "part").read_text() == str(round_)

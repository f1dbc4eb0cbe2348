"""python3 -m fastsocket runs the command from a checkout, whether or not the package is installed."""

import sys
from pathlib import Path

try:
    from fastsocket.cli import main
except ModuleNotFoundError as missing:
    root = Path(__file__).resolve().parent.parent
    print(
        f"fastsocket: Python finds no {missing.name}: pip install -e {root}, or python3 {root}/lab.py --yes test",
        file=sys.stderr,
    )
    sys.exit(3)

sys.exit(main())

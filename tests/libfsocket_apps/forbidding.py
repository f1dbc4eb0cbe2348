"""Run a command that may not make some system calls: forbidding.py (kill|refuse) NUMBER,NUMBER COMMAND …"""

import os
import sys

from filters import ERRNO_EPERM, KILL_PROCESS, forbid

forbid([int(number) for number in sys.argv[2].split(",")], KILL_PROCESS if sys.argv[1] == "kill" else ERRNO_EPERM)
os.execvp(sys.argv[3], sys.argv[3:])

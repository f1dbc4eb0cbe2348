"""Make Python use UTF-8 for all text, whatever the locale is."""

import locale
import os
import sys


def require() -> None:
    """Start this program again in Python's UTF-8 mode (PEP 540) where the locale has another encoding."""
    if locale.getpreferredencoding(do_setlocale=False).lower() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])

"""Build the wheel: it contains the compiled parts, and its name says on which platforms they run."""

import sys
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compiled(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled parts to a wheel.

    An editable wheel gets none: it uses those of the checkout, which builds them again when a source changes.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from fastsocket.build import LIBRARY, build, needed_glibc

        build()
        machine = sysconfig.get_platform().removeprefix("linux-")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-manylinux_{}_{}_{}".format(*needed_glibc(LIBRARY), machine)

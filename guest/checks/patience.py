"""A plugin for pytest: in an emulated guest every test may take fifteen minutes, whatever its own mark says."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.timeout(900), append=False)

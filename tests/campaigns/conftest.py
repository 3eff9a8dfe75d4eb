"""Fixtures of the campaigns."""

from collections.abc import Iterator

import pytest

from tests.campaigns.processes import kill_all


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    kill_all()

"""Applications' usual drivers with their default settings, directly and through the pooler: one checklist."""

import pytest

pytest.register_assert_rewrite("tests.drivers.common", "tests.drivers.session", "tests.drivers.site")

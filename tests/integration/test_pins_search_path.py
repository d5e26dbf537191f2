"""A client with pg_temp in its search_path keeps its server, and no longer than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.sharing import Sharing

pytestmark = pytest.mark.hyperpool_only


@pytest.mark.parametrize("end", ["RESET search_path", "SET search_path = public", "RESET ALL", "DISCARD ALL"])
def test_pg_temp_in_the_search_path(sharing: Sharing, end: str) -> None:
    """With pg_temp in the search_path any table may be temporary; without it, the client is free again."""
    client = sharing.client()
    client.ask("SET search_path = pg_temp, public")
    sharing.stays(client)
    client.ask(end)
    sharing.everywhere(client)

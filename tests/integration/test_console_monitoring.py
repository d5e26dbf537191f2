"""What monitoring asks the console, and what it expects: columns, their types, and values that it can read.

Sources: prometheus-community/pgbouncer_exporter (collector.go), DataDog/integrations-core (pgbouncer/metrics.py and
pgbouncer.py), check_pgbouncer and pgbadger-like scrapers, which go by column names, too.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg.rows import dict_row

from tests.support.poolers import config_for
from tests.support.postgres import BOB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

# pgbouncer_exporter: the labels and the numbers of each namespace.
EXPORTER = {
    "DATABASES": (
        "name host port database force_user pool_mode",
        "pool_size max_connections current_connections paused disabled",
    ),
    "STATS_TOTALS": (
        "database",
        (
            "query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count"
            " server_parse_count bind_count"
        ),
    ),
    "POOLS": (
        "database user",
        (
            "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel"
            " sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait"
        ),
    ),
}
EXPORTER_LISTS = (
    "databases users pools free_clients used_clients login_clients free_servers used_servers dns_names dns_zones"
    " dns_queries"
)
EXPORTER_CONFIG = "max_client_conn max_user_connections"
# Datadog's check: descriptors and metrics of each query.
DATADOG = {
    "STATS": (
        "database",
        (
            "total_xact_count total_query_count total_received total_sent total_query_time total_xact_time"
            " total_wait_time avg_xact_count avg_query_count avg_wait_time avg_recv avg_sent avg_xact_time"
            " avg_query_time"
        ),
    ),
    "POOLS": (
        "database user",
        "cl_active cl_waiting sv_active sv_idle sv_used sv_tested sv_login maxwait maxwait_us",
    ),
    "DATABASES": ("name", "pool_size max_connections current_connections"),
    "CLIENTS": ("database user state", "connect_time request_time wait wait_us"),
    "SERVERS": ("database user state", "connect_time request_time"),
}
DATADOG_CONFIG = "default_pool_size max_client_conn max_db_connections max_user_connections min_pool_size"
# Scrapers that take everything, and sort it by the names of the views.
SCRAPED = (
    "STATS STATS_TOTALS STATS_AVERAGES TOTALS POOLS DATABASES CLIENTS SERVERS LISTS USERS MEM CONFIG VERSION"
)


@pytest.fixture(scope="module")
def _monitored(make_module_pooler: PoolerFactory, _pg: PostgresCluster) -> Iterator[Pooler]:
    config = config_for(_pg, stats_users="bob", stats_period=1)
    config["databases"]["app"]["pool_mode"] = "transaction"
    pooler = make_module_pooler(config)
    with pooler.connect() as connection:
        connection.execute("SELECT 1")
        yield pooler


@pytest.fixture
def monitored(_monitored: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler that has done something, with a client; bob may read its console."""
    return watch(_monitored)


@pytest.mark.parametrize("view", EXPORTER)
def test_the_prometheus_exporter_s_queries(monitored: Pooler, view: str) -> None:
    """Simple queries with a semicolon; labels are texts or whole numbers, and metrics are numbers."""
    labels, metrics = (words.split() for words in EXPORTER[view])
    rows = _ask(monitored, f"SHOW {view};")
    assert rows
    for row in rows:
        assert all(row[label] is None or isinstance(row[label], str | int) for label in labels)
        assert all(float(row[metric]) >= 0 for metric in metrics)


def test_the_prometheus_exporter_s_lists(monitored: Pooler) -> None:
    """Rows of a name and a number."""
    lists = {row["list"]: int(row["items"]) for row in _ask(monitored, "SHOW LISTS;")}
    assert set(EXPORTER_LISTS.split()) <= set(lists)
    assert lists["used_clients"] == 2
    config = _ask(monitored, "SHOW CONFIG;")
    assert list(config[0]) == ["key", "value", "default", "changeable"]
    values = {row["key"]: row["value"] for row in config}
    assert all(float(values[key]) >= 0 for key in EXPORTER_CONFIG.split())
    assert re.fullmatch(
        r"PgBouncer 1\.\d+\.\d+ \(hyperpool .+\)", _ask(monitored, "SHOW VERSION;")[0]["version"]
    )


def _ask(pooler: Pooler, text: str) -> list[dict[str, Any]]:
    with psycopg.connect(
        **pooler.conninfo("pgbouncer", BOB),
        autocommit=True,
        row_factory=dict_row,
        cursor_factory=psycopg.ClientCursor,
    ) as console:
        return console.execute(text).fetchall()


@pytest.mark.parametrize("view", DATADOG)
def test_datadog_s_queries(monitored: Pooler, view: str) -> None:
    """With psycopg2's dictionaries and autocommit; times are read up to the seconds."""
    descriptors, metrics = (words.split() for words in DATADOG[view])
    rows = _ask_with_psycopg2(monitored, f"SHOW {view}")
    assert rows
    for row in rows:
        assert all(isinstance(row[name], str) for name in descriptors)
        for metric in metrics:
            if metric.endswith("_time") and view in {"CLIENTS", "SERVERS"}:
                assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[metric])
            else:
                assert float(row[metric]) >= 0


def test_datadog_s_config_and_version(monitored: Pooler) -> None:
    """A row for each setting becomes a metric; the first three numbers with dots are the version."""
    values = {row["key"]: row["value"] for row in _ask_with_psycopg2(monitored, "SHOW CONFIG")}
    assert all(float(values[key]) >= 0 for key in DATADOG_CONFIG.split())
    (row,) = _ask_with_psycopg2(monitored, "SHOW VERSION;")
    assert re.findall(r"\d+\.\d+\.\d+", row["version"])[0] == "1.25.2"


def _ask_with_psycopg2(pooler: Pooler, text: str) -> list[dict[str, Any]]:
    with closing(psycopg2.connect(**pooler.conninfo("pgbouncer", BOB))) as console:
        console.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
        with console.cursor(cursor_factory=psycopg2.extras.DictCursor) as cursor:
            cursor.execute(text)
            return [dict(row) for row in cursor]


def test_scrapers_that_take_everything(monitored: Pooler) -> None:
    """Every view has rows, whose columns have names of their own, within one session."""
    with psycopg.connect(
        **monitored.conninfo("pgbouncer", BOB), autocommit=True, row_factory=dict_row
    ) as console:
        for view in SCRAPED.split():
            cursor = console.execute(f"SHOW {view}".encode())
            names = [column.name for column in cursor.description or ()]
            assert len(set(names)) == len(names)
            assert cursor.fetchall()

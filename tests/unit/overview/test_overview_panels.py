"""The panels: what they need of the console is there, and what they make of it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.admin.views import Register
from hyperpool.overview.collect import Collector, ColumnMissing
from hyperpool.overview.panels import PANELS
from hyperpool.overview.report import as_json
from tests.support.overviews import RECORDED, cells, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.overview.model import Panel, Value

USES = [(panel, view, column) for panel in PANELS for view, names in panel.uses.items() for column in names]


def test_the_console_has_every_column_that_a_panel_uses() -> None:
    """Whoever renames one learns here which panel would have broken, in the dashboard and in `hyperpool top`."""
    views = Register()
    broken = []
    for panel, view, column in USES:
        shape = getattr(views.find(view), "shape", ())
        if column not in {one.name for one in shape}:
            broken.append(f"panel {panel.title!r} needs column {column!r} of SHOW {view.upper()}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("panel", "view", "column"), USES, ids=lambda one: getattr(one, "key", one))
def test_a_column_that_is_not_there_is_named(panel: Panel, view: str, column: str) -> None:
    """With its panel and its view."""

    def read(name: str) -> tuple[Sequence[str], Sequence[Sequence[Value]]]:
        names, rows = RECORDED[name]
        return [f"new_{one}" if (name, one) == (view, column) else one for one in names], rows

    with pytest.raises(
        ColumnMissing, match=rf"'{panel.title}' uses the column {column} of SHOW {view.upper()},"
    ):
        Collector(read, [panel]).look(0.0)


def test_what_a_panel_does_not_name_it_cannot_use() -> None:
    """The columns of the recorded rows are those that panels name: a look works with nothing else."""
    (summary, *_) = recorded()
    assert summary.rows[0]


def test_recorded_rows_have_the_console_s_shape() -> None:
    """Otherwise the other tests here would show nothing."""
    views = Register()
    for name, (names, rows) in RECORDED.items():
        view = views.find(name)
        assert view is not None
        assert set(names) <= {column.name for column in view.shape}
        assert all(len(row) == len(names) for row in rows)


class TestSummary:
    """The figures at the top."""

    def test_the_first_look(self) -> None:
        """Numbers are sums without the console's own, and rates are not known."""
        (row,) = cells(recorded(), "summary")
        assert (row["state"], row["paused"]) == ("active", "other")
        assert (row["clients"], row["waiting"], row["max_wait"], row["logging_in"]) == (9, 2, 1_500_000, 3)
        assert (row["sv_active"], row["sv_free"], row["sv_login"]) == (2, 5, 1)
        assert (row["queries"], row["hit_rate"], row["saved_time"]) == (None, None, 5_000_000)

    def test_the_second_look(self) -> None:
        """Rates are of the time between the two, and times those of one event."""
        (row,) = cells(recorded(later=2.0), "summary")
        assert (row["queries"], row["xacts"]) == (50.0, 25.0)
        assert (row["query_time"], row["xact_time"], row["wait_time"]) == (300.0, 800.0, 40.0)
        assert (row["received"], row["sent"]) == (1000.0, 2000.0)
        assert row["hit_rate"] == 0.75

    @pytest.mark.parametrize("later", [0.0, 31.0])
    def test_looks_that_cannot_be_compared(self, later: float) -> None:
        """No time has passed, or too much."""
        (row,) = cells(recorded(later=later), "summary")
        assert row["queries"] is row["query_time"] is row["hit_rate"] is None


class TestTables:
    """The other panels."""

    def test_databases_without_the_console(self) -> None:
        """The busiest comes first; where nothing has been counted, nothing has happened."""
        app, other = cells(recorded(later=2.0), "databases")
        assert (app["name"], app["state"], app["queries"], app["query_time"]) == ("app", "", 50.0, 300.0)
        assert (other["name"], other["state"], other["queries"]) == ("other", "paused", 0.0)

    def test_pools_where_clients_wait_come_first(self) -> None:
        """And the console's is none."""
        pools = cells(recorded(), "pools")
        assert [(row["database"], row["user"]) for row in pools] == [
            ("app", "bob"),
            ("app", "ann"),
            ("other", "ann"),
        ]
        assert (pools[0]["max_wait"], pools[1]["sv_other"]) == (1_500_000, 1)

    def test_hits_of_queries(self) -> None:
        """All that was answered from memory counts."""
        (query,) = cells(recorded(), "queries")
        assert (query["hits"], query["misses"], query["last_refusal"]) == (90, 10, None)

    def test_ways_hop_by_hop(self) -> None:
        """The way's own numbers stand beside its first hop, and its error at the last one."""
        first, second, other = cells(recorded(), "ways")
        assert (first["database"], first["hop"], first["name"], first["error"]) == (
            "app",
            1,
            "tcp db:5432",
            "",
        )
        assert (second["database"], second["hop"], second["error"]) == ("", 2, "no certificate")
        assert (other["database"], other["hop"], other["error"]) == ("other", None, "refused")

    def test_rows_beyond_the_limit_are_counted(self) -> None:
        """They are not shown."""
        names, rows = RECORDED["pools"]
        many = {**RECORDED, "pools": (names, list(rows) * 100)}
        panel = next(panel for panel in PANELS if panel.key == "pools")
        (shown,) = Collector(many.get, [panel]).look(0.0)
        assert (len(shown.rows), shown.more) == (200, 100)

    def test_a_pooler_without_hyperpool_s_own_views(self) -> None:
        """Pgbouncer has none of them: what remains is shown."""
        own = {"cache", "cache_queries", "hops", "transports", "tunnels", "busy", "errors"}
        shown = Collector({name: view for name, view in RECORDED.items() if name not in own}.get).look(0.0)
        assert [one.panel.key for one in shown] == ["summary", "databases", "pools"]

    def test_the_form_for_programs(self) -> None:
        """Cells are in the order of the fields."""
        for one in as_json(recorded()):
            assert all(len(row) == len(one["fields"]) for row in one["rows"])
            assert {field["kind"] for field in one["fields"]} <= {
                *("text", "code", "count", "rate", "bytes", "byterate", "time", "share"),
            }

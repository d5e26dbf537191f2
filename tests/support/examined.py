"""The doctor without servers: its settings, what it would do, and what it may have found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from hyperpool.config import load
from hyperpool.doctor.examine import Examination, Wishes
from hyperpool.doctor.findings import DatabaseFinding, HopFinding, ServerFinding
from tests.support.network import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from hyperpool.config import Settings
    from hyperpool.doctor.examine import Plan


def settings(tmp_path: Path, **change: Any) -> Settings:
    """Settings with one database, unless sections are replaced."""
    document = {
        "pooler": {"listen_addr": "127.0.0.1", "auth_type": "trust", "state_dir": str(tmp_path / "state")},
        "databases": {"app": {"port": free_port()}},
        "users": {"ann": {"password": "hunter2"}},
        **change,
    }
    path = tmp_path / "pooler.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load(path, {})


def plans(loaded: Settings, **wishes: Any) -> dict[str, Plan]:
    """What would be done."""
    return {plan.finding.name: plan for plan in Examination(loaded, Wishes(**wishes)).plans}


def a_hop(kind: str = "tcp", **change: Any) -> HopFinding:
    """A hop that went well."""
    return HopFinding(**{"kind": kind, "target": "db:5432", "seconds": 0.001, "facts": {}, **change})


def found(*hops: HopFinding, **change: Any) -> DatabaseFinding:
    """A database with one server."""
    return DatabaseFinding("app", "ann", "app", [ServerFinding("db:5432", "", list(hops), 0.002, **change)])

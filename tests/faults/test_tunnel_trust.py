"""Tokens that are revoked and certificates that expire while everything runs."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import scenes
from tests.support.gateways import OTHER_TOKEN, TOKEN
from tests.support.paths import TUNNELS
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.scenes import SceneFactory

pytestmark = [pytest.mark.hyperpool_only]

private_pg, make_scene = scenes.private_pg, scenes.make_scene

_CUTS: Final = frozenset({"ingress", "agent"})
"""The ways that end what came in with a token once that is revoked. (nginx looks at requests alone.)"""

_CUT_OFF: Final = {
    "ingress": "the WebSocket gateway localhost:",
    "agent": "agent site: its token is revoked",
}
"""What the clients of such streams are told, by the way."""

_REFUSED: Final = {
    "gateway": "refused the service token (302 to an Access login): check token_id and token_secret",
    "ingress": "refused the service token (403 Forbidden): check token_id and token_secret",
    "agent": "agent site is not connected",
}
"""What clients are told, by the way."""

_EXPIRED: Final = {
    "gateway": "certificate has expired",
    "ingress": "certificate has expired",
    "agent": "agent site is not connected",
}


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_token_that_is_revoked(make_scene: SceneFactory, kind: str) -> None:
    """Nothing new comes through, clients are told why, the log says it, and the right token mends it."""
    scene = make_scene(kind, default_pool_size=1)
    scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    with scene.pooler.connect() as connection:
        connection.execute("BEGIN")
        scene.path.replace_token(scene.pooler, OTHER_TOKEN)
        if kind in _CUTS:
            broken = scene.broken(connection)
            assert broken.sqlstate == "08006"
            assert _CUT_OFF[kind] in str(broken)
        else:
            connection.execute("COMMIT")
    scene.end_servers()
    fields = scene.wait_refused()
    assert (fields["S"], fields["C"]) == ("FATAL", "08001")
    assert _REFUSED[kind] in fields["M"]
    scene.logged(_REFUSED[kind], mark)
    if kind in _CUTS:

        def told() -> str:
            return scene.path.log_text() if kind == "ingress" else scene.pooler.log_text(mark)

        for reason in ("its token is revoked", "no token, or one that is not accepted"):
            eventually(lambda reason=reason: reason in told(), what=f"{reason!r} is in the log")  # type: ignore[misc]
        assert "its last stream was closed" not in told()
    scene.path.replace_token(scene.pooler, TOKEN)
    scene.wait_served()
    scene.wait_rest(rest)


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_certificate_that_expires(make_scene: SceneFactory, kind: str) -> None:
    """What is open goes on; nothing new comes through an expired certificate; a new one mends it."""
    scene = make_scene(kind, default_pool_size=1)
    scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    scene.path.certify(scene.pooler, dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5))
    scene.ask()
    scene.path.proxy.cut_all()
    fields = scene.wait_refused()
    assert (fields["S"], fields["C"]) == ("FATAL", "08001")
    assert _EXPIRED[kind] in fields["M"]
    scene.logged(_EXPIRED[kind], mark)
    if kind == "agent":
        eventually(lambda: "certificate has expired" in scene.path.log_text(), what="the agent says why")
    scene.path.certify(scene.pooler)
    scene.wait_served()
    scene.wait_rest(rest)

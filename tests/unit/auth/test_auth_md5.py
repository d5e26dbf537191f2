"""PostgreSQL's MD5 challenge."""

from __future__ import annotations

from hyperpool.auth import md5


def test_digest_is_what_postgresql_stores() -> None:
    """Password and user name are hashed together, the password first."""
    assert md5.digest(b"secret", b"alice") == "4a0a68b43b6cd5cf266fa02f196e2371"


def test_response_hashes_the_digest_with_the_salt() -> None:
    """The answer is the prefix and the hash of digest and salt, whatever bytes the salt has."""
    response = md5.response("4a0a68b43b6cd5cf266fa02f196e2371", b"\x93\x00\xff1")

    assert response == b"md58666209996a211387aa55076953078da"


def test_response_for_the_user_postgres() -> None:
    """The well-known digest of user postgres with password postgres gives the answer that md5sum gives."""
    digest = md5.digest(b"postgres", b"postgres")

    assert digest == "3175bce1d3201d16594cebf9d7eb3f9d"
    assert md5.response(digest, b"\x01\x02\x03\x04") == b"md568be9ed08db75f318087ab337aaea044"

"""What a source and the transfer engine tell each other, as far as it decides anything."""

from __future__ import annotations

from agent.core.access import PlainHttp, RateLimited
from agent.core.names import RepoId, StoreName
from agent.core.remote import SMALL_MAX, FetchRequest, Location, Query


class AnyAddress:
    def check(self, host: str, ip: str) -> None: ...
    def check_literal(self, host: str) -> None: ...


def location(url: str) -> Location:
    return Location("hub", PlainHttp(url, AnyAddress(), {"Authorization": "Bearer hf_secret"}))


def test_a_location_in_a_log_shows_neither_signature_nor_token() -> None:
    assert "secret" not in repr(location("https://cdn/f?Signature=secret"))
    assert "hub" in repr(location("https://cdn/f"))
    assert repr(location("https://cdn/f").access) == "PlainHttp()"


def test_a_rate_limit_says_for_how_long() -> None:
    assert RateLimited(7.5).seconds == 7.5


def test_messages_call_a_location_by_its_host() -> None:
    assert location("https://cdn.example/f?Signature=secret").access.host == "cdn.example"
    assert location("http://[::1/f").access.host == ""


def test_ranges_are_asked_for_unless_the_server_is_known_to_ignore_them() -> None:
    assert location("https://cdn/f").ranges


def test_a_hash_of_either_kind_tells_that_the_bytes_are_right() -> None:
    hashes: list[dict[str, str]] = [{"sha256": "ab"}, {"git_sha1": "cd"}, {"sha256": "ab", "git_sha1": "cd"}, {}]
    assert [FetchRequest("f", "f.part", "f.json", 7, **given).has_hash for given in hashes] == [True, True, True, False]


def test_a_request_that_says_nothing_is_in_the_middle_of_the_queue() -> None:
    assert FetchRequest("f", "f.part", "f.json", 7).priority == 5


def test_no_hash_binds_unless_the_catalog_has_one() -> None:
    assert not Query(RepoId("org/name"), "main", StoreName("org/name")).bound


def test_files_up_to_a_mebibyte_come_in_one_request() -> None:
    assert SMALL_MAX == 1_048_576

"""What a source and the transfer engine tell each other, as far as it decides anything."""

from __future__ import annotations

from agent.core.names import RepoId, StoreName
from agent.core.remote import SMALL_MAX, FetchRequest, Location, Query


def test_a_location_in_a_log_shows_neither_signature_nor_token() -> None:
    location = Location("hub", "https://cdn/f?Signature=secret", {"Authorization": "Bearer hf_secret"}, etag='"e"')
    assert "secret" not in repr(location)
    assert "hub" in repr(location)


def test_ranges_are_asked_for_unless_the_server_is_known_to_ignore_them() -> None:
    assert Location("hub", "https://cdn/f").ranges


def test_a_request_that_says_nothing_is_in_the_middle_of_the_queue() -> None:
    assert FetchRequest("f", "f.part", "f.json", 7).priority == 5


def test_no_hash_binds_unless_the_catalogue_has_one() -> None:
    assert not Query(RepoId("org/name"), "main", StoreName("org/name")).bound


def test_files_up_to_a_mebibyte_come_in_one_request() -> None:
    assert SMALL_MAX == 1_048_576

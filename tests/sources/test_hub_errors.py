"""Each refusal of a Hub has its error code."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Code
from agent.net.client import Response
from agent.sources.hub_errors import Asked, refusal
from agent.sources.hub_parse import etag_of, next_query, size_of_header

BAD_TOKEN = "Invalid credentials in Authorization header"


def asked(token: str | None = None, file: str | None = None) -> Asked:
    return Asked("https://hub.example", "org/name", "main", file, token, Code.HUB_UNREACHABLE)


def answer(status: int, code: str = "", message: str = "", body: object = None) -> Response:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return Response(status, "https://hub.example/x", headers, orjson.dumps(body) if body is not None else b"")


@pytest.mark.parametrize(
    ("given_answer", "question", "code"),
    [
        (answer(401, "RepoNotFound", "Invalid username or password."), asked(), Code.UNAUTHORIZED),
        (answer(404, "RepoNotFound"), asked(), Code.MODEL_NOT_FOUND),
        (answer(404, "RepoNotFound"), asked("t"), Code.MODEL_NOT_FOUND),
        (answer(404, "RepoNotFound"), asked("t", "f"), Code.MODEL_NOT_FOUND),
        (answer(401, "RepoNotFound"), asked("t"), Code.MODEL_NOT_FOUND),
        (answer(401, "", BAD_TOKEN), asked("t"), Code.TOKEN_INVALID),
        (answer(401, body={"error": BAD_TOKEN}), asked("t"), Code.TOKEN_INVALID),
        (answer(401, body={"errors": [{"message": BAD_TOKEN}]}), asked("t"), Code.TOKEN_INVALID),
        (answer(401), asked(), Code.UNAUTHORIZED),
        (answer(403), asked("t"), Code.UNAUTHORIZED),
        (answer(403, "GatedRepo"), asked("t"), Code.GATED),
        (answer(401, "GatedRepo"), asked(), Code.GATED),
        (answer(404, "RevisionNotFound"), asked(), Code.REVISION_NOT_FOUND),
        (answer(404, "RevisionNotFound"), asked(file="f"), Code.REVISION_NOT_FOUND),
        (answer(404, body={"error": "Invalid rev id: x"}), asked(), Code.REVISION_NOT_FOUND),
        (answer(404, "EntryNotFound"), asked(file="f"), Code.FILE_NOT_FOUND),
        (answer(404), asked(file="f"), Code.FILE_NOT_FOUND),
        (answer(404), asked(), Code.MODEL_NOT_FOUND),
        (answer(403, "", "Access to this resource is disabled."), asked(), Code.MODEL_NOT_FOUND),
        (answer(451), asked(), Code.MODEL_NOT_FOUND),
        (answer(429), asked(), Code.RATE_LIMITED),
        (answer(408), asked(), Code.HUB_UNREACHABLE),
        (answer(500), asked(), Code.HUB_UNREACHABLE),
        (answer(503), asked("t"), Code.HUB_UNREACHABLE),
        (answer(400), asked(), Code.HUB_PROTOCOL),
        (answer(302), asked(), Code.HUB_PROTOCOL),
        (answer(204), asked(), Code.HUB_PROTOCOL),
    ],
)
def test_a_refusal_has_its_code(given_answer: Response, question: Asked, code: Code) -> None:
    error = refusal(given_answer, question, 5.0)
    assert error.code is code
    assert error.retryable is (code in (Code.RATE_LIMITED, Code.HUB_UNREACHABLE))
    assert error.hint
    assert error.model == "org/name"


def test_an_anonymous_refusal_says_what_it_may_be_and_how_to_go_on() -> None:
    error = refusal(answer(401, "RepoNotFound", "Invalid username or password."), asked(), 0.0)
    assert "does not exist, or is private or gated" in error.message
    assert "HF_TOKEN" in error.hint


def test_a_gated_model_names_the_page_to_accept_its_conditions() -> None:
    assert "https://hub.example/org/name" in refusal(answer(403, "GatedRepo"), asked("t"), 0.0).hint


@given(
    st.integers(100, 999),
    st.text(max_size=30),
    st.text(max_size=500),
    st.binary(max_size=200),
    st.booleans(),
)
def test_any_refusal_is_one_line_that_can_be_shown(
    status: int, code: str, words: str, body: bytes, token: bool
) -> None:
    headers = {"X-Error-Code": code, "X-Error-Message": words}
    error = refusal(Response(status, "https://hub.example/", headers, body), asked("t0ken" if token else None), 1.0)
    assert error.message.isascii() and error.message.isprintable()
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('<https://huggingface.co/api/models/a/tree/c?cursor=Zm9v%3D>; rel="next"', "cursor=Zm9v%3D"),
        ("</x?a=1>; rel=next", "a=1"),
        ('<https://h/prev?p=0>; rel="prev", <https://h/next?p=2>; rel="next"', "p=2"),
        ('<https://h/x?a=1#b>; rel="next"', "a=1"),
        ('<https://h/x>; rel="next"', None),
        ('<https://h/x?a=1>; rel="last"', None),
        ("", None),
        ("nonsense", None),
    ],
)  # fmt: skip
def test_of_a_next_link_only_the_query_is_taken(link: str, query: str | None) -> None:
    assert next_query(link) == query


@given(st.text(alphabet='<>;="nextrl ?,/a'))
def test_no_link_header_breaks_the_parser(link: str) -> None:
    next_query(link)


def test_etags_and_lengths_are_read_as_they_come() -> None:
    assert [etag_of(text) for text in ('"a"', 'W/"a"', "a", "", None)] == ["a", "a", "a", None, None]
    texts = ("0", "17", "-1", "1e3", "", "٣", "9" * 30, None)
    assert [size_of_header(text) for text in texts] == [0, 17, None, None, None, None, None, None]

"""Tokens: who sees what, and what the others are told."""

from __future__ import annotations

import json

import aiohttp
import pytest

from tests.hub.access import TOKEN_GRANTED, TOKEN_PLAIN
from tests.hub.ledger import token_hash
from tests.hub.server import InstrumentedHub


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [
        ("/api/models/no/such", None, 401, "RepoNotFound"),
        ("/api/models/no/such", TOKEN_PLAIN, 404, "RepoNotFound"),
        ("/api/models/wantd/private", None, 401, "RepoNotFound"),
        ("/api/models/wantd/private", TOKEN_PLAIN, 404, "RepoNotFound"),
        ("/api/models/wantd/private", TOKEN_GRANTED, 200, None),
        ("/api/models/wantd/gated", TOKEN_PLAIN, 200, None),
        ("/wantd/gated/resolve/main/README.md", TOKEN_PLAIN, 403, "GatedRepo"),
        ("/wantd/gated/resolve/main/nope", TOKEN_PLAIN, 403, "GatedRepo"),
        ("/wantd/gated/resolve/main/README.md", TOKEN_GRANTED, 307, None),
        ("/api/models/wantd/gated-closed/revision/main", None, 401, "RepoNotFound"),
        ("/api/models/wantd/gated-closed/revision/main", TOKEN_PLAIN, 403, "GatedRepo"),
        ("/api/models/wantd/gated-closed/revision/main", TOKEN_GRANTED, 200, None),
        ("/api/models/Qwen/Qwen3-0.6B", "hf_nobodys", 401, None),
        ("/api/models/wantd/gated-closed", "hf_nobodys", 401, None),
        ("/api/models/wantd/disabled", TOKEN_GRANTED, 403, None),
        ("/api/whoami-v2", None, 401, None),
        ("/api/whoami-v2", TOKEN_PLAIN, 200, None),
    ],
)
async def test_every_refusal_has_the_status_and_code_that_clients_know(
    hub: InstrumentedHub, http: aiohttp.ClientSession, path: str, token: str | None, status: int, code: str | None
) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.get(hub.endpoint + path, headers=headers, allow_redirects=False) as response:
        assert (response.status, response.headers.get("X-Error-Code")) == (status, code)
        if status >= 400:
            assert (await response.json())["error"] == response.headers["X-Error-Message"]


async def test_a_token_is_remembered_as_its_hash_by_host(hub: InstrumentedHub, http: aiohttp.ClientSession) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN_PLAIN}"}
    url = f"{hub.endpoint}/Qwen/Qwen3-0.6B/resolve/main/model.safetensors"
    async with http.head(url, headers=bearer, allow_redirects=False) as response:
        location = response.headers["Location"]
    assert hub.ledger.seen_tokens == {"hub": {token_hash(TOKEN_PLAIN)}, "cdn": set()}
    async with http.get(location, headers=bearer) as response:
        assert response.status == 400
    assert hub.ledger.seen_tokens["cdn"] == {token_hash(TOKEN_PLAIN)}
    assert TOKEN_PLAIN not in json.dumps(hub.ledger.to_json())

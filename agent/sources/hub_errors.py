"""A Hub's refusals as errors. One table, read from top to bottom. Pure.

A Hub says what is wrong in `X-Error-Code` and `X-Error-Message`, or in the body as `error` or `errors[].message`:
RepoNotFound (401 for anonymous requests, where missing, private and gated look alike, else 404), GatedRepo (401 or
403), RevisionNotFound and EntryNotFound (404), and 401 "Invalid credentials in Authorization header" for a bad token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from agent.core.names import show
from agent.errors import Code, WantdError
from agent.net.budget import rate_limited
from agent.net.client import Response

SHOWN = 200  # characters of a server's own words in a message
_PASSING = (408, 425)  # and all of 500 to 599
_GONE = (410, 451)  # 451: taken down on legal grounds


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: a model at a revision, or one file of it, with a token or without.

    `listed` says that the Hub itself lists the file at this revision.
    """

    endpoint: str
    repo: str
    revision: str
    file: str | None
    token: str | None
    unreachable: Code
    who: str = "the Hub"
    listed: bool = False

    def error(self, code: Code, what: str, hint: str, **more: Any) -> WantdError:
        """The error about this request."""
        return WantdError(code, what, hint, model=self.repo, file=self.file, **more)


def refusal(response: Response, asked: Asked, wait_s: float) -> WantdError:
    """The error for a response that is no success. `wait_s` is how long the host wants to be left alone."""
    status, code = response.status, response.headers.get("X-Error-Code", "")
    words = _words(response)
    if status == 429:
        return rate_limited(asked.who, wait_s, model=asked.repo, file=asked.file)
    if status >= 500 or status in _PASSING:
        return asked.error(
            asked.unreachable,
            f"{asked.who} answered {status}{_said(words, asked)}",
            "wait, or set HF_ENDPOINT to a mirror; wantd keeps trying",
            retry_after_s=wait_s or None,
        )
    if "resource is disabled" in words.lower() or status in _GONE:
        return disabled(asked)
    if code == "GatedRepo":
        return _gated(asked)
    if status in (401, 403):
        return _denied(response, code, words, asked)
    if status == 404 or code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound"):
        return _not_found(code, words, asked)
    return asked.error(
        Code.HUB_PROTOCOL,
        f"{asked.who} answered {status}{_said(words, asked)}",
        "check that HF_ENDPOINT names a Hub or a mirror of it",
    )


def disabled(asked: Asked) -> WantdError:
    """The repository exists, and the Hub serves nothing of it."""
    return asked.error(
        Code.MODEL_NOT_FOUND,
        f"{asked.who} has disabled {asked.repo}",
        f"choose another model; see {asked.endpoint}/{asked.repo} for the reason",
    )


def elsewhere(response: Response, host: str, asked: Asked) -> WantdError:
    """The storage that the Hub redirected to refuses: that says nothing about the model, only time helps."""
    return asked.error(
        asked.unreachable,
        f"the storage of {asked.who} at {show(host, 80)} answered {response.status}",
        "wait; wantd asks the Hub for a new URL of the file and tries again",
    )


def _gated(asked: Asked) -> WantdError:
    page = f"{asked.endpoint}/{asked.repo}"
    # A token that the Hub does not know gets the same response as one whose account has not accepted the conditions.
    mend = "check that HF_TOKEN is a valid token of that account" if asked.token else "set HF_TOKEN to a token of it"
    return asked.error(
        Code.GATED,
        f"{asked.repo} is gated, and " + ("the token gives no access to it" if asked.token else "no token is set"),
        f"accept the conditions at {page} with your account, then {mend}",
    )


def _denied(response: Response, code: str, words: str, asked: Asked) -> WantdError:
    low = words.lower()
    if asked.token and ("invalid credentials" in low or "invalid username or password" in low):
        return asked.error(
            Code.TOKEN_INVALID,
            f"{asked.who} does not accept the token",
            f"make a new one at {asked.endpoint}/settings/tokens and set HF_TOKEN, or write it to the token file",
        )
    if code == "RepoNotFound" and asked.token:
        return _not_found(code, words, asked)
    if not asked.token:
        return asked.error(
            Code.UNAUTHORIZED,
            f"{asked.who} does not show {asked.repo} without a token: it does not exist, or is private or gated",
            "check the name; for a private or gated model set HF_TOKEN to a token that may read it",
        )
    return asked.error(
        Code.UNAUTHORIZED,
        f"the token may not read {asked.repo}: {asked.who} answered {response.status}{_said(words, asked)}",
        f"give the token read access to it at {asked.endpoint}/settings/tokens, or check the name",
    )


def _not_found(code: str, words: str, asked: Asked) -> WantdError:
    if code == "RevisionNotFound" or (not code and words.lower().startswith("invalid rev id")):
        return asked.error(
            Code.REVISION_NOT_FOUND,
            f"{asked.repo} has no revision {show(asked.revision)}",
            f"see {asked.endpoint}/{asked.repo}/commits for what there is, or leave the revision out for main",
        )
    if asked.file is not None and asked.listed and code != "RepoNotFound":
        return asked.error(
            Code.FILE_NOT_FOUND,
            f"{asked.who} lists {show(asked.file)} in {asked.repo} at {show(asked.revision)}, but does not have it",
            f"tell the owner of {asked.endpoint}/{asked.repo} that the upload is incomplete, or want another revision",
        )
    if asked.file is not None and code != "RepoNotFound":
        return asked.error(
            Code.FILE_NOT_FOUND,
            f"{asked.repo} has no file {show(asked.file)} at {show(asked.revision)}",
            f"see {asked.endpoint}/{asked.repo}/tree/main for what there is",
        )
    return asked.error(
        Code.MODEL_NOT_FOUND,
        f"{asked.who} has no model {asked.repo}" + (", or the token may not see it" if asked.token else ""),
        f"check the name at {asked.endpoint}/models",
    )


def _words(response: Response) -> str:
    """What the server says itself: `X-Error-Message`, `error`, or `errors[].message`."""
    if header := response.headers.get("X-Error-Message"):
        return header
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(body, dict):
        return ""
    errors = body.get("errors")
    listed = errors[0].get("message") if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None
    said = body.get("error") or listed
    return said if isinstance(said, str) else ""


def _said(words: str, asked: Asked) -> str:
    """The server's words for a message; one that sends the token back does not get it published."""
    if asked.token:
        words = words.replace(asked.token, "(token)")
    return f": {show(words, SHOWN)}" if words else ""

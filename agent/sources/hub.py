"""The Hub and its mirrors: listings, and where the bytes of a file are.

The routes (https://huggingface.co/docs/hub/api) are `/api/models/{repo}/revision/{revision}`,
`/api/models/{repo}/tree/{commit}` and `/{repo}/resolve/{commit}/{file}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from cachetools import LRUCache

from agent.core.access import PlainHttp
from agent.core.names import SafeName, show
from agent.core.remote import Listing, Location, Query, RemoteFile
from agent.errors import Code, WantdError
from agent.net.budget import HostBudgets
from agent.net.client import Http, Response
from agent.net.redirect import host_key, origin, same_origin
from agent.sources import hub_parse as parse
from agent.sources.hub_errors import Asked, disabled, elsewhere, refusal

T = TypeVar("T")

LONG_BODY = 64 * 1024  # bytes: less is read in 5 ms on the event loop
MAX_PAGES = 200  # of the tree API, at about 1,000 entries each
MAX_REMEMBERED = parse.MAX_FILES  # files of the latest listings, some 40 MB: the largest one fits


class HubSource:
    """A Hub at `endpoint` (no trailing slash). The token goes to that origin, and nowhere else.

    `name` is what progress files call this source; a mirror gets one of its own, and no token.
    """

    def __init__(
        self,
        http: Http,
        budgets: HostBudgets,
        endpoint: str,
        *,
        token: str | None = None,
        offline: bool = False,
        name: str = "hub",
    ) -> None:
        self.name = name
        self._http = http
        self._budgets = budgets
        self._endpoint = endpoint
        self._token = token
        self._offline = offline
        self._listed: LRUCache[tuple[str, str], dict[str, RemoteFile]] = LRUCache(MAX_REMEMBERED, _weight)
        # The Hub redirects small files too, some mirrors and older Hubs do not. True once one was served without a
        # redirect: then no file of that kind costs a request before its bytes are asked for.
        self._plain_is_direct = False
        self._reading = asyncio.Lock()
        self.recognised = False  # whether there was a response that only a Hub or its mirror gives

    def __repr__(self) -> str:
        return f"HubSource({self.name!r}, {self._endpoint!r})"

    async def listing(self, query: Query) -> Listing:
        """All files of the repository at the commit that the revision names now. See `core.ports.Source`."""
        repo, revision = query.repo, query.revision
        asked = self._asked(repo, revision)
        with _about(asked):
            url = f"{self._endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
            response = self._good(await self._http.get(url, self._auth()), asked)
            commit, files, restricted = await self._beside(response, lambda: self._read_listing(response, asked))
            if files is None:
                files = await self._tree(asked, commit)
            self._listed[repo.lower(), commit] = await self._beside(
                response, lambda: {file.name: file for file in files}
            )
            return Listing(self.name, repo, commit, files, restricted=restricted)

    async def _beside(self, response: Response, work: Callable[[], T]) -> T:
        """What `work` makes of a response. A long one takes a second: in a thread, and one at a time, since what
        is read of 16 MiB takes ten times as much memory for that while.
        """
        if len(response.body) < LONG_BODY:
            return work()
        async with self._reading:
            return await asyncio.to_thread(work)

    def _read_listing(self, response: Response, asked: Asked) -> tuple[str, tuple[RemoteFile, ...] | None, bool]:
        """Commit and files of a model's own document, None where they are not in it, and whether it is restricted."""
        model, revision = response.json(), asked.revision
        if not isinstance(model, dict):
            raise parse.unexpected("the model is not an object")
        if model.get("disabled") is True:
            raise disabled(asked)
        commit = parse.commit_of(model.get("sha"))
        self.recognised = True
        if parse.is_commit(revision) and commit != revision:
            raise parse.unexpected(f"asked for commit {revision}, got commit {commit}")
        return commit, parse.files_of(model.get("siblings")), parse.is_restricted(model)

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """Where to read the file's bytes now. See `core.ports.Source`.

        At first the Hub is asked with HEAD, and its redirect to the storage is the location. Where that did not work
        (`failed`), every redirect is followed to the server that really gives the first byte.
        """
        repo, commit = query.repo, query.revision
        file = self._listed.get((repo.lower(), commit), {}).get(name)
        asked = self._asked(repo, commit, name, listed=file is not None)
        url = f"{self._endpoint}/{repo}/resolve/{quote(commit, safe='')}/{quote(name, safe='/')}"
        plain = file is not None and file.sha256 is None
        if file is not None and plain and failed is None and self._plain_is_direct:
            return self._location(url, file.git_sha1, None, file.size)
        with _about(asked):
            response = await self._http.head(url, self._auth()) if failed is None else None
            if response is None or response.status in (405, 501):  # a mirror without HEAD
                response = await self._http.probe(url, self._auth())
            if plain:
                self._plain_is_direct = failed is None and response.status == 200 and not response.hops
            return self._found(response, asked, commit, file)

    async def _tree(self, asked: Asked, commit: str) -> tuple[RemoteFile, ...]:
        """The files from the tree API, page by page."""
        files: list[RemoteFile] = []
        page: str | None = "recursive=true&expand=false"
        for _ in range(MAX_PAGES):
            url = f"{self._endpoint}/api/models/{asked.repo}/tree/{commit}?{page}"
            response = self._good(await self._http.get(url, self._auth()), asked)
            files += await self._beside(response, partial(_tree_files, response))
            previous, page = page, parse.next_query(response.headers.get("Link", ""))
            if page is None:
                return parse.checked(files)
            if page == previous or len(files) > parse.MAX_FILES:
                break
        raise parse.unexpected(f"the list of files does not end within {MAX_PAGES} pages and {parse.MAX_FILES} files")

    def _found(self, response: Response, asked: Asked, commit: str, file: RemoteFile | None) -> Location:
        """The location that the response to HEAD or to a probe gives, checked against the listing."""
        own = [hop for hop in (*response.hops, response) if same_origin(hop.url, self._endpoint)]
        away = not same_origin(response.url, self._endpoint)
        empty = response.status == 416  # the first byte of a file that has none
        if away and not empty and response.status not in (200, 206):
            raise elsewhere(response, origin(response.url).host, asked)
        if response.location is None and not away and not empty:
            self._good(response, asked, (200, 206))
        announced = _first(own, "X-Repo-Commit")
        self.recognised |= announced is not None
        if announced is not None and announced != commit and parse.is_commit(commit):
            raise parse.unexpected(f"asked for commit {commit}, got {show(announced, 60)}")
        # Only X-Linked-Etag is the hash of the content. An ETag may be the storage's own name for it, 64 hex digits too
        # (the Hub's storage sends its Xet hash), and it comes from here where no redirect led to the storage.
        content_hash, etag = parse.etag_of(_first(own, "X-Linked-Etag")), None
        size = _first(own, "X-Linked-Size")
        if not away and response.location is None:  # the content itself answered
            etag = parse.etag_of(response.headers.get("ETag"))
            size = size or (response.headers.get("Content-Length") if response.status == 200 else _total(response))
        length = parse.size_of_header(size)
        if file is not None:
            parse.check_announced(file, content_hash, length)
            content_hash = file.sha256 or file.git_sha1  # one name for the content, from whatever mirror it comes
            length = file.size if length is None else length
        ranges = response.headers.get("Accept-Ranges", "").lower() != "none"
        return self._location(
            response.location or response.url, content_hash, etag, length, ranges or response.location is not None
        )

    def _location(
        self, url: str, content_hash: str | None, etag: str | None, size: int | None, ranges: bool = True
    ) -> Location:
        """`content_hash` is the content's, in either form; `etag` what names its version where no hash is known."""
        auth = self._auth() if same_origin(url, self._endpoint) else None
        headers = {"Authorization": auth} if auth else {}
        sha256 = content_hash if content_hash and parse.is_sha256(content_hash) else None
        access = PlainHttp(url, self._http.rule, headers)
        return Location(self.name, access, content_hash or etag, size, ranges, sha256, self._http.unreachable)

    def _good(self, response: Response, asked: Asked, statuses: tuple[int, ...] = (200,)) -> Response:
        if response.status in statuses:
            return response
        self.recognised |= "X-Error-Code" in response.headers
        # A refusal alone asks this: where nothing is to be waited for, a second is short enough.
        wait = self._budgets.delay(host_key(response.url)) if response.status in (429, 503) else 0.0
        raise refusal(response, asked, max(wait, 1.0) if response.status == 429 else wait)

    def _asked(self, repo: str, revision: str, file: str | None = None, *, listed: bool = False) -> Asked:
        if self._offline:
            raise WantdError(
                Code.HUB_UNREACHABLE,
                "the Hub was not asked: wantd is set to work offline",
                "unset HF_HUB_OFFLINE, and set offline = false in the section [hub], to download from the Hub",
                retryable=False,
                model=repo,
                file=file,
            )
        who = "the Hub" if self.name == "hub" else f"the {self.name}"
        return Asked(self._endpoint, repo, revision, file, self._token, self._http.unreachable, who, listed)

    def _auth(self) -> str | None:
        if self._token and not (self._token.isascii() and self._token.isprintable() and " " not in self._token):
            raise WantdError(
                Code.TOKEN_INVALID,
                "the Hub token holds characters that no token has",
                "check HF_TOKEN or the token file: one line, letters and digits, like hf_…",
            )
        return f"Bearer {self._token}" if self._token else None


def _tree_files(response: Response) -> list[RemoteFile]:
    return parse.tree_files(response.json())


def _weight(listed: dict[str, RemoteFile]) -> int:
    return max(len(listed), 1)


def _first(responses: list[Response], header: str) -> str | None:
    return next((value for response in responses if (value := response.headers.get(header))), None)


def _total(response: Response) -> str | None:
    return response.headers.get("Content-Range", "").rpartition("/")[2] or None


@contextmanager
def _about(asked: Asked) -> Iterator[None]:
    """Name model and file in errors from below, which do not know them."""
    try:
        yield
    except WantdError as error:
        error.model, error.file = error.model or asked.repo, error.file or asked.file
        raise

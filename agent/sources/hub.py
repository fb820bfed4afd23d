"""The Hub, and whatever speaks its language (mirrors): listings, and where the bytes of a file lie.

The routes are in HUB.md: `/api/models/{repo}/revision/{revision}`, `/api/models/{repo}/tree/{commit}`,
`/{repo}/resolve/{commit}/{file}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from cachetools import LRUCache

from agent.core.access import PlainHttp
from agent.core.names import SafeName, show
from agent.core.remote import Listing, Location, Query, RemoteFile
from agent.errors import Code, WantdError
from agent.net.budget import HostBudgets
from agent.net.client import Answer, Http
from agent.net.redirect import host_key, origin, same_origin
from agent.sources import hub_parse as parse
from agent.sources.hub_answers import Asked, disabled, elsewhere, refusal

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
        # The Hub redirects small files too, some mirrors and older Hubs do not. True once one was seen to come
        # straight: then no file of that kind costs a request before its bytes are asked for.
        self._plain_comes_straight = False
        self.recognised = False  # whether something was answered that only a Hub or its mirror answers

    def __repr__(self) -> str:
        return f"HubSource({self.name!r}, {self._endpoint!r})"

    async def listing(self, query: Query) -> Listing:
        """All files of the repository at the commit that the revision names now. See `core.ports.Source`."""
        repo, revision = query.repo, query.revision
        asked = self._asked(repo, revision)
        with _about(asked):
            url = f"{self._endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
            model = self._good(await self._http.get(url, self._auth()), asked).json()
            if not isinstance(model, dict):
                raise parse.bad_answer("the model is no object")
            if model.get("disabled") is True:
                raise disabled(asked)
            commit = parse.commit_of(model.get("sha"))
            self.recognised = True
            if parse.is_commit(revision) and commit != revision:
                raise parse.bad_answer(f"asked for the commit {revision}, it tells of {commit}")
            files = parse.files_of(model.get("siblings"))
            if files is None:
                files = await self._tree(asked, commit)
            self._listed[repo.lower(), commit] = {file.name: file for file in files}
            return Listing(self.name, repo, commit, files)

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """Where to read the file's bytes now. See `core.ports.Source`.

        At first the Hub is asked with HEAD and its redirect to the storage is the answer. Where that did not work
        (`failed`), every redirect is followed to the server that really gives the first byte.
        """
        repo, commit = query.repo, query.revision
        file = self._listed.get((repo.lower(), commit), {}).get(name)
        asked = self._asked(repo, commit, name, listed=file is not None)
        url = f"{self._endpoint}/{repo}/resolve/{quote(commit, safe='')}/{quote(name, safe='/')}"
        plain = file is not None and file.sha256 is None
        if file is not None and plain and failed is None and self._plain_comes_straight:
            return self._location(url, file.git_sha1, None, file.size)
        with _about(asked):
            answer = await self._http.head(url, self._auth()) if failed is None else None
            if answer is None or answer.status in (405, 501):  # a mirror without HEAD
                answer = await self._http.probe(url, self._auth())
            if plain:
                self._plain_comes_straight = failed is None and answer.status == 200 and not answer.hops
            return self._found(answer, asked, commit, file)

    async def _tree(self, asked: Asked, commit: str) -> tuple[RemoteFile, ...]:
        """The files from the tree API, page by page."""
        files: list[RemoteFile] = []
        page: str | None = "recursive=true&expand=false"
        for _ in range(MAX_PAGES):
            url = f"{self._endpoint}/api/models/{asked.repo}/tree/{commit}?{page}"
            answer = self._good(await self._http.get(url, self._auth()), asked)
            files += parse.tree_files(answer.json())
            previous, page = page, parse.next_query(answer.headers.get("Link", ""))
            if page is None:
                return parse.checked(files)
            if page == previous or len(files) > parse.MAX_FILES:
                break
        raise parse.bad_answer(f"the list of files does not end within {MAX_PAGES} pages and {parse.MAX_FILES} files")

    def _found(self, answer: Answer, asked: Asked, commit: str, file: RemoteFile | None) -> Location:
        """The location that an answer to HEAD or to a probe tells of, checked against the listing."""
        own = [hop for hop in (*answer.hops, answer) if same_origin(hop.url, self._endpoint)]
        away = not same_origin(answer.url, self._endpoint)
        empty = answer.status == 416  # the first byte of a file that has none
        if away and not empty and answer.status not in (200, 206):
            raise elsewhere(answer, origin(answer.url).host, asked)
        if answer.location is None and not away and not empty:
            self._good(answer, asked, (200, 206))
        told = _first(own, "X-Repo-Commit")
        self.recognised |= told is not None
        if told is not None and told != commit and parse.is_commit(commit):
            raise parse.bad_answer(f"asked for the commit {commit}, it serves {show(told, 60)}")
        # Only X-Linked-Etag is the hash of the content. An ETag may be the storage's own name for it, 64 hex digits too
        # (the Hub's storage sends its Xet hash), and it comes from here where no redirect led to the storage.
        hash_, etag = parse.etag_of(_first(own, "X-Linked-Etag")), None
        size = _first(own, "X-Linked-Size")
        if not away and answer.location is None:  # the content itself answered
            etag = parse.etag_of(answer.headers.get("ETag"))
            size = size or (answer.headers.get("Content-Length") if answer.status == 200 else _total(answer))
        length = parse.size_of_header(size)
        if file is not None:
            parse.check_announced(file, hash_, length)
            hash_ = file.sha256 or file.git_sha1  # one name for the content, from whatever mirror it comes
            length = file.size if length is None else length
        ranges = answer.headers.get("Accept-Ranges", "").lower() != "none"
        return self._location(answer.location or answer.url, hash_, etag, length, ranges or answer.location is not None)

    def _location(
        self, url: str, hash_: str | None, etag: str | None, size: int | None, ranges: bool = True
    ) -> Location:
        """`hash_` is the content's, in either form; `etag` what names its version where no hash is known."""
        auth = self._auth() if same_origin(url, self._endpoint) else None
        headers = {"Authorization": auth} if auth else {}
        sha256 = hash_ if hash_ and parse.is_sha256(hash_) else None
        access = PlainHttp(url, self._http.rule, headers)
        return Location(self.name, access, hash_ or etag, size, ranges, sha256, self._http.unreachable)

    def _good(self, answer: Answer, asked: Asked, statuses: tuple[int, ...] = (200,)) -> Answer:
        if answer.status in statuses:
            return answer
        self.recognised |= "X-Error-Code" in answer.headers
        # Only an answer after a refusal asks this: where nothing is to be waited for, a second is short enough.
        wait = self._budgets.delay(host_key(answer.url)) if answer.status in (429, 503) else 0.0
        raise refusal(answer, asked, max(wait, 1.0) if answer.status == 429 else wait)

    def _asked(self, repo: str, revision: str, file: str | None = None, *, listed: bool = False) -> Asked:
        if self._offline:
            raise WantdError(
                Code.HUB_UNREACHABLE,
                "the Hub is not asked: wantd is set to work offline",
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


def _weight(listed: dict[str, RemoteFile]) -> int:
    return max(len(listed), 1)


def _first(answers: list[Answer], header: str) -> str | None:
    return next((value for answer in answers if (value := answer.headers.get(header))), None)


def _total(answer: Answer) -> str | None:
    return answer.headers.get("Content-Range", "").rpartition("/")[2] or None


@contextmanager
def _about(asked: Asked) -> Iterator[None]:
    """Errors that come from below do not know which model and file they are about."""
    try:
        yield
    except WantdError as error:
        error.model, error.file = error.model or asked.repo, error.file or asked.file
        raise

"""The Hub's routes, over any `Repositories`.

    GET   /api/models/{repo}[/revision/{revision}][?blobs=true]     commit, files, sizes, hashes
    GET   /api/models/{repo}/refs                                   branches, tags, pull requests
    GET   /api/models/{repo}/tree/{revision}[/{path}]               one page of a directory
    POST  /api/models/{repo}/paths-info/{revision}                  the entries of some paths
    GET   /{repo}/resolve/{revision}/{file}                         a file, or where it is
    GET   /api/resolve-cache/models/{repo}/{commit}/{file}          a plain file's bytes

HEAD is served where GET is. Each route has a name, for middlewares that tell metadata from content.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import orjson
from aiohttp import web

from agent.http.hub import documents
from agent.http.hub.content import Content
from agent.http.hub.git import is_lfs
from agent.http.hub.interfaces import Repositories, Repository, RepositoryFile
from agent.http.hub.response import ContentResponse, HubError, Moved, json_response, redirect, repo_not_found

PAGE_SIZE = 1000  # entries of one page of a tree
CONTENT_ROUTES = frozenset({"resolve", "resolve-cache"})  # where bytes are asked for, by name
REPO = "{repo:[^/]+(?:/[^/]+)??}"  # one part where that fits, as in /api/models/gpt2/refs, else two
_COMMIT = "{revision:[0-9a-f]{40}}"
_REVISION = "{revision:refs/[^/]+/[^/]+|[^/]+}"  # clients quote the slashes of refs/pr/1, people do not

Locate = Callable[[Repository, str, str], str]
"""The URL that gives a weight file's bytes: of a repository, at a commit, by path."""


class HubRoutes:
    """The routes. Weight files are redirected to what `locate` says, or served in place when it is None."""

    def __init__(self, repos: Repositories, locate: Locate | None = None, page_size: int = PAGE_SIZE) -> None:
        self.repos = repos
        self.locate = locate
        self.page_size = page_size

    def table(self) -> list[web.RouteDef]:
        """The routes for an application's router; their order counts."""
        api = f"/api/models/{REPO}"
        return [
            web.get(f"{api}/refs", self.refs, name="refs"),
            web.get(f"{api}/revision/{_REVISION}", self.info, name="revision"),
            web.get(f"{api}/tree/{_REVISION}{{path:(?:/.*)?}}", self.tree, name="tree"),
            web.post(f"{api}/paths-info/{_REVISION}", self.paths_info, name="paths-info"),
            web.get(api, self.info, name="info"),
            web.get(f"/api/resolve-cache/models/{REPO}/{_COMMIT}/{{file:.+}}", self.plain, name="resolve-cache"),
            web.get(f"/{REPO}/resolve/{_REVISION}/{{file:.+}}", self.resolve, name="resolve"),
        ]

    async def refs(self, request: web.Request) -> ContentResponse:
        """Branches, tags and pull requests."""
        return json_response(documents.refs(self._repo(request)))

    async def info(self, request: web.Request) -> ContentResponse:
        """What there is at a revision, `main` unless the path names one."""
        repo, commit = self._commit(request)
        document = documents.info(repo, commit, blobs=documents.flag(request.query.get("blobs")))
        return json_response(document, headers={"X-Repo-Commit": commit})

    async def tree(self, request: web.Request) -> ContentResponse:
        """A page of entries and a Link to the next one. As on the Hub, that URL is absolute."""
        repo, commit = self._commit(request)
        path = request.match_info["path"].strip("/")
        page = documents.tree_page(repo, commit, path, request.query, self.page_size)
        if path and not page.entries:
            raise entry_not_found(commit)
        headers = {"X-Repo-Commit": commit}
        if page.next_query is not None:
            revision = quote(request.match_info["revision"], safe="")
            where = f"/api/models/{repo.id}/tree/{revision}" + (f"/{quote(path)}" if path else "")
            headers["Link"] = f'<{request.url.origin()}{where}?{page.next_query}>; rel="next"'
        return json_response(page.entries, headers=headers)

    async def paths_info(self, request: web.Request) -> ContentResponse:
        """The entries of those paths that exist."""
        repo, commit = self._commit(request)
        paths, expand = await _read_paths(request)
        entries = documents.paths_info(repo, commit, paths, expand=expand)
        return json_response(entries, headers={"X-Repo-Commit": commit})

    async def resolve(self, request: web.Request) -> ContentResponse:
        """Where a file's bytes are, with its hash and size in the headers; the bytes where there is no other place."""
        repo, commit, file, content = self._file(request)
        name, etag = request.match_info["file"], f'"{file.etag}"'
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size), "X-Linked-Etag": etag}
        if not is_lfs(file):
            asked = quote(f"/{repo.id}/resolve/{request.match_info['revision']}/{name}", safe="")
            where = f"/api/resolve-cache/models/{repo.id}/{commit}/{quote(name)}?{asked}=&etag={quote(etag)}"
            return redirect(307, where, headers)
        if self.locate is None:
            return ContentResponse(content, headers=headers | file_headers(name, etag), ranged=True)
        return redirect(302, self.locate(repo, commit, name), headers | {"Accept-Ranges": "bytes"})

    async def plain(self, request: web.Request) -> ContentResponse:
        """A plain file's bytes."""
        _, commit, file, content = self._file(request)
        headers = {"X-Repo-Commit": commit, **file_headers(request.match_info["file"], f'"{file.etag}"', "text/plain")}
        return ContentResponse(content, headers=headers, ranged=True, compress=True)

    def _repo(self, request: web.Request) -> Repository:
        """The repository that the path names. A former or differently spelt name is redirected, relatively."""
        name = request.match_info["repo"]
        repo = self.repos.find(name)
        if repo is None:
            raise repo_not_found(request)
        if repo.id != name:
            before, path = _split_before_repo(request)
            raise Moved(before + repo.id + path.removeprefix(name))
        if repo.disabled:
            raise HubError(403, None, "Access to this resource is disabled.")
        return repo

    def _commit(self, request: web.Request) -> tuple[Repository, str]:
        repo, revision = self._repo(request), request.match_info.get("revision", "main")
        commit = repo.find(revision)
        if commit is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def _file(self, request: web.Request) -> tuple[Repository, str, RepositoryFile, Content]:
        repo, commit = self._commit(request)
        file = repo.files(commit).get(request.match_info["file"])
        content = file.open() if file else None
        if file is None or content is None:
            raise entry_not_found(commit)
        return repo, commit, file, content


def entry_not_found(commit: str) -> HubError:
    """The revision exists, the file or directory does not."""
    return HubError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})


def file_headers(name: str, etag: str, content_type: str = "application/octet-stream") -> dict[str, str]:
    """The headers that a file's bytes come with; `etag` with its quotes."""
    ascii_name = name.rpartition("/")[2].encode("ascii", "replace").decode().replace('"', "_")
    disposition = f"inline; filename*=UTF-8''{quote(name)}; filename=\"{ascii_name}\";"
    return {"ETag": etag, "Content-Type": content_type, "Content-Disposition": disposition}


def _split_before_repo(request: web.Request) -> tuple[str, str]:
    """The request's path and query as they were sent, cut where the repository's name begins."""
    resource = request.match_info.route.resource
    start = len(resource.canonical.partition("{")[0]) if resource else 0
    return request.raw_path[:start], request.raw_path[start:]


async def _read_paths(request: web.Request) -> tuple[list[str], bool]:
    if request.content_type == "application/json":
        try:
            document = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise HubError(400, None, "The body is not a JSON object")
        paths = document.get("paths", [])
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise HubError(400, None, "paths is not a list of strings")
        return paths, bool(document.get("expand", False))
    form = await request.post()
    return [str(path) for path in form.getall("paths", [])], documents.flag(str(form.get("expand", "")))

"""A model's address as people paste it from a browser or another program, as a reference and patterns of files.

    https://huggingface.co/org/name                        the model; hf.co, and no scheme, are the same
    https://huggingface.co/org/name/tree/REVISION          at a revision
    https://huggingface.co/org/name/tree/REVISION/FOLDER   the files of a folder
    https://huggingface.co/org/name/blob/REVISION/FILE     one file; also resolve, raw
    hf.co/org/name:Q4_K_M                                  as llama.cpp and Ollama take it
    hf://org/name@REVISION/FILE                            as huggingface_hub's file system has it

Queries (`?download=true`) and fragments mean nothing here. A revision is one component, percent-encoded
(`refs%2Fpr%2F1`), or `refs/pr/1` and `refs/convert/x` as they are: https://huggingface.co/docs/huggingface_hub/guides/hf_file_system
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from agent.core.names import bare, show
from agent.core.selection.patterns import exactly
from agent.errors import Code, WantdError

HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
_FILE_VIEWS = frozenset({"blob", "resolve", "raw"})
_REVISION_VIEWS = _FILE_VIEWS | {"tree", "commit", "commits"}
# Parts of the site that are no models: https://huggingface.co/datasets/org/name.
_OTHER_PLACES = frozenset({"datasets", "spaces", "buckets", "collections", "papers", "docs", "blog", "models", "api"})


@dataclass(frozen=True, slots=True)
class Pasted:
    """What was pasted: a reference `ID[:QUANT][@REVISION]`, and patterns for the file or folder that it names."""

    reference: str
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def from_url(text: str) -> Pasted:
    """Take a URL apart; other text comes back as the reference. Raises `want_invalid` for URLs of other places."""
    text = text.strip()
    scheme = _SCHEME.match(text)
    address = re.split(r"[?#]", text[scheme.end() :] if scheme else text, maxsplit=1)[0]
    host, _, path = address.partition("/")
    if not scheme:
        return _from_page(path, text) if host.lower() in HOSTS and path else Pasted(text)
    if scheme[1].lower() == "hf":
        return _from_hf(address, text)
    if "@" in host:
        raise _not_a_model(text, "it holds a user's name or password")
    if scheme[1].lower() not in ("https", "http") or host.lower().removesuffix(":443") not in HOSTS:
        raise _not_a_model(text, f"{show(host)} is not the Hub")
    return _from_page(path, text)


def _from_page(path: str, text: str) -> Pasted:
    """A page of the site: org/name, and a view of its files behind it."""
    parts = _parts(path, text)
    at = 1 if len(parts) > 2 and parts[1] in _REVISION_VIEWS else 2  # the oldest models have no organisation: gpt2
    name, rest = _name(parts[:at]), parts[at:]
    if not rest:
        return Pasted(name)
    if rest[0] not in _REVISION_VIEWS or not rest[1:]:
        raise _not_a_model(text, f"{show('/'.join(rest))} is neither a tree nor a file of it")
    revision, inside = _revision(rest[1:])
    return _pasted(f"{name}@{revision}", inside if "commit" not in rest[0] else [], folder=rest[0] == "tree")


def _from_hf(path: str, text: str) -> Pasted:
    """The file system's way: org/name[@revision], and a file behind it."""
    parts = _parts(path, text)
    at = 1 if "@" in parts[0] else 2
    name, rest = _name(parts[:at]), parts[at:]
    if "@" in name:  # the revision may go on behind the slash: hf://org/name@refs/pr/1/file
        name, _, first = name.partition("@")
        revision, rest = _revision([first, *rest])
        name = f"{name}@{revision}"
    return _pasted(name, rest, folder=False)


def _parts(path: str, text: str) -> list[str]:
    parts = [unquote(part) for part in path.split("/") if part]
    if not parts:
        raise _not_a_model(text, "it names no repository")
    if parts[0].lower() in _OTHER_PLACES:
        raise _not_a_model(text, f"it is one of the Hub's {show(parts[0])}")
    return parts


def _name(parts: list[str]) -> str:
    return "/".join(parts).removesuffix(".git")  # as `git clone` takes it


def _revision(parts: list[str]) -> tuple[str, list[str]]:
    """The revision at the beginning of some parts, and the parts behind it."""
    if parts[0] == "refs" and len(parts) > 2 and parts[1] in ("pr", "convert"):
        return "/".join(parts[:3]), parts[3:]
    return parts[0], parts[1:]


def _pasted(reference: str, path: list[str], *, folder: bool) -> Pasted:
    """The reference, narrowed to the file or folder of that path."""
    if not path:
        return Pasted(reference)
    pattern = exactly("/".join(path))
    if folder:
        return Pasted(reference, (f"{pattern}/*",))
    # A pattern without a slash would also fit that name in folders.
    return Pasted(reference, (pattern,), () if "/" in pattern else (f"*/{pattern}",))


def _not_a_model(text: str, why: str) -> WantdError:
    shown = re.sub(r"://[^/]*@", "://", re.split(r"[?#]", text, maxsplit=1)[0])  # no password, no signature
    return WantdError(
        Code.WANT_INVALID,
        f"{show(shown)} is not the address of a model: {why}",
        "write org/name, or paste the address of a model, a tree or a file, like https://huggingface.co/org/name; "
        "the Hub that models come from is set with hub.endpoint",
        model=bare(shown),
    )

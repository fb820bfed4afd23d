"""The configuration: frozen sections with their defaults, from TOML and the environment (SPEC section 10).

Order for each key: `WANTD_SECTION__KEY`, the file, what other programs' variables say (`HF_ENDPOINT`, `LLMLB_URL`,
`XLLM_MODELS_DIR`, …), the default below. `config/wantd.toml` documents every key; a test holds the two together.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from agent.core.schema import build, nearest
from agent.errors import ConfigError

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of keys, written `[name]` in the file."""


class Spool(Section, frozen=True):
    dir: str = "~/.llmlb/spool"
    watch: Literal["auto", "inotify", "poll"] = "auto"
    poll_interval_s: Seconds = 1.0
    progress_interval_s: Seconds = 0.5


class Store(Section, frozen=True):
    dir: str = "~/.llmlb/models"
    keep_partials_days: Seconds = 7.0
    min_free_bytes: Bytes = 64 * 1024 * 1024


class Catalog(Section, frozen=True):
    path: str = ""


class Hub(Section, frozen=True):
    endpoint: str = "https://huggingface.co"
    offline: bool = False
    token_path: str = ""
    connect_timeout_s: Seconds = 10.0
    answer_timeout_s: Seconds = 30.0


class Proxy(Section, frozen=True):
    url: str = ""
    kind: Literal["auto", "llmlb", "hub"] = "auto"


class Policy(Section, frozen=True):
    allow: str | list[str] = "catalog"
    formats: list[str] = []


class Transfer(Section, frozen=True):
    connections: Count = 16
    jobs: Count = 4
    max_rate: Bytes = 0
    stall_timeout_s: Seconds = 30.0
    retry_min_s: Seconds = 1.0
    retry_max_s: Seconds = 300.0


class Locks(Section, frozen=True):
    wait_timeout_s: Seconds = 300.0
    heartbeat_s: Seconds = 5.0


class Scheduler(Section, frozen=True):
    rescan_s: Seconds = 30.0
    reap_s: Seconds = 60.0


class Http(Section, frozen=True):
    listen: str = ""


class Log(Section, frozen=True):
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Config(Section, frozen=True):
    """Everything that can be set. Paths are absolute, `~` is resolved, the endpoint has no trailing slash."""

    spool: Spool = Spool()
    store: Store = Store()
    catalog: Catalog = Catalog()
    hub: Hub = Hub()
    proxy: Proxy = Proxy()
    policy: Policy = Policy()
    transfer: Transfer = Transfer()
    locks: Locks = Locks()
    scheduler: Scheduler = Scheduler()
    http: Http = Http()
    log: Log = Log()


SECTIONS: dict[str, type[Section]] = {field.name: field.type for field in msgspec.structs.fields(Config)}
PREFIX = "WANTD_"
SYSTEM_FILE = "/etc/wantd/config.toml"

# Variables of other programs that stand in for a key that nobody set (SPEC sections 4 and 5), first one first.
_FOREIGN = {
    ("store", "dir"): ("XLLM_MODELS_DIR", "LLM_MODELS_DIR"),
    ("hub", "endpoint"): ("HF_ENDPOINT", "HF_BASE_URL"),
    ("hub", "offline"): ("HF_HUB_OFFLINE",),
    ("proxy", "url"): ("LLMLB_URL",),
}


def find_file(environ: Mapping[str, str]) -> str | None:
    """The configuration file that is in force without `--config`: the system's, then the user's, or None."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    candidates = (SYSTEM_FILE, f"{home}/wantd/config.toml")
    return next((path for path in candidates if Path(path).is_file()), None)


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration. `path` is `--config`, None to search. Raises ConfigError with every problem."""
    problems: list[str] = []
    path = path or find_file(environ)
    tables = _read_toml(path, problems) if path else {}
    settings = _from_environment(environ, problems)
    for name in tables.keys() - SECTIONS.keys():
        problems.append(f"{path}: unknown section [{name}]{nearest(name, list(SECTIONS))}")
    sections: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        table = tables.get(name, {})
        if not isinstance(table, dict):
            problems.append(f"{path}: [{name}] is a table of keys, not {table!r}")
            continue
        from_file, found = build(kind, table, f"{path}: [{name}]", check=_check)
        problems += found
        texts = settings.get(name, {})
        for key, variables in ((k, v) for (s, k), v in _FOREIGN.items() if s == name):
            value = next((environ[v] for v in variables if environ.get(v)), None)
            if value and key not in texts and key not in table:
                texts[key] = value
        from_environment, found = build(
            kind, {k: _plain(kind, k, v) for k, v in texts.items()}, f"environment: [{name}]", lax=True, check=_check
        )
        problems += found
        if from_file and from_environment:
            overrides = {key: getattr(from_environment, key) for key in texts}
            sections[name] = msgspec.structs.replace(from_file, **overrides)
    if problems:
        raise ConfigError(problems)
    return _normal(Config(**sections))


def catalog_path(config: Config) -> str:
    """The catalogue in force: the configured one, else the one that ships with the package or the checkout."""
    if config.catalog.path:
        return config.catalog.path
    return shipped("supported_models.json")


def shipped(name: str) -> str:
    """A file that comes with wantd: at the top of a checkout, below `share/wantd` of an installed environment."""
    checkout = Path(__file__).parent.parent / name
    return str(checkout if checkout.is_file() else Path(sys.prefix) / "share" / "wantd" / name)


def hub_token(config: Config, environ: Mapping[str, str]) -> str | None:
    """The Hub token: `HF_TOKEN`, else the first line of the token file; None when there is none to read."""
    if token := environ.get("HF_TOKEN", "").strip():
        return token
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{cache}/huggingface"
    path = Path(config.hub.token_path or environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    try:
        return path.read_text(encoding="utf-8").strip().split("\n")[0].strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _read_toml(path: str, problems: list[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: is not TOML: {error}")
    return {}


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        section, _, key = variable[len(PREFIX) :].lower().partition("__")
        if section not in SECTIONS:
            problems.append(f"environment: {variable}: unknown section{nearest(section, list(SECTIONS))}")
        else:
            found.setdefault(section, {})[key] = text
    return found


def _plain(kind: type[Section], key: str, text: str) -> Any:
    """Text of an environment variable as the key's type wants it: lists are comma-separated, flags also yes/no."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    wanted = types.get(key)
    if wanted in (list[str], str | list[str]) and ("," in text or wanted == list[str]):
        return [part.strip() for part in text.split(",") if part.strip()]
    if wanted is bool:
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
    return text


def _check(key: str, value: Any) -> str | None:
    if key in ("endpoint", "url") and value:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            return "expected a URL like https://host, without user or password"
    if key == "allow" and isinstance(value, str) and value not in ("catalog", "any") and "/" not in value:
        return 'expected "catalog", "any" or a list of patterns like "Qwen/*"'
    if key in ("dir",) and not value.strip():
        return "expected a directory"
    return None


def _path(text: str) -> str:
    return str(Path(text).expanduser().absolute()) if text else ""


def _normal(config: Config) -> Config:
    replace = msgspec.structs.replace
    return replace(
        config,
        spool=replace(config.spool, dir=_path(config.spool.dir)),
        store=replace(config.store, dir=_path(config.store.dir)),
        catalog=replace(config.catalog, path=_path(config.catalog.path)),
        hub=replace(config.hub, endpoint=config.hub.endpoint.rstrip("/")),
        proxy=replace(config.proxy, url=config.proxy.url.rstrip("/")),
        policy=replace(config.policy, formats=[name.lower().lstrip(".*") for name in config.policy.formats]),
    )


def process_environment() -> Mapping[str, str]:
    """The environment of this process; commands hand it down, nothing below reads it by itself."""
    return os.environ

"""The configuration: frozen sections with their defaults, from TOML and the environment (docs/configuration.md).

Order for each key: `WANTD_SECTION__KEY`, the file, variables of other programs (`HF_ENDPOINT`, `LLMLB_URL`,
`XLLM_MODELS_DIR`, …), the default below. `config/wantd.toml` documents every key; a test holds the two together.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from agent.core.listen import RUNTIME, Address, UnixAddress, parse_address, runtime_directory
from agent.core.names import show
from agent.core.quantities import read_bytes, read_seconds
from agent.core.schema import build, nearest
from agent.core.windows import Window
from agent.core.windows import problem as window_problem
from agent.errors import ConfigError

# Ten years, as good as no limit: timers of the kernel and of libraries overflow not far above.
SECONDS_MAX = 315_360_000.0
DAY_S = 86_400.0
TIME = 'expected a time above 0: a number of seconds, or text like "90s", "30 min" or "2h"'
DAYS = 'expected a time above 0: a number of days, or text like "12h" or "7 days"'
SIZE = 'expected a size: a number of bytes, or text like "50MB" or "64 MiB"'
Seconds = Annotated[float, Meta(gt=0, le=SECONDS_MAX, extra={"expected": TIME})]
Days = Annotated[float, Meta(gt=0, le=SECONDS_MAX / DAY_S, extra={"expected": DAYS})]
DaysOrNever = Annotated[float, Meta(ge=0, le=SECONDS_MAX / DAY_S, extra={"expected": DAYS})]
Count = Annotated[int, Meta(ge=1)]
LISTEN = ("unix:{runtime}/wantd.sock", "127.0.0.1:7411")
Bytes = Annotated[int, Meta(ge=0, extra={"expected": SIZE})]


SYSTEM_FILE = "/etc/wantd/config.toml"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of keys, written `[name]` in the file."""


class Spool(Section, frozen=True):
    dir: str = "~/.llmlb/spool"
    watch: Literal["auto", "inotify", "poll"] = "auto"
    poll_interval_s: Seconds = 1.0
    progress_interval_s: Seconds = 0.5


class Store(Section, frozen=True):
    dir: str = "~/.llmlb/models"
    keep_partials_days: Days = 7.0
    min_free_bytes: Bytes = 64 * 1024 * 1024
    hub_cache: str = "hub"
    max_bytes: Bytes = 0
    evict: Literal["never", "lru"] = "never"
    keep_days: DaysOrNever = 0.0


class Adopt(Section, frozen=True):
    caches: str | list[str] = "auto"
    link: bool = False


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
    report: bool = False
    report_url: str = ""


class Fleet(Section, frozen=True):
    url: str = ""
    listings: bool = False
    gated: bool = False
    patience_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 10.0
    slice_bytes: Count = 1024 * 1024

    @property
    def slice(self) -> int:
        """The size of the pieces that downloads are cut along, in bytes; 0 where there is no fleet."""
        return self.slice_bytes if self.url else 0


class Policy(Section, frozen=True):
    allow: str | list[str] = "catalog"
    formats: list[str] = []
    code: Literal["warn", "require"] = "warn"
    unverified: Literal["refuse", "accept"] = "refuse"
    urgent: bool = False


class Transfer(Section, frozen=True):
    connections: Count = 64
    connections_per_host: Count = 16
    jobs: Count = 4
    max_rate: Bytes = 0
    window: list[Window] = []
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
    listen: str | list[str] = msgspec.field(default_factory=lambda: list(LISTEN))
    hosts: list[str] = []
    token_file: str = ""
    metrics_textfile: str = ""
    hub: Literal["off", "store"] = "store"
    serve_gated: bool = False


class Log(Section, frozen=True):
    format: Literal["text", "json"] = "text"
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Hook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[hook]]`: who is told of a want's end, by a program (`exec`, its arguments, no shell) or a POST to `url`."""

    on: Annotated[list[Literal["ready", "failed"]], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["ready", "failed"]
    )
    exec: list[str] = []
    url: str = ""

    @property
    def name(self) -> str:
        """For the log: without what a URL may keep secret."""
        return show(self.exec[0] if self.exec else urlsplit(self.url).netloc.rpartition("@")[2])


class Config(Section, frozen=True):
    """Everything that can be set. Paths are absolute, `~` is resolved, the endpoint has no trailing slash."""

    spool: Spool = Spool()
    store: Store = Store()
    adopt: Adopt = Adopt()
    catalog: Catalog = Catalog()
    hub: Hub = Hub()
    proxy: Proxy = Proxy()
    fleet: Fleet = Fleet()
    policy: Policy = Policy()
    transfer: Transfer = Transfer()
    locks: Locks = Locks()
    scheduler: Scheduler = Scheduler()
    http: Http = Http()
    log: Log = Log()
    hook: list[Hook] = []


# Keys that a running agent cannot change: it holds the locks of one spool and one store, whose view moves with it.
FIXED = (("spool", "dir"), ("store", "dir"), ("store", "hub_cache"), ("http", "listen"), ("http", "metrics_textfile"))


class Live:
    """The configuration in force. Parts keep this, not a value out of it: a reload is one assignment to `config`.

    `file` is where settings are read from, or would be if it were there.
    """

    def __init__(self, config: Config, file: str = SYSTEM_FILE) -> None:
        self.config = config
        self.file = file

    def adopt(self, new: Config) -> list[str]:
        """Put another configuration in force, but for the keys in `FIXED`. Returns those of them that differ."""
        refused = []
        for section, key in FIXED:
            old = getattr(getattr(self.config, section), key)
            part = getattr(new, section)
            if getattr(part, key) != old:
                refused.append(f"{section}.{key}")
                part = msgspec.structs.replace(part, **{key: old})
                new = msgspec.structs.replace(new, **{section: part})
        self.config = new
        return refused


SECTIONS: dict[str, type[Section]] = {
    field.name: field.type for field in msgspec.structs.fields(Config) if field.name != "hook"
}
PREFIX = "WANTD_"

# Variables of other programs that count where a key is not set, the first one first.
_FOREIGN = {
    ("store", "dir"): ("XLLM_MODELS_DIR", "LLM_MODELS_DIR"),
    ("hub", "endpoint"): ("HF_ENDPOINT", "HF_BASE_URL"),
    ("hub", "offline"): ("HF_HUB_OFFLINE",),
    ("proxy", "url"): ("LLMLB_URL",),
}


def find_file(environ: Mapping[str, str]) -> str | None:
    """The configuration file that is in force without `--config`: the system's, then the user's, or None."""
    return next((path for path in (SYSTEM_FILE, _user_file(environ)) if os.path.isfile(path)), None)


def file_to_write(path: str | None, environ: Mapping[str, str]) -> str:
    """The configuration file to change: `path` (`--config`), else the one in force, else root's or the user's own."""
    if path:
        return os.path.abspath(path)
    return find_file(environ) or (_user_file(environ) if os.geteuid() else SYSTEM_FILE)


def _user_file(environ: Mapping[str, str]) -> str:
    return f"{environ.get('XDG_CONFIG_HOME') or os.path.expanduser('~/.config')}/wantd/config.toml"


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration. `path` is `--config`, None to search. Raises ConfigError with every problem."""
    problems: list[str] = []
    path = path or find_file(environ)
    tables = _read_toml(path, problems) if path else {}
    settings = _from_environment(environ, problems)
    for name in sorted(tables.keys() - SECTIONS.keys() - {"hook"}):
        problems.append(f"{path}: unknown section [{name}]{nearest(name, list(SECTIONS))}")
    sections: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        table = tables.get(name, {})
        if not isinstance(table, dict):
            problems.append(f"{path}: [{name}] is a table of keys, not {show(str(table), 60)}")
            continue
        from_file, found = build(kind, table, f"{path}: [{name}]", check=_check, read=_with_unit)
        problems += found
        variables = settings.get(name, {})
        for key, others in ((k, v) for (s, k), v in _FOREIGN.items() if s == name):
            variable = next((other for other in others if environ.get(other)), None)
            if variable and key not in variables and key not in table:
                variables[key] = variable
        overrides: dict[str, Any] = {}
        for key, variable in variables.items():
            value = _plain(kind, key, environ[variable])
            built, found = build(
                kind, {key: value}, f"environment: {variable}", lax=True, check=_check, read=_with_unit
            )
            problems += found
            if built:
                overrides[key] = getattr(built, key)
        if from_file:
            sections[name] = msgspec.structs.replace(from_file, **overrides)
    config = _normal(Config(**sections, hook=_hooks(tables.get("hook", []), path, problems)), problems)
    if problems:
        raise ConfigError(problems)
    return config


def catalog_path(config: Config) -> str:
    """The catalog in force: the configured one, else the one that ships with the package or the checkout."""
    if config.catalog.path:
        return config.catalog.path
    return shipped("supported_models.json")


def shipped(name: str) -> str:
    """A file that comes with wantd: at the top of a checkout, below `share/wantd` of an installed environment."""
    checkout = Path(__file__).parent.parent / name
    return str(checkout if checkout.is_file() else Path(sys.prefix) / "share" / "wantd" / name)


def own_directories(config: Config) -> list[str]:
    """Directories that the agent fills itself: nothing is adopted from them."""
    return [path for path in (config.store.dir, config.store.hub_cache) if path]


def listen_addresses(config: Config, environ: Mapping[str, str]) -> list[Address]:
    """Where the HTTP face listens, with `{runtime}` and `~` resolved; empty where it is off."""
    home = os.path.expanduser("~")
    found: list[Address] = []
    for address in map(parse_address, config.http.listen):
        if isinstance(address, UnixAddress):
            path = address.path.replace(RUNTIME, runtime_directory(environ, home))
            address = UnixAddress(f"{home}{path[1:]}" if path.startswith("~/") else path)
        found.append(address)
    return found


def hub_token(config: Config, environ: Mapping[str, str]) -> str | None:
    """The Hub token: `HF_TOKEN`, else the token file, of either the first line; None when there is none to read.

    The file is systemd's credential `hf_token` where there is one (systemd.exec(5), LoadCredential), else the
    configured one, else the one that the Hub's own tools keep.
    """
    if token := _first_line(environ.get("HF_TOKEN", "")):
        return token
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{cache}/huggingface"
    usual = config.hub.token_path or environ.get("HF_TOKEN_PATH") or f"{home}/token"
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    for path in ([f"{credentials}/hf_token"] if credentials else []) + [usual]:
        try:
            return _first_line(Path(path).expanduser().read_text(encoding="utf-8"))
        except (OSError, RuntimeError, ValueError):  # not there, of a user that is not there, not text
            continue
    return None


def _first_line(text: str) -> str | None:
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def proxy_key(environ: Mapping[str, str]) -> str | None:
    """The load balancer's key: `LLM_RUNTIME_API_KEY`; None when there is none."""
    return environ.get("LLM_RUNTIME_API_KEY", "").strip() or None


def report_url(config: Config) -> str:
    """Where the sync state is posted: `proxy.report_url`, else a route of the proxy's own; empty without a proxy."""
    if config.proxy.report_url or not config.proxy.url:
        return config.proxy.report_url
    return f"{config.proxy.url}/api/models/sync-state"


def _read_toml(path: str, problems: list[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:  # also UTF-8 and numbers of thousands of digits
        problems.append(f"{path}: is not TOML: {error}")
    return {}


def _hooks(tables: Any, path: str | None, problems: list[str]) -> list[Hook]:
    """Every `[[hook]]`."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(f"{path}: hook: expected tables, each written [[hook]]")
        return []
    hooks = []
    for number, table in enumerate(tables, 1):
        where = f"{path}: [[hook]] number {number}"
        hook, found = build(Hook, table, where, check=_check)
        problems += found
        if hook is None:
            continue
        if bool(hook.exec) == bool(hook.url):
            problems.append(f"{where}: expected either 'exec' or 'url'")
        elif hook.exec and not hook.exec[0].startswith("/"):
            problems.append(f"{where}: exec: expected the absolute path of a program first, not {show(hook.exec[0])}")
        hooks.append(hook)
    return hooks


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, dict[str, str]]:
    """Section and key to the variable that sets it."""
    found: dict[str, dict[str, str]] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        section, _, key = variable[len(PREFIX) :].lower().partition("__")
        if section not in SECTIONS:
            problems.append(f"environment: {variable}: unknown section{nearest(section, list(SECTIONS))}")
        else:
            found.setdefault(section, {})[key] = variable
    return found


def _plain(kind: type[Section], key: str, text: str) -> Any:
    """Text of an environment variable as the key's type wants it: lists are comma-separated, flags also yes/no."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    wanted = types.get(key)
    if wanted in (list[str], str | list[str]) and ("," in text or wanted == list[str]):
        return [part.strip() for part in text.split(",") if part.strip()]
    if wanted == list[Window]:
        try:
            return json.loads(text)
        except ValueError:
            return text
    if wanted is bool:
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
    return text


def _with_unit(hint: Any, value: Any) -> Any:
    """Text with a unit as the number that it is; what it is not stays text, which is no number for msgspec."""
    if hint == list[Window] and isinstance(value, list):
        return [
            {**table, "max_rate": _with_unit(Bytes, table["max_rate"])}
            if isinstance(table, dict) and "max_rate" in table
            else table
            for table in value
        ]
    if not isinstance(value, str):
        return value
    if hint == Bytes:
        number: float | None = read_bytes(value)
    elif hint in (Seconds, Days, DaysOrNever):
        bare_days = hint != Seconds and value.strip().replace(".", "", 1).isdecimal()
        number = float(value) * DAY_S if bare_days else read_seconds(value)
        number = number / DAY_S if number is not None and hint != Seconds else number
    else:
        return value
    return value if number is None else number


def _check(key: str, value: Any) -> str | None:
    if key in ("endpoint", "url", "report_url") and value:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets that do not close, ports that are none
            usable = False
        if not usable or "@" in parts.netloc:
            return "expected a URL like https://host, without user or password"
    if key == "allow" and isinstance(value, str) and value not in ("catalog", "any") and "/" not in value:
        return 'expected "catalog", "any" or a list of patterns like "Qwen/*"'
    if key == "caches":
        names = [value] if isinstance(value, str) else value
        if not all(name in ("auto", "none") or (name.startswith(("/", "~")) and "\0" not in name) for name in names):
            return 'expected "auto", "none" or a list of absolute directories, like ["auto", "/srv/hub"]'
    if key == "listen" and not all(_is_address(text) for text in ([value] if isinstance(value, str) else value)):
        return 'expected a list of "unix:/PATH" and "HOST:PORT", or [] for none'
    if key == "window":
        found = [wrong for window in value if (wrong := window_problem(window))]
        return found[0] if found else None
    if key == "dir" and not value.strip():
        return "expected a directory"
    if key in ("dir", "path", "token_path", "token_file", "metrics_textfile", "hub_cache") and "\0" in value:
        return "expected a path, which cannot hold NUL"
    return None


def _is_address(text: str) -> bool:
    try:
        return not text or bool(parse_address(text))
    except ValueError:
        return False


def _normal(config: Config, problems: list[str]) -> Config:
    replace = msgspec.structs.replace

    def path(key: str, text: str) -> str:
        try:
            return str(Path(text).expanduser().absolute()) if text else ""
        except RuntimeError:
            problems.append(f"{key}: {show(text)}: there is no such home directory; give an absolute path")
            return text

    listen = config.http.listen
    store_dir, hub_cache = path("store.dir", config.store.dir), config.store.hub_cache
    if hub_cache.startswith("~"):
        hub_cache = path("store.hub_cache", hub_cache)
    elif hub_cache:  # a relative one is beside the store
        hub_cache = os.path.normpath(os.path.join(os.path.dirname(store_dir), hub_cache))
    if f"{hub_cache}/".startswith(f"{store_dir}/"):
        problems.append(f"store.hub_cache: {show(hub_cache)}: expected a directory outside store.dir")
    return replace(
        config,
        spool=replace(config.spool, dir=path("spool.dir", config.spool.dir)),
        store=replace(config.store, dir=store_dir, hub_cache=hub_cache),
        adopt=replace(config.adopt, caches=_directories(config.adopt.caches, path)),
        catalog=replace(config.catalog, path=path("catalog.path", config.catalog.path)),
        hub=replace(
            config.hub,
            endpoint=config.hub.endpoint.rstrip("/"),
            token_path=path("hub.token_path", config.hub.token_path),
        ),
        proxy=replace(config.proxy, url=config.proxy.url.rstrip("/")),
        fleet=replace(config.fleet, url=config.fleet.url.rstrip("/")),
        http=replace(
            config.http,
            listen=[text for text in ([listen] if isinstance(listen, str) else listen) if text],
            hosts=[name.lower() for name in config.http.hosts],
            token_file=path("http.token_file", config.http.token_file),
            metrics_textfile=path("http.metrics_textfile", config.http.metrics_textfile),
        ),
        policy=replace(config.policy, formats=[name.lower().lstrip(".*") for name in config.policy.formats]),
    )


def _directories(caches: str | list[str], path: Callable[[str, str], str]) -> list[str]:
    """`adopt.caches` as a list of absolute directories and "auto"."""
    names = [caches] if isinstance(caches, str) else caches
    return [name if name == "auto" else path("adopt.caches", name) for name in names if name != "none"]


def process_environment() -> Mapping[str, str]:
    """The environment of this process; commands hand it down, and nothing below reads it directly."""
    return os.environ

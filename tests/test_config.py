"""The configuration: which setting wins, what is wrong with all of them at once, and a sample that says it all."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent import config as module
from agent.config import SECTIONS, Config, find_file, hub_token, load
from agent.errors import ConfigError

SAMPLE = Path(__file__).parent.parent / "config" / "wantd.toml"
# What each foreign variable stands in for (docs/configuration.md).
FOREIGN = {
    "HF_ENDPOINT": ("hub", "endpoint", "https://a.example"),
    "HF_BASE_URL": ("hub", "endpoint", "https://b.example"),
    "HF_HUB_OFFLINE": ("hub", "offline", "1"),
    "LLMLB_URL": ("proxy", "url", "http://lb.example:32768"),
    "XLLM_MODELS_DIR": ("store", "dir", "/srv/x"),
    "LLM_MODELS_DIR": ("store", "dir", "/srv/y"),
}

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def empty(write: Write) -> str:
    return write("")


def problems(path: str | None, environ: Mapping[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return caught.value.problems


def every_key() -> list[tuple[str, str, Any]]:
    """(section, key, default) of all there are."""
    return [
        (name, field.name, field.default if field.default is not msgspec.NODEFAULT else field.default_factory())
        for name, kind in SECTIONS.items()
        for field in msgspec.structs.fields(kind)
    ]


# The sample in config/


def test_the_sample_as_it_is_changes_nothing(empty: str) -> None:
    assert load(str(SAMPLE), {}) == load(empty, {})


@pytest.mark.parametrize(("section", "key", "default"), every_key())
def test_the_sample_has_every_key_with_its_default_and_says_what_it_does(section: str, key: str, default: Any) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    body = re.split(r"^\[(\w+)\]$", text, flags=re.MULTILINE)
    lines = dict(zip(body[1::2], body[2::2], strict=True))[section].splitlines()
    found = [match for line in lines if (match := re.match(rf"(?:# )?{key} = (.+?)\s+# (\S.*)$", line))]
    assert len(found) == 1, f"[{section}] {key} is there {len(found)} times"
    assert json.loads(found[0][1]) == default
    seconds = re.search(r"seconds", found[0][2])
    assert seconds if key.endswith("_s") else True, "a time says its unit"


def test_the_sample_has_the_sections_in_the_order_of_the_code_and_no_key_of_its_own() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    assert re.findall(r"^\[(\w+)\]$", text, flags=re.MULTILINE) == list(SECTIONS)
    keys = re.findall(r"^(?:# )?(\w+) = ", text, flags=re.MULTILINE)
    assert keys == [key for _, key, _ in every_key()]


def test_the_sample_leaves_other_programs_variables_in_force() -> None:
    for variable, (section, key, value) in FOREIGN.items():
        config = load(str(SAMPLE), {variable: value})
        assert getattr(getattr(config, section), key) == (True if key == "offline" else value)


@pytest.mark.parametrize("variable", [*FOREIGN, "HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "WANTD_SECTION__KEY"])
def test_the_sample_names_every_variable(variable: str) -> None:
    assert variable in SAMPLE.read_text(encoding="utf-8")


# Which one wins


def test_without_file_and_variables_the_defaults_are_in_force(tmp_path: Path) -> None:
    config = load(None, {"XDG_CONFIG_HOME": str(tmp_path)})
    home = Path.home()
    assert config.spool.dir == f"{home}/.llmlb/spool"
    assert config.store.dir == f"{home}/.llmlb/models"
    assert (config.policy.allow, config.hub.endpoint) == ("catalog", "https://huggingface.co")
    assert module.catalog_path(config).endswith("supported_models.json")


def test_variable_then_file_then_other_programs_variables_then_default(write: Write, empty: str) -> None:
    everything = {
        "WANTD_HUB__ENDPOINT": "https://w.example",
        "HF_ENDPOINT": "https://a.example",
        "HF_BASE_URL": "https://b.example",
    }
    path = write('[hub]\nendpoint = "https://f.example"')

    def endpoint(path: str, *variables: str) -> str:
        return load(path, {name: everything[name] for name in variables}).hub.endpoint

    assert endpoint(path, *everything) == "https://w.example"
    assert endpoint(path, "HF_ENDPOINT", "HF_BASE_URL") == "https://f.example"
    empty = write("")
    assert endpoint(empty, "HF_ENDPOINT", "HF_BASE_URL") == "https://a.example"
    assert endpoint(empty, "HF_BASE_URL") == "https://b.example"
    assert endpoint(empty) == "https://huggingface.co"


@pytest.mark.parametrize(("variable", "meaning"), FOREIGN.items())
def test_each_foreign_variable_stands_in_and_an_empty_one_says_nothing(
    variable: str, meaning: tuple[str, str, str], empty: str
) -> None:
    section, key, value = meaning
    set_to = getattr(getattr(load(empty, {variable: value}), section), key)
    assert set_to == (True if key == "offline" else value)
    assert load(empty, {variable: ""}) == load(empty, {})
    first = {"HF_BASE_URL": "HF_ENDPOINT", "LLM_MODELS_DIR": "XLLM_MODELS_DIR"}.get(variable)
    if first:
        assert load(empty, {variable: value, first: FOREIGN[first][2]}) == load(empty, {first: FOREIGN[first][2]})


def test_an_empty_variable_of_ours_is_a_setting(write: Write) -> None:
    path = write('[proxy]\nurl = "http://lb.example"')
    assert load(path, {"WANTD_PROXY__URL": "", "LLMLB_URL": "http://other.example"}).proxy.url == ""


@pytest.mark.parametrize(("section", "key", "default"), every_key())
def test_every_key_can_be_set_by_file_and_by_variable(section: str, key: str, default: Any, write: Write) -> None:
    kinds = {bool: "true", int: "7", float: "2.5", str: "/x/y"}
    texts = {"allow": "any", "formats": "bin", "hosts": "gpu.example", "listen": "unix:/x/y"}
    choices = get_args(get_type_hints(SECTIONS[section])[key]) if isinstance(default, str) else ()
    if "url" in key or key == "endpoint":
        text = "https://x.example"
    elif default in choices:
        text = next(choice for choice in choices if choice != default)
    else:
        text = texts.get(key) or kinds.get(type(default), "")
    toml = json.dumps([text]) if isinstance(default, list) else json.dumps(text) if isinstance(default, str) else text
    if key == "window":
        text, toml = '[{"from": "22:00", "max_rate": "5MB"}]', '[{from = "22:00", max_rate = "5MB"}]'
    by_file = load(write(f"[{section}]\n{key} = {toml}"), {})
    by_variable = load(write(""), {f"WANTD_{section}__{key}".upper(): text})
    assert by_file == by_variable != load(write(""), {})


@pytest.mark.parametrize(
    ("text", "allow"),
    [
        ("any", "any"),
        ("Qwen/*", "Qwen/*"),
        ("Qwen/*, org/name", ["Qwen/*", "org/name"]),
        ("catalog,Qwen/*,", ["catalog", "Qwen/*"]),
    ],
)
def test_a_variable_may_hold_a_word_or_a_list(text: str, allow: Any, empty: str) -> None:
    assert load(empty, {"WANTD_POLICY__ALLOW": text}).policy.allow == allow


@pytest.mark.parametrize(
    ("text", "formats"), [("bin", ["bin"]), ("", []), (".bin, *.PT", ["bin", "pt"]), ("bin,,pt", ["bin", "pt"])]
)
def test_formats_are_extensions_however_they_are_written(text: str, formats: list[str], empty: str) -> None:
    assert load(empty, {"WANTD_POLICY__FORMATS": text}).policy.formats == formats


@pytest.mark.parametrize(
    ("text", "flag"),
    [(text, True) for text in ("1", "true", "True", "YES", "on")]
    + [(text, False) for text in ("0", "false", "no", "OFF")],
)
def test_flags_are_words_or_digits(text: str, flag: bool, empty: str) -> None:
    assert load(empty, {"WANTD_HUB__OFFLINE": text}).hub.offline is flag
    assert load(empty, {"HF_HUB_OFFLINE": text}).hub.offline is flag


def test_paths_become_absolute_and_home_is_resolved(write: Write) -> None:
    config = load(write('[spool]\ndir = "~/s"\n[store]\ndir = "here"\n[hub]\ntoken_path = "~/t"'), {})
    assert config.spool.dir == f"{Path.home()}/s"
    assert config.store.dir == f"{Path.cwd()}/here"
    assert config.hub.token_path == f"{Path.home()}/t"
    assert config.catalog.path == ""


def test_endpoints_lose_their_trailing_slash(empty: str) -> None:
    config = load(empty, {"HF_ENDPOINT": "https://h.example/hub/", "LLMLB_URL": "http://lb:1//"})
    assert (config.hub.endpoint, config.proxy.url) == ("https://h.example/hub", "http://lb:1")


def test_other_variables_with_our_prefix_are_left_alone(empty: str) -> None:
    assert load(empty, {"WANTD_": "x", "WANTD_HOME": "x", "WANTDX__Y": "z"}) == load(empty, {})


def test_the_users_file_is_found_and_only_where_it_is_a_file(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    if Path(module.SYSTEM_FILE).exists():
        pytest.skip("this machine has a configuration of its own")
    assert find_file(environ) is None
    (tmp_path / "wantd" / "config.toml").mkdir(parents=True)
    assert find_file(environ) is None
    (tmp_path / "wantd" / "config.toml").rmdir()
    (tmp_path / "wantd" / "config.toml").write_text("[transfer]\njobs = 2")
    assert find_file(environ) == f"{tmp_path}/wantd/config.toml"
    assert load(None, environ).transfer.jobs == 2


# What is wrong


def test_all_problems_are_told_at_once_each_with_its_place(write: Write) -> None:
    path = write(
        """
        [spol]
        dir = "x"
        [hub]
        endpont = "https://x"
        offline = "maybe"
        connect_timeout_s = -1
        [log]
        level = "LOUD"
        [transfer]
        connections = 1.5
        """
    )
    environ = {"WANTD_TRANSFER__JOBS": "many", "WANTD_LOCKS__HARTBEAT_S": "1", "WANTD_LOGS__LEVEL": "INFO"}
    found = problems(path, {**environ, "HF_ENDPOINT": "nowhere"})
    expected = [
        (path, "[spol]", "did you mean 'spool'"),
        (path, "[hub]", "'endpont'", "did you mean 'endpoint'"),
        (path, "[hub]", "offline", "bool", "'maybe'"),
        (path, "[hub]", "connect_timeout_s", "a time above 0", "'-1'"),
        (path, "[log]", "level", "one of TRACE, DEBUG, INFO, WARNING, ERROR", "'LOUD'"),
        (path, "[transfer]", "connections", "int", "'1.5'"),
        ("environment: WANTD_TRANSFER__JOBS", "jobs", "int", "'many'"),
        ("environment: WANTD_LOCKS__HARTBEAT_S", "did you mean 'heartbeat_s'"),
        ("environment: WANTD_LOGS__LEVEL", "unknown section", "did you mean 'log'"),
        ("environment: HF_ENDPOINT", "endpoint", "expected a URL"),
    ]
    for words in expected:
        assert any(all(word in problem for word in words) for problem in found), (words, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("section", "key", "text", "value"),
    [
        ("transfer", "max_rate", "50MB", 50_000_000),
        ("transfer", "max_rate", "1.5 MB/s", 1_500_000),
        ("transfer", "max_rate", "7", 7),
        ("store", "min_free_bytes", "64 MiB", 64 * 2**20),
        ("store", "keep_partials_days", "12h", 0.5),
        ("store", "keep_partials_days", "3 days", 3.0),
        ("store", "keep_partials_days", "3", 3.0),
        ("transfer", "stall_timeout_s", "2 min", 120.0),
        ("transfer", "stall_timeout_s", "90", 90.0),
        ("spool", "progress_interval_s", "250ms", 0.25),
    ],
)
def test_sizes_and_times_may_have_units(
    section: str, key: str, text: str, value: float, write: Write, empty: str
) -> None:
    environ = {f"WANTD_{section.upper()}__{key.upper()}": text}
    by_variable = load(empty, environ)
    by_file = load(write(f'[{section}]\n{key} = "{text}"\n'), {})
    assert getattr(getattr(by_file, section), key) == value
    assert getattr(getattr(by_variable, section), key) == value


@pytest.mark.parametrize(
    "toml",
    [
        "[store]\ndir = ''",
        "[store]\ndir = '  '",
        "[store]\ndir = 7",
        '[store]\ndir = "a\\u0000b"',
        "[store]\ndir = '~no-such-user-here/x'",
        "[spool]\nwatch = 'sometimes'",
        "[spool]\npoll_interval_s = 0",
        "[spool]\npoll_interval_s = nan",
        "[spool]\npoll_interval_s = inf",
        "[store]\nkeep_partials_days = 1e300",
        "[store]\nmin_free_bytes = -1",
        "[transfer]\njobs = 0",
        "[transfer]\njobs = true",
        "[transfer]\nmax_rate = '10 X'",
        "[transfer]\nmax_rate = '10s'",
        "[transfer]\nmax_rate = '-5MB'",
        "[transfer]\njobs = '10MB'",
        "[transfer]\nstall_timeout_s = '0s'",
        "[transfer]\nstall_timeout_s = '1MB'",
        "[transfer]\nstall_timeout_s = ''",
        "[store]\nkeep_partials_days = '99999999 days'",
        "[store]\nmin_free_bytes = '" + "9" * 5000 + "TB'",
        "[hub]\nendpoint = 'huggingface.co'",
        "[hub]\nendpoint = 'ftp://h'",
        "[hub]\nendpoint = 'https://'",
        "[hub]\nendpoint = 'https://user:secret@h'",
        "[hub]\nendpoint = 'https://:secret@h'",
        "[hub]\nendpoint = 'http://[::1'",
        "[hub]\nendpoint = 'http://h:99999'",
        "[policy]\nallow = 'everything'",
        "[policy]\nallow = [1]",
        "[transfer]\nwindow = 5",
        "[[transfer.window]]\nfrom = '9:00'",
        "[[transfer.window]]\nzone = 'Mars/Base'",
        "[[transfer.window]]\nform = '09:00'",
        "[[transfer.window]]\nmax_rate = '5 X'",
        "[hook]\nexec = ['/bin/true']",
        "[[hook]]",
        "[[hook]]\nexec = ['true']",
        "[[hook]]\nexec = ['/bin/true']\nurl = 'https://x.example'",
        "[[hook]]\nurl = 'ftp://x.example'",
        "[[hook]]\nexec = ['/bin/true']\non = ['redy']",
        "[[hook]]\nexec = ['/bin/true']\non = []",
        "[policy]\nformats = 'bin'",
        "[http]\nlisten = ['7411']",
        "[http]\nlisten = ['unix:relative']",
        "[http]\nlisten = 7411",
        "hub = 'x'",
        "dir = 'x'",
        "[[hub]]\nofline = true",
        "not toml",
        "x = " + "[" * 5000,
        "x = " + "9" * 5000,
    ],
)
def test_each_unusable_setting_is_a_problem_that_names_the_place(toml: str, write: Write) -> None:
    path = write(toml)
    (problem,) = problems(path, {})
    assert problem.startswith((f"{path}: ", "store.dir: "))
    assert "secret" not in problem


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert "cannot be read" in problems(str(tmp_path / "none.toml"), {})[0]
    assert "cannot be read" in problems(str(tmp_path), {})[0]
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    assert "not TOML" in problems(str(tmp_path / "latin.toml"), {})[0]


SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from([key for _, key, _ in every_key()]) | st.text(max_size=6)
TABLES = st.dictionaries(
    st.sampled_from(list(SECTIONS)) | st.text(max_size=5),
    st.dictionaries(KEYS, SIMPLE | st.lists(SIMPLE, max_size=2) | st.dictionaries(KEYS, SIMPLE, max_size=2), max_size=4)
    | SIMPLE,
    max_size=4,
)


def as_toml(value: Any) -> str:
    """A value in TOML's inline spelling; what TOML has no word for becomes a string."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(str(key))} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    text = "" if value is None else value.encode(errors="replace").decode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


VARIABLES = st.sampled_from([*FOREIGN, *(f"WANTD_{section}__{key}".upper() for section, key, _ in every_key())])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, st.dictionaries(VARIABLES, st.text(max_size=8), max_size=4))
def test_any_tables_and_variables_are_a_configuration_or_its_problems(
    write: Write, tables: dict[str, Any], environ: dict[str, str]
) -> None:
    path = write("\n".join(f"{as_toml(name)} = {as_toml(table)}" for name, table in tables.items()))
    try:
        config = load(path, environ)
    except ConfigError as error:
        assert error.problems and all(isinstance(problem, str) for problem in error.problems)
        assert not any("is not TOML" in problem for problem in error.problems), "the test writes TOML"
        return
    assert isinstance(config, Config)
    assert config.store.dir.startswith("/") and config.spool.dir.startswith("/")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100))
@example(b"a = 1979-99-99")
@example(b"\xef\xbb\xbf")
def test_any_bytes_are_a_configuration_or_its_problems(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    try:
        load(str(path), {})
    except ConfigError as error:
        assert error.problems


# The token


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A directory with a token in each place where one may lie."""
    for place in ("home/token", "cache/huggingface/token", "path", "configured"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"hf_{place.replace('/', '_')}\n")
    return tmp_path


def test_the_first_place_that_has_a_token_gives_it(
    tokens: Path,
) -> None:
    configured = load(None, {"WANTD_HUB__TOKEN_PATH": f"{tokens}/configured", "XDG_CONFIG_HOME": str(tokens)})
    plain = load(None, {"XDG_CONFIG_HOME": str(tokens)})
    environ = {
        "HF_TOKEN": "hf_variable",
        "HF_TOKEN_PATH": f"{tokens}/path",
        "HF_HOME": f"{tokens}/home",
        "XDG_CACHE_HOME": f"{tokens}/cache",
    }
    assert hub_token(configured, environ) == "hf_variable"
    del environ["HF_TOKEN"]
    (tokens / "credentials").mkdir()
    environ["CREDENTIALS_DIRECTORY"] = f"{tokens}/credentials"
    assert hub_token(configured, environ) == "hf_configured"
    (tokens / "credentials" / "hf_token").write_text("hf_credential")
    assert hub_token(configured, environ) == "hf_credential"
    del environ["CREDENTIALS_DIRECTORY"]
    assert hub_token(plain, environ) == "hf_path"
    del environ["HF_TOKEN_PATH"]
    assert hub_token(plain, environ) == "hf_home_token"
    del environ["HF_HOME"]
    assert hub_token(plain, environ) == "hf_cache_huggingface_token"


@pytest.mark.parametrize("content", ["  hf_x  \n", "hf_x\r\nsecond line\n", "\n\nhf_x", "hf_x"])
def test_a_token_is_one_line_without_blanks(content: str, tmp_path: Path, empty: str) -> None:
    (tmp_path / "token").write_text(content)
    assert hub_token(load(empty, {}), {"HF_TOKEN_PATH": f"{tmp_path}/token"}) == "hf_x"
    assert hub_token(load(empty, {}), {"HF_TOKEN": content}) == "hf_x"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", None])
def test_no_token_is_none_and_no_error(content: bytes | None, tmp_path: Path, empty: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    assert hub_token(load(empty, {}), {"HF_HOME": str(tmp_path), "HF_TOKEN": " "}) is None
    assert hub_token(load(empty, {}), {"HF_TOKEN_PATH": "~no-such-user-here/token"}) is None


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("", "/srv/hub"),
        ("hub_cache = 'hub'", "/srv/hub"),
        ("hub_cache = '../x/hub/'", "/x/hub"),
        ("hub_cache = '/data/hub'", "/data/hub"),
        ("hub_cache = '~/hub'", f"{Path.home()}/hub"),
        ("hub_cache = ''", ""),
    ],
)
def test_the_view_is_beside_the_store_unless_it_is_put_elsewhere(setting: str, place: str, write: Write) -> None:
    assert load(write(f"[store]\ndir = '/srv/models'\n{setting}"), {}).store.hub_cache == place


@pytest.mark.parametrize("setting", ["/srv/models", "models", "/srv/models/hub", "models/hub", "~no-such-user/hub"])
def test_the_view_cannot_be_in_the_store(setting: str, write: Write) -> None:
    (problem,) = problems(write(f"[store]\ndir = '/srv/models'\nhub_cache = '{setting}'"), {})
    assert problem.startswith("store.hub_cache: ")


def test_shipped_files_are_found_in_a_checkout_and_in_an_environment() -> None:
    assert Path(module.shipped("supported_models.json")).is_file()
    assert module.shipped("no-such-file") == f"{sys.prefix}/share/wantd/no-such-file"

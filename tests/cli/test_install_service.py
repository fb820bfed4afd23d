"""`wantd install-service` and `uninstall-service`: each change said, made once, and none in a dry run."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.cli.host import Host, Places
from agent.cli.install_service import install
from agent.cli.uninstall_service import uninstall
from agent.config import load, shipped
from agent.errors import ConfigError, Exit
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from tests.store.builders import MODES, Model, assert_whole, make_layout

PROGRAM = "/opt/somewhere/bin/wantd"


class Commands:
    """Stands in for the host's programs."""

    def __init__(self, version: int | None = 252) -> None:
        self.ran: list[str] = []
        self._version = version

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if self._version is None:
            raise FileNotFoundError(command[0])
        self.ran.append(" ".join(command))
        output = f"systemd {self._version} ({self._version}.1)\n+PAM" if command[-1] == "--version" else ""
        return subprocess.CompletedProcess(command, 0, output, "")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Those of a user: a home is all it takes."""
    return Places.of_user({"HOME": str(tmp_path)})


def image(tmp_path: Path, said: list[str], commands: Commands | None = None, **options: bool) -> Host:
    return Host(said.append, root=str(tmp_path / "image"), run=commands or Commands(), **options)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_image_gets_unit_users_directories_and_configuration(tmp_path: Path, said: list[str]) -> None:
    commands = Commands()
    install(image(tmp_path, said, commands), Places.of_host(), PROGRAM, None)
    files = contents(tmp_path / "image")
    assert set(files) == {
        "usr/local/lib/systemd/system/wantd.service",
        "usr/local/lib/sysusers.d/wantd.conf",
        "usr/local/lib/tmpfiles.d/wantd.conf",
        "etc/wantd/config.toml",
    }
    assert f"ExecStart={PROGRAM} run" in files["usr/local/lib/systemd/system/wantd.service"]
    root = f"--root={tmp_path}/image"
    assert commands.ran[1:] == [f"systemd-sysusers {root} wantd.conf", f"systemd-tmpfiles --create {root} wantd.conf"]
    assert "wrote      /etc/wantd/config.toml" in said


def test_the_second_time_nothing_is_written_and_the_configuration_stays_the_operators(
    tmp_path: Path, said: list[str]
) -> None:
    host, places = image(tmp_path, said), Places.of_host()
    install(host, places, PROGRAM, None)
    config = Path(host.at(places.config))
    config.write_text(config.read_text() + "# mine\n")
    before = contents(tmp_path / "image")
    said.clear()
    install(host, places, PROGRAM, None)
    assert contents(tmp_path / "image") == before
    assert not [line for line in said if line.startswith("wrote")]
    assert "kept       /etc/wantd/config.toml (yours)" in said


def test_a_dry_run_says_all_and_does_nothing(tmp_path: Path, said: list[str]) -> None:
    commands = Commands()
    install(image(tmp_path, said, commands, dry_run=True), Places.of_host(), PROGRAM, None)
    assert not (tmp_path / "image").exists()
    assert commands.ran == ["systemctl --version"]
    assert len([line for line in said if line.startswith("would write")]) == 4


def test_a_dry_run_keeps_what_would_make_the_real_one_fail(tmp_path: Path, said: list[str]) -> None:
    host = Host(said.append, dry_run=True, run=Commands())
    program = tmp_path / "wantd"
    program.touch(mode=0o700)
    install(host, Places.of_host(), str(program), None)
    assert any(str(program) in problem for problem in host.problems)
    assert [line for line in said if line.startswith("problem")]


def test_what_was_installed_is_taken_away_again(tmp_path: Path, said: list[str], places: Places) -> None:
    host = Host(said.append, run=Commands())
    config = tmp_path / "config.toml"
    config.write_text(f'[spool]\ndir = "{tmp_path}/.llmlb/spool"\n[store]\ndir = "{tmp_path}/.llmlb/models"\n')
    install(host, places, PROGRAM, str(config))
    (tmp_path / ".llmlb/models/qwen3").mkdir(parents=True)
    kept = [config, tmp_path / ".llmlb/spool/a.want", tmp_path / ".llmlb/models/qwen3/model.gguf"]
    gone = [tmp_path / ".llmlb/spool/a.progress", tmp_path / ".llmlb/models/.partial/x.part"]
    gone[1].parent.mkdir()
    for path in kept[1:] + gone:
        path.write_text("x")
    uninstall(host, places)
    assert set(contents(tmp_path)) == {str(path.relative_to(tmp_path)) for path in kept}
    uninstall(image(tmp_path, said), Places.of_host())
    assert "not there  /etc/wantd/config.toml" in said


def test_the_view_goes_with_the_service_and_the_models_stay(tmp_path: Path, said: list[str], places: Places) -> None:
    layout = make_layout(f"{tmp_path}/.llmlb/models")
    model = Model()
    HubView(f"{tmp_path}/.llmlb/hub", layout, Inventory(layout), MODES).show(model.publish(layout).record)
    assert (tmp_path / ".llmlb/hub/models--org--name/refs/main").exists()
    uninstall(Host(said.append, run=Commands()), places)
    assert_whole(layout, model)
    assert not (tmp_path / ".llmlb/hub").exists()
    assert not Path(layout.view).exists()


@pytest.mark.parametrize(("version", "there"), [(252, False), (254, True)])
def test_a_systemd_that_knows_how_gets_a_growing_back_off(
    tmp_path: Path, said: list[str], version: int, there: bool
) -> None:
    places = Places.of_host()
    install(image(tmp_path, said, Commands(version)), places, PROGRAM, None)
    assert (tmp_path / f"image{places.unit}.d/backoff.conf").exists() is there


def test_a_store_elsewhere_becomes_writable_for_the_service(tmp_path: Path, said: list[str]) -> None:
    host, places = image(tmp_path, said), Places.of_host()
    config = tmp_path / "config.toml"
    config.write_text('[spool]\ndir = "/var/spool/wantd"\n[store]\ndir = "/data/big disk/100%"\n')
    install(host, places, PROGRAM, str(config))
    unit = (tmp_path / f"image{places.unit}.d/paths.conf").read_text()
    assert 'ReadWritePaths="/data/big disk"\n' in unit  # one mount for store and view, or no hard link would go across
    assert (tmp_path / "image/data/big disk/100%").is_dir()
    assert (tmp_path / "image/data/big disk/hub").is_dir()


@pytest.mark.parametrize(
    ("store", "writable"),
    [
        ('dir = "/data/100%"\nhub_cache = ""', '"/data/100%%"'),
        ('dir = "/data/models"\nhub_cache = "/srv/hub"', '"/data/models" "/srv/hub"'),
        ('dir = "/data/models"\nhub_cache = "/data/x/hub"', '"/data"'),
        ('dir = "/models"', '"/models" "/hub"'),
    ],
)
def test_the_service_may_write_to_store_and_view_wherever_they_are(
    store: str, writable: str, tmp_path: Path, said: list[str]
) -> None:
    host, places = image(tmp_path, said), Places.of_host()
    config = tmp_path / "config.toml"
    config.write_text(f'[spool]\ndir = "/var/spool/wantd"\n[store]\n{store}\n')
    install(host, places, PROGRAM, str(config))
    assert f"ReadWritePaths={writable}\n" in (tmp_path / f"image{places.unit}.d/paths.conf").read_text()


def test_a_store_that_the_service_could_never_see_is_refused(tmp_path: Path, said: list[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[spool]\ndir = "/var/spool/wantd"\n[store]\ndir = "/home/me/models"\n')
    with pytest.raises(ConfigError, match="/home/me/models"):
        install(image(tmp_path, said), Places.of_host(), PROGRAM, str(config))


def test_a_broken_configuration_is_refused_before_it_is_installed(tmp_path: Path, said: list[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[store]\ndri = 1\n")
    with pytest.raises(ConfigError, match="dri"):
        install(image(tmp_path, said), Places.of_host(), PROGRAM, str(config))
    assert not (tmp_path / "image/etc").exists()


def test_a_program_that_services_cannot_see_is_refused(said: list[str]) -> None:
    host = Host(said.append, run=Commands(), dry_run=False)
    with pytest.raises(ConfigError, match="/opt/wantd"):
        install(host, Places.of_host(), "/home/me/venv/bin/wantd", None)


def test_without_systemd_it_says_so(said: list[str], places: Places) -> None:
    with pytest.raises(ConfigError, match="no systemd"):
        install(Host(said.append, run=Commands(None)), places, PROGRAM, None)


def test_a_command_that_fails_is_told_with_its_words(said: list[str], places: Places) -> None:
    def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if command[-1] == "--version":
            return Commands()(command)
        return subprocess.CompletedProcess(command, 1, "", "no bus\n")

    with pytest.raises(ConfigError, match="daemon-reload: no bus"):
        install(Host(said.append, run=run), places, PROGRAM, None)


def test_units_and_code_agree() -> None:
    for unit in ("systemd/wantd.service", "systemd/user/wantd.service"):
        text = Path(shipped(unit)).read_text()
        assert f"RestartPreventExitStatus={int(Exit.CONFIG)}\n" in text
        assert "HF_TOKEN" not in text
    for name, places in (("systemd", Places.of_host()), ("systemd/user", Places.of_user({"HOME": str(Path.home())}))):
        config = load(shipped(f"{name}/config.toml"), {})
        assert (config.spool.dir, config.store.dir) == (places.spool, places.store)
        assert config.store.hub_cache == f"{Path(places.store).parent}/hub"
    for name in ("sysusers", "tmpfiles", "backoff"):
        assert Path(shipped(f"systemd/{name}.conf")).is_file()

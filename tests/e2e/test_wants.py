"""Every way of writing a want, and what becomes of it (docs/protocol.md)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import AgentProcess, wait_all_ready, wait_until
from tests.hub.process import HubProcess

GGUF = "bartowski/Qwen_Qwen3-0.6B-GGUF"


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("way", ["rename", "write", "cp", "mv", "ln", "touch", "editor"])
def test_every_way_of_writing_a_want_is_served(agent: AgentProcess, tmp_path: Path, way: str) -> None:
    source = tmp_path / "outside.want"
    source.write_text("" if way == "touch" else "qwen3\n")
    target = agent.spool / "qwen3.want"
    match way:
        case "rename":
            agent.drop("qwen3", "qwen3")
        case "write":
            with target.open("w") as file:
                for piece in "qwen3\n":
                    file.write(piece)
                    file.flush()
        case "cp":
            shutil.copyfile(source, target)
        case "mv":
            source.rename(target)
        case "ln":
            os.link(source, target)
        case "touch":
            target.touch()
        case "editor":
            target.write_text("qwen")
            target.with_suffix(".want~").write_text("")
            target.unlink()
            target.write_text("qwen3\n")
    path = agent.ready("qwen3")
    assert path == str(agent.store / "qwen3" / "Qwen_Qwen3-0.6B-Q4_K_M.gguf")


def test_a_half_written_want_is_not_acted_on(agent: AgentProcess) -> None:
    with (agent.spool / "slow.want").open("w") as file:
        file.write("qwen")
        file.flush()
        agent.drop("other", "no-such-model")
        agent.failed("other")  # the agent has looked at the spool since
        assert agent.progress("slow") is None
        file.write("3\n")
    agent.ready("slow")


def test_the_name_of_an_empty_want_is_its_model(agent: AgentProcess) -> None:
    agent.drop("Qwen--Qwen3-0.6B")
    path = agent.ready("Qwen--Qwen3-0.6B")
    assert path == str(agent.store / "qwen3-0.6b")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(path))


def test_subdirectories_are_served_to_the_fourth_level_and_dot_directories_are_not(agent: AgentProcess) -> None:
    agent.drop("a/b/c/d/deep", "qwen3")
    agent.drop("a/b/c/d/e/deeper", "qwen3")
    agent.drop(".hidden/x", "qwen3")
    agent.ready("a/b/c/d/deep")
    agent.drop("last", "qwen3")
    agent.ready("last")
    assert agent.progress("a/b/c/d/e/deeper") is None
    assert agent.progress(".hidden/x") is None


def test_a_manifest_has_a_part_for_each_model(agent: AgentProcess) -> None:
    agent.drop("all", {"models": ["qwen3", {"model": "qwen3-0.6b"}, "no-such"], "priority": 3, "labels": {"t": "1"}})
    answer = agent.wait("all")
    assert answer["state"] == "failed"
    assert [model["state"] for model in answer["models"]] == ["ready", "ready", "failed"]
    assert [model["model"] for model in answer["models"]] == ["qwen3", "qwen3-0.6b", "no-such"]
    assert answer["error"]["code"] == "model_not_supported"
    assert answer["labels"] == {"t": "1"}


def test_removing_a_want_cancels_it_and_keeps_the_partial(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", max_rate=200_000)
    want = agent.drop("qwen3", "qwen3")
    agent.wait("qwen3", "downloading")
    wait_until(lambda: (agent.progress("qwen3") or {}).get("bytes_done"), "bytes have come")
    want.unlink()
    wait_until(lambda: agent.progress("qwen3") is None, "the progress file is gone", 3)
    wait_until(lambda: hub.stats()["open_bodies"] == 0, "no bytes are asked for any more", 3)
    assert list((agent.store / ".partial").glob("*.part"))
    hub.clear_faults()
    agent.drop("qwen3", "qwen3")
    agent.ready("qwen3")


def test_a_want_that_another_wants_too_goes_on(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", max_rate=400_000)
    first = agent.drop("first", "qwen3")
    agent.drop("second", "qwen3")
    agent.wait("first", "downloading")
    agent.wait("second", "downloading")
    first.unlink()
    wait_until(lambda: agent.progress("first") is None, "the first one's progress is gone")
    hub.clear_faults()
    agent.ready("second")


def test_other_content_under_the_same_name_is_a_new_request(agent: AgentProcess) -> None:
    agent.drop("x", "no-such-model")
    agent.failed("x")
    agent.drop("x", "qwen3")
    assert agent.wait("x", "ready")["attempt"] == 1


def test_touching_a_failed_want_tries_again_at_once(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("hub/api/models/*", status=404, times=1)
    want = agent.drop("qwen3", "qwen3")
    agent.failed("qwen3")
    want.touch()
    answer = agent.wait("qwen3", "ready")
    assert answer["attempt"] == 2


def test_a_removed_progress_file_is_written_again(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent(scheduler__rescan_s=1)
    with agent:
        agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")
        (agent.spool / "qwen3.progress").unlink()
        agent.ready("qwen3")


def test_a_progress_file_without_a_want_is_removed_at_start(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    (agent.spool / "old.progress").write_text("{}")
    with agent:
        wait_until(lambda: not (agent.spool / "old.progress").exists(), "the orphan is gone")


def test_wants_dropped_while_no_agent_ran_are_served_when_one_starts(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    agent.drop("sub/qwen3", "qwen3")
    with agent:
        agent.ready("sub/qwen3")


def test_a_model_that_goes_from_the_store_is_fetched_again_while_it_is_wanted(
    make_agent: Callable[..., AgentProcess],
) -> None:
    with make_agent(scheduler__rescan_s=1) as agent:
        agent.drop("qwen3", "qwen3")
        path = agent.ready("qwen3")
        os.unlink(path)
        wait_until(lambda: os.path.exists(path), "the file is back")


def test_the_spool_may_be_deleted_and_made_again(make_agent: Callable[..., AgentProcess]) -> None:
    with make_agent(scheduler__rescan_s=1) as agent:
        agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")
        shutil.rmtree(agent.spool)
        agent.drop("again", "qwen3")
        agent.ready("again")


def test_polling_serves_where_there_is_no_inotify(make_agent: Callable[..., AgentProcess]) -> None:
    with make_agent(spool__watch="poll", spool__poll_interval_s=0.2) as agent:
        want = agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")
        want.unlink()
        wait_until(lambda: agent.progress("qwen3") is None, "the progress file is gone")


def test_a_want_for_later_waits_for_its_time(agent: AgentProcess) -> None:
    agent.drop("later", {"model": "qwen3", "not_before": "2999-01-01T00:00:00Z"})
    answer = agent.wait("later", "waiting")
    assert answer["waiting"] == {"for": "not_before", "until": "2999-01-01T00:00:00.000Z"}


def test_a_tree_of_500_wants_for_40_models_is_one_download_each(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    """Issue 2, points 4: `cp -r`, and again with two agents on one store and two spools."""
    names, catalog = _forty_models(hub, tmp_path)
    tree = tmp_path / "tree"
    wants = []
    for number in range(500):
        want = tree / f"team{number % 7}" / f"w{number}.want"
        want.parent.mkdir(parents=True, exist_ok=True)
        want.write_text(names[number % 40])
        wants.append(str(want.relative_to(tree).with_suffix("")))
    for agents in (1, 2):
        hub.reset()
        store = tmp_path / f"store{agents}"
        group = [make_agent(f"a{agents}{n}", store=store, catalog__path=catalog) for n in range(agents)]
        for agent in group:
            agent.start()
        for agent in group:
            shutil.copytree(tree, agent.spool, dirs_exist_ok=True)
        for agent in group:
            wait_all_ready(agent, wants)
        sizes = {name: hub.repos()[f"forty/{name}"]["files"][f"{name}.gguf"]["size"] for name in names}
        sent = hub.stats()["bytes_sent"]
        assert {name: sent[f"forty/{name}/{name}.gguf"] for name in names} == sizes
        assert not [name for name in os.listdir(store / ".locks") if not name.startswith((".agent", ".spool"))]
        for agent in group:
            agent.stop()


def _forty_models(hub: HubProcess, tmp_path: Path) -> tuple[list[str], Path]:
    names = [f"m{number:02d}" for number in range(40)]
    if "forty/m00" not in hub.repos():
        for number, name in enumerate(names):
            hub.commit(f"forty/{name}", {f"{name}.gguf": os.urandom(50_000 + number)})
    catalog = tmp_path / "catalog.json"
    catalog.write_text(
        json.dumps([{"id": n, "repo": f"forty/{n}", "recommended_filename": f"{n}.gguf"} for n in names])
    )
    return names, catalog

"""The recipes for containers: valid for Kubernetes, and true to the commands, paths and files of this project."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from agent.cli import parser
from tests.harness import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VERSION = kubernetes_validate.latest_version()
PATH = "/var/lib/wantd"


def documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
def test_manifests_are_valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, VERSION, strict=True)


def pods() -> Iterator[dict[str, Any]]:
    for document in documents():
        if document["kind"] in ("Pod", "DaemonSet"):
            yield document["spec"]["template"]["spec"] if document["kind"] == "DaemonSet" else document["spec"]


def test_the_path_on_the_node_is_the_path_in_every_container() -> None:
    for pod in pods():
        assert {volume["hostPath"]["path"] for volume in pod["volumes"]} == {PATH}
        for container in pod.get("initContainers", []) + pod["containers"]:
            for mount in container["volumeMounts"]:
                assert mount["mountPath"] == (f"{PATH}/{mount['subPath']}" if "subPath" in mount else PATH)


def test_commands_are_commands() -> None:
    texts = [path.read_text() for path in (*MANIFESTS, DEPLOY / "container" / "compose.yaml")]
    typed = [line for text in texts for line in re.findall(r'wantd (?:run|wait|status|get)[^";&>]*', text)]
    typed += [" ".join(words) for words in re.findall(r'\["(wantd)", "(\w+)"', "\n".join(texts))]
    assert len(typed) >= 4
    for line in typed:
        words = shlex.split(line)[1:]
        if words != ["get"]:
            parser([words[0]]).parse_args(words)


def test_the_image_is_made_of_files_that_are_there() -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied
    assert [name for name in copied if not (CHECKOUT / name).exists()] == []


def test_compose_mounts_the_same_path_everywhere() -> None:
    services = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())["services"]
    assert {volume for service in services.values() for volume in service["volumes"]} == {f"wantd:{PATH}"}

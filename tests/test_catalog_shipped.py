"""The catalog that comes with wantd: well-known models, every entry of use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.core.catalog import Catalog, parse_catalog
from agent.core.names import safe_name, store_name
from agent.core.target import make_target
from agent.core.want import WantedModel

PATH = Path(__file__).parent.parent / "supported_models.json"
RAW: list[dict[str, Any]] = json.loads(PATH.read_bytes())
KEYS = {"id", "name", "description", "repo", "size_bytes", "required_memory_bytes", "tags", "capabilities", "format"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return parse_catalog(PATH.read_bytes())


def test_there_are_twenty_models_or_more_and_nothing_is_wrong_with_any(catalog: Catalog) -> None:
    assert catalog.problems == []
    assert len(catalog.entries) == len(RAW) >= 20


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: str(raw["id"]))
def test_every_entry_is_usable(raw: dict[str, Any], catalog: Catalog) -> None:
    assert raw.keys() >= KEYS
    assert raw["repo"].count("/") == 1
    assert raw["required_memory_bytes"] >= raw["size_bytes"] > 10**6
    target = make_target(catalog, "catalog", WantedModel(raw["id"]))
    assert target.name == store_name(raw["id"])
    assert target.selection.filename or target.selection.artifacts or target.selection.files
    for name in [raw.get("recommended_filename"), *(artifact["name"] for artifact in raw.get("artifacts", []))]:
        if name:
            safe_name(name)


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: str(raw["id"]))
def test_a_file_name_fits_what_the_entry_says_of_it(raw: dict[str, Any]) -> None:
    name = raw.get("recommended_filename") or ""
    assert raw["format"] in ("gguf", "safetensors")
    if raw["format"] == "gguf":
        assert name.endswith(".gguf")
        assert raw["quantization"].lower() in name.lower()
    else:
        assert name.endswith((".safetensors", ".safetensors.index.json"))


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: str(raw["id"]))
def test_a_model_is_found_by_its_aliases(raw: dict[str, Any], catalog: Catalog) -> None:
    for alias in raw.get("aliases") or []:
        assert make_target(catalog, "catalog", WantedModel(alias)).name == store_name(raw["id"])


def test_there_is_one_of_each_kind(catalog: Catalog) -> None:
    formats = {entry.format for entry in catalog.entries.values()}
    assert formats >= {"gguf", "safetensors"}
    names = [entry.filename or "" for entry in catalog.entries.values()]
    assert any("-00001-of-" in name for name in names), "a split GGUF"
    assert any(name.endswith(".index.json") for name in names), "sharded safetensors"
    assert "gemma3" in catalog.entries, "a GGUF with an mmproj beside it in its repository"

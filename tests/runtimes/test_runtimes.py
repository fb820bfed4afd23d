"""What wantd publishes loads in the libraries that people use, by name and by path, and computes the same."""

from __future__ import annotations

import pytest

from tests.runtimes.conftest import REPO, Runtime

SENTENCES = ["A model is wanted.", "Ein Modell wird gebraucht."]
EMBEDDING = """
from sentence_transformers import SentenceTransformer
result = SentenceTransformer(argument[0], device="cpu").encode(argument[1]).tolist()
"""
HIDDEN_STATES = """
import torch
from transformers import AutoModel, AutoTokenizer
tokens = AutoTokenizer.from_pretrained(argument[0])(argument[1], return_tensors="pt", padding=True)
with torch.no_grad():
    result = AutoModel.from_pretrained(argument[0])(**tokens).last_hidden_state[:, 0].tolist()
"""
TENSORS = """
from safetensors import safe_open
with safe_open(argument[0] + "/model.safetensors", framework="pt") as file:
    result = sorted(file.keys())
"""


@pytest.mark.parametrize("code", [EMBEDDING, HIDDEN_STATES], ids=["sentence-transformers", "transformers"])
def test_by_name_from_the_view_and_by_path_from_the_store_it_computes_the_same(
    code: str, runtime: Runtime, package: str, published: tuple[str, str]
) -> None:
    path, hub = published
    expected = runtime(code, [package, SENTENCES])
    assert len(expected[0]) == 384
    assert runtime(code, [REPO, SENTENCES], HF_HUB_CACHE=hub) == expected
    assert runtime(code, [path, SENTENCES]) == expected


def test_safetensors_reads_the_weights_in_the_store(runtime: Runtime, package: str, published: tuple[str, str]) -> None:
    assert runtime(TENSORS, [published[0]]) == runtime(TENSORS, [package])

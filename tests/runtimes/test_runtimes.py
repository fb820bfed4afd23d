"""What wantd publishes loads in the libraries that people use, by name and by path, and computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtimes.conftest import GGUF, PIPELINE, REPO, Runtime

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


LLAMA_CPP = """
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.embedding, parameters.warmup, parameters.verbosity = argument[0], True, False, 0
parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
server = xllamacpp.Server(parameters)
said = server.handle_embeddings({"input": argument[1], "encoding_format": "float"})
said = json.loads(said) if isinstance(said, str) else said
result = [one["embedding"] for one in said["data"]]
"""
GGUF_TENSORS = """
import gguf
result = sorted(tensor.name for tensor in gguf.GGUFReader(argument[0]).tensors)
"""
IMAGE = """
import torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(argument)
pipeline.set_progress_bar_config(disable=True)
chance = torch.Generator().manual_seed(1)
result = pipeline(generator=chance, num_inference_steps=2, output_type="np").images.tolist()
"""
BY_NAME = """
import huggingface_hub
result = huggingface_hub.hf_hub_download(argument[0], argument[1])
"""


@pytest.mark.parametrize("code", [EMBEDDING, HIDDEN_STATES], ids=["sentence-transformers", "transformers"])
def test_by_name_from_the_view_and_by_path_from_the_store_it_computes_the_same(
    code: str, runtime: Runtime, package: str, published: dict[str, str]
) -> None:
    expected = runtime(code, [package, SENTENCES])
    assert len(expected[0]) == 384
    assert runtime(code, [REPO, SENTENCES], HF_HUB_CACHE=published["view"]) == expected
    assert runtime(code, [published[REPO], SENTENCES]) == expected


def test_a_pipeline_of_diffusers_draws_the_same(runtime: Runtime, pipeline: str, published: dict[str, str]) -> None:
    expected = runtime(IMAGE, pipeline)
    assert runtime(IMAGE, PIPELINE, HF_HUB_CACHE=published["view"]) == expected
    assert runtime(IMAGE, published[PIPELINE]) == expected


def test_safetensors_reads_the_weights_in_the_store(runtime: Runtime, package: str, published: dict[str, str]) -> None:
    assert runtime(TENSORS, [published[REPO]]) == runtime(TENSORS, [package])


def test_llama_cpp_computes_from_the_gguf_what_sentence_transformers_does_from_the_package(
    runtime: Runtime, package: str, published: dict[str, str]
) -> None:
    expected = runtime(EMBEDDING, [package, SENTENCES])
    in_view = runtime(BY_NAME, [GGUF, Path(published[GGUF]).name], HF_HUB_CACHE=published["view"])
    assert in_view.startswith(published["view"])
    for path in (published[GGUF], in_view):
        found = runtime(LLAMA_CPP, [path, SENTENCES])
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, abs=2e-3)  # its arithmetic is in another order: 3e-4 was seen


def test_ggufs_own_reader_finds_the_same_tensors(runtime: Runtime, converted: Path, published: dict[str, str]) -> None:
    (made,) = converted.iterdir()
    assert runtime(GGUF_TENSORS, [published[GGUF]]) == runtime(GGUF_TENSORS, [str(made)])

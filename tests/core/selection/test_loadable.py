"""A listing that may lack files: a choice from it is taken only if a loader finds all that it cannot do without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.core.plan import Plan
from agent.core.remote import Listing
from agent.core.selection.code import CodePolicy
from agent.errors import Code, WantdError
from tests.core.loaders import LOADERS, Disk
from tests.core.selection.build import index, listing, names, plan, plan_of
from tests.core.test_corpus import target
from tests.core.trees import Case, cases

# Every want of the corpus that the rules decide, and whose loader is known. A repository of 1,000 shards takes long.
RULED = [
    case
    for case in cases()
    if case.chosen and case.loader and not {"files", "snapshot"} & set(case.want) and len(case.listing.files) < 60
]
UNSURE = {  # what the rules choose there shows only in what the Hub does not have
    "example/legacy-fp16-pipeline": "the plain weights",
}
SURE = [case for case in RULED if str(case) not in UNSURE]


class AnyContents(dict[str, object]):
    """What the corpus does not say of a file is an empty configuration."""

    def __missing__(self, name: str) -> object:
        return {}


def from_cache(case: Case, without: str = "") -> Plan:
    """The plan where a cache has the repository, or all of it but one file."""
    files = tuple(file for file in case.listing.files if file.name != without)
    partial = replace(case.listing, source="adopted:hub", files=files, partial=True, note="It is from a cache.")
    policy = CodePolicy(frozenset(case.formats), case.code)  # type: ignore[arg-type]
    return plan_of(target(case.want), partial, AnyContents(case.contents), policy)


def load(case: Case, plan: Plan, without: str = "") -> None:
    """Let the loader open what was chosen. AssertionError where it lacks something."""
    chosen = frozenset(names(plan))
    there = frozenset(file.name for file in case.listing.files) - {without}
    LOADERS[case.loader or ""](
        Disk(chosen, there, case.contents), plan.opens if case.loader == "llama.cpp" else case.variant
    )


@pytest.mark.parametrize("case", SURE, ids=str)
def test_a_whole_repository_in_a_cache_is_chosen_from_as_at_the_hub(case: Case) -> None:
    made = from_cache(case)
    assert sorted(names(made)) == sorted(case.chosen or ())
    assert made.provisional
    assert "It is from a cache." in (made.warning or "")


@pytest.mark.parametrize("case", [case for case in RULED if str(case) in UNSURE], ids=str)
def test_where_the_cache_cannot_tell_the_hub_is_waited_for(case: Case) -> None:
    with pytest.raises(WantdError, match=UNSURE[str(case)]):
        from_cache(case)


@pytest.mark.parametrize("case", SURE, ids=str)
def test_what_is_chosen_without_some_file_still_loads(case: Case) -> None:
    taken = 0
    for name in case.chosen or ():
        try:
            made = from_cache(case, without=name)
        except WantdError:
            continue
        load(case, made, without=name)
        taken += 1
    assert taken or len(case.chosen or ()) <= 3  # a card, a licence: nobody misses them


BERT = {"model_type": "bert", "vocab_size": 30522}
SMALL = ("config.json", "model.safetensors")
POOLED = (
    b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},'
    b' {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},'
    b' {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]'
)
PIPELINE = {
    "_class_name": "P",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "safety_checker": [None, None],
}
PIPELINE_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "feature_extractor/preprocessor_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def partly(*there: str) -> Listing:
    return replace(listing(*there), source="adopted:hub", partial=True)


def missed(there: tuple[str, ...], contents: dict[str, Any], **selected: Any) -> str:
    """What the error says is missing."""
    with pytest.raises(WantdError) as caught:
        plan(partly(*there), contents, **selected)
    assert caught.value.code is Code.FILE_NOT_FOUND
    _, found, what = caught.value.message.partition("adopted:hub may lack files of it: ")
    assert found, caught.value.message
    return what


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json"])
def test_a_model_of_text_needs_a_tokenizer(tokenizer: str) -> None:
    for config in (BERT, {"text_config": {"vocab_size": 1}}, {"thinker_config": {"text_config": {"vocab_size": 1}}}):
        assert missed(SMALL, {"config.json": config}) == "the tokenizer"
        assert len(plan(partly(*SMALL, tokenizer), {"config.json": config}).files) == 3


@pytest.mark.parametrize("config", [{"vision_config": {}}, {"image_size": 224}, {"num_mel_bins": 80}])
def test_a_model_of_pictures_or_sound_needs_its_processor(config: dict[str, Any]) -> None:
    assert missed(SMALL, {"config.json": config}) == "the processor's configuration"
    for processor in ("preprocessor_config.json", "processor_config.json"):
        assert len(plan(partly(*SMALL, processor), {"config.json": config}).files) == 3


def test_a_model_of_neither_needs_none() -> None:
    for config in ({}, {"architecture": "vit_base"}, [], {"x_config": {"y_config": {"z_config": {"w_config": BERT}}}}):
        assert len(plan(partly(*SMALL), {"config.json": config}).files) == 2


def test_weights_without_a_configuration_or_an_index() -> None:
    assert missed(("model.safetensors",), {}) == "the configuration"
    assert missed(("config.json", *SHARDS), {"config.json": {}}) == "the index of 'model-00001-of-00002.safetensors'"
    whole = ("config.json", "model.safetensors.index.json", *SHARDS)
    contents = {"config.json": {}, "model.safetensors.index.json": index(*SHARDS)}
    assert len(plan(partly(*whole), contents).files) == 4


def test_modules_of_sentence_transformers() -> None:
    there = ("modules.json", *SMALL, "vocab.txt", "1_Pooling/config.json")
    contents = {"modules.json": POOLED, "config.json": BERT}
    assert len(plan(partly(*there), contents).files) == 5
    assert missed(there[:-1], contents) == "the configuration of '1_Pooling'"
    assert missed((*there[:3], there[-1]), contents) == "the tokenizer"
    static = [{"path": "0", "type": "sentence_transformers.models.StaticEmbedding"}]
    assert missed(("modules.json", "0/model.safetensors"), {"modules.json": static}) == "the tokenizer of '0'"
    dense = [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    assert missed(("modules.json", "2_Dense/config.json"), {"modules.json": dense}) == "the weights of '2_Dense'"


@pytest.mark.parametrize("without", PIPELINE_FILES[1:])
def test_components_of_a_pipeline(without: str) -> None:
    contents = {"model_index.json": PIPELINE, "unet/config.json": {}}
    assert len(plan(partly(*PIPELINE_FILES), contents).files) == len(PIPELINE_FILES)
    there = tuple(name for name in PIPELINE_FILES if name != without)
    if without.endswith("safetensors"):  # the rules themselves miss these
        with pytest.raises(WantdError):
            plan(partly(*there), contents)
    else:
        assert without.split("/")[0] in missed(there, contents)


def test_an_adapter() -> None:
    assert missed(("adapter_config.json",), {}) == "the adapter's weights"
    assert len(plan(partly("adapter_config.json", "adapter_model.safetensors"), {}).files) == 2


def test_a_gguf_is_whole_by_its_own_name() -> None:
    for asked in ({}, {"quant": "Q4_K_M"}, {"filename": "m-Q4_K_M.gguf"}):
        assert len(plan(partly("m-Q4_K_M.gguf"), {}, **asked).files) == 1


def test_of_a_gguf_that_no_quant_names_the_hub_may_have_a_better_one() -> None:
    assert missed(("m-Q8_0.gguf",), {}) == "a Q4_K_M"
    assert missed(("m.gguf",), {}) == "a Q4_K_M"
    assert len(plan(partly("m-Q8_0.gguf"), {}, quant="Q8_0").files) == 1
    assert missed(("m-Q4_K_M.gguf", *SHARDS), {}) == "the index of 'model-00001-of-00002.safetensors'"


def test_weights_of_a_variant_that_nobody_asked_for() -> None:
    there = ("config.json", "model.fp16.safetensors")
    assert missed(there, {"config.json": {}}) == "the plain weights beside 'model.fp16.safetensors'"
    assert len(plan(partly(*there), {"config.json": {}}, quant="FP16").files) == 2


def test_what_a_want_names_is_there_or_not_and_what_it_circumscribes_cannot_be_known() -> None:
    assert len(plan(partly("x.onnx", "y"), {}, files=("x.onnx",)).files) == 1
    assert missed(("x.onnx",), {}, files=("x.onnx", "*.onnx")) == "every file that matches '*.onnx' is wanted"
    assert missed(("x.onnx",), {}, snapshot="all") == "every file of the commit is wanted"


def test_what_the_catalog_names_alone_is_all() -> None:
    assert len(plan(partly("m.onnx", "x"), {}, filename="m.onnx").files) == 1
    assert missed(("model.safetensors", "x"), {}, filename="model.safetensors") == "the configuration"


def test_what_is_excluded_is_not_missed() -> None:
    there = (*SMALL, "tokenizer.json")
    assert len(plan(partly(*there), {"config.json": BERT}, exclude=("tokenizer.json",)).files) == 2
    assert len(plan(partly(*there), {"config.json": BERT}, exclude=("*.safetensors",)).files) == 2


def test_a_listing_that_is_whole_is_not_doubted() -> None:
    made = plan(listing(*SMALL), {"config.json": BERT})
    assert (made.provisional, made.warning) == (False, None)

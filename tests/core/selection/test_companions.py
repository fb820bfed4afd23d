"""What goes with the weights, and what stays away."""

from __future__ import annotations

import pytest

from agent.core.names import SafeName
from agent.core.remote import RemoteFile
from agent.core.selection.companions import CODE_COMPANION_MAX_BYTES, code_companions, companions
from agent.core.selection.tree import Contents, Tree

TAKEN = [
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "tokenizer.model.v3", "spiece.model", "sentencepiece.bpe.model", "qwen.tiktoken", "source.spm",
    "chat_template.jinja", "chat_template.json", "preprocessor_config.json", "recipe.yaml", "x.yml", "bpe.codes",
    "vocab.bpe", "a.vocab", "added.tokens", "setup.cfg", "template", "params", "system", "train_config.json",
    "README.md", "readme.md", "LICENSE", "LICENSE.md", "license.txt", "LICENCE", "LICENSE-MODEL", "LICENSE-2.0",
    "MODEL_LICENSE", "Apache License.pdf", "COPYING", "NOTICE", "NOTICE.md", "Notice", "THIRD_PARTY_NOTICES.md",
    "USE_POLICY.md", "USAGE_POLICY", "NOTICE.html", "LICENSE.rst",
]  # fmt: skip
LEFT = [
    ".gitattributes", "model.safetensors.index.json", "model.safetensors.index.fp16.json",
    "pytorch_model.bin.index.json",
    "trainer_state.json", "training_args.json", "all_results.json", "eval_results.json", "imatrix.txt",
    "calibration_v3.txt",
    "README", "MODEL_CARD.md", "plot.png", "logo.jpg", "data.csv", "model.onnx", "x.msgpack", "train.py",
    "LICENSE.py", "license.png", "licensed_model.safetensors", "params.bin", "tokenizer.model.v3.bin", "run.sh",
    "events.out.tfevents.1", "model.gguf", "a.safetensors", "SYSTEM.md", "Modelfile",
]  # fmt: skip


def tree(*names: str, size: int | None = 10) -> Tree:
    return Tree([RemoteFile(SafeName(name), size) for name in names], Contents())


def found(there: Tree, *folders: str) -> list[str]:
    return [file.name for file in companions(there, folders)]


@pytest.mark.parametrize("name", TAKEN)
def test_configuration_tokenizer_and_documents_come(name: str) -> None:
    assert found(tree(name, f"x/{name}"), "") == [name]
    assert found(tree(name, f"x/{name}"), "x") == [f"x/{name}"]


@pytest.mark.parametrize("name", LEFT)
def test_what_no_loader_opens_stays_away(name: str) -> None:
    assert found(tree(name), "") == []


def test_chat_templates_in_folders_come_and_nothing_else_there() -> None:
    there = tree(
        "additional_chat_templates/rag.jinja", "chat_templates/x.jinja", "additional_chat_templates/README.md",
        "t/additional_chat_templates/a.jinja", "other/b.jinja", "additional_chat_templates/deep/c.jinja",
    )  # fmt: skip
    assert found(there, "") == ["additional_chat_templates/rag.jinja", "chat_templates/x.jinja"]
    assert found(there, "t") == ["t/additional_chat_templates/a.jinja"]


def code(there: Tree, formats: set[str]) -> tuple[list[str], list[str]]:
    allowed, left = code_companions(there, [""], formats)
    return [file.name for file in allowed], [file.name for file in left]


@pytest.mark.parametrize(
    "name", ["modeling_x.py", "handler.py", "spk_dict.pt", "voices.bin", "a.so", "pretrained_tokenizer.py",
             "straining.py", "sparse_linear.pt", "retrain_model.py"]
)  # fmt: skip
def test_code_beside_the_weights_comes_where_it_is_allowed_and_is_told_where_not(name: str) -> None:
    ending = name.rpartition(".")[2]
    assert code(tree(name), set()) == ([], [name])
    assert code(tree(name), {ending}) == ([name], [])
    assert code(tree(f"x/{name}"), set()) == ([], [])


@pytest.mark.parametrize(
    "name",
    ["train.py", "train_script.py", "run_train.py", "trainer.py", "finetune.py", "fine_tune.py", "sample-finetune.py",
     "pretraining.py", "fine-tuning_x.py", "pretrain_bert.py", "pytorch_model.bin",
     "pytorch_model.fp32-00001-of-00002.bin",
     "tf_model.h5", "rust_model.pt", "model.bin", "flax_model.pkl", "adapter_model.bin", "openvino_model.bin",
     "openvino_model_qint8.bin-00001-of-00002.bin", "open_clip_model.bin", "open_clip_pytorch_model.bin",
     "diffusion_pytorch_model.fp16.bin", "consolidated.00.pth", "x-00001-of-00002.pt", "x-1-of-61.pt",
     "training_args.bin",
     "optimizer.pt", "scheduler.pt", "rng_state_1.pth", "run.sh", "x.exe", "x.llamafile", "x.onnx"],
)  # fmt: skip
def test_training_scripts_and_copies_of_the_weights_stay_away(name: str) -> None:
    assert code(tree(name), set()) == ([], [])
    assert code(tree(name), {name.rpartition(".")[2]}) == ([], [])


def test_a_large_file_in_a_format_of_weights_is_weights_whatever_its_name() -> None:
    most = CODE_COMPANION_MAX_BYTES
    assert code(tree("v1-5.ckpt", size=most), set()) == ([], ["v1-5.ckpt"])
    assert code(tree("v1-5.ckpt", size=most + 1), set()) == ([], [])
    assert code(tree("v1-5.ckpt", size=None), set()) == ([], [])
    assert code(tree("x.py", size=None), set()) == ([], ["x.py"])

"""Makes a GGUF of a BERT model in safetensors, as llama.cpp's convert_hf_to_gguf.py does: `to_gguf.py DIRECTORY FILE`.

Runs in the environment of the runtimes, which has the package `gguf` of llama.cpp. No GGUF of a size for tests is in a
package.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
from safetensors.numpy import load_file

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def token(text: str) -> str:
    """As llama.cpp's WordPiece wants them: a word begins with a mark, its continuation does not."""
    return text if text in SPECIAL else text[2:] if text.startswith("##") else f"\u2581{text}"


def convert(directory: Path, path: str) -> None:
    """Write the model's weights in 32 bits, its vocabulary, and how its embedding is pooled."""
    config = json.loads((directory / "config.json").read_text())
    tokens = (directory / "vocab.txt").read_text().splitlines()
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list([token(text) for text in tokens])
    writer.add_token_types([3 if text in SPECIAL else 1 for text in tokens])  # control, normal
    writer.add_token_type_count(config["type_vocab_size"])
    adders = (writer.add_pad_token_id, writer.add_unk_token_id, writer.add_bos_token_id, writer.add_sep_token_id)
    for text, add in zip(SPECIAL, (*adders, writer.add_mask_token_id), strict=True):
        add(tokens.index(text))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for name, tensor in load_file(directory / "model.safetensors").items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue  # not of the embedding
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        writer.add_tensor(found, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2])

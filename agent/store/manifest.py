"""`manifest.json`: a published model as the node of llmlb, the load balancer, reads it.

    {"format": "gguf", "quantization": "Q4_K_M", "verified": true,
     "files": [{"name": "model.gguf", "digest": "<SHA-256>", "size": 484220320, "url": "https://…", "source": "hub"}]}

`digest` is in hex, `size` in bytes, `url` the file at the Hub, at the published commit.
"""

from __future__ import annotations

import re
from urllib.parse import quote

import orjson

from agent.core.names import safe_name
from agent.core.plan import Plan
from agent.store.layout import LLMLB_GGUF, Record


def llmlb_manifest(record: Record, plan: Plan, endpoint: str) -> bytes:
    """The content of `manifest.json`. `endpoint` is the Hub's base URL."""
    urls = {f.name: f"{endpoint}/{f.repo}/resolve/{quote(f.commit, safe='')}/{quote(f.name)}" for f in plan.files}
    selection = record.selection
    named = [
        {
            "name": file.name,
            "digest": file.sha256,
            "size": file.size,
            "url": urls[safe_name(file.name)],
            "source": file.source,
        }
        for file in record.files
    ]
    first = [{**file, "name": LLMLB_GGUF} for file in named if file["name"] == record.opens]
    names = {file["name"] for file in named}
    manifest = {
        "format": record.format,
        "quantization": selection.get("quant") or _quantization(record.opens or ""),
        "verified": record.verified,
        "files": (first if LLMLB_GGUF not in names else []) + named,
    }
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2)


def _quantization(name: str) -> str | None:
    match = re.search(r"[-.]((?:I?Q[0-9]|T?BF16|F16|F32|MXFP4)[A-Z0-9_]*)(?=[-.])", name, re.IGNORECASE)
    return match[1].upper() if match else None

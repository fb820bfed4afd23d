"""`adapter_config.json`: a repository of adapters (PEFT) is taken as it is, but for the checkpoints of its training.

https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

import re
from collections.abc import Collection

from agent.core.selection.code import leave_out_code
from agent.core.selection.tree import Chosen, Tree

ADAPTER_CONFIG = "adapter_config.json"

_CHECKPOINT = re.compile(r"(^|/)checkpoint-[^/]+/")


def adapter_files(tree: Tree, formats: Collection[str]) -> Chosen:
    """Every file but those of checkpoints, and those that can run code."""
    kept, out = leave_out_code([file for file in tree.files if not _CHECKPOINT.search(file.name)], formats)
    return Chosen(kept, skipped=out)

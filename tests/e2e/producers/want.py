"""usage: want.py SPOOL MODEL   Drops a want and prints the path of the model. Standard library only."""

import json
import pathlib
import sys
import time

spool, model = pathlib.Path(sys.argv[1]), sys.argv[2]
(spool / "python.want").write_text(model)
progress = spool / "python.progress"
for _ in range(1200):
    answer = json.loads(progress.read_text()) if progress.exists() else {}
    if answer.get("state") in ("ready", "failed"):
        break
    time.sleep(0.05)
if answer.get("state") != "ready":
    sys.exit(1)
print(answer["models"][0]["path"])

#!/bin/sh
# usage: want.sh SPOOL MODEL   Drops a want and prints the path of the model.
printf '%s\n' "$2" > "$1/.sh.tmp" && mv "$1/.sh.tmp" "$1/sh.want"
until grep -q '^  "state": "ready"' "$1/sh.progress" 2>/dev/null; do
  grep -q '^  "state": "failed"' "$1/sh.progress" 2>/dev/null && exit 1
  sleep 0.05
done
sed -n 's/^ *"path": "\(.*\)",$/\1/p' "$1/sh.progress" | head -n 1

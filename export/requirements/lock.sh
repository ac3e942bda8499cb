#!/usr/bin/env bash
# Pins every package with its hashes: *.in → *.txt. Needs uv in the venv (`make setup`).
#
#   lock.sh             resolve again, keeping the versions already pinned where they still fit
#   lock.sh --upgrade   take the newest versions
set -euo pipefail
cd "$(dirname "$0")"

compile() {
  ../../.venv/bin/uv pip compile --quiet --config-file uv.toml \
    --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" "$@"
}

compile dev.in --output-file dev.txt "$@"
# The smaller set keeps the pins of the larger one, so that one venv can hold first the one and then the other.
compile serve.in --constraint dev.txt --output-file serve.txt "$@"
compile bootstrap.in --constraint dev.txt --output-file bootstrap.txt "$@"

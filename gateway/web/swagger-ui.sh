#!/usr/bin/env bash
# Puts the files of Swagger UI that /docs needs into docs/swagger-ui. To take another version, change both lines.
set -euo pipefail
version=5.35.0
sha256=1b8e891893404ea4c3558b6a87e2a3e494e7eedba41168c2ece5800a391a6ea6

cd "$(dirname "$0")"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
archive=$temporary/$(npm pack --silent --pack-destination "$temporary" "swagger-ui-dist@$version")
echo "$sha256  $archive" | sha256sum --check --quiet
mkdir -p docs/swagger-ui
tar -xzf "$archive" -C docs/swagger-ui --strip-components 1 \
  package/{LICENSE,NOTICE,swagger-ui.css,swagger-ui-bundle.js,swagger-ui-bundle.js.LICENSE.txt}

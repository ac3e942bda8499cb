#!/bin/sh
# Generates inferencepb from inference.proto, into the repository or into the
# folder given. protoc comes with the grpcio-tools wheel (in .venv, or the
# Python that REFERSAM_PYTHON names), its Go plugins with go.mod.
set -eu
cd "$(dirname "$0")/.."
out=${1:-.}
exec "${REFERSAM_PYTHON:-.venv/bin/python}" -m grpc_tools.protoc --proto_path=. \
	--plugin=protoc-gen-go="$(go tool -n protoc-gen-go)" \
	--plugin=protoc-gen-go-grpc="$(go tool -n protoc-gen-go-grpc)" \
	--go_out="$out" --go_opt=module=github.com/refersam/refersam \
	--go-grpc_out="$out" --go-grpc_opt=module=github.com/refersam/refersam \
	triton/inference.proto

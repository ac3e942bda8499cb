"""Prints the protocol that NVIDIA's client speaks as JSON: messages, enums and methods, with their numbers.

The Go test compares inference.proto with it. The descriptors come from the wheel `tritonclient`, of which
nothing else is imported: its gRPC client asks for more packages than the project has.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor


def field(descriptor: FieldDescriptor) -> dict[str, Any]:
    kinds = {value: name for name, value in vars(FieldDescriptor).items() if name.startswith("TYPE_")}
    kind = kinds[descriptor.type].removeprefix("TYPE_").lower()
    target = descriptor.message_type or descriptor.enum_type
    return {
        "number": descriptor.number,
        "kind": kind,
        "repeated": descriptor.is_repeated,
        "target": target.full_name if target else "",
    }


def messages(descriptor: Descriptor) -> dict[str, dict[str, Any]]:
    """The fields of a message and of those nested in it (map entries included), by full name."""
    found = {descriptor.full_name: {entry.name: field(entry) for entry in descriptor.fields}}
    for nested in descriptor.nested_types:
        found |= messages(nested)
    return found


def generated_modules() -> list[ModuleType]:
    """The modules of tritonclient.grpc that protoc generated, without the package's own `__init__`."""
    spec = importlib.util.find_spec("tritonclient")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("the wheel tritonclient is not installed")
    package = ModuleType("tritonclient.grpc")
    package.__path__ = [str(Path(spec.submodule_search_locations[0], "grpc"))]
    sys.modules[package.__name__] = package
    return [
        importlib.import_module(f"{package.__name__}.{name}") for name in ("model_config_pb2", "service_pb2")
    ]


def main() -> None:
    described: dict[str, dict[str, Any]] = {"messages": {}, "enums": {}, "methods": {}}
    for file in (module.DESCRIPTOR for module in generated_modules()):
        for message in file.message_types_by_name.values():
            described["messages"] |= messages(message)
        for enum in file.enum_types_by_name.values():
            described["enums"][enum.full_name] = {value.name: value.number for value in enum.values}
        for service in file.services_by_name.values():
            for method in service.methods:
                described["methods"][f"{service.full_name}.{method.name}"] = [
                    method.input_type.full_name,
                    method.output_type.full_name,
                ]
    print(json.dumps(described))


if __name__ == "__main__":
    main()

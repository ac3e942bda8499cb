"""TensorRT engines: `build` says how one is built, `compile_check` that a graph can become one."""

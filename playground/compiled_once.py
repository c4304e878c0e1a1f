"""Have Jinja compile each source once: Copier compiles it for every render, which is most of the cost."""

from typing import Any

import jinja2


def compile_each_source_once() -> None:
    """Replace the method of Jinja that compiles, for all environments of this process."""
    compile_source: Any = jinja2.Environment.compile
    compiled: dict[Any, Any] = {}

    # The key has no file name: it is only for tracebacks, and each clone of the template has another one.
    def compile_once(
        env: jinja2.Environment,
        source: Any,
        name: Any = None,
        filename: Any = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        key = (type(env), env.trim_blocks, source, name, args, tuple(options.items()))
        if key not in compiled:
            compiled[key] = compile_source(env, source, name, filename, *args, **options)
        return compiled[key]

    jinja2.Environment.compile = compile_once  # type: ignore[method-assign,assignment]

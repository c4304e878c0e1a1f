"""Have Jinja compile each source once: Copier compiles it for every render, which is most of the cost."""

import hashlib
import marshal
from typing import Any

import jinja2

# The code of each source that was compiled, by a digest of all that it depends on. It can be kept in a file.
CODES: dict[bytes, Any] = {}


def compile_each_source_once() -> None:
    """Replace the method of Jinja that compiles, for all environments of this process."""
    compile_source: Any = jinja2.Environment.compile
    found: dict[Any, Any] = {}

    # The key has no file name: it is only for tracebacks, and each clone of the template has another one.
    def compile_once(
        env: jinja2.Environment,
        source: Any,
        name: Any = None,
        filename: Any = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        key = (type(env).__name__, env.trim_blocks, source, name, args, tuple(options.items()))
        if key not in found:
            digest = hashlib.sha256(repr(key).encode()).digest()
            if digest not in CODES:
                CODES[digest] = compile_source(env, source, name, filename, *args, **options)
            found[key] = CODES[digest]
        return found[key]

    jinja2.Environment.compile = compile_once  # type: ignore[method-assign,assignment]


def compiled() -> bytes:
    """Return the code of all sources that were compiled, for this version of Python."""
    return marshal.dumps(CODES)


def take_compiled(codes: bytes) -> None:
    """Take the code of sources that were compiled before."""
    CODES.update(marshal.loads(codes))

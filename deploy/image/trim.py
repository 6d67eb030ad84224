"""Takes out of an installation what no run of the service needs, and compiles what each one does.

Run by the Python of that installation, while the image is built. What is taken out: tests, headers,
stubs and symbols of libraries, parts of numpy and pygments that nobody here uses, and all bytecode
but that of modules which the runs below import. The image's file system is read-only, so Python
could not write it later.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from fnmatch import fnmatch
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))

UNUSED_DIRECTORIES = ("tests", "__pycache__")
UNUSED_SUFFIXES = {".a", ".c", ".cpp", ".h", ".hpp", ".lib", ".pxd", ".pxi", ".pyi", ".pyx"}
UNUSED = (
    "numpy/_core/_*_tests.*.so",
    "numpy/_core/_simd.*.so",  # for numpy's tests
    "numpy/_pyinstaller",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/random",
    "pygments/lexers/[a-z]*.py",  # of 500 languages; tracebacks are plain text
)
NOT_STRIPPED = ("*.libs/*", "numpy/*")
"""Libraries that were patched after they were linked, which strip could damage."""

RUNS = (
    ["-m", "service", "demo"],
    ["-m", "service", "serve", "--help"],
    ["-m", "service", "health", "--server", "127.0.0.1:1"],  # nobody is there, as in a bad moment
    ["-m", "service", "check", "--help"],
    ["-c", "import redis.asyncio, redis.asyncio.cluster, redis.asyncio.sentinel, hiredis"],
    [
        "-c",
        "import fastokens, tokenizers, jinja2.sandbox, tokenization, store, service.replication",
    ],
    ["-c", "import service.discovery.kubernetes, service.engines, yaml, httpx2"],
    ["-c", "import service.tracing.calls, service.tracing.collector, service.tracing.tracer"],
    ["-c", "from huggingface_hub import snapshot_download, try_to_load_from_cache"],
)
"""What is imported: by the service, its commands, its store, tokenizers, discovery and traces."""

MUST_SUCCEED = RUNS[:2] + RUNS[4:]


def remove_unused() -> None:
    """Delete what is never imported, so that what is left says what the service is made of."""
    for path in sorted(SITE.rglob("*")):
        if path.is_dir() and path.name in UNUSED_DIRECTORIES:
            shutil.rmtree(path)
        elif path.is_file() and path.suffix in UNUSED_SUFFIXES:
            path.unlink()
    for pattern in UNUSED:
        for path in list(SITE.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def strip_symbols() -> None:
    """Take the symbols out of compiled modules, where there is a `strip`."""
    strip = shutil.which("strip")
    if strip is None:
        return
    for path in sorted(SITE.rglob("*.so")):
        name = path.relative_to(SITE).as_posix()
        if not any(fnmatch(name, pattern) for pattern in NOT_STRIPPED):
            subprocess.run([strip, "--strip-unneeded", str(path)], check=True)  # noqa: S603


def imported_files() -> list[Path]:
    """The files of SITE that the runs import: Python writes the bytecode of each elsewhere."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for arguments in RUNS:
            subprocess.run(  # noqa: S603 - our own arguments
                [sys.executable, "-P", *arguments],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=None if arguments in MUST_SUCCEED else subprocess.DEVNULL,
                check=arguments in MUST_SUCCEED,
                timeout=120,
            )
        root = Path(cache, *SITE.parts[1:])
        return sorted(
            SITE / path.relative_to(root).parent / f"{path.name.partition('.')[0]}.py"
            for path in root.rglob("*.pyc")
        )


def main() -> None:
    """Trim the installation of the Python that runs this."""
    remove_unused()
    strip_symbols()
    files = imported_files()
    for path in files:
        # Unchecked, because not every builder of images keeps the times of files.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), doraise=True, invalidation_mode=mode)
    print(f"kept what is needed, and the bytecode of {len(files)} modules")


if __name__ == "__main__":
    main()

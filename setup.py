"""Builds the kernel where a C compiler is at hand, and does without where none is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MOST_COMPILERS = 8  # at once; each takes some 300 MB
KERNEL = sorted(map(str, Path().glob("*/kernel/[a-z]*.py")))


class BuildKernelOrNot(build_ext):
    """All modules of the kernel are compiled, or none is: they share C types."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or compilers()

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._do_without(error)

    def _do_without(self, error: BaseException) -> None:
        print(
            f"kvatlas: no kernel compiled, plain Python will do its work: {error}", file=sys.stderr
        )
        for extension in self.extensions:
            for built in (self.get_ext_fullpath(extension.name), *self._in_place(extension)):
                Path(built).unlink(missing_ok=True)
        self.extensions = []

    def _in_place(self, extension: Extension) -> list[str]:
        return (
            [
                str(
                    Path(*extension.name.split(".")).parent
                    / self.get_ext_filename(extension.name.rpartition(".")[2])
                )
            ]
            if self.inplace
            else []
        )


def compilers() -> int:
    return min(os.cpu_count() or 1, MOST_COMPILERS)


def kernel() -> list[Extension]:
    from Cython.Build import cythonize

    modules = [
        Extension(path.removesuffix(".py").replace("/", "."), [path], extra_compile_args=["-O3"])
        for path in KERNEL
    ]
    return cythonize(modules, build_dir="build/cython", language_level=3, nthreads=compilers())


if __name__ == "__main__":  # the processes of Cython read this file, too
    setup(ext_modules=kernel(), cmdclass={"build_ext": BuildKernelOrNot})

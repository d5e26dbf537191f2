"""Compiles the hot path where a C compiler is there; see `hyperpool/form.py`.

HYPERPOOL_PURE=1      compile nothing
HYPERPOOL_COMPILED=1  fail where it cannot be compiled, in place of going on without
"""

import importlib.util
import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("form", ROOT / "hyperpool" / "form.py")
form = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(form)


def is_set(variable):
    """Whether a variable of the environment says yes."""
    return os.environ.get(variable, "0") not in {"", "0"}


def extensions():
    """What is compiled."""
    if is_set("HYPERPOOL_PURE"):
        return []
    os.chdir(ROOT)
    files = [f"hyperpool/{name}.pyx" for name in form.LEAVES] + [
        f"hyperpool/{name}.py" for name in form.TYPED
    ]
    return cythonize(
        [
            Extension(
                str(Path(file).with_suffix("")).replace("/", "."),
                [file],
                # Most of it calls Python, which more optimisation does not make faster, but twice as long to build.
                extra_compile_args=["-O1", "-g0"],
                optional=not is_set("HYPERPOOL_COMPILED"),
            )
            for file in files
        ],
        build_dir="build/cython",
        language_level=3,
        compiler_directives={"annotation_typing": False, "emit_code_comments": False},
    )


class Build(build_ext):
    """Compiles on all cores, and notes which sources the compiled form is made of."""

    def finalize_options(self):
        """See `build_ext`."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self):
        """Compile all, and write the digest beside the package's modules."""
        super().run()
        if self.extensions:
            folder = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
            (folder / "hyperpool" / form.DIGEST).write_text(form.digest() + "\n", "ascii")


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})

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
    made = cythonize(
        [
            Extension(
                str(Path(file).with_suffix("")).replace("/", "."),
                [file],
                # Most of it calls Python, which more optimisation does not make faster, but twice as long to build.
                extra_compile_args=["-O2", "-g0"],
            )
            for file in files
        ],
        build_dir="build/cython",
        language_level=3,
        compiler_directives={"annotation_typing": False, "emit_code_comments": False},
    )
    for extension in made:
        # What Cython hands back does not have it from what it was given.
        extension.optional = not is_set("HYPERPOOL_COMPILED")
    return made


class Build(build_ext):
    """Compiles on all cores, and notes which sources the compiled form is made of."""

    def finalize_options(self):
        """See `build_ext`."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.built = []

    def build_extension(self, ext):
        """Compile one, and take down that it did not fail."""
        super().build_extension(ext)
        self.built.append(ext)

    def run(self):
        """Compile all, and write the digest beside the package's modules; none if older ones may lie there."""
        super().run()
        if self.extensions:
            folder = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
            digest = folder / "hyperpool" / form.DIGEST
            digest.unlink(missing_ok=True)
            if len(self.built) == len(self.extensions):
                digest.write_text(form.digest() + "\n", "ascii")


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})

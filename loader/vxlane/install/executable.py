# SPDX-License-Identifier: Apache-2.0
"""The CNI plugin as one file that a runtime can start: a shell line and Python's byte code.

    #!/bin/sh
    exec /usr/bin/python3 -X utf8 -ISc '...import the plugin from the file in argv[1]...' "$0"
    NUL, then marshal's (magic number, {name of a module: (byte code, source)})

The shell line names the interpreter by its absolute path, since a runtime's PATH is not known. It
starts Python without site: to search for packages that the plugin does not use takes longer than
its whole work. The plugin ends without Python's tear-down, which is a tenth of a call. A zip
archive would need no importer of our own, but zipimport reads each module twice, once for its file
name, and makes a call a tenth longer. One file is replaced atomically, and may be copied and called
by another name.

Imports errors only; the plugin's modules are read, never imported.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path

from vxlane.errors import ConfigError

_PACKAGE = "vxlane_cni"
_DISTRIBUTION_PYTHON = Path("/usr/bin/python3")
"""A name that outlives the distribution's upgrades, as /usr/bin/python3.11 does not."""
_OLDEST = (3, 10)
_ROOT = Path("/")
_HEAD = """\
#!/bin/sh
# vxlane's CNI plugin: behind the NUL byte are Python modules, which the next command runs.
exec {interpreter} -X utf8 -ISc {start} "$0"
"""
START = """\
import marshal, posix, sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

with open(sys.argv[1], "rb") as file:
    magic, modules = marshal.loads(file.read().partition(b"\\0")[2])

class Importer:
    def find_spec(name, path=None, target=None):
        if name in modules:
            return ModuleSpec(name, Importer, is_package=name == "vxlane_cni")

    def create_module(spec):
        pass

    def exec_module(module):
        code, source = modules[module.__name__]
        exec(marshal.loads(code) if magic == MAGIC_NUMBER else source, module.__dict__)

sys.meta_path.insert(0, Importer)
from vxlane_cni.plugin import main
posix._exit(main())
"""
"""The first code that Python runs. importlib's public names would cost the import of importlib."""


def build(interpreter: Path) -> bytes:
    """The executable for `interpreter`; the same bytes until a module changes."""
    head = _HEAD.format(interpreter=shlex.quote(str(interpreter)), start=shlex.quote(START))
    return head.encode() + b"\0" + modules()


def modules() -> bytes:
    """What `START` reads behind a file's first NUL."""
    made = {name: (_byte_code(name, source), source) for name, source in _sources().items()}
    return marshal.dumps((importlib.util.MAGIC_NUMBER, made))


def default_interpreter() -> Path:
    """The distribution's Python when it is of this program's version, else this program's.

    The file holds byte code of this program's version. Another version reads the sources beside it,
    which takes three times as long.
    """
    own = Path(os.path.realpath(sys.executable))
    return _DISTRIBUTION_PYTHON if _version(_DISTRIBUTION_PYTHON) == _version(own) else own


def check_interpreter(path: Path, root: Path) -> None:
    """ConfigError: `path` can't run the plugin on the node whose file system begins at `root`.

    Another root's programs can't be run from here, so their version is not known.
    """
    if not path.is_absolute():
        raise ConfigError(f"{path} is not absolute; a runtime starts plugins without a PATH")
    if not _is_program(path, root):
        where = "" if root == _ROOT else f" below {root}"
        raise ConfigError(f"there is no program {path}{where}; name a Python with --interpreter")
    version = _version(path) if root == _ROOT else ()
    if version and version < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise ConfigError(f"{path} is older than Python {wanted}; name another with --interpreter")


def _is_program(path: Path, root: Path) -> bool:
    """Whether it is there, followed through links as the node follows them."""
    seen = set[Path]()
    while path not in seen:
        seen.add(path)
        here = root / path.relative_to("/")
        if not here.is_symlink():
            return here.is_file() and os.access(here, os.X_OK)
        path = Path(os.path.normpath(path.parent / here.readlink()))
    return False


def _version(interpreter: Path) -> tuple[int, ...]:
    """The interpreter's version; (): it can't be run."""
    argv = [str(interpreter), "-ISc", "import sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(part) for part in done.stdout.split())


def _sources() -> dict[str, bytes]:
    """The plugin's modules by name."""
    files = sorted(resources.files(_PACKAGE).iterdir(), key=lambda file: file.name)
    sources: dict[str, bytes] = {}
    for file in files:
        if file.name.endswith(".py"):
            name = f"{_PACKAGE}.{file.name.removesuffix('.py')}"
            sources[name.removesuffix(".__init__")] = file.read_bytes()
    return sources


def _byte_code(name: str, source: bytes) -> bytes:
    """`source` compiled without its docstrings."""
    code = compile(source, f"{name.replace('.', '/')}.py", "exec", dont_inherit=True, optimize=2)
    return marshal.dumps(code)

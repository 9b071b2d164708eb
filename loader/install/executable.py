"""The CNI plugin as one file that a runtime can start: a shell line and a zip archive.

    #!/bin/sh
    exec /usr/bin/python3 -X utf8 -ISc '...import the plugin from the archive in argv[1]...' "$0"
    PK...

The shell line names the interpreter by its absolute path, since a runtime's PATH is anyone's
guess, and starts it without site: to look for packages that the plugin has no use for takes
longer than its whole work. Started on the archive itself, Python would get to __main__ in it
by way of runpy, which costs more than the plugin and the shell together. It ends without Python's
tear-down, which is a tenth of a call and of use to nobody. Being one file, it is replaced
atomically, and may be copied and called by another name.
Imports errors only; the plugin's modules are read, never imported.
"""

from __future__ import annotations

import io
import os
import py_compile
import shlex
import subprocess
import sys
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from vxlane.loader.errors import ConfigError

_PACKAGE = "vxlane.cni"
_DISTRIBUTION_PYTHON = Path("/usr/bin/python3")
"""A name that outlives the distribution's upgrades, as /usr/bin/python3.11 does not."""
_OLDEST = (3, 10)
_HEAD = """\
#!/bin/sh
# vxlane's CNI plugin: behind the next line is a zip archive of Python modules, which it runs.
exec {interpreter} -X utf8 -ISc '{start}' "$0"
"""
_START = (
    "import posix, sys; sys.path[:0] = sys.argv[1:]; "
    "from vxlane.cni.plugin import main; posix._exit(main())"
)


def build(interpreter: Path) -> bytes:
    """The executable, to be run by `interpreter`: the same bytes until a module changes."""
    head = _HEAD.format(interpreter=shlex.quote(str(interpreter)), start=_START)
    return head.encode() + _archive()


def default_interpreter() -> Path:
    """The distribution's Python when it is of this program's version, else this program's.

    The archive holds byte code of this program's version; another reads the sources beside
    it, which takes it three times as long.
    """
    own = Path(os.path.realpath(sys.executable))
    return _DISTRIBUTION_PYTHON if _version(_DISTRIBUTION_PYTHON) == _version(own) else own


def check_interpreter(path: Path) -> None:
    """ConfigError when `path` can't run the plugin.

    One that is not here is taken on trust: in a container, /usr/bin/python3 is the host's.
    """
    if not path.is_absolute():
        raise ConfigError(f"{path} is not absolute; a runtime starts plugins without a PATH")
    version = _version(path)
    if version and version < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise ConfigError(f"{path} is older than Python {wanted}; name another with --interpreter")


def _version(interpreter: Path) -> tuple[int, ...]:
    """The interpreter's version, () when it can't be run."""
    argv = [str(interpreter), "-ISc", "import sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(part) for part in done.stdout.split())


def _archive() -> bytes:
    """The plugin's package in a zip: byte code to run, sources for other interpreters."""
    buffer = io.BytesIO()
    # Not compressed: the archive is read at every start, and a start has no time for zlib.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, source in _sources().items():
            archive.writestr(_entry(path), source)
            archive.writestr(_entry(f"{path}c"), _byte_code(source, path))
    return buffer.getvalue()


def _sources() -> dict[str, bytes]:
    """The plugin's modules by their path in the archive."""
    package = _PACKAGE.replace(".", "/")
    files = sorted(resources.files(_PACKAGE).iterdir(), key=lambda file: file.name)
    # Without a file of its own vxlane is a namespace, and Python looks for it in all of sys.path.
    sources = {f"{_PACKAGE.partition('.')[0]}/__init__.py": b""}
    return sources | {
        f"{package}/{file.name}": file.read_bytes() for file in files if file.name.endswith(".py")
    }


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without a date of its own, so that equal modules make equal archives."""
    return zipfile.ZipInfo(name)


def _byte_code(source: bytes, path: str) -> bytes:
    """`source` compiled, never to be compared with it: nobody edits one inside the archive."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "module.py")
        file.write_bytes(source)
        compiled = py_compile.compile(
            str(file),
            cfile=f"{file}c",
            dfile=path,
            doraise=True,
            optimize=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return Path(str(compiled)).read_bytes()

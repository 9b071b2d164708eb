# SPDX-License-Identifier: Apache-2.0
"""One image for all tests here; its Debian root file system outlives the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Podman

IMAGE = "localhost/vxlane:test"


@pytest.fixture(scope="session")
def rootfs(pytestconfig: pytest.Config) -> Path:
    """Where Debian's packages are kept: to fetch them takes longer than all else."""
    return Path(pytestconfig.cache.mkdir("vxlane-image")) / "rootfs.tar"


@pytest.fixture(scope="session")
def podman(_machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Its storage goes with the run."""
    made = Podman(tmp_path_factory.mktemp("podman"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def image(podman: Podman, rootfs: Path) -> str:
    """The image of this checkout."""
    podman.build(IMAGE, "--rootfs", str(rootfs))
    return IMAGE

# SPDX-License-Identifier: Apache-2.0
"""Clusters under flanneld's stand-in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import Cluster

from vxlane.lab import lab as labs

_numbers = itertools.count()


@pytest.fixture
def make_cluster(_machine: None) -> Iterator[Callable[..., Cluster]]:
    """Make clusters for one test: how many nodes, of which class, and its other arguments."""
    made: dict[str, Cluster | None] = {}

    def make(count: int, kind: type[Cluster] = Cluster, **options: Any) -> Cluster:
        name = f"vxtest-{os.getpid()}-flannel{next(_numbers)}"
        made[name] = None
        made[name] = kind(name, count, **options)
        return made[name]

    yield make
    for name, cluster in made.items():
        if cluster:
            cluster.close()
        labs.down(name)


@pytest.fixture
def flannel(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Four nodes under flanneld, a pod on each."""
    cluster = make_cluster(4)
    cluster.start_flanneld(*cluster.names)
    cluster.await_routes(*cluster.names)
    cluster.add_pods(*cluster.names)
    return cluster

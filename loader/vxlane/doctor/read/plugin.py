# SPDX-License-Identifier: Apache-2.0
"""Reads where the runtime has its CNI files, and whether ours is among them."""

from __future__ import annotations

import os

from vxlane.doctor.facts import Plugin
from vxlane.errors import ConfigError
from vxlane.runtime import cni_places, installed, network


def plugin() -> Plugin:
    """The CNI plugin on this node."""
    try:
        places = cni_places.told(network.USUAL)
        noted = installed.read(places.conf_dir)
        name = noted.network if noted else network.USUAL
        is_called = network.calls_us(places.conf_dir, name)
    except ConfigError as error:
        return Plugin(
            conf_dir="",
            program="",
            is_called=False,
            is_there=False,
            is_installed=False,
            error=str(error),
        )
    program = places.bin_dir / network.TYPE
    return Plugin(
        conf_dir=str(places.conf_dir),
        program=str(program),
        is_called=is_called,
        is_there=os.access(program, os.X_OK),
        is_installed=bool(noted and noted.form),
    )

# SPDX-License-Identifier: Apache-2.0
"""`vxlane install` and `vxlane uninstall`: the CNI plugin on this node, and off it.

Imports click, the agent's reader of libcni's cache, and the modules beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vxlane.install import executable, files, network, runtime
from vxlane.install.network import Form
from vxlane.pods import cni_cache

_PLUGIN = "vxlane"
_DEFAULT_STATE_DIR = "/run/vxlane"

Function = TypeVar("Function", bound=Callable[..., Any])
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _places(command: Function) -> Function:
    """The options that tell where a runtime has its CNI files."""
    options = (
        click.option(
            "--cni-bin-dir",
            type=_DIRECTORY,
            default="/opt/cni/bin",
            show_default=True,
            help="Where the runtime looks for plugins.",
        ),
        click.option(
            "--cni-conf-dir",
            type=_DIRECTORY,
            default="/etc/cni/net.d",
            show_default=True,
            help="Where the runtime looks for networks.",
        ),
        click.option(
            "--network-name", default="cbr0", show_default=True, help="flannel's network."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_places
@click.option(
    "--role",
    type=click.Choice(["chained", "main"]),
    default="chained",
    show_default=True,
    help="Follow flannel's plugin, or take its place.",
)
@click.option(
    "--form",
    type=click.Choice(["auto", *(form.value for form in Form)]),
    default="auto",
    show_default=True,
    help="How runtimes are told of the chained plugin; auto asks what the runtime can read.",
)
@click.option("--required", is_flag=True, help="Let a pod that can't be accelerated fail.")
@click.option(
    "--interpreter",
    type=click.Path(path_type=Path),
    help="Python that runs the plugin, as the runtime sees it.",
)
def install(
    *,
    cni_bin_dir: Path,
    cni_conf_dir: Path,
    network_name: str,
    role: str,
    form: str,
    required: bool,
    interpreter: Path | None,
) -> None:
    """Install the CNI plugin and have the runtime call it; does nothing the second time."""
    python = interpreter or executable.default_interpreter()
    executable.check_interpreter(python)
    plugin = _plugin(required=required)
    if role == "main":
        plan = network.main(cni_conf_dir, network_name, plugin=plugin)
    else:
        chosen = _form(form, cni_conf_dir, network_name)
        plan = network.chained(cni_conf_dir, network_name, form=chosen, plugin=plugin)
    program = cni_bin_dir / _PLUGIN
    # The executable first: a runtime that reads of a plugin it can't find fails every pod.
    written = files.replace(program, executable.build(python), mode=0o755)
    changes = [f"wrote {program}"] if written else []
    _report(changes + network.apply(cni_conf_dir, plan))


@click.command()
@_places
@click.option(
    "--cni-cache-dir",
    type=_DIRECTORY,
    default=str(cni_cache.CACHE),
    show_default=True,
    help="Where the runtime remembers which plugins made a pod.",
)
def uninstall(
    *, cni_bin_dir: Path, cni_conf_dir: Path, network_name: str, cni_cache_dir: Path
) -> None:
    """Take the CNI plugin out of the network, and away once no pod needs it to be deleted."""
    changes = network.apply(cni_conf_dir, network.absent(cni_conf_dir, network_name))
    program = cni_bin_dir / _PLUGIN
    # Some runtimes delete a pod by the list that made it: without the executable, never.
    left = cni_cache.made_with(_PLUGIN, cni_cache_dir)
    if not left:
        changes += [f"removed {program}"] if files.remove(program) else []
    _report(changes)
    if left and program.exists():
        click.echo(
            f"kept {program}: pods that were made with it ({left}) may need it to be deleted; "
            "run this again when they are gone"
        )


def _plugin(*, required: bool) -> network.Json:
    """Our entry in the network's list; what has its default is left out."""
    plugin: network.Json = {"type": _PLUGIN}
    state_dir = os.environ.get("VXLANE_STATE_DIR", _DEFAULT_STATE_DIR)
    if state_dir != _DEFAULT_STATE_DIR:
        plugin["stateDir"] = state_dir
    if required:
        plugin["required"] = True
    return plugin


def _form(said: str, cni_conf_dir: Path, network_name: str) -> Form:
    if said != "auto":
        return Form(said)
    are_read = runtime.read_drop_ins() and network.takes_drop_ins(cni_conf_dir, network_name)
    return Form.DROP_IN if are_read else Form.CONFLIST


def _report(changes: list[str]) -> None:
    for change in changes or ["nothing to do"]:
        click.echo(change)

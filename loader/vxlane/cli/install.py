# SPDX-License-Identifier: Apache-2.0
"""`vxlane install`: the CNI plugin on this node."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from vxlane.cli.cni_options import host_root, places, report
from vxlane.cli.common import PathName, examples
from vxlane.errors import ConfigError
from vxlane.install import beside, executable, runtime
from vxlane.runtime import installed, network
from vxlane.runtime.installed import Installed
from vxlane.runtime.interpreter import remove as remove_interpreter
from vxlane.runtime.network import Form, Role
from vxlane.util import files
from vxlane.util.places import STATE, state_directory


@click.command(
    epilog=examples(
        "vxlane install",
        "vxlane install --role main",
        "vxlane install --host-root /host",
    )
)
@places
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.CHAINED.value,
    show_default=True,
    help="chained: run after flannel's plugin. main: take its place.",
)
@click.option(
    "--form",
    type=click.Choice(["auto", *(form.value for form in Form)]),
    default="auto",
    show_default=True,
    help="Form of the chained plugin's configuration. auto: one that the runtime here reads.",
)
@click.option("--required", is_flag=True, help="Make pods fail that can't be accelerated.")
@click.option(
    "--interpreter",
    type=PathName(),
    help="Python that runs the plugin, as the runtime sees it. The default is the image's, if any.",
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
    """Install the CNI plugin on this node, and have the runtime call it.

    It runs after flannel's plugin, and tells the agent of each pod. With --role main it takes the
    place of flannel's plugin. What is installed already is left alone.
    """
    is_main = Role(role) is Role.MAIN
    if is_main and form == "drop-in":
        raise click.UsageError("--role main makes a list of its own; leave --form drop-in out")
    python = None
    if interpreter or not beside.BROUGHT.is_dir():
        python = interpreter or executable.default_interpreter()
        executable.check_interpreter(python, host_root())
    program = cni_bin_dir / network.TYPE
    wanted = Installed(
        network=network_name,
        role=Role(role),
        form=Form.CONFLIST if is_main else _form(form, cni_conf_dir, network_name),
        plugin=_plugin(required=required),
        programs=(program,),
    )
    wanted.plan(cni_conf_dir)  # What is refused leaves no directory behind.
    os.umask(0o022)  # Root runs what is in these directories, so nobody else may write there.
    is_called = is_main or network.is_there(cni_conf_dir, network_name)
    cni_bin_dir.mkdir(parents=True, exist_ok=True)
    _check_writable(cni_bin_dir, cni_conf_dir)
    with files.alone(cni_bin_dir):
        plan = _plan(cni_conf_dir, wanted)
        # The executable first: a runtime that reads of a plugin it can't find fails every pod.
        changes = _write_executable(program, python)
        report(changes + network.apply(cni_conf_dir, plan))
        programs = installed.with_copies(cni_conf_dir, program)
        installed.write(cni_conf_dir, dataclasses.replace(wanted, programs=programs))
    if not is_called:
        click.echo(
            f"nothing calls the plugin yet: {cni_conf_dir} holds no list of network "
            f'"{network_name}"; start flannel, which writes one, or pass --role main'
        )


def _plan(cni_conf_dir: Path, wanted: Installed) -> network.Plan:
    """Behind any other run, which may have installed something else."""
    plan = wanted.plan(cni_conf_dir)
    if last := installed.known(cni_conf_dir):
        # Its network may have had another name, whose drop-in nobody would remove.
        for file in network.absent(cni_conf_dir, last.network):
            plan.setdefault(file, None)
    return plan


def _check_writable(*directories: Path) -> None:
    """ConfigError: one may not be written, as Kubespray's, which are another user's."""
    for directory in directories:
        if directory.is_dir() and not os.access(directory, os.W_OK):
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                advice = "mount it so that it can be written"
                raise ConfigError(f"{directory} is on a read-only file system; {advice}")
            raise ConfigError(
                f"{directory} may not be written; be root, and in a container have DAC_OVERRIDE "
                "where the directory is another user's"
            )


def _write_executable(program: Path, python: Path | None) -> list[str]:
    """None: with the interpreter that the image brings."""
    if python is None:
        return beside.install(program)
    written = files.write_if_changed(program, executable.build(python), mode=0o755)
    return ([f"wrote {program}"] if written else []) + remove_interpreter(program)


def _plugin(*, required: bool) -> network.Json:
    """Our entry in the network's list; what has its default is left out."""
    plugin: network.Json = {"type": network.TYPE}
    if (state := state_directory()) != STATE:
        plugin["stateDir"] = str(state)
    if required:
        plugin["required"] = True
    return plugin


def _form(said: str, cni_conf_dir: Path, network_name: str) -> Form:
    if said != "auto":
        return Form(said)
    are_read = runtime.read_drop_ins() and network.takes_drop_ins(cni_conf_dir, network_name)
    return Form.DROP_IN if are_read else Form.CONFLIST

# SPDX-License-Identifier: Apache-2.0
"""`vxlane status`: the state of the agent and its programs."""

from __future__ import annotations

import click

from vxlane.cli.common import Json, as_json, emit, examples, need_root
from vxlane.show import kernel as kernels
from vxlane.show import node
from vxlane.show.table import columns, pairs
from vxlane.util.places import state_directory


@click.command(
    epilog=examples(
        "vxlane status",
        "vxlane status --json | jq .agent.problems",
        "vxlane status --kernel",
    )
)
@click.option("--kernel", is_flag=True, help="Show only what this kernel can do.")
@as_json
def status(kernel: bool, as_json: bool) -> None:  # noqa: FBT001 (flags are click's)
    """Show the state of the agent and its programs.

    The agent reports its own state. That of the programs is read from their pinned maps, which
    outlive the agent. The exit status is 1 if no packet is bypassed.

    With --kernel it shows what this kernel can do. That is tried once after each boot, in network
    namespaces that are removed again. The exit status is 1 if the kernel lacks what a bypass needs.
    """
    need_root()
    if kernel:
        found = kernels.kernel()
        emit(found, _kernel_text, as_json=as_json)
        if not kernels.is_enough(found):
            raise SystemExit(1)
        return
    document = node.status(state_directory())
    emit(document, _text, as_json=as_json)
    if not document["programs"].get("bypassing"):
        raise SystemExit(1)


def _kernel_text(document: Json) -> str:
    keys = ("probe", "answer", "needed", "meaning")
    return f"LINUX {document['release']}\n{columns(keys, document['probes'])}"


def _text(document: Json) -> str:
    parts = {part: dict(values) for part, values in document.items()}
    mechanisms = parts["agent"].pop("mechanisms", [])
    if "pid" in parts["agent"]:
        parts["agent"]["pid"] = str(parts["agent"]["pid"])  # a name, to be copied: no commas
    texts = [f"{part.upper()}\n{pairs(values)}" for part, values in parts.items()]
    if mechanisms:
        keys = ("kind", "flows", "pods", "ignored", "where")
        texts.append(f"MECHANISMS\n{columns(keys, mechanisms)}")
    return "\n\n".join(texts)

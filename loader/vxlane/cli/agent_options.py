# SPDX-License-Identifier: Apache-2.0
"""The agent's command line: its own options, and all of flanneld's under flanneld's names.

Each option is read from FLANNELD_<NAME> where the command line does not say, vxlane's own ones
from VXLANE_<NAME>. What comes out are the values that `agent.prepare` makes a `Config` of.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from vxlane.agent.server.logs import LogFormat
from vxlane.cli.common import PRIVATE, Number
from vxlane.cli.go_flags import GoBool, GroupedOption
from vxlane.config import SUBNET_FILE, Mode, PodSource
from vxlane.datapath.attach import Method
from vxlane.datapath.programs import Constants
from vxlane.errors import ConfigError
from vxlane.mechanisms.kinds import Kind
from vxlane.runtime import cni_places
from vxlane.sources.etcd.access import DEFAULT_ENDPOINTS
from vxlane.sources.etcd.access import DEFAULT_PREFIX as ETCD_PREFIX
from vxlane.sources.http import checked_url
from vxlane.sources.kubernetes.annotations import DEFAULT_PREFIX as ANNOTATION_PREFIX
from vxlane.sources.model import parse_address
from vxlane.util.places import STATE, STATE_VARIABLE

_SIZES = Constants()
_ADDRESS = "0.0.0.0"  # noqa: S104 (flannel's default: probes come from the kubelet)
_PORT = click.IntRange(0, 65535)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
InGroup = Callable[[str], Decorator]
"""An option that is yet to be told the title of its group."""


def _option(name: str, *more: str, default: object = None, help: str, **rest: Any) -> InGroup:  # noqa: A002
    names = (f"--{name}", *more)
    return lambda group: click.option(
        *names, default=default, help=help, cls=GroupedOption, group=group, **rest
    )


def _own(name: str, *, help: str, **rest: Any) -> InGroup:  # noqa: A002
    """An option of vxlane's own."""
    return _option(name, envvar=f"VXLANE_{name.upper().replace('-', '_')}", help=help, **rest)


def _switch(name: str, *, default: bool | None = False, **rest: Any) -> InGroup:
    return _option(f"{name}/--no-{name}", default=default, type=GoBool(), **rest)


def _choice(kind: type[Mode | Method | LogFormat | PodSource]) -> click.Choice[str]:
    return click.Choice([item.value for item in kind])


def _read_by(read: Callable[[str], object]) -> Callable[..., object]:
    """A callback that reads what is given. BadParameter, which names the option: it can't."""

    def callback(_ctx: click.Context, _param: click.Parameter, word: str | None) -> object:
        try:
            return read(word) if word else None
        except ConfigError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _urls(words: str) -> tuple[str, ...]:
    return tuple(map(checked_url, words.split(",")))


def _patterns(
    _ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]
) -> tuple[re.Pattern[str], ...]:
    """Regular expressions, compiled. BadParameter: one is none."""
    try:
        # An empty one fits each name; to flanneld it is none.
        return tuple(map(re.compile, filter(None, words)))
    except re.error as error:
        reason = f"{error.pattern!r} is no regular expression: {error}"
        raise click.BadParameter(reason) from None


def _size(what: str, default: int) -> InGroup:
    return _own(
        f"max-{what}s",
        type=click.IntRange(1, 0xFFFFFFFF),
        default=default,
        show_default=True,
        help=f"Entries in the programs' map of {what}s. A {what} that does not fit keeps the "
        "kernel path.",
    )


_NODE_SOURCE = (
    _option("node-name", envvar="NODE_NAME", help="This node's name. The default is the host's."),
    _own(
        "nodes-file",
        type=PRIVATE,
        help="Take the nodes from this YAML or JSON file, and follow it.",
    ),
    _switch("kube-subnet-mgr", help="Take the nodes from Kubernetes."),
    _option(
        "kube-api-url",
        callback=_read_by(checked_url),
        help="Use this API server instead of the kubeconfig's.",
    ),
    _option(
        "kubeconfig-file",
        default="",
        help="Reach the API server by this file. The default is this pod's service account.",
    ),
    _option(
        "kube-annotation-prefix",
        default=ANNOTATION_PREFIX,
        show_default=True,
        help="Prefix of the nodes' annotations that are read and written.",
    ),
    _option(
        "etcd-endpoints",
        callback=_read_by(_urls),
        help="Take the nodes from etcd at these URLs, separated by commas. In mode own without "
        f"another source the default is flanneld's: {','.join(DEFAULT_ENDPOINTS)}.",
    ),
    _option(
        "etcd-prefix",
        default=ETCD_PREFIX,
        show_default=True,
        help="Prefix of the keys in etcd that are read and written.",
    ),
    _option("etcd-cafile", default="", help="Authorities to check etcd's certificate by."),
    _option("etcd-certfile", default="", help="Client certificate to log in to etcd with."),
    _option("etcd-keyfile", default="", help="Private key of the client certificate."),
    _option("etcd-username", default="", help="Log in to etcd as this user."),
    _option("etcd-password", default="", help="Log in to etcd with this password."),
    _option(
        "subnet-lease-renew-margin",
        type=click.IntRange(1, 1439),
        default=60,
        show_default=True,
        help="Renew this node's lease in etcd this many minutes before it expires.",
    ),
)

_OVERLAY = (
    _own(
        "mode",
        type=_choice(Mode),
        default=Mode.OWN.value,
        show_default=True,
        help="own: the agent makes the overlay in flanneld's place. adopt: flanneld or k3s makes "
        "it, and the agent accelerates it.",
    ),
    _option("net-config-path", help="Read the network from this file, flannel's net-conf.json."),
    _option(
        "iface",
        multiple=True,
        help="Use this interface, by name or address, as the underlay. Can be repeated: the first "
        "that exists is used. The default is the interface of the default route.",
    ),
    _option(
        "iface-regex",
        multiple=True,
        callback=_patterns,
        help="Use the interface whose address or name this regular expression matches, if none is "
        "found by --iface. Can be repeated.",
    ),
    _option(
        "iface-can-reach",
        callback=_read_by(parse_address),
        help="Use the interface by which this address is reached.",
    ),
    _option(
        "public-ip",
        callback=_read_by(parse_address),
        help="Address that peers send to. The default is the underlay interface's first one. With "
        "--iface it may be a NAT's, which is on none of this node's interfaces.",
    ),
    _switch("ip-masq", help="Masquerade what pods send to addresses outside the pods' network."),
)

_DATAPATH = (
    _own(
        "attach",
        type=_choice(Method),
        default=Method.AUTO.value,
        show_default=True,
        help="Attach the programs by TCX (kernel 6.6 and later) or by clsact. auto: by TCX where "
        "the kernel has it, but by clsact behind other programs.",
    ),
    _own(
        "revalidate",
        type=Number(min=0.1),
        default=30.0,
        show_default=True,
        help="Send one packet of each approved flow through netfilter again after this many "
        "seconds, or after a third of its conntrack timeout (20 s for TCP, 10 s for UDP) if that "
        "is less.",
    ),
    _own(
        "ignore-mechanism",
        type=click.Choice([kind.value for kind in Kind]),
        multiple=True,
        help="Bypass flows although this mechanism of rules or devices acts on every packet. It "
        "then acts on a flow's first packets only. Can be repeated.",
    ),
    _switch(
        "notrack",
        default=None,
        envvar="VXLANE_NOTRACK",
        help="Keep the kernel path's tunnel packets out of conntrack where no rule of the node can "
        "tell the difference; in mode own that is the default. docs/operate.md says what that may "
        "cost.",
    ),
    _switch(
        "strict", envvar="VXLANE_STRICT", help="Drop packets that fail a check of their sender."
    ),
    _size("peer", _SIZES.max_peers),
    _size("pod", _SIZES.max_pods),
    _size("flow", _SIZES.max_flows),
    _option(
        "state-dir",
        type=PRIVATE,
        default=str(STATE),
        envvar=STATE_VARIABLE,
        show_default=True,
        help="Directory for pinned programs, the socket and other files.",
    ),
    _switch(
        "stand-by",
        envvar="VXLANE_STAND_BY",
        help="Wait while another agent uses this state directory, and take over when it ends. "
        "Without this option the second agent fails.",
    ),
    _own(
        "cni-cache-dir",
        type=PRIVATE,
        multiple=True,
        help="Find pods that the CNI plugin did not report in results/ and networks/ of this "
        "directory. Can be repeated; the environment has a colon between two. The default is the "
        "node's /var/lib/cni.",
    ),
    _own(
        "cni-conf-dir",
        type=PRIVATE,
        help="Keep the CNI plugin, if it is installed, in the network lists of this directory. The "
        "default is what the runtime's configuration says.",
    ),
    _own(
        "host-root",
        type=PRIVATE,
        default=str(cni_places.ROOT),
        show_default=True,
        help="The node's root directory as it is seen from here, to look for its runtime.",
    ),
    _own(
        "pods",
        type=_choice(PodSource),
        default=PodSource.BOTH.value,
        show_default=True,
        help="How to learn of new pods. plugin: from the CNI plugin, before a pod's first packet. "
        "watch: from the runtime's cache, some milliseconds later and without a plugin. both: from "
        "whichever comes first.",
    ),
)

_COMPATIBILITY = (
    _option(
        "subnet-file",
        type=PRIVATE,
        default=str(SUBNET_FILE),
        show_default=True,
        help="Write subnet.env, which the flannel CNI plugin reads, to this file.",
    ),
    _switch(
        "iptables-forward-rules",
        default=True,
        help="Accept forwarding from and to pods. This is the default.",
    ),
    _option(
        "iptables-resync",
        type=Number(min=0.1),
        default=5.0,
        show_default=True,
        help="Check the rules every so many seconds. Changes by nftables are seen at once.",
    ),
    _switch(
        "ip-masq-fully-random-disable",
        help="Keep the source port of masqueraded packets where it is free.",
    ),
    _switch(
        "ip-blackhole-route", help="Drop packets to addresses of this node's CIDR that no pod has."
    ),
    _switch(
        "set-node-network-unavailable",
        default=True,
        help="Tell Kubernetes when this node's network is up. This is the default.",
    ),
    _option("public-ipv6", help="IPv6 is not supported yet: the agent refuses this flag."),
    _option("v", "verbosity", type=int, default=0, help="With 1 or more, log each reconcile."),
    _option("vmodule", hidden=True, help="klog's; nothing here has modules of that kind."),
    _option("log_backtrace_at", hidden=True, help="klog's."),
)

_OBSERVABILITY = (
    _option(
        "healthz-ip", default=_ADDRESS, show_default=True, help="Answer probes on this address."
    ),
    _option(
        "healthz-port",
        type=click.IntRange(max=65535),
        default=0,
        help="Answer /healthz and /readyz on this port. 0, the default, or less is off.",
    ),
    _own("metrics-ip", default=_ADDRESS, show_default=True, help="Serve metrics at this address."),
    _own(
        "metrics-port",
        type=_PORT,
        default=0,
        help="Serve metrics for Prometheus on this port. 0, the default, is off.",
    ),
    _own("ready-file", type=PRIVATE, help="Create this file when the node's network is up."),
    _own(
        "log-format",
        type=_choice(LogFormat),
        default=LogFormat.TEXT.value,
        show_default=True,
        help="Log lines for people, or one JSON object per line.",
    ),
)

_GROUPS = {
    "Node source": _NODE_SOURCE,
    "Overlay": _OVERLAY,
    "Datapath": _DATAPATH,
    "flannel compatibility": _COMPATIBILITY,
    "Observability": _OBSERVABILITY,
}


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` every option, in groups."""
    # Not from the environment: FLANNELD_VERSION is an image's tag in many a manifest.
    command = click.version_option(
        package_name="vxlane", message="vxlane %(version)s", allow_from_autoenv=False
    )(command)
    # A decorator that is applied later comes first.
    for title, group in reversed(_GROUPS.items()):
        for option in reversed(group):
            command = option(title)(command)
    return command

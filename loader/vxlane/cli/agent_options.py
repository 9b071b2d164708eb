# SPDX-License-Identifier: Apache-2.0
"""The agent's command line: its own options, and all of flanneld's under flanneld's names.

flanneld's flags may be given with one dash or two, `--flag=false` switches a flag off, and each is
read from FLANNELD_<NAME> where the command line does not say. Owns the spelling; what comes out is
a `Config` and the `Wanted` source of nodes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

from vxlane.agent.server.logs import LogFormat
from vxlane.config import Mode
from vxlane.datapath.attach import Method
from vxlane.datapath.programs import Constants
from vxlane.mechanisms.kinds import Kind
from vxlane.pods import cni_cache
from vxlane.sources.etcd.access import DEFAULT_ENDPOINTS
from vxlane.util.places import STATE, STATE_VARIABLE

_SIZES = Constants()
_ADDRESS = "0.0.0.0"  # noqa: S104 (flannel's default: probes come from the kubelet)
_GO_FLAG = re.compile(r"-{1,2}(?P<name>[a-zA-Z][\w-]*)(?:=(?P<value>.*))?", re.DOTALL)
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""What Go's strconv.ParseBool takes, and so flanneld."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GoBool(click.types.BoolParamType):
    """A switch in the environment, as flanneld reads it.

    click would take "yes" and "on" too, and an operator's FLANNELD_IP_MASQ=yes, which flanneld
    reports and leaves out, would masquerade from the day vxlane takes over.
    """

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        """Go's true or false; anything else is refused."""
        if isinstance(value, bool):
            return value
        if value in _TRUE or value in _FALSE:
            return value in _TRUE
        known = ", ".join(sorted(_TRUE | _FALSE))
        reason = f"{value!r} is neither true nor false; flanneld knows {known}"
        raise click.BadParameter(reason, ctx=ctx, param=param)


def _option(name: str, *more: str, default: object = None, help: str, **rest: Any) -> Decorator:  # noqa: A002
    return click.option(f"--{name}", *more, default=default, help=help, **rest)


def _switch(name: str, *, default: bool = False, help: str, **rest: Any) -> Decorator:  # noqa: A002
    return click.option(f"--{name}/--no-{name}", default=default, type=GoBool(), help=help, **rest)


def _size(name: str, default: int, envvar: str) -> Decorator:
    return _option(
        name,
        type=click.IntRange(min=1),
        default=default,
        envvar=envvar,
        show_default=True,
        help="Entries of that map of the programs. What does not fit takes the kernel path.",
    )


_OWN = (
    _option("node-name", envvar="NODE_NAME", help="This node's name. Default: the host's."),
    _option("nodes-file", envvar="VXLANE_NODES_FILE", help="YAML or JSON file of all nodes."),
    _option(
        "mode",
        type=click.Choice([mode.value for mode in Mode]),
        default=Mode.OWN.value,
        envvar="VXLANE_MODE",
        show_default=True,
        help="own: be the flannel backend. adopt: accelerate flanneld's or k3s's overlay.",
    ),
    _option(
        "attach",
        type=click.Choice([method.value for method in Method]),
        default=Method.AUTO.value,
        envvar="VXLANE_ATTACH",
        show_default=True,
        help="How programs are attached to devices.",
    ),
    _option(
        "revalidate",
        type=click.FloatRange(min=0.1),
        default=30.0,
        envvar="VXLANE_REVALIDATE",
        show_default=True,
        help="Seconds after which an approved flow goes through netfilter again.",
    ),
    _option(
        "ignore-mechanism",
        type=click.Choice([kind.value for kind in Kind]),
        multiple=True,
        envvar="VXLANE_IGNORE_MECHANISM",
        help="Bypass such a mechanism of rules and devices, which then acts on a flow's first "
        "packets only. May repeat.",
    ),
    _option(
        "state-dir",
        default=str(STATE),
        envvar=STATE_VARIABLE,
        show_default=True,
        help="Pins, socket and records of this agent.",
    ),
    _option(
        "cni-cache-dir",
        multiple=True,
        default=[str(cni_cache.CACHE)],
        envvar="VXLANE_CNI_CACHE_DIR",
        show_default=True,
        help="Where the runtime keeps results/ and networks/ of pods from before. May repeat.",
    ),
    _size("max-peers", _SIZES.max_peers, "VXLANE_MAX_PEERS"),
    _size("max-pods", _SIZES.max_pods, "VXLANE_MAX_PODS"),
    _size("max-flows", _SIZES.max_flows, "VXLANE_MAX_FLOWS"),
    _option("ready-file", envvar="VXLANE_READY_FILE", help="File to make when the agent is ready."),
    _option("metrics-ip", default=_ADDRESS, envvar="VXLANE_METRICS_IP", help="For --metrics-port."),
    _option(
        "metrics-port",
        type=int,
        default=0,
        envvar="VXLANE_METRICS_PORT",
        help="Serve Prometheus metrics there. 0: nowhere.",
    ),
    _option(
        "log-format",
        type=click.Choice([shape.value for shape in LogFormat]),
        default=LogFormat.TEXT.value,
        envvar="VXLANE_LOG_FORMAT",
        show_default=True,
        help="Lines for people, or JSON.",
    ),
    _switch("strict", envvar="VXLANE_STRICT", help="Drop packets that fail an identity check."),
)

_INTERFACE = (
    _option("iface", multiple=True, help="Underlay interface, by name or address. May repeat."),
    _option("iface-regex", multiple=True, help="The same by regular expression, after --iface."),
    _option("iface-can-reach", help="The same by the route to this address."),
    _option("public-ip", help="Address that peers send to, if it is not the interface's own."),
    _option("public-ipv6", help="Not supported yet."),
)

_NETWORK = (
    _option("subnet-file", default="/run/flannel/subnet.env", show_default=True, help="For CNI."),
    _option("net-config-path", help="flannel's net-conf.json."),
    _switch("ip-masq", help="Masquerade what pods send to the world outside."),
    _switch("ip-masq-fully-random-disable", help="Leave the source port of such packets alone."),
    _switch("iptables-forward-rules", default=True, help="Accept forwarding from and to pods."),
    _option("iptables-resync", type=float, default=5.0, help="Seconds between looks at rules."),
    _switch("ip-blackhole-route", help="Swallow packets for pods of ours that are not there."),
)

_KUBERNETES = (
    _switch("kube-subnet-mgr", help="Take the nodes from Kubernetes."),
    _option("kube-api-url", default="", help="API server, if it is not the kubeconfig's."),
    _option("kubeconfig-file", default="", help="Default: this pod's service account."),
    _option("kube-annotation-prefix", default="flannel.alpha.coreos.com", help="Of annotations."),
    _switch("set-node-network-unavailable", default=True, help="Clear that node condition."),
)

_ETCD = (
    _option(
        "etcd-endpoints",
        default="",
        help="Comma-separated URLs: take the nodes from etcd. Default, in mode own without another "
        f"source: flanneld's {','.join(DEFAULT_ENDPOINTS)}.",
    ),
    _option("etcd-prefix", default="/coreos.com/network", show_default=True, help="Of its keys."),
    _option("etcd-cafile", default="", help="Certificate authority."),
    _option("etcd-certfile", default="", help="Client certificate."),
    _option("etcd-keyfile", default="", help="Its key."),
    _option("etcd-username", default="", help="User."),
    _option("etcd-password", default="", help="Password."),
    _option(
        "subnet-lease-renew-margin",
        type=click.IntRange(1, 1439),
        default=60,
        help="Minutes before its end.",
    ),
)

_MISCELLANEOUS = (
    _option("healthz-ip", default=_ADDRESS, help="For --healthz-port."),
    _option("healthz-port", type=int, default=0, help="Serve /healthz and /readyz. 0: nowhere."),
    _option("v", "verbosity", type=int, default=0, help="1 and more: log every look."),
    _option("vmodule", hidden=True, help="klog's; nothing here has modules of that kind."),
    _option("log_backtrace_at", hidden=True, help="klog's."),
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` every option."""
    every = _OWN + _INTERFACE + _NETWORK + _KUBERNETES + _ETCD + _MISCELLANEOUS
    for option in reversed(every):
        command = option(command)
    # Not from the environment: FLANNELD_VERSION is an image's tag in many a manifest.
    version = click.version_option(
        package_name="vxlane", message="vxlane %(version)s", allow_from_autoenv=False
    )
    return version(command)


class GoFlags(click.Command):
    """A command that also reads flags as Go programs spell them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Respell, then let click parse."""
        switches = {
            option.lstrip("-")
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and parameter.is_flag
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        return super().parse_args(ctx, list(_respelt(args, switches)))


def _respelt(args: list[str], switches: set[str]) -> Iterator[str]:
    """`-name` as `--name`; `--switch=false` as `--no-switch`; values as they are."""
    rest = iter(args)
    for argument in rest:
        flag = _GO_FLAG.fullmatch(argument)
        if not flag or argument == "-h":
            yield argument
            continue
        name, value = flag["name"], flag["value"]
        if name not in switches:
            yield f"--{name}" if value is None else f"--{name}={value}"
            if value is None:
                yield from itertools.islice(rest, 1)
        elif value is None or value in _TRUE:
            yield f"--{name}"
        elif value in _FALSE:
            yield f"--no-{name}"
        else:
            raise click.BadParameter(f"{value!r} is neither true nor false", param_hint=argument)

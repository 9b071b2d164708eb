# SPDX-License-Identifier: Apache-2.0
"""A stand-in for flanneld 0.28: what it does with a node, at start, unasked, on events, at its end.

    flanneld.py --iface eth0 --ip-masq --subnet-file FILE
        --etcd-endpoints URL --etcd-prefix PREFIX
        --kube-subnet-mgr --kube-api-url URL --net-config-path FILE       (and NODE_NAME)

Written from flannel's source (flannel-io/flannel, main.go and pkg/), not from vxlane's idea of it.
Runs in the network namespace that it is started in. SIGTERM and SIGINT end it; nothing is removed.
Left out: IPv6, nftables, renewal of the day-long lease.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import masquerade
from backends import BACKENDS, Network, Setting, external_interface, say
from etcdmanager import EtcdManager
from kubemanager import KubeManager
from leases import Manager, NetworkConfig, NotNowError


def main() -> int:
    """In flannel's order: configuration, interface, backend, rules, subnet.env, then the leases."""
    for number in signal.SIGTERM, signal.SIGINT:
        # At once, wherever it is: nothing is to be undone.
        signal.signal(number, lambda *_: os._exit(0))
    Path("/proc/self/comm").write_text("flanneld")
    return _run(_options())


def _run(options: argparse.Namespace) -> int:
    manager = _manager(options)
    config = _config(manager)
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        raise SystemExit("Failed to check br_netfilter")
    external = external_interface(options.iface)
    before = _read(options.subnet_file)
    setting = Setting(
        manager,
        config,
        external,
        options.public_ip or str(external.address),
        _previous(before, "FLANNEL_SUBNET"),
    )
    network = BACKENDS[config.backend["type"]](setting)
    _write_rules(options, config, network, before)
    _write_subnet_file(options, config, network)
    say("Running backend.")
    network.run()
    say(manager.watch(network.lease, network.handle))
    return 1


def _manager(options: argparse.Namespace) -> Manager:
    if options.kube_subnet_mgr:
        path = Path(options.net_config_path)
        return KubeManager(options.kube_api_url, os.environ["NODE_NAME"], path)
    return EtcdManager(options.etcd_endpoints.split(",")[0], options.etcd_prefix)


def _config(manager: Manager) -> NetworkConfig:
    while True:
        try:
            return manager.config()
        except NotNowError as error:
            say(f"Couldn't fetch network config: {error}")
            time.sleep(1)


def _write_rules(
    options: argparse.Namespace, config: NetworkConfig, network: Network, before: dict[str, str]
) -> None:
    masquerade.clean_nftables()
    subnet = network.lease.subnet
    if options.ip_masq:
        old = _previous(before, "FLANNEL_NETWORK"), _previous(before, "FLANNEL_SUBNET")
        if all(old) and old != (config.network, subnet):
            masquerade.recycle(masquerade.masq_rules(*old))
        rules = masquerade.masq_rules(config.network, subnet)
        masquerade.setup(rules, resync=options.iptables_resync)
    rules = masquerade.forward_rules(config.network)
    masquerade.setup(rules, resync=options.iptables_resync)


def _write_subnet_file(
    options: argparse.Namespace, config: NetworkConfig, network: Network
) -> None:
    """By rename, with the subnet's first address."""
    subnet = network.lease.subnet
    text = (
        f"FLANNEL_NETWORK={config.network}\n"
        f"FLANNEL_SUBNET={subnet.network_address + 1}/{subnet.prefixlen}\n"
        f"FLANNEL_MTU={network.mtu}\n"
        f"FLANNEL_IPMASQ={str(options.ip_masq).lower()}\n"
    )
    path = Path(options.subnet_file)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.rename(path)


def _read(path: str) -> dict[str, str]:
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _previous(before: dict[str, str], key: str) -> IPv4Network | None:
    return IPv4Interface(before[key]).network if key in before else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--etcd-endpoints", default="http://127.0.0.1:2379")
    parser.add_argument("--etcd-prefix", default="/coreos.com/network")
    parser.add_argument("--kube-subnet-mgr", action="store_true")
    parser.add_argument("--kube-api-url")
    parser.add_argument("--kubeconfig-file", help="not read: the API needs no credentials here")
    parser.add_argument("--net-config-path", default="/etc/kube-flannel/net-conf.json")
    parser.add_argument("--iface", required=True)
    parser.add_argument("--public-ip", default="")
    parser.add_argument("--subnet-file", default="/run/flannel/subnet.env")
    parser.add_argument("--ip-masq", action="store_true")
    parser.add_argument("--iptables-resync", type=float, default=5.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

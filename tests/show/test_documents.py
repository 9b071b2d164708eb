# SPDX-License-Identifier: Apache-2.0
"""Documents and tables of `vxlane status|peers|pods|flows|stats`."""

from ipaddress import IPv4Address, IPv4Network

from vxlane.datapath.abi import Guard, Program, Verdict, Way
from vxlane.datapath.records import Count, Flow, Peer, PeerCount, Pod, Settings, Tuple
from vxlane.show import documents
from vxlane.show.table import pairs, table

SECOND = 1_000_000_000
MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
HERE, THERE = IPv4Address("10.42.1.2"), IPv4Address("10.42.2.2")
NODE, PEER_NODE = IPv4Address("192.168.77.11"), IPv4Address("192.168.77.12")
SETTINGS = Settings(50 * SECOND, 30 * SECOND, 10 * SECOND, NODE, 3, 32768, 60999, MAC)


def counters(**moved):
    """All counters, zero but for program__verdict=packets; a packet has 100 bytes."""
    counted = {program: dict.fromkeys(Verdict, Count(0, 0)) for program in Program}
    for name, packets in moved.items():
        program, verdict = name.upper().split("__")
        counted[Program[program]][Verdict[verdict]] = Count(packets, 100 * packets)
    return counted


def test_peer():
    """A peer's document holds its addresses, way, MTU and counters."""
    peer = Peer(IPv4Network("10.42.2.0/24"), PEER_NODE, PEER_NODE, 2, 1450, 0, MAC)
    assert documents.peer_document(peer, PeerCount(1, 2, 3, 4), lambda _: "eth0") == {
        "cidr": "10.42.2.0/24",
        "address": "192.168.77.12",
        "vtep_mac": MAC,
        "way": "tunnel",
        "next_hop": "192.168.77.12",
        "nic": "eth0",
        "mtu": 1450,
        "tx_packets": 1,
        "tx_bytes": 2,
        "rx_packets": 3,
        "rx_bytes": 4,
    }


def test_peer_without_a_way():
    """Where there is no usable way, next hop and NIC are null."""
    peer = Peer(IPv4Network("10.42.2.0/24"), PEER_NODE, PEER_NODE, 0, 1450, 0, MAC)
    document = documents.peer_document(peer, PeerCount(0, 0, 0, 0), lambda _: None)
    assert (document["next_hop"], document["nic"]) == (None, None)


def test_pod():
    """A pod's document names its devices and the directions that are guarded."""
    pod = Pod(HERE, 5, 4, 1450, MAC, OTHER_MAC, Guard.TO_POD, owner=1)
    assert documents.pod_document(pod, {5: "veth1", 4: "cni0"}.get, {HERE: "shop/web"}) == {
        "name": "shop/web",
        "address": "10.42.1.2",
        "mac": MAC,
        "veth": "veth1",
        "bridge": "cni0",
        "gateway_mac": OTHER_MAC,
        "mtu": 1450,
        "guarded": ["to_pod"],
    }


def some_flow(behind):
    """A TCP flow of HERE's to THERE, and what netfilter makes of it."""
    return Flow(
        Tuple(HERE, THERE, 40000, 80, 6),
        seen_out=39 * SECOND,
        seen_in=0,
        used=0,
        epoch=2,
        ifindex=7,
        nic=3,
        next_hop=THERE,
        source_port=50000,
        mtu=1450,
        way=Way.TUNNEL,
        is_open=True,
        behind=behind,
        is_confirmed=True,
    )


def test_flow():
    """A flow's ages are seconds since each half was seen, null for one that never was."""
    flow = some_flow(Tuple(HERE, THERE, 40000, 80, 6))
    assert documents.flow_document(flow, SETTINGS, 40 * SECOND, {HERE: "shop/web"}) == {
        "protocol": "tcp",
        "local": "10.42.1.2",
        "local_port": 40000,
        "remote": "10.42.2.2",
        "remote_port": 80,
        "out_age_seconds": 1.0,
        "in_age_seconds": None,
        "translated": None,
        "state": "withdrawn",
        "withdrawn": True,
        "pod": "shop/web",
        "remote_pod": None,
    }


def test_translated_flow():
    """What netfilter makes of a flow stands beside it."""
    flow = some_flow(Tuple(NODE, PEER_NODE, 1024, 8080, 6))
    document = documents.flow_document(flow, SETTINGS, 40 * SECOND, {PEER_NODE: "shop/db"})
    assert document["translated"] == {
        "local": "192.168.77.11",
        "local_port": 1024,
        "remote": "192.168.77.12",
        "remote_port": 8080,
    }
    assert document["remote_pod"] == "shop/db"


def test_programs_stand_aside_when_the_lease_is_over():
    """`bypassing` is whether the agent's lease holds now."""
    running = documents.programs_document(SETTINGS, 40 * SECOND, peers=1, pods=2, flows=3)
    assert (running["bypassing"], running["lease_seconds"]) == (True, 10.0)
    stopped = documents.programs_document(SETTINGS, 60 * SECOND, peers=1, pods=2, flows=3)
    assert (stopped["bypassing"], stopped["lease_seconds"]) == (False, 0.0)


def test_share_counts_each_overlay_packet_once():
    """The share is taken at the two entrances and leaves out what is no overlay traffic."""
    counted = counters(
        from_pod__encapsulated=80,
        from_pod__switched=10,
        from_pod__tcp_control=10,
        from_pod__not_ip=999,
        from_pod__no_peer=999,
        from_nic__decapsulated=90,
        from_nic__flow_aged=10,
        from_nic__not_overlay=999,
        to_pod__learned=999,
        to_nic__learned=999,
    )
    assert documents.bypassed_document(counted) == {
        "from_pod": {"bypassed": 90, "packets": 100, "share": 0.9},
        "from_nic": {"bypassed": 90, "packets": 100, "share": 0.9},
        "total": {"bypassed": 180, "packets": 200, "share": 0.9},
    }


def test_packets_to_services_are_in_the_share():
    """What enters for no peer and comes out translated is one packet that was not bypassed."""
    counted = counters(
        from_pod__encapsulated=90,
        from_pod__no_peer=30,
        from_nic__decapsulated=90,
        to_nic__translated=7,
        to_pod__translated=3,
    )
    assert documents.bypassed_document(counted) == {
        "from_pod": {"bypassed": 90, "packets": 100, "share": 0.9},
        "from_nic": {"bypassed": 90, "packets": 90, "share": 1.0},
        "total": {"bypassed": 180, "packets": 190, "share": 0.947368},
    }


def test_share_of_nothing_is_null():
    """Before the first packet there is no share."""
    assert documents.bypassed_document(counters())["total"]["share"] is None


def test_stats_hold_every_counter():
    """Each program has each verdict, zeros too, under the header's names in lower case."""
    programs = documents.stats_document(counters(from_pod__learned=2), [])["programs"]
    assert programs.keys() == {"from_pod", "to_pod", "from_nic", "to_nic"}
    assert programs["from_pod"]["learned"] == {"packets": 2, "bytes": 200}
    assert all(len(verdicts) == len(Verdict) for verdicts in programs.values())


def test_differences_and_sums():
    """Readings can be subtracted and added counter by counter."""
    later, earlier = counters(from_pod__learned=5), counters(from_pod__learned=3)
    assert documents.subtract(later, earlier) == counters(from_pod__learned=2)
    assert documents.add([later, earlier]) == counters(from_pod__learned=8)


def test_table_aligns():
    """Words stand to the left, numbers to the right with separators, None is a dash."""
    shown = table(("NAME", "COUNT", "WHY"), [("a", 12345, None), ("bcd", 6, ["x", "y"])])
    assert shown == "NAME   COUNT  WHY\na     12,345  -\nbcd        6  x y"


def test_table_of_nothing():
    """A table without rows is its header."""
    assert table(("A", "B"), []) == "A  B"


def test_pairs():
    """Keys lose their underscores, truth is yes or no."""
    assert pairs({"is_up": True, "n": None}) == "is up  yes\nn      -"

# SPDX-License-Identifier: Apache-2.0
"""A profile as tests of its text and page have it, and the reading of a page's figures."""

from html.parser import HTMLParser

from vxlane.datapath.abi import Program
from vxlane.datapath.runtime import RunTime
from vxlane.host.machine import Cpu, Machine
from vxlane.profile import document
from vxlane.profile.legs import SLOTS, Leg, Path


def counts(**slots):
    """A histogram; s10=3 puts three into slot 10."""
    found = [0] * SLOTS
    for name, count in slots.items():
        found[int(name[1:])] = count
    return found


def seen(leg, path, latencies, sizes, longest):
    """What tracing.py answers of one leg by one path."""
    packets = sum(latencies)
    return {
        "leg": leg.label,
        "path": path.label,
        "packets": packets,
        "bytes": 100 * packets,
        "segments": 2 * packets,
        "longest": longest,
        "latencies": latencies,
        "sizes": sizes,
    }


def machine(ticks, net_rx):
    """Two CPUs alike, and one between them that is offline."""
    return Machine({number: Cpu(dict(ticks), net_rx, 0) for number in (0, 2)}, net_rx, 0)


def figures():
    """Two legs with packets, one of them on the kernel path alone."""
    return {
        "seconds": 2.5,
        "pod": "10.42.1.2",
        "latency": document.latency(
            [
                seen(Leg.POD_TO_NIC, Path.BYPASS, counts(s40=7, s44=1), counts(s22=8), 5000),
                seen(Leg.POD_TO_NIC, Path.KERNEL, counts(s60=2), counts(s22=2), 70000),
                seen(Leg.NIC_TO_TCP, Path.KERNEL, counts(s60=1), counts(s22=1), 70000),
            ]
        ),
        "programs": document.programs({Program.FROM_POD: RunTime(4000, 8)}, 2.5),
        "machine": document.machine(
            machine({"user": 10, "idle": 10, "softirq": 0}, 5),
            machine({"user": 20, "idle": 30, "softirq": 10}, 8),
        ),
        "losses": document.losses(
            [{"remote": "10.42.2.9", "is_syn": True, "count": 3}], lambda _: "10.42.2.0/24"
        ),
        "missing": ["this kernel has no <tracepoint>"],
    }


class Page(HTMLParser):
    """`figures`: the text of each cell by its data-key; `tags`, `texts`: in their order."""

    def __init__(self, text):
        super().__init__()
        self.figures, self.tags, self.texts, self._key = {}, [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        """The parser's call at a tag."""
        self.tags.append(tag)
        self._key = dict(attributes).get("data-key")

    def handle_data(self, text):
        """The parser's call at text."""
        self.texts.append(text)
        if self._key:
            self.figures[self._key] = text
            self._key = None

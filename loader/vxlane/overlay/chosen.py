# SPDX-License-Identifier: Apache-2.0
"""The underlay of this node: chosen once, as flannel does, and kept while the agent lives.

Peers know this node by this address. If it is missing for some seconds (a DHCP lease, a bond, a
rename), no other address of the node, such as a VIP or a bridge's, may be announced in its place.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import IPv4Address

from vxlane.errors import ConfigError, VxlaneError
from vxlane.host.devices import Devices
from vxlane.host.underlay import Choice, Underlay, choose

log = logging.getLogger(__name__)


class ChosenUnderlay:
    """Chooses once, and again only if the source of nodes gives this node another address."""

    def __init__(self, devices: Devices, choice: Choice) -> None:
        self.problem = ""
        """A sentence about what is wrong with the choice now; empty: nothing is."""
        self._unmet = ""
        """Why the choice is not the one that was asked for. It stays until a restart, or until the
        address that the cluster asks for is there."""
        self._devices = devices
        self._choice = choice
        self._chosen: Underlay | None = None
        self._said: tuple[IPv4Address | None, IPv4Address | None] = None, None

    def now(self, *, known: IPv4Address | None, asked: IPv4Address | None) -> Underlay:
        """The underlay with its interface as it is now.

        `known` is the address that peers have of us, `asked` the one that the cluster wants us to
        have. ConfigError: no interface can be chosen, or the chosen one is gone.
        """
        self.problem = self._unmet
        if self._chosen is None or self._said != (known, asked) or (asked and self._unmet):
            self._chosen = self._choose(known, asked)
            self._said = known, asked
        else:
            self._chosen = self._refreshed(self._chosen)
        return self._chosen

    def _choose(self, known: IPv4Address | None, asked: IPv4Address | None) -> Underlay:
        self.problem = self._unmet = ""
        holder = self._devices.holder(known) if known else None
        ours = Underlay(holder, known) if holder and known else None
        if not asked and ours and (self._choice == Choice() or self._is_on_chosen(ours)):
            return ours
        if not asked and self._chosen:
            return self._refreshed(self._chosen)
        try:
            return choose(self._devices, Choice(public=asked) if asked else self._choice)
        except VxlaneError as error:
            stays = ours or self._chosen
            if stays is None:
                raise
            self.problem = self._unmet = f"{error}; {stays.announced}, which peers know, stays"
            return stays

    def _is_on_chosen(self, underlay: Underlay) -> bool:
        """Whether `underlay` is on the chosen interface, whose address may have been replaced."""
        return self._chosen is not None and self._chosen.device.index == underlay.device.index

    def _refreshed(self, chosen: Underlay) -> Underlay:
        """The same address with its present interface, which may be renamed, or a bond by now."""
        before = chosen.device
        if holder := self._devices.holder(chosen.address, before=before.index):
            return replace(chosen, device=holder)
        device = self._devices.by_index(before.index) or self._devices.by_name(before.name)
        if device is None:
            advice = "it is waited for; restart the agent to choose another"
            raise ConfigError(f"interface {before.name} with {chosen.address} is gone; {advice}")
        advice = "it stays this node's; add it again, or restart the agent to choose another"
        self.problem = f"no interface has the address {chosen.address} now; {advice}"
        return replace(chosen, device=device)

# SPDX-License-Identifier: Apache-2.0
"""What the sentences of `vxlane why` say of the flow that they are about."""

from __future__ import annotations

from flowfacts import THERE, facts_of, tuple_to

from vxlane.datapath.abi import Verdict
from vxlane.why.reasons import Agent, Context, explain

STREAM = tuple_to(THERE)


def reason_of(verdict, facts, *, is_leaving=True):
    """The sentence and the command."""
    return explain(verdict, Context(facts, is_leaving, Agent(), "device{}".format))


def test_a_flush_by_hand_withdraws_too():
    """Nothing on the node need have changed since a flow was approved."""
    reason, _ = reason_of(Verdict.FLOW_WITHDRAWN, facts_of(STREAM, record={"epoch": 2}))
    assert "somebody ran 'vxlane flows flush'" in reason
    assert "rules, routes, peers, IPsec or the NIC changed" in reason
    earlier, _ = reason_of(Verdict.FLOW_WITHDRAWN, facts_of(STREAM, record={"ifindex": 99}))
    assert earlier == "it was approved for an earlier pod with this address; wait"

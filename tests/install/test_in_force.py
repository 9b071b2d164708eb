# SPDX-License-Identifier: Apache-2.0
"""The list by which runtimes make pods, as libcni reads it (libcni/conf.go)."""

import json

import pytest
from cniplace import FLANNEL, Place

from vxlane.errors import ConfigError
from vxlane.runtime import network


@pytest.fixture
def conf(tmp_path):
    """The configuration directory of a node with flannel's list, and a drop-in."""
    place = Place(tmp_path)
    place.flannel()
    (place.conf / "cbr0").mkdir()
    (place.conf / "cbr0" / "99-vxlane.conf").write_text('{"type": "vxlane"}', encoding="utf-8")
    return place.conf


def kinds(conf, *, drop_ins):
    """The types of the plugins that make a pod."""
    listed = network.in_force(conf, "cbr0", drop_ins=drop_ins)
    return [plugin["type"] for plugin in listed["plugins"]]


def test_drop_ins_come_last(conf):
    """Drop-ins are appended where the runtime reads them and the list does not forbid it."""
    assert kinds(conf, drop_ins=True) == ["flannel", "portmap", "vxlane"]
    assert kinds(conf, drop_ins=False) == ["flannel", "portmap"]
    forbidding = json.dumps({**FLANNEL, "loadOnlyInlinedPlugins": True})
    (conf / "10-flannel.conflist").write_text(forbidding, encoding="utf-8")
    assert kinds(conf, drop_ins=True) == ["flannel", "portmap"]


def test_the_first_list_of_that_name_counts(conf):
    """Another network's list is passed over, and of two of one name the first is in force."""
    multus = {"cniVersion": "0.3.1", "name": "multus", "plugins": [{"type": "multus"}]}
    (conf / "00-multus.conf").write_text(json.dumps(multus), encoding="utf-8")
    ours = {**FLANNEL, "plugins": [{"type": "vxlane"}]}
    (conf / "00-vxlane.conflist").write_text(json.dumps(ours), encoding="utf-8")
    assert kinds(conf, drop_ins=False) == ["vxlane"]


def test_what_is_no_list_is_refused(conf):
    """A network that is not there, and a plugin without a list, are named with the next step."""
    with pytest.raises(ConfigError, match="--cni-conf-dir and the network of the pods with --net"):
        network.in_force(conf, "other", drop_ins=False)
    single = json.dumps({"cniVersion": "0.3.1", "name": "cbr0", "type": "bridge"})
    (conf / "10-flannel.conflist").write_text(single, encoding="utf-8")
    with pytest.raises(ConfigError, match="is no list of plugins with a cniVersion; mend it"):
        network.in_force(conf, "cbr0", drop_ins=False)

# SPDX-License-Identifier: Apache-2.0
"""What the specification asks of every plugin: versions, errors, and names that are no names."""

import json
import os

import pytest

CONF = {"cniVersion": "1.0.0", "name": "cbr0", "type": "vxlane", "prevResult": {}}
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture
def conf(tmp_path):
    """A chained configuration whose agent isn't there."""
    return {**CONF, "stateDir": str(tmp_path / "state"), "dataDir": str(tmp_path / "data")}


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path):
    """No call of this file writes anything anywhere near the directories it was given."""
    yield
    assert not list(tmp_path.iterdir())


def refused(answer, code, version="1.0.0"):
    """The message of an error object that has all the specification's keys and this code."""
    assert answer.status == 1
    assert sorted(answer.document) == ["cniVersion", "code", "details", "msg"]
    assert answer.document["code"] == code, answer.document
    assert answer.document["cniVersion"] == version
    assert "Traceback" not in answer.stderr
    return answer.document["msg"]


@pytest.mark.parametrize("stdin", [b'{"cniVersion": "0.4.0"}', b"", b"nonsense", b"[]"])
def test_version(call, stdin):
    """VERSION needs nothing but the command and names every version, in the asked one if known."""
    answer = call("VERSION", stdin, CNI_CONTAINERID=None, CNI_IFNAME=None, CNI_PATH=None)
    asked = "0.4.0" if b"0.4.0" in stdin else "1.1.0"
    assert answer.document == {"cniVersion": asked, "supportedVersions": VERSIONS}
    assert (answer.status, answer.stderr) == (0, "")


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "1.2.0", "2.0.0", "nonsense", "", None])
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_unknown_versions(call, conf, command, version):
    """A version that is not supported, or none, is error 1."""
    conf["cniVersion"] = version
    if version is None:
        del conf["cniVersion"]
    assert "is not supported" in refused(call(command, conf), 1, "1.1.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_commands_by_version(call, conf, version):
    """CHECK came with 0.4.0, GC and STATUS with 1.1.0; before that they are error 1."""
    conf |= {"cniVersion": version, "cni.dev/valid-attachments": []}
    del conf["dataDir"]  # what only a main role has, whose delegate would be asked
    for command in ("ADD", "DEL"):
        assert call(command, conf).status == 0
    # A CHECK that is made finds no namespace.
    refused(call("CHECK", conf), 8 if version >= "0.4.0" else 1, version)
    for command in ("GC", "STATUS"):
        answer = call(command, conf)
        if version == "1.1.0":
            assert answer.status == 0
        else:
            assert "1.1.0 has" in refused(answer, 1, version)


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("CHECK", "CNI_NETNS"),
    ],
)
@pytest.mark.parametrize("value", ["", None])
def test_missing_environment(call, conf, command, missing, value):
    """A variable that the command needs, missing or empty, is error 4 and named."""
    assert missing in refused(call(command, conf, **{missing: value}), 4)


@pytest.mark.parametrize("command", ["", "add", "UPDATE", "ADD ", "../ADD", None])
def test_unknown_commands(call, conf, command):
    """A command that there isn't is error 4."""
    assert "CNI_COMMAND" in refused(call(command, conf), 4)


HOSTILE_NAMES = [
    "..",
    ".",
    "../../etc/passwd",
    "a/b",
    "/abs",
    "-x",
    ".hidden",
    "a,eth1",
    "a b",
    "a\n",
    "a;b",
    "é",
    "\udcff",
    "a" * 256,
    "$(id)",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_hostile_container_ids(call, conf, command, name):
    """A container id outside the specification's pattern is error 4."""
    assert "container id" in refused(call(command, conf, CNI_CONTAINERID=name), 4)


@pytest.mark.parametrize("name", ["../" * 9 + "dev/full", "../" * 9 + "etc", "\udcff"])
def test_names_that_are_nobody_s(call, conf, name):
    """GC and STATUS are about no container, so a name in the environment is not read."""
    del conf["dataDir"]
    conf |= {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    for command in ("GC", "STATUS"):
        answer = call(command, conf, CNI_CONTAINERID=name, CNI_IFNAME=name)
        assert (answer.status, answer.document) == (0, None)


@pytest.mark.parametrize(
    "ifname",
    ["..", ".", "../x", "a/b", "a:b", "a b", "a\n", "a\t", "sixteen-letters-", "é" * 8, "\udcff"],
)
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_hostile_interface_names(call, conf, command, ifname):
    """An interface name that the kernel or the specification forbids is error 4."""
    assert "interface name" in refused(call(command, conf, CNI_IFNAME=ifname), 4)


@pytest.mark.parametrize("name", [*HOSTILE_NAMES[:-3], "", 3, None])
def test_hostile_network_names(call, conf, name):
    """A network name outside the specification's pattern, or none, is error 7."""
    conf["name"] = name
    assert "name" in refused(call("ADD", conf), 7)


@pytest.mark.parametrize("arguments", ["nonsense", "A=1;B", ";;x;"])
def test_malformed_arguments(call, conf, arguments):
    """CNI_ARGS that are no pairs are error 4."""
    assert "CNI_ARGS" in refused(call("ADD", conf, CNI_ARGS=arguments), 4)


@pytest.mark.parametrize(
    "netns", ["/proc/self/ns/net", f"/proc/{os.getpid()}/ns/net"], ids=["self", "pid"]
)
def test_the_plugin_s_own_namespace(call, conf, netns):
    """A container in the plugin's own namespace is error 8, unless the caller insists."""
    assert netns in refused(call("ADD", conf, CNI_NETNS=netns), 8)
    assert refused(call("CHECK", conf, CNI_NETNS=netns), 8)
    answer = call("ADD", conf, CNI_NETNS=netns, CNI_NETNS_OVERRIDE="1")
    assert (answer.status, answer.document["cniVersion"]) == (0, "1.0.0")


NO_OBJECTS = [
    b"",
    b"   ",
    b"nonsense",
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b'{"cniVersion": "1.0.0"',
    b'{"cniVersion": "1.0.0",}',
    b'{"a": NaN}',
    b'{"a": "\x01"}',
    b"\xff\xfe",
    b"\x00",
    b'{"a": 1} {"b": 2}',
    b"[" * 1_000_000,
    b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": 1e999}',
    b'{"a": -1e999}',
]


@pytest.mark.parametrize("stdin", NO_OBJECTS, ids=lambda stdin: repr(stdin[:20]))
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_undecodable_stdin(call, command, stdin):
    """What is no JSON object is error 6, however much of it there is."""
    refused(call(command, stdin), 6, "1.1.0")


@pytest.mark.parametrize("key", ["stateDir", "type", "required"])
@pytest.mark.parametrize("value", [3, {}, [], None, ["x" * 100_000]])
def test_values_of_the_wrong_type(call, conf, key, value):
    """A value of another type than the key's is error 7 and names the key, briefly."""
    command = "DEL" if key == "type" else "ADD"
    message = refused(call(command, {**conf, key: value}), 7)
    assert message.startswith(f"{key} must be")
    assert len(message) < 200


@pytest.mark.parametrize("depth", range(985, 1000))
@pytest.mark.parametrize("key", ["stateDir", "type", "name", "cniVersion", "prevResult"])
def test_values_nested_as_deep_as_can_be_read(call, conf, key, depth):
    """What the scanner can just read is refused like any other value of the wrong type."""
    deep = b"[" * depth + b"]" * depth
    stdin = json.dumps({**conf, key: "HERE"}).encode().replace(b'"HERE"', deep)
    answer = call("CHECK" if key == "type" else "ADD", stdin)
    assert answer.document["code"] in (6, 7)
    assert "Traceback" not in answer.stderr


def test_stdin_that_can_t_be_read(call):
    """A runtime that closes stdin is told that it is no JSON; one only to be written is a fault."""
    for where, code in ("<&-", 6), ("0>/dev/null", 999):
        refused(call("ADD", b"", wrap=["sh", "-c", f'exec "$0" {where}']), code, "1.1.0")


@pytest.mark.parametrize("path", ["relative", "../up", "", "/a\0b", "/\ud800"])
def test_paths_that_are_not_absolute(call, conf, path):
    """A directory that is not an absolute path, or can't be one, is error 7."""
    for command in ("ADD", "DEL"):
        assert "stateDir" in refused(call(command, {**conf, "stateDir": path}), 7)


def test_long_state_directory(call, conf):
    """A state directory too long for a socket's address is an agent that isn't there."""
    answer = call("DEL", {**conf, "stateDir": "/x" * 100})
    assert answer.status == 0
    assert "no agent" in answer.stderr


@pytest.mark.parametrize(
    "previous",
    [
        "text",
        3,
        [],
        {"interfaces": "eth0"},
        {"interfaces": ["eth0"]},
        {"ips": {"address": "10.42.1.2/24"}},
        {"ips": [{}]},
        {"ips": [{"address": 3}]},
        {"ips": [{"address": "10.42.1.2/24", "interface": 7}]},
        {"ips": [{"address": "10.42.1.2/24", "interface": -1}]},
        {"ips": [{"address": "10.42.1.2/24", "interface": "eth0"}]},
    ],
)
def test_results_of_another_shape(call, conf, previous):
    """A prevResult that is no result is error 7."""
    del conf["dataDir"]  # with which CHECK would be the main role's
    for command in ("ADD", "CHECK"):
        assert "result" in refused(call(command, {**conf, "prevResult": previous}), 7)


@pytest.mark.parametrize(
    "valid",
    [
        "text",
        {},
        ["c1"],
        [{}],
        [{"containerID": "c1"}],
        [{"containerID": 3, "ifname": "eth0"}],
        [{"containerID": "../x", "ifname": "eth0"}],
        [{"containerID": "c1", "ifname": "a/b"}],
    ],
)
def test_attachments_of_another_shape(call, conf, valid):
    """A list of attachments that is none is error 7, and nothing is collected."""
    conf |= {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    refused(call("GC", conf), 7, "1.1.0")


def test_large_but_sound_input(call, conf):
    """A megabyte of unknown keys comes back in the result as it went in."""
    conf["prevResult"] = {"cniVersion": "1.0.0", "x": ["y" * 1000] * 1000}
    answer = call("ADD", json.dumps(conf).encode())
    assert answer.document == conf["prevResult"]

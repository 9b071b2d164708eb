# SPDX-License-Identifier: Apache-2.0
"""`vxlane install` and `vxlane uninstall`, on directories of the test's own."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cniplace import FLANNEL, Place, is_kept_waiting

from vxlane.lab.agents import program as program_of
from vxlane.lab.waiting import wait_for
from vxlane.runtime import network
from vxlane.util import files
from vxlane_cni.request import VERSIONS


@pytest.fixture
def place(tmp_path):
    """A node without anything of CNI."""
    return Place(tmp_path)


def test_drop_in(place):
    """The drop-in form is the executable and one plugin beside flannel's list, which stays."""
    flannel = place.flannel().read_bytes()
    done = place.vxlane("install", "--form", "drop-in")
    assert (done.returncode, done.stderr) == (0, "")
    assert place.files() == ["bin/vxlane", "net.d/10-flannel.conflist", "net.d/cbr0/99-vxlane.conf"]
    assert place.listed("cbr0/99-vxlane.conf") == {"type": "vxlane"}
    assert (place.conf / "10-flannel.conflist").read_bytes() == flannel


def test_a_drop_in_to_nothing_is_told(place):
    """Where no list of flannel's is yet, install says that nothing calls the plugin, and why."""
    done = place.vxlane("install", "--form", "drop-in")
    assert (done.returncode, done.stderr) == (0, "")
    *_, told = done.stdout.splitlines()
    assert told == (
        f"nothing calls the plugin yet: {place.conf} holds no list of network "
        '"cbr0"; start flannel, which writes one, or pass --role main'
    )
    place.flannel()
    assert place.vxlane("install", "--form", "drop-in").stdout == "nothing to do\n"


def test_a_list_without_flannel_is_refused(place):
    """The list form, which is a copy of flannel's list, is refused where there is none."""
    done = place.vxlane("install", "--form", "conflist")
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no network to add to; start flannel first" in done.stderr
    assert place.files() == []


def test_the_role_main_has_one_form(place):
    """Its list is vxlane's own, so another form would be overlooked."""
    done = place.vxlane("install", "--role", "main", "--form", "drop-in")
    assert (done.returncode, place.files()) == (2, [])
    assert "leave --form drop-in out" in done.stderr


def test_runtimes_are_woken(place):
    """A drop-in changes something in the directory itself, for that is what runtimes watch."""
    place.flannel()
    (place.conf / "cbr0").mkdir()
    for command in (["install", "--form", "drop-in"], ["uninstall"]):
        before = place.conf.stat().st_mtime_ns
        place.vxlane(*command)
        assert place.conf.stat().st_mtime_ns > before
        (place.conf / "cbr0").mkdir(exist_ok=True)


def test_conflist(place):
    """The list form is flannel's own list with us at its end, under a name that sorts first."""
    place.flannel()
    assert place.vxlane("install", "--form", "conflist").returncode == 0
    assert place.listed() == {**FLANNEL, "plugins": [*FLANNEL["plugins"], {"type": "vxlane"}]}
    assert min(place.conf.glob("*.conflist")).name == "00-vxlane.conflist"


@pytest.mark.parametrize("form", ["drop-in", "conflist"])
def test_a_list_of_a_version_that_the_plugin_does_not_speak(place, form):
    """It is refused, as flannel's of 2019 or one without: every pod would be an error."""
    for version, more in (("0.2.0", []), ("0.2.0", ["1.2.0"]), ("1.2.0", 7), ("", []), (None, [])):
        place.flannel(cniVersion=version, cniVersions=more)
        done = place.vxlane("install", "--form", form)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"cniVersion {version or 'none'}, which the plugin does not speak" in done.stderr
        assert place.files() == ["net.d/10-flannel.conflist"]
    place.flannel(cniVersion="0.2.0", cniVersions=["0.2.0", "1.0.0"])
    assert place.vxlane("install", "--form", form).returncode == 0


def test_the_versions_are_the_plugin_s():
    """The program does not import the plugin, and knows its versions all the same."""
    assert network.SPOKEN == VERSIONS


@pytest.mark.parametrize("form", ["drop-in", "conflist"])
def test_twice(place, form):
    """The second run changes no file, nor even a time stamp, and says so."""
    place.flannel()
    place.vxlane("install", "--form", form)
    before = [(file, Path(place.bin.parent, file).stat().st_mtime_ns) for file in place.files()]
    assert place.vxlane("install", "--form", form).stdout == "nothing to do\n"
    after = [(file, Path(place.bin.parent, file).stat().st_mtime_ns) for file in place.files()]
    assert after == before


def test_one_form_takes_the_other_s_place(place):
    """Changing the form removes the other one, so that the plugin is called once a pod."""
    place.flannel()
    place.vxlane("install", "--form", "conflist")
    place.vxlane("install", "--form", "drop-in")
    assert "net.d/00-vxlane.conflist" not in place.files()
    place.vxlane("install", "--form", "conflist")
    assert place.files()[1:] == ["net.d/00-vxlane.conflist", "net.d/10-flannel.conflist"]


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_one_at_a_time(place, command):
    """A second run waits until the first one has ended: two would write the same new files, and a
    list could name a plugin that the other has removed.
    """
    place.flannel()
    place.vxlane("install", "--form", "conflist")
    with files.alone(place.bin):
        before = place.files()
        (place.bin / "vxlane").write_bytes(b"another version")
        directories = ["--cni-bin-dir", place.bin, "--cni-conf-dir", place.conf]
        second = subprocess.Popen([program_of("vxlane"), command, *directories])
        wait_for(lambda: is_kept_waiting(second), "the second run", seconds=20)
        assert place.files() == before
        assert (place.bin / "vxlane").read_bytes() == b"another version"
    assert second.wait(timeout=20) == 0
    assert ("bin/vxlane" in place.files()) == (command == "install")


def test_what_another_run_installs_meanwhile_is_replaced(place):
    """Nobody would ever remove it: its drop-in, and its executable in another directory."""
    place.bin.mkdir()
    other = place.bin.with_name("other bin") / "vxlane"
    options = ["--cni-bin-dir", place.bin, "--cni-conf-dir", place.conf, "--form", "drop-in"]
    with files.alone(place.bin):
        second = subprocess.Popen([program_of("vxlane"), "install", *options])
        wait_for(lambda: is_kept_waiting(second), "the second run", seconds=20)
        options[1] = other.parent
        assert place.run("install", *options, "--network-name", "other").returncode == 0
    assert second.wait(timeout=20) == 0
    assert place.files() == ["bin/vxlane", "net.d/cbr0/99-vxlane.conf"]
    place.vxlane("uninstall")
    assert place.files() == []
    assert not other.exists()


def test_conflist_follows_flannel_s(place):
    """After flannel's list has changed, the next install makes the copy anew."""
    place.flannel()
    place.vxlane("install", "--form", "conflist")
    place.flannel(cniVersion="1.0.0")
    assert "wrote" in place.vxlane("install", "--form", "conflist").stdout
    assert place.listed()["cniVersion"] == "1.0.0"


def test_options_of_the_plugin(place, monkeypatch):
    """Only what differs from the defaults is in the configuration."""
    monkeypatch.setenv("VXLANE_STATE_DIR", "/run/elsewhere")
    place.vxlane("install", "--form", "drop-in", "--required", "--network-name", "pods")
    wanted = {"type": "vxlane", "stateDir": "/run/elsewhere", "required": True}
    assert place.listed("pods/99-vxlane.conf") == wanted


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (None, None, "holds no network to add to; start flannel first, or pass --role main"),
        ("05-other.conflist", '{"name": "other", "plugins": []}', 'network "other", not "cbr0"'),
        ("05-cut.conflist", '{"name": ', "is not JSON"),
        ("05-list.conflist", "[]", "is not a JSON object"),
        ("05-one.conf", '{"name": "cbr0", "type": "bridge"}', "is a single plugin"),
        ("05-odd.conflist", '{"name": "cbr0", "plugins": ["bridge"]}', "no JSON object; mend it"),
        (
            "05-own.conflist",
            '{"name": "cbr0", "loadOnlyInlinedPlugins": true, "plugins": []}',
            "no drop-in is read; pass --form conflist",
        ),
    ],
)
def test_lists_that_can_t_be_added_to(place, name, content, complaint):
    """What the runtime would use instead of flannel's list is named in one sentence."""
    form = "drop-in" if name == "05-own.conflist" else "conflist"
    if name:
        place.flannel()
        (place.conf / name).write_text(content, encoding="utf-8")
    before = place.files()
    done = place.vxlane("install", "--form", form)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert complaint in done.stderr
    assert place.files() == before


LISTED = '{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "bridge", "mtu": NaN}]}'


@pytest.mark.parametrize("form", ["drop-in", "conflist"])
@pytest.mark.parametrize(
    "content",
    [None, b"[" * 100_000, LISTED.encode(), LISTED.replace("NaN", "1").encode("utf-16")],
    ids=["directory", "deep JSON", "NaN", "UTF-16"],
)
def test_lists_that_can_t_be_read(place, form, content):
    """What no runtime reads, be it a directory or text, is one sentence and changes nothing."""
    place.conf.mkdir(parents=True, exist_ok=True)
    file = place.conf / "05-odd.conflist"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    done = place.vxlane("install", "--form", form)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"vxlane: {file} " in done.stderr
    assert "mend it first" in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.bin.exists()


def test_a_file_that_can_t_be_written_is_named(place):
    """Where it gets no room, and what was there stays whole."""
    place.flannel()
    place.vxlane("install", "--form", "conflist", "--interpreter", "/bin/true")
    program = place.bin / "vxlane"
    before = program.read_bytes()
    places = ["--cni-bin-dir", place.bin, "--cni-conf-dir", place.conf]
    argv = ["prlimit", "--fsize=10000", program_of("vxlane"), "install", *places]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"vxlane: {program}: File too large\n"
    assert list(place.bin.iterdir()) == [program]
    assert program.read_bytes() == before


@pytest.mark.parametrize("form", ["drop-in", "conflist"])
def test_network_of_another_name(place, form):
    """A network that runtimes do not use is not added to in any form."""
    place.flannel(name="podnet")
    done = place.vxlane("install", "--form", form)
    assert done.returncode == 1
    assert "--network-name" in done.stderr
    assert place.files() == ["net.d/10-flannel.conflist"]
    assert place.vxlane("install", "--form", form, "--network-name", "podnet").returncode == 0


@pytest.mark.parametrize("name", ["../up", "..", ".", "", "a/b", "a\n"])
def test_hostile_network_name(place, name):
    """A network's name is not a way out of the configuration directory."""
    done = place.vxlane("install", "--form", "drop-in", "--network-name", name)
    assert (done.returncode, place.files()) == (1, [])
    assert list(place.bin.parent.iterdir()) == []


def test_drop_in_beside_multus(place):
    """Where another's list comes first, flannel's is read by name, and the drop-in with it."""
    place.flannel()
    multus = {"name": "multus-cni-network", "type": "multus"}
    (place.conf / "00-multus.conf").write_text(json.dumps(multus), encoding="utf-8")
    assert place.vxlane("install", "--form", "drop-in").returncode == 0
    assert "net.d/cbr0/99-vxlane.conf" in place.files()


def test_the_only_list_stays(place):
    """After the main role, a drop-in to no list is refused, and the node keeps its network."""
    place.vxlane("install", "--role", "main")
    before = place.files()
    done = place.vxlane("install", "--form", "drop-in")
    assert (done.returncode, place.files()) == (1, before)
    assert "there would be no network" in done.stderr


@pytest.mark.parametrize("form", ["drop-in", "conflist"])
def test_uninstall(place, form):
    """Nothing of ours is left, all of flannel's is, and a second run has nothing to do."""
    place.flannel()
    place.vxlane("install", "--form", form)
    assert place.vxlane("uninstall").returncode == 0
    assert place.files() == ["net.d/10-flannel.conflist"]
    assert not (place.conf / "cbr0").exists()
    assert place.vxlane("uninstall").stdout == "nothing to do\n"


@pytest.mark.parametrize("form", ["drop-in", "conflist"])
def test_a_network_of_another_name_is_remembered(place, form):
    """By uninstall, which need not be told, and by an install for the network's next name: a list
    that names a plugin which is gone would fail every pod.
    """
    place.flannel(name="podnet")
    place.vxlane("install", "--form", form, "--network-name", "podnet")
    place.vxlane("uninstall")
    assert place.files() == ["net.d/10-flannel.conflist"]
    place.vxlane("install", "--form", form, "--network-name", "podnet")
    place.flannel()
    place.vxlane("install", "--form", form)
    assert not (place.conf / "podnet").exists()
    place.vxlane("uninstall")
    assert place.files() == ["net.d/10-flannel.conflist"]


def test_uninstall_keeps_others_drop_ins(place):
    """A drop-in of someone else keeps the directory."""
    place.vxlane("install", "--form", "drop-in")
    other = place.conf / "cbr0" / "50-other.conf"
    other.write_text("{}", encoding="utf-8")
    place.vxlane("uninstall")
    assert place.files() == ["net.d/cbr0/50-other.conf"]


def test_uninstall_keeps_what_pods_need(place):
    """While a cached list names the plugin, the executable stays, and the reason is told."""
    place.vxlane("install", "--form", "drop-in")
    config = base64.b64encode(json.dumps({"plugins": [{"type": "vxlane"}]}).encode()).decode()
    entry = {"containerId": "c1", "ifName": "eth0", "networkName": "cbr0", "result": 3}
    file = place.cache / "results" / "cbr0-c1-eth0"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**entry, "config": config}), encoding="utf-8")
    done = place.vxlane("uninstall")
    assert place.files() == ["bin/vxlane"]
    assert "pods that were made with it (1)" in done.stdout
    file.unlink()
    place.vxlane("uninstall")
    assert place.files() == []


def test_uninstall_keeps_what_a_list_of_somebody_names(place):
    """Else each new pod would fail: a list by hand is mended by hand."""
    plugins = [*FLANNEL["plugins"], {"type": "vxlane"}]
    list_by_hand = place.flannel(plugins=plugins)
    place.vxlane("install")
    assert f"kept {place.bin}/vxlane: a list in {place.conf}" in place.vxlane("uninstall").stdout
    assert place.files() == ["bin/vxlane", "net.d/10-flannel.conflist"]
    list_by_hand.unlink()
    assert place.vxlane("uninstall").stdout == f"removed {place.bin}/vxlane\n"

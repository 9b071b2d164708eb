# SPDX-License-Identifier: Apache-2.0
"""Making and removing labs, also when the maker is killed."""

import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from vxlane.cli.lab import lab as lab_commands
from vxlane.errors import ConfigError, LabError, ToolError
from vxlane.lab import lab as labs
from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.lab.plan import LABS, is_namespace_of
from vxlane.lab.waiting import wait_for

NAME = f"vxtest-{os.getpid()}-updown"
OTHERS = 60
"""Seconds: labs are made and removed one after the other, and other tests have some too."""
TWO_KERNEL_NODES = ("--name", NAME, "--nodes", "2", "--kernel-nodes", "2")


def traces():
    """All that exists of the lab: namespaces, processes in them, mounts, files."""
    mine = [name for name in namespaces.existing() if is_namespace_of(NAME, name)]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").count(f"/{NAME}/")
    return [*mine, *namespaces.pids(*mine), *["mount"] * mounts, *LABS.glob(NAME)]


@pytest.fixture(autouse=True)
def _leave_nothing(_machine):
    yield
    labs.down(NAME)


def test_down_leaves_no_trace():
    """Namespaces, processes, mounts and files of a lab are gone after down."""
    lab = labs.up(NAME, nodes=2, pods_per_node=1, kernel_only=2)
    sleeper = subprocess.Popen(namespaces.inside(lab.pods[0].name, ["sleep", "60"]))
    wait_for(lambda: namespaces.pids(lab.pods[0].name), "the sleeper")
    labs.down(NAME)
    assert traces() == []
    assert sleeper.wait(timeout=1) == -signal.SIGKILL


def test_down_of_nothing_is_no_error():
    """Down may be called when there is no lab, and twice."""
    labs.down(NAME)
    labs.down(NAME)


def test_down_says_what_it_removed():
    """A lab's namespaces, its directory, and the log of an agent that failed."""
    labs.up(NAME, nodes=1, pods_per_node=1, kernel_only=1)
    log = LABS / f"{NAME}-node1.log"
    log.write_text("it failed")
    done = down("--name", NAME)
    said = f'removed lab "{NAME}": 3 namespaces, {LABS / NAME}, {log}\n'
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert (traces(), log.exists()) == ([], False)


def test_down_names_a_lab_that_is_not_there():
    """A wrong name is an error that tells the right ones."""
    longer = f"{NAME}-more"
    labs.up(longer, nodes=1, pods_per_node=0, kernel_only=1)
    done = down("--name", NAME)
    labs.down(longer)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f'vxlane: there is no lab "{NAME}"; there are: ')
    assert longer in done.stderr


def test_down_of_the_usual_lab_may_find_nothing(monkeypatch):
    """A script that begins with `lab down` goes on."""
    monkeypatch.setattr(labs, "down", lambda _: [])
    done = CliRunner().invoke(lab_commands, ["down"])
    assert (done.exit_code, done.output.split(";")[0]) == (0, 'there is no lab "lab"')


def down(*words):
    """`vxlane lab down`, both outputs kept, but that another process made a lab meanwhile."""
    command = [program("vxlane"), "lab", "down", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    done.stderr = re.sub(r"^.* makes or removes a lab: waiting for it\n", "", done.stderr)
    return done


def test_down_needs_no_file():
    """A lab whose directory was lost is found by its namespaces' names."""
    labs.up(NAME, nodes=1, pods_per_node=1, kernel_only=1)
    shutil.rmtree(LABS / NAME)
    labs.down(NAME)
    assert traces() == []


def test_up_spares_a_namespace_that_no_lab_made():
    """Another program may have given it the name; what runs in it lives on."""
    foreign = f"{NAME}-node1"
    namespaces.create(foreign)
    with subprocess.Popen(namespaces.inside(foreign, ["sleep", "60"])) as sleeper:
        wait_for(lambda: namespaces.pids(foreign), "the sleeper")
        with pytest.raises(LabError, match=f'^namespace "{foreign}" is there, and no lab'):
            labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
        assert namespaces.pids(foreign) == [sleeper.pid]
        assert not (LABS / NAME).exists()
        sleeper.kill()


def test_down_spares_the_network_that_it_runs_in():
    """`ip netns attach` may have given it a lab's name, and the machine's too."""
    name = f"{NAME}-node1"
    down = f"ip netns attach {name} $$ && exec {program('vxlane')} lab down --name {NAME}"
    command = ["unshare", "--net", "sh", "-c", down]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert namespaces.existing().count(name) == 1
    subprocess.run(["ip", "netns", "del", name], check=True)
    assert done.returncode == 1
    assert f'"{name}" is the network of this command or of the machine' in done.stderr


def test_down_spares_a_lab_with_a_longer_name():
    """Lab "x" does not take the namespaces of lab "x-more" for its own."""
    longer = f"{NAME}-more"
    labs.up(longer, nodes=1, pods_per_node=0, kernel_only=1)
    labs.down(NAME)
    assert f"{longer}-node1" in namespaces.existing()
    labs.down(longer)


@pytest.mark.parametrize("moment", range(12))
def test_up_after_a_killed_up(moment):
    """Whenever `up` is killed with -9, the next `up` makes a whole lab of what is there."""
    first = subprocess.Popen([program("vxlane"), "lab", "up", *TWO_KERNEL_NODES])
    wait_for((LABS / NAME).exists, "the lab's directory", seconds=OTHERS)
    time.sleep(moment * 0.02)
    first.kill()
    first.wait()
    lab = labs.up(NAME, nodes=1, pods_per_node=1, kernel_only=1)
    assert len([name for name in namespaces.existing() if is_namespace_of(NAME, name)]) == 3
    namespaces.run(lab.pods[0].name, "ping", "-c1", "-W1", "10.42.1.1")


@pytest.mark.parametrize("moment", [0.2, 0.6, 1.5, 4.0])
def test_down_after_a_killed_up_with_agents(moment):
    """Agents, their pins and mounts of a killed `up` are gone after `down`."""
    up = subprocess.Popen(
        [program("vxlane"), "lab", "up", "--name", NAME], stdout=subprocess.DEVNULL
    )
    wait_for((LABS / NAME).exists, "the lab's directory", seconds=OTHERS)
    time.sleep(moment)
    up.kill()
    up.wait()
    labs.down(NAME)
    assert traces() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.0, 0.1, 0.5])
def test_interrupted_up_removes_what_it_made(number, moment):
    """Ctrl-C or a polite kill in the middle of `up` leaves nothing, not even a late command's."""
    up = subprocess.Popen(
        [program("vxlane"), "lab", "up", "--name", NAME], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: f"{NAME}-switch" in namespaces.existing(), "the switch", seconds=OTHERS)
    time.sleep(moment)
    up.send_signal(number)
    _, errors = up.communicate(timeout=OTHERS)
    assert up.returncode == 1
    assert "Traceback" not in errors
    assert traces() == []


def test_up_says_whom_it_waits_for():
    """While another command has the labs' lock, its process is named; Ctrl-C ends the wait."""
    LABS.mkdir(exist_ok=True)
    directory = os.open(LABS, os.O_RDONLY)
    wait_for(lambda: _is_locked(directory), "the lock", seconds=OTHERS)
    command = [program("vxlane"), "lab", "up", *TWO_KERNEL_NODES]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
        select.select([up.stderr], [], [], 10)
        up.send_signal(signal.SIGINT)
        _, said = up.communicate(timeout=10)
    os.close(directory)
    waits = f"process {os.getpid()} makes or removes a lab: waiting for it"
    assert said.split("\n") == [waits, "", "Aborted!", ""]


def test_what_a_killed_one_started_is_waited_for(tmp_path, monkeypatch, caplog):
    """It has the lock of its parent, which is gone and has no number to tell."""
    monkeypatch.setattr(labs, "LABS", tmp_path)
    command = ["flock", str(tmp_path), "sh", "-c", "kill -9 $PPID; echo; exec sleep 0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with labs._one_at_a_time():
            assert caplog.messages == ["another process makes or removes a lab: waiting for it"]


def _is_locked(directory):
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_failed_up_removes_what_it_made(monkeypatch):
    """When a CNI plugin is missing, `up` says so and leaves nothing."""
    monkeypatch.setattr("vxlane.lab.pods.PLUGINS", Path("/nonexistent"))
    with pytest.raises(ToolError, match=r'CNI plugin "bridge" is not in .*; install it'):
        labs.up(NAME, nodes=1, pods_per_node=1, kernel_only=1)
    assert traces() == []


def test_an_open_umask_opens_no_directory():
    """An agent refuses a state directory that others may write to."""
    before = os.umask(0)
    try:
        labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    finally:
        os.umask(before)
    for directory in (LABS / NAME, LABS / NAME / "node1"):
        assert directory.stat().st_mode & 0o777 == 0o755


def test_options_of_the_machine_s_agent_are_not_a_lab_s(monkeypatch):
    """A shell may have read /etc/default/vxlane, or flanneld's file."""
    monkeypatch.setenv("FLANNELD_IP_BLACKHOLE_ROUTE", "true")
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=0)
    assert "blackhole" not in namespaces.run(f"{NAME}-node1", "ip", "route").stdout


def test_the_machine_s_cni_files_are_not_a_lab_s_to_keep(tmp_path):
    """Its agents leave them as they are, though a node's agent puts a list back that is gone."""
    directory = tmp_path / "etc/cni/net.d"
    directory.mkdir(parents=True)
    listed = '{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]}'
    (directory / "10-flannel.conflist").write_text(listed, encoding="utf-8")
    places = ["--cni-conf-dir", directory, "--cni-bin-dir", tmp_path / "opt/cni/bin"]
    install = [program("vxlane"), "install", "--form", "conflist", *places]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    (directory / "00-vxlane.conflist").unlink()
    options = ["--host-root", str(tmp_path)]
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=0, agent_options=options)
    assert not (directory / "00-vxlane.conflist").exists()


@pytest.mark.parametrize("limit", ["size=12k", "size=80k", "nr_inodes=12"])
def test_up_says_that_there_is_no_room(limit):
    """Where a lab's files don't fit, `up` says so soon, and leaves nothing."""
    script = f"""
        mount -t tmpfs -o {limit} vxlane-test {LABS}
        {program("vxlane")} lab up --name {NAME}
        echo "status $?"; find {LABS} -mindepth 1; ls /run/netns | grep {NAME}"""
    LABS.mkdir(exist_ok=True)
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=OTHERS)
    assert done.stderr == f"vxlane: {LABS} has no room for this lab; make some there\n"
    assert done.stdout == "status 1\n"


def test_status_and_exec_work_from_another_process():
    """`lab status --json` lists nodes and pods, and `lab exec` runs where its name says."""
    vxlane = program("vxlane")
    subprocess.run([vxlane, "lab", "up", *TWO_KERNEL_NODES], check=True, stdout=subprocess.DEVNULL)
    said = subprocess.check_output([vxlane, "lab", "status", "--name", NAME, "--json"])
    status = json.loads(said)
    assert [(node["name"], node["podCIDR"], node["kernel_only"]) for node in status["nodes"]] == [
        (f"{NAME}-node1", "10.42.1.0/24", True),
        (f"{NAME}-node2", "10.42.2.0/24", True),
    ]
    pod, other = status["pods"][0], status["pods"][-1]
    assert pod.keys() >= {"name", "node", "netns", "address", "veth", "mac"}
    command = [vxlane, "lab", "exec", pod["name"], "--", "ping", "-c1", "-W2", other["address"]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    echo = "echo $VXLANE_STATE_DIR; echo $FLANNELD_SUBNET_FILE"
    shown = ["sh", "-c", f"{echo}; ls $VXLANE_CNI_CACHE_DIR/results; ip -br link"]
    said = subprocess.check_output([vxlane, "lab", "exec", pod["node"], "--", *shown], text=True)
    directory = f"/run/vxlane-lab/{NAME}/node1"
    assert said.splitlines()[:2] == [directory, f"{directory}/subnet.env"]
    assert f"cbr0-{pod['name']}-eth0" in said
    assert f"{pod['veth']}@" in said


def test_exec_passes_status_on():
    """`lab exec` ends with the status of what it ran."""
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    command = [program("vxlane"), "lab", "exec", f"{NAME}-node1", "--", "sh", "-c", "exit 7"]
    assert subprocess.run(command, check=False).returncode == 7


def test_exec_leaves_a_command_its_options():
    """What stands behind the command's word is the command's, `--help` and `--` too."""
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    command = [program("vxlane"), "lab", "exec"]
    for before in ([f"{NAME}-node1"], [f"{NAME}-node1", "--"], ["--", f"{NAME}-node1"]):
        argv = [*command, *before, "echo", "-x", "--help", "--", "a"]
        assert subprocess.check_output(argv, text=True) == "-x --help -- a\n"
    for own in (["--help"], [f"{NAME}-node1", "--help"]):
        said = subprocess.check_output([*command, *own], text=True)
        assert said.startswith("Usage: vxlane lab exec [OPTIONS] NAMESPACE COMMAND...\n")


def test_exec_starts_a_command_as_a_shell_does():
    """The signals that Python ignores are not ignored in it; and no PATH is needed."""
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    command = [program("vxlane"), "lab", "exec", f"{NAME}-node1", "--"]
    shown = ["grep", "SigIgn", "/proc/self/status"]
    said = subprocess.check_output([*command, *shown], text=True, env={})
    ignored = int(said.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x", "nodes": [{}], "pods": []}'])
def test_a_damaged_file_is_told_so(content):
    """Whatever is wrong with a lab's file, it is named with the command that removes the lab."""
    (LABS / NAME).mkdir(parents=True)
    (LABS / NAME / "lab.json").write_text(content)
    with pytest.raises(LabError, match=f"lab.json is damaged; .* vxlane lab down --name {NAME}"):
        labs.load(NAME)


@pytest.mark.parametrize("name", ["", "Lab", "../lab", "a b", "1lab", "x" * 32])
def test_unusable_names(name):
    """A name that can't be part of a path and of namespaces' names is refused."""
    with pytest.raises(ConfigError, match="can't be used"):
        labs.up(name, nodes=1, pods_per_node=0, kernel_only=0)


def test_unknown_namespace_names_those_that_exist():
    """`lab exec` of a name that no lab has lists the names there are."""
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    with pytest.raises(LabError, match=f'no lab has "nowhere"; there are: .*{NAME}-node1'):
        labs.find("nowhere")


def test_a_damaged_file_is_in_no_other_labs_way():
    """A lab's parts are found, and all parts told, whatever the file of another lab is like."""
    labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    damaged = f"{NAME}-bad"
    (LABS / damaged).mkdir()
    (LABS / damaged / "lab.json").write_text("{")
    try:
        assert labs.find(f"{NAME}-node1")
        with pytest.raises(LabError, match=f'no lab has "nowhere"; there are: .*{NAME}-node1'):
            labs.find("nowhere")
    finally:
        labs.down(damaged)


HOLDER = """
import sys, time
from vxlane.lab import lab as labs
with labs.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_name_is_one_command_s():
    """While a command has a name no other gets it, nor makes a lab in its place; a killed one has
    none.
    """
    made = labs.up(NAME, nodes=1, pods_per_node=0, kernel_only=1)
    argv = [sys.executable, "-c", HOLDER, NAME]
    demo = [program("vxlane"), "lab", "demo", "--name", NAME]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            done = subprocess.run(demo, check=False, capture_output=True, text=True)
        finally:
            holder.kill()
    assert done.returncode == 1
    assert done.stderr == (
        f'vxlane: another command has labs of the name "{NAME}"; wait for its end, or give another'
        " --name\n"
    )
    assert labs.load(NAME).nodes == made.nodes
    with labs.held(NAME):
        pass

# SPDX-License-Identifier: Apache-2.0
"""Being let in by a real etcd: TLS, users, and what is said when one is not."""

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest
from etcdserver import EtcdServer
from following import QUICK, wait_for

from vxlane.errors import ConfigError, SourceError
from vxlane.sources.etcd.access import DEFAULT_PREFIX, EtcdAccess
from vxlane.sources.etcd.source import EtcdSource, network_config
from vxlane.sources.model import Announcement, Backend

CONFIG = '{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}'
OWN = Announcement(IPv4Address("192.168.1.10"), Backend.VXLAN, 1, "12:c6:65:89:b4:e3")


@pytest.fixture(scope="module")
def guarded(
    _machine: None, tmp_path_factory: pytest.TempPathFactory, pki: SimpleNamespace
) -> Iterator[EtcdServer]:
    """An etcd that wants TLS with a certificate of our CA, and a user."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"), pki).up()
    server.ctl("put", f"{DEFAULT_PREFIX}/config", CONFIG)
    server.ctl("user", "add", "root:secret")
    server.ctl("user", "grant-role", "root", "root")
    server.ctl("role", "add", "network")
    server.ctl("role", "grant-permission", "--prefix=true", "network", "readwrite", DEFAULT_PREFIX)
    for user in "flannel", "nobody":
        server.ctl("user", "add", f"{user}:{user}")
    server.ctl("user", "grant-role", "flannel", "network")
    server.ctl("auth", "enable")
    yield server
    server.close()


def access(server: EtcdServer, pki: SimpleNamespace, user: str, password: str = "") -> EtcdAccess:
    """How `user` gets in."""
    return EtcdAccess(
        (server.url,),
        authority=pki.ca_crt,
        certificate=pki.nameless_crt,
        key=pki.nameless_key,
        username=user,
        password=password or user,
    )


def test_a_user_with_a_certificate_follows_and_announces(
    guarded: EtcdServer, pki: SimpleNamespace
) -> None:
    """Over TLS and with a token, a node reads, gets a subnet, and sees it come."""
    with closing(EtcdSource(access(guarded, pki, "flannel"), OWN.address, timing=QUICK)) as source:
        source.start()
        source.announce(OWN)
        assert not wait_for(source, lambda s: s.own).problems


def test_a_dead_token_is_replaced_without_an_error(
    guarded: EtcdServer, pki: SimpleNamespace
) -> None:
    """A token that etcd no longer knows is answered by a new one, for calls and for watches."""
    with closing(EtcdSource(access(guarded, pki, "flannel"), OWN.address, timing=QUICK)) as source:
        source.start()
        wait_for(source, lambda s: s.read_at)
        source._gateway._token = "dead.1"
        source.announce(OWN)
        assert not wait_for(source, lambda s: s.own).error


@pytest.mark.usefixtures("_machine")
def test_a_token_that_a_change_of_users_has_ended_is_replaced(tmp_path: Path) -> None:
    """A JWT of before the change is refused for ever, in other words than one that is over."""
    key = tmp_path / "key"
    key.write_text("of the tokens")
    how = f"jwt,sign-method=HS256,priv-key={key}"
    server = EtcdServer(tmp_path, options=["--auth-token", how]).up()
    way = EtcdAccess((server.url,), username="root", password="secret")
    root = ["--user", "root:secret"]
    with closing(server), closing(EtcdSource(way, OWN.address, timing=QUICK)) as source:
        server.ctl("put", f"{DEFAULT_PREFIX}/config", CONFIG)
        server.ctl("user", "add", "root:secret")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("auth", "enable")
        source.start()
        wait_for(source, lambda s: s.read_at)
        server.ctl(*root, "user", "add", "another:secret")
        source.announce(OWN)
        assert not wait_for(source, lambda s: s.own).problems


def test_an_etcd_without_authentication_takes_any_user(etcd: EtcdServer) -> None:
    """As etcd's own client, and so flanneld: it may be turned on later, or off for a while."""
    etcd.ctl("put", "/any/config", CONFIG)
    way = EtcdAccess((etcd.url,), "/any", username="flannel", password="flannel")
    assert network_config(way, timing=QUICK) == CONFIG


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("flannel", "wrong", "invalid user ID or password"),
        ("nobody", "nobody", "permission denied"),
        ("", "", "user name is empty"),
    ],
)
def test_a_refused_user_is_told_in_etcds_words(
    guarded: EtcdServer, pki: SimpleNamespace, user: str, password: str, words: str
) -> None:
    """A wrong password, a user without rights and no user at all are each said as such."""
    way = access(guarded, pki, user, password)
    with pytest.raises(SourceError, match=words):
        network_config(way, timing=QUICK)
    with closing(EtcdSource(way, OWN.address, timing=QUICK)) as source:
        source.start()
        assert words in wait_for(source, lambda s: s.error).error


def test_a_client_without_a_certificate_is_refused(
    guarded: EtcdServer, pki: SimpleNamespace
) -> None:
    """Without the certificate that etcd asks for nothing is read, and the error says so."""
    way = dataclasses.replace(access(guarded, pki, "flannel"), certificate=None, key=None)
    with pytest.raises(SourceError, match=r"client certificate|TLS failed .*CERTIFICATE"):
        network_config(way, timing=QUICK)


def test_a_missing_key_file_is_named(pki: SimpleNamespace, tmp_path: Path) -> None:
    """A file that can't be read is named in the error."""
    gone = tmp_path / "gone.key"
    way = EtcdAccess(("https://127.0.0.1:1",), certificate=pki.client_crt, key=gone)
    with pytest.raises(SourceError, match=str(gone)):
        network_config(way, timing=QUICK)


def test_a_common_name_where_it_can_not_be_the_user_is_explained(
    guarded: EtcdServer, pki: SimpleNamespace
) -> None:
    """An etcd with authentication refuses certificates with a common name at its gateway."""
    way = dataclasses.replace(
        access(guarded, pki, "flannel"), certificate=pki.client_crt, key=pki.client_key
    )
    with pytest.raises(SourceError, match="certificate without a common name"):
        network_config(way, timing=QUICK)


@pytest.mark.usefixtures("_machine")
def test_an_etcd_without_the_gateway_is_explained(tmp_path: Path) -> None:
    """Where the gateway is turned off, the error says how to turn it on."""
    server = EtcdServer(tmp_path, options=["--enable-grpc-gateway=false"]).up()
    with closing(server), pytest.raises(SourceError, match="enable-grpc-gateway"):
        network_config(EtcdAccess((server.url,)), timing=QUICK)


def test_an_endpoint_without_a_scheme_is_refused() -> None:
    """What is no address is a ConfigError that shows what one looks like."""
    with pytest.raises(ConfigError, match="https://host:port"):
        EtcdSource(EtcdAccess(("localhost:2379",)), OWN.address)

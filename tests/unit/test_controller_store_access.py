# SPDX-License-Identifier: Apache-2.0
"""etcd over TLS, and with users: what gets in, what does not, and what is said then."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store import AccessError, Check, Event, Put, Store, StoreAccess, StoreError, open_store
from tests.unit.etcd_process import Etcd, Keys

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"), "etcd", "client")


@pytest.fixture(scope="module")
def tls_etcd(keys: Keys) -> Iterator[Etcd]:
    with Etcd(keys=keys) as running:
        yield running


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with Etcd(members=3) as running:
        yield running


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    return file


def client(keys: Keys) -> StoreAccess:
    return StoreAccess(keys.certificate("ca"), keys.certificate("client"), keys.key("client"))


def test_everything_works_over_tls(tls_etcd: Etcd, keys: Keys) -> None:
    store = open_store(tls_etcd.url, client(keys))
    lease = store.grant(60)
    revision = store.write([Put("/sdn/a", b"1", lease=lease)])
    with store.watch("/sdn/", revision) as watch:
        assert store.renew(lease) >= 60
        store.revoke(lease)
        event = watch.next(60)
        assert event is not None
        assert (event.key, event.value) == ("/sdn/a", None)
    store.close()


def test_whom_the_authority_did_not_sign_for_is_not_trusted(
    tls_etcd: Etcd, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.store.etcd.CALL_SECONDS", 2)
    own = client(keys)
    with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED"):
        open_store(tls_etcd.url, StoreAccess(keys.certificate("stranger"), own.certificate, own.key))
    for certificate, key in ((None, None), (keys.certificate("stranger"), keys.key("stranger"))):
        with pytest.raises(StoreError, match="store etcd://"):
            open_store(tls_etcd.url, StoreAccess(own.ca, certificate, key))
    with pytest.raises(StoreError, match="store etcd://"):
        open_store(tls_etcd.url)


def test_a_wrong_file_is_named_with_its_setting(keys: Keys, tmp_path: Path) -> None:
    url, own = "etcd://127.0.0.1:1", client(keys)
    garbage, empty = tmp_path / "garbage", tmp_path / "empty"
    garbage.write_text("no certificate\n")
    empty.write_text("\n")
    missing = tmp_path / "missing"
    for setting, access in (
        ("store_ca", StoreAccess(ca=missing)),
        ("store_ca", StoreAccess(ca=garbage)),
        ("store_ca", StoreAccess(ca=tmp_path)),
        ("store_certificate", StoreAccess(certificate=garbage, key=own.key)),
        ("store_certificate", StoreAccess(certificate=missing, key=own.key)),
        ("store_key", StoreAccess(certificate=own.certificate, key=missing)),
        ("store_key", StoreAccess(certificate=own.certificate, key=garbage)),
        ("store_key", StoreAccess(certificate=own.certificate, key=keys.key("etcd"))),
        ("store_key", StoreAccess(certificate=own.certificate)),
        ("store_key", StoreAccess(key=own.key)),
        ("store_password_file", StoreAccess(user="sdn")),
        ("store_password_file", StoreAccess(password_file=empty)),
        ("store_password_file", StoreAccess(user="sdn", password_file=empty)),
        ("store_password_file", StoreAccess(user="sdn", password_file=missing)),
    ):
        with pytest.raises(AccessError) as refused:
            open_store(url, access)
        assert refused.value.setting == setting
        file = {"store_ca": access.ca, "store_certificate": access.certificate, "store_key": access.key}.get(
            setting, access.password_file
        )
        assert "both or none" in str(refused.value) or str(file) in str(refused.value)
    with pytest.raises(AccessError, match="etcd://HOST") as refused:
        open_store(f"sqlite://{tmp_path}/store.db", own)
    assert refused.value.setting == "store_ca"


def test_the_controller_names_the_setting(keys: Keys, tmp_path: Path) -> None:
    def start(*flags: str) -> str:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "controller.main", "--store", "etcd://127.0.0.1:1"),
                *("--openflow-address", "127.0.0.1:0", "--grpc-socket", f"{tmp_path}/socket", *flags),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        return done.stderr

    assert f"setting store_ca: {tmp_path}/none: No such file" in start("--store-ca", f"{tmp_path}/none")
    assert "store_key: belongs to store_certificate" in start(
        "--store-certificate", str(keys.certificate("client"))
    )
    assert "store_password_file: belongs to store_user" in start("--store-user", "sdn")


def test_a_user_who_may_do_what_is_needed_and_no_more(etcd: Etcd, password: Path) -> None:
    etcd.enable_users("sdn", "s3cret", "/sdn/", "/sdn-writers/")
    store = open_store(etcd.url, StoreAccess(user="sdn", password_file=password))
    lease = store.grant(60)
    first = store.write([Put("/sdn/a", b"1", lease=lease, expect=0)])
    assert store.write([Check("/sdn/a", first)]) == first
    with store.watch("/sdn/", first) as watch:
        assert store.renew(lease) >= 60
        store.revoke(lease)
        event = watch.next(60)
        assert event is not None
        assert (event.key, event.value) == ("/sdn/a", None)
    store.compact(store.revision() - 1)
    with pytest.raises(StoreError, match="permission"):
        store.write([Put("/elsewhere", b"1")])
    with pytest.raises(StoreError, match="permission"):
        store.watch("/elsewhere", 0)
    # What was refused has not disturbed what follows.
    store.write([Put("/sdn/a", b"2", expect=0)])
    store.close()


def test_nobody_and_a_wrong_password_get_nothing(etcd: Etcd, password: Path) -> None:
    etcd.enable_users("sdn", "s3cret", "/sdn/", "/sdn-writers/")
    with pytest.raises(StoreError, match=r"store etcd://.*user name is empty: .*store_user"):
        open_store(etcd.url)
    password.write_text("wrong")
    with pytest.raises(AccessError, match=r"sdn: .*authentication failed") as refused:
        open_store(etcd.url, StoreAccess(user="sdn", password_file=password))
    assert refused.value.setting == "store_user"


def test_a_login_that_is_lost_is_renewed(etcd: Etcd, password: Path) -> None:
    """Members keep tokens in memory; and each change of users makes all of them old."""
    etcd.enable_users("sdn", "s3cret", "/sdn/", "/sdn-writers/")
    store = open_store(etcd.url, StoreAccess(user="sdn", password_file=password))
    lease = store.grant(60)
    first = store.write([Put("/sdn/a", b"1")])
    watch = store.watch("/sdn/", first)
    etcd.ctl("user", "add", "somebody:else")
    second = store.write([Put("/sdn/a", b"2", expect=first)])
    assert store.renew(lease) >= 60
    assert watch.next(60) == Event("/sdn/a", b"2", second)
    for number in range(3):
        etcd.kill(number)
        etcd.restart(number)
        etcd.wait_ready()
        revision = write(store)
        event = watch.next(60)
        while event is not None and event.revision < revision:
            event = watch.next(60)
        assert event == Event("/sdn/a", b"3", revision)
    store.renew(lease)
    # A new password counts from the next login on.
    etcd.ctl("user", "delete", "sdn")
    etcd.ctl("user", "add", "sdn:n3w")
    etcd.ctl("user", "grant-role", "sdn", "sdn")
    password.write_text("n3w\n")
    write(store)
    watch.close()
    store.close()


def write(store: Store) -> int:
    """Write, over an election."""
    for _ in range(5):
        try:
            return store.write([Put("/sdn/a", b"3")])
        except StoreError:
            time.sleep(0.1)
    raise AssertionError("the store does not come back")


def test_users_that_are_turned_on_and_off_while_the_store_is_open(
    etcd: Etcd, password: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        store = open_store(etcd.url, StoreAccess(user="sdn", password_file=password))
    assert "setting store_user: the store has no users" in caplog.text
    first = store.write([Put("/sdn/a", b"1")])
    watch = store.watch("/sdn/", first)
    etcd.enable_users("sdn", "s3cret", "/sdn/", "/sdn-writers/")
    second = store.write([Put("/sdn/a", b"2", expect=first)])
    assert watch.next(60) == Event("/sdn/a", b"2", second)
    etcd.disable_users()
    third = store.write([Put("/sdn/a", b"3", expect=second)])
    assert watch.next(60) == Event("/sdn/a", b"3", third)
    watch.close()
    store.close()

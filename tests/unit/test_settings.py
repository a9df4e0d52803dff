# SPDX-License-Identifier: Apache-2.0
"""Settings come from flags, environment, a TOML file and defaults, in this order; what is wrong is named."""

import enum
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn import settings
from sdn.settings import Meta
from sdn.version import VERSION


class Store(enum.Enum):
    SQLITE = "sqlite"
    ETCD = "etcd"


class Sample(settings.Settings, frozen=True, kw_only=True):
    """One field of every kind that daemons use."""

    listen_address: Annotated[str, Meta(description="Where to listen.", min_length=1)] = "127.0.0.1:1"
    mtu: Annotated[int, Meta(description="Bytes, 100% of them.", ge=0, le=65535)] = 0
    interval: Annotated[float, Meta(description="Seconds between two looks.", gt=0)] = 2.5
    debug: Annotated[bool, Meta(description="Say more.")] = False
    controllers: Annotated[list[str], Meta(description="Controllers by preference.")] = []
    ports: Annotated[tuple[int, ...], Meta(description="Ports.")] = (1, 2)
    encap: Annotated[Literal["geneve", "vxlan"], Meta(description="Encapsulation.")] = "geneve"
    store: Annotated[Store, Meta(description="Where intent is kept.")] = Store.SQLITE
    pod_range: Annotated[ipaddress.IPv4Network | None, Meta(description="Pods' range; empty for none.")] = (
        ipaddress.IPv4Network("10.244.0.0/16")
    )
    state_dir: Annotated[Path, Meta(description="State folder.")] = Path("/var/lib/sdn")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encap == "vxlan" and self.mtu > 9000:
            raise ValueError("mtu and encap: VXLAN carries no frame above 9000 bytes here")


class Demanding(settings.Settings, frozen=True, kw_only=True):
    node_name: Annotated[str, Meta(description="This node's name.")]


PROG = "sdn-agent"


def read(*argv: str, environ: Mapping[str, str] | None = None) -> Sample:
    return settings.read(Sample, PROG, argv, environ or {})


def refusal(*argv: str, environ: Mapping[str, str] | None = None) -> str:
    """The text with which settings are refused; it must be one line."""
    with pytest.raises(settings.SettingsError) as caught:
        read(*argv, environ=environ)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def test_defaults_hold_when_nothing_is_given() -> None:
    assert read() == Sample()


def test_each_source_overrides_the_next(toml: Path) -> None:
    toml.write_text("mtu = 1000\ninterval = 9.0\nencap = 'vxlan'\n")
    environ = {"SDN_AGENT_MTU": "2000", "SDN_AGENT_INTERVAL": "8", "OTHER_MTU": "1"}
    config = read("--config", str(toml), "--mtu", "3000", environ=environ)
    assert (config.mtu, config.interval, config.encap, config.debug) == (3000, 8.0, "vxlan", False)


def test_config_file_may_be_named_by_the_environment_and_the_flag_wins(toml: Path, tmp_path: Path) -> None:
    toml.write_text("mtu = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("mtu = 2\n")
    assert read(environ={"SDN_AGENT_CONFIG": str(toml)}).mtu == 1
    assert read("--config", str(other), environ={"SDN_AGENT_CONFIG": str(toml)}).mtu == 2


def test_usual_file_is_read_if_it_exists(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_usual_file", lambda prog: toml)
    assert read().mtu == 0
    toml.write_text("mtu = 7\n")
    assert read().mtu == 7


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--debug"], "debug", True),
        (["--debug=true"], "debug", True),
        (["--debug", "1"], "debug", True),
        (["--debug", "--no-debug"], "debug", False),
        (["--debug=false"], "debug", False),
        (["--controllers", "a,b"], "controllers", ["a", "b"]),
        (["--controllers", "a", "--controllers=b, c"], "controllers", ["a", "b", "c"]),
        (["--controllers="], "controllers", []),
        (["--ports", "5,6"], "ports", (5, 6)),
        (["--encap", "vxlan"], "encap", "vxlan"),
        (["--store", "etcd"], "store", Store.ETCD),
        (["--pod-range", "10.0.0.0/8"], "pod_range", ipaddress.IPv4Network("10.0.0.0/8")),
        (["--pod-range="], "pod_range", None),
        (["--state-dir", "/x"], "state_dir", Path("/x")),
        (["--interval=0.5"], "interval", 0.5),
        (["--log-level", "debug,os_ken=info"], "log_level", "debug,os_ken=info"),
    ],
)
def test_flags_are_read_as_their_types(argv: list[str], name: str, value: object) -> None:
    assert getattr(read(*argv), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("SDN_AGENT_DEBUG", "true", "debug", True),
        ("SDN_AGENT_DEBUG", "0", "debug", False),
        ("SDN_AGENT_CONTROLLERS", "a, b", "controllers", ["a", "b"]),
        ("SDN_AGENT_CONTROLLERS", "", "controllers", []),
        ("SDN_AGENT_PORTS", "9", "ports", (9,)),
        ("SDN_AGENT_POD_RANGE", "", "pod_range", None),
        ("SDN_AGENT_STATE_DIR", "/y", "state_dir", Path("/y")),
    ],
)
def test_environment_is_read_as_its_types(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(read(environ={variable: text}), name) == value


def test_toml_is_read_as_its_types(toml: Path) -> None:
    toml.write_text(
        'debug = true\ncontrollers = ["a"]\nports = [3]\nstore = "etcd"\n'
        'pod_range = "10.0.0.0/8"\nstate_dir = "/z"\n'
    )
    config = read("--config", str(toml))
    assert config == Sample(
        debug=True,
        controllers=["a"],
        ports=(3,),
        store=Store.ETCD,
        pod_range=ipaddress.IPv4Network("10.0.0.0/8"),
        state_dir=Path("/z"),
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--mtu", "x"], ["mtu", "flag --mtu", "'x'"]),
        (["--mtu", "70000"], ["mtu", "flag --mtu", "65535", "70000"]),
        (["--mtu"], ["--mtu", "argument"]),
        (["--mtux", "1"], ["--mtux", "did you mean --mtu?"]),
        (["--mt", "1"], ["--mt", "no setting"]),
        (["--encap", "stt"], ["encap", "geneve, vxlan"]),
        (["--store", "mysql"], ["store", "sqlite, etcd"]),
        (["--ports", "1,x"], ["ports", "flag --ports"]),
        (["--pod-range", "10.0.0.1/8"], ["pod_range", "host bits"]),
        (["--debug", "perhaps"], ["debug", "perhaps"]),
        (["--listen-address="], ["listen_address"]),
        (["stray"], ["stray", "--NAME VALUE"]),
        (["--config", "/nowhere/x.toml"], ["/nowhere/x.toml", "--config", "No such file"]),
        (["--log-level", "loud"], ["log_level", "loud", "debug"]),
        (["--encap=vxlan", "--mtu=9001"], ["mtu", "encap"]),
    ],
)
def test_wrong_flags_are_refused_by_name(argv: list[str], words: list[str]) -> None:
    text = refusal(*argv)
    assert [word for word in words if word not in text] == []


def test_wrong_environment_is_refused_by_name() -> None:
    text = refusal(environ={"SDN_AGENT_MTU": "-1"})
    assert "mtu" in text
    assert "environment SDN_AGENT_MTU" in text
    assert "SDN_AGENT_MTUS" in refusal(environ={"SDN_AGENT_MTUS": "1"})
    assert "did you mean SDN_AGENT_MTU?" in refusal(environ={"SDN_AGENT_MTUS": "1"})


def test_another_programs_variables_are_let_alone() -> None:
    assert read(environ={"SDN_CONTROLLER_MTU": "1", "SDN_AGENTS": "1"}) == Sample()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("mtuu = 1\n", ["mtuu", "did you mean mtu?"]),
        ('mtu = "1"\n', ["mtu", "file"]),
        ("[mtu]\nx = 1\n", ["mtu", "file"]),
        ("mtu = \n", ["not TOML"]),
        ("state_dir = 5\n", ["state_dir"]),
        ("config = 'x'\n", ["config"]),
    ],
)
def test_wrong_toml_is_refused_by_name(toml: Path, document: str, words: list[str]) -> None:
    toml.write_text(document)
    text = refusal("--config", str(toml))
    assert [word for word in [*words, str(toml)] if word not in text] == []


def test_toml_that_is_not_text_is_refused(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe\x00")
    assert "not TOML" in refusal("--config", str(toml))


def test_what_is_required_is_asked_for_by_all_its_names() -> None:
    with pytest.raises(settings.SettingsError, match=r"node_name.*--node-name.*SDN_AGENT_NODE_NAME"):
        settings.read(Demanding, PROG, [], {})
    assert settings.read(Demanding, PROG, ["--node-name", "n"], {}).node_name == "n"


def test_load_writes_one_line_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.load(Sample, PROG, ["--mtu", "x"], {})
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("sdn-agent: setting mtu (flag --mtu)")


def test_help_tells_every_setting_with_default_environment_and_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.load(Sample, PROG, ["--help"], {})
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in settings.describe(Sample, PROG):
        assert f"{field.flag} " in text
        assert field.description in text
        assert f"[{field.environment}]" in text
    for default in (
        "127.0.0.1:1",
        "2.5",
        "false",
        "empty",
        "1,2",
        "geneve",
        "sqlite",
        "10.244.0.0/16",
        "/var/lib/sdn",
    ):
        assert f"[default: {default}]" in text
    assert "[required]" not in text
    assert "SDN_AGENT_CONFIG" in text
    assert "/etc/sdn/agent.toml" in text


def test_help_of_a_required_setting_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings.load(Demanding, PROG, ["--help"], {})
    assert "[required] [SDN_AGENT_NODE_NAME]" in capsys.readouterr().out


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        settings.load(Sample, PROG, ["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"sdn-agent {VERSION}\n"


def test_a_field_without_description_is_a_mistake_of_ours() -> None:
    class Mute(settings.Settings, frozen=True, kw_only=True):
        mtu: int = 0

    with pytest.raises(TypeError, match=r"Mute\.mtu needs a description"):
        settings.describe(Mute, PROG)


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\x00"), min_size=1)


@given(
    mtu=st.integers(0, 65535), address=TEXT, debug=st.booleans(), ports=st.lists(st.integers(), max_size=5)
)
def test_the_same_values_come_out_of_flags_and_environment(
    mtu: int, address: str, debug: bool, ports: list[int]
) -> None:
    texts = {
        "mtu": str(mtu),
        "listen_address": address,
        "debug": str(debug).lower(),
        "ports": ",".join(map(str, ports)),
    }
    expected = Sample(mtu=mtu, listen_address=address, debug=debug, ports=tuple(ports))
    flags = [f"--{name.replace('_', '-')}={text}" for name, text in texts.items()]
    assert read(*flags) == expected
    assert read(environ={f"SDN_AGENT_{name.upper()}": text for name, text in texts.items()}) == expected


@given(name=st.sampled_from([f.name for f in settings.describe(Sample, PROG)]), text=st.text(max_size=30))
def test_any_text_for_any_setting_is_taken_or_refused_by_its_name(name: str, text: str) -> None:
    flag = "--" + name.replace("_", "-")
    try:
        read(f"{flag}={text}")
    except settings.SettingsError as problem:
        assert name in str(problem)
        assert "\n" not in str(problem)

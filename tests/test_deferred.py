"""What is set on the command line and in config.yaml, before mitmproxy knows the options."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from mitmproxy import exceptions
from mitmproxy.test import taddons

from mitmproxy_aia import deferred
from mitmproxy_aia.addon import Aia
from mitmproxy_aia.options import NAMES
from tests.lab import Proxy
from tests.lab.proxy import ADDON

_Result = TypeVar("_Result")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["aia_timeout=0"], "aia_timeout takes a number of seconds greater than 0, for example 10"),
        (["aia_intermediates=/none"], "aia_intermediates: /none cannot be read (No such file"),
        (["aia_learn=maybe"], "aia_learn takes true or false, and not 'maybe'\n"),
        (["aia_mode"], "aia_mode takes a text, and not nothing\n"),
        (["aia_mode=off", "aia_mode=audit"], "aia_mode takes a text, and not 'off' and 'audit'\n"),
    ],
)
def test_bad_value_at_the_start(settings: list[str], message: str) -> None:
    """mitmdump ends at once, with one line that says what the option takes."""
    said = [line for line in _started(*settings) if "aia_" in line]
    assert len(said) == 1
    assert message in said[0]


def _started(*settings: str) -> list[str]:
    """What a mitmdump says that ends because of these."""
    command = [str(Path(sys.executable).parent / "mitmdump"), "-s", str(ADDON), "-p", "0"]
    for setting in settings:
        command += ["--set", setting]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.stdout.splitlines(keepends=True)


def test_bad_values_are_all_named() -> None:
    """One line each, with those that config.yaml has in another type."""
    values = {
        "aia_learn": "maybe",
        "aia_allow": "pki.example",
        "aia_mode": 5,
        "aia_cache": "memory",
    }

    def load(context: taddons.context) -> list[str]:
        context.options.deferred.update(values)
        with pytest.raises(exceptions.OptionsError) as caught:
            context.master.addons.add(Aia())
        return str(caught.value).split("; ")

    assert _in_mitmproxy(load) == [
        "aia_allow takes a list of texts, and not 'pki.example'",
        "aia_learn takes true or false, and not 'maybe'",
        "aia_mode takes a text, and not 5",
    ]


@pytest.mark.parametrize(("value", "timeout"), [(5, "5"), (2.5, "2.5"), ("7", "7")])
def test_number_in_config_yaml(value: object, timeout: str) -> None:
    """YAML reads it as a number if it has no quotes. What is others' stays for them."""

    def load(context: taddons.context) -> str:
        context.options.deferred.update({"aia_timeout": value, "other": 1})
        context.master.addons.add(Aia())
        assert context.options.deferred == {"other": 1}
        return str(context.options.aia_timeout)

    assert _in_mitmproxy(load) == timeout


@pytest.mark.parametrize(
    ("name", "words"),
    [("aia_timout", "; did you mean aia_timeout?"), ("aia_xyz", "; there are aia_allow, aia_")],
)
def test_unknown_name(name: str, words: str) -> None:
    """A misspelled option is named, and with it the one that is like it."""
    with Proxy(options={name: "5"}) as proxy:
        proxy.wait_for(re.escape(f"{name} is no option of mitmproxy-aia{words}"))


def test_names_of_others() -> None:
    """Options of other scripts, which may yet come, are no business of ours."""

    def load(context: taddons.context) -> list[str]:
        context.options.deferred.update({"other": "x", "aia_mode": "off"})
        context.master.addons.add(Aia())
        return deferred.unknown()

    assert _in_mitmproxy(load) == []


def test_every_option_has_a_kind() -> None:
    """Of each one is told what it takes."""
    bad = dict.fromkeys(NAMES, object())

    def load(context: taddons.context) -> list[str]:
        context.options.deferred.update(bad)
        with pytest.raises(exceptions.OptionsError):
            context.master.addons.add(Aia())
        context.options.deferred.update(bad)
        return deferred.take()

    flaws = _in_mitmproxy(load)
    assert [flaw.split(" takes ")[0] for flaw in flaws] == sorted(NAMES)
    assert {flaw.split(" takes ")[1].split(",")[0] for flaw in flaws} == {
        "a text",
        "true or false",
        "a list of texts",
    }


def _in_mitmproxy(work: Callable[[taddons.context], _Result]) -> _Result:
    async def main() -> _Result:
        with taddons.context() as context:
            return work(context)

    return asyncio.run(main())

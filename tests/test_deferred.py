"""What is set on the command line and in config.yaml, before mitmproxy knows the options."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
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


def _started(*settings: str, scripts: Sequence[Path] = ()) -> list[str]:
    """What a mitmdump says that ends because of these. `scripts` come before the addon."""
    command = [str(Path(sys.executable).parent / "mitmdump"), "-p", "0"]
    for script in [*scripts, ADDON]:
        command += ["-s", str(script)]
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
        "a number of seconds",
        "true or false",
        "a list of texts",
    }


def test_bad_value_of_another_script(tmp_path: Path) -> None:
    """It would keep this addon from being loaded, without a word. It is named as well."""
    other = tmp_path / "other.py"
    other.write_text(
        "def load(loader):\n    loader.add_option('other_number', int, 1, 'A number.')\n"
    )
    said = _started("other_number=x", scripts=[other])
    assert any("other_number: " in line and "nteger" in line for line in said)


def test_bad_value_stays() -> None:
    """Who loads the script once more is told once more, and not left with a default."""

    def load(context: taddons.context) -> list[str]:
        context.options.deferred.update({"aia_mode": 5, "aia_learn": "x", "aia_timeout": "7"})
        told = []
        for _ in range(2):
            with pytest.raises(exceptions.OptionsError) as caught:
                context.master.addons.add(Aia())
            told.append(str(caught.value))
        assert context.options.aia_timeout == "7"
        return told

    first, second = _in_mitmproxy(load)
    assert first == second
    assert "aia_mode takes" in first


def test_all_options_at_once() -> None:
    """A change that mitmproxy takes back is one, also if it is of all options."""

    def change(context: taddons.context) -> None:
        addon = Aia()
        context.master.addons.add(addon)
        everything = set(context.options.keys())
        addon.configure(everything)
        context.options._options["aia_timeout"].value = "0"
        with pytest.raises(exceptions.OptionsError, match="aia_timeout takes"):
            addon.configure(everything)

    _in_mitmproxy(change)


def test_added_again() -> None:
    """After it was removed, it hears of the options as at first."""

    def again(context: taddons.context) -> list[tuple[str, int]]:
        addon, seen = Aia(), []
        context.options.deferred["aia_cache"] = "memory"
        for _ in range(2):
            context.master.addons.add(addon)
            addon.running()
            seen.append((addon._settings.mode, len(addon._turns)))
            context.master.addons.remove(addon)
        return seen

    first, second = _in_mitmproxy(again)
    # Twice in a connection it would get in its own way.
    assert first == second
    assert first[0] == "complete"


def _in_mitmproxy(work: Callable[[taddons.context], _Result]) -> _Result:
    async def main() -> _Result:
        with taddons.context() as context:
            return work(context)

    return asyncio.run(main())

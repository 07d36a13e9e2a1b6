"""What was set with --set or in config.yaml, before mitmproxy knew the addon's options.

mitmproxy keeps it until a script has options of these names. Of a value that does not fit it then
says nothing, or what only its makers understand, and loads the script no further; of a name that
nobody has, it never says anything.
"""

from __future__ import annotations

import difflib

from mitmproxy import ctx, exceptions

from mitmproxy_aia.options import NAMES

_PREFIX = "aia_"
_KINDS = {bool: "true or false", str: "a text", list: "a list of texts"}
"""By the type of what an option is as long as nobody sets it."""


def take() -> list[str]:
    """Gives our options these values. Returns what is wrong with those that do not fit, also of
    scripts that were loaded before: mitmproxy would stumble over them once more, with us."""
    deferred, flaws = ctx.options.deferred, []
    kept = dict(deferred)
    for name in sorted(kept):
        if name not in ctx.options:
            continue
        value = kept[name]
        deferred.clear()
        # YAML reads what has no quotes as a number.
        is_number = name == "aia_timeout" and type(value) in (int, float)
        deferred[name] = str(value) if is_number else value
        try:
            ctx.options.process_deferred()
        except (exceptions.OptionsError, TypeError) as error:
            if name in NAMES:
                flaws.append(f"{name} takes {_kind(name)}, and not {_given(value)}")
            else:
                # It may also be that script which has said no.
                flaws.append(f"{name}: {error}")
        else:
            del kept[name]
    deferred.clear()
    deferred.update(kept)
    return flaws


def unknown() -> list[str]:
    """What is wrong with names that look like our options and are none."""
    names = sorted(name for name in ctx.options.deferred if name.startswith(_PREFIX))
    return [f"{name} is no option of mitmproxy-aia{_meant(name)}" for name in names]


def _kind(name: str) -> str:
    if name == "aia_timeout":
        return "a number of seconds"
    return _KINDS[type(getattr(ctx.options, name))]


def _given(value: object) -> str:
    """`value` as it was written. Those of --set are in an object that is not public."""
    values = getattr(value, "val", [value])
    return " and ".join(map(repr, values)) or "nothing"


def _meant(name: str) -> str:
    ours = sorted(each.removeprefix(_PREFIX) for each in NAMES)
    close = difflib.get_close_matches(name.removeprefix(_PREFIX), ours, n=1)
    if close:
        return f"; did you mean {_PREFIX}{close[0]}?"
    return f"; there are {', '.join(sorted(NAMES))}"

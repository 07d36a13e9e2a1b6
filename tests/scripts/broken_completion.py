"""An addon with a bug, at the place that the environment variable BROKEN names."""

import os

import mitmproxy_aia.addon
from mitmproxy_aia import completion, handshake, pausing, verification


def _broken(*_: object, **__: object) -> object:
    raise RuntimeError("broken on purpose")


# Replacing methods is what this script is for; mypy does not like it.
match os.environ["BROKEN"]:
    case "completion at once":
        completion.Completion.complete_at_once = _broken  # type: ignore[method-assign,assignment]
    case "completion":
        completion.Completion.complete = _broken  # type: ignore[method-assign,assignment]
    case "verifier":
        verification.Verifier.judge = _broken  # type: ignore[method-assign,assignment]
    case "beginning":
        mitmproxy_aia.addon.Aia._begin = _broken  # type: ignore[method-assign,assignment]
    case "conclusion":
        mitmproxy_aia.addon.Aia._conclude = _broken  # type: ignore[method-assign,assignment]
    case "presented":
        handshake.presented = _broken  # type: ignore[attr-defined,assignment]
    case "callback":
        handshake.curable = _broken  # type: ignore[attr-defined,assignment]
    case "no handler":
        del mitmproxy_aia.addon.Aia.aia_complete
    case "handler that gives no outcome":

        async def nothing(self: object, pause: pausing.Pause) -> None:
            pass

        mitmproxy_aia.addon.Aia.aia_complete = nothing  # type: ignore[method-assign]
    case other:
        raise ValueError(other)

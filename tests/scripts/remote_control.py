"""Changes a running mitmdump: `curl http://control.test/aia_mode=off` through the proxy.

`/run/aia.cache.list` runs a command and answers with what it returns, in JSON.
"""

import json
from urllib.parse import unquote

from mitmproxy import ctx, http


class RemoteControl:
    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host != "control.test":
            return
        order = unquote(flow.request.path.removeprefix("/"))
        answer = "done"
        try:
            if order.startswith("unload/"):
                name = order.removeprefix("unload/")
                kept = [script for script in ctx.options.scripts if not script.endswith(name)]
                ctx.options.scripts = kept
            elif order.startswith("run/"):
                name, *arguments = order.removeprefix("run/").split(" ")
                answer = json.dumps(ctx.master.commands.call_strings(name, arguments))
            else:
                ctx.options.set(order)
        except Exception as error:
            flow.response = http.Response.make(400, str(error))
        else:
            flow.response = http.Response.make(200, answer)


addons = [RemoteControl()]

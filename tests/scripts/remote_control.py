"""Changes a running mitmdump: `curl http://control.test/aia_mode=off` through the proxy."""

from mitmproxy import ctx, http


class RemoteControl:
    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host != "control.test":
            return
        order = flow.request.path.removeprefix("/")
        try:
            if order.startswith("unload/"):
                name = order.removeprefix("unload/")
                kept = [script for script in ctx.options.scripts if not script.endswith(name)]
                ctx.options.scripts = kept
            else:
                ctx.options.set(order)
        except Exception as error:
            flow.response = http.Response.make(400, str(error))
        else:
            flow.response = http.Response.make(200, "done")


addons = [RemoteControl()]

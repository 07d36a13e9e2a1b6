"""The page http://mitm.aia/: what happened, for people who look with a browser.

`site` answers requests and knows neither mitmproxy nor the network; `serving` is the addon
that puts it into the proxy, as mitm.it is.
"""

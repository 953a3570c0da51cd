"""Opens pages in headless Chromium through its debugging pipe, and says what is wrong with them. Only Python's own library."""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
]
SIZES = [("wide", 1280, "light"), ("wide-dark", 1280, "dark"), ("phone", 360, "light"), ("phone-dark", 360, "dark")]


class Browser:
    """Chromium, spoken to over file descriptors 3 and 4."""

    def __init__(self, profile):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()

        def descriptors():
            os.dup2(to_read, 30), os.dup2(to_write, 31)
            os.dup2(30, 3), os.dup2(31, 4)

        self.process = subprocess.Popen(
            ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=descriptors, close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        os.close(to_read), os.close(to_write)
        self.rest, self.number, self.events = b"", 0, []

    def message(self):
        while b"\0" not in self.rest:
            data = os.read(self.read, 1 << 20)
            if not data:
                raise SystemExit("chromium has gone away")
            self.rest += data
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method, session=None, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if session:
            request["sessionId"] = session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)


def look(browser, page, name, width, scheme):
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    ask = lambda method, **params: browser.ask(method, session, **params)
    for domain in ["Page", "Runtime", "Log", "Network", "Audits"]:
        ask(f"{domain}.enable")
    ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    ask("Page.navigate", url=page.resolve().as_uri())
    while not any(e.get("method") == "Page.loadEventFired" for e in browser.events):
        browser.events.append(browser.message())
    value = lambda text: ask("Runtime.evaluate", expression=text, returnByValue=True)["result"]["value"]
    wrong = []
    widths = value("[document.documentElement.scrollWidth, innerWidth]")
    if widths[0] > widths[1]:
        wrong.append(f"scrolls sideways: {widths[0]} in {widths[1]}")
        wrong += value(
            "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            ".slice(0, 5).map(e => e.tagName + '.' + e.getAttribute('class') + ' ' + e.textContent.slice(0, 40))"
        )
    if width < 600 and value("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"):
        wrong.append("a table scrolls sideways")
    for event in browser.events:
        method, params = event.get("method", ""), event.get("params", {})
        if method == "Network.requestWillBeSent" and params["request"]["url"] != page.resolve().as_uri():
            wrong.append(f"asks for {params['request']['url'][:100]}")
        if method in ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"]:
            wrong.append(f"{method}: {json.dumps(params)[:300]}")
        if method == "Audits.issueAdded":
            wrong.append(f"issue: {json.dumps(params)[:300]}")
    height = min(value("document.documentElement.scrollHeight"), 16000)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    picture = ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
    page.with_name(f"{page.stem}-{name}.png").write_bytes(base64.b64decode(picture))
    if name == "wide":
        pdf = ask("Page.printToPDF", printBackground=True)["data"]
        page.with_suffix(".pdf").write_bytes(base64.b64decode(pdf))
    browser.ask("Target.closeTarget", targetId=target)
    return wrong


def main():
    pages = sorted(pathlib.Path(sys.argv[1]).glob("*.html"))
    failed = not pages
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        try:
            for page in pages:
                for name, width, scheme in SIZES:
                    wrong = look(browser, page, name, width, scheme)
                    print(f"{page.name} {name}: {'; '.join(wrong) if wrong else 'fine'}")
                    failed |= bool(wrong)
        finally:
            browser.process.terminate()
            browser.process.wait()
    sys.exit(failed)


main()

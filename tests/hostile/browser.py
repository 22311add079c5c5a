"""A headless Chromium, driven over its pipe, to test pages as they are displayed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60


class Browser:
    """Opens pages one after the other.

    Args:
        folder: for its profile.

    Attributes:
        requests: addresses that the pages have asked for.
    """

    def __init__(self, folder):
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        script = 'exec 3<&$1 4>&$2; shift 2; exec "$@"'
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
        words = [BROWSER, *options, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(commands), str(answers), *words],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._number, self._waiting, self._events = 0, b"", []
        self.requests = []
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._in)
        os.close(self._out)

    def open(self, path, width=1280, dark=False):
        """Show a file in a window of this width, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", {"features": scheme})
        self._events.clear()
        self._call("Page.navigate", {"url": Path(path).resolve().as_uri()})
        end = time.monotonic() + SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            assert time.monotonic() < end, f"{path} does not load"
            self._read(1.0)

    def value(self, expression):
        """What an expression gives in the page."""
        found = self._call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path):
        """Write what the window shows as a PNG."""
        shot = self._call("Page.captureScreenshot", {"format": "png"})
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method, arguments=None):
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments or {}}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for answer in self._read(1.0):
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return answer["result"]
        raise AssertionError(f"{method} has no answer")

    def _read(self, seconds):
        """Answers that have come; events are kept."""
        if not select.select([self._in], [], [], seconds)[0]:
            return []
        self._waiting += os.read(self._in, 1 << 20)
        *messages, self._waiting = self._waiting.split(b"\0")
        found = [json.loads(message) for message in messages]
        self._events += [each for each in found if "method" in each]
        self.requests += [
            each["params"]["request"]["url"] for each in found if each.get("method") == "Network.requestWillBeSent"
        ]
        return [each for each in found if "id" in each]

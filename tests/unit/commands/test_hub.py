"""Pushes to a local stand-in of the hub: what is uploaded, and errors."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from nbg_lightning.commands.hub import HubError, check_hub, push_folder


class Hub(ThreadingHTTPServer):
    """The part of the hub's HTTP interface that a push of a model needs; ``refuse`` maps a part of a path to a status."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.files, self.blobs, self.refuse, self.asked = {}, {}, {}, {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path.split('?')[0]}")
        for part, status in self.server.refuse.items():
            if part in self.path:
                return self.answer({"error": "no"}, status)
        if self.path.startswith("/upload/"):
            self.server.blobs[self.path.removeprefix("/upload/")] = body
            return self.answer({})
        if self.path.startswith("/api/whoami-v2"):
            good = self.headers["Authorization"] == "Bearer hf_good"
            return self.answer({"name": "me", "type": "user", "orgs": []}, 200 if good else 401)
        if self.path == "/api/validate-yaml":  # of the model card
            return self.answer({"warnings": [], "errors": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repos[name] = asked
            return self.answer({"url": f"{self.server.url}/{name}"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self.answer({"files": [self.mode(each["path"]) for each in files]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = {each["oid"]: {"upload": {"href": f"{self.server.url}/upload/{each['oid']}"}} for each in objects}
            listed = [{"oid": each["oid"], "size": each["size"], "actions": upload[each["oid"]]} for each in objects]
            return self.answer({"transfer": "basic", "objects": listed})
        if "/commit/" in self.path:
            return self.commit([json.loads(line) for line in body.splitlines() if line.strip()])
        return self.answer({"error": f"unknown: {self.path}"}, 404)

    do_GET = do_POST = do_PUT = handle_one

    @staticmethod
    def mode(path):
        kind = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": kind, "shouldIgnore": False, "oid": None}

    def commit(self, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.blobs[value["oid"]]
        name = self.path.split("/api/models/")[1].split("/commit/")[0]
        url = f"{self.server.url}/{name}"
        self.answer({"commitOid": "0" * 40, "commitUrl": f"{url}/commit/{'0' * 40}", "pullRequestUrl": None})


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the stand-in knows Git LFS alone
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    huggingface_hub.close_session()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    (made / "config.json").write_text('{"a": 1}')
    (made / "README.md").write_text("---\nlibrary_name: transformers\n---\n# card\n")
    (made / "model.safetensors").write_bytes(b"\0weights" * 100)
    return made


def test_all_files_arrive_in_one_commit(hub, folder):
    assert check_hub("model") == "me/model" and check_hub("team/model") == "team/model"
    assert push_folder(folder, "me/model", private=True) == f"{hub.url}/me/model"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.repos["me/model"]["visibility"] == "private"
    assert sum("/commit/" in each for each in hub.asked) == 1
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert list(hub.blobs) == [weights]


@pytest.mark.parametrize("name", ["", "a/b/c", "bad name", "-x", "a..b", "x" * 200, "a/<script>"])
def test_names_that_cannot_be(hub, name):
    with pytest.raises(HubError, match="--push-to-hub is invalid") as raised:
        check_hub(name)
    assert "\n" not in str(raised.value) and hub.asked == []


def test_no_token_and_a_wrong_one(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(HubError, match=r"nothing was pushed: the hub does not take the token; .*\(HTTP 401\)"):
        check_hub("model")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="needs a token; log in with `hf auth login`, or set HF_TOKEN"):
        check_hub("model")


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("/api/repos/create", 403, "nothing was pushed to me/model: the token may not write there"),
        (
            "/preupload/",
            403,
            "the repository me/model exists, but no file of this export is in it: the token may not write",
        ),
        ("/commit/", 403, "no file of this export is in it"),
        ("/objects/batch", 401, "no file of this export is in it: the hub does not take the token"),
    ],
)
def test_a_refusal_says_what_the_hub_has_and_how_to_go_on(hub, folder, part, status, message):
    hub.refuse[part] = status
    with pytest.raises(HubError) as raised:
        push_folder(folder, "me/model")
    said = str(raised.value)
    assert message in said and f"(HTTP {status})" in said and "\n" not in said
    assert said.endswith(f"{folder} is whole here; go on with: hf upload me/model {folder}")
    assert hub.files == {}


def test_a_refusal_within_xet_is_told_as_any_other(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    hub.refuse["/xet-write-token/"] = 403
    with pytest.raises(HubError, match=r"the token may not write there; .* \(HTTP 403\)"):
        push_folder(folder, "me/model")


def test_a_network_that_is_gone_and_offline_mode(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="nothing was pushed: the hub cannot be reached") as raised:
        check_hub("model")
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set; unset it to push"):
        check_hub("model")

"""A hub on this machine: the paths of huggingface.co that `huggingface_hub` asks for, over loopback."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serving(handler):
    """The address of a server on this machine, whose requests go to a handler."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Hub:
    """Repositories {name: {file: bytes}}; `log` keeps (method, path, range); the rest makes it misbehave."""

    def __init__(self, repositories):
        self.repositories = repositories
        self.log = []
        self.writers = ()  # tokens that may upload
        self.private = {}  # repository → the token that opens it
        self.lies = {}  # file → the bytes that are sent in place of the right ones
        self.breaks = {}  # file → after how many bytes the connection is cut, once
        self.status = None  # answer everything with it

    @contextlib.contextmanager
    def serve(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.answer(self, body=False)

            def do_GET(self):
                hub.answer(self, body=True)

            def do_POST(self):
                hub.receive(self)

            def log_message(self, *_):
                pass

        with serving(Handler) as address:
            yield address

    def answer(self, request, *, body):
        path = request.path.split("?")[0]
        self.log.append((request.command, path, request.headers.get("Range")))
        parts = path.strip("/").split("/")
        if self.status:
            return self.send(request, self.status, b"", body=body)
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        if name in self.private and token != self.private[name]:
            return self.send(request, 401, b"{}", body=body, **{"X-Error-Code": "RepoNotFound"})
        if name not in self.repositories:
            return self.send(request, 404, b"{}", body=body, **{"X-Error-Code": "RepoNotFound"})
        revision = (parts[5] if len(parts) > 5 else "main") if api else parts[3]
        if revision not in ("main", COMMIT):
            return self.send(request, 404, b"{}", body=body, **{"X-Error-Code": "RevisionNotFound"})
        files = self.repositories[name]
        if api:
            content = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            if "tree" in parts:
                content = [{"type": "file", "path": f, "size": len(c), "oid": "0" * 40} for f, c in files.items()]
            return self.send(request, 200, json.dumps(content).encode(), body=body)
        file = "/".join(parts[4:])
        if file not in files:
            return self.send(request, 404, b"", body=body, **{"X-Error-Code": "EntryNotFound"})
        return self.send_file(request, file, files[file], body=body)

    def receive(self, request):
        """What an upload posts: a repository to make, files to announce, a commit of them."""
        path = request.path.split("?")[0]
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.log.append(("POST", path, None))
        if self.status or token not in self.writers:
            return self.send(request, self.status or 403, b'{"error": "no"}', body=True)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            answer = {"url": f"http://127.0.0.1/{name}"}
            if name in self.repositories:
                return self.send(request, 409, json.dumps(answer).encode(), body=True)
            self.repositories[name] = {}
            self.private |= {name: token} if asked.get("private") or asked.get("visibility") == "private" else {}
        elif path.endswith("/preupload/main"):
            files = [each["path"] for each in json.loads(body)["files"]]
            answer = {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]}
        elif path.endswith("/commit/main"):
            files = self.repositories["/".join(path.split("/")[3:5])]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"success": True, "commitOid": COMMIT, "commitUrl": f"http://127.0.0.1/x/y/commit/{COMMIT}"}
        else:  # validation of the card
            answer = {"warnings": [], "errors": []}
        return self.send(request, 200, json.dumps(answer).encode(), body=True)

    def send_file(self, request, file, content, *, body):
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        content = self.lies.get(file, content)
        begin = 0
        if request.headers.get("Range"):
            begin = int(request.headers["Range"].removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cut = self.breaks.pop(file, None) if body else None
        return self.send(request, 206 if begin else 200, content[begin:], body=body, cut=cut, **headers)

    def send(self, request, status, content, *, body, cut=None, **headers):
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(content)))
        if cut is not None:
            request.send_header("Connection", "close")
        request.end_headers()
        if body:
            request.wfile.write(content[:cut])
        if cut is not None:
            request.wfile.flush()
            request.connection.close()
            request.close_connection = True

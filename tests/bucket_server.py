"""A server of Google Cloud Storage's protocol on this machine: `python bucket_server.py` prints its address.

The emulator of PyPI, with what it lacks: conditions on generations, and a refusal of everything on demand
(`GET /fail?status=403`, ended by `GET /fail?status=200`).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket-one"


class BucketServer:
    """One in a process of its own; everything in it is lost at its end.

    Attributes:
      variables: of the environment, for gcsfs and TensorStore.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.variables = {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            "NO_GCE_CHECK": "true",  # Google's libraries would look for a machine of theirs, for seconds
        }

    def answer_all_with(self, status: int) -> None:
        """Refuses every request with this status; 200 answers them again."""
        urllib.request.urlopen(f"{self.address}/fail?status={status}").close()

    def pause(self) -> None:
        """Accepts connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def serve() -> None:
    from http import server as http

    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.storage import Storage

    refusal = {"status": 200}

    class Handler(server.RequestHandler):
        def _generation(self, bucket: str, name: str) -> str:
            try:
                return self.storage.get_file_obj(bucket, name)["generation"]
            except NotFound:
                return "0"

        def _refused(self) -> int:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if url.path == "/fail":
                refusal["status"] = int(query["status"])
                return 200
            if refusal["status"] != 200:
                return refusal["status"]
            if "ifGenerationMatch" in query:
                bucket, _, rest = url.path.partition("/b/")[2].partition("/o")
                name = unquote(rest.removeprefix("/")) or query["name"]  # not where it stands in the body
                if self._generation(bucket, name) != query["ifGenerationMatch"]:
                    return 412
            return 0

        def _handle(self, method: str) -> None:
            status = self._refused()
            if not status:
                server.Router(self).handle(method)
                return
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b'{"error": {"code": %d, "message": "as the test says"}}' % status
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._handle("GET")

        def do_POST(self) -> None:
            self._handle("POST")

        def do_PUT(self) -> None:
            self._handle("PUT")

        def do_DELETE(self) -> None:
            self._handle("DELETE")

    logging.disable(logging.CRITICAL)
    storage = Storage(use_memory_fs=True)
    server.buckets.create_bucket(BUCKET, storage)
    serving = http.HTTPServer(("127.0.0.1", 0), lambda *arguments: Handler(storage, *arguments))
    print(f"http://127.0.0.1:{serving.server_port}", flush=True)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    serving.serve_forever()


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    serve()

"""Stands for vLLM's server in tests: its flags, the few routes that are used, and its way of draining; no model.

An answer says what was asked for. A prompt "wait" is answered once the server was told to end.
``FAKE_VLLM``: "die" ends it at the start, "sick" never lets it be healthy, "child" has it start another process.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
for name in ("model", "host", "max-lora-rank", "dtype"):
    parser.add_argument(f"--{name}")
parser.add_argument("--served-model-name", nargs="+")
parser.add_argument("--port", type=int)
parser.add_argument("--enable-lora", action="store_true")
FLAGS, _ = parser.parse_known_args()
MODE = os.environ.get("FAKE_VLLM", "")
ADAPTERS: dict[str, str] = {}
ENDING = threading.Event()
HEALTH = iter([503, 503])
"""What /health says before all is well."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    def do_GET(self) -> None:
        """/health and /v1/models."""
        if self.path == "/health":
            return self._answer(503 if MODE == "sick" else next(HEALTH, 200), {})
        self._answer(200, {"data": [{"id": name} for name in [*FLAGS.served_model_name, *ADAPTERS]]})

    def do_POST(self) -> None:
        """Chat, and loading and unloading adapters."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            if not FLAGS.enable_lora or asked["lora_name"] in ADAPTERS:
                return self._answer(400, {"error": "no"})
            ADAPTERS[asked["lora_name"]] = (Path(asked["lora_path"]) / "adapter_model.safetensors").read_text()
            return self._answer(200, {})
        if self.path == "/v1/unload_lora_adapter":
            return self._answer(404 if ADAPTERS.pop(asked["lora_name"], None) is None else 200, {})
        if asked["model"] not in (*FLAGS.served_model_name, *ADAPTERS):
            return self._answer(404, {"error": {"message": f"The model {asked['model']} does not exist."}})
        prompt = asked["messages"][-1]["content"]
        if prompt == "wait":
            print("waiting", flush=True)
            ENDING.wait(60)
        seen = {"model": asked["model"], "weights": ADAPTERS.get(asked["model"]), "seed": asked.get("seed")}
        message = {"role": "assistant", "content": json.dumps({**seen, "port": FLAGS.port})}
        if "you are at" in prompt:  # a grid world
            message["content"] = ("right", "down")[asked.get("seed", 0) % 2]
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self._answer(
            200, {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        )

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Waits for requests in flight when it is closed."""

    daemon_threads = False
    block_on_close = True


def end(*_: Any) -> None:
    """Take no more requests, finish those in flight."""
    ENDING.set()
    threading.Thread(target=http.shutdown).start()


if __name__ == "__main__":
    print("started with", json.dumps({"argv": sys.argv[1:], "pid": os.getpid()}), flush=True)
    print("variables", json.dumps({k: v for k, v in os.environ.items() if "VLLM" in k or k.startswith("HF_")}))
    if MODE == "die":
        sys.exit("no memory left for the cache")
    if MODE == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, flush=True)
    http = Server((FLAGS.host, FLAGS.port), Handler)
    signal.signal(signal.SIGTERM, end)
    http.serve_forever(poll_interval=0.02)
    http.server_close()
    print("drained", flush=True)

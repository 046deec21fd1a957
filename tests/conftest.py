"""Shared fixtures: no network, one torch thread, a tiny model made from scratch."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import postgres
import pytest
from hub_stand_in import Hub
from hypothesis import HealthCheck, settings
from tiny_models import tiny_llama

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # how fast a machine is decides about no test

WORDS = ["up", "down", "left", "right", *"abcdefghijklmnopqrstuvwxyz0123456789.,#_OPSX"]
TEMPLATE = (
    "{% for message in messages %}{{ '<s> ' + message['role'] + ' ' + message['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant' }}{% endif %}"
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare this suite's markers."""
    config.addinivalue_line("markers", "embedded: needs the embedded model (downloaded once, then cached)")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background: children would ignore it, too
        signal.signal(signal.SIGINT, signal.default_int_handler)


Reports = Generator[None, pytest.CollectReport | pytest.TestReport, pytest.CollectReport | pytest.TestReport]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Reports:
    """With LEAFE_NO_SKIPS a file that would be skipped fails."""
    return no_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Reports:
    """With LEAFE_NO_SKIPS a test that would be skipped fails."""
    return no_skip((yield))


def no_skip(report: pytest.CollectReport | pytest.TestReport) -> pytest.CollectReport | pytest.TestReport:
    """A failure in place of a skip, where the tests were asked for by name: `make serve-test`, `make unsloth-test`."""
    if report.skipped and "LEAFE_NO_SKIPS" in os.environ:
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def _loopback_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine; pytest-socket's job, without the package."""
    import socket

    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host not in (None, "127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to connect to {host}; only loopback is allowed")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """However the tests were started, and whatever a test does: neither they nor their children ignore SIGINT."""
    yield
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Keep the machine's other cores free, and sums in one order."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers with one token a word, as an ordinary Hugging Face folder."""
    pytest.importorskip("torch")
    words = ["system", "user", "assistant", "tool", *WORDS]
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny", words, TEMPLATE, initializer_range=0.5)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real server, started when the first test asks for it."""
    binaries = postgres.programs()
    if "LEAFE_NEEDS_POSTGRES" not in os.environ:
        if binaries is None:
            pytest.skip(postgres.MISSING)
        pytest.importorskip("psycopg", reason='pip install ".[postgres]"')
    assert binaries is not None, postgres.MISSING
    with postgres.server(binaries) as server:
        yield server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and a token for it."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason='pip install ".[hf]"')
    from huggingface_hub import constants

    hub = Hub()
    with hub.served() as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        try:
            yield hub
        finally:
            huggingface_hub.close_session()

"""What tells one model from another: a run belongs to its weights, not to their place or name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import ConfigurableField, RunnableLambda
from pydantic import BaseModel

from leafe_graph import Limits, explore
from leafe_graph.cli.main import main
from leafe_graph.errors import ConfigError
from leafe_graph.models import identity as module
from leafe_graph.models.identity import described, digests, file_digest, identity
from leafe_graph.testing import ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

ONCE = {"strategy": "independent", "limits": Limits(max_branches=1), "max_turns": 1}


class Named(ScriptedModel):
    """A model that tells which one it is."""

    named: str

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"named": self.named}


def named(name: str) -> Named:
    """One that always goes up."""
    return Named(reply=lambda messages, seed: "up", named=name)


def play(model: Any, out: Path, **changes: Any) -> RunFolder:
    """One turn of one task."""
    return explore(model, SnapshotGridWorld, grid_tasks(1), out=out, **ONCE | changes)


def other_weights(folder: Path, seed: int = 5) -> None:
    """Give the model in a folder other weights, of the same size."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(folder)


@pytest.fixture
def base(tiny_model_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be changed."""
    return Path(shutil.copytree(tiny_model_path, tmp_path / "a" / "smollm2-135m"))


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "bind": lambda model: model.bind(stop=["x"]),
    "bind twice": lambda model: model.bind(stop=["x"]).bind(seed=3),
    "with_config": lambda model: model.with_config(tags=["t"]),
    "with_retry": lambda model: model.with_retry(),
    "with_fallbacks": lambda model: named("spare").with_fallbacks([model]),
    "configurable_fields": lambda model: model.configurable_fields(named=ConfigurableField(id="n")),
    "configurable_alternatives": lambda model: named("usual").configurable_alternatives(
        ConfigurableField(id="n"), other=model
    ),
    "sequence": lambda model: model | RunnableLambda(lambda message: message),
    "parallel": lambda model: RunnableLambda(lambda said: said) | model | (lambda message: message),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapped_model_is_known_by_the_model_inside(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    """However it is bound or wrapped, another one inside is another run, and the same one goes on."""
    play(wrap(named("large")), tmp_path)
    play(wrap(named("large")), tmp_path)
    with pytest.raises(ConfigError, match="'large' there, 'small' now"):
        play(wrap(named("small")), tmp_path)


def test_what_is_bound_is_known_and_no_secret_is_kept(tmp_path: Path) -> None:
    """Tools and arguments tell one policy from another; keys and headers do not, and are nowhere in the folder."""

    class Walk(BaseModel):
        way: str

    def bound(**kwargs: Any) -> Any:
        return named("m").bind(
            **{"shapes": [Walk], "extra_headers": {"Authorization": "hush"}, "api_key": "hush"} | kwargs
        )

    run = play(bound(), tmp_path)
    assert "hush" not in (tmp_path / "config.json").read_text()
    assert run.config["settings"]["model"]["kwargs"]["shapes"][0]["schema"]["required"] == ["way"]
    play(bound(api_key="another"), tmp_path)
    with pytest.raises(ConfigError, match="shapes"):
        play(bound(shapes=[]), tmp_path)
    assert described({"max_tokens": 3, "access_token": "hush", "x-api-key": "hush"}) == {"max_tokens": 3}


def test_the_same_weights_elsewhere_are_the_same_model(base: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """From Python by a name in another cache, and by folder."""
    moved = shutil.copytree(base.parent, tmp_path / "b") / base.name
    for cache in (base.parent, moved.parent):
        monkeypatch.setenv("LEAFE_CACHE", str(cache))
        run = play("local:smollm2-135m", tmp_path / "run", max_tokens=1)
    play(f"local:{moved}", tmp_path / "run", max_tokens=1)
    assert len(run.branches) == 1


def test_other_weights_at_the_same_place_are_refused(base: Path, tmp_path: Path) -> None:
    """By their digest, old and new; so are another tokenizer and another template, also where the model is bound."""
    from leafe_graph.models.local.chat_model import LocalChatModel

    def go() -> RunFolder:
        return play(LocalChatModel(path=str(base)).bind(stop=["x"]), tmp_path / "run", max_tokens=1)

    go()
    before = identity(str(base))["base"]
    for part, change in (
        ("template", lambda: (base / "chat_template.jinja").write_text("{{ messages[0].content }}")),
        ("config", lambda: (base / "generation_config.json").write_text('{"eos_token_id": 7}')),
        ("weights", lambda: other_weights(base)),
    ):
        kept = shutil.copytree(base, tmp_path / part)
        change()
        now = identity(str(base))["base"]
        with pytest.raises(ConfigError, match=f"{part}: '{before[part]}' there, '{now[part]}' now"):
            go()
        shutil.rmtree(base)
        shutil.copytree(kept, base)
    go()


def test_a_command_is_refused_by_other_weights(base: Path, tmp_path: Path, capsys: Any) -> None:
    """Neither judging nor exploring goes on with samples of weights that are no longer there."""
    play_it = ["--model", f"local:{base}", "--tasks", "1", "--max-turns", "1", "--max-tokens", "1"]
    played = ["--env-options", "size=6,boxes=1", *play_it]
    for command in (["eval", "--samples", "1"], ["explore", "--max-branches", "1"]):
        out = tmp_path / command[0]
        assert main([*command, *played, "--out", str(out)]) == 0
        other_weights(base)
        assert main([*command, *played, "--out", str(out)]) == 2
        assert "settings.weights.model.0.base.weights" in capsys.readouterr().err
    for place in (base, shutil.copytree(base, tmp_path / "moved")):  # in another folder they are the same
        play_it[1] = f"local:{place}"
        assert main(["eval", "--samples", "1", *played[:2], *play_it, "--out", str(tmp_path / "again")]) == 0


def test_a_folder_of_an_earlier_release_goes_on_with_a_warning(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It told class, path and settings only: these are compared, and what it does not know is said."""
    spec = f"local:{base}"
    play(spec, tmp_path / "run", max_tokens=1)
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    del config["settings"]["weights"]
    config["settings"]["model"]["weights"] = []
    file.write_text(json.dumps(config))
    play(spec, tmp_path / "run", max_tokens=1)
    assert "does not tell the weights" in caplog.text
    config["settings"]["model"]["weights"] = ["0123456789abcdef"]  # it was played with an adapter
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"settings\.model\.weights"):
        play(spec, tmp_path / "run", max_tokens=1)


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    """Of a model behind an address no weights are kept."""
    pytest.importorskip("langchain_openai")
    from leafe_graph import load_model

    assert digests(load_model("vllm:m@http://127.0.0.1:9/v1")) == []
    assert play(named("m"), tmp_path).settings.weights == {"model": [], "reflector": []}


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nothing about it changes; one that was written anew in place, with its old times, is read again."""
    file, read = tmp_path / "model.safetensors", []
    digest = module.hashlib.file_digest
    monkeypatch.setattr(module.hashlib, "file_digest", lambda *a: read.append(a) or digest(*a))
    monkeypatch.setattr(module, "SETTLED", -1.0)  # as if it had lain there for long
    file.write_text("one")
    old, before = file.stat(), file_digest(file)
    assert file_digest(file) == before and len(read) == 1
    file.write_text("two")
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert file_digest(file) != before and len(read) == 2
    monkeypatch.setattr(module, "SETTLED", 3600.0)
    (young := tmp_path / "young").write_text("as young as a clock cannot tell")
    assert file_digest(young) == file_digest(young) and len(read) == 4


def test_who_wrote_a_configuration_decides_nothing(base: Path) -> None:
    """The same model saved by another version of transformers is the same model."""
    before = identity(str(base))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"transformers_version": "9.9", "_name_or_path": "/x"}))
    assert identity(str(base)) == before

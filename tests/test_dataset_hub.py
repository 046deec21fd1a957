"""A dataset on the Hugging Face hub: which files go there, and which words do not."""

import json
from pathlib import Path

import pytest
from hub_stand_in import Hub
from test_export import lost_and_recovered
from trees import run_folder

from leafe_graph.dataset.export import export
from leafe_graph.errors import ConfigError, LeafeError


def told(out: Path, model: str = "local:base") -> Path:
    """A run whose settings name this model."""
    run = run_folder(out / "run", lost_and_recovered()).folder
    config = json.loads((run / "config.json").read_text())
    config["settings"] |= {"model": model, "adapter": "/home/me/runs/adapter"}
    (run / "config.json").write_text(json.dumps(config))
    return run


def test_an_upload_is_private_and_holds_the_rows_and_the_card(tmp_path: Path, hub: Hub) -> None:
    """One commit; files of an earlier one that are no more go, and what others put there stays."""
    run = told(tmp_path)
    made = export(run, kinds=["preference"], formats=["trl-dpo"], push_to_hub="us/rows")
    assert made.notes[-1].startswith(f"uploaded to {hub.url}") and hub.repositories["us/rows"]["type"] == "dataset"
    assert hub.repositories["us/rows"]["visibility"] == "private" and hub.tokens == {"Bearer hf_stand_in"}
    assert set(hub.files) == set(made.files) == {"examples.jsonl", "examples.parquet", "trl_dpo.jsonl", "README.md"}
    assert all(hub.files[name] == (run / "examples" / name).read_bytes() for name in made.files if name != "README.md")
    hub.files["notes.md"] = b"by hand"
    export(run, push_to_hub="us/rows")
    assert set(hub.files) == {"examples.jsonl", "examples.parquet", "README.md", "notes.md"}


@pytest.mark.parametrize(
    ("model", "shown"),
    [("local:/home/me/models/base", '"local:base"'), ("vllm:base@http://me:pw@10.0.0.1:8000/v1", '"vllm:base"')],
)
def test_the_card_names_no_place_of_ours(model: str, shown: str, tmp_path: Path, hub: Hub) -> None:
    """Neither folders nor servers; what the model is called stays, and the file here says all."""
    run = told(tmp_path, model)
    export(run, push_to_hub="us/rows")
    card = hub.files["README.md"].decode()
    assert shown in card and '"adapter"' in card
    assert not [word for word in ("/home/me", "10.0.0.1", "pw@", str(tmp_path)) if word in card]
    assert "arxiv.org/abs/2603.16843" in card and "/home/me/runs/adapter" in (run / "examples/README.md").read_text()


def test_a_failed_upload_loses_nothing(tmp_path: Path, hub: Hub) -> None:
    """What was exported lies there, and the same call uploads it."""
    run = told(tmp_path)
    hub.refuses = 403
    with pytest.raises(LeafeError, match=r"(?s)upload to us/rows failed .*Nothing is lost: all lies in .*examples"):
        export(run, push_to_hub="us/rows")
    assert not hub.files and (run / "examples/examples.jsonl").is_file()
    hub.refuses = None
    export(run, push_to_hub="us/rows")
    assert "examples.jsonl" in hub.files


def test_what_cannot_be_uploaded_is_told_before_the_export(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token, or a name that the hub does not take."""
    import huggingface_hub

    run = told(tmp_path)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="set HF_TOKEN"):
        export(run, push_to_hub="us/rows")
    with pytest.raises(ConfigError, match="push_to_hub"):
        export(run, push_to_hub="rows")
    assert not (run / "examples").exists()

"""A tokenizer and its chat template from a model's files, without transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids, find_tokenizer_folder
from tests.support.servers.chat_server import TINY_BASE


def test_a_hub_id_is_looked_up_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "models--some--base"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    shutil.copytree(TINY_BASE, model / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_tokenizer_folder("some/base") == model / "snapshots" / "abc"
    assert find_tokenizer_folder("some/other") is None
    assert find_tokenizer_folder("not a hub id / at all") is None


def test_missing_and_broken_files_are_errors_that_name_them(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY_BASE, tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        FileTokenizer(folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(ConfigError, match="chat template of"):
        FileTokenizer(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        FileTokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        FileTokenizer(folder)


@pytest.mark.parametrize("form", ["text", "named", "file"])
def test_the_template_is_read_from_every_place_models_use(tmp_path: Path, form: str) -> None:
    folder = Path(shutil.copytree(TINY_BASE, tmp_path / "base"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ mood }}{{ messages | tojson }}"
    if form == "file":
        (folder / "chat_template.jinja").write_text(template)
    else:
        (folder / "chat_template.jinja").unlink()
        named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
        config["chat_template"] = template if form == "text" else named
    config["bos_token"] = {"content": "<s>", "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = FileTokenizer(folder, {"mood": "!"})
    chat = [{"role": "user", "content": "é<"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == '<s>[é<]![{"role": "user", "content": "é<"}]'


@pytest.mark.slow
def test_ids_and_texts_equal_those_of_transformers() -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(str(TINY_BASE)), FileTokenizer(TINY_BASE)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "0123\n45 ```grid\n\n"}]
    for opened in (True, False):
        text = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=opened)
        assert ours.apply_chat_template(chat, tokenize=False, add_generation_prompt=opened) == text
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False) == ids
        assert ours.decode(ids) == theirs.decode(ids)
    assert ours.all_special_ids >= set(theirs.all_special_ids)


def test_eos_tokens_come_from_the_tokenizer_and_the_model(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY_BASE, tmp_path / "base"))
    eos_text = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    (eos,) = FileTokenizer(folder).encode(eos_text, add_special_tokens=False)
    for name in ("generation_config.json", "config.json"):
        (folder / name).unlink(missing_ok=True)
    assert eos_token_ids(folder) == {eos}
    (folder / "config.json").write_text('{"text_config": {"eos_token_id": 3}}')
    assert eos_token_ids(folder) == {eos, 3}
    (folder / "config.json").write_text('{"eos_token_id": 4, "text_config": {"eos_token_id": 3}}')
    assert eos_token_ids(folder) == {eos, 4}
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6, null]}')
    assert eos_token_ids(folder) == {eos, 5, 6}

"""The tokenizer gives the ids that the original's gave, also after it was saved and opened by plain transformers."""

import json
import shutil

import pytest
import sentencepiece
from conftest import GOLDEN, golden_json
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig

from pipelines.visualcla import load_tokenizer

RELEASE = GOLDEN / "release/visualcla-tiny"
EXPECTED = golden_json("tokenizer")


@pytest.fixture(scope="module", params=["built", "saved", "saved beside a LLaMA"])
def tokenizer(request, tmp_path_factory):
    built = load_tokenizer(RELEASE)
    if request.param == "built":
        return built
    folder = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(folder)
    if request.param == "saved beside a LLaMA":  # transformers must not bring its own LlamaTokenizer in
        LlamaConfig(vocab_size=len(built)).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("case", EXPECTED["encode_cases"], ids=lambda case: repr(case["text"])[:30])
def test_encodes_and_decodes_as_the_original(tokenizer, case):
    ids = tokenizer(case["text"], add_special_tokens=False)["input_ids"]
    assert ids == case["ids_add_special_tokens_False"]
    assert tokenizer(case["text"])["input_ids"] == case["ids_add_special_tokens_True"]
    assert tokenizer.convert_ids_to_tokens(ids) == case["tokens"]
    assert tokenizer.decode(ids) == case["decode"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == case["decode_skip_special"]


@pytest.mark.parametrize("case", EXPECTED["decode_cases"], ids=lambda case: str(case["ids"])[:30])
def test_decodes_any_ids_as_the_original(tokenizer, case):
    assert tokenizer.decode(case["ids"]) == case["decode"]
    assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decode_skip_special"]


@pytest.mark.parametrize(
    "case", golden_json("prompts")["cases"], ids=lambda case: f"{case['history_name']}-{case['text']!r}"[:40]
)
def test_golden_prompts_have_the_original_ids(tokenizer, case):
    assert tokenizer(case["prompt"], add_special_tokens=False)["input_ids"] == case["input_ids"]


def test_special_ids_are_the_releases(tokenizer):
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "img_start": "<img>", "img_end": "</img>"}
    names["img_token"] = "<img_token>"
    assert {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()} == {
        name: EXPECTED[name] for name in names
    }
    assert len(tokenizer) == EXPECTED["len_tokenizer"]
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
    assert roles == (EXPECTED["bos"], EXPECTED["eos"], EXPECTED["unk"], EXPECTED["pad"])


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab heloworld请描述这张图片。，\n\t 😀龘1▁é"), max_size=40))
def test_text_without_special_tokens_is_sentencepieces(golden_tokenizer, text):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(RELEASE / "tokenizer.model"))
    assert golden_tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text)


def test_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no tokenizer: neither 'tokenizer.json' nor 'tokenizer.model'"):
        load_tokenizer(tmp_path)


def test_added_tokens_of_another_vocabulary_are_refused(tmp_path):
    folder = tmp_path / "release"
    shutil.copytree(RELEASE, folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<img>": 49954}))
    with pytest.raises(ValueError, match="'<img>' has the id 49954, but the vocabulary of 700 pieces"):
        load_tokenizer(folder)


TEXT = "<s>what <img><img_token></img>\nis \u8fd9"
FILES = ("tokenizer.model", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture
def copied(tmp_path):
    for name in FILES:
        shutil.copy(GOLDEN / "merged/visualcla-tiny-merged" / name, tmp_path)
    return tmp_path


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize("repeated", [{"<unk>": 0, "<s>": 1, "</s>": 2}, {"[PAD]": 699}])
def test_added_tokens_that_repeat_pieces_change_nothing(golden_tokenizer, copied, repeated):
    change(copied / "added_tokens.json", **repeated)
    assert load_tokenizer(copied)(TEXT)["input_ids"] == golden_tokenizer(TEXT)["input_ids"]


def test_added_tokens_of_newer_files_are_read(golden_tokenizer, copied):
    added = json.loads((copied / "added_tokens.json").read_text(encoding="utf-8"))
    (copied / "added_tokens.json").unlink()
    entries = {str(index): {"content": token, "special": True} for token, index in {"<s>": 1, **added}.items()}
    change(copied / "tokenizer_config.json", added_tokens_decoder=entries)
    assert load_tokenizer(copied)(TEXT)["input_ids"] == golden_tokenizer(TEXT)["input_ids"]


def test_tokenizer_json_counts_whatever_class_its_configuration_names(golden_tokenizer, copied, tmp_path_factory):
    golden_tokenizer.save_pretrained(saved := tmp_path_factory.mktemp("saved"))
    shutil.copy(saved / "tokenizer.json", copied)
    assert json.loads((copied / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"] == "LlamaTokenizer"
    assert load_tokenizer(copied)(TEXT)["input_ids"] == golden_tokenizer(TEXT)["input_ids"]

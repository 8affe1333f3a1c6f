"""OpenFlamingo as the plugin, the chat and a user with old files meet it."""

import os
import shutil

import pytest
import torch
from open_flamingo_files import (
    CASES,
    CHECKPOINT,
    CLIP,
    GOLDEN,
    IMAGE_TOKEN_ID,
    LLAMA,
    LORA,
    NUM_OLD_TOKENS,
    answer,
    expected,
    images,
    inputs_of,
    published,
)
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig

from pipelines.base import ImagePart
from pipelines.embedder import Embedder
from pipelines.generation import ChatModel, message
from pipelines.open_flamingo import load_model, load_pipeline, load_tokenizer, save_model
from pipelines.prompt import Prompt, PromptEncoder

EXPECTED = expected()
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=12)


@pytest.fixture(scope="module")
def whole():
    return published(lora=True)


@pytest.fixture(scope="module")
def folders(whole, tmp_path_factory):
    root = tmp_path_factory.mktemp("open_flamingo")
    return {layout: save_model(*whole, root / layout, layout) for layout in ("webui", "transformers", "original")}


@pytest.fixture
def language_model(folders):
    return AutoModelForCausalLM.from_pretrained(folders["webui"], dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def pipeline(folders):
    return load_pipeline(folders["webui"], dtype=torch.float32)


def prompt_of(case: str) -> Prompt:
    """A recorded prompt, white space around the marks dropped as its tokenizer does."""
    texts = [text.strip() if "<image>" in CASES[case]["prompt"] else text for text in CASES[case]["prompt"].split("<image>")]
    texts[-1] = CASES[case]["prompt"].split("<image>")[-1].lstrip() if len(texts) > 1 else texts[-1]
    parts = ["<s>" + texts[0]]
    for image, text in zip(images(CASES[case]["n_images"]), texts[1:], strict=True):
        parts += [ImagePart.of(image), text]
    return Prompt(tuple(parts))


def logits_of(model, ids, **kwargs):
    with torch.no_grad():
        return model(input_ids=ids, **kwargs).logits


def generate(language_model, ids, **kwargs) -> list[int]:
    generated = language_model.generate(ids, max_new_tokens=12, do_sample=False, **kwargs)
    return generated[0, ids.shape[1] :].tolist()


# -- the language model that somebody else runs


@pytest.mark.parametrize("case", ["single", "two", "multi_turn", "text_only"])
def test_attached_to_a_plain_language_model_it_answers_as_the_original(whole, pipeline, language_model, case):
    embedder = Embedder(PromptEncoder(whole[1].tokenizer, pipeline))
    with pipeline.attach(language_model):
        prepared = embedder.prepare(prompt_of(case), language_model)
        assert prepared.inputs == {}
        assert torch.equal(prepared.input_ids, EXPECTED[f"{case}.input_ids"])
        assert generate(language_model, prepared.input_ids) == CASES[case]["greedy"]


def test_taken_off_the_language_model_is_as_before(whole, pipeline, language_model):
    ids = EXPECTED["single.input_ids"]
    before, hooks = logits_of(language_model, ids), _num_hooks(language_model)
    with pipeline.attach(language_model), pipeline.attach(language_model):
        Embedder(PromptEncoder(whole[1].tokenizer, pipeline)).prepare(prompt_of("single"), language_model)
        assert not torch.equal(logits_of(language_model, ids), before)
    assert torch.equal(logits_of(language_model, ids), before)
    assert _num_hooks(language_model) == hooks


def test_the_first_of_two_users_that_leaves_does_not_blind_the_other(whole, pipeline, language_model):
    with pipeline.attach(language_model):
        with pipeline.attach(language_model):
            pass
        Embedder(PromptEncoder(whole[1].tokenizer, pipeline)).prepare(prompt_of("single"), language_model)
        assert generate(language_model, EXPECTED["single.input_ids"]) == CASES["single"]["greedy"]


def _num_hooks(model) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def test_a_text_after_a_picture_sees_nothing_of_it(whole, pipeline, language_model):
    embedder = Embedder(PromptEncoder(whole[1].tokenizer, pipeline))
    ids = EXPECTED["text_only.input_ids"]
    plain = logits_of(language_model, ids)
    with pipeline.attach(language_model):
        embedder.prepare(prompt_of("single"), language_model)
        embedder.prepare(prompt_of("text_only"), language_model)
        assert torch.equal(logits_of(language_model, ids), plain)
        embedder.prepare(prompt_of("single"), language_model)  # and where nobody said that there is another prompt
        assert torch.equal(logits_of(language_model, ids), plain)


def test_another_picture_in_the_same_text_gives_another_answer(whole, pipeline, language_model):
    embedder = Embedder(PromptEncoder(whole[1].tokenizer, pipeline))
    first, second = images()
    text = prompt_of("single").parts
    with pipeline.attach(language_model):
        logits = []
        for image in (first, second, first):
            ids = embedder.prepare(Prompt((text[0], ImagePart.of(image), text[2])), language_model).input_ids
            logits.append(logits_of(language_model, ids))
    assert torch.equal(logits[0], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 0.1


@pytest.mark.parametrize("cut", [1, 50, 51, 60])
def test_behind_a_cached_prefix_it_computes_the_same(whole, pipeline, language_model, cut):
    embedder = Embedder(PromptEncoder(whole[1].tokenizer, pipeline))
    with pipeline.attach(language_model), torch.no_grad():
        prepared = embedder.prepare(prompt_of("two"), language_model)
        ids, spans = prepared.input_ids, [prepared.image_spans]
        cold = language_model(input_ids=ids).logits
        cache = language_model(input_ids=ids[:, :cut], use_cache=True).past_key_values
        pipeline.model_inputs(language_model, ids, None, spans, [prepared.features], cached=cut)
        warm = language_model(input_ids=ids[:, cut:], past_key_values=cache).logits
    assert torch.allclose(warm, cold[:, cut:], atol=1e-4)


def test_beams_see_the_picture_with_and_without_a_cache(whole):
    model, processor = whole
    inputs = inputs_of(processor, "single")
    beams = {use_cache: answer(model, inputs, num_beams=3, use_cache=use_cache) for use_cache in (True, False)}
    assert beams[True] == beams[False]
    blind = model.language_model.generate(inputs["input_ids"], max_new_tokens=12, do_sample=False, num_beams=3)
    assert blind[0, inputs["input_ids"].shape[1] :].tolist() != beams[True]


def two_one_and_no_pictures() -> list[tuple[list, list[ImagePart]]]:
    pictures = [ImagePart.of(image) for image in images()]
    return [
        ([message("user", "Compare the first and the second picture.", 2)], pictures),
        ([message("user", "What color is the boat?", 1)], pictures[:1]),
        ([message("user", "How many windows does the house have?")], []),
    ]


def test_a_chat_with_beams_answers_as_the_model_does(whole):
    """As Multimodal-GPT's demo has three; several rows of a batch, with pictures and without, keep their own."""
    model, processor = whole
    chat, beams = ChatModel(model, processor), GenerationConfig(do_sample=False, max_new_tokens=12, num_beams=3)
    conversations = two_one_and_no_pictures()
    alone = [chat.answer(*conversation, beams) for conversation in conversations]
    assert (
        chat.answer_batch(conversations, beams)
        == alone
        != [chat.answer(*conversation, GREEDY) for conversation in conversations]
    )
    assert list(chat.stream(*conversations[0], beams)) == alone[:1]
    prompt = chat.prepare(*conversations[1]).prompt
    pixels = processor.preprocess_images(images(1))
    own = model.generate(prompt.input_ids, pixel_values=pixels, max_new_tokens=12, do_sample=False, num_beams=3)
    assert processor.tokenizer.decode(own[0, prompt.input_ids.shape[1] :], skip_special_tokens=True) == alone[1]


def test_an_adapter_that_brings_tokens_of_its_own_is_served(folders, whole, tmp_path, capsys):
    from peft import LoraConfig, get_peft_model

    from training.__main__ import main as training

    base = AutoModelForCausalLM.from_pretrained(folders["webui"], dtype=torch.float32)
    tokenizer = load_tokenizer(folders["webui"])
    tokenizer.add_tokens(["<box>", "</box>"])
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.manual_seed(2)
    adapted = get_peft_model(
        base, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], init_lora_weights=False)
    )
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter)
    arguments = [
        "--text_model",
        folders["webui"],
        "--lora_model",
        adapter,
        "--output_dir",
        tmp_path / "merged",
        "--dtype",
        "float32",
    ]
    assert training([str(word) for word in ("merge", *arguments)]) == 2
    assert "but no tokenizer for them" in capsys.readouterr().err
    tokenizer.save_pretrained(adapter)
    assert training([str(word) for word in ("merge", *arguments)]) == 0
    ids = torch.tensor([tokenizer("Where is <box>it</box>?")["input_ids"]])
    expected = logits_of(adapted, ids)
    for model, processor in (
        load_model(tmp_path / "merged", dtype=torch.float32),
        load_model(folders["webui"], lora_model=adapter, dtype=torch.float32),
    ):
        assert len(processor.tokenizer) == len(tokenizer) == model.config.text_config.vocab_size
        assert torch.allclose(logits_of(model, ids), expected, atol=1e-4)
        assert ChatModel(model, processor).answer([message("user", "A boat?", 1)], [ImagePart.of(images(1)[0])], GREEDY)
    capsys.readouterr()
    convert = ["convert", tmp_path / "merged", tmp_path / "original", "--layout", "original"]
    assert training([str(word) for word in convert]) == 2
    assert "2 tokens of its own" in capsys.readouterr().err and not (tmp_path / "original").exists()


def test_rows_of_a_batch_with_two_one_and_no_pictures_answer_as_alone(whole):
    model, processor = whole
    chat = ChatModel(model, processor)
    conversations = two_one_and_no_pictures()
    alone = [chat.answer(*conversation, GREEDY) for conversation in conversations]
    assert chat.answer_batch(conversations, GREEDY) == alone
    assert len(set(alone)) == 3


def test_gradients_reach_the_gates_also_when_activations_are_recomputed(whole):
    model, _ = whole
    inputs = {"input_ids": EXPECTED["train_llava.input_ids"], "labels": EXPECTED["train_llava.labels"]}
    grads = []
    for checkpointing in (False, True):
        model.train()
        if checkpointing:
            model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**inputs, pixel_values=EXPECTED["pixel_values"][:1], use_cache=False).loss.backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if "gate" in name and p.grad is not None})
        model.zero_grad()
        model.language_model.gradient_checkpointing_disable()
        model.eval()
    model.conditioning.clear()
    assert len(grads[0]) == len(grads[1]) > 0
    for name, gradient in grads[0].items():
        assert torch.allclose(gradient, grads[1][name], rtol=1e-3, atol=1e-6), name
    assert grads[0]["gated_cross_attn_layers.3.attn_gate"].abs() > 0


# -- conversations


def test_the_chat_writes_the_originals_prompt_and_answers_as_it_did(whole):
    model, processor = whole
    chat = ChatModel(model, processor)
    picture = [ImagePart.of(images(1)[0])]
    turns = [message("user", "What color is the boat?", 1)]
    prepared = chat.prepare(turns, picture)
    assert torch.equal(prepared.input_ids, EXPECTED["single.input_ids"])
    *_, new_ids = chat.stream_ids(prepared, GREEDY)
    assert new_ids == CASES["single"]["greedy"]
    turns += [message("assistant", "The boat is red."), message("user", "How many windows?")]
    assert torch.equal(chat.prepare(turns, picture).input_ids, EXPECTED["multi_turn.input_ids"])


@pytest.mark.parametrize("count", [1, 3])
def test_bare_marks_before_a_question_get_the_blocks_of_the_originals_prompt(whole, pipeline, count):
    """As a chat's own renderer writes them, which knows nothing of the family."""
    encoder = PromptEncoder(whole[1].tokenizer, pipeline)
    parts = [ImagePart.of(image) for image in images(2)] + [ImagePart.of(images(1)[0])]
    messages = [message("user", "What is it?", count), message("assistant", "A boat."), message("user", "And now?")]
    expected = ChatModel(*whole).render(messages, parts[:count])
    bare = whole[1].apply_chat_template([message("user", "<here>What is it?"), *messages[1:]], add_generation_prompt=True)
    before, _, after = bare.partition("<here>")
    found = Prompt((before, *parts[:count], after))
    assert encoder.encode(found) == encoder.encode(expected)


def test_the_processor_writes_the_same_ids_with_and_without_white_space(whole):
    _, processor = whole
    turns = [message("user", "What color is the boat?", 1)]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert torch.equal(processor(images=images(1), text=text, return_tensors="pt")["input_ids"], EXPECTED["single.input_ids"])


def test_a_typed_mark_is_no_picture(whole):
    _, processor = whole
    text = processor.apply_chat_template([message("user", "What is <image>?", 1)], add_generation_prompt=True)
    ids = processor(images=images(1), text=text, return_tensors="pt")["input_ids"]
    assert int((ids == IMAGE_TOKEN_ID).sum()) == 1


def test_a_token_without_weights_in_the_head_is_never_an_answer(whole):
    model, processor = whole
    head = model.language_model.lm_head.weight
    rows = head[NUM_OLD_TOKENS:].clone()
    chat = ChatModel(model, processor)
    with torch.no_grad():
        head[NUM_OLD_TOKENS:] = 100 * head[:NUM_OLD_TOKENS].abs().max()
    try:
        *_, new_ids = chat.stream_ids(chat.prepare([message("user", "Hello")], []), GREEDY)
    finally:
        with torch.no_grad():
            head[NUM_OLD_TOKENS:] = rows
    assert new_ids and max(new_ids) < NUM_OLD_TOKENS


# -- folders


def test_merge_and_convert_lead_to_every_layout_and_back(tmp_path):
    from training.merge import main as merge
    from training.merge.convert import main as convert

    given = ["--text_model", str(LLAMA), "--vision_model", str(CLIP), "--lora_model", f"{CHECKPOINT},{LORA}"]
    assert merge([*given, "--output_dir", str(tmp_path / "webui"), "--dtype", "float32", "--max_shard_size", "500KB"]) == 0
    assert len([*(tmp_path / "webui").glob("model-*.safetensors")]) > 1
    for before, layout in (("webui", "transformers"), ("transformers", "original"), ("original", "webui")):
        made = tmp_path / f"{layout}_of_{before}"
        source = tmp_path / before if before == "webui" else next(tmp_path.glob(f"{before}_of_*"))
        assert convert([str(source), str(made), "--layout", layout]) == 0
        model, processor = load_model(made, dtype=torch.float32)
        inputs = inputs_of(processor, "single")
        assert answer(model, inputs) == CASES["single"]["greedy"]
        with torch.no_grad():
            logits = model(**inputs).logits[..., :NUM_OLD_TOKENS]
        assert (logits - EXPECTED["single.logits"][..., :NUM_OLD_TOKENS]).abs().max() < 3e-4


def test_the_doctor_says_what_is_missing(folders):
    from pipelines import doctor

    for folder in folders.values():
        report = doctor.examine(folder)
        assert report.family == "open_flamingo" and report.missing == []
    report = doctor.examine(CHECKPOINT.parent)
    assert report.family == "open_flamingo" and "text_model" in " ".join(report.missing)


@pytest.mark.parametrize("layout", ["webui", "transformers", "original"])
def test_every_layout_opens_with_the_same_answer(folders, layout):
    model, processor = load_model(folders[layout], dtype=torch.float32)
    for case in ("single", "text_only"):
        inputs = inputs_of(processor, case)
        assert torch.equal(inputs["input_ids"], EXPECTED[f"{case}.input_ids"])
        assert answer(model, inputs) == CASES[case]["greedy"]


def test_the_composite_folder_opens_with_the_auto_class(folders, whole):
    model = AutoModelForImageTextToText.from_pretrained(folders["transformers"], dtype=torch.float32).eval()
    assert answer(model, inputs_of(whole[1], "single")) == CASES["single"]["greedy"]


def test_the_original_folder_holds_what_the_original_code_reads(folders):
    ours = torch.load(folders["original"] / "checkpoint.pt", weights_only=True)
    theirs = torch.load(CHECKPOINT, weights_only=True)
    kept = {name for name in theirs if not name.endswith("inv_freq")}
    assert {name: ours[name].shape for name in ours} == {name: theirs[name].shape for name in kept}
    assert torch.equal(ours["perceiver.latents"], theirs["perceiver.latents"])


def test_half_precision_stays_near(folders):
    model, processor = load_model(folders["webui"], dtype=torch.float16)
    inputs = inputs_of(processor, "single")
    with torch.no_grad():
        logits = model(**inputs).logits
    assert model.gated_cross_attn_layers["3"].attn_gate.dtype == logits.dtype == torch.float16
    near = EXPECTED["single.logits"][..., :NUM_OLD_TOKENS]
    assert (logits[..., :NUM_OLD_TOKENS].float() - near).abs().max() < 0.02 * near.abs().max()


def test_eight_bits_quantise_the_language_model_alone():
    model, processor = published(lora=True, load_in_8bit=True)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["language_model.model.layers.0.self_attn.q_proj"] == "Linear8bitLt"
    assert kinds["gated_cross_attn_layers.3.attn.to_q"] == "Linear"
    inputs = inputs_of(processor, "single")
    with torch.no_grad():
        logits = model(**inputs).logits[..., :NUM_OLD_TOKENS].float()
        blind = model.language_model(input_ids=inputs["input_ids"]).logits[..., :NUM_OLD_TOKENS].float()
    near = EXPECTED["single.logits"][..., :NUM_OLD_TOKENS]
    assert (logits - near).abs().mean() < 0.1 * (blind - near).abs().mean()


# -- bad input


def refused(match: str, *args, **kwargs):
    """Loading ends in one line that says `match`."""
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        load_model(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_a_missing_partner_is_named(tmp_path):
    refused("text_model", CHECKPOINT, vision_model=CLIP)
    refused("vision_model", CHECKPOINT, text_model=LLAMA)
    refused("not a folder", CHECKPOINT, text_model=tmp_path / "nothing", vision_model=CLIP)
    refused("neither a folder nor a file", tmp_path / "nothing")
    refused("model_type None", tmp_path)


def test_another_language_model_is_told_by_its_embeddings(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(LLAMA, dtype=torch.float32)
    with torch.no_grad():
        model.model.embed_tokens.weight += 0.01
    model.save_pretrained(tmp_path / "vicuna")
    for file in LLAMA.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "vicuna")
    refused("480 of 480 token embeddings", CHECKPOINT, text_model=tmp_path / "vicuna", vision_model=CLIP)


def test_a_language_model_of_another_width_is_named_with_both_numbers(pipeline, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2, "vocab_size": 480}
    wider = LlamaForCausalLM(LlamaConfig(**sizes))
    wider.save_pretrained(tmp_path / "wider")
    refused("483 x 48 .* 480 x 32", CHECKPOINT, text_model=tmp_path / "wider", vision_model=CLIP)
    with pytest.raises(ValueError, match="width 48, but the language model's width is 32"), pipeline.attach(wider):
        pass
    sizes |= {"hidden_size": 48, "num_hidden_layers": 4}
    with (
        pytest.raises(ValueError, match="before decoder layer 7, but the language model has 4 layers"),
        pipeline.attach(LlamaForCausalLM(LlamaConfig(**sizes))),
    ):
        pass


def test_files_in_each_others_place_are_named(tmp_path):
    refused("a LoRA: give it as lora_model", LORA, text_model=LLAMA, vision_model=CLIP)
    refused("holds no LoRA", CHECKPOINT, text_model=LLAMA, vision_model=CLIP, lora_model=CHECKPOINT)
    refused("no vision encoder of CLIP", CHECKPOINT, text_model=LLAMA, vision_model=LLAMA)
    refused("not a LLaMA", CHECKPOINT, text_model=CLIP, vision_model=CLIP)


def test_half_a_file_and_half_a_lora_are_named(tmp_path):
    whole = CHECKPOINT.read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    refused("broken", tmp_path / "checkpoint.pt", text_model=LLAMA, vision_model=CLIP)

    tensors = torch.load(CHECKPOINT, weights_only=True)
    torch.save({name: t for name, t in tensors.items() if ".ff_gate" not in name}, tmp_path / "checkpoint.pt")
    refused("2 tensors are missing", tmp_path / "checkpoint.pt", text_model=LLAMA, vision_model=CLIP)

    from pipelines.open_flamingo.published import named_tensors

    pairs = named_tensors(LORA)
    torch.save(dict([*pairs.items()][1:]), tmp_path / "lora.pt")
    refused("is half an adapter", CHECKPOINT, text_model=LLAMA, vision_model=CLIP, lora_model=tmp_path / "lora.pt")
    foreign = {name.replace("layers.7.", "layers.9."): tensor for name, tensor in pairs.items()}
    torch.save(foreign, tmp_path / "lora.pt")
    refused("have no place in the model", CHECKPOINT, text_model=LLAMA, vision_model=CLIP, lora_model=tmp_path / "lora.pt")


class _RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_runs(tmp_path):
    from pipelines.open_flamingo.published import named_tensors

    pairs = named_tensors(LORA)
    torch.save({"model_state_dict": pairs, "tuning_config": _RunsCode(tmp_path / "ran")}, tmp_path / "lora.pt")
    model, processor = load_model(
        CHECKPOINT, text_model=LLAMA, vision_model=CLIP, lora_model=tmp_path / "lora.pt", dtype=torch.float32
    )
    assert answer(model, inputs_of(processor, "single")) == CASES["single"]["greedy"]
    assert not (tmp_path / "ran").exists()


def test_pictures_and_marks_that_differ_in_number_are_refused(whole):
    model, processor = whole
    with pytest.raises(ValueError, match="1 image tokens in the text but 2 images"):
        processor(images=images(), text="<image> What is this?")
    with pytest.raises(ValueError, match="1 image tokens in the prompt but 2 images"):
        model(input_ids=EXPECTED["single.input_ids"], pixel_values=EXPECTED["pixel_values"])


def test_what_has_lora_layers_or_fewer_bits_is_not_written(tmp_path):
    model, processor = published(lora=False, load_in_8bit=True)
    with pytest.raises(ValueError, match="quantised"):
        save_model(model, processor, tmp_path / "out")
    assert not (tmp_path / "out").exists() and GOLDEN.exists()

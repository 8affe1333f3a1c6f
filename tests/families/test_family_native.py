"""Models of transformers through the contract: the tokens of their own processor and `generate`, and never without the pictures."""

import json
import shutil

import native_models
import numpy as np
import pytest
import torch
from packaging import version
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import __version__ as transformers_version

from pipelines import doctor, load_model, native
from pipelines.base import ImagePart, ImageSpan
from pipelines.generation import ChatModel, message
from pipelines.native import processing
from pipelines.prompt import Prompt
from pipelines.registry import find_family, load_pipeline, pipeline_of
from training.data.collator import BatchError, ConversationCollator
from training.data.rows import text_of

NEW_TOKENS = 6
FAMILIES = sorted(native_models.FAMILIES)
SIZES = [(60, 40), (30, 80), (90, 90)]
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS)


def pictures(seed: int = 0) -> list[Image.Image]:
    noise = np.random.default_rng(seed)
    return [Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


@pytest.fixture(scope="module", params=FAMILIES)
def published(request, tmp_path_factory):
    return native_models.write(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def chat(published):
    model, processor = native.load_model(published)
    return ChatModel(model, processor, native.pipeline_of(model, processor))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return native_models.write("qwen2_5_vl", tmp_path_factory.mktemp("qwen"))


def conversation(num_images: int) -> list[dict]:
    first = message("user", "What is this?", min(num_images, 1))
    return [first] if num_images < 2 else [first, message("assistant", "Noise."), message("user", "And these?", num_images - 1)]


def theirs(chat, messages, images, takes_texts=False, text=None, **asked):
    """The prompt and the tokens that the processor and `generate` give without anything of ours."""
    text = text or chat.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    take = chat.processor if images or takes_texts else chat.tokenizer
    asked = asked if images else {}
    given = take(
        **({"images": [images]} if images else {}), text=[text], return_tensors="pt", add_special_tokens=False, **asked
    )
    tokens = chat.model.generate(**given, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=chat.tokenizer.pad_token_id)
    length = given["input_ids"].shape[1]
    return given["input_ids"].tolist(), chat.decode(tokens[0, length:].tolist())


@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_answers_are_those_of_processor_and_generate(chat, num_images):
    messages, images = conversation(num_images), pictures()[:num_images]
    parts = [ImagePart.of(image) for image in images]
    ids, answer = theirs(chat, messages, images)
    assert chat.prepare(messages, parts).input_ids.tolist() == ids
    assert chat.embedder.encoder.length(chat.render(messages, parts)) == len(ids[0])
    assert chat.answer(messages, parts, GREEDY) == answer


def test_doctor_finds_nothing_wrong(published):
    assert doctor.examine(published, "cpu").missing == []


def test_each_picture_is_seen_and_none_stays(chat):
    """What the model computes changes with each picture, and a prompt of text is that of a model that never saw one."""
    messages = conversation(3)
    first, other = pictures(), pictures(1)

    def logits(images):
        prompt = chat.prepare(messages, [ImagePart.of(image) for image in images]).prompt
        with torch.no_grad():
            return chat.model(prompt.input_ids, attention_mask=torch.ones_like(prompt.input_ids), **prompt.inputs).logits[0, -1]

    text = chat.answer(conversation(0), [], GREEDY)
    plain = logits(first)
    assert torch.equal(plain, logits(first))
    for changed in range(3):
        images = [other[index] if index == changed else first[index] for index in range(3)]
        assert not torch.allclose(plain, logits(images), atol=1e-5)
    assert chat.answer(conversation(0), [], GREEDY) == text


def test_rows_of_a_batch_answer_as_by_themselves(chat):
    given = [(conversation(count), [ImagePart.of(image) for image in pictures(count)[:count]]) for count in (1, 3, 1)]
    alone = [chat.answer(*each, GREEDY) for each in given]
    if chat.pipeline.model_type == "mllama":
        with pytest.raises(ValueError, match="would not read prompts of 1, 3, 1 pictures"):
            chat.answer_batch(given, GREEDY)
        assert chat.answer_batch(given[::2], GREEDY) == alone[::2]
    else:
        assert chat.answer_batch(given, GREEDY) == alone
    assert chat.answer_each(given, GREEDY) == alone


def test_rows_of_a_training_batch_are_read_as_by_themselves(chat):
    trains_as_alone(chat)


def trains_as_alone(chat: ChatModel) -> None:
    """The ids of a row are the prompt's and the answer's, and in a batch it has the logits that it has alone: or it is refused."""
    rule = chat.pipeline.rows_together
    assert rule == {"mllama": "even", "emu3": "alone", "hunyuan_vl": "alone"}.get(chat.pipeline.model_type, "any")
    collator = ConversationCollator(chat.processor, stop_strings=chat.pipeline.stop_strings, rows_together=rule)
    for counts in [(1, 0), (1, 1), (1, 3), (2, 0, 1)]:
        rows = [training_row(number, count) for number, count in enumerate(counts)]
        encoded = [collator.encode(row) for row in rows]
        for row, each in zip(rows, encoded, strict=True):
            prompt = chat.prepare(row["messages"][:-1], [ImagePart.of(image) for image in row["images"]]).input_ids
            assert each.ids[: prompt.shape[1]] == prompt[0].tolist()
            taught = [token for token, label in zip(each.ids, each.labels, strict=True) if label == token]
            answers = "".join(text_of(each) for each in row["messages"] if each["role"] == "assistant")
            assert chat.tokenizer.decode(taught, skip_special_tokens=True).replace(" ", "") == answers.replace(" ", "")
        try:
            batch = collator(rows)
        except BatchError:
            assert len(set(counts)) > 1 if rule == "even" else rule == "alone" and sum(map(bool, counts)) > 1
            continue
        with torch.no_grad():
            logits = chat.model(**batch).logits
            atol = 2e-3 if logits.dtype == torch.float32 else 6e-2
            for row, found in zip(encoded, logits, strict=True):
                alone = chat.model(**collator.join([row])).logits[0]
                torch.testing.assert_close(found[: len(row.ids)], alone, rtol=0, atol=atol)


def test_what_goes_along_with_the_ids_does_so_where_an_end_is_added(tmp_path):
    processor = native.load_processor(native_models.write("mllama", tmp_path))
    processor.chat_template = processor.chat_template.replace("<|/turn|>\n", "")
    encoded = ConversationCollator(processor).encode(training_row(0, 1))
    assert encoded.ids[-1] == processor.tokenizer.eos_token_id
    assert encoded.inputs["cross_attention_mask"].shape[1] == len(encoded.ids)
    assert encoded.inputs["cross_attention_mask"][0, -1].any()


def training_row(number: int, num_images: int) -> dict:
    """A conversation with an answer; its pictures are of sizes that another row's are not."""
    images = [*pictures(number)[number:], *pictures(number + 9)][:num_images]
    return {"messages": [*conversation(num_images), message("assistant", "An answer.")], "images": images}


def test_typed_tokens_of_pictures_stay_text(chat):
    token = chat.tokenizer.convert_ids_to_tokens(chat.pipeline.placeholder_token_id)
    encoded = chat.embedder.encoder.encode(Prompt((f"see {token} here", ImagePart.of(pictures()[0]))))
    (span,) = encoded.image_spans
    outside = encoded.input_ids[: span.start] + encoded.input_ids[span.end :]
    assert chat.pipeline.placeholder_token_id not in outside


def test_folders_are_found_and_opened(qwen):
    assert find_family(qwen) == "native"
    model, processor = load_model(qwen)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration" and not model.training
    assert isinstance(pipeline_of(model, processor), native.NativePipeline)
    assert load_pipeline(qwen).image_ids([(60, 40)], None) == pipeline_of(model, processor).image_ids([(60, 40)], None)


def test_language_model_without_vision_part_is_refused(qwen):
    pipeline = load_pipeline(qwen)
    image = ImagePart.of(pictures()[0])
    blind = LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2))
    ids = torch.tensor([pipeline.image_ids([image.size], None)[0]])
    with pytest.raises(ValueError, match="only the text part"):
        pipeline.model_inputs(blind, ids, None, [[ImageSpan(0, ids.shape[1], image)]], [pipeline.encode_images([image.open()])])


def test_cut_prompts_are_refused(qwen):
    model, processor = load_model(qwen)
    chat = ChatModel(model, processor)
    prompt = chat.prepare(conversation(1), [ImagePart.of(pictures()[0])]).prompt
    given = (None, [prompt.image_spans], [prompt.features])
    ids = prompt.input_ids.clone()
    ids[0, prompt.image_spans[0].start] += 1
    with pytest.raises(ValueError, match="Was the prompt cut inside it"):
        chat.pipeline.model_inputs(model, ids, *given)
    with pytest.raises(ValueError, match="end within a picture"):
        chat.pipeline.model_inputs(model, prompt.input_ids, *given, cached=prompt.image_spans[0].start + 1)
    chat.pipeline.keeps_prefix = False
    with pytest.raises(ValueError, match="not continued from a cache"):
        chat.pipeline.model_inputs(model, prompt.input_ids, *given, cached=2)


def test_folders_that_lack_something_are_refused_with_the_reason(qwen, tmp_path):
    def changed(name, **values):
        folder = tmp_path / name
        shutil.copytree(qwen, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))
        return folder

    silent = changed("silent")
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_pipeline(silent)
    with pytest.raises(ValueError, match="takes no pictures"):
        load_model(changed("mistral4", model_type="mistral4"))
    deeper = changed("deeper")
    config = json.loads((deeper / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    config["text_config"]["layer_types"] = config["text_config"]["layer_types"][:1] * 3
    (deeper / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks .* weights, such as"):
        load_model(deeper)
    with pytest.raises(ValueError, match="is a whole model"):
        load_model(qwen, text_model="elsewhere")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm", "gemma3", "mllama"])
def test_models_of_few_bits_see(name, bits, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder = native_models.write(name, tmp_path, wide=True)
    model, processor = load_model(folder, device_map="cpu", **{f"load_in_{bits}bit": True})
    kind = {8: bitsandbytes.nn.Linear8bitLt, 4: bitsandbytes.nn.Linear4bit}[bits]
    quantised = [name for name, module in model.named_modules() if isinstance(module, kind)]
    assert quantised and all("language_model" in name or "text_model" in name for name in quantised)
    assert not any("vision" in name or "visual" in name or "projector" in name for name in quantised)
    chat = ChatModel(model, processor)
    scores = []
    for image in (pictures()[0], pictures(1)[0]):
        prompt = chat.prepare(conversation(1), [ImagePart.of(image)]).prompt
        with torch.no_grad():
            scores.append(model(input_ids=prompt.input_ids, **prompt.inputs).logits[0, -1])
    assert torch.isfinite(scores[0]).all() and not torch.allclose(*scores, atol=1e-3)


def test_adapter_is_applied(qwen, tmp_path):
    peft = pytest.importorskip("peft")
    model, _ = load_model(qwen)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path)
    chats = [ChatModel(*load_model(qwen, **given)) for given in ({}, {"lora_model": tmp_path})]
    images = [ImagePart.of(pictures()[0])]
    plain, adapted = (chat.answer(conversation(1), images, GREEDY) for chat in chats)
    assert plain != adapted


def test_an_adapter_is_merged(qwen, tmp_path):
    peft = pytest.importorskip("peft")
    from training.__main__ import main

    model, _ = load_model(qwen)
    targets = r".*language_model.*\.(q_proj|down_proj)"
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "lora")
    words = ["--text_model", qwen, "--lora_model", tmp_path / "lora", "--output_dir", tmp_path / "merged"]
    assert main(["merge", *map(str, words)]) == 0
    chats = [
        ChatModel(*load_model(*given, **more))
        for given, more in (((qwen,), {"lora_model": tmp_path / "lora"}), ((tmp_path / "merged",), {}))
    ]
    prompts = [chat.prepare(conversation(1), [ImagePart.of(pictures()[0])]).prompt for chat in chats]
    with torch.no_grad():
        adapted, merged = (chat.model(input_ids=p.input_ids, **p.inputs).logits for chat, p in zip(chats, prompts, strict=True))
        plain = load_model(qwen)[0](input_ids=prompts[0].input_ids, **prompts[0].inputs).logits
    assert torch.allclose(adapted, merged, atol=1e-4) and not torch.allclose(plain, merged, atol=1e-2)
    assert main(["merge", *map(str, words)]) == 2, "not over what is there"
    assert main(["convert", str(qwen), str(tmp_path / "converted"), "--layout", "webui"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora", "merged"]


def test_an_adapter_of_another_model_is_refused(qwen, tmp_path):
    peft = pytest.importorskip("peft")
    other = LlamaForCausalLM(
        LlamaConfig(hidden_size=32, intermediate_size=16, num_hidden_layers=3, num_attention_heads=4, vocab_size=8)
    )
    peft.get_peft_model(other, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="made for another model"):
        load_model(qwen, lora_model=tmp_path)


def test_only_pictures_are_taken(qwen):
    chat = ChatModel(*load_model(qwen))
    for kind in ("video", "audio"):
        asked = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "What?"}]}]
        with pytest.raises(ValueError, match=f"not '{kind}'"):
            chat.render(asked, [])


def test_doctor_says_how_a_folder_is_opened_and_what_it_lacks(qwen, tmp_path):
    from pipelines.doctor import examine

    report = examine(qwen)
    assert report.missing == [] and "multimodal_vcla-model" in report.next[1]
    bare = tmp_path / "bare"
    shutil.copytree(qwen, bare, ignore=shutil.ignore_patterns("chat_template*", "*.safetensors"))
    assert [sentence.partition(":")[0].partition(",")[0] for sentence in examine(bare).missing] == [
        "weights",
        "a chat template",
    ]


def test_questions_are_answered_in_batches(qwen, tmp_path):
    from demo.__main__ import main

    for number, image in enumerate(pictures()):
        image.save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "question": "What?"} for number in range(3)] + [{"question": "Hello?"}]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    answers = []
    for size in ("1", "4"):
        words = [
            tmp_path / "questions.json",
            "--images",
            tmp_path,
            "--output",
            tmp_path / f"answers-{size}.jsonl",
            "--model",
            qwen,
        ]
        words += ["--batch_size", size, "--temperature", "0", "--max_new_tokens", "6", "--only_cpu"]
        assert main(["batch", *map(str, words)]) == 0
        answers.append((tmp_path / f"answers-{size}.jsonl").read_text())
    assert answers[0] == answers[1]
    assert len({json.loads(line)["answer"] for line in answers[0].splitlines()}) == 4


def test_bos_of_a_tokenizer_that_adds_it_stands_there_once(tmp_path):
    """LLaVA's template writes none, and its tokenizer adds it."""
    folder = native_models.write("llava", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    adds = TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = adds
    tokenizer.save_pretrained(folder)
    chat = ChatModel(*native.load_model(folder), native.load_pipeline(folder))
    images = pictures()[:1]
    processor = native.load_processor(folder)
    text = processor.apply_chat_template(conversation(1), add_generation_prompt=True, tokenize=False)
    expected = processor(images=[images], text=[text])["input_ids"][0]
    assert expected[0] == tokenizer.bos_token_id != expected[1]
    prompt = chat.prepare(conversation(1), [ImagePart.of(image) for image in images]).prompt
    assert prompt.input_ids[0].tolist() == list(expected) and "pixel_values" in prompt.inputs


def test_a_value_of_the_configuration_that_cannot_be_is_told_with_its_file(tmp_path):
    folder = native_models.write("llava", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = "x"
    (folder / "config.json").write_text(json.dumps(config))
    for load, where in ((load_model, "model' cannot be loaded"), (native.load_model, "model/config.json' has a value")):
        with pytest.raises(ValueError, match=f"{where}.*num_attention_heads"):
            load(folder)
    assert "num_attention_heads" in " ".join(doctor.examine(folder, "cpu").missing)


def test_processor_that_fails_on_a_picture_is_told_in_one_line(qwen, monkeypatch):
    """As some do that older versions of transformers have."""
    model, processor = native.load_model(qwen)

    def fail(self, **given):
        raise TypeError("unexpected\nargument")

    monkeypatch.setattr(type(processor), "__call__", fail)
    with pytest.raises(ValueError) as error:
        pipeline_of(model, processor)
    assert "fails on a picture: TypeError: unexpected argument. " in str(error.value)
    assert f"Qwen2_5_VLProcessor, transformers {transformers_version}" in str(error.value)


def test_weights_of_another_shape_are_told_by_name(tmp_path):
    folder = native_models.write("qwen2_5_vl", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.1.mlp.down_proj" in name)
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"has 1 weights of another shape .*down_proj.weight: \(31, 48\), by config.json \(32, 48\)"
    ):
        load_model(folder)
    assert "weights of another shape" in " ".join(doctor.examine(folder, "cpu").missing)


@pytest.mark.skipif(
    version.parse(transformers_version) < version.parse("5.23"), reason="5.6 finds no image processor without it"
)
def test_no_part_for_videos_is_made_where_torchvision_is_there_either(tmp_path, monkeypatch):
    folder = native_models.write("llava_next_video", tmp_path)
    monkeypatch.setattr(processing, "is_torchvision_available", lambda: True)
    part = native.load_processor(folder).video_processor
    assert isinstance(part, processing.NoVideo)
    with pytest.raises(ValueError, match="Videos are not taken"):
        part()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_token_id": 5, "image_token_index": 5}, "stand for a picture, but the processor writes "),
        ({"text_config": {"num_hidden_layers": 900}}, "900"),
    ],
)
def test_doctor_says_what_of_the_configuration_is_another_models(qwen, tmp_path, change, said):
    folder = shutil.copytree(qwen, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for name, value in change.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    (told,) = doctor.examine(folder, "cpu").missing
    assert said in told

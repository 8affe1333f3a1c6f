"""How people ask, beside the world's own wordings (grammar.py): other sentences, other names for the same things, words around it.

`ask_freely` is what the demo model is taught with. The sentences of `HELD_OUT` are never taught; the exam asks them.
The slots are those of `grammar.WORDINGS`.
"""

import random
import re
from functools import cache

from .grammar import Question, ask, fill, loosen

ORDINARY: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "describe": (
            "What is this?", "What's this?", "What is it?", "What are these?", "What is here?", "What's here?", "What can you see{inside}?",
            "What's in {picture}?", "What is on {picture}?", "What is shown{inside}?", "What is shown here?", "Tell me what you see{inside}.",
            "Describe what you see{inside}.", "Please describe {picture}.", "Describe {picture} in detail.", "Describe it.",
            "Describe everything{inside}.", "List everything{inside}.", "List the things{inside}.", "Name everything{inside}.",
            "What things are{inside}?", "Which things do you see{inside}?", "What does {picture} contain?", "What's on {picture}?",
            "Write a caption for {picture}.", "Caption {picture}.", "Give me a description of {picture}.", "Tell me about {picture}.",
            "What have we here?", "What do we see{inside}?", "Show me what is in {picture}.", "What objects are there{inside}?",
            "What all is there{inside}?", "Can you describe {picture}?", "Could you describe {picture} for me?", "What is drawn{inside}?",
            "What did I draw?", "What have I drawn?", "Is there anything{inside}?", "What is there{inside}?", "Explain {picture}.",
            "What shapes are there{inside}?", "Which shapes do you see{inside}?", "What colours and shapes do you see{inside}?",
        ),
        "what": (
            "What's at the {place}{of}?", "What is in the {place}{of}?", "What's in the {place}{of}?", "What can you see at the {place}{of}?",
            "What is on the {place}{of}?", "What is there at the {place}{of}?", "What do we have at the {place}{of}?",
            "Which thing is at the {place}{of}?", "Tell me what is at the {place}{of}.", "Describe the {place}{of}.",
            "And at the {place}{of}?", "Is there anything at the {place}{of}?", "What about the {place}{of}?", "What is drawn at the {place}{of}?",
            "Look at the {place}{of}. What is there?", "At the {place}{of}, what is there?", "What shape is at the {place}{of}?",
            "Which object is at the {place}{of}?",
        ),
        "where": (
            "Where's the {thing}{inside}?", "Where can I find the {thing}{inside}?", "Where is {a_thing}{inside}?", "Tell me where the {thing} is{inside}.",
            "In which place is the {thing}{inside}?", "Can you find the {thing}{inside}?", "Locate the {thing}{inside}.", "Show me the {thing}{inside}.",
            "And the {thing}?", "At which place is the {thing}{inside}?", "Where exactly is the {thing}{inside}?", "Where do we see the {thing}{inside}?",
            "Where was the {thing}{inside}?", "What is the place of the {thing}{inside}?", "What position is the {thing} at{inside}?",
        ),
        "colour": (
            "What's the colour of the {thing}{inside}?", "What is the colour of the {thing}{inside}?", "Tell me the colour of the {thing}{inside}.",
            "What colour does the {thing} have{inside}?", "Which colour does the {thing} have{inside}?", "Of what colour is the {thing}{inside}?",
            "What colour was the {thing}{inside}?", "Name the colour of the {thing}{inside}.", "The {thing}{inside} is of which colour?",
            "What is the {thing}'s colour{inside}?",
        ),
        "shape": (
            "What is the shape of the {thing}{inside}?", "What's the shape of the {thing}{inside}?", "Tell me the shape of the {thing}{inside}.",
            "What shape does the {thing} have{inside}?", "Which shape does the {thing} have{inside}?", "Of what shape is the {thing}{inside}?",
            "What shape was the {thing}{inside}?", "Name the shape of the {thing}{inside}.", "The {thing}{inside} has which shape?",
            "What is the {thing}'s shape{inside}?",
        ),
        "count": (
            "How many {things} are{inside}?", "How many {things} can you see{inside}?", "What is the number of {things}{inside}?",
            "Tell me how many {things} there are{inside}.", "Count all {things}{inside}.", "Please count the {things}{inside}.",
            "How many {things} does {picture} show?", "How many {things} does {picture} have?", "Number of {things}{inside}?",
            "How many {things}{inside}?", "Can you count the {things}{inside}?", "How many {things} did I draw{inside}?",
            "How many {things} do you count{inside}?", "How many {things} were there{inside}?", "Give me the number of {things}{inside}.",
        ),
        "is_there": (
            "Is {a_thing} there{inside}?", "Are there any {things}{inside}?", "Can you see {a_thing}{inside}?", "Does {picture} have {a_thing}?",
            "Does {picture} contain {a_thing}?", "Is {a_thing} in {picture}?", "Can you find {a_thing}{inside}?", "Is there any {thing}{inside}?",
            "Do you see any {things}{inside}?", "Have you seen {a_thing}{inside}?", "Did I draw {a_thing}{inside}?", "Is {a_thing} shown{inside}?",
            "Tell me if there is {a_thing}{inside}.", "Was there {a_thing}{inside}?", "Are there {things}{inside}?",
        ),
        "which": (
            "Which one shows the {thing}?", "Which one has {a_thing}?", "In which one is the {thing}?", "Which picture contains {a_thing}?",
            "Which of the pictures shows the {thing}?", "Which of the pictures has {a_thing}?", "Which of these shows {a_thing}?",
            "On which picture is the {thing}?", "Where is the {thing}, in which picture?", "Tell me which picture shows {a_thing}.",
            "Which picture is the one with the {thing}?", "In which picture do you see {a_thing}?", "In which picture can I find the {thing}?",
            "Which of them has the {thing}?",
        ),
        "both": (
            "Can you see {a_thing} in {pictures}?", "Do {pictures} have {a_thing}?", "Do {pictures} contain {a_thing}?", "Is {a_thing} in {pictures}?",
            "Are there {things} in {pictures}?", "Does {a_thing} appear in {pictures}?", "Is the {thing} in {pictures}?", "Tell me if {pictures} show {a_thing}.",
        ),
        "compare": (
            "What is the difference between the pictures?", "What are the differences?", "What is different?", "How do the pictures differ?",
            "Compare {pictures}.", "Describe {pictures}.", "What do {pictures} show?", "What is in {pictures}?", "What do you see in {pictures}?",
            "Tell me what is in {pictures}.", "What are these pictures?", "What do you see?", "What is the difference?", "How are they different?",
            "Describe each picture.", "What is in each picture?", "Compare them.", "Tell me the differences.", "Are they the same?",
        ),
        "pictures": ("How many pictures do you see?", "How many pictures did I send?", "How many pictures have I shown you?", "How many images are there?"),
    },
    "zh": {
        "describe": (
            "这是什么？", "这是什么东西？", "这张图片里有什么？", "图里有什么？", "{picture}上有什么？", "{picture}里画的是什么？", "{picture}上画了什么？",
            "你看到了什么？", "你看到什么？", "看到了什么？", "描述一下{picture}。", "请描述一下{picture}。", "请详细描述{picture}。", "说说{picture}。",
            "介绍一下{picture}。", "{picture}的内容是什么？", "{picture}里都有什么？", "{picture}里有些什么？", "{picture}里有哪些东西？", "列出{picture}里的东西。",
            "请说出{picture}里有什么。", "告诉我{picture}里有什么。", "你能描述{picture}吗？", "里面有什么？", "上面有什么？", "我画了什么？", "我画的是什么？",
            "这里有什么？", "给{picture}写一句说明。", "解释一下{picture}。", "{picture}显示了什么？", "{picture}中有什么？", "在{picture}中你看到了什么？",
            "有什么东西？", "请看{picture}，有什么？", "{picture}里能看到什么？", "这些是什么？", "{picture}里有哪些形状？", "{picture}里有什么颜色和形状？",
        ),
        "what": (
            "{inside}{place}的东西是什么？", "{inside}{place}有什么东西？", "{inside}在{place}的是什么？", "{inside}{place}画的是什么？", "{inside}{place}画了什么？",
            "{inside}{place}你看到什么？", "看看{inside}{place}，是什么？", "{inside}{place}呢？", "{inside}{place}是哪个形状？", "{inside}{place}那个是什么？",
            "告诉我{inside}{place}是什么。", "{inside}{place}有没有东西？", "{inside}{place}的图形是什么？", "{inside}位于{place}的是什么？", "描述一下{inside}{place}。",
        ),
        "where": (
            "{inside}{thing}在哪？", "{inside}{thing}在哪儿？", "{inside}{thing}的位置是哪里？", "{inside}{thing}在什么位置？", "{inside}{thing}位于哪里？",
            "找一下{inside}{thing}。", "请找到{inside}{thing}。", "告诉我{inside}{thing}在哪里。", "{inside}{thing}呢？", "{inside}在哪里能看到{thing}？",
            "{inside}那个{thing}在哪里？", "{inside}{thing}在哪个位置？", "{inside}{thing}画在哪里？",
        ),
        "colour": (
            "{inside}{thing}的颜色是什么？", "{inside}{thing}什么颜色？", "{inside}{thing}是哪个颜色？", "{inside}{thing}是什么色？", "{inside}{thing}的颜色？",
            "告诉我{inside}{thing}的颜色。", "{inside}那个{thing}是什么颜色的？", "{inside}{thing}是什么颜色的？", "{inside}{thing}有什么颜色？",
        ),
        "shape": (
            "{inside}{thing}的形状是什么？", "{inside}{thing}什么形状？", "{inside}{thing}是哪个形状？", "{inside}{thing}的形状？", "告诉我{inside}{thing}的形状。",
            "{inside}那个{thing}是什么形状的？", "{inside}{thing}是什么形状的？", "{inside}{thing}有什么形状？",
        ),
        "count": (
            "{inside}{things}有几个？", "{inside}{things}有多少？", "{inside}有几个{things}呢？", "数一数{inside}的{things}。", "数一下{inside}有几个{things}。",
            "{inside}共有多少{things}？", "{inside}能看到几个{things}？", "{inside}{things}的数量是多少？", "告诉我{inside}有几个{things}。", "{inside}一共多少个{things}？",
            "{inside}画了几个{things}？", "你看到{inside}几个{things}？", "{inside}总共有几个{things}？",
        ),
        "is_there": (
            "{inside}有{thing}没有？", "{inside}是否有{thing}？", "{inside}能看到{thing}吗？", "{inside}你看到{thing}了吗？", "{inside}有一个{thing}吗？",
            "{inside}存在{thing}吗？", "{inside}看得见{thing}吗？", "{inside}有任何{thing}吗？", "{inside}画了{thing}吗？", "告诉我{inside}有没有{thing}。",
            "{inside}是不是有{thing}？", "{thing}在{picture}里吗？", "{inside}找得到{thing}吗？",
        ),
        "which": (
            "哪一张有{thing}？", "哪张有{thing}？", "{thing}在哪一张？", "{thing}在哪张？", "哪个图片里有{thing}？", "{thing}在哪一张图片里？", "哪张图片能看到{thing}？",
            "哪张图片显示了{thing}？", "有{thing}的是哪张图片？", "告诉我哪张图片里有{thing}。", "这些图片中哪张有{thing}？", "哪一张里有{thing}？",
        ),
        "both": (
            "{pictures}中都有{thing}吗？", "{pictures}都能看到{thing}吗？", "{pictures}是否都有{thing}？", "{pictures}里是不是都有{thing}？", "是不是{pictures}都有{thing}？",
            "{thing}在{pictures}里都有吗？",
        ),
        "compare": (
            "{pictures}有什么不同？", "有什么不同？", "有什么区别？", "{pictures}有什么区别？", "{pictures}有什么不一样？", "比较一下{pictures}。", "比较{pictures}。",
            "描述一下{pictures}。", "请描述{pictures}。", "{pictures}里有什么？", "{pictures}分别是什么？", "{pictures}分别有什么？", "每张图片里有什么？", "这些图片有什么不同？",
            "它们有什么不同？", "{pictures}的区别是什么？", "它们一样吗？", "说说{pictures}的不同。",
        ),
        "pictures": ("有几张图片？", "你看到几张图片？", "我发了几张图片？", "一共有多少张图片？"),
    },
}  # fmt: skip
"""Language -> kind -> sentences that are taught."""

HELD_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "describe": (
            "Please tell me what this is.", "What do you see here?", "What is in this drawing?", "Can you tell me what is in the image?",
            "Tell me everything you see in this picture.", "What objects do you see?", "What does this image show?", "Name the things you see.",
        ),
        "what": (
            "What is in the middle?", "What do you see in the upper left corner?", "What is there in the bottom right corner?",
            "Can you tell me what is at the {place}?", "Which shape do you see at the {place}?", "What thing is at the {place}?",
        ),
        "where": ("Where can you see the {thing}?", "Please tell me where the {thing} is.", "Please find the {thing}.", "Where is the {thing} in this image?"),
        "colour": ("What colour has the {thing}?", "Can you tell me the colour of the {thing}?", "Which is the colour of the {thing}?"),
        "shape": ("Can you tell me the shape of the {thing}?", "Which is the shape of the {thing}?"),
        "count": ("How many {things} can you count?", "Tell me the number of {things}.", "How many {things} are in this picture?", "How many {things} are shown here?"),
        "is_there": ("Can you see any {things}?", "Do you find {a_thing} in the image?", "Does this drawing have {a_thing}?", "Is there {a_thing} here?"),
        "which": ("Which image has the {thing}?", "Which one of the pictures has {a_thing}?", "In which of these is the {thing}?"),
        "both": ("Do {pictures} have the {thing}?", "Can {a_thing} be seen in {pictures}?"),
        "compare": ("What is different between the two pictures?", "Tell me what {pictures} show."),
    },
    "zh": {
        "describe": (
            "请问这是什么？", "请告诉我你看到了什么。", "这幅图里画了什么？", "这张照片里有什么东西？", "请说说这张图片的内容。", "你能看到什么？", "图像里有哪些东西？",
            "请列出图里的东西。",
        ),
        "what": (
            "中间那个是什么东西？", "左上方是什么？", "右下方有什么东西？", "请问{place}是什么？", "{place}的物体是什么？", "在{place}你看到了什么？",
        ),
        "where": ("请问{thing}在哪里？", "{thing}在图里的哪个位置？", "你能找到{thing}吗，在哪里？", "请告诉我{thing}的位置。"),
        "colour": ("请问{thing}是什么颜色？", "{thing}的颜色是哪种？", "图里{thing}是什么颜色的？"),
        "shape": ("请问{thing}是什么形状？", "{thing}的形状是哪种？"),
        "count": ("请问有几个{things}？", "请数一数有多少个{things}。", "这张图里一共有几个{things}？", "你能看到多少个{things}？"),
        "is_there": ("请问有{thing}吗？", "这张图里有没有{thing}？", "你能看到{thing}吗？", "图里是否能看到{thing}？"),
        "which": ("请问哪张图里有{thing}？", "{thing}在哪个图片里？", "哪一张图片里能看到{thing}？"),
        "both": ("{pictures}里都能看到{thing}吗？", "请问{pictures}都有{thing}吗？"),
        "compare": ("请说说{pictures}有什么不同。", "请问{pictures}有什么区别？"),
    },
}  # fmt: skip
"""Language -> kind -> sentences that are asked in the exam only."""

PLACE_OF = {
    "What is in the middle?": "centre", "What do you see in the upper left corner?": "top left",
    "What is there in the bottom right corner?": "bottom right", "中间那个是什么东西？": "centre", "左上方是什么？": "top left",
    "右下方有什么东西？": "bottom right",
}  # fmt: skip
"""The place that a held-out sentence names itself."""

# Other names, as regular expressions: what a sentence is searched for, and what may stand there instead.
_OTHER_NAMES = {
    "en": {
        r"\bthe picture\b": ("the image", "this picture", "this image", "this drawing", "the drawing", "the photo", "that picture"),
        r"\bthe (first|second|third|fourth) picture\b": (r"the \1 image", r"the \1 one", r"the \1 drawing"),
        r"\bpictures\b": ("images", "drawings"),
        r"\bat the centre\b": ("in the middle", "at the middle", "in the centre"), r"\bcentre\b": ("middle",),
        r"\bat the (top|bottom) (left|right)\b": (r"in the \1 \2", r"in the \1 \2 corner", r"at the \1-\2"),
        r"\bat the top (left|right)\b": (r"in the upper \1", r"in the upper \1 corner"),
        r"\bat the bottom (left|right)\b": (r"in the lower \1", r"in the lower \1 corner"),
        r"\bat the (left|right)\b": (r"on the \1", r"on the \1 side", r"to the \1"), r"\bat the (top|bottom)\b": (r"on \1", r"on the \1"),
        r"\bthing(s?)\b": (r"object\1", r"shape\1", r"item\1", r"figure\1"),
        r"\bcircle(s?)\b": (r"disc\1", r"dot\1", r"ball\1"), r"\bsquare(s?)\b": (r"box\1", r"block\1"), r"\bring(s?)\b": (r"hoop\1", r"donut\1"),
        r"\bcross(es)?\b": ("plus", "plus sign"), r"\bpurple\b": ("violet",), r"\bWhat is\b": ("What's",),
    },
    "zh": {
        r"第(.)张图片": (r"第\1张图", r"第\1幅图", r"第\1张", r"图\1"), r"(?<![张个些])图片": ("图", "这张图片", "这张图", "图像", "这幅图", "照片", "画"),
        r"(?<=张)图片": ("图", "图像", "照片", "画"),
        r"左上角": ("左上", "左上方", "左上边"), r"右上角": ("右上", "右上方", "右上边"), r"左下角": ("左下", "左下方", "左下边"),
        r"右下角": ("右下", "右下方", "右下边"), r"(?<!正)中间": ("中央", "正中间", "中心", "正中"), r"(?<![左右])上方": ("上面", "上边", "顶部"),
        r"(?<![左右])下方": ("下面", "下边", "底部"), r"(?<![上下])左边": ("左侧", "左面", "左方"), r"右边": ("右侧", "右面", "右方"), r"东西": ("物体", "图形"),
        r"正方形": ("方块", "方形"), r"三角形": ("三角",), r"圆环": ("环", "环形"), r"圆形": ("圆",), r"十字": ("十字形", "加号"),
        r"星形": ("星星", "五角星", "星"), r"橙色": ("橘色", "橘黄色"), r"粉色": ("粉红色",),
        r"([红黄蓝绿紫黑])色(圆形|圆环|星形|十字|三角形|正方形)": (r"\1\2", r"\1色的\2"),
    },
}  # fmt: skip
_NAMING = ("{inside}", "{of}", "{picture}")
_BEFORE = {
    "en": ("Please tell me: ", "Can you tell me: ", "Hey, ", "Hi! ", "Tell me, ", "OK, ", "So, ", "And ", "Now ", "Look at it. ", "Question: ", "Hello. "),
    "zh": ("请问", "请问，", "请告诉我，", "你好，", "那么，", "看一下，", "现在，", "请看，", "问题：", "好，"),
}  # fmt: skip
_BEHIND = {"en": (" Please.", " Thanks!", " Thank you.", " please"), "zh": ("谢谢。", "谢谢！", "谢谢你。")}


def ask_freely(question: Question, language: str, rng: random.Random, pictures: int = 1) -> str:
    """Word a question as people do: in a sentence of the world's or of `ORDINARY`, with other names, and now and then more words.

    It is none of `HELD_OUT`.
    """
    while is_held_out(text := _any_wording(question, language, rng, pictures)):
        pass
    return text


def is_held_out(text: str) -> bool:
    """Whether a text holds a sentence of `HELD_OUT`."""
    return bool(_held_out_pattern().search(_plain(text)))


@cache
def _held_out_pattern() -> re.Pattern:
    sentences = [sentence for kinds in HELD_OUT.values() for own in kinds.values() for sentence in own]
    return re.compile("|".join(re.sub(r"\\{\w+\\}", ".{1,40}", re.escape(_plain(sentence))) for sentence in sentences))


def _plain(text: str) -> str:
    return re.sub(r"[.,:?!。，：？！' ]", "", text.lower().replace("color", "colour"))


def _any_wording(question: Question, language: str, rng: random.Random, pictures: int) -> str:
    sentences = ORDINARY[language][question.kind]
    if question.picture is not None:
        sentences = [sentence for sentence in sentences if any(slot in sentence for slot in _NAMING)]
    if rng.random() < 0.65 or question.kind in ("compare", "pictures"):
        text = fill(rng.choice(sentences), question, language, rng, pictures)
    else:
        text = ask(question, language, rng, pictures)
    if rng.random() < 0.5:
        text = _renamed(text, language, rng)
    if rng.random() < 0.1:
        before = rng.choice(_BEFORE[language])
        text = before + (text if before[-2] in ".!:" else text[0].lower() + text[1:])
    if rng.random() < 0.06:
        text += rng.choice(_BEHIND[language])
    return loosen(text, rng)


def spoken(language: str) -> list[str]:
    """Every sentence, name and word of this file, without what is filled in."""
    names = [re.sub(r"\\\d", " ", other) for others in _OTHER_NAMES[language].values() for other in others]
    sentences = [sentence for kinds in (ORDINARY, HELD_OUT) for each in kinds[language].values() for sentence in each]
    return [re.sub(r"{\w+}", " ", text) for text in (*sentences, *names, *_BEFORE[language], *_BEHIND[language])]


def _renamed(text: str, language: str, rng: random.Random) -> str:
    names = list(_OTHER_NAMES[language].items())
    rng.shuffle(names)
    for pattern, others in names[: rng.randint(6, len(names))]:
        text = re.sub(pattern, rng.choice(others), text, count=1)
    return text

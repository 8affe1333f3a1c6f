"""What can be talked about without a picture: greetings and a few facts. Each question has one right answer."""

from .grammar import CHINESE, NUMBERS
from .scenes import COLOURS, SHAPES

# A fact is (wordings of the question, the answer).
Fact = tuple[tuple[str, ...], str]

CHAT: dict[str, list[Fact]] = {
    "en": [
        (("Hello!", "Hi!", "Hi there!"), "Hello! Show me a picture."),
        (("Good morning!", "Good morning."), "Good morning!"),
        (("Good night!", "Good night."), "Good night!"),
        (("How are you?", "How are you today?"), "I am fine, thank you."),
        (("Who are you?", "What are you?"), "I am a small model with eyes."),
        (("What can you do?", "How can you help me?"), "I see coloured shapes in pictures."),
        (("Can you see?", "Do you have eyes?"), "Yes, show me a picture."),
        (("Can you speak Chinese?", "Do you speak Chinese?"), "Yes, a little."),
        (("Thank you!", "Thanks!", "Thank you very much!"), "You are welcome."),
        (("Well done!", "Very good!"), "Thank you!"),
        (("Goodbye!", "Bye!", "See you!"), "Goodbye!"),
    ],
    "zh": [
        (("你好！", "您好！", "嗨！"), "你好！给我看一张图片吧。"),
        (("早上好！", "早上好。"), "早上好！"),
        (("晚安！", "晚安。"), "晚安！"),
        (("你好吗？", "你今天好吗？"), "我很好，谢谢。"),
        (("你是谁？", "你是什么？"), "我是一个有眼睛的小模型。"),
        (("你会做什么？", "你能帮我做什么？"), "我能看图片里的彩色形状。"),
        (("你能看见吗？", "你有眼睛吗？"), "能，给我看一张图片吧。"),
        (("你会说英语吗？", "你懂英语吗？"), "会一点。"),
        (("谢谢！", "谢谢你！", "多谢！"), "不客气。"),
        (("做得好！", "很好！"), "谢谢！"),
        (("再见！", "拜拜！", "回头见！"), "再见！"),
    ],
}

_SIDES = {"circle": 0, "triangle": 3, "square": 4}
_OPPOSITES = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))
_COLOUR_OF = {
    "en": {"a banana": "yellow", "grass": "green", "the sky": "blue", "blood": "red", "a carrot": "orange",
           "coal": "black"},
    "zh": {"香蕉": "yellow", "草": "green", "天空": "blue", "血": "red", "胡萝卜": "orange", "煤": "black"},
}  # fmt: skip
_SUMS = [(a, b) for a in range(1, 5) for b in range(1, 5)]
_COUNTS_TO = (3, 4, 5, 6)


def _english_facts() -> list[list[Fact]]:
    number = NUMBERS["en"]
    said = [name.capitalize() for name in number]
    return [
        [
            ((f"How many sides has a {shape}?", f"How many corners has a {shape}?"), f"{said[sides]}.")
            for shape, sides in _SIDES.items()
        ]
        + [(("How many points has a star?",), "Five.")],
        [((f"Is a {shape} round?",), "Yes." if shape in ("circle", "ring") else "No.") for shape in SHAPES],
        [
            ((f"What colour is {what}?", f"Which colour is {what}?"), f"{colour.capitalize()}.")
            for what, colour in _COLOUR_OF["en"].items()
        ],
        [((f"What comes after {number[n]}?",), f"{said[n + 1]}.") for n in range(1, 10)]
        + [((f"What comes before {number[n]}?",), f"{said[n - 1]}.") for n in range(2, 11)],
        [
            (
                (f"What is {number[a]} plus {number[b]}?", f"How much is {number[a]} plus {number[b]}?"),
                f"{said[a + b]}.",
            )
            for a, b in _SUMS
        ],
        [((f"Count to {number[n]}.",), ", ".join((said[1], *number[2 : n + 1])) + ".") for n in _COUNTS_TO],
        [((f"What is the opposite of {a}?",), f"{b.capitalize()}.") for a, b in _OPPOSITES],
        [
            ((f"What is {name} in Chinese?", f"How do you say {name} in Chinese?"), f"{CHINESE[name]}。")
            for name in (*COLOURS, *SHAPES)
        ],
        [
            (("Which colours do you know?", "Name the colours you know."), f"{', '.join(COLOURS).capitalize()}."),
            (("Which shapes do you know?", "Name the shapes you know."), f"{', '.join(SHAPES).capitalize()}."),
        ],
    ]


def _chinese_facts() -> list[list[Fact]]:
    number = NUMBERS["zh"]
    return [
        [
            (
                (f"{CHINESE[shape]}有几条边？", f"{CHINESE[shape]}有多少条边？"),
                f"{number[sides]}条。" if sides else "没有。",
            )
            for shape, sides in _SIDES.items()
        ]
        + [(("星形有几个角？",), "五个。")],
        [((f"{CHINESE[shape]}是圆的吗？",), "是。" if shape in ("circle", "ring") else "不是。") for shape in SHAPES],
        [((f"{what}是什么颜色？", f"{what}是哪种颜色？"), f"{CHINESE[colour]}。") for what, colour in _COLOUR_OF["zh"].items()],
        [((f"{number[n]}后面是几？",), f"{number[n + 1]}。") for n in range(1, 10)]
        + [((f"{number[n]}前面是几？",), f"{number[n - 1]}。") for n in range(2, 11)],
        [((f"{number[a]}加{number[b]}等于几？", f"{number[a]}加{number[b]}是多少？"), f"{number[a + b]}。") for a, b in _SUMS],
        [((f"从一数到{number[n]}。",), "、".join(number[1 : n + 1]) + "。") for n in _COUNTS_TO],
        [((f"{CHINESE[a]}的反面是什么？",), f"{CHINESE[b]}。") for a, b in _OPPOSITES],
        [
            ((f"{CHINESE[name]}用英语怎么说？", f"{CHINESE[name]}的英语是什么？"), f"{name.capitalize()}.")
            for name in (*COLOURS, *SHAPES)
        ],
        [
            (("你认识哪些颜色？", "你知道哪些颜色？"), "、".join(CHINESE[name] for name in COLOURS) + "。"),
            (("你认识哪些形状？", "你知道哪些形状？"), "、".join(CHINESE[name] for name in SHAPES) + "。"),
        ],
    ]


# Groups of facts of one sort; each group is asked for as often as the others.
FACTS: dict[str, list[list[Fact]]] = {"en": _english_facts(), "zh": _chinese_facts()}

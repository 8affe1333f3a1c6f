"""Every word of the chat page, in English and Chinese."""

from .session import Seen

LANGUAGES = {"en": "English", "zh": "中文"}

EXAMPLES = ("four-shapes.png", "star-and-ring.png", "two-crosses.png")
"""In `demo/examples/`; each is asked about with the language's "default question"."""

LABELS: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (("chatbot conversation",), {"en": "Chat", "zh": "对话"}),
    (("user's message: *",), {"en": "You: *", "zh": "你：*"}),
    (("bot's message: *",), {"en": "Answer: *", "zh": "回答：*"}),
    (("a component of type html",), {"en": "pictures", "zh": "图片"}),
    (("Copy message",), {"en": "Copy", "zh": "复制"}),
    (("Edit", "编辑"), {"en": "Edit", "zh": "编辑"}),
    (("Retry", "重试"), {"en": "Retry", "zh": "重新回答"}),
    (("Submit", "发送"), {"en": "Submit", "zh": "发送"}),
    (("Cancel", "取消"), {"en": "Cancel", "zh": "取消"}),
    (("Clear", "清空对话"), {"en": "Clear", "zh": "清空"}),
    (("Example icon",), {"en": "Example picture", "zh": "示例图片"}),
    (("Select example *",), {"en": "Example *", "zh": "示例 *"}),
    (("Multimedia input field",), {"en": "Your message", "zh": "你的消息"}),
    (("Upload a file",), {"en": "Add pictures", "zh": "添加图片"}),
    (("Uploaded files",), {"en": "Pictures of this message", "zh": "这条消息的图片"}),
    (("File thumbnail",), {"en": "Picture of this message", "zh": "这条消息的一张图片"}),
    (("Remove file",), {"en": "Remove picture", "zh": "移除图片"}),
    (("Stop",), {"en": "Stop", "zh": "停止"}),
    (("Uploading * file...", "Uploading * files..."), {"en": "Uploading * …", "zh": "正在上传 * ……"}),
    (("Click to Access Webcam", "grant webcam access"), {"en": "Turn the camera on", "zh": "打开摄像头"}),
    (("capture photo",), {"en": "Take a picture", "zh": "拍照"}),
    (("Drop an image file here to upload", "将图像文件拖放到此处以上传"), {"en": "Camera picture", "zh": "摄像头画面"}),
    (("number input for *",), {"en": "number input for *", "zh": "*（数值）"}),
    (("range slider for *",), {"en": "range slider for *", "zh": "*（滑块）"}),
    (("Reset to default value",), {"en": "Reset to default value", "zh": "恢复默认值"}),
    (("processing |",), {"en": "processing |", "zh": "处理中 |"}),
    (("queue: * |",), {"en": "waiting: * |", "zh": "排队：* |"}),
    (("common.complete",), {"en": "Done", "zh": "完成"}),
    (("Error", "错误"), {"en": "Error", "zh": "错误"}),
    (
        ("Connection to the server was lost. Attempting reconnection...", "Connection errored out."),
        {"en": "The connection to the page's server is lost.", "zh": "与页面服务器的连接中断了。"},
    ),
)
"""What gradio calls its own controls, in English and where it translates in Chinese, and what they are called here; "*" is anything."""

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "placeholder": "**{model}**\n\nDrop a picture, paste one, or take one with the camera, and ask about it.",
        "language": "Language",
        "question": "Ask about your pictures…",
        "default question": "Describe the picture.",
        "camera": "Camera",
        "is looking": "Show what it looks at",
        "looked at": "What it looked at",
        "looks info": "Bright is where the attention of the answer, or of one word, fell; the percentage is a picture's part of it. "
        "It shows what was read, not why. Between picture and words stands a resampler, whose every token mixes many places: edges "
        "are soft, and what is dark may have counted, too.",
        "looks words": "Point at a word, or choose it:",
        "no looks": "Nothing to show: no picture was in the context of this answer.",
        "looks unknown": "This model does not tell where in a picture it looks.",
        "looks of another": "{model} gave this answer. What it looked at is told while that model is chosen.",
        "looks failed": "What it looks at cannot be shown: {error}",
        "picture": "Picture {}",
        "settings": "Settings",
        "do_sample": "Sample (off: always the likeliest token)",
        "temperature": "Temperature",
        "top_p": "Top p",
        "top_k": "Top k",
        "repetition_penalty": "Repetition penalty",
        "max_new_tokens": "Longest answer, in tokens",
        "save": "Save chat",
        "clear": "Clear",
        "undo": "Undo clear",
        "chats": "Chats",
        "new chat": "＋ New chat",
        "model": "Model: {model}",
        "models": "Which model answers",
        "unexamined": "is being looked at…",
        "offer": "{kind} · {needed} in {bits} bits, {free} free",
        "refused": "cannot be chosen: {reason}",
        "no eyes": "not a model that sees, as it lies",
        "too large": "too large.",
        "smaller": ". It would fit with {flag}, given when the page is started",
        "knows nothing": "{model}: its card does not say what it knows.",
        "away": "The page's server does not answer. Your chat is kept in this browser and goes on when the server is back.",
        "back": "The page's server was restarted; your chat, and what you had not sent yet, were kept in this browser.",
        "unkept": "This chat cannot be kept in this browser: a reload of the page would end it.",
        "absent": "There is no camera on this device. Attach a picture instead.",
        "denied": "The browser does not let this page use the camera. Allow it in the address bar, then try again.",
        "occupied": "The camera cannot be used; another program may be using it.",
        "insecure": "Browsers give a page from another machine no camera unless it comes by https. Open it on the machine it runs on.",
        "interrupted": "The answer was interrupted. Ask again.",
        "lost pictures": "Pictures of this chat that could not be read again: {number}.",
        "loading": "Loading {model}…",
        "ready": "{model} · no pictures yet",
        "ready again": "{model} · ready",
        "context": "{model} · {pictures} · {tokens} tokens used",
        "context of": "{model} · {pictures} · {tokens} of {max_tokens} tokens used",
        "in context": "in the context: picture {numbers} ({cost} tokens)",
        "in context many": "in the context: pictures {numbers} ({cost} tokens)",
        "shown": "in the context: picture {numbers}",
        "shown many": "in the context: pictures {numbers}",
        "no pictures": "no picture in the context",
        "left out": "; left out because the context is full: {numbers}",
        "comma": ", ",
        "load failed": "{model} could not be loaded: {error}",
        "failed": "No answer: {error}",
        "stopped": "Stopped before the first word.",
        "out of memory": "Out of memory. Ask about fewer pictures at once, or with a shorter longest answer.",
        "busy": "Wait for the answer, or stop it first.",
        "warning": "Note",
        "unread": "{error}",
        "too long": "The question has {length} characters, at most {most} are taken. Shorten it.",
        "nothing": "Write a question or add a picture first.",
        "nothing to save": "There is nothing to save yet.",
    },
    "zh": {
        "placeholder": "**{model}**\n\n拖入、粘贴或拍摄一张图片，然后提问。",
        "language": "语言",
        "question": "请就图片提问……",
        "default question": "请描述图片。",
        "camera": "摄像头",
        "is looking": "显示模型在看哪里",
        "looked at": "模型看了哪里",
        "looks info": "亮处是整个回答或其中一个词的注意力所在，百分比是每张图片所占的份额。它表明读了哪里，不表明为什么。"
        "图片与文字之间隔着重采样器，它的每个词元都混合了许多位置：边界是模糊的，暗处也可能起了作用。",
        "looks words": "指向或选择一个词：",
        "no looks": "没有可显示的内容：这个回答的上下文里没有图片。",
        "looks unknown": "这个模型无法指出它在看图片的哪里。",
        "looks of another": "这个回答来自 {model}。选用那个模型时才能显示它看了哪里。",
        "looks failed": "无法显示模型在看哪里：{error}",
        "picture": "图片 {}",
        "settings": "设置",
        "do_sample": "采样（关闭时总是取最可能的词元）",
        "temperature": "温度",
        "top_p": "Top p",
        "top_k": "Top k",
        "repetition_penalty": "重复惩罚",
        "max_new_tokens": "回答的最大长度（词元）",
        "save": "保存对话",
        "clear": "清空",
        "undo": "撤销清空",
        "chats": "对话列表",
        "new chat": "＋ 新对话",
        "model": "模型：{model}",
        "models": "由哪个模型回答",
        "unexamined": "正在检查……",
        "offer": "{kind} · {bits} 位需要 {needed}，可用 {free}",
        "refused": "不能选用：{reason}",
        "no eyes": "它本身不是能看图的模型",
        "too large": "太大。",
        "smaller": "。启动页面时加上 {flag} 就放得下",
        "knows nothing": "{model}：模型卡没有说明它认识什么。",
        "away": "页面的服务器没有响应。对话保存在这个浏览器里，服务器恢复后可以继续。",
        "back": "页面的服务器重新启动过；对话和尚未发送的消息都保存在这个浏览器里。",
        "unkept": "这个对话无法保存在浏览器里：刷新页面就会丢失。",
        "absent": "这台设备没有摄像头，请改为添加图片。",
        "denied": "浏览器不允许这个页面使用摄像头。请在地址栏中允许后再试。",
        "occupied": "摄像头无法使用，可能正被其他程序占用。",
        "insecure": "页面来自另一台机器且没有使用 https 时，浏览器不提供摄像头。请在运行页面的机器上打开。",
        "interrupted": "回答被中断，请重新提问。",
        "lost pictures": "这个对话中有 {number} 张图片无法重新读取。",
        "loading": "正在加载 {model}……",
        "ready": "{model} · 还没有图片",
        "ready again": "{model} · 就绪",
        "context": "{model} · {pictures} · 已用 {tokens} 个词元",
        "context of": "{model} · {pictures} · 已用 {tokens} / {max_tokens} 个词元",
        "in context": "上下文中：图片 {numbers}（占 {cost} 个词元）",
        "in context many": "上下文中：图片 {numbers}（占 {cost} 个词元）",
        "shown": "上下文中：图片 {numbers}",
        "shown many": "上下文中：图片 {numbers}",
        "no pictures": "上下文中没有图片",
        "left out": "；上下文已满，未包含：{numbers}",
        "comma": "、",
        "load failed": "无法加载 {model}：{error}",
        "failed": "没有回答：{error}",
        "stopped": "在第一个字之前就停止了。",
        "out of memory": "内存不足。请一次少问几张图片，或缩短回答的最大长度。",
        "busy": "请等待回答结束，或先停止它。",
        "warning": "提示",
        "unread": "{error}",
        "too long": "问题有 {length} 个字符，最多 {most} 个。请缩短。",
        "nothing": "请先输入问题或添加图片。",
        "nothing to save": "还没有可以保存的内容。",
    },
}


def browser_language(accept_language: str) -> str:
    """The language of a browser, by its Accept-Language header."""
    return "zh" if accept_language.strip().lower().startswith("zh") else "en"


def context_line(language: str, model: str, seen: Seen) -> str:
    """Which pictures stand in the context of an answer, and what they cost."""
    texts = TEXTS[language]

    def listed(numbers: list[int]) -> str:
        return texts["comma"].join(map(str, numbers))

    pictures = texts["no pictures"]
    if seen.numbers:
        key = ("in context" if seen.picture_tokens else "shown") + (" many" if len(seen.numbers) > 1 else "")
        pictures = texts[key].format(numbers=listed(seen.numbers), cost=seen.picture_tokens)
    if seen.left_out:
        pictures += texts["left out"].format(numbers=listed(seen.left_out))
    line = texts["context of" if seen.max_tokens else "context"]
    return line.format(model=model, pictures=pictures, tokens=seen.num_tokens, max_tokens=seen.max_tokens)

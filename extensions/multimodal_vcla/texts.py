"""What the user reads, in English and Chinese."""

import locale

from . import settings

_TEXTS = {
    "title": ("Pictures", "图片"),
    "refresh": ("Refresh", "刷新"),
    "no_model": ("No model is loaded.", "尚未加载模型。"),
    "native": (
        "The loader {loader} has its own vision; this extension does nothing.",
        "加载器 {loader} 自带视觉功能，本扩展不参与。",
    ),
    "loading": ("Loading the vision model of {name} ...", "正在加载 {name} 的视觉模块……"),
    "waiting": ("{name}: the vision model is loaded with the first picture.", "{name}：收到第一张图片时加载视觉模块。"),
    "seeing": (
        "{name} on {device}. In context: {pictures}, {used} of {context} tokens.",
        "{name}（{device}）。上下文中有{pictures}，占 {used}/{context} 个词元。",
    ),
    "reused": (
        "Last prompt: {total} tokens, {reused} of them kept from before.",
        "上一次提示：{total} 个词元，其中 {reused} 个沿用之前的计算结果。",
    ),
    "pictures": ("{count} pictures", " {count} 张图片"),
    "one_picture": ("{count} picture", " {count} 张图片"),
    "blind": ("Pictures cannot be seen: {reason}", "无法看图：{reason}"),
    "no_eyes": (
        "the model {model!r} has no vision model: its folder holds no 'vision/config.json' of a known family ({families}). Load a model "
        "that has one, or set multimodal_vcla-eyes to a folder that holds one made for it.",
        "模型 {model!r} 没有视觉模块：其文件夹中没有已知系列（{families}）的 'vision/config.json'。请加载带视觉模块的模型，"
        "或把 multimodal_vcla-eyes 设为适用于它的视觉模块文件夹。",
    ),
    "loader": (
        "the loader {loader} cannot take pictures. Load the model with the Transformers loader.",
        "加载器 {loader} 不能接收图片。请改用 Transformers 加载器。",
    ),
    "other_replies": (
        "the extension {name!r} makes the replies itself and would not see them. Disable it, or send text only.",
        "扩展 {name!r} 自行生成回复，看不到图片。请停用它，或只发送文字。",
    ),
    "other_owns": (
        "The extension {name!r} stands before this one and owns {hook}: {effect} Put multimodal_vcla first in --extensions.",
        "扩展 {name!r} 排在本扩展之前并占用 {hook}：{effect} 请在 --extensions 中把 multimodal_vcla 放在最前。",
    ),
    "effect_prompt": (
        "pictures are found by the text of their messages, and image-only messages are forgotten.",
        "图片只能按消息文字定位，仅含图片的旧消息会丢失。",
    ),
    "effect_length": ("pictures are not counted when old messages are dropped.", "裁剪旧消息时不计入图片的长度。"),
    "patch": (
        "This web UI has changed: {name} could not be adapted, so {effect}",
        "此版本的 Web UI 有改动：无法适配 {name}，因此{effect}",
    ),
    "only_pictures": (
        "message {number} holds a part of type {kind!r}: only pictures and texts are taken. Leave it out.",
        "第 {number} 条消息含有 {kind!r} 类型的内容：只接受图片和文字，请去掉它。",
    ),
    "template": (
        "the chat template writes {written} pictures of {count}. Choose the model's own template.",
        "对话模板只写出 {count} 张图片中的 {written} 张。请选用模型自带的模板。",
    ),
    "at_start": (
        "multimodal_vcla-model: {name!r} could not be loaded: {reason}",
        "multimodal_vcla-model：无法加载 {name!r}：{reason}",
    ),
    "no_answer": ("The request could not be answered.", "无法回答该请求。"),
    "bad_picture": ("Picture {name}: {reason}", "图片 {name}：{reason}"),
    "leave_it_out": (
        "The message stays in the chat: leave this picture out in the panel, and regenerate.",
        "消息保留在对话中：请在面板中排除这张图片，然后重新生成。",
    ),
    "bad_source": (
        "only data: and http(s): addresses of pictures are taken, not {scheme!r}.",
        "只接受 data: 或 http(s): 图片地址，不接受 {scheme!r}。",
    ),
    "bad_fetch": ("{url} could not be fetched ({reason}).", "无法下载 {url}（{reason}）。"),
    "too_many": (
        "{count} pictures in one prompt, allowed are {limit} (multimodal_vcla-max_images). Leave some out.",
        "一次提示中有 {count} 张图片，最多允许 {limit} 张（multimodal_vcla-max_images）。请去掉一些。",
    ),
    "no_room": (
        "{name} does not fit: it takes {tokens} tokens, and the prompt may have {budget} for pictures and text together. Give it "
        "more room: a larger truncation length or fewer new tokens. Or leave a picture out in the panel.",
        "{name} 放不下：它占 {tokens} 个词元，而图文合计最多 {budget} 个。请增大截断长度、减少生成长度，或在面板中排除图片。",
    ),
    "unmatched": (
        "It cannot be told which picture stands where in this prompt ({reason}), so it is not answered. Remove or edit the message.",
        "无法确定提示中各图片的位置（{reason}），因此不作回答。请删除或编辑该消息。",
    ),
    "no_marker": (
        "{count} pictures came with the request but only {markers} '<__media__>' stand in the prompt. Write one where each picture "
        "belongs.",
        "请求带有 {count} 张图片，但提示中只有 {markers} 个 '<__media__>'。请在每张图片的位置各写一个。",
    ),
    "unknown_mark": (
        "The prompt holds the mark of a picture that is not in the current chat. Open the chat it came from, or delete the mark.",
        "提示中含有当前对话里不存在的图片标记。请打开它所属的对话，或删除该标记。",
    ),
    "embeds_taken": (
        "another extension has already embedded this prompt; pictures cannot be added.",
        "其他扩展已对此提示做过嵌入，无法再加入图片。",
    ),
    "failed": ("The picture could not be seen: {reason}", "看图失败：{reason}"),
    "fits_not": ("dropped with its message: the context is full", "上下文已满，随消息一起移除"),
    "kept": ("in the prompt", "在提示中"),
    "left_out": ("left out", "已排除"),
    "leave_out": ("Click to leave it out of the prompt.", "点击即可从提示中排除。"),
    "take_in": ("Click to take it into the prompt again.", "点击即可重新放入提示。"),
    "more": ("More about the pictures of this chat", "此对话中图片的更多信息"),
    "in_strip": ("{pictures}, {used:,} of {context:,} tokens", "{pictures}，{used:,}/{context:,} 个词元"),
    "tokens": ("{count} tokens", "{count} 个词元"),
    "instead": ("{count} tokens instead of {own}", "{count} 个词元（原需 {own} 个）"),
    "limits_pixels": (
        "Pictures are shown with at most (tokens of a photo of 1600 x 1200)",
        "图片的最大像素数（括注 1600 x 1200 照片所占的词元）",
    ),
    "limits_tiles": (
        "Large pictures are shown (tokens of a photo of 1600 x 1200)",
        "大图的查看方式（括注 1600 x 1200 照片所占的词元）",
    ),
    "priced": ("{name}: {count:,} tokens", "{name}：{count:,} 个词元"),
    "own_pixels": ("as many pixels as the model takes", "模型所能接受的像素数"),
    "pixels": ("{number:,} pixels", "{number:,} 像素"),
    "tiles_own": ("as the model does by itself", "模型的默认方式"),
    "tiles_tiles": ("whole and in magnified parts", "整图加放大的局部"),
    "tiles_whole": ("whole only", "仅整图"),
    "which": ("In the prompt", "放入提示"),
    "policy": ("Pictures in the prompt", "提示中的图片"),
    "all": ("all", "全部"),
    "last_n": ("the last N", "最近 N 张"),
    "last_only": ("the last only", "仅最近一张"),
    "n": ("N", "N"),
    "webcam": ("Webcam", "摄像头"),
    "no_webcam": (
        "Browsers allow a camera on https and on localhost only.",
        "浏览器只允许在 https 或 localhost 上使用摄像头。",
    ),
    "take": ("Put into the message", "放入消息"),
    "no_capture": ("There is no picture yet: press the camera button first.", "还没有照片：请先按拍照按钮。"),
    "about": ("The model folder", "模型文件夹"),
    "look_again": ("Look for the vision model again", "重新查找视觉模块"),
    "nothing": ("No pictures in this chat.", "此对话中没有图片。"),
}


def is_chinese() -> bool:
    language = settings.get("language")
    if language in ("en", "zh"):
        return language == "zh"
    return (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese"))


def say(text: str, **values) -> str:
    """A text in the user's language."""
    return _TEXTS[text][is_chinese()].format(**values)

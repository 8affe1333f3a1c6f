"""What goes wrong is told in English by whoever finds it: the doctor, the reader of pictures, a server. Here it is in Chinese."""

import re

REASONS: tuple[tuple[str, str], ...] = (
    # The doctor, of a folder.
    ("weights: … has a config.json but no weights.", "{0} 里有 config.json，但没有权重，请重新复制"),
    ("… holds no weights (", "{0} 里没有权重，请重新复制"),
    ("weights: copy *.safetensors again (…).", "{0} 里没有权重，请重新复制 *.safetensors"),
    ("a tokenizer: none of … is in …. Copy", "{1} 里没有分词器，请从语言模型那里复制"),
    ("a tokenizer: copy tokenizer.json again (…).", "{0} 里没有分词器，请重新复制 tokenizer.json"),
    ("'preprocessor_config.json' in …. Copy", "{0} 里没有 preprocessor_config.json，请从视觉编码器那里复制"),
    ("'preprocessor_config.json': copy it again (…).", "{0} 里没有 preprocessor_config.json，请重新复制"),
    (
        "a chat template, so … beside config.json (…).",
        "{1} 没有对话模板，不是为聊天训练的；请把 chat_template.jinja 放在 config.json 旁边",
    ),
    ("theirs has width …, this one ….", "视觉部分与语言模型不匹配：前者的宽度是 {0}，后者是 {1}"),
    ("there are no weights and no configuration of a known family", "既没有权重，也没有已知家族的配置：这不是模型文件夹"),
    ("a place of its own for the adapter", "适配器与权重放在一起：已经合并过就移走适配器，没有合并过就移走之后再合并"),
    ("… is not valid JSON", "{0} 不是有效的 JSON，请重新复制"),
    ("… holds no configuration.", "{0} 里没有配置，请重新复制"),
    ("… names …, which … not there.", "{0} 提到的 {1} 不存在"),
    ("… is not a model folder: missing ….", "{0} 不是模型文件夹，缺少 {1}"),
    ("… says … layers;", "{0} 写着 {1} 层，没有模型有这么多层，请重新复制"),
    ("… is cut off:", "{0} 不完整，请重新复制"),
    ("… is not a safetensors file,", "{0} 不是完整的 safetensors 文件，请重新复制"),
    ("… is broken or half-written", "{0} 已损坏或没有写完，请重新复制"),
    ("… is not whole, or its config.json is another model's:", "{0} 不完整，或者其中的 config.json 属于另一个模型，请重新复制"),
    ("… has a value that cannot be:", "{0} 里有不可能的值，请重新复制"),
    ("… is not taken: ….", "这里不能用 {0} 聊天（{1}）"),
    ("the vision model (mmproj) of … GGUF model,", "这是 GGUF 模型（llama.cpp）的视觉部分，请用 web UI 的 llama.cpp 加载器"),
    ("a GGUF model,", "这是 GGUF 模型（llama.cpp 的格式）：请用 web UI 的 llama.cpp 加载器，或改用 safetensors 格式的模型"),
    ("is LLaMA as Meta published it · Convert it first: …", "这是 Meta 发布格式的 LLaMA，请先转换：{0}"),
    ("is quantised (…)", "这是量化过的模型（{0}）：可以直接在 web UI 里加载，或换成量化之前的模型"),
    ("a package: …", "缺少一个 Python 包（{0}）"),
    ("settings of its quantisation that can be: …", "量化设置无效（{0}）"),
    ("is a delta, … · Add it to LLaMA first: …", "这是与 LLaMA 权重的差，不是模型；请先合并：{1}"),
    ("…  # gives it eyes", "{0}（为它训练视觉部分）"),
    ("image-text-to-text models of transformers, such as …", "transformers 的图文模型，例如 {0}"),
    ("Loading in … bits takes about …, but only … are free on ….", "以 {0} 位加载大约需要 {1}，{3} 上只有 {2} 可用"),
    # The reader of pictures, of a file.
    ("…: no format that is read here (…).", "{0}：不是可以读取的格式（{1}），请另存为 PNG 或 JPEG"),
    ("…: cannot be read (", "{0}：无法读取，可能不完整；请重新获取，或另存为 PNG"),
    ("…: its end is missing,", "{0}：不完整，请重新获取"),
    ("…: an empty file", "{0}：是空文件，请重新获取"),
    ("…: more than the … bytes allowed.", "{0}：超过了允许的 {1} 字节，请存得小一些，例如 JPEG"),
    ("…: … is … pixels, allowed are ….", "{0}：{1} 共 {2} 像素，最多允许 {3}，请缩小"),
    ("…: a HEIC photo,", "{0}：是 iPhone 的 HEIC 照片，请安装 pillow-heif（pip install pillow-heif），或存为 JPEG"),
    ("…: an SVG drawing,", "{0}：是 SVG 图形，请导出为 PNG"),
    ("…: a web page (HTML),", "{0}：是网页，不是图片；保存下来的会不会是网页地址？"),
    ("…: a PDF document.", "{0}：是 PDF 文档，请把其中一页导出为 PNG"),
    ("…: a Photoshop file.", "{0}：是 Photoshop 文件，请导出为 PNG"),
    ("…: a video.", "{0}：是视频，请把其中一帧存为 PNG 或 JPEG"),
    ("…: an archive.", "{0}：是压缩包，请先解压"),
    # A server, and a conversation that is too long for a model.
    ("… cannot be reached: …", "无法连接 {0}（{1}）"),
    ("… broke off", "{0} 中断了回答，请重新提问"),
    ("… refused (…): …", "{0} 拒绝了请求（{1}）：{2}"),
    ("takes … tokens of a context of ….", "问题和图片共需要 {0} 个词元，上下文只有 {1} 个；请少问几张图片，或缩短文字"),
)
"""A piece of what is told, and the whole of it in Chinese; "…" is anything, which stands at {0}, {1} ... there."""


def reason_in(language: str, told: str) -> str:
    """As it was told; in Chinese where the table has it."""
    for piece, chinese in REASONS if language == "zh" else ():
        if found := re.search("(.+)".join(map(re.escape, piece.split("…"))), told):
            return chinese.format(*found.groups())
    return told

"""Takes OpenAI messages apart as v4.9 does: marks before a blank line, texts joined by line breaks, every role."""


def _text(content):
    if not isinstance(content, list):
        return content or ""
    marks = "".join("<__media__>" for item in content if item["type"] == "image_url")
    text = "\n".join(item["text"] for item in content if item["type"] == "text")
    return f"{marks}\n\n{text}" if marks else text


def convert_history(history):
    rows, waiting, system, is_late, user_input = [], "", "", False, ""
    for entry in history:
        text, role = _text(entry.get("content")), entry["role"]
        if role in ("system", "developer") and not is_late:
            system = f"{system}\n{text}" if system else text
            continue
        is_late = True
        if role == "assistant":
            rows.append([waiting, text, "", {}])
            waiting = user_input = ""
            continue
        if role == "tool":
            rows.append(["", "", text, {"tool_call_id": entry.get("tool_call_id")}])
            user_input = ""
            continue
        if waiting:
            rows.append([waiting, "", "", {}])
            waiting = ""
        if role == "user":
            waiting = user_input = text
        else:
            rows.append([text, "", "", {"role": "system"}])
    return user_input, system, {"internal": rows, "visible": [list(row) for row in rows], "messages": history}


def stream_chat_completions(body, is_legacy=False, stop_event=None):
    yield from body["events"]()


def stream_completions(body, is_legacy=False, stop_event=None):
    yield from body["events"]()

def convert_request(body):
    """Pictures in base64 are passed on, those given by address are dropped."""
    messages = []
    for message in body["messages"]:
        items = []
        for block in message["content"]:
            if block["type"] == "tool_result":
                texts = [inner["text"] for inner in block["content"] if inner["type"] == "text"]
                messages.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": "\n".join(texts)})
            elif block["type"] == "text":
                items.append(block)
            elif block["type"] == "image" and block["source"]["type"] == "base64":
                source = block["source"]
                url = f"data:{source['media_type']};base64,{source['data']}"
                items.append({"type": "image_url", "image_url": {"url": url}})
        if items:
            messages.append({"role": message["role"], "content": items})
    return {**body, "messages": messages}

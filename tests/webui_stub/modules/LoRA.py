def add_lora_to_model(lora_names):
    raise AssertionError("No adapter was asked for.")

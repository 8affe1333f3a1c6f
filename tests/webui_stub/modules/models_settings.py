updated: list = []


def get_model_metadata(model):
    return {"model": model}


def update_model_parameters(state, initial=False):
    updated.append((state, initial))

from extensions.multimodal.abstract_pipeline import AbstractMultimodalPipeline

available_pipelines = ["tiny-old-64", "tiny-old-48"]


def get_pipeline(name: str, params: dict) -> AbstractMultimodalPipeline | None:
    if name == "tiny-old-64":
        from .tiny import Tiny64

        return Tiny64(params)
    if name == "tiny-old-48":
        from .tiny import Tiny48

        return Tiny48(params)
    return None


def get_pipeline_from_model_name(model_name: str, params: dict) -> AbstractMultimodalPipeline | None:
    if "tinyllama-old" not in model_name:
        return None
    from .tiny import Tiny64

    return Tiny64(params)

class OpenAIError(Exception):
    def __init__(self, message=None, code=500, internal_message=""):
        self.message, self.code, self.internal_message = message, code, internal_message

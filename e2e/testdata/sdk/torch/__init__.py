"""All that mlflow-emissions-sdk needs of PyTorch for its other flavours: the name of a type, in an annotation. PyTorch
itself, with CUDA's libraries, would take some GB."""


class device:
    pass

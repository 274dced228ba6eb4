"""What mlflow-emissions-sdk, and MLflow once it finds a module of this name, need of PyTorch for other flavours: the names
of two types. PyTorch itself, with CUDA's libraries, would take some GB."""


class device:
    pass


class Tensor:
    pass

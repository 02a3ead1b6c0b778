"""What is built in, by name, for the first page of help: it does not wait for torch.

The registries are `models.MODELS` and `data.DATASETS`; a test holds these names to them.
"""

MODELS = ("small", "compact", "resnet18", "resnet19", "resnet20", "resnet34", "vgg16")
DATASETS = (
    "digits", "fashion-mnist", "cifar10", "cifar100", "imagenet", "folder", "nmnist",
    "digits-events", "cifar10-dvs", "dvs-gesture", "n-caltech101", "recordings",
)  # fmt: skip

"""The data sets of the peers, held in memory as bytes; and a CIFAR-10 of made-up pixels, where only speed counts."""
import gzip
import os

import torch

CLASSES = 10


def load_idx(folder, part):
    """Fashion-MNIST from its .gz files: images (N, 1, 28, 28) u8, labels (N) i64, mean, std."""
    def read(kind, header):
        with gzip.open(os.path.join(folder, f'{part}-{kind}-ubyte.gz')) as f:
            return torch.frombuffer(bytearray(f.read()[header:]), dtype=torch.uint8)
    return read('images-idx3', 16).view(-1, 1, 28, 28), read('labels-idx1', 8).long(), 0.2860, 0.3530


def load_cifar(folder):
    """CIFAR-10's binary version: images (N, 3, 32, 32) u8, labels (N) i64, mean, std."""
    parts = []
    for i in range(1, 6):
        with open(os.path.join(folder, f'data_batch_{i}.bin'), 'rb') as f:
            parts.append(torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).view(-1, 3073))
    rows = torch.cat(parts)
    view = lambda v: torch.tensor(v).view(1, 3, 1, 1)
    return rows[:, 1:].contiguous().view(-1, 3, 32, 32), rows[:, 0].long(), view([0.4914, 0.4822, 0.4465]), view([0.2470, 0.2435, 0.2616])


def normalise(x, mean, std):
    return x.float().div_(255).sub_(mean).div_(std)


def load_resident(path, shape):
    """Records of dataset-resident: images (N, shape) u8, labels (N) i64."""
    count = 1
    for n in shape:
        count *= n
    with open(path, 'rb') as f:
        rows = torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).view(-1, 4 + count)
    labels = rows[:, :4].contiguous().view(torch.int32).view(-1).long()
    return rows[:, 4:].contiguous().view(-1, *shape), labels


def load_text(path):
    """Characters as numbers in order of code point, i64."""
    with open(path) as f:
        letters = f.read()
    number = {c: i for i, c in enumerate(sorted(set(letters)))}
    return torch.tensor([number[c] for c in letters])

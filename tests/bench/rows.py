"""The rows of the table of measures: what is trained, its targets, and the data that both sides read."""
import os
import random
import struct
from dataclasses import dataclass


@dataclass
class Row:
    name: str
    title: str
    batch: int
    eager: float                # targets: times PyTorch's eager mode, times torch.compile
    compiled: float
    memory: float               # of PyTorch's peak resident memory
    check: int                  # steps after which the losses are compared
    data: str                   # fashion, cifar, tiny, large, text
    images: bool = True         # channels_last is worth a try
    lr: float = 0.1
    threads: tuple = (1, 2)
    compile_threads: tuple = (1, 2)      # the large rows compile for minutes


ROWS = {r.name: r for r in (
    Row('tiny', '4 x (8x8 linear + relu), b8', 8, 30, 5, 0.4, 200, 'tiny', False, 0.01, threads=(1,)),      # no work to share: a second thread adds barriers alone
    Row('lenet', 'LeNet-5 b64', 64, 3, 2, 0.4, 100, 'fashion', True, 0.05),
    Row('mlp', 'MLP 784-512-256-10 b64', 64, 1.5, 1.2, 0.4, 100, 'fashion', False, 0.05),
    Row('cnn', 'batch-norm CNN 28x28 b64', 64, 1.3, 1.2, 0.4, 20, 'fashion'),
    Row('resnet20', 'ResNet-20 32x32 b64', 64, 1.3, 1.2, 0.4, 20, 'cifar'),
    Row('resnet18', 'ResNet-18 224x224 b16', 16, 1.1, 1.1, 0.8, 4, 'large', True, 0.01, compile_threads=(1,)),
    Row('mobilenet', 'MobileNet-v2 224x224 b16', 16, 1.1, 1.1, 0.8, 4, 'large', True, 0.01, compile_threads=(1,)),
    Row('gpt', 'char-level GPT, 4 layers, 128 wide, context 128, b8', 8, 1.4, 1.2, 0.4, 40, 'text', False, 1e-3),
)}
# bytes a parameter: reads p, g, m, v, writes p, m, v; forms of PyTorch's, with the target against each: fused is told, not promised, as it is bound by memory already
UPDATE = dict(name='adamw', title='AdamW over ResNet-18\'s 11.7 M parameters', compiled=2, bytes=28, forms=dict(default=3, foreach=3, fused=None))
NEIGHBOUR = ('lenet', 'cnn')     # rows that are also run beside an endless loop on one of two CPUs: at least 2 times PyTorch
LETTERS = ''.join(map(chr, range(32, 97)))    # 65 of them


def cifar(folder):
    """CIFAR-10's file format with random pixels."""
    source = random.Random(1)
    for i in range(1, 6):
        with open(os.path.join(folder, f'data_batch_{i}.bin'), 'wb') as f:
            for _ in range(1000):
                f.write(bytes([source.randrange(10)]) + source.randbytes(3072))


def resident(path, samples, count, classes):
    """Records of dataset-resident: a label of 4 bytes, COUNT random bytes."""
    source = random.Random(2)
    with open(path, 'wb') as f:
        for _ in range(samples):
            f.write(struct.pack('<I', source.randrange(classes)) + source.randbytes(count))


def text(path, length=400_000):
    """Letters that follow one another with some regularity, so that a loss can fall; each of the 65 occurs."""
    source, at, out = random.Random(3), 0, list(LETTERS)
    for _ in range(length):
        at = (at * 5 + 3 + source.choice((0, 0, 0, 1, 2, 7))) % len(LETTERS)
        out.append(LETTERS[at])
    with open(path, 'w') as f:
        f.write(''.join(out))


def make_data(folder, fashion, wanted):
    """Writes what the rows WANTED need to FOLDER; returns {kind: path}."""
    places = dict(fashion=fashion, cifar=folder, tiny=os.path.join(folder, 'tiny.bin'), large=os.path.join(folder, 'large.bin'), text=os.path.join(folder, 'text.txt'))
    if 'cifar' in wanted:
        cifar(folder)
    if 'tiny' in wanted:
        resident(places['tiny'], 512, 8, 8)
    if 'large' in wanted:
        resident(places['large'], 64, 3 * 224 * 224, 1000)
    if 'text' in wanted:
        text(places['text'])
    return places

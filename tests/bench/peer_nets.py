"""The benchmarks' networks in PyTorch: the same layers, parameters and initialisation as Heddle's model plugins."""
import torch
import torch.nn as nn
import torch.nn.functional as F

VOCABULARY, CONTEXT, WIDE, HEADS, DEPTH = 65, 128, 128, 4, 4


def conv_bn(cin, cout, kernel=3, stride=1, act=True):
    layers = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, cout, 3, stride), conv_bn(cout, cout, act=False))
        self.skip = nn.Identity() if stride == 1 and cin == cout else conv_bn(cin, cout, 1, stride, False)

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x), inplace=True)


def he(model):
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
    return model


def resnet(stem, widths, blocks, classes):
    layers, cin = list(stem), widths[0]
    for stage, cout in enumerate(widths):
        for i in range(blocks):
            layers.append(Block(cin, cout, 2 if stage and not i else 1))
            cin = cout
    return he(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes)))


class Inverted(nn.Module):
    """MobileNet-v2's block, as in torchvision."""
    def __init__(self, cin, cout, stride, expand):
        super().__init__()
        wide, layers = cin * expand, []
        if expand != 1:
            layers += [nn.Conv2d(cin, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)]
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
                   nn.Conv2d(wide, cout, 1, bias=False), nn.BatchNorm2d(cout)]
        self.body, self.skip = nn.Sequential(*layers), stride == 1 and cin == cout

    def forward(self, x):
        return x + self.body(x) if self.skip else self.body(x)


def mobilenet(classes=1000):
    layers, cin = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True)], 32
    for expand, cout, n, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for i in range(n):
            layers.append(Inverted(cin, cout, 1 if i else stride, expand))
            cin = cout
    layers += [nn.Conv2d(cin, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(inplace=True)]
    head = nn.Linear(1280, classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return he(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), head))


class GPTBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE)
        self.qkv, self.out = nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)
        self.up, self.down = nn.Linear(WIDE, 4 * WIDE), nn.Linear(4 * WIDE, WIDE)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, HEADS, WIDE // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, WIDE))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate='tanh'))


class GPT(nn.Module):
    """GPT-2: learned positions, biases, gelu's tanh form, the head's weight tied to the embedding, smaller weights into the residual stream; no dropout."""
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDE), nn.Embedding(CONTEXT, WIDE)
        self.blocks, self.ln_f = nn.Sequential(*(GPTBlock() for _ in range(DEPTH))), nn.LayerNorm(WIDE)
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02)
                if getattr(m, 'bias', None) is not None:
                    nn.init.zeros_(m.bias)
        for block in self.blocks:
            for m in (block.out, block.down):
                nn.init.normal_(m.weight, std=0.02 / (2 * DEPTH) ** 0.5)

    def forward(self, x):
        h = self.wte(x) + self.wpe.weight[:x.shape[1]]
        return F.linear(self.ln_f(self.blocks(h)), self.wte.weight)


def build(name):
    if name == 'tiny':
        return nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(8, 8), nn.ReLU())))
    if name == 'mlp':
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    if name == 'lenet':
        return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    if name == 'cnn':
        return nn.Sequential(conv_bn(1, 32), conv_bn(32, 32), nn.MaxPool2d(2), conv_bn(32, 64), conv_bn(64, 64), nn.MaxPool2d(2),
                             conv_bn(64, 128), conv_bn(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    if name == 'resnet20':
        return resnet([conv_bn(3, 16)], (16, 32, 64), 3, 10)
    if name == 'resnet18':
        return resnet([conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], (64, 128, 256, 512), 2, 1000)
    return mobilenet() if name == 'mobilenet' else GPT()

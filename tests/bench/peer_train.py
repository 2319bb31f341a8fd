#!/usr/bin/env python3
"""The training runs of train.lua in PyTorch's eager mode: same network, data, batch, recipe, precision (f32) and threads.  Prints one JSON line.

The images are held in memory and each batch is gathered and normalised as a whole, which is PyTorch's fastest way here (no DataLoader)."""
import argparse
import json
import os
import resource
import statistics
import time


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--model', default='lenet', choices=['lenet', 'cnn', 'resnet20'])
    ap.add_argument('--root', required=True, help="folder with Fashion-MNIST's .gz files, or CIFAR-10's binary version for resnet20")
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--steps', type=int, default=100)
    ap.add_argument('--every', type=int, default=10, help='batches from one measurement to the next')
    ap.add_argument('--channels-last', action='store_true')
    return ap.parse_args()


if __name__ == '__main__':
    opt = options()
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ[name] = str(opt.threads)      # read when the libraries are loaded, so before torch

import torch
import torch.nn as nn
import torch.nn.functional as F

from peer_data import load_cifar, load_idx, normalise


def conv_bn(cin, cout, stride=1, act=True):
    layers = [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, cout, stride), conv_bn(cout, cout, act=False))
        self.skip = nn.Identity()
        if stride != 1 or cin != cout:
            self.skip = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x), inplace=True)


def build(name):
    if name == 'lenet':
        return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    if name == 'cnn':
        return nn.Sequential(conv_bn(1, 32), conv_bn(32, 32), nn.MaxPool2d(2), conv_bn(32, 64), conv_bn(64, 64), nn.MaxPool2d(2),
                             conv_bn(64, 128), conv_bn(128, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    layers, cin = [conv_bn(3, 16)], 16
    for stage, cout in enumerate((16, 32, 64)):
        for i in range(3):
            layers.append(Block(cin, cout, 2 if stage and not i else 1))
            cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 10))


def make_optimizer(params, lr):
    """The fastest form this version has: fused, foreach, or one parameter after the other."""
    params = list(params)
    for form in ({'fused': True}, {'foreach': True}, {}):
        try:
            return torch.optim.SGD(params, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4, **form), next(iter(form), 'loop')
        except (TypeError, RuntimeError):
            pass


def since_process_start():
    with open('/proc/self/stat') as f:
        ticks = int(f.read().rsplit(')', 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')


def batches(x, y, mean, std, batch=64):
    while True:
        order = torch.randperm(len(y))
        for i in range(0, len(y) - batch + 1, batch):
            index = order[i:i + batch]
            yield normalise(x[index], mean, std), y[index]


def main(opt):
    torch.set_num_threads(opt.threads)
    torch.manual_seed(0)
    x, y, mean, std = load_cifar(opt.root) if opt.model == 'resnet20' else load_idx(opt.root, 'train')
    data = batches(x, y, mean, std)
    model = build(opt.model).train()
    lr = 0.05 if opt.model == 'lenet' else 0.1
    optimizer, form = make_optimizer(model.parameters(), lr)
    if opt.channels_last:
        model = model.to(memory_format=torch.channels_last)
    rates, mark = [], None
    for i in range(opt.steps):
        images, labels = next(data)
        if opt.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group['lr'] = lr * (1 - i / opt.steps)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if i == 0:
            loss.item()
            first = since_process_start()
            mark = time.perf_counter()
        elif (i + 1) % opt.every == 0:
            now = time.perf_counter()
            rates.append(64 * (opt.every if i + 1 > opt.every else opt.every - 1) / (now - mark))
            mark = now
    rates = rates[1:] or rates                  # the first interval warms up
    print(json.dumps(dict(torch=torch.__version__, model=opt.model, threads=opt.threads, channels_last=opt.channels_last, optimizer=form, steps=opt.steps,
                          parameters=sum(p.numel() for p in model.parameters()), loss=round(loss.item(), 4), first_step_s=round(first, 3),
                          samples_per_s=round(statistics.median(rates), 1) if rates else None,
                          peak_rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))))


if __name__ == '__main__':
    main(opt)

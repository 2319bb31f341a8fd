#!/usr/bin/env python3
"""The training runs of train.lua in PyTorch with the same techniques: channels_last, autocast, fused optimizer, cuDNN's autotuning, TF32, pinned double-buffered copies;
eager or compiled.  --plain switches them off one by one for the ablation.  Prints one JSON line.

Bytes lie in pinned memory and are normalised on the GPU, as Heddle does it: no DataLoader, which would only slow PyTorch down."""
import argparse
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

import torch
import torch.nn as nn
import torch.nn.functional as F

import peer_nets
from peer_data import load_resident


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--model', default='resnet50', choices=['lenet', 'mlp', 'resnet20', 'resnet18', 'resnet50', 'gpt2'])
    ap.add_argument('--root', required=True)
    ap.add_argument('--device', default='cuda')
    ap.add_argument('--batch', type=int, default=64)
    ap.add_argument('--pixels', type=int, default=224)
    ap.add_argument('--context', type=int, default=1024)
    ap.add_argument('--layers', type=int, default=12)
    ap.add_argument('--vocabulary', type=int, default=50257)
    ap.add_argument('--amp', default='bf16', choices=['f32', 'f16', 'bf16'])
    ap.add_argument('--plain', default='', help='techniques to leave out, with commas: tf32 (all of it), tf32_matmul, benchmark, channels_last, fused')
    ap.add_argument('--seconds', type=float, default=5.0)
    ap.add_argument('--compile', default='', choices=['', 'default', 'reduce-overhead'], help="torch.compile's mode")
    ap.add_argument('--checked', type=int, default=40, help='first steps whose losses are told, as means over quarters')
    return ap.parse_args()


class Bottleneck(nn.Module):
    """torchvision's: the stride is in the 3x3 convolution."""
    def __init__(self, cin, width, stride):
        super().__init__()
        self.body = nn.Sequential(peer_nets.conv_bn(cin, width, 1), peer_nets.conv_bn(width, width, 3, stride), peer_nets.conv_bn(width, 4 * width, 1, act=False))
        self.skip = nn.Identity() if stride == 1 and cin == 4 * width else peer_nets.conv_bn(cin, 4 * width, 1, stride, False)

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x), inplace=True)


def resnet50():
    layers, cin = [peer_nets.conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for i in range(blocks):
            layers.append(Bottleneck(cin, width, 2 if stage and not i else 1))
            cin = 4 * width
    return peer_nets.he(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 1000)))


def build(opt):
    if opt.model == 'resnet50':
        return resnet50()
    if opt.model == 'gpt2':
        peer_nets.VOCABULARY, peer_nets.CONTEXT, peer_nets.WIDE, peer_nets.HEADS, peer_nets.DEPTH = opt.vocabulary, opt.context, 768, 12, opt.layers
        return peer_nets.GPT()
    return peer_nets.build(opt.model)


def shape_of(opt):
    return (1, 28, 28) if opt.model in ('lenet', 'mlp') else (3, 32, 32) if opt.model == 'resnet20' else (3, opt.pixels, opt.pixels)


def load_npy(path):
    import numpy
    return torch.from_numpy(numpy.load(path)).long()


class Batches:
    """Shuffled batches in pinned buffers, copied on a stream of their own while the step before runs."""
    def __init__(self, opt):
        self.opt, self.gpu = opt, opt.device.startswith('cuda')
        if opt.model == 'gpt2':
            self.x, self.y = (load_npy(os.path.join(opt.root, n + '.npy')) for n in ('tokens', 'targets'))
        else:
            self.x, self.y = load_resident(os.path.join(opt.root, opt.model + '.bin'), shape_of(opt))
        self.stream = torch.cuda.Stream() if self.gpu else None
        self.pinned = [[torch.empty((opt.batch, *t.shape[1:]), dtype=t.dtype, pin_memory=True) for t in (self.x, self.y)] for _ in range(3 if self.gpu else 0)]
        self.copied = [torch.cuda.Event() for _ in self.pinned]
        self.order, self.at, self.turn, self.ahead = None, 0, 0, None

    def gather(self):
        n = self.opt.batch
        if self.order is None or self.at + n > len(self.y):
            self.order, self.at = torch.randperm(len(self.y)), 0
        rows = self.order[self.at:self.at + n]
        self.at += n
        if not self.gpu:
            return self.x[rows], self.y[rows]
        buffers, copied = self.pinned[self.turn], self.copied[self.turn]
        self.turn = (self.turn + 1) % len(self.pinned)
        copied.synchronize()            # of three batches ago: done long since
        for source, buffer in zip((self.x, self.y), buffers):
            torch.index_select(source, 0, rows, out=buffer)
        with torch.cuda.stream(self.stream):
            batch = [buffer.to('cuda', non_blocking=True) for buffer in buffers]
            copied.record()
        return batch

    def next(self):
        x, y = self.ahead or self.gather()
        if self.gpu:
            torch.cuda.current_stream().wait_stream(self.stream)
            for t in (x, y):
                t.record_stream(torch.cuda.current_stream())
        self.ahead = self.gather()
        if self.opt.model == 'gpt2':
            return x, y
        x = x.float().div_(255).sub_(0.5).div_(0.25)
        return (x if 'channels_last' in self.opt.plain else x.contiguous(memory_format=torch.channels_last)), y


class Trainer:
    def __init__(self, opt):
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = 'benchmark' not in opt.plain
        plain = opt.plain.split(',')
        torch.backends.cudnn.allow_tf32 = 'tf32' not in plain
        torch.backends.cuda.matmul.allow_tf32 = 'tf32' not in plain and 'tf32_matmul' not in plain
        self.opt, self.data, self.model = opt, Batches(opt), build(opt).train().to(opt.device)
        if 'channels_last' not in opt.plain:
            self.model = self.model.to(memory_format=torch.channels_last)
        make, more = (torch.optim.AdamW, dict(lr=3e-4, weight_decay=0.1)) if opt.model == 'gpt2' else (torch.optim.SGD, dict(lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4))
        self.optimizer = make(self.model.parameters(), fused='fused' not in opt.plain, **more)
        self.scaler = torch.amp.GradScaler(opt.device.split(':')[0], enabled=opt.amp == 'f16')
        self.losses = []
        self.objective = torch.compile(self.loss, mode=opt.compile) if opt.compile else self.loss

    def loss(self, x, y):
        out = self.model(x)
        return F.cross_entropy(out.flatten(0, -2), y.flatten())

    def step(self):
        x, y = self.data.next()
        low = dict(f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)[self.opt.amp]
        with torch.autocast(self.opt.device.split(':')[0], dtype=low if self.opt.amp != 'f32' else torch.bfloat16, enabled=self.opt.amp != 'f32'):
            loss = self.objective(x, y)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if len(self.losses) < self.opt.checked:
            self.losses.append(loss.detach().clone())        # a compiled graph writes its next loss to the same place
        return loss

    def quarters(self):
        """Means over quarters of the first steps: taken when nothing is timed any more."""
        while len(self.losses) < self.opt.checked:
            self.step()
        return [q.mean().item() for q in torch.stack(self.losses).chunk(4)]


def main(opt):
    wait = torch.cuda.synchronize if opt.device.startswith('cuda') else lambda: None
    trainer = Trainer(opt)
    for _ in range(10):
        trainer.step()
    wait()
    start, rates = time.perf_counter(), []
    trainer.step()
    wait()
    chunk = max(1, int(opt.seconds / 8 / max(time.perf_counter() - start, 1e-6)))
    for _ in range(8):
        start = time.perf_counter()
        for _ in range(chunk):
            trainer.step()
        wait()
        rates.append(opt.batch * chunk / (time.perf_counter() - start))
    memory = torch.cuda.max_memory_allocated() / 2**20 if opt.device.startswith('cuda') else None
    print(json.dumps(dict(torch=torch.__version__, cudnn=torch.backends.cudnn.version(), parameters=sum(p.numel() for p in trainer.model.parameters()), samples_per_s=statistics.median(rates[1:]),
                          lowest=min(rates[1:]), highest=max(rates[1:]), memory_mib=memory, losses=trainer.quarters())))


if __name__ == '__main__':
    main(options())

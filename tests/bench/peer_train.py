#!/usr/bin/env python3
"""The training runs of train.lua in PyTorch: same network, data, batch, recipe, precision (f32) and threads; eager, or compiled.  Prints JSON lines.

Images of the fashion and cifar rows are held in memory as bytes and each batch is gathered and normalised as a whole, which is PyTorch's fastest way
here (no DataLoader).  The tiny and large rows take normalised batches made up once: loading is free for PyTorch there, not for Heddle."""
import argparse
import json
import os
import statistics
import sys
import time


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--model', default='lenet', choices=['tiny', 'lenet', 'mlp', 'cnn', 'resnet20', 'resnet18', 'mobilenet', 'gpt'])
    ap.add_argument('--root', required=True, help="folder with Fashion-MNIST's .gz files, or CIFAR-10's binary version; else the file compare.py wrote")
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--batch', type=int, default=64)
    ap.add_argument('--lr', type=float, default=0.05)
    ap.add_argument('--steps', type=int, default=100)
    ap.add_argument('--every', type=int, default=10, help='batches from one measurement to the next')
    ap.add_argument('--channels-last', action='store_true')
    ap.add_argument('--compile', action='store_true', help="torch.compile's default mode over network and loss")
    ap.add_argument('--serve', type=int, default=0, metavar='STEPS', help='train STEPS, report the loss, then measure for as many seconds as each line of the input says')
    ap.add_argument('--profile', type=int, default=0, metavar='STEPS', help='time by operator over STEPS')
    return ap.parse_args()


if __name__ == '__main__':
    opt = options()
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ[name] = str(opt.threads)      # read when the libraries are loaded, so before torch

import torch
import torch.nn.functional as F

from peer_data import load_cifar, load_idx, load_resident, load_text, normalise
from peer_nets import CONTEXT, build


def make_optimizer(params, kind, lr):
    """The fastest form this version has: fused, foreach, or one parameter after the other."""
    params = list(params)
    make, more = (torch.optim.AdamW, dict(weight_decay=0.01)) if kind == 'adamw' else (torch.optim.SGD, dict(momentum=0.9, nesterov=True, weight_decay=5e-4))
    for form in ({'fused': True}, {'foreach': True}, {}):
        try:
            return make(params, lr=lr, **more, **form), next(iter(form), 'loop')
        except (TypeError, RuntimeError):
            pass


def since_process_start():
    with open('/proc/self/stat') as f:
        ticks = int(f.read().rsplit(')', 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')


def gathered(x, y, mean, std, batch, layout):
    while True:
        order = torch.randperm(len(y))
        for i in range(0, len(y) - batch + 1, batch):
            index = order[i:i + batch]
            yield layout(normalise(x[index], mean, std)), y[index]


def made_up(x, y, batch, layout):
    pool = [(layout(normalise(x[i:i + batch], 0.5, 0.25)), y[i:i + batch]) for i in range(0, len(y) - batch + 1, batch)]
    while True:
        yield from pool


def windows(text, batch):
    while True:
        rows = torch.randint(len(text) - CONTEXT, (batch, 1)) + torch.arange(CONTEXT + 1)
        both = text[rows]
        yield both[:, :-1], both[:, 1:]


def batches(opt):
    layout = (lambda t: t.contiguous(memory_format=torch.channels_last)) if opt.channels_last else (lambda t: t)
    if opt.model == 'gpt':
        return windows(load_text(opt.root), opt.batch)
    if opt.model == 'tiny':
        return made_up(*load_resident(opt.root, (8,)), opt.batch, layout)
    if opt.model in ('resnet18', 'mobilenet'):
        return made_up(*load_resident(opt.root, (3, 224, 224)), opt.batch, layout)
    return gathered(*(load_cifar(opt.root) if opt.model == 'resnet20' else load_idx(opt.root, 'train')), opt.batch, layout)


class Trainer:
    def __init__(self, opt):
        torch.set_num_threads(opt.threads)
        torch.manual_seed(0)
        self.batch, self.data, self.model = opt.batch, batches(opt), build(opt.model).train()
        if opt.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer, self.form = make_optimizer(self.model.parameters(), 'adamw' if opt.model == 'gpt' else 'sgd', opt.lr)
        self.objective = torch.compile(self.loss) if opt.compile else self.loss
        self.step_seconds = None

    def loss(self, x, y):
        out = self.model(x)
        return F.cross_entropy(out.flatten(0, -2), y.flatten())

    def step(self):
        x, y = next(self.data)
        loss = self.objective(x, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def first(self, steps):
        """Mean loss over the last half of the first STEPS."""
        losses = [self.step() for _ in range(steps)]
        return torch.stack(losses[steps // 2:]).mean().item()

    def measure(self, seconds):
        """Samples/s: the median over eight intervals, after one that warms up."""
        if self.step_seconds is None:
            start = time.perf_counter()
            for _ in range(3):
                self.step()
            self.step_seconds = (time.perf_counter() - start) / 3
        chunk, rates = max(1, int(seconds / self.step_seconds / 9)), []
        chunks = 9 if chunk > 1 else max(3, min(9, int(seconds / self.step_seconds)))
        for _ in range(chunks):
            start = time.perf_counter()
            for _ in range(chunk):
                loss = self.step()
            rates.append(self.batch * chunk / (time.perf_counter() - start))
        rate = statistics.median(rates[1:])
        self.step_seconds = self.batch / rate
        return dict(samples_per_s=rate, loss=loss.item())


def peak_mib():
    """Of this program alone: getrusage would also count what the process that started it held."""
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith('VmHWM'))


def serve(opt):
    trainer = Trainer(opt)
    loss = trainer.first(opt.serve)
    print(json.dumps(dict(torch=torch.__version__, parameters=sum(p.numel() for p in trainer.model.parameters()), optimizer=trainer.form, loss=loss, peak_rss_mib=peak_mib())),
          flush=True)
    for line in sys.stdin:
        print(json.dumps(trainer.measure(float(line))), flush=True)


def count(shape):
    n = 1
    for s in shape:
        n *= s
    return n


def flops(name, shapes):
    """Multiply-adds x 2 of one call, by the shapes of its inputs; 0: not known."""
    s = [x for x in shapes if x]
    if name == 'aten::convolution_backward' and len(s) >= 3:                # (dy, x, w): by w, and by x unless x is the image
        return 2 * count(s[0]) * count(s[2]) // s[2][0] * (1 if s[1][1] <= 3 else 2)
    if name in ('aten::mm', 'aten::bmm') and len(s) >= 2:
        return 2 * count(s[0]) * s[1][-1]
    if name == 'aten::addmm' and len(s) >= 3:
        return 2 * count(s[1]) * s[2][-1]
    return 0


def profile(opt):
    trainer = Trainer(opt)
    trainer.first(5)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True, with_flops=True) as p:
        for _ in range(opt.profile):
            trainer.step()
    rows = {}
    for e in p.key_averages(group_by_input_shape=True):
        row = rows.setdefault(e.key, dict(name=e.key, calls=0, ms=0.0, flops=0))
        row['calls'] += e.count / opt.profile
        row['ms'] += e.self_cpu_time_total / 1e3 / opt.profile
        row['flops'] += (flops(e.key, e.input_shapes) * e.count or (e.flops if e.key == 'aten::conv2d' else 0)) / opt.profile
    if 'aten::conv2d' in rows and 'aten::mkldnn_convolution' in rows:         # the flops stand at the outer name, the time at the inner one
        rows['aten::mkldnn_convolution']['flops'] = rows['aten::conv2d'].pop('flops')
        rows['aten::conv2d']['flops'] = 0
    print(json.dumps(sorted(rows.values(), key=lambda r: -r['ms'])[:20]))


def whole_run(opt):
    trainer, rates, mark = Trainer(opt), [], None
    for i in range(opt.steps):
        for group in trainer.optimizer.param_groups:
            group['lr'] = opt.lr * (1 - i / opt.steps)
        loss = trainer.step()
        if i == 0:
            loss.item()
            first = since_process_start()
            mark = time.perf_counter()
        elif (i + 1) % opt.every == 0:
            now = time.perf_counter()
            rates.append(opt.batch * (opt.every if i + 1 > opt.every else opt.every - 1) / (now - mark))
            mark = now
    rates = rates[1:] or rates                  # the first interval warms up
    print(json.dumps(dict(torch=torch.__version__, loss=round(loss.item(), 4), first_step_s=round(first, 3), samples_per_s=round(statistics.median(rates), 1) if rates else None)))


if __name__ == '__main__':
    profile(opt) if opt.profile else serve(opt) if opt.serve else whole_run(opt)

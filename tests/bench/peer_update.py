#!/usr/bin/env python3
"""PyTorch's optimizer step alone: AdamW over ResNet-18's parameters, as bench-update.c.  Measures for as many seconds as each line of the input says."""
import argparse
import json
import os
import statistics
import sys
import time


# what AdamW is given: nothing leaves the choice to PyTorch (on a CPU: one parameter after the other)
FORMS = dict(default={}, foreach=dict(foreach=True), fused=dict(fused=True), compile=dict(foreach=True))


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--form', choices=list(FORMS), default='default')
    return ap.parse_args()


if __name__ == '__main__':
    opt = options()
    os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = str(opt.threads)

import torch

from peer_nets import build


def main(opt):
    torch.set_num_threads(opt.threads)
    params = list(build('resnet18').parameters())
    for p in params:
        torch.nn.init.constant_(p, 0.5)
        p.grad = torch.full_like(p, 0.01)
    optimizer = torch.optim.AdamW(params, lr=0.001, weight_decay=0.01, **FORMS[opt.form])
    step = torch.compile(optimizer.step) if opt.form == 'compile' else optimizer.step
    for _ in range(10):
        step()
    print(json.dumps(dict(parameters=sum(p.numel() for p in params), after_10=params[0].flatten()[0].item())), flush=True)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps(dict(samples_per_s=1 / statistics.median(times))), flush=True)


if __name__ == '__main__':
    main(opt)

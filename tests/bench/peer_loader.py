#!/usr/bin/env python3
"""PyTorch's DataLoader over Fashion-MNIST as its tutorials write it: a Dataset that gives one normalised sample at a time.  Prints one JSON line."""
import argparse
import json
import statistics
import time

import torch

from peer_data import load_idx, normalise


class FashionMNIST(torch.utils.data.Dataset):
    def __init__(self, folder):
        self.x, self.y, self.mean, self.std = load_idx(folder, 'train')

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return normalise(self.x[i], self.mean, self.std), self.y[i]


def epoch(loader):
    start, n = time.perf_counter(), 0
    for x, y in loader:
        n += len(y)
    return n / (time.perf_counter() - start)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--root', required=True)
    ap.add_argument('--workers', type=int, default=1)
    ap.add_argument('--batch', type=int, default=64)
    ap.add_argument('--epochs', type=int, default=4, help='the first starts the workers and does not count')
    opt = ap.parse_args()
    torch.set_num_threads(1)
    extra = dict(persistent_workers=True, prefetch_factor=4) if opt.workers else {}
    loader = torch.utils.data.DataLoader(FashionMNIST(opt.root), opt.batch, shuffle=True, drop_last=True, num_workers=opt.workers, **extra)
    rates = [epoch(loader) for _ in range(opt.epochs)][1:]
    print(json.dumps(dict(torch=torch.__version__, workers=opt.workers, batch=opt.batch, samples_per_s=round(statistics.median(rates)))))


if __name__ == '__main__':
    main()

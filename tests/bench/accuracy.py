#!/usr/bin/env python3
"""Test accuracy on Fashion-MNIST after whole trainings, several seeds each: LeNet-5 and the batch-norm CNN, linear decay to 0.

The bands are what PyTorch reaches with the same networks, data and recipe over three seeds (see README.md)."""
import argparse
import json
import os
import subprocess
import tempfile

SOURCE = os.environ.get('HEDDLE_SOURCE', os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
SCRIPTS = dict(lenet='fashion-mnist.lua', cnn='fashion-mnist-cnn.lua')
BANDS = {('lenet', 3): (0.894, 0.901), ('lenet', 5): (0.903, 0.907), ('cnn', 3): (0.929, 0.929), ('cnn', 5): (0.933, 0.933)}


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--heddle', default=os.environ.get('HEDDLE', 'heddle'))
    ap.add_argument('--models', default='lenet,cnn')
    ap.add_argument('--epochs', default='3,5')
    ap.add_argument('--seeds', default='0,1,2')
    ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--nice', type=int, default=0)
    ap.add_argument('--out', help='append one JSON line per training to this file')
    return ap.parse_args()


def train(opt, model, epochs, seed):
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, 'run.jsonl')
        subprocess.run([opt.heddle, 'run', os.path.join(SOURCE, 'pipelines', SCRIPTS[model]), '--arg', f'epochs={epochs}', '--arg', f'log={log}',
                        '--set', f'train.seed={seed}', '--set', f'flags.threads={opt.threads}'],
                       check=True, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.nice(opt.nice))
        with open(log) as f:
            events = [json.loads(line) for line in f]
    evals = [e for e in events if e['event'] == 'eval']
    result = dict(model=model, epochs=epochs, seed=seed, threads=opt.threads, accuracy=round(evals[-1]['accuracy'], 4), loss=round(evals[-1]['loss'], 4),
                  by_epoch=[round(e['accuracy'], 4) for e in evals], seconds=round(events[-1]['seconds'], 1))
    print(json.dumps(result), flush=True)
    if opt.out:
        with open(opt.out, 'a') as f:
            f.write(json.dumps(result) + '\n')
    return result['accuracy']


def main(opt):
    rows = []
    for model in opt.models.split(','):
        for epochs in map(int, opt.epochs.split(',')):
            found = [train(opt, model, epochs, int(seed)) for seed in opt.seeds.split(',')]
            low, high = BANDS.get((model, epochs), (0, 1))
            rows.append((model, epochs, found, low, high))
    print('\n| network | epochs | test accuracy by seed | mean | PyTorch | |\n| --- | --- | --- | --- | --- | --- |')
    for model, epochs, found, low, high in rows:
        mean = sum(found) / len(found)
        band = f'{low:.3f}' if low == high else f'{low:.3f}-{high:.3f}'
        print(f'| {model} | {epochs} | {", ".join(f"{a:.4f}" for a in found)} | {mean:.4f} | {band} | {"in or above" if min(found) >= low else "mean in or above" if mean >= low else "below"} |')


if __name__ == '__main__':
    main(options())

#!/usr/bin/env python3
"""Heddle beside PyTorch on this machine: training speed, time to the first step, memory, loader.  Prints Markdown tables of medians and ratios.

Contenders take turns, round by round, and ratios are taken within a round, so that a machine whose speed drifts slows all of them alike."""
import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# batches to train, batches to a measurement
STEPS = dict(lenet=(500, 50), cnn=(36, 6), resnet20=(30, 5))


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--heddle', default=os.environ.get('HEDDLE', 'heddle'))
    ap.add_argument('--bench-loader', default=os.environ.get('HEDDLE_BENCH_LOADER'))
    ap.add_argument('--torch', default=os.environ.get('HEDDLE_TORCH_PYTHON', 'python3'), help='Python programs that have PyTorch, separated by colons')
    ap.add_argument('--root', default='/usr/share/datasets/fashion-mnist', help='folder of Fashion-MNIST')
    ap.add_argument('--rounds', type=int, default=3)
    ap.add_argument('--models', default='lenet,cnn,resnet20')
    ap.add_argument('--threads', default='1,2')
    ap.add_argument('--parts', default='train,start,loader')
    ap.add_argument('--scale', type=float, default=1.0, help='more or fewer batches')
    ap.add_argument('--json', help='write every single measurement to this file')
    return ap.parse_args()


# ---------------------------------------------------------------- running

def real_program(path):
    """Libtool's wrapper script of a build tree starts a shell first; the program behind it is what a user installs."""
    inner = os.path.join(os.path.dirname(path), '.libs', os.path.basename(path))
    return inner if os.path.exists(inner) else path


def environment(opt):
    env = dict(os.environ)
    folders = [os.path.join(os.path.dirname(os.path.abspath(opt.heddle)), '.libs'), env.get('LD_LIBRARY_PATH', '')]
    env['LD_LIBRARY_PATH'] = ':'.join(f for f in folders if f)
    return env


def run(command, env=None):
    """Runs a program; its output, and the peak of its resident memory in MiB."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        out.seek(0), err.seek(0)
        text, errors = out.read().decode(), err.read().decode()
        if status:
            sys.exit(f'{" ".join(command)}\n{text}{errors}')
        return text, errors, usage.ru_maxrss / 1024


def heddle_train(opt, model, root, threads, steps, every):
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, 'bench.jsonl')
        args = dict(model=model, root=root, threads=threads, steps=steps, every=every, log=log)
        _, errors, rss = run([real_program(opt.heddle), 'run', os.path.join(HERE, 'train.lua')] + [w for k, v in args.items() for w in ('--arg', f'{k}={v}')],
                             dict(environment(opt), HEDDLE_FIRST_STEP='1'))
        with open(log) as f:
            events = [json.loads(line) for line in f]
    rates = [e['samples_per_second'] for e in events if e['event'] == 'batch' and 'samples_per_second' in e]
    first = float(errors.split('first_step_seconds')[1].split()[0])
    return dict(samples_per_s=statistics.median(rates[1:] or rates) if rates else None, first_step_s=first, peak_rss_mib=rss)


def torch_train(python, model, root, threads, steps, every, *more):
    text, _, rss = run([python, os.path.join(HERE, 'peer_train.py'), '--model', model, '--root', root, '--threads', str(threads), '--steps', str(steps),
                        '--every', str(every), *more])
    return dict(json.loads(text), peak_rss_mib=rss)


def made_up_cifar(folder):
    """CIFAR-10's file format with random pixels: both sides read the same bytes."""
    source = random.Random(1)
    for i in range(1, 6):
        with open(os.path.join(folder, f'data_batch_{i}.bin'), 'wb') as f:
            for _ in range(1000):
                f.write(bytes([source.randrange(10)]) + source.randbytes(3072))


# ---------------------------------------------------------------- tables

def middle(values):
    return f'{statistics.median(values):,.0f} [{min(values):,.0f}-{max(values):,.0f}]' if max(values) >= 100 else f'{statistics.median(values):.3g} [{min(values):.3g}-{max(values):.3g}]'


def ratio(ours, theirs):
    pairs = [a / b for a, b in zip(ours, theirs)]
    return f'**{statistics.median(pairs):.2f}** [{min(pairs):.2f}-{max(pairs):.2f}]'


def version(python):
    return run([python, '-c', 'import torch; print(torch.__version__.split("+")[0])'])[0].strip()


def training(opt, pythons, record):
    print('\n### Training speed, samples/s\n')
    print('Batch 64, f32; reading and normalising the batches included on both sides, on the same threads. PyTorch: the better of its two layouts (NCHW, channels_last) in each round.\n')
    print('| network | threads | Heddle | ' + ' | '.join(f'PyTorch {v} | ratio' for v in pythons.values()) + ' |\n| --- | --- | --- |' + ' --- | --- |' * len(pythons))
    with tempfile.TemporaryDirectory() as cifar:
        made_up_cifar(cifar)
        for model in opt.models.split(','):
            steps, every = (max(1, int(n * opt.scale)) for n in STEPS[model])
            for threads in map(int, opt.threads.split(',')):
                root = cifar if model == 'resnet20' else opt.root
                ours, theirs = [], {p: [] for p in pythons}
                for _ in range(opt.rounds):
                    ours.append(heddle_train(opt, model, root, threads, steps, every)['samples_per_s'])
                    for p in pythons:
                        layouts = [torch_train(p, model, root, threads, steps, every, *flag)['samples_per_s'] for flag in ((), ('--channels-last',))]
                        record.append(dict(part='train', model=model, threads=threads, torch=pythons[p], heddle=ours[-1], nchw=layouts[0], channels_last=layouts[1]))
                        theirs[p].append(max(layouts))
                print(f'| {model} | {threads} | {middle(ours)} | ' + ' | '.join(f'{middle(theirs[p])} | {ratio(ours, theirs[p])}' for p in pythons) + ' |', flush=True)


def starting(opt, pythons, record):
    print('\n### Process start to the end of the first training step, and peak resident memory\n')
    print('LeNet-5, Fashion-MNIST read from its .gz files, batch 64, one thread. Ratio: Heddle / PyTorch, smaller is better.\n')
    print('| | Heddle | ' + ' | '.join(f'PyTorch {v} | ratio' for v in pythons.values()) + ' |\n| --- | --- |' + ' --- | --- |' * len(pythons))
    ours, theirs = [], {p: [] for p in pythons}
    for _ in range(max(opt.rounds, 5)):
        ours.append(heddle_train(opt, 'lenet', opt.root, 1, 100, 10))
        for p in pythons:
            theirs[p].append(torch_train(p, 'lenet', opt.root, 1, 100, 10))
            record.append(dict(part='start', torch=pythons[p], heddle=ours[-1], peer=theirs[p][-1]))
    for key, name in (('first_step_s', 'first step, s'), ('peak_rss_mib', 'peak resident memory after 100 steps, MiB')):
        a = [r[key] for r in ours]
        print(f'| {name} | {middle(a)} | ' + ' | '.join(f'{middle([r[key] for r in theirs[p]])} | {ratio(a, [r[key] for r in theirs[p]])}' for p in pythons) + ' |', flush=True)


def loading(opt, pythons, record):
    print('\n### The loader alone: Fashion-MNIST, batch 64, shuffled, one worker, samples/s\n')
    print('Both sides deliver normalised f32 batches. PyTorch: a Dataset that gives one normalised sample at a time, through DataLoader.\n')
    print('| Heddle | ' + ' | '.join(f'PyTorch {v} | ratio' for v in pythons.values()) + ' |\n| --- |' + ' --- | --- |' * len(pythons))
    ours, theirs = [], {p: [] for p in pythons}
    for _ in range(opt.rounds):
        ours.append(json.loads(run([real_program(opt.bench_loader), opt.root, '1'], environment(opt))[0])['samples_per_s'])
        for p in pythons:
            theirs[p].append(json.loads(run([p, os.path.join(HERE, 'peer_loader.py'), '--root', opt.root])[0])['samples_per_s'])
            record.append(dict(part='loader', torch=pythons[p], heddle=ours[-1], peer=theirs[p][-1]))
    print(f'| {middle(ours)} | ' + ' | '.join(f'{middle(theirs[p])} | {ratio(ours, theirs[p])}' for p in pythons) + ' |', flush=True)


def processor():
    with open('/proc/cpuinfo') as f:
        lines = f.read().splitlines()
    name = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.machine())
    flags = next((line for line in lines if line.startswith('flags')), '')
    widest = next((n for n in ('avx512f', 'avx2', 'avx') if n in flags.split()), 'none')
    return f'{name} ({widest}), {os.cpu_count()} CPUs'


def main(opt):
    record, pythons = [], {p: version(p) for p in opt.torch.split(':') if p}
    print(f'{time.strftime("%Y-%m-%d")}, {processor()}, load {os.getloadavg()[0]:.1f} at the start; {opt.rounds} rounds; medians [smallest-largest].')
    for part, function in (('train', training), ('start', starting), ('loader', loading)):
        if part in opt.parts.split(','):
            if part == 'loader' and not opt.bench_loader:
                print('\n(loader: no --bench-loader)')
            else:
                function(opt, pythons, record)
    if opt.json:
        with open(opt.json, 'w') as f:
            f.writelines(json.dumps(r) + '\n' for r in record)


if __name__ == '__main__':
    main(options())

#!/usr/bin/env python3
"""Heddle beside PyTorch on this machine's GPU, the same techniques on both sides, and the ablation of flags, AMP and loader.  Prints Markdown; one command, inside 8 minutes.

A ratio is taken within a round.  When time is short, later rounds are dropped first, then the second ablation, then torch.compile of the last rows: it may compile for a minute
each.  What did not fit into --budget seconds is listed as left out, never silently.  Tables are printed when it ends, however it ends; --json is written after each measurement."""
import argparse
import json
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Row:
    title: str
    batch: int
    eager: float          # targets: times PyTorch eager, times torch.compile
    compiled: float
    flops: float          # of one sample's training step: 3 x forward multiply-adds x 2
    samples: int          # in the file


# forward multiply-adds: LeNet-5 0.42 M, MLP 0.54 M, ResNet-20 41 M, ResNet-18 1.82 G, ResNet-50 4.09 G (torchvision's page); GPT-2: 6 x 124 M parameters a token + attention 12 x 12 x 768 x 1024
ROWS = dict(
    resnet50=Row('ResNet-50 224x224 b256', 256, 1.2, 1.0, 6 * 4.09e9, 1024),
    gpt2=Row('GPT-2 124M b16 x 1024', 16, 1.2, 1.0, 1024 * (6 * 124.4e6 + 12 * 12 * 768 * 1024), 256),
    lenet=Row('LeNet-5 b64', 64, 5, 1.0, 6 * 0.42e6, 8192),
    mlp=Row('MLP 784-512-256-10 b64', 64, 5, 1.0, 6 * 0.54e6, 8192),
    resnet18=Row('ResNet-18 224x224 b256', 256, 1.2, 1.0, 6 * 1.82e9, 1024),
    resnet20=Row('ResNet-20 32x32 b512', 512, 1.2, 1.0, 6 * 41e6, 16384),
)
# dense bf16 FLOP/s by the vendor's datasheets; another GPU shows no share
PEAKS = (('H200', 989e12), ('H100 PCIe', 756e12), ('H100', 989e12), ('A100', 312e12), ('L40S', 362e12), ('RTX 4090', 165e12), ('RTX 3090', 71e12), ('A10', 125e12))
ABLATED = ('resnet50', 'resnet18')


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--heddle', default=os.environ.get('HEDDLE', 'heddle'))
    ap.add_argument('--programs', default=os.environ.get('HEDDLE_BENCH_PROGRAMS', ''), help='folder of dataset-resident')
    ap.add_argument('--torch', default=os.environ.get('HEDDLE_TORCH_PYTHON', 'python3').split(':')[0])
    ap.add_argument('--rows', default=','.join(ROWS))
    ap.add_argument('--rounds', type=int, default=2)
    ap.add_argument('--seconds', type=float, default=4.0, help='of a contender in a round')
    ap.add_argument('--budget', type=float, default=450, help='seconds for everything')
    ap.add_argument('--limit', type=float, default=120, help='seconds a contender may take, compilation included')
    ap.add_argument('--amp', default='bf16')
    ap.add_argument('--device', default='cuda')
    ap.add_argument('--small', action='store_true', help='tiny images, batches and transformer: tries the benchmark itself, on a CPU too; its numbers mean nothing')
    ap.add_argument('--no-ablation', action='store_true')
    ap.add_argument('--json')
    opt = ap.parse_args()
    for name in opt.rows.split(','):
        if name not in ROWS:
            ap.error(f'--rows: no row "{name}"; there are {", ".join(ROWS)}')
    opt.end = time.monotonic() + opt.budget
    return opt


def sizes(opt, name):
    """batch, samples, and the arguments that both sides take"""
    row = ROWS[name]
    return (4, 64, dict(pixels=32, context=32, layers=1, vocabulary=257)) if opt.small else (row.batch, row.samples, dict(pixels=224, context=1024, layers=12, vocabulary=50257))


def write_npy(path, rows, columns, words, source):
    head = repr({'descr': '<i4', 'fortran_order': False, 'shape': (rows, columns)}).encode().ljust(117) + b'\n'
    with open(path, 'wb') as f:
        f.write(b'\x93NUMPY\1\0' + struct.pack('<H', len(head)) + head)
        for _ in range(rows):
            f.write(struct.pack(f'<{columns}i', *(source.randrange(words) for _ in range(columns))))


def make_data(opt, folder, name):
    _, samples, more = sizes(opt, name)
    source = random.Random(1)
    if name == 'gpt2':
        for part in ('tokens', 'targets'):
            write_npy(os.path.join(folder, part + '.npy'), samples, more['context'], more['vocabulary'], source)
        return
    count, classes = (784, 10) if name in ('lenet', 'mlp') else (3 * 32 * 32, 10) if name == 'resnet20' else (3 * more['pixels'] ** 2, 1000)
    with open(os.path.join(folder, name + '.bin'), 'wb') as f:
        for _ in range(samples):
            f.write(struct.pack('<I', source.randrange(classes)) + source.randbytes(count))


def environment(opt, command):
    """PyTorch runs with the libraries it brings, not with those that a bundle's env.sh found for Heddle."""
    env = dict(os.environ)
    if command[0] == opt.torch and 'HEDDLE_OUTER_LIBRARY_PATH' in env:
        env['LD_LIBRARY_PATH'] = env['HEDDLE_OUTER_LIBRARY_PATH']
    if opt.programs:
        env['HEDDLE_PLUGIN_PATH'] = os.path.join(opt.programs, '.libs') + ':' + opt.programs
    return env


def run(opt, command):
    """Its output, or the last line of its errors."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(opt, command), timeout=max(1, min(opt.limit, opt.end - time.monotonic())))
    except subprocess.TimeoutExpired:
        return None, 'not ready in time'
    lines = done.stderr.strip().splitlines() or [f'status {done.returncode}']
    error = next((line for line in lines if line.startswith('heddle: ') and 'warning' not in line), lines[-1])
    return (done.stdout, None) if done.returncode == 0 else (None, error)


def heddle_args(opt, name, folder, amp, tuned):
    batch, _, more = sizes(opt, name)
    args = dict(model=name, root=folder, device=opt.device, amp=amp, tuned=int(tuned), batch=batch, **more)
    return [w for k, v in args.items() for w in ('--arg', f'{k}={v}')]


def heddle(opt, name, folder, amp, tuned=True):
    """`heddle bench` measures steps as the training loop runs them, with the loader; warmed up, repeats of about SECONDS / 8."""
    text, error = run(opt, [opt.heddle, 'bench', os.path.join(HERE, 'train.lua'), '--json', '--repeats', '7', '--seconds', str(opt.seconds / 8), *heddle_args(opt, name, folder, amp, tuned)])
    return dict(failed=error) if error else json.loads(text)


def peer(opt, name, folder, amp, compiled=False, plain=''):
    batch, _, more = sizes(opt, name)
    args = dict(model=name, root=folder, device=opt.device, amp=amp, seconds=opt.seconds, batch=batch, **more)
    command = [opt.torch, os.path.join(HERE, 'peer.py'), *[w for k, v in args.items() for w in (f'--{k}', str(v))], *(['--plain', plain] if plain else []), *(['--compile'] if compiled else [])]
    text, error = run(opt, command)
    return dict(failed=error) if error else json.loads(text)


def rate(result):
    """Samples/s of one measurement, or None."""
    ours = result.get('samples_per_second')
    return ours['median'] if ours else result.get('samples_per_s')


def memory(result):
    """MiB on the GPU: ours as planned, PyTorch's as its allocator counted it."""
    planned = result.get('memory_bytes')
    return (sum(v for k, v in planned.items() if k != 'peak_resident') / 2**20) if planned else result.get('memory_mib')


# ---------------------------------------------------------------- tables

def ratio(ours, theirs):
    pairs = [a / b for a, b in zip(ours, theirs) if a and b]
    return f'**{statistics.median(pairs):.2f}** [{min(pairs):.2f}-{max(pairs):.2f}]' if pairs else '-'


def against(target, ours, theirs):
    pairs = [a / b for a, b in zip(ours, theirs) if a and b]
    if not pairs:
        return f'{target:g}'
    reached = statistics.median(pairs) / target
    return f'{target:g}: ' + ('met' if reached >= 1 else f'missed by {100 * (1 - reached):.0f} %')


def middle(values):
    there = [v for v in values if v]
    return f'{statistics.median(there):,.0f}' if there else 'failed'


def share(name, values, peak):
    there = [v for v in values if v]
    return f'{100 * statistics.median(there) * ROWS[name].flops / peak:.1f} %' if there and peak else '-'


def late(opt, seconds):
    return time.monotonic() + seconds > opt.end


def save(opt, record, **facts):
    if opt.json:
        with open(opt.json + '.tmp', 'w') as f:
            json.dump(dict(**facts, amp=opt.amp, results=record), f, indent=1)
        os.replace(opt.json + '.tmp', opt.json)


def measure_round(opt, name, folder, who, found, keep):
    """A turn of the contenders WHO in a row; one that failed once is not tried again."""
    contenders = dict(heddle=lambda: heddle(opt, name, folder, opt.amp), eager=lambda: peer(opt, name, folder, opt.amp), compiled=lambda: peer(opt, name, folder, opt.amp, compiled=True))
    for c in who:
        results = found.setdefault(c, [])
        failed = next((r['failed'] for r in results if 'failed' in r), None)
        results.append(dict(failed=failed) if failed else dict(failed='left out: no time') if late(opt, 2 * opt.seconds) else contenders[c]())
        keep(dict(row=name, round=len(results) - 1, who=c, result=results[-1]))
        print(f'{name}: {c}, round {len(results)}: {rate(results[-1]) or results[-1].get("failed")}', file=sys.stderr, flush=True)


def print_row(name, found, peak):
    rates = {c: [rate(r) for r in found.get(c, [])] for c in ('heddle', 'eager', 'compiled')}
    row = ROWS[name]
    used = [next((memory(r) for r in found.get(c, []) if 'failed' not in r), None) for c in ('heddle', 'eager')]
    print(f'| {row.title} | {middle(rates["heddle"])} | {middle(rates["eager"])} | {ratio(rates["heddle"], rates["eager"])} | {against(row.eager, rates["heddle"], rates["eager"])} | '
          f'{middle(rates["compiled"])} | {ratio(rates["heddle"], rates["compiled"])} | {against(row.compiled, rates["heddle"], rates["compiled"])} | {share(name, rates["heddle"], peak)} | '
          f'{share(name, rates["eager"], peak)} | {" / ".join(f"{m:,.0f}" if m else "-" for m in used)} |', flush=True)


def print_notes(rows, found):
    for name in rows:
        for c in ('heddle', 'eager', 'compiled'):
            failures = [r['failed'] for r in found[name].get(c, [dict(failed='left out: no time')]) if 'failed' in r]
            for reason in sorted(set(failures)):
                print(f'\nNote, {name}, {c}, {failures.count(reason)} of {max(1, len(found[name].get(c, [])))} rounds: {reason}', flush=True)


def measure_ablation(opt, name, folder, found, keep):
    """Strict f32 first; then PyTorch's defaults on the same machine, so that each ratio names its baseline."""
    found.update(ours={}, theirs={}, bench='left out: no time')

    def measure(side, label, how):
        found[side][label] = dict(failed='left out: no time') if late(opt, 2 * opt.seconds) else how()
        keep(dict(ablation=name, who=label, result=found[side][label]))
        print(f'{name}: {label}: {rate(found[side][label]) or found[side][label].get("failed")}', file=sys.stderr, flush=True)
    for label, amp, tuned in (('strict f32', 'f32', False), ('flags: TF32 and autotuning', 'f32', True), (f'flags and AMP {opt.amp}', opt.amp, True)):
        measure('ours', label, lambda: heddle(opt, name, folder, amp, tuned))
    for label, amp, plain in (('PyTorch strict f32', 'f32', 'tf32,benchmark,channels_last,fused'), ('PyTorch as it comes (TF32 in convolutions alone)', 'f32', 'tf32_matmul,benchmark,channels_last,fused'),
                              ('PyTorch, TF32 and autotuning', 'f32', 'channels_last,fused'), (f'PyTorch tuned, {opt.amp}', opt.amp, '')):
        measure('theirs', label, lambda: peer(opt, name, folder, amp, plain=plain))
    if not late(opt, 20):
        command = [opt.heddle, 'bench', os.path.join(HERE, 'train.lua'), '--ablate', '--repeats', '3', '--seconds', str(opt.seconds / 4), *heddle_args(opt, name, folder, opt.amp, True)]
        text, error = run(opt, command)
        found['bench'] = text or error
        keep(dict(ablation=name, who='heddle bench --ablate', text=found['bench']))


def print_ablation(name, found):
    print(f'\n### What each technique gains: {ROWS[name].title}\n\n| | samples/s | over strict f32 of the same program | GPU memory, MiB |\n| --- | --- | --- | --- |')
    for side in ('ours', 'theirs'):
        base = rate(next(iter(found[side].values()), {}))
        for label, result in found[side].items():
            r, m = rate(result), memory(result)
            print(f'| {label} | {r:,.0f} | {f"{r / base:.2f}" if base else "-"} | {f"{m:,.0f}" if m else "-"} |' if r else f'| {label} | {result["failed"]} | - | - |')
    print('\n    heddle bench tests/bench/gpu/train.lua --ablate\n\n' + '\n'.join('    ' + line for line in found['bench'].splitlines()), flush=True)


def measure_all(opt, folder, rows, found, ablations, keep):
    """The first round with the ablations in between, then rounds that only make the numbers surer."""
    ablated = [] if opt.no_ablation else [name for name in ABLATED if name in rows]
    for name in rows:
        make_data(opt, folder, name)
    for i in range(opt.rounds):
        for half, who in enumerate((('heddle', 'eager'), ('compiled',))):
            for name in rows:
                measure_round(opt, name, folder, who, found[name], keep)
            for name in ablated[half:half + 1] if not i else ():
                measure_ablation(opt, name, folder, ablations.setdefault(name, {}), keep)


def facts(opt):
    code = 'import torch; print(torch.__version__, torch.backends.cudnn.version(), torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU")'
    theirs, _ = run(opt, [opt.torch, '-c', code])
    ours, _ = run(opt, [opt.heddle, 'doctor'])
    lines = [line.strip() for line in (ours or '').splitlines()]
    wanted = [re.sub(r', /.*', '', line) for line in lines if line.startswith(('driver supports', 'CUDA runtime', 'cuBLAS', 'cuDNN', 'cuda:'))]
    driver = subprocess.run('nvidia-smi --query-gpu=name,driver_version --format=csv,noheader', shell=True, capture_output=True, text=True).stdout.strip()
    return driver or 'no NVIDIA driver', '; '.join(wanted), (theirs or '?').strip()


def print_all(opt, rows, found, ablations, driver, ours, theirs):
    peak = next((p for n, p in PEAKS if n in driver), None)
    print(f'{time.strftime("%Y-%m-%d")}; {driver}; Heddle: {ours}; PyTorch {theirs}; {opt.amp}; up to {opt.rounds} rounds, medians [smallest-largest].')
    if opt.small:
        print('\n**--small: these numbers show that the benchmark runs, nothing else.**')
    print('\nRatio: Heddle over PyTorch with the same techniques. Share: of the datasheet\'s dense bf16 rate.\n')
    print('| training, samples/s | Heddle | PyTorch eager | ratio | target | torch.compile | ratio | target | share, Heddle | share, eager | GPU memory MiB, Heddle / eager |')
    print('| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |')
    for name in rows:
        print_row(name, found[name], peak)
    print_notes(rows, found)
    for name, ablation in ablations.items():
        print_ablation(name, ablation)


def main(opt):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    rows, record, ablations, (driver, ours, theirs) = opt.rows.split(','), [], {}, facts(opt)
    found = {name: {} for name in rows}

    def keep(result):
        record.append(result)
        save(opt, record, driver=driver, heddle=ours, torch=theirs)

    with tempfile.TemporaryDirectory() as folder:
        try:
            measure_all(opt, folder, rows, found, ablations, keep)
        finally:
            print_all(opt, rows, found, ablations, driver, ours, theirs)


if __name__ == '__main__':
    main(options())

#!/usr/bin/env python3
"""Heddle beside PyTorch on this machine's GPU, the same techniques on both sides, and the ablation of flags, AMP and loader.  Prints Markdown; one command, inside 8 minutes.

A ratio is taken within a round.  When time is short, later rounds are dropped first, then the second ablation, then torch.compile of the last rows: it may compile for a minute
each.  What did not fit into --budget seconds is listed as left out, never silently.  Tables are printed when it ends, however it ends; --json and --report are written after each
measurement, so that they are there even if it is killed.

That both sides do the same work is seen, not believed: parameters are compared, and both losses must fall over the same first steps.  Memory is counted twice: what each program says of
itself (Heddle: all it has planned; PyTorch: the most its allocator gave out) and what nvidia-smi saw the whole GPU use beyond what it used before."""
import argparse
import contextlib
import io
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
import threading
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
# dense FLOP/s in bf16 (and f16) with f32 sums, by the vendor's datasheets, the first name that occurs; TF32 is half of it.  Another GPU shows no share
PEAKS = (('H200 NVL', 836e12), ('H200', 989e12), ('GH200', 989e12), ('H100 PCIe', 756e12), ('H100 NVL', 836e12), ('H100', 989e12), ('H800', 989e12), ('B200', 2250e12), ('A100', 312e12), ('A800', 312e12),
         ('L40S', 362e12), ('L4', 121e12), ('RTX 5090', 209e12), ('RTX 4090', 165e12), ('RTX 3090', 71e12), ('A10G', 70e12), ('A10', 125e12))
ABLATED = ('resnet50', 'resnet18')
LAUNCH_BOUND = ('lenet', 'mlp')     # torch.compile also with CUDA graphs
CHECKED = 40                        # first steps whose losses are compared
OUT_OF_TIME = 'left out: no time'
CONTENDERS = ('heddle', 'eager', 'compiled', 'reduced')


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
    ap.add_argument('--only-ablation', action='store_true')
    ap.add_argument('--json', help='file for every measurement')
    ap.add_argument('--report', help='file for the tables, rewritten after every measurement: docs/measured-gpu.md')
    opt = ap.parse_args()
    for name in opt.rows.split(','):
        if name not in ROWS:
            ap.error(f'--rows: no row "{name}"; there are {", ".join(ROWS)}')
    opt.start, opt.end, opt.stopped = time.monotonic(), time.monotonic() + opt.budget, None
    return opt


def sizes(opt, name):
    """batch, samples, and the arguments that both sides take"""
    row = ROWS[name]
    return (4, 64, dict(pixels=32, context=32, layers=1, vocabulary=257)) if opt.small else (row.batch, row.samples, dict(pixels=224, context=1024, layers=12, vocabulary=50257))


def write_npy(path, rows, columns, words):
    head = repr({'descr': '<i4', 'fortran_order': False, 'shape': (rows, columns)}).encode().ljust(117) + b'\n'
    with open(path, 'wb') as f:
        f.write(b'\x93NUMPY\1\0' + struct.pack('<H', len(head)) + head + struct.pack(f'<{rows * columns}i', *words))


def make_tokens(folder, samples, context, vocabulary, source):
    """Words of a small part of the vocabulary, each with one that follows: a loss that falls shows training."""
    used = [source.randrange(vocabulary) for _ in range(256)]
    tokens = source.choices(used, k=samples * context)
    after = {word: used[(7 * i + 1) % 256] for i, word in enumerate(used)}
    write_npy(os.path.join(folder, 'tokens.npy'), samples, context, tokens)
    write_npy(os.path.join(folder, 'targets.npy'), samples, context, [after[word] for word in tokens])


def make_images(path, samples, count, classes, source):
    """Ten of the classes; two bits of every byte are the class's, six are noise."""
    mask = int.from_bytes(b'\xc0' * count, 'little')
    used = [(source.randrange(classes), int.from_bytes(source.randbytes(count), 'little') & mask) for _ in range(10)]
    with open(path, 'wb') as f:
        for _ in range(samples):
            label, pattern = source.choice(used)
            noise = int.from_bytes(source.randbytes(count), 'little') & ~mask
            f.write(struct.pack('<I', label) + (pattern | noise).to_bytes(count, 'little'))


def make_data(opt, folder, name):
    _, samples, more = sizes(opt, name)
    source = random.Random(1)
    if name == 'gpt2':
        make_tokens(folder, samples, more['context'], more['vocabulary'], source)
        return
    count, classes = (784, 10) if name in ('lenet', 'mlp') else (3 * 32 * 32, 10) if name == 'resnet20' else (3 * more['pixels'] ** 2, 1000)
    path, twin = (os.path.join(folder, n + '.bin') for n in (name, {'resnet18': 'resnet50', 'mlp': 'lenet'}.get(name, name)))
    if twin != path and os.path.exists(twin):
        os.link(twin, path)
    else:
        make_images(path, samples, count, classes, source)


def environment(opt, command):
    """PyTorch runs with the libraries it brings, not with those that a bundle's env.sh found for Heddle."""
    env = dict(os.environ)
    if command[0] == opt.torch and 'HEDDLE_OUTER_LIBRARY_PATH' in env:
        env['LD_LIBRARY_PATH'] = env['HEDDLE_OUTER_LIBRARY_PATH']
    if opt.programs:
        env['HEDDLE_PLUGIN_PATH'] = os.path.join(opt.programs, '.libs') + ':' + opt.programs
    return env


class Watch:
    """The most memory that the GPU had in use, in MiB beyond what it had before, seen a few times a second by nvidia-smi; None without one."""
    def __enter__(self):
        self.before, self.most, self.over = self.look(), 0, threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        if self.before is not None:
            self.thread.start()
        return self

    def look(self):
        try:
            done = subprocess.run(['nvidia-smi', '--query-gpu=memory.used', '--format=csv,noheader,nounits', '-i', '0'], capture_output=True, text=True, timeout=10)
            return int(done.stdout.split()[0])
        except (OSError, IndexError, ValueError, subprocess.TimeoutExpired):
            return None

    def follow(self):
        while not self.over.wait(0.3):
            self.most = max(self.most, self.look() or 0)

    def __exit__(self, *_):
        self.over.set()
        if self.before is not None:
            self.thread.join()
        self.used = max(0, self.most - self.before) if self.before is not None and self.most else None


def run(opt, command, limit=None):
    """Its output, or what it printed until its time was over, and the line of its errors that says most."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(opt, command), timeout=max(1, min(limit or opt.limit, opt.end - time.monotonic())))
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b'').decode(errors='replace') or None, f'not ready within {late.timeout:.0f} s'
    except OSError as error:
        return None, str(error)
    lines = done.stderr.strip().splitlines() or [f'status {done.returncode}']
    error = next((line for line in lines if line.startswith('heddle: ') and 'warning' not in line), lines[-1])
    return (done.stdout, None) if done.returncode == 0 else (None, error)


def measured(opt, command):
    """One JSON object that COMMAND prints, with what nvidia-smi saw."""
    with Watch() as watch:
        text, error = run(opt, command)
    try:
        return dict(failed=error) if error else dict(json.loads(text), smi_mib=watch.used)
    except ValueError:
        return dict(failed='it printed no JSON')


def heddle_args(opt, name, folder, amp, tuned):
    batch, _, more = sizes(opt, name)
    args = dict(model=name, root=folder, device=opt.device, amp=amp, tuned=int(tuned), batch=batch, **more)
    return [w for k, v in args.items() for w in ('--arg', f'{k}={v}')]


def heddle(opt, name, folder, amp, tuned=True):
    """`heddle bench` measures steps as the training loop runs them, with the loader; warmed up, repeats of about SECONDS / 8."""
    return measured(opt, [opt.heddle, 'bench', os.path.join(HERE, 'train.lua'), '--json', '--repeats', '7', '--seconds', str(opt.seconds / 8), *heddle_args(opt, name, folder, amp, tuned)])


def heddle_losses(opt, name, folder):
    """The first and the last of four means over the first steps, and the parameters, by `heddle run`."""
    log = os.path.join(folder, name + '.jsonl')
    _, error = run(opt, [opt.heddle, 'run', os.path.join(HERE, 'train.lua'), *heddle_args(opt, name, folder, opt.amp, True), '--arg', f'steps={CHECKED}', '--arg', f'every={CHECKED // 4}', '--arg', f'log={log}'])
    if error:
        return dict(failed=error)
    events = [json.loads(line) for line in open(log)]
    losses = [e['loss'] for e in events if e['event'] == 'batch']
    text = next(e['text'] for e in events if e['event'] == 'run_start')
    return dict(losses=losses, parameters=int(re.search(r'(\d+) parameters', text).group(1)))


def peer(opt, name, folder, amp, compiled='', plain=''):
    batch, _, more = sizes(opt, name)
    args = dict(model=name, root=folder, device=opt.device, amp=amp, seconds=opt.seconds, batch=batch, checked=CHECKED, **more)
    command = [opt.torch, os.path.join(HERE, 'peer.py'), *[w for k, v in args.items() for w in (f'--{k}', str(v))], *(['--plain', plain] if plain else []), *(['--compile', compiled] if compiled else [])]
    return measured(opt, command)


def rate(result):
    """Samples/s of one measurement, or None."""
    ours = result.get('samples_per_second')
    return ours['median'] if ours else result.get('samples_per_s')


def memory(result):
    """MiB on the GPU: ours as planned, PyTorch's as its allocator counted it."""
    planned = result.get('memory_bytes')
    return (sum(v for k, v in planned.items() if k != 'peak_resident') / 2**20) if planned else result.get('memory_mib')


def both_memories(result):
    own, seen = memory(result), result.get('smi_mib')
    return f'{own:,.0f}' + (f' ({seen:,.0f})' if seen else '') if own else '-'


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


def middle(results):
    there = [rate(r) for r in results if rate(r)]
    return f'{statistics.median(there):,.0f}' if there else 'left out' if all(r['failed'] == OUT_OF_TIME for r in results) else 'failed'


def share(name, values, peak):
    there = [v for v in values if v]
    return f'{100 * statistics.median(there) * ROWS[name].flops / peak:.1f} %' if there and peak else '-'


def late(opt, seconds):
    return time.monotonic() + seconds > opt.end


def missing(opt):
    """What a measurement that is not there says."""
    return opt.stopped or OUT_OF_TIME


def save(path, text):
    if path:
        with open(path + '.tmp', 'w') as f:
            f.write(text)
        os.replace(path + '.tmp', path)


def measure_round(opt, name, folder, who, found, keep):
    """A turn of the contenders WHO in a row; one that failed once is not tried again."""
    contenders = dict(heddle=lambda: heddle(opt, name, folder, opt.amp), eager=lambda: peer(opt, name, folder, opt.amp), compiled=lambda: peer(opt, name, folder, opt.amp, compiled='default'),
                      reduced=lambda: peer(opt, name, folder, opt.amp, compiled='reduce-overhead'))
    for c in who:
        results = found.setdefault(c, [])
        failed = next((r['failed'] for r in results if 'failed' in r), None)
        results.append(dict(failed=failed) if failed else dict(failed=OUT_OF_TIME) if late(opt, 2 * opt.seconds) else contenders[c]())
        if c == 'heddle' and 'losses' not in found and 'failed' not in results[-1] and not late(opt, 20):
            found['losses'] = heddle_losses(opt, name, folder)
        keep(dict(row=name, round=len(results) - 1, who=c, result=results[-1], losses=found.get('losses')))
        print(f'{time.monotonic() - opt.start:4.0f} s  {name}: {c}, round {len(results)}: {rate(results[-1]) or results[-1].get("failed")}', file=sys.stderr, flush=True)


def print_row(name, found, peak):
    rates = {c: [rate(r) for r in found.get(c, [])] for c in CONTENDERS}
    shown = {c: middle(found.get(c, [])) for c in CONTENDERS}
    row = ROWS[name]
    used = [next((both_memories(r) for r in found.get(c, []) if 'failed' not in r), '-') for c in ('heddle', 'eager')]
    print(f'| {row.title} | {shown["heddle"]} | {shown["eager"]} | {ratio(rates["heddle"], rates["eager"])} | {against(row.eager, rates["heddle"], rates["eager"])} | '
          f'{shown["compiled"]} | {ratio(rates["heddle"], rates["compiled"])} | {against(row.compiled, rates["heddle"], rates["compiled"])} | {share(name, rates["heddle"], peak)} | '
          f'{share(name, rates["eager"], peak)} | {" / ".join(used)} |')


def print_same_work(name, found):
    """Parameters and losses of both sides; what is not the same work is said in bold."""
    ours, theirs = found.get('losses', {}), next((r for r in found.get('eager', []) if 'failed' not in r), {})
    if 'failed' in ours:
        print(f'- {name}: heddle run: {ours["failed"]}')
    elif ours and theirs:
        mine, other = ours['losses'], theirs['losses']
        wrong = [*(['**other parameters**'] if ours['parameters'] != theirs['parameters'] else []), *(['**a loss does not fall**'] if not (mine[-1] < mine[0] and other[-1] < other[0]) else [])]
        print(f'- {name}: {ours["parameters"]:,} parameters here, {theirs["parameters"]:,} there; loss {mine[0]:.4f} to {mine[-1]:.4f} here, {other[0]:.4f} to {other[-1]:.4f} there'
              + ''.join(': ' + w for w in wrong))


def print_notes(opt, rows, found):
    for name in rows:
        for c in ('heddle', 'eager', 'compiled'):
            failures = [r['failed'] for r in found[name].get(c, [dict(failed=missing(opt))]) if 'failed' in r]
            for reason in sorted(set(failures)):
                print(f'\nNote, {name}, {c}, {failures.count(reason)} of {max(1, len(found[name].get(c, [])))} rounds: {reason}')
        reduced = [rate(r) for r in found[name].get('reduced', [])]
        if any(reduced):
            print(f'\nNote, {name}: torch.compile (mode="reduce-overhead": CUDA graphs): {middle(found[name]["reduced"])} samples/s; Heddle over it: {ratio([rate(r) for r in found[name].get("heddle", [])], reduced)}')


OURS = (('strict f32', False), ('flags: TF32 and autotuning', True), ('flags and AMP', True))
THEIRS = (('PyTorch strict f32', 'tf32,benchmark,channels_last,fused'), ('PyTorch as it comes (TF32 in convolutions alone)', 'tf32_matmul,benchmark,channels_last,fused'),
          ('PyTorch, TF32 and autotuning', 'channels_last,fused'), ('PyTorch tuned and AMP', ''))


def measure_ablation(opt, name, folder, found, keep):
    """Strict f32 first; then PyTorch's defaults on the same machine, so that each ratio names its baseline."""
    found.update(ours={}, theirs={})

    def measure(side, label, how):
        found[side][label] = dict(failed=OUT_OF_TIME) if late(opt, 2 * opt.seconds) else how()
        keep(dict(ablation=name, who=label, result=found[side][label]))
        print(f'{time.monotonic() - opt.start:4.0f} s  {name}: {label}: {rate(found[side][label]) or found[side][label].get("failed")}', file=sys.stderr, flush=True)
    for label, tuned in OURS:
        measure('ours', label, lambda: heddle(opt, name, folder, opt.amp if 'AMP' in label else 'f32', tuned))
    for label, plain in THEIRS:
        measure('theirs', label, lambda: peer(opt, name, folder, opt.amp if 'AMP' in label else 'f32', plain=plain))
    if not late(opt, 20):
        command = [opt.heddle, 'bench', os.path.join(HERE, 'train.lua'), '--ablate', '--warmup', '6', '--repeats', '3', '--seconds', str(opt.seconds / 8), *heddle_args(opt, name, folder, opt.amp, True)]
        text, error = run(opt, command, 2 * opt.limit)
        found['bench'] = (text or '') + (error or '')
        keep(dict(ablation=name, who='heddle bench --ablate', text=found['bench']))


def print_claims(opt, ours, theirs):
    """The gains beside what is claimed, each over the line before it."""
    for who, side, labels in (('Heddle', ours, [label for label, _ in OURS]), ('PyTorch', theirs, [label for label, _ in THEIRS if 'as it comes' not in label])):
        plain, flags, amp = (side.get(label, {}) for label in labels)
        if rate(plain) and rate(flags):
            print(f'- {who}: flags over strict f32: {100 * (rate(flags) / rate(plain) - 1):+.0f} % samples/s (claimed: 10 to 30 %)')
        if rate(flags) and rate(amp):
            used = f', {100 * memory(amp) / memory(flags):.0f} % of the memory (claimed: about half)' if memory(flags) and memory(amp) else ''
            print(f'- {who}: AMP {opt.amp} over f32 with flags: {100 * (rate(amp) / rate(flags) - 1):+.0f} % samples/s (claimed: 20 to 40 %){used}')
    print('- loader (claimed: 10 to 20 %): lines `workers` and `pin_memory` below, over the same script without them')


def print_ablation(opt, name, found):
    print(f'\n### What each technique gains: {ROWS[name].title}\n\nAMP: {opt.amp}. Memory: what the program counts (nvidia-smi).\n\n'
          '| | samples/s | over strict f32 of the same program | GPU memory, MiB |\n| --- | --- | --- | --- |')
    for side in ('ours', 'theirs'):
        base = rate(next(iter(found[side].values()), {}))
        for label, _ in OURS if side == 'ours' else THEIRS:
            result = found[side].get(label, dict(failed=missing(opt)))
            r = rate(result)
            print(f'| {label} | {r:,.0f} | {f"{r / base:.2f}" if base else "-"} | {both_memories(result)} |' if r else f'| {label} | {result["failed"]} | - | - |')
    print()
    print_claims(opt, found['ours'], found['theirs'])
    print('\n    heddle bench tests/bench/gpu/train.lua --ablate\n\n' + '\n'.join('    ' + line for line in found.get('bench', missing(opt)).splitlines()))


def measure_all(opt, folder, rows, found, ablations, keep):
    """The first round with the ablations in between, then rounds that only make the numbers surer."""
    ablated = [] if opt.no_ablation else [name for name in ABLATED if name in rows]
    for name in rows:
        make_data(opt, folder, name)
    for i in range(opt.rounds):
        for half, who in enumerate((('heddle', 'eager'), ('compiled', 'reduced'))):
            for name in rows if not opt.only_ablation else ():
                measure_round(opt, name, folder, [c for c in who if c != 'reduced' or name in LAUNCH_BOUND], found[name], keep)
            for name in ablated[half:half + 1] if not i else ():
                measure_ablation(opt, name, folder, ablations.setdefault(name, {}), keep)


def facts(opt):
    code = ('import sys, torch; c = torch.backends.cudnn.version(); print(torch.__version__, "with CUDA", torch.version.cuda, "and cuDNN", c, "on Python", sys.version.split()[0], '
            'torch.cuda.get_device_name(0) if torch.cuda.is_available() else "(no GPU)")')
    theirs, failed = run(opt, [opt.torch, '-c', code])
    ours, _ = run(opt, [opt.heddle, 'doctor'])
    lines = [line.strip() for line in (ours or '').splitlines()]
    wanted = [re.sub(r' \(/.*|, /.*', '', line) for line in lines if line.startswith(('heddle ', 'driver: supports', 'CUDA runtime', 'cuBLAS', 'cuDNN', 'NVRTC', 'cuda:0'))]
    driver = subprocess.run('nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader', shell=True, capture_output=True, text=True).stdout.strip()
    return dict(gpu=driver or 'no NVIDIA driver', heddle='; '.join(wanted), torch=(theirs or failed or '?').strip(), date=time.strftime('%Y-%m-%d'), command=' '.join(['gpu.py', *sys.argv[1:]]))


def print_all(opt, rows, found, ablations, about):
    peak = next((p for n, p in PEAKS if n in about['gpu']), None)
    peak = peak / 2 if peak and opt.amp == 'f32' else peak
    print(f'# Measured on a GPU\n\n`{about["command"]}`, {about["date"]}, {time.monotonic() - opt.start:.0f} s{", " + opt.stopped if opt.stopped else ""}.\n\n- GPU (name, driver, memory, power limit, clock): {about["gpu"]}\n'
          f'- Heddle: {about["heddle"]}\n- PyTorch: {about["torch"]}\n- {opt.amp}; up to {opt.rounds} rounds, medians [smallest-largest].')
    if opt.small:
        print('\n**--small: these numbers show that the benchmark runs, nothing else.**')
    if not opt.only_ablation:
        print('\nRatio: Heddle over PyTorch tuned, with the same techniques: channels_last, autocast, fused optimizer, cudnn.benchmark, TF32, pinned copies ahead; torch.compile in its default mode. '
              f'Share: of {f"{peak / 1e12:.0f} TFLOP/s, the datasheet" if peak else "the datasheet (unknown for this GPU)"}\'s dense rate. Memory: what the program counts (what nvidia-smi saw).\n')
        print('| training, samples/s | Heddle | PyTorch eager | ratio | target | torch.compile | ratio | target | share, Heddle | share, eager | GPU memory MiB, Heddle / eager |')
        print('| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |')
        for name in rows:
            print_row(name, found[name], peak)
        print(f'\nThe same work: means over the first and the last quarter of the first {CHECKED} steps.\n')
        for name in rows:
            print_same_work(name, found[name])
        print_notes(opt, rows, found)
    for name, ablation in ablations.items():
        print_ablation(opt, name, ablation)


def report(*what):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_all(*what)
    return text.getvalue()


def main(opt):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    rows, record, ablations, about = opt.rows.split(','), [], {}, facts(opt)
    found = {name: {} for name in rows}

    def keep(result):
        record.append(result)
        save(opt.json, json.dumps(dict(about, amp=opt.amp, results=record), indent=1))
        save(opt.report, report(opt, rows, found, ablations, about))

    with tempfile.TemporaryDirectory() as folder:
        try:
            measure_all(opt, folder, rows, found, ablations, keep)
        except (KeyboardInterrupt, SystemExit):
            opt.stopped = 'interrupted'
            raise
        finally:
            text = report(opt, rows, found, ablations, about)
            save(opt.report, text)
            print(text, end='', flush=True)


if __name__ == '__main__':
    main(options())

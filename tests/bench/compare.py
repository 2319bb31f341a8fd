#!/usr/bin/env python3
"""Heddle beside PyTorch on this machine: training speed, time to the first step, memory, loader.  Prints Markdown tables of medians and ratios.

Contenders take turns, round by round, and ratios are taken within a round, so that a machine whose speed drifts slows all of them alike."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import measures
import profiles
from rows import ROWS

HERE = os.path.dirname(os.path.abspath(__file__))
ONEDNN = 'import torch, re; print("oneDNN " + (re.findall(r"MKL-DNN v([0-9.]+)", torch.__config__.show()) or ["?"])[0])'


def options():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    programs = os.environ.get('HEDDLE_BENCH_PROGRAMS', os.path.join(HERE, '..', '..', 'build', 'tests', 'bench'))
    ap.add_argument('--heddle', default=os.environ.get('HEDDLE', 'heddle'))
    ap.add_argument('--programs', default=programs, help='folder of bench-loader, bench-update, ceilings')
    ap.add_argument('--torch', default=os.environ.get('HEDDLE_TORCH_PYTHON', 'python3'), help='Python programs that have PyTorch, separated by colons')
    ap.add_argument('--root', default='/usr/share/datasets/fashion-mnist', help='folder of Fashion-MNIST')
    ap.add_argument('--rounds', type=int, default=3)
    ap.add_argument('--rows', '--models', default=','.join([*ROWS, 'adamw']), help='some of ' + ', '.join([*ROWS, 'adamw']))
    ap.add_argument('--threads', default='1,2')
    ap.add_argument('--parts', default='train,start,loader')
    ap.add_argument('--turn', type=float, default=1.0, help='seconds of a contender in a round')
    ap.add_argument('--limit', type=float, default=180, help='seconds a PyTorch contender may take to start (import, compilation, first steps), and for a turn')
    ap.add_argument('--no-neighbour', action='store_true', help='leave out the rows beside an endless loop')
    ap.add_argument('--profile', metavar='ROW', help="where the time of one row goes, on both sides, against this machine's ceilings")
    ap.add_argument('--json', help='write everything measured to this file')
    opt, begun = ap.parse_args(), time.monotonic()
    opt.progress = lambda what: print('[%2d:%02d] %s' % (*divmod(time.monotonic() - begun, 60), what), file=sys.stderr, flush=True)
    unknown = [n for n in opt.rows.split(',') + [opt.profile or 'lenet'] if n not in ROWS and n != 'adamw']
    if unknown:
        ap.error(f'no row "{unknown[0]}"; there are {", ".join([*ROWS, "adamw"])}')
    return opt


# ---------------------------------------------------------------- running

def real_program(path):
    """Libtool's wrapper script of a build tree starts a shell first; the program behind it is what a user installs."""
    inner = os.path.join(os.path.dirname(path), '.libs', os.path.basename(path))
    return inner if os.path.exists(inner) else path


def environment(opt):
    env = dict(os.environ)
    folders = [os.path.join(os.path.dirname(os.path.abspath(opt.heddle)), '.libs'), env.get('LD_LIBRARY_PATH', '')]
    env['LD_LIBRARY_PATH'] = ':'.join(f for f in folders if f)
    env['HEDDLE_PLUGIN_PATH'] = os.path.join(opt.programs, '.libs')      # dataset-resident
    return env


def run(command, env=None, check=True):
    """Runs a program; its output, the peak of its resident memory in MiB, its status."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        out.seek(0), err.seek(0)
        text, errors = out.read().decode(), err.read().decode()
        if status and check:
            raise measures.Failed(f'{os.path.basename(command[0])} failed: ' + (errors.strip().splitlines() or [f'status {status}'])[-1])
        return text, errors, usage.ru_maxrss / 1024, status


def heddle_train(opt, model, root, threads, steps, every):
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, 'bench.jsonl')
        args = dict(model=model, root=root, threads=threads, steps=steps, every=every, log=log)
        _, errors, rss, _ = run([real_program(opt.heddle), 'run', os.path.join(HERE, 'train.lua')] + [w for k, v in args.items() for w in ('--arg', f'{k}={v}')],
                             dict(environment(opt), HEDDLE_FIRST_STEP='1'))
        with open(log) as f:
            events = [json.loads(line) for line in f]
    rates = [e['samples_per_second'] for e in events if e['event'] == 'batch' and 'samples_per_second' in e]
    first = float(errors.split('first_step_seconds')[1].split()[0])
    return dict(samples_per_s=statistics.median(rates[1:] or rates) if rates else None, first_step_s=first, peak_rss_mib=rss)


def torch_train(python, model, root, threads, steps, every, *more):
    text, _, rss, _ = run([python, os.path.join(HERE, 'peer_train.py'), '--model', model, '--root', root, '--threads', str(threads), '--steps', str(steps),
                        '--every', str(every), *more])
    return dict(json.loads(text), peak_rss_mib=rss)


# ---------------------------------------------------------------- tables

def middle(values):
    return f'{statistics.median(values):,.0f} [{min(values):,.0f}-{max(values):,.0f}]' if max(values) >= 100 else f'{statistics.median(values):.3g} [{min(values):.3g}-{max(values):.3g}]'


def ratio(ours, theirs):
    pairs = [a / b for a, b in zip(ours, theirs)]
    return f'**{statistics.median(pairs):.2f}** [{min(pairs):.2f}-{max(pairs):.2f}]'


def version(python):
    return run([python, '-c', 'import torch; print(torch.__version__.split("+")[0])'])[0].strip()


def training(opt, pythons, record):
    measures.table(sys.modules[__name__], opt, pythons, record)


def rounds_of(opt, part, pythons, rounds, ours, theirs, record):
    """ROUNDS times ours () and theirs (python); who fails once is told with its reason and leaves."""
    found, racing = {c: [] for c in ['heddle', *pythons]}, ['heddle', *pythons]
    for i in range(rounds):
        for c in list(racing):
            try:
                found[c].append(ours() if c == 'heddle' else theirs(c))
                record.append(dict(part=part, who='Heddle' if c == 'heddle' else f'PyTorch {pythons[c]}', result=found[c][-1]))
            except measures.Failed as e:
                racing.remove(c)
                found[c] = str(e)
                record.append(dict(part=part, who=c, failed=str(e)))
        opt.progress(f'{part}: round {i + 1} of {rounds}')
    return found


def cells(found, pythons, key):
    """A line of the table: ours, then each PyTorch and the ratio."""
    of = lambda c: [r[key] for r in found[c]] if isinstance(found[c], list) else None
    ours, words = of('heddle'), []
    for p in pythons:
        words += [middle(of(p)) if of(p) else found[p], ratio(ours, of(p)) if ours and of(p) else '-']
    return '| ' + ' | '.join([middle(ours) if ours else found['heddle'], *words]) + ' |'


def starting(opt, pythons, record):
    print('\n### Process start to the end of the first training step, and peak resident memory\n')
    print('LeNet-5, Fashion-MNIST read from its .gz files, batch 64, one thread. Ratio: Heddle / PyTorch, smaller is better.\n')
    print('| | Heddle | ' + ' | '.join(f'PyTorch {v} | ratio' for v in pythons.values()) + ' |\n| --- | --- |' + ' --- | --- |' * len(pythons))
    found = rounds_of(opt, 'start', pythons, max(opt.rounds, 5), lambda: heddle_train(opt, 'lenet', opt.root, 1, 100, 10), lambda p: torch_train(p, 'lenet', opt.root, 1, 100, 10), record)
    for key, name in (('first_step_s', 'first step, s'), ('peak_rss_mib', 'peak resident memory after 100 steps, MiB')):
        print(f'| {name} ' + cells(found, pythons, key), flush=True)


def loading(opt, pythons, record):
    print('\n### The loader alone: Fashion-MNIST, batch 64, shuffled, one worker, samples/s\n')
    print('Both sides deliver normalised f32 batches. PyTorch: a Dataset that gives one normalised sample at a time, through DataLoader.\n')
    print('| Heddle | ' + ' | '.join(f'PyTorch {v} | ratio' for v in pythons.values()) + ' |\n| --- |' + ' --- | --- |' * len(pythons))
    program = real_program(os.path.join(opt.programs, 'bench-loader'))
    found = rounds_of(opt, 'loader', pythons, opt.rounds, lambda: json.loads(run([program, opt.root, '1'], environment(opt))[0]),
                      lambda p: json.loads(run([p, os.path.join(HERE, 'peer_loader.py'), '--root', opt.root])[0]), record)
    print(cells(found, pythons, 'samples_per_s'), flush=True)


def processor():
    with open('/proc/cpuinfo') as f:
        lines = f.read().splitlines()
    name = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.machine())
    flags = next((line for line in lines if line.startswith('flags')), '')
    has = [n for n in ('avx2', 'fma', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_tile', 'amx_bf16') if n in flags.split()]
    return '%s (%s), %d CPUs, %d allowed' % (name, ', '.join(has), os.cpu_count(), len(os.sched_getaffinity(0)))


def versions(opt, pythons):
    doctor = [line.strip() for line in run([real_program(opt.heddle), 'doctor'], environment(opt), check=False)[0].splitlines()]
    found = [line for line in doctor if line.startswith(('heddle ', 'oneDNN', 'instruction set'))]
    found[0] = ' '.join(found[0].split()[:2]).rstrip(',') if found else 'heddle ?'
    theirs = ['PyTorch %s (%s)' % (v, run([p, '-c', ONEDNN])[0].strip()) for p, v in pythons.items()]
    return '; '.join(found + theirs)


def main(opt):
    record, pythons = [], {p: version(p) for p in opt.torch.split(':') if p}
    head = dict(date=time.strftime('%Y-%m-%d'), processor=processor(), versions=versions(opt, pythons), load=os.getloadavg()[0], rounds=opt.rounds)
    print(f'{head["date"]}, {head["processor"]}, load {head["load"]:.1f} at the start; {head["versions"]}; {opt.rounds} rounds; medians [smallest-largest].')
    try:
        if opt.profile:
            record.append(profiles.show(sys.modules[__name__], opt, pythons))
        for part, function in (('train', training), ('start', starting), ('loader', loading)):
            if part in opt.parts.split(',') and not opt.profile:
                opt.progress(part)
                function(opt, pythons, record)
    finally:                                    # a run that is broken off keeps what it has
        if opt.json:
            with open(opt.json, 'w') as f:
                json.dump(dict(head, results=record), f, indent=1)
    opt.progress('done')


if __name__ == '__main__':
    main(options())

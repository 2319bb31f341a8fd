"""The table of measures: Heddle and PyTorch take turns, row by row; medians, ratios within a round, the targets of rows.py.

PyTorch's contenders live through a row (import and compilation are paid once, before the first turn) and wait asleep while it is not their turn."""
import contextlib
import json
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from rows import NEIGHBOUR, ROWS, UPDATE, make_data

HERE = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    """Why a contender, or a whole row, has no figure."""


class Peer:
    """A PyTorch process: measures when told.  A turn may take as long as a start at most."""
    def __init__(self, opt, python, version, mode, form, command):
        self.python, self.mode, self.limit, self.name = python, mode, opt.limit, f'PyTorch {version}, {mode} {form}'.strip()
        self.errors, self.rest, self.facts, self.started_s, begun = tempfile.TemporaryFile(), b'', None, None, time.monotonic()
        env = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=os.path.join(opt.folder, 'inductor'))
        self.process = subprocess.Popen([python] + command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=env, start_new_session=True)
        try:
            self.facts = self.answer('it did not start')
            self.started_s = time.monotonic() - begun
        except BaseException:
            self.close()
            raise

    def answer(self, late):
        """The next line it prints, as JSON."""
        end, out = time.monotonic() + self.limit, self.process.stdout.fileno()
        while b'\n' not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise Failed(f'{self.name}: {late} within {self.limit:g} s')
            piece = os.read(out, 65536)
            if not piece:
                raise Failed(f'{self.name}: {self.why()}')
            self.rest += piece
        text, _, self.rest = self.rest.partition(b'\n')
        return json.loads(text)

    def why(self):
        self.errors.seek(0)
        return (self.errors.read().decode(errors='replace').strip().splitlines() or ['it ended without a word'])[-1]

    def measure(self, seconds):
        try:
            self.process.stdin.write(f'{seconds}\n'.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass                                # the answer tells why
        return self.answer('a turn did not end')['samples_per_s']

    def close(self):
        """Its compiler processes end with it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


class Heddle:
    """One run for each turn, as many batches as fit into it."""
    def __init__(self, tools, opt, row, threads, places):
        self.tools, self.opt, self.row, self.threads, self.places, self.rate, self.rss = tools, opt, row, threads, places, None, None

    def run(self, steps, every):
        log = os.path.join(self.opt.folder, 'run.jsonl')
        _, errors, rss, status = self.tools.run(heddle_command(self.tools, self.opt, self.row, self.threads, self.places, steps, every, log), self.tools.environment(self.opt), check=False)
        if status:
            first = (errors.strip().splitlines() or [f'it ended with status {status}'])[0]
            raise Failed(('not there yet: ' if re.search(r'no (model|dataset) plugin', errors) else 'Heddle failed: ') + first)
        with open(log) as f:
            return [json.loads(line) for line in f], rss

    def first(self):
        half = self.row.check // 2
        events, self.rss = self.run(self.row.check, half)
        text = next(e['text'] for e in events if e['event'] == 'run_start')
        batch = [e for e in events if e['event'] == 'batch']
        self.rate = batch[-1].get('samples_per_second') or 1
        return dict(parameters=int(re.search(r'model: (\d+) parameters', text).group(1)), loss=batch[-1]['loss'])

    def measure(self, seconds):
        every = max(1, int(self.rate * seconds / self.row.batch / 9))
        chunks = 9 if every > 1 else max(4, min(9, int(self.rate * seconds / self.row.batch)))
        rates = [e['samples_per_second'] for e in self.run(every * chunks, every)[0] if e['event'] == 'batch' and 'samples_per_second' in e]
        self.rate = statistics.median(rates[1:] or rates)
        return self.rate

    def close(self):
        pass


class HeddleUpdate:
    def __init__(self, tools, opt, threads):
        self.command, self.tools, self.opt = [tools.real_program(os.path.join(opt.programs, 'bench-update')), str(threads)], tools, opt

    def run(self, seconds):
        text, errors, _, status = self.tools.run(self.command + [str(seconds)], self.tools.environment(self.opt), check=False)
        if status:
            raise Failed('Heddle failed: ' + (errors.strip().splitlines() or [f'it ended with status {status}'])[0])
        return json.loads(text)

    def first(self):
        return self.run(0)

    def measure(self, seconds):
        return 1e3 / self.run(seconds)['ms']

    def close(self):
        pass


class Neighbour:
    """An endless loop on the last of the CPUs we may use."""
    def __init__(self):
        cpu = max(os.sched_getaffinity(0))
        self.process = subprocess.Popen([sys.executable, '-c', f'import os\nos.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass'], stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def heddle_command(tools, opt, row, threads, places, steps, every, log, verb=('run',)):
    args = dict(model=row.name, root=places[row.data], threads=threads, steps=steps, every=every, batch=row.batch, lr=row.lr, log=log)
    return [tools.real_program(opt.heddle), *verb, os.path.join(HERE, 'train.lua')] + [w for k, v in args.items() for w in ('--arg', f'{k}={v}')]


def peer_command(row, threads, places, *more):
    return [os.path.join(HERE, 'peer_train.py'), '--model', row.name, '--root', places[row.data], '--threads', str(threads), '--batch', str(row.batch), '--lr', str(row.lr), *more]


def plans_of(pythons, row, threads, places):
    """(python, version, mode, form, command) of each contender.  torch.compile turns convolutions into channels_last itself: one layout does."""
    plans = []
    for python, version in pythons.items():
        layouts = dict(eager=('nchw', 'channels_last'), compile=('channels_last',)) if row.images else dict(eager=('',), compile=('',))
        for mode in ('eager', 'compile') if threads in row.compile_threads else ('eager',):
            for layout in layouts[mode]:
                flags = (['--compile'] if mode == 'compile' else []) + (['--channels-last'] if layout == 'channels_last' else [])
                plans.append((python, version, mode, layout, peer_command(row, threads, places, '--serve', str(row.check), *flags)))
    return plans


def update_plans(pythons, threads):
    """Each form of the optimizer is a mode of its own: none stands for another."""
    return [(python, version, form, '', [os.path.join(HERE, 'peer_update.py'), '--threads', str(threads), '--form', form])
            for python, version in pythons.items() for form in (*UPDATE['forms'], 'compile')]


def start_peers(opt, plans, peers, notes):
    """One after the other, so that none waits for another's compilation; those that do not start leave a note."""
    for plan in plans:
        try:
            peers.append(Peer(opt, *plan))
            opt.progress(f'{peers[-1].name} started in {peers[-1].started_s:.1f} s')
        except Failed as e:
            notes.append(str(e))
            opt.progress(str(e))


def check_same(ours, peers, notes):
    """Equal numbers of parameters, or the row means nothing; losses that differ much are told."""
    for p in peers:
        if p.facts['parameters'] != ours['parameters']:
            raise Failed(f'not the same network: Heddle has {ours["parameters"]} parameters, {p.name} {p.facts["parameters"]}')
        key, bound = ('after_10', 1e-5) if 'after_10' in ours else ('loss', 0.3)
        if not abs(ours[key] - p.facts[key]) <= bound * abs(p.facts[key]):
            notes.append(f'{key}: Heddle {ours[key]:.6g}, {p.name} {p.facts[key]:.6g}: look into it')


def turn(opt, contenders, rates, side, notes):
    """One turn of each; those that are left.  Heddle's failure ends the row, PyTorch's leaves a note and no figure."""
    left = []
    for c in contenders:
        try:
            rates[c, side].append(c.measure(opt.turn))
            left.append(c)
        except Failed as e:
            if not isinstance(c, Peer):
                raise
            notes.append(str(e))
            opt.progress(str(e))
            for other in ('alone', 'beside'):
                rates[c, other].clear()
    return left


def turns(opt, ours, peers, neighbour, notes):
    """{contender: [samples/s by round]}, alone and beside the neighbour.  Round 0 warms up, does not count, and drops the forms that lose clearly."""
    rates, best = {(c, side): [] for c in [ours] + peers for side in ('alone', 'beside')}, {}
    racing = [c for c in turn(opt, peers + [ours], rates, 'alone', notes) if c is not ours]
    for p in racing:
        best[p.python, p.mode] = max(best.get((p.python, p.mode), 0), rates[p, 'alone'][0])
    racing = [p for p in racing if rates[p, 'alone'][0] >= 0.85 * best[p.python, p.mode]]
    for values in rates.values():
        values.clear()
    for i in range(opt.rounds):
        racing = [c for c in turn(opt, [ours] + racing, rates, 'alone', notes) if c is not ours]
        if neighbour:
            with Neighbour():
                racing = [c for c in turn(opt, [ours] + racing, rates, 'beside', notes) if c is not ours]
        opt.progress(f'round {i + 1} of {opt.rounds}')
    return rates


def best_of(rates, peers, python, mode, side):
    """The better of the contenders in each round, or None."""
    lists = [rates[p, side] for p in peers if p.python == python and p.mode == mode and rates[p, side]]
    return [max(r) for r in zip(*lists)] if lists else None


def verdict(ours, theirs, target):
    """Ratio within each round, and whether its median meets the target."""
    if not theirs:
        return dict(ratio=None, met=None, target=target)
    ratios = [a / b for a, b in zip(ours, theirs)]
    return dict(ratio=statistics.median(ratios), low=min(ratios), high=max(ratios), met=None if target is None else statistics.median(ratios) >= target, target=target)


def result_of(rates, ours, peers, python, side, eager, compiled, mode='eager'):
    found, own = {m: best_of(rates, peers, python, m, side) for m in (mode, 'compile')}, rates[ours, side]
    return dict(heddle=own, eager=found[mode], compile=found['compile'], against_eager=verdict(own, found[mode], eager), against_compile=verdict(own, found['compile'], compiled))


def memory_of(ours, peers, python, target):
    theirs = [p.facts['peak_rss_mib'] for p in peers if p.python == python and p.mode == 'eager']
    if not theirs:
        return None
    return dict(heddle_mib=ours.rss, torch_mib=min(theirs), ratio=ours.rss / min(theirs), target=target, met=ours.rss / min(theirs) <= target)


def race(tools, opt, pythons, row, threads, places, record):
    """One row at one number of threads: lines for the table."""
    notes, update = [], row is None
    spec = UPDATE if update else dict(name=row.name, title=row.title, compiled=row.compiled)
    ours = HeddleUpdate(tools, opt, threads) if update else Heddle(tools, opt, row, threads, places)
    neighbour = not update and row.name in NEIGHBOUR and threads == 2 and not opt.no_neighbour and len(os.sched_getaffinity(0)) >= 2
    peers = []
    try:
        facts = ours.first()
        plans = update_plans(pythons, threads) if update else plans_of(pythons, row, threads, places)
        start_peers(opt, plans, peers, notes)
        check_same(facts, peers, notes)
        rates = turns(opt, ours, peers, neighbour, notes)
        for python in pythons:
            shared = dict(row=spec['name'], title=spec['title'], threads=threads, torch=pythons[python], parameters=facts['parameters'], notes=notes, tried=sorted({plan[2] for plan in plans}),
                          loss=dict(heddle=facts.get('loss'), **{p.name: p.facts.get('loss') for p in peers if p.python == python}),
                          single={p.name: rates[p, 'alone'] for p in peers if p.python == python}, started_s={p.name: p.started_s for p in peers if p.python == python})
            for form, target in (UPDATE['forms'] if update else dict(eager=row.eager)).items():
                record.append(dict(shared, kind='alone', **result_of(rates, ours, peers, python, 'alone', target, spec['compiled'], form), form=form if update else None,
                                   memory=None if update else memory_of(ours, peers, python, row.memory), bytes=facts['parameters'] * UPDATE['bytes'] if update else None))
            if neighbour:
                record.append(dict(shared, kind='beside', **result_of(rates, ours, peers, python, 'beside', 2, 2), memory=None,
                                   kept={n: statistics.median(b) / statistics.median(a) for n, a, b in
                                         [('heddle', rates[ours, 'alone'], rates[ours, 'beside'])] +
                                         [(m, best_of(rates, peers, python, m, 'alone'), best_of(rates, peers, python, m, 'beside')) for m in ('eager', 'compile')] if a and b}))
    except Failed as e:
        opt.progress(str(e))
        record.append(dict(row=spec['name'], title=spec['title'], threads=threads, kind='missing', notes=[str(e)] + notes))
    finally:
        for p in peers:
            p.close()


def cell(values, tried=True):
    if not values:
        return 'failed: see the notes' if tried else 'not run'
    return f'{statistics.median(values):,.0f}' if statistics.median(values) >= 100 else f'{statistics.median(values):.3g}'


def against(v):
    if v['ratio'] is None:
        return '- | -'
    target = '-' if v['target'] is None else '%g: ' % v['target'] + ('met' if v['met'] else 'missed by %.0f %%' % (100 * (1 - v['ratio'] / v['target'])))
    return '**%.2f** [%.2f-%.2f] | %s' % (v['ratio'], v['low'], v['high'], target)


def bandwidth(r):
    speeds = ['%s %.1f' % (n, r['bytes'] * statistics.median(r[n]) / 1e9) for n in ('heddle', 'eager', 'compile') if r[n]]
    return 'GB/s at %d bytes a parameter: ' % UPDATE['bytes'] + ', '.join(speeds)


def line(r, several):
    if r['kind'] == 'missing':
        return '| %s | %d | %s | | | | | | | |' % (r['title'], r['threads'], r['notes'][0])
    title = r['title'] + (f'; PyTorch: {r["form"]}' if r.get('form') else '') + (', beside an endless loop on one CPU' if r['kind'] == 'beside' else '') + (f' (PyTorch {r["torch"]})' if several else '')
    m, memory = r['memory'], '-'
    if m:
        memory = '%.0f / %.0f = %.2f (%g: %s)' % (m['heddle_mib'], m['torch_mib'], m['ratio'], m['target'], 'met' if m['met'] else 'missed')
    elif r.get('bytes'):
        memory = bandwidth(r)
    elif 'kept' in r:
        memory = 'keeps ' + ', '.join('%s %.0f %%' % (n, 100 * v) for n, v in r['kept'].items())
    return '| ' + ' | '.join([title, str(r['threads']), cell(r['heddle']), cell(r['eager'], r.get('form') or 'eager' in r['tried']), against(r['against_eager']), cell(r['compile'], 'compile' in r['tried']), against(r['against_compile']), memory]) + ' |'


def table(tools, opt, pythons, record):
    print('\n### Measures: training, samples/s (adamw: updates/s)\n')
    print('f32; the same network (parameters counted), loss, optimizer and batch on both sides. fashion and cifar rows, and gpt: gathering and normalising a batch included on both sides. '
          'tiny and 224x224 rows: random images; included in Heddle\'s time, free in PyTorch\'s (batches made up before). PyTorch: the better of NCHW and channels_last in each round (torch.compile: channels_last, which it makes of either), fused optimizer; adamw: a line for each form of its own. '
          'Ratio: Heddle / PyTorch within a round, median [smallest-largest]. Memory: peak resident MiB after the same first steps, Heddle / PyTorch eager.\n')
    print('| training | threads | Heddle | PyTorch eager | ratio | target | torch.compile | ratio | target | memory |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |', flush=True)
    wanted, notes = [n for n in opt.rows.split(',') if n], []
    with tempfile.TemporaryDirectory() as folder:
        opt.folder = folder
        places = make_data(folder, opt.root, {ROWS[n].data for n in wanted if n in ROWS})
        for name in wanted:
            for threads in [t for t in map(int, opt.threads.split(',')) if name not in ROWS or t in ROWS[name].threads]:
                before = len(record)
                opt.progress(f'{name}, {threads} thread(s)')
                race(tools, opt, pythons, ROWS.get(name), threads, places, record)
                for r in record[before:]:
                    print(line(r, len(pythons) > 1), flush=True)
                notes += [f'\nNote ({name}, {threads} thread(s)): {note}' for note in record[before]['notes'][1 if record[before]['kind'] == 'missing' else 0:]]
    for note in notes:
        print(note)

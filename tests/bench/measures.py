"""The table of measures: Heddle and PyTorch take turns, row by row; medians, ratios within a round, the targets of rows.py.

PyTorch's contenders live through a row (import and compilation are paid once, before the first turn) and wait asleep while it is not their turn."""
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

from rows import NEIGHBOUR, ROWS, UPDATE, make_data

HERE = os.path.dirname(os.path.abspath(__file__))


class NotThere(Exception):
    pass


class Peer:
    """A PyTorch process: measures when told."""
    def __init__(self, opt, python, mode, layout, command):
        self.python, self.mode, self.layout, self.name = python, mode, layout, f'{mode} {layout}'.strip()
        self.errors = tempfile.TemporaryFile()
        env = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=os.path.join(opt.folder, 'inductor'))
        self.process = subprocess.Popen([python] + command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=env, text=True)
        self.facts, self.rss = None, None

    def ready(self):
        line = self.process.stdout.readline()
        self.facts = json.loads(line) if line else None
        return self.facts is not None

    def why(self):
        self.errors.seek(0)
        return (self.errors.read().decode().strip().splitlines() or ['it ended without a word'])[-1]

    def measure(self, seconds):
        self.process.stdin.write(f'{seconds}\n')
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise NotThere(f'PyTorch, {self.name}: {self.why()}')
        found = json.loads(line)
        self.rss = found.get('peak_rss_mib')
        return found['samples_per_s']

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Heddle:
    """One run for each turn, as many batches as fit into it."""
    def __init__(self, tools, opt, row, threads, places):
        self.tools, self.opt, self.row, self.threads, self.places, self.rate, self.rss = tools, opt, row, threads, places, None, None

    def run(self, steps, every):
        log = os.path.join(self.opt.folder, 'run.jsonl')
        _, errors, self.rss, status = self.tools.run(heddle_command(self.tools, self.opt, self.row, self.threads, self.places, steps, every, log), self.tools.environment(self.opt), check=False)
        if status:
            raise NotThere('not there yet: ' + errors.split('\n')[0] if re.search(r'no (model|dataset) plugin', errors) else errors.strip())
        with open(log) as f:
            events = [json.loads(line) for line in f]
        return events

    def first(self):
        half = self.row.check // 2
        events = self.run(self.row.check, half)
        text = next(e['text'] for e in events if e['event'] == 'run_start')
        batch = [e for e in events if e['event'] == 'batch']
        self.rate = batch[-1].get('samples_per_second') or 1
        return dict(parameters=int(re.search(r'model: (\d+) parameters', text).group(1)), loss=batch[-1]['loss'])

    def measure(self, seconds):
        every = max(1, int(self.rate * seconds / self.row.batch / 9))
        chunks = 9 if every > 1 else max(4, min(9, int(self.rate * seconds / self.row.batch)))
        rates = [e['samples_per_second'] for e in self.run(every * chunks, every) if e['event'] == 'batch' and 'samples_per_second' in e]
        self.rate = statistics.median(rates[1:] or rates)
        return self.rate

    def close(self):
        pass


class HeddleUpdate:
    def __init__(self, tools, opt, threads):
        self.command, self.tools, self.opt, self.rss = [tools.real_program(os.path.join(opt.programs, 'bench-update')), str(threads)], tools, opt, None

    def run(self, seconds):
        return json.loads(self.tools.run(self.command + [str(seconds)], self.tools.environment(self.opt))[0])

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


def peers_of(opt, pythons, row, threads, places):
    found = []
    for python in pythons:
        for mode in ('eager', 'compile'):
            for layout in ('nchw', 'channels_last') if row.images else ('',):
                flags = (['--compile'] if mode == 'compile' else []) + (['--channels-last'] if layout == 'channels_last' else [])
                found.append(Peer(opt, python, mode, layout, peer_command(row, threads, places, '--serve', str(row.check), *flags)))
    return found


def update_peers(opt, pythons, threads):
    return [Peer(opt, python, 'compile' if form == 'compile' else 'eager', form, [os.path.join(HERE, 'peer_update.py'), '--threads', str(threads), '--form', form])
            for python in pythons for form in ('foreach', 'fused', 'compile')]


def settle(peers, notes):
    """Those that start; the others leave a note."""
    good = []
    for p in peers:
        if p.ready():
            good.append(p)
        else:
            notes.append(f'PyTorch, {p.name}: did not start: {p.why()}')
            p.close()
    return good


def check_same(name, ours, peers, notes):
    """Equal numbers of parameters, or the row means nothing; losses that differ much are told."""
    for p in peers:
        if p.facts['parameters'] != ours['parameters']:
            sys.exit(f'{name}: Heddle has {ours["parameters"]} parameters, PyTorch {p.facts["parameters"]}: not the same network')
        key, bound = ('after_10', 1e-5) if 'after_10' in ours else ('loss', 0.3)
        if not abs(ours[key] - p.facts[key]) <= bound * abs(p.facts[key]):
            notes.append(f'{key}: Heddle {ours[key]:.6g}, PyTorch ({p.name}) {p.facts[key]:.6g}: look into it')


def turns(opt, ours, peers, neighbour):
    """{contender: [samples/s by round]}, alone and beside the neighbour.  Round 0 warms up, does not count, and drops the layouts that lose clearly."""
    rates = {(c, side): [] for c in [ours] + peers for side in ('alone', 'beside')}
    racing = list(peers)
    for i in range(opt.rounds + 1):
        for c in racing + [ours] if i == 0 else [ours] + racing:
            rates[c, 'alone'].append(c.measure(opt.turn))
            if neighbour and i:
                with Neighbour():
                    rates[c, 'beside'].append(c.measure(opt.turn))
        if i == 0:
            best = {}
            for p in peers:
                best[p.python, p.mode] = max(best.get((p.python, p.mode), 0), rates[p, 'alone'][0])
            racing = [p for p in peers if rates[p, 'alone'][0] >= 0.85 * best[p.python, p.mode]]
            for c in rates:
                rates[c].clear()
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
    return dict(ratio=statistics.median(ratios), low=min(ratios), high=max(ratios), met=statistics.median(ratios) >= target, target=target)


def result_of(rates, ours, peers, python, side, eager, compiled):
    found = {mode: best_of(rates, peers, python, mode, side) for mode in ('eager', 'compile')}
    own = rates[ours, side]
    return dict(heddle=own, eager=found['eager'], compile=found['compile'], against_eager=verdict(own, found['eager'], eager), against_compile=verdict(own, found['compile'], compiled))


def memory_of(ours, peers, python, target):
    theirs = [p.rss for p in peers if p.python == python and p.mode == 'eager' and p.rss]
    if not theirs or not ours.rss:
        return None
    return dict(heddle_mib=ours.rss, torch_mib=min(theirs), ratio=ours.rss / min(theirs), target=target, met=ours.rss / min(theirs) <= target)


def race(tools, opt, pythons, row, threads, places, record):
    """One row at one number of threads: lines for the table."""
    notes, update = [], row is None
    spec = UPDATE if update else dict(name=row.name, title=row.title, eager=row.eager, compiled=row.compiled)
    ours = HeddleUpdate(tools, opt, threads) if update else Heddle(tools, opt, row, threads, places)
    neighbour = not update and row.name in NEIGHBOUR and threads == 2 and not opt.no_neighbour and len(os.sched_getaffinity(0)) >= 2
    peers = []
    try:
        facts = ours.first()
        peers = settle(update_peers(opt, pythons, threads) if update else peers_of(opt, pythons, row, threads, places), notes)
        check_same(spec['name'], facts, peers, notes)
        rates = turns(opt, ours, peers, neighbour)
        for python in pythons:
            shared = dict(row=spec['name'], title=spec['title'], threads=threads, torch=pythons[python], parameters=facts['parameters'], notes=notes,
                          loss=dict(heddle=facts.get('loss'), **{p.name: p.facts.get('loss') for p in peers if p.python == python}),
                          single={p.name: rates[p, 'alone'] for p in peers if p.python == python})
            record.append(dict(shared, kind='alone', **result_of(rates, ours, peers, python, 'alone', spec['eager'], spec['compiled']),
                               memory=None if update else memory_of(ours, peers, python, row.memory)))
            if neighbour:
                record.append(dict(shared, kind='beside', **result_of(rates, ours, peers, python, 'beside', 2, 2), memory=None,
                                   kept={n: statistics.median(b) / statistics.median(a) for n, a, b in
                                         [('heddle', rates[ours, 'alone'], rates[ours, 'beside'])] +
                                         [(m, best_of(rates, peers, python, m, 'alone'), best_of(rates, peers, python, m, 'beside')) for m in ('eager', 'compile')] if a and b}))
    except NotThere as e:
        record.append(dict(row=spec['name'], title=spec['title'], threads=threads, kind='missing', notes=[str(e)]))
    finally:
        for p in peers:
            p.close()


def cell(values):
    return f'{statistics.median(values):,.0f}' if values and statistics.median(values) >= 100 else f'{statistics.median(values):.3g}' if values else '-'


def against(v):
    if v['ratio'] is None:
        return '- | -'
    missed = 100 * (1 - v['ratio'] / v['target'])
    return '**%.2f** [%.2f-%.2f] | %g: %s' % (v['ratio'], v['low'], v['high'], v['target'], 'met' if v['met'] else 'missed by %.0f %%' % missed)


def line(r):
    if r['kind'] == 'missing':
        return '| %s | %d | %s | | | | | | | |' % (r['title'], r['threads'], r['notes'][0])
    title = r['title'] + (', beside an endless loop on one CPU' if r['kind'] == 'beside' else '')
    m, memory = r['memory'], '-'
    if m:
        memory = '%.0f / %.0f = %.2f (%g: %s)' % (m['heddle_mib'], m['torch_mib'], m['ratio'], m['target'], 'met' if m['met'] else 'missed')
    elif 'kept' in r:
        memory = 'keeps ' + ', '.join('%s %.0f %%' % (n, 100 * v) for n, v in r['kept'].items())
    return '| ' + ' | '.join([title, str(r['threads']), cell(r['heddle']), cell(r['eager']), against(r['against_eager']), cell(r['compile']), against(r['against_compile']), memory]) + ' |'


def table(tools, opt, pythons, record):
    print('\n### Measures: training, samples/s (adamw: updates/s)\n')
    print('f32; the same network (parameters counted), loss, optimizer and batch on both sides. fashion and cifar rows, and gpt: gathering and normalising a batch included on both sides. '
          'tiny and 224x224 rows: random images; included in Heddle\'s time, free in PyTorch\'s (batches made up before). PyTorch: the better of NCHW and channels_last in each round, fused optimizer. '
          'Ratio: Heddle / PyTorch within a round, median [smallest-largest]. Memory: peak resident MiB, Heddle / PyTorch eager.\n')
    print('| training | threads | Heddle | PyTorch eager | ratio | target | torch.compile | ratio | target | memory |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |', flush=True)
    wanted = [n for n in opt.rows.split(',') if n]
    with tempfile.TemporaryDirectory() as folder:
        opt.folder = folder
        places = make_data(folder, opt.root, {ROWS[n].data for n in wanted if n in ROWS})
        for name in wanted:
            for threads in map(int, opt.threads.split(',')):
                before = len(record)
                race(tools, opt, pythons, ROWS.get(name), threads, places, record)
                for r in record[before:]:
                    print(line(r), flush=True)
    for r in record:
        for note in r.get('notes', []) if r.get('kind') == 'alone' else []:
            print(f'\nNote ({r["row"]}, {r["threads"]} threads): {note}')

"""Where the time of one row goes, on both sides, against what the machine can do: `make bench BENCH='--profile ROW'`."""
import json
import os
import re
import tempfile

import measures
from rows import ROWS, make_data

STEPS = dict(tiny=2000, lenet=100, mlp=200, cnn=10, resnet20=10, resnet18=4, mobilenet=4, gpt=20)


def product(shape):
    n = 1
    for s in shape:
        n *= s
    return n


def operations(text):
    """Multiply-adds x 2 of the training program by kind of operation, from `heddle graph --program`; weights get their shapes from their gradients."""
    shapes, weights, flops, lines = {}, {}, {}, []
    for line in text.split('program update')[0].splitlines():
        left, _, right = line.strip().partition(' = ')
        if right:
            outs = [(i, [int(n) for n in s.split('x')] if s != 'scalar' else []) for i, s in re.findall(r'(%\d+) \w+ (scalar|[\dx]+)', left)]
            shapes.update(outs)
            words, comment = right.split(), re.search(r'# (\S+)', right)
            lines.append((words[0], outs, words[1:], comment.group(1) if comment else None))
            if words[0].endswith('_grad_weight') and comment:
                weights[comment.group(1) + '.weight'] = weights[comment.group(1)] = outs[0][1]
    for op, outs, ins, scope in lines:
        n = 0
        if op in ('conv2d', 'linear') and len(ins) > 1 and ins[1] in weights:
            n = 2 * product(outs[0][1]) * product(weights[ins[1]]) // weights[ins[1]][0]
        elif op in ('conv2d_grad_weight', 'linear_grad_weight') and ins[0] in shapes:
            n = 2 * product(shapes[ins[0]]) * product(outs[0][1]) // outs[0][1][0]
        elif op in ('conv2d_grad_input', 'linear_grad_input') and ins[0] in shapes and ins[1] in weights:
            n = 2 * product(shapes[ins[0]]) * product(weights[ins[1]]) // weights[ins[1]][0]
        elif op == 'matmul' and ins[0] in shapes and outs[0][1]:
            n = 2 * product(shapes[ins[0]]) * outs[0][1][-1]
        flops[op] = flops.get(op, 0) + n
    return flops


def kernels(errors, known):
    """{(operation, kernel): [ms a step, how many]} of HEDDLE_CPU_PROFILE's lines: the train and update programs."""
    found = {}
    for line in errors.splitlines():
        m = re.match(r'(train|update) +\d+ +([\d.]+) ms  (.*)', line)
        if m:
            words = m.group(3).split()
            at = next((i for i, w in enumerate(words) if i and (w in known or w == '-')), len(words))
            row = found.setdefault((words[at] if at < len(words) else '-', ' '.join(words[:at]) + (' (update)' if m.group(1) == 'update' else '')), [0, 0])
            row[0] += float(m.group(2))
            row[1] += 1
    return found


def print_rows(title, rows, ceiling):
    """ROWS: (name, how many, ms a step, flops a step), or why there are none."""
    if isinstance(rows, str):
        print(f'\n#### {title}: {rows}')
        return
    total = sum(r[2] for r in rows) or 1
    print(f'\n#### {title}: {total:.3f} ms a step in kernels\n\n| operation | calls | ms a step | share | GFLOP/s | of sgemm |\n| --- | --- | --- | --- | --- | --- |')
    for name, calls, ms, flops in sorted(rows, key=lambda r: -r[2])[:20]:
        rate = flops / ms / 1e6 if flops and ms else None
        print('| %s | %.0f | %.3f | %.0f %% | ' % (name, calls, ms, 100 * ms / total) + ('%.1f | %.0f %% |' % (rate, 100 * rate / ceiling) if rate else '| |'))


def ceilings(tools, opt, threads, before=None):
    """The best of this measurement and the one before: a busy moment must not lower a ceiling."""
    found = json.loads(tools.run([os.path.join(opt.programs, 'ceilings'), str(threads)])[0])
    return {k: max(v, (before or {}).get(k, 0)) for k, v in found.items()}


def heddle_rows(tools, opt, row, threads, places):
    """(name, how many, ms a step, flops a step) by operation and kernel."""
    log = os.path.join(opt.folder, 'run.jsonl')
    command = measures.heddle_command(tools, opt, row, threads, places, STEPS[row.name], STEPS[row.name], log)
    errors = tools.run(command, dict(tools.environment(opt), HEDDLE_CPU_PROFILE='1'))[1]
    program = tools.run(measures.heddle_command(tools, opt, row, threads, places, 1, 1, log, ('graph', '--program')), tools.environment(opt))[0]
    flops = operations(program)
    found, sums = kernels(errors, set(flops) | set(re.findall(r'= (\w+) ', program)) | {'assign'}), {}
    for (op, _), (ms, _) in found.items():
        sums[op] = sums.get(op, 0) + ms
    return [(f'{op}, {what}', n, ms, flops.get(op, 0) * ms / sums[op] if sums[op] else 0) for (op, what), (ms, n) in found.items()]


def torch_rows(tools, opt, python, row, threads, places):
    text = tools.run([python] + measures.peer_command(row, threads, places, '--profile', str(STEPS[row.name])))[0]
    return [(r['name'], r['calls'], r['ms'], r['flops']) for r in json.loads(text.strip().splitlines()[-1])]


def show(tools, opt, pythons):
    row, result = ROWS[opt.profile], dict(profile=opt.profile, threads=[])
    print(f'\n### Profile: {row.title}')
    with tempfile.TemporaryDirectory() as opt.folder:
        places = make_data(opt.folder, opt.root, {row.data})
        for threads in map(int, opt.threads.split(',')):
            limit, tables = ceilings(tools, opt, threads), []
            sides = [('Heddle', lambda: heddle_rows(tools, opt, row, threads, places))]
            sides += [(f'PyTorch {v}, eager, NCHW', lambda p=p: torch_rows(tools, opt, p, row, threads, places)) for p, v in pythons.items()]
            for name, measure in sides:
                opt.progress(f'{name}, {threads} thread(s)')
                try:
                    tables.append((name, measure()))
                except measures.Failed as e:
                    tables.append((name, str(e)))
                limit = ceilings(tools, opt, threads, limit)
            print(f'\n{threads} thread(s): ceilings of this machine: sgemm (oneDNN) {limit["sgemm_gflops"]} GFLOP/s, copy {limit["copy_gbs"]} GB/s (read + written)')
            for name, rows in tables:
                print_rows(name, rows, limit['sgemm_gflops'])
            result['threads'].append(dict(threads=threads, ceilings=limit, sides=dict(tables)))
    return result

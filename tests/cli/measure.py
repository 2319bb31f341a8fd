"""measure.py: checks of what bench, run --profile and graph --program print.  measure.py CHECK FILE..."""
import json, re, sys

def spread (s):
    assert 0 < s["min"] <= s["median"] <= s["max"], s

def pair (p):
    spread (p["speedup"]); spread (p["samples_per_second"]); spread (p["baseline_samples_per_second"])
    assert p["numerator"] and p["baseline"] and isinstance (p["memory_saved_bytes"], int)

def bench (text):
    d = json.loads (text)
    spread (d["samples_per_second"])
    parts = d["seconds_per_step"]
    assert set (parts) == {"wait", "copy", "forward", "backward", "update", "log", "all"}
    assert sum (v for k, v in parts.items () if k != "all") <= parts["all"] * 1.0001
    assert min (parts[k] for k in ("forward", "backward", "update")) > 0 and parts["copy"] == 0       # a CPU reads inputs in place
    memory = d["memory_bytes"]
    assert memory["parameters"] == memory["gradients"] > 0 and memory["activations"] > 0 and memory["peak_resident"] > memory["parameters"]
    return d

def ablation (text):
    rows = {r["technique"]: r for r in bench (text)["ablation"]}
    assert set (rows) == {"fusion", "threads", "workers", "amp", "pin_memory", "tf32", "cudnn_benchmark"}
    for name in ("pin_memory", "tf32", "cudnn_benchmark"):
        assert rows[name]["not"] == "not on this device" and "speedup" not in rows[name]
    for name in ("fusion", "workers", "amp"):
        pair (rows[name])
    assert rows["fusion"]["numerator"] == "flags.fusion=true" and rows["fusion"]["baseline"] == "flags.fusion=false"
    assert rows["workers"]["memory_saved_bytes"] < 0                                    # a longer ring of batches

def versus (text):
    v = bench (text)["vs"]
    pair (v)
    assert v["numerator"] == "log.lua" and v["baseline"] == "wide.lua"
    assert v["memory_saved_bytes"] > 0                                                  # of fewer parameters

def programs (text):
    found = []
    for block in re.split (r"(?m)^program ", text)[1:]:
        head, body = block.split ("\n", 1)
        arena = int (re.search (r"arena (\d+) bytes", head)[1])
        ops = {int (m[1]): m[2] for m in re.finditer (r"(?m)^  +(\d+)  (?:%.* = )?([a-z]\w*)\b", body)}
        regions = [tuple (map (int, m.groups ()[:4])) + (m[5],) for m in re.finditer (r"(?m)^    @(\d+) +(\d+) +(\d+)\.\.(\d+) +(.*)$", body)]
        found.append ((head.split (":")[0], arena, ops, regions, body, int (re.search (r": (\d+) operations", head)[1])))
    return found

def program (text):
    blocks = programs (text)
    assert any (name == "train" for name, *rest in blocks) and any (name == "update" for name, *rest in blocks)
    for name, arena, ops, regions, body, n in blocks:
        assert len (ops) == n and sorted (ops) == list (range (n)), (name, n, len (ops))
        assert all (offset + size <= arena for offset, size, *rest in regions)
        for i, a in enumerate (regions):
            for b in regions[:i]:       # alive at once at more than a shared border: never the same bytes
                if a[2] < b[3] and b[2] < a[3] and a[2] < a[3] and b[2] < b[3]:
                    assert a[0] + a[1] <= b[0] or b[0] + b[1] <= a[0], (a, b)
        peak = int (re.search (r"peak: (\d+) bytes", body)[1])
        owners = [int (m[1]) for m in re.finditer (r"(?m)^ +(\d+) +[\d.]+ %  ", body)]
        assert sum (owners) == peak <= arena and owners == sorted (owners, reverse = True)
        listed = body.split ("  reorders: ")[1].split ("\n")
        assert int (listed[0]) == sum (" -> " in line for line in listed[1:])

def profile (text, program_text):
    d = json.loads (text)
    events = d["traceEvents"]
    assert d["otherData"]["lost_spans"] == 0
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    kinds = {}
    for e in events:
        assert e["ph"] in ("M", "X") and e["pid"] == 1
        if e["ph"] == "X":
            assert e["ts"] >= 0 and e["dur"] >= 0 and e["tid"] in names
            kinds.setdefault (e["tid"], []).append (e)
    assert {re.sub (r" .*", "", names[t]) for t in kinds} == {"training", "prefetch", "logger"}, names
    for spans in kinds.values ():       # spans of one thread lie side by side or inside one another
        stack = []
        for e in sorted (spans, key = lambda e: (round (e["ts"] * 1000), -round (e["dur"] * 1000))):
            start, end = round (e["ts"] * 1000), round (e["ts"] * 1000) + round (e["dur"] * 1000)
            while stack and stack[-1] <= start:
                stack.pop ()
            assert not stack or end <= stack[-1], e
            stack.append (end)
    main = next (spans for t, spans in kinds.items () if names[t] == "training")
    steps = [e for e in main if e["name"] == "step"]
    assert [e["args"]["step"] for e in steps] == [0, 1, 2]                               # --profile-steps 3 of 8
    inside = lambda e, outer: outer["ts"] - 0.001 <= e["ts"] and e["ts"] + e["dur"] <= outer["ts"] + outer["dur"] + 0.002
    listed = {name: (ops, body) for name, a, ops, r, body, n in reversed (programs (program_text))}
    for stage, name in (("train", "train"), ("optimizer", "update")):
        for outer in [e for e in main if e["cat"] == "stage" and e["name"] == stage]:
            ops = [e for e in main if e["cat"] == "op" and inside (e, outer)]
            numbers = [e["args"]["op"] for e in ops]
            assert ops and numbers == sorted (numbers)
            assert all (listed[name][0][e["args"]["op"]] == e["name"] for e in ops)
            own = {i for i, op in listed[name][0].items () if re.search (rf"(?m)^ +{i}  .*\[(?!.*loop \d).*\]$", listed[name][1]) and op not in ("reshape", "assign")}
            assert own <= set (numbers), (stage, own - set (numbers))
    for stage in ("prefetch", "log", "optimizer"):
        assert len ([e for e in main if e["name"] == stage and e["cat"] == "stage"]) == 3, stage
    assert {e["name"] for e in main if e["cat"] == "phase"} == {"forward", "backward", "update"}

def waits (text, part):
    events = [json.loads (line) for line in text.splitlines ()]
    events = [e for e in events if e["event"] in ("batch", "epoch_end") and e["step"] > 1]        # the first step also touches all memory
    assert len (events) == 3
    for b in events:
        parts = {k: b["wait_" + k] for k in ("read", "convert", "cpu", "copy")}
        assert abs (sum (parts.values ()) - b["wait_share"]) < 1e-9 and b["wait_share"] > 0.5
        assert max (parts, key = parts.get) == part and parts["copy"] == 0, parts

check, *files = sys.argv[1:]
texts = [open (f).read () for f in files if not f.startswith ("=")]
globals ()[check] (*texts, *[f[1:] for f in files if f.startswith ("=")])

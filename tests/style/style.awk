# style.awk FILE...: house rules that a machine can check; prints FILE:LINE: what is wrong, exits 1 if anything is.
# FILEs are named from the source folder: core/..., plugins/..., tests/...  Rules and reasons: docs and design, "layers" and "house rules".
BEGIN {
  n = split ("base tensor program backend plugin stage pipeline script cli", order, " ")
  for (i = 1; i <= n; i++)
    rank[order[i]] = i
}

function wrong(line, text)
{
  printf "%s:%d: %s\n", file, line, text
  faults++
}

# What was open when the file ended.
function finish()
{
  if (file != "" && lines > 800)
    wrong(lines, "has " lines " lines; 800 is the most")
  if (needs_head && !(head ~ /[Mm]ust not|[Kk]nows (no|only)|[Pp]rivate to/))
    wrong(1, "the head does not say what the file must not know")
}

FNR == 1 {
  finish()
  file = FILENAME
  c_code = file ~ /\.[ch]$/
  header = file ~ /^core\/.*\.h$/
  needs_head = c_code && file ~ /^(core|plugins)\//
  split (file, part, "/")
  layer = part[1] == "core" ? part[2] : ""
  guard = depth = braces = in_struct = 0
  head = ""
  in_head = needs_head
  if (needs_head)
    check_title()
}
{ lines = FNR }

# "/* FOLDER/FILE: what it owns"; FOLDER may leave out what is plain from where the file lies ("core/", "core/backend/").
function check_title(    title)
{
  title = $0
  if (title !~ /^\/\* [^ ]+: ./)
    wrong(1, "does not begin with a head: /* folder/file: what it owns.  What it must not know. */")
  else
    {
      sub (/^\/\* /, "", title)
      sub (/: .*/, "", title)
      if (title !~ /\// || substr ("/" file, length (file) + 1 - length (title)) != "/" title)
        wrong(1, "the head names " title)
    }
}

in_head {
  head = head $0
  in_head = $0 !~ /\*\//
}

# ---- includes ----
c_code && /^[ \t]*#[ \t]*include[ \t]/ {
  name = $0
  sub (/^[ \t]*#[ \t]*include[ \t]*/, "", name)
  quoted = name ~ /^"/
  name = substr (name, 2)
  sub (/[">].*$/, "", name)
  target = name
  sub (/\/.*/, "", target)
  if (quoted && name ~ /\.\./)
    wrong(FNR, "includes \"" name "\" by a relative path")
  else if (quoted && layer != "" && target != name)
    {
      if (!(target in rank))
        wrong(FNR, "includes \"" name "\", which is in no layer")
      else if (rank[target] > rank[layer])
        wrong(FNR, "includes \"" name "\": " layer " is below " target)
    }
  if (file ~ /^plugins\// && quoted && target != name)
    wrong(FNR, "includes \"" name "\": of Heddle a plugin sees <heddle/plugin.h> only")
  if (layer != "" && name ~ /^heddle\//)
    wrong(FNR, "includes <" name ">, which is made from core/")
  if (file ~ /^(core|plugins)\// && name ~ /^(lua|lauxlib|lualib|luaconf)\.h|^lua[0-9.]*\// && layer != "script")
    wrong(FNR, "includes " name ": only core/script knows Lua")
  if (file ~ /^(core|plugins)\// && name ~ /^(cuda|cublas|cudnn|nvrtc|nvJitLink|curand|cufft|cusparse|cusolver|nccl|nvToolsExt|nvtx|driver_types|vector_types|device_launch)/ && file !~ /^core\/backend\/cuda\//)
    wrong(FNR, "includes " name ": only core/backend/cuda knows CUDA")
}

# ---- structures of headers do not depend on #if ----
header && /^[ \t]*#[ \t]*(if|ifdef|ifndef)/ {
  if (FNR <= 12 && !guard && /ifndef HEDDLE_[A-Z0-9_]*_H$/)
    guard = 1
  else
    depth++
}
header && /^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else)/ && in_struct { wrong(FNR, "a structure that changes under #if") }
header && /^[ \t]*#[ \t]*endif/ { if (depth > 0) depth-- }
header && !/^[ \t]*#/ {
  code = $0
  gsub (/\/\*.*\*\/|"[^"]*"/, "", code)
  if (!in_struct && braces == 0 && code ~ /^[ \t]*(typedef[ \t]+)?(struct|union|enum)([ \t]|$)/ && code !~ /[;(]/)
    {
      in_struct = 1
      if (depth > 0)
        wrong(FNR, "a structure that exists under #if only")
    }
  else if (!in_struct && braces == 0 && depth > 0 && code ~ /^[ \t]*(typedef[ \t]+)?(struct|union|enum)[^()]*\{/)
    wrong(FNR, "a structure that exists under #if only")
  braces += gsub (/\{/, "", code) - gsub (/\}/, "", code)
  if (in_struct && braces == 0 && $0 ~ /[;}]/)
    in_struct = 0
}

END {
  finish()
  exit faults > 0
}

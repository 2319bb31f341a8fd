-- tests/bench/gpu/train.lua: one training run of the GPU benchmark; gpu.py gives the arguments.  Also what `heddle bench --ablate` is run with.

local h = require "heddle"

local model   = h.arg ("model", "resnet50", "lenet, mlp, resnet20, resnet18, resnet50 or gpt2")
local root    = h.arg ("root", "data", "folder that gpu.py filled")
local device  = h.arg ("device", "cuda", "cuda; cpu to try the benchmark itself")
local amp     = h.arg ("amp", "bf16", "f32, f16 or bf16")
local tuned   = h.arg ("tuned", 1, "1: TF32 and autotuning on")
local steps   = h.arg ("steps", 100, "batches to train")
local every   = h.arg ("every", 10, "batches from one measurement to the next")
local size    = h.arg ("batch", 64, "samples in a batch")
local pixels  = h.arg ("pixels", 224, "height and width of the large images")
local context = h.arg ("context", 1024, "tokens of a sample")
local layers  = h.arg ("layers", 12, "blocks of the transformer")
local words   = h.arg ("vocabulary", 50257, "different tokens")
local log     = h.arg ("log", "bench.jsonl", "file for the measurements")

h.flags { tf32 = tuned == 1, cudnn_benchmark = tuned == 1 }

local function images (channels, side, classes) return h.dataset "resident" { path = root .. "/" .. model .. ".bin", shape = { channels, side, side }, classes = classes } end
local data = model == "gpt2" and h.dataset "npy" { root = root, fields = { tokens = { file = "tokens.npy", classes = words }, targets = { file = "targets.npy", classes = words } } }
             or (model == "lenet" or model == "mlp") and images (1, 28, 10) or model == "resnet20" and images (3, 32, 10) or images (3, pixels, 1000)
local batch = h.prefetch { data, batch_size = size, shuffle = true, drop_last = true, num_workers = "auto", prefetch_factor = 4, pin_memory = true, persistent_workers = true }

local networks = {
  lenet = function () return h.model "lenet" { batch.image, classes = 10 } end,
  mlp = function () return h.model "mlp" { batch.image, hidden = { 512, 256 }, classes = 10 } end,
  resnet20 = function () return h.model "resnet" { batch.image, depth = 20, classes = 10 } end,
  resnet18 = function () return h.model "resnet" { batch.image, depth = 18, stem = "large", classes = 1000 } end,
  resnet50 = function () return h.model "resnet" { batch.image, depth = 50, stem = "large", classes = 1000 } end,
  gpt2 = function () return h.model "gpt" { batch.tokens, layers = layers, context = context, classes = words, dropout = 0 } end,
}
local loss = h.loss "cross_entropy" { networks[model] (), model == "gpt2" and batch.targets or batch.label }
local scaled = h.amp { loss, dtype = amp }
local step = model == "gpt2" and h.optimizer "adamw" { scaled, lr = 3e-4, weight_decay = 0.1 } or h.optimizer "sgd" { scaled, lr = 0.01, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }

return h.train { step, device = device, epochs = 1, steps_per_epoch = steps, log = { h.logger "jsonl" { path = log, interval = every } } }

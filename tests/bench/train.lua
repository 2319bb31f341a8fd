-- tests/bench/train.lua: one training run of a benchmark; compare.py gives the arguments.
-- No evaluation and no second logger, so that a run is the training steps and their batches alone.

local h = require "heddle"
local L = require "heddle.layers"

local model   = h.arg ("model", "lenet", "tiny, lenet, mlp, cnn, resnet20, resnet18, mobilenet or gpt")
local root    = h.arg ("root", "/usr/share/datasets/fashion-mnist", "Fashion-MNIST's folder; for the other networks the folder or file compare.py wrote")
local threads = h.arg ("threads", 1, "CPU threads")
local steps   = h.arg ("steps", 100, "batches to train")
local every   = h.arg ("every", 10, "batches from one measurement to the next")
local batch_size = h.arg ("batch", 64, "samples in a batch")
local lr      = h.arg ("lr", 0.05, "learning rate")
local log     = h.arg ("log", "bench.jsonl", "file for the measurements")

h.flags { threads = threads }

local function fashion () return h.dataset "idx" { root = root, split = "train", mean = 0.2860, std = 0.3530 } end
local function large () return h.dataset "resident" { path = root, shape = { 3, 224, 224 }, classes = 1000 } end

local data = {
  lenet = fashion, mlp = fashion, cnn = fashion, resnet18 = large, mobilenet = large,
  tiny = function () return h.dataset "resident" { path = root, shape = { 8 }, classes = 8 } end,
  resnet20 = function () return h.dataset "cifar" { root = root, split = "train" } end,
  gpt = function () return h.dataset "text" { file = root, window = 128 } end,
}
-- read on the training thread: both sides use just as many threads as they say
local batch = h.prefetch { data[model] (), batch_size = batch_size, shuffle = true, drop_last = true, num_workers = 0 }

local networks = {
  tiny = function ()
    return h.model "sequential" { batch.image, layers = L.chain ({ L.linear { 8 }, L.relu {} }, { L.linear { 8 }, L.relu {} }, { L.linear { 8 }, L.relu {} }, { L.linear { 8 }, L.relu {} }) }
  end,
  lenet = function () return h.model "lenet" { batch.image, classes = 10 } end,
  mlp = function () return h.model "mlp" { batch.image, hidden = { 512, 256 }, classes = 10 } end,
  resnet20 = function () return h.model "resnet" { batch.image, depth = 20, classes = 10 } end,
  resnet18 = function () return h.model "resnet" { batch.image, depth = 18, classes = 1000 } end,
  mobilenet = function () return h.model "mobilenet" { batch.image, classes = 1000 } end,
  gpt = function () return h.model "gpt" { batch.tokens, layers = 4, width = 128, heads = 4, context = 128, classes = batch.targets.classes, dropout = 0 } end,
  cnn = function ()
    return h.model "sequential" { batch.image, layers = L.chain (
      L.conv_bn (32), L.conv_bn (32), { L.max_pool { kernel = 2 } }, L.conv_bn (64), L.conv_bn (64), { L.max_pool { kernel = 2 } },
      L.conv_bn (128), L.conv_bn (128), { L.global_avg_pool {}, L.linear { features = 10 } }) }
  end,
}

local loss = h.loss "cross_entropy" { networks[model] (), model == "gpt" and batch.targets or batch.label }
local step = model == "gpt" and h.optimizer "adamw" { loss, lr = lr, weight_decay = 0.01 }
             or h.optimizer "sgd" { loss, lr = lr, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }

return h.train { step, epochs = 1, steps_per_epoch = steps, log = { h.logger "jsonl" { path = log, interval = every } } }

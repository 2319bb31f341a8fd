-- tests/bench/train.lua: one training run of a benchmark; compare.py gives the arguments.
-- No evaluation and no second logger, so that a run is the training steps and their batches alone.

local h = require "heddle"
local L = require "heddle.layers"

local model   = h.arg ("model", "lenet", "lenet, cnn or resnet20")
local root    = h.arg ("root", "/usr/share/datasets/fashion-mnist", "folder with the data: Fashion-MNIST, or CIFAR-10's binary version for resnet20")
local threads = h.arg ("threads", 1, "CPU threads")
local steps   = h.arg ("steps", 100, "batches to train")
local every   = h.arg ("every", 10, "batches from one measurement to the next")
local log     = h.arg ("log", "bench.jsonl", "file for the measurements")

h.flags { threads = threads }

local images = model == "resnet20" and h.dataset "cifar" { root = root, split = "train" }
               or h.dataset "idx" { root = root, split = "train", mean = 0.2860, std = 0.3530 }
-- read on the training thread: both sides use just as many threads as they say
local batch  = h.prefetch { images, batch_size = 64, shuffle = true, drop_last = true, num_workers = 0 }

local networks = {
  lenet = function () return h.model "lenet" { batch.image, classes = 10 } end,
  resnet20 = function () return h.model "resnet" { batch.image, depth = 20, classes = 10 } end,
  cnn = function ()
    return h.model "sequential" { batch.image, layers = L.chain (
      L.conv_bn (32), L.conv_bn (32), { L.max_pool { kernel = 2 } }, L.conv_bn (64), L.conv_bn (64), { L.max_pool { kernel = 2 } },
      L.conv_bn (128), L.conv_bn (128), { L.global_avg_pool {}, L.linear { features = 10 } }) }
  end,
}

local loss = h.loss "cross_entropy" { networks[model] (), batch.label }
local step = h.optimizer "sgd" { loss, lr = model == "lenet" and 0.05 or 0.1, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }

return h.train { step, epochs = 1, steps_per_epoch = steps, schedule = h.schedule "linear" {}, log = { h.logger "jsonl" { path = log, interval = every } } }

-- Fashion-MNIST with a batch-norm CNN that is described here, without any C: heddle run pipelines/fashion-mnist-cnn.lua

local h = require "heddle"
local L = require "heddle.layers"

local dataset = h.arg ("dataset", "idx", "dataset plugin to train on")
local root    = h.arg ("root", "/usr/share/datasets/fashion-mnist", "folder with the data")
local epochs  = h.arg ("epochs", 5, "epochs to train")
local lr      = h.arg ("lr", 0.1, "peak learning rate; falls linearly to 0")
local log     = h.arg ("log", "", "write every event to this file as JSON lines")

local function data (split)
  if dataset ~= "idx" then return h.dataset (dataset) { split = split } end
  return h.dataset "idx" { root = root, split = split, mean = 0.2860, std = 0.3530 }
end

local network = L.chain (L.conv_bn (32), L.conv_bn (32), { L.max_pool { kernel = 2 } },
                         L.conv_bn (64), L.conv_bn (64), { L.max_pool { kernel = 2 } },
                         L.conv_bn (128), L.conv_bn (128),
                         { L.global_avg_pool {}, L.linear { features = 10 } })

local batch  = h.prefetch { data "train", batch_size = 64, shuffle = true, drop_last = true, workers = 1 }
local logits = h.model "sequential" { batch.image, layers = network }
local loss   = h.loss "cross_entropy" { logits, batch.label }
local step   = h.optimizer "sgd" { loss, lr = lr, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }

local loggers = { h.logger "progress" { interval = 50 } }
if log ~= "" then loggers[2] = h.logger "jsonl" { path = log } end

return h.train { step, epochs = epochs, schedule = h.schedule "linear" {},
  eval = { data = data "test", accuracy = h.metric "accuracy" { logits, batch.label } },
  log = loggers }

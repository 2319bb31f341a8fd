-- Mixed precision: LeNet with 16-bit activations, f32 master weights and a scaled loss: heddle run pipelines/amp.lua --arg dtype=f16

local h = require "heddle"

local dataset = h.arg ("dataset", "idx", "dataset plugin to train on")
local root    = h.arg ("root", "/usr/share/datasets/fashion-mnist", "folder with the data")
local dtype   = h.arg ("dtype", "auto", "auto, f16, bf16 or f32")

h.flags { tf32 = true, cudnn_benchmark = true }

local function data (split)
  if dataset ~= "idx" then return h.dataset (dataset) { split = split } end
  return h.dataset "idx" { root = root, split = split, mean = 0.2860, std = 0.3530 }
end

local batch  = h.prefetch { data "train", batch_size = 64, shuffle = true, drop_last = true, pin_memory = true }
local logits = h.model "lenet" { batch.image, classes = batch.label.classes }
local loss   = h.loss "cross_entropy" { logits, batch.label }
local step   = h.optimizer "sgd" { h.amp { loss, dtype = dtype }, lr = 0.05, momentum = 0.9, weight_decay = 5e-4 }

return h.train { step, epochs = 2, schedule = h.schedule "one_cycle" {}, clip_norm = 5,
  eval = { data = data "test", accuracy = h.metric "accuracy" { logits, batch.label } },
  log = { h.logger "progress" { interval = 100 } } }

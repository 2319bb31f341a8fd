-- A multi-layer perceptron with AdamW, cosine schedule, accumulation and clipping: heddle run pipelines/mlp.lua

local h = require "heddle"

local dataset = h.arg ("dataset", "idx", "dataset plugin to train on")
local root    = h.arg ("root", "/usr/share/datasets/fashion-mnist", "folder with the data")

local function data (split)
  if dataset ~= "idx" then return h.dataset (dataset) { split = split } end
  return h.dataset "idx" { root = root, split = split, mean = 0.2860, std = 0.3530 }
end

local batch  = h.prefetch { data "train", batch_size = 64, shuffle = true }
local logits = h.model "mlp" { batch.image, classes = batch.label.classes, hidden = { 512, 256 }, dropout = 0.1 }
local loss   = h.loss "cross_entropy" { logits, batch.label, label_smoothing = 0.05 }
local step   = h.optimizer "adamw" { loss, lr = 1e-3, weight_decay = 0.01, decay = "weights" }

return h.train { step, epochs = 10, steps_per_epoch = 400, epoch_mode = "continue", accumulate = 2, clip_norm = 1.0,
  schedule = h.schedule "cosine" { warmup = 100 },
  eval = { data = data "test", accuracy = h.metric "accuracy" { logits, batch.label }, top3 = h.metric "top_k" { logits, batch.label, k = 3 } },
  log = { h.logger "progress" { interval = 100 } } }

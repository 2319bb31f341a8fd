-- CIFAR-10 with a small vision transformer: heddle run pipelines/cifar-vit.lua --arg root=cifar-10-batches-bin
-- Without the data: --arg dataset=synthetic trains on made-up images of the same shape.

local h = require "heddle"

local dataset = h.arg ("dataset", "cifar", "dataset plugin to train on")
local root    = h.arg ("root", "cifar-10-batches-bin", "folder with the binary version of CIFAR-10")
local epochs  = h.arg ("epochs", 50, "epochs to train")
local layers  = h.arg ("layers", 6, "transformer blocks")

local function data (split, augment)
  if dataset == "synthetic" then return h.dataset "synthetic" { split = split, shape = { 3, 32, 32 }, dtype = "u8", length = 512 } end
  return h.dataset (dataset) { root = root, split = split, crop_padding = augment and 4 or 0, flip = augment }
end

local batch  = h.prefetch { data ("train", true), batch_size = 64, shuffle = true, drop_last = true }
local logits = h.model "vit" { batch.image, classes = batch.label.classes, patch = 4, layers = layers, heads = 3, width = 192, dropout = 0.1 }
local loss   = h.loss "cross_entropy" { logits, batch.label, label_smoothing = 0.1 }
local step   = h.optimizer "adamw" { loss, lr = 1e-3, weight_decay = 0.05, decay = "weights" }

return h.train { step, epochs = epochs, clip_norm = 1, schedule = h.schedule "cosine" { warmup = 300 },
  eval = { data = data ("test", false), accuracy = h.metric "accuracy" { logits, batch.label } },
  log = { h.logger "progress" { interval = 50 } } }

-- CIFAR-10 with MobileNet-v2, strides for 32x32, and RMSprop as in its paper: heddle run pipelines/cifar-mobilenet.lua --arg root=cifar-10-batches-bin
-- Without the data: --arg dataset=synthetic trains on made-up images of the same shape.

local h = require "heddle"

local dataset    = h.arg ("dataset", "cifar", "dataset plugin to train on")
local root       = h.arg ("root", "cifar-10-batches-bin", "folder with the binary version of CIFAR-10")
local epochs     = h.arg ("epochs", 30, "epochs to train")
local multiplier = h.arg ("multiplier", 0.5, "width of every layer, times this")

local function data (split, augment)
  if dataset == "synthetic" then return h.dataset "synthetic" { split = split, shape = { 3, 32, 32 }, dtype = "u8", length = 512 } end
  return h.dataset (dataset) { root = root, split = split, crop_padding = augment and 4 or 0, flip = augment }
end

local batch  = h.prefetch { data ("train", true), batch_size = 32, shuffle = true, drop_last = true }
local logits = h.model "mobilenet" { batch.image, classes = batch.label.classes, multiplier = multiplier }
local loss   = h.loss "cross_entropy" { logits, batch.label }
local step   = h.optimizer "rmsprop" { loss, lr = 2e-3, momentum = 0.9, alpha = 0.9, eps = 1e-3, weight_decay = 4e-5 }

return h.train { step, epochs = epochs, schedule = h.schedule "cosine" { warmup = 300 },
  eval = { data = data ("test", false), accuracy = h.metric "accuracy" { logits, batch.label } },
  log = { h.logger "progress" { interval = 50 } } }

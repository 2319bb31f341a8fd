-- CIFAR-10 with ResNet-20: heddle run pipelines/cifar-resnet20.lua --arg root=cifar-10-batches-bin
-- Without the data: --arg dataset=synthetic trains on made-up images of the same shape.

local h = require "heddle"

local dataset = h.arg ("dataset", "cifar", "dataset plugin to train on")
local root    = h.arg ("root", "cifar-10-batches-bin", "folder with the binary version of CIFAR-10")
local epochs  = h.arg ("epochs", 20, "epochs to train")
local amp     = h.arg ("amp", "f32", "f32, f16, bf16 or auto")

h.flags { cudnn_benchmark = true, tf32 = true }

local function data (split, augment)
  if dataset == "synthetic" then return h.dataset "synthetic" { split = split, shape = { 3, 32, 32 }, dtype = "u8", length = 1024 } end
  return h.dataset (dataset) { root = root, split = split, crop_padding = augment and 4 or 0, flip = augment }
end

local batch  = h.prefetch { data ("train", true), batch_size = 64, shuffle = true, drop_last = true, workers = "auto", pin_memory = true }
local logits = h.model "resnet" { batch.image, depth = 20, classes = batch.label.classes }
local loss   = h.loss "cross_entropy" { logits, batch.label }
local step   = h.optimizer "sgd" { h.amp { loss, dtype = amp }, lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }

return h.train { step, epochs = epochs, schedule = h.schedule "cosine" { warmup = 200 },
  eval = { data = data ("test", false), accuracy = h.metric "accuracy" { logits, batch.label }, top5 = h.metric "top_k" { logits, batch.label, k = 5 } },
  log = { h.logger "progress" { interval = 50 } } }

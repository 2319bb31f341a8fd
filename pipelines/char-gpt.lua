-- A character-level GPT on any text file: heddle run pipelines/char-gpt.lua --arg file=shakespeare.txt
-- The default is a text that every Debian system has.

local h = require "heddle"

local file    = h.arg ("file", "/usr/share/common-licenses/GPL-3", "plain text, UTF-8")
local window  = h.arg ("window", 64, "characters of context")
local width   = h.arg ("width", 128, "length of a character's vector")
local layers  = h.arg ("layers", 4, "transformer blocks")
local steps   = h.arg ("steps", 1000, "batches to train")
local lr      = h.arg ("lr", 1e-3, "peak learning rate")

local train = h.dataset "text" { file = file, window = window, split = "train", windows = "random", length = 16 * 200 }
local test  = h.dataset "text" { file = file, window = window, split = "test" }

local batch  = h.prefetch { train, batch_size = 16, num_workers = 1 }
local logits = h.model "gpt" { batch.tokens, classes = batch.targets.classes, layers = layers, heads = 4, width = width, context = window, dropout = 0.1 }
local loss   = h.loss "cross_entropy" { logits, batch.targets }
local step   = h.optimizer "adamw" { loss, lr = lr, betas = { 0.9, 0.99 }, weight_decay = 0.1, decay = "weights" }

return h.train { step, epochs = (steps + 199) // 200, max_steps = steps, clip_norm = 1, schedule = h.schedule "cosine" { warmup = 100 },
  eval = { data = test, accuracy = h.metric "accuracy" { logits, batch.targets } },
  log = { h.logger "progress" { interval = 50 } } }

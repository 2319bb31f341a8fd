-- heddle/layers.lua: constructors for the layers of h.model "sequential"; each returns a plain table.
--   local L = require "heddle.layers"
--   h.model "sequential" { batch.image, layers = { L.conv2d { 32, kernel = 3 }, L.relu {}, L.flatten {}, L.linear { 10 } } }

local layers = {}

-- linear takes the last axis of a sequence (N, T, features) and flattens anything of higher rank; last_axis = true or false decides otherwise.
-- attention { 8, causal = true } is self-attention of a sequence: one projection to queries, keys and values, heads, one projection back.
-- reshape { { 4, -1 } } gives the sizes of one sample, permute { { 0, 2, 1 } } counts the batch axis as 0, transpose {} exchanges the last two axes.

-- Each layer type and the option that may be given without its name: L.linear { 10 }, L.conv2d { 32, kernel = 3 }
local types = { conv2d = "channels", conv_transpose2d = "channels", upsample = "scale",
                relu6 = false, leaky_relu = "slope", clamp = false, silu = false, hardswish = false,
                linear = "features", batch_norm = false, layer_norm = false, rms_norm = false, group_norm = "groups",
                embedding = "count", positional_embedding = "count", attention = "heads", reshape = "shape", permute = "axes", transpose = false, max_pool = "kernel", avg_pool = "kernel", global_avg_pool = false, relu = false,
                gelu = false, sigmoid = false, tanh = false, softmax = "axis", log_softmax = "axis", dropout = "probability", flatten = false, residual = "layers" }

for name, main in pairs (types) do
  layers[name] = function (options)
    local layer = { type = name }
    for key, value in pairs (options or {}) do
      if key == 1 and main then key = main end
      layer[key] = value
    end
    return layer
  end
end

-- Joins lists of layers into one list: layers.chain (block (1, 32), block (32, 64), { L.flatten {} })
function layers.chain (...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, layer in ipairs (list) do all[#all + 1] = layer end
  end
  return all
end

-- Convolution without bias, batch norm, relu: the usual block.
function layers.conv_bn (channels, kernel, stride)
  kernel = kernel or 3
  return { layers.conv2d { channels = channels, kernel = kernel, stride = stride or 1, padding = kernel // 2, bias = false },
           layers.batch_norm {}, layers.relu {} }
end

return layers
